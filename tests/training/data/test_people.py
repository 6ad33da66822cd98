"""COCO files as sources of people: which are read, which are skipped and counted, and errors that name the file."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from oaks.skeleton import COCO17, Skeleton
from oaks.skipping import SkippedItems
from oaks.training.data import people as people_module
from oaks.training.data.people import DamagedImage, fold_of, read_coco
from tests.training.conftest import read_people as read
from tests.training.conftest import save, write_people


def content_of(folder: Path) -> dict:
    return json.loads((folder / "annotations.json").read_text())


def test_people_are_read_as_annotated(people_folder: Path) -> None:
    people, annotations = read(people_folder), content_of(people_folder)["annotations"]
    assert len(people) == len(annotations) == 12
    assert not people.skipped
    for index, annotation in enumerate(annotations):
        image, person = people.sample(index)
        x, y, w, h = annotation["bbox"]
        assert image.shape == (96, 128, 3)
        assert (person.image_id, person.person_id) == (annotation["image_id"], annotation["id"])
        np.testing.assert_allclose(person.keypoints.ravel(), annotation["keypoints"], rtol=1e-6)
        np.testing.assert_allclose(person.box, [x, y, x + w, y + h], rtol=1e-6)
        assert person.area == pytest.approx(annotation["area"], rel=1e-6)
        assert person.annotatable.all()


def test_unsuitable_annotations_are_skipped_and_counted(people_folder: Path) -> None:
    content = content_of(people_folder)
    rows = content["annotations"]
    rows[0]["iscrowd"] = 1
    rows[1].update(keypoints=[0] * 51, num_keypoints=0)
    rows[2]["category_id"] = 7
    rows[3]["bbox"] = [5, 5, 0, 20]
    del rows[4]["bbox"]
    rows[5]["image_id"] = 99
    del rows[6]["area"]
    (people_folder / "images" / "6.jpg").unlink()  # of the last two people
    content["categories"].append({"id": 7, "name": "dog"})
    save(people_folder, content)
    with SkippedItems() as skipped:
        people = read(people_folder)
    assert "1: 6.jpg" in skipped.items.values()
    assert people.person_ids.tolist() == [7, 8, 9, 10]
    assert people.skipped == Counter({
        "crowd regions": 1,
        "people without keypoints": 1,
        "annotations of another category": 1,
        "annotations without a box of some extent": 2,
        "annotations of images that the file does not list": 1,
        "annotations without area, estimated from the box": 1,
        "people in images that are missing on disk": 2,
    })  # fmt: skip
    w, h = rows[6]["bbox"][2:]
    assert people.areas[0] == pytest.approx(0.53 * w * h, rel=1e-6)


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_picture_is_damaged(people_folder: Path, part: float) -> None:
    """OpenCV would fill the missing part with gray. A thumbnail in the headers contains the end marker of JPEG too."""
    path = people_folder / "images" / "2.jpg"
    content = path.read_bytes()
    thumbnail = b"\xff\xff\xe1" + struct.pack(">H", 2 + len(content)) + content
    path.write_bytes(content[:2] + thumbnail + content[2:])
    image, _ = read(people_folder).sample(2)
    np.testing.assert_array_equal(image, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    path.write_bytes(content[:2] + thumbnail + content[2 : int(part * len(content))])
    assert cv2.imread(str(path)) is not None
    people_module.read_image.cache_clear()
    with pytest.raises(
        DamagedImage, match=r"2\.jpg: damaged: the JPEG file ends before.* \(image 2, person 3 of people"
    ):
        read(people_folder).sample(2)


def test_a_picture_of_another_size_than_annotated_is_damaged(people_folder: Path) -> None:
    content = content_of(people_folder)
    content["images"][1] |= {"width": 256, "height": 192}
    save(people_folder, content)
    with pytest.raises(
        DamagedImage, match=r"2\.jpg: its size must be that of its labels, 256×192, got 128×96 \(image 2"
    ):
        read(people_folder).sample(2)
    del content["images"][1]["width"], content["images"][1]["height"]
    save(people_folder, content)
    assert read(people_folder).sample(2)[0].shape == (96, 128, 3)


def test_the_number_of_keypoints_without_names_must_be_that_of_the_skeleton(people_folder: Path) -> None:
    content = content_of(people_folder)
    content["categories"] = [{"id": 1, "name": "person"}]
    save(people_folder, content)
    assert len(read(people_folder)) == 12
    content["annotations"][4]["keypoints"] += [1, 2, 2]
    save(people_folder, content)
    with pytest.raises(
        ValueError,
        match=r"annotations\.json: annotation 5: keypoints must be 51 numbers for 17 keypoints, got 54",
    ):
        read(people_folder)


def test_a_picture_with_an_enormous_size_in_its_header_is_damaged(people_folder: Path) -> None:
    content = content_of(people_folder)
    content["images"][1]["file_name"] = "enormous.png"
    save(people_folder, content)
    header = struct.pack(">IIBBBBB", 1 << 16, 1 << 16, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, b"IDAT"))
    (people_folder / "images" / "enormous.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(DamagedImage, match=r"enormous\.png: width times height must .* \(image 2, person 3"):
        read(people_folder).sample(2)


def test_the_digest_depends_on_everything_that_samples_depend_on(people_folder: Path) -> None:
    before = read(people_folder)
    assert read(people_folder).digest() == before.digest()
    assert before.subset(np.arange(11)).digest() != before.digest()
    for change in (
        {"bbox": [1, 2, 30, 40]}, {"area": 77.0}, {"keypoints": [9, 9, 2] * 17, "num_keypoints": 17}, {"id": 99},
        {"image_id": 1},
    ):  # fmt: skip
        content = content_of(people_folder)
        content["annotations"][-1] |= change
        save(people_folder, content)
        assert read(people_folder).digest() != before.digest(), change
        write_people(people_folder)
    assert read(people_folder).digest() == before.digest()
    assert read(people_folder, never_labeled=["left_ear"]).digest() != before.digest()
    assert read(people_folder, trust_absence=False).digest() != before.digest()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda c: c["annotations"][3].update(keypoints=[1, 2, 2] * 5),
            "annotation 4: keypoints must be 51 numbers for 17 keypoints, got 15",
        ),
        (
            lambda c: c["annotations"][3]["keypoints"].__setitem__(0, float("nan")),
            "annotation 4: keypoints must be .* finite numbers",
        ),
        (
            lambda c: c["annotations"][3].update(keypoints=[[1, 2, 2]] * 17),
            "annotation 4: keypoints must be .* finite numbers",
        ),
        (
            lambda c: c["annotations"][3].update(area=float("nan")),
            "annotation 4: area must be a finite number",
        ),
        (lambda c: c["annotations"][3]["bbox"].__setitem__(2, None), "annotation 4: bbox must be"),
        (
            lambda c: c["annotations"][3].update(id="four"),
            r"annotations\[3\]: id must be an integer .*'four'",
        ),
        (lambda c: c["images"][0].update(file_name=3), "image 1: file_name must be text"),
        (lambda c: c["images"][0].update(file_name="../1.jpg"), "image 1: file_name must stay within"),
        (lambda c: c["images"][2].update(id="000003"), r"images\[2\]: id must be an integer"),
        (lambda c: c["categories"][0].update(keypoints=["nose"]), "lacks the keypoints"),
        (lambda c: c["categories"].append({"id": 2, "name": "animal", "keypoints": ["tail"]}), None),
        (
            lambda c: c["categories"].append({"id": 2, "name": "person", "keypoints": ["a"]}),
            "must have one category",
        ),
        (lambda c: c.pop("annotations"), "not a COCO annotation file"),
        (
            lambda c: [a.pop("image_id") for a in c["annotations"]],
            "annotation 1: image_id must be an integer",
        ),
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "must have people to learn from"),
    ],
)
def test_errors_name_the_file_and_the_annotation(people_folder: Path, spoil, message: str | None) -> None:
    content = content_of(people_folder)
    spoil(content)
    save(people_folder, content)
    if message is None:  # another category with keypoints besides the one named person
        assert len(read(people_folder)) == 12
        return
    with pytest.raises(ValueError, match=message) as caught:
        read(people_folder)
    assert "annotations.json" in str(caught.value)


def test_invalid_json_is_refused(people_folder: Path) -> None:
    (people_folder / "annotations.json").write_text("{")
    with pytest.raises(ValueError, match=r"annotations\.json is not valid JSON"):
        read(people_folder)


def test_keypoints_are_found_by_name(people_folder: Path) -> None:
    content = content_of(people_folder)
    order = np.random.default_rng(0).permutation(17)
    content["categories"][0]["keypoints"] = [COCO17.keypoints[k] for k in order]
    expected = read(people_folder).keypoints
    for annotation in content["annotations"]:
        annotation["keypoints"] = np.reshape(annotation["keypoints"], (17, 3))[order].ravel().tolist()
    save(people_folder, content)
    np.testing.assert_array_equal(read(people_folder).keypoints, expected)


def test_keypoints_never_labeled_are_not_annotatable(people_folder: Path) -> None:
    people = read(people_folder, never_labeled=["nose", "left_eye"])
    assert not people.annotatable[:, :2].any()
    assert people.annotatable[:, 2:].all()
    assert not people.keypoints[:, :2].any()
    with pytest.raises(ValueError, match="never_labeled must be keypoints .*hat"):
        read(people_folder, never_labeled=["hat"])


def test_without_trust_absence_unlabeled_keypoints_are_not_annotatable(people_folder: Path) -> None:
    people = read(people_folder, trust_absence=False)
    np.testing.assert_array_equal(people.annotatable, people.keypoints[..., 2] > 0)


def test_detected_boxes_are_assigned_by_overlap(people_folder: Path, tmp_path: Path) -> None:
    annotations = content_of(people_folder)["annotations"]
    x, y, w, h = annotations[0]["bbox"]
    far = annotations[2]["bbox"]
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [x + 2, y, w, h], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": 0.2},  # the person already has a box
        {"image_id": 2, "category_id": 1, "bbox": [far[0] + 60, far[1], *far[2:]], "score": 0.9},  # nobody's
        {"image_id": 2, "category_id": 3, "bbox": far, "score": 0.9},  # not a person
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    people = read(people_folder, boxes=tmp_path / "boxes.json")
    assert 1 in people.person_ids
    row = people.person_ids.tolist().index(1)
    np.testing.assert_allclose(people.boxes[row], [x + 2, y, x + 2 + w, y + h], rtol=1e-5)
    assert 3 not in people.person_ids
    assert people.skipped["people without a detected box"] == 12 - len(people)


@pytest.mark.parametrize("spoilt", [{"bbox": None}, {"score": "high"}, {"image_id": None}, None])
def test_errors_of_detected_boxes_name_the_file(people_folder: Path, tmp_path: Path, spoilt) -> None:
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.9}
    (tmp_path / "boxes.json").write_text(json.dumps([row, spoilt if spoilt is None else {**row, **spoilt}]))
    with pytest.raises(ValueError, match=r"boxes\.json: row 1"):
        read(people_folder, boxes=tmp_path / "boxes.json")


def test_duplicate_ids_of_two_joined_data_sets_are_renumbered(tmp_path: Path) -> None:
    """Both data sets number from one; pycocotools would keep only the second."""
    first, second = (write_people(tmp_path / name, images=3, people=1, seed=s) for s, name in enumerate("ab"))
    joined = tmp_path / "joined"
    shutil.copytree(tmp_path / "a", joined)
    for image in second["images"]:
        name = f"b{image['file_name']}"
        shutil.copy(tmp_path / "b" / "images" / image["file_name"], joined / "images" / name)
        image["file_name"] = name
    save(joined, {**first, "images": first["images"] + second["images"],
                  "annotations": first["annotations"] + second["annotations"]})  # fmt: skip
    people = read(joined)
    assert len(people) == 6
    assert len(set(people.person_ids.tolist())) == len(set(people.image_ids.tolist())) == 6
    expected = [a["keypoints"] for a in first["annotations"] + second["annotations"]]
    np.testing.assert_allclose(people.keypoints.reshape(6, -1), expected, rtol=1e-6)
    assert people.files.tolist() == ["1.jpg", "2.jpg", "3.jpg", "b1.jpg", "b2.jpg", "b3.jpg"]
    assert people.skipped["people with duplicate ids, renumbered"] == 3


def test_other_duplicate_ids_are_refused(people_folder: Path) -> None:
    content = content_of(people_folder)
    content["annotations"][5]["id"] = content["annotations"][2]["id"]
    save(people_folder, content)
    with pytest.raises(ValueError, match="2 annotations have the id 3"):
        read(people_folder)


def test_folds_do_not_depend_on_the_other_people() -> None:
    ids = np.arange(4000)
    folds = fold_of("people", ids, 5)
    np.testing.assert_array_equal(fold_of("people", ids[::-7], 5), folds[::-7])
    assert (fold_of("others", ids, 5) != folds).any()
    assert np.bincount(folds, minlength=5).min() > 700


def test_a_skeleton_with_further_keypoints_is_refused(people_folder: Path) -> None:
    skeleton = Skeleton("hat", ("nose", "hat"), (0.1, 0.1))
    with pytest.raises(ValueError, match="lacks the keypoints \\['hat'\\]"):
        read_coco("people", people_folder / "annotations.json", people_folder / "images", skeleton)


@pytest.mark.real_people
def test_real_people_are_all_found(real_data: Path) -> None:
    """As many as the data's description states; the second set has a thousand duplicate ids."""
    folder = real_data / "coco-val2017"
    coco = read_coco("train", folder / "train.json", folder / "train", COCO17)
    assert len(coco) == 3028
    classes = np.digitize((coco.keypoints[..., 2] > 0).sum(1), [6, 11, 16])
    assert np.bincount(classes).tolist() == [480, 842, 1282, 424]
    lspet = read_coco("lspet", real_data / "lspet" / "annotations.json", real_data / "lspet" / "images", COCO17,
                      never_labeled=COCO17.keypoints[:5])  # fmt: skip
    assert len(lspet) == 8279
    assert len(set(lspet.files.tolist())) == 8279
    image, person = lspet.sample(5000)
    points = person.keypoints[person.keypoints[:, 2] > 0, :2]
    assert (points < np.array(image.shape[1::-1]) + 1).all()
