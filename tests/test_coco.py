"""COCO's files of annotations and boxes, read and checked."""

from __future__ import annotations

import json
import logging
import tracemalloc
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

import oaks
from oaks import box_files, coco, structured
from oaks.box_files import read_boxes
from oaks.boxes import boxes_from_file
from oaks.coco_fields import indices_by
from oaks.errors import OaksError
from oaks.skipping import SkippedItems
from oaks.structured import read_json
from oaks.video import Frame


def annotations(**changes):
    return {
        "images": [{"id": 7, "file_name": "train/a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 3, "bbox": [10, 20, 30, 40]},
            {"id": 2, "image_id": 9, "category_id": 4, "bbox": [1, 1, 1, 1]},
            {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 500, 500], "iscrowd": 1},
            {"id": 4, "image_id": 9, "category_id": 3, "bbox": [1.5, 2.5, 3, 4], "iscrowd": 0},
        ],
        **changes,
    }


def written(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_annotated_boxes_are_people_and_no_crowds(tmp_path):
    people = box_files.read_boxes(written(tmp_path / "a.json", annotations()))
    boxes, scores = people.of(9)
    np.testing.assert_array_equal(boxes, np.float32([[10, 20, 40, 60], [1.5, 2.5, 4.5, 6.5]]))
    np.testing.assert_array_equal(scores, np.float32([1, 1]))
    assert people.source == "annotated: a.json"
    assert (people.image_id("x/a.jpg"), people.image_id("b.jpg"), people.image_id("c.jpg")) == (7, 9, None)
    assert people.of(7)[0].shape == (0, 4)


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path):
    images = [{"id": i, "file_name": f"{i}/a.jpg"} for i in (7, 9)]
    people = box_files.read_boxes(written(tmp_path / "a.json", annotations(images=images)))
    assert people.image_id("somewhere/7/a.jpg") == 7
    assert people.image_id("9/a.jpg") == 9
    assert people.image_id("a.jpg") is None
    assert people.image_id("8/a.jpg") is None


def test_detected_boxes_keep_their_scores(tmp_path):
    rows = [
        {"image_id": 42, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.75},
        {"image_id": 42, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.9},
    ]
    people = box_files.read_boxes(written(tmp_path / "d.json", rows))
    boxes, scores = people.of(people.image_id("val/000000000042.jpg"))
    np.testing.assert_array_equal(boxes, [[1, 2, 4, 6]])
    np.testing.assert_array_equal(scores, [0.75])
    assert people.image_id("COCO_val2014_000000000042.jpg") == 42
    assert people.image_id("holiday.jpg") is None
    assert people.source == "detected: d.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "not a COCO annotation file: its list 'annotations' is missing"),
        (3, "COCO annotations: must hold an object, got int"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}], "row 0: bbox must be"),
        ([{"image_id": 1, "category_id": 1}], "row 0: bbox .* is missing"),
        ([3], "row 0: must be an object"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, float("nan")]}], "row 0: bbox .*nan"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, "3", 4]}], "row 0: bbox must be"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, True, 4]}], "row 0: bbox must be"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 10**400, 4]}], "row 0: bbox must be"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": float("inf")}], "row 0: score .*inf"),
        ([{"image_id": 2.7, "category_id": 1, "bbox": [1, 2, 3, 4]}], "row 0: image_id must be an integer .*2.7"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}] * 2 + [{"image_id": "1", "bbox": [0, 0, 5, 5]}],
         "row 2: image_id must be an integer .*'1'"),
        (annotations(images=[{"id": 9}]), "image 9 must have a file_name"),
        (annotations(images=[{"id": 9, "file_name": 3}]), "image 9: file_name must be text"),
        (annotations(categories=[{"id": 3, "name": name} for name in ("person", "dog")]), "category id 3 must occur once"),
        (annotations(images=[3]), r"images\[0\] must be an object"),
        (annotations(images=[{"id": 10**400, "file_name": "a"}]), r"images\[0\]: id must be an integer"),
        (annotations(images=[{"id": 9, "file_name": "a", "width": "8"}]), "image 9: width must be an integer"),
        (annotations(images=[{"id": i, "file_name": "1/a.jpg"} for i in (9, 2)]), "two images named '1/a.jpg'"),
        (annotations(images=[{"id": 9, "file_name": name} for name in "ab"]), "image id 9 must occur once"),
        (annotations(annotations=[{"id": 5, "image_id": 9, "category_id": 3, "bbox": "x"}]), "annotation 5: bbox"),
        (annotations(annotations=[{"id": 5, "image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4]}] * 2),
         "annotation id 5 must occur once"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_named(tmp_path, content, message):
    with pytest.raises(OaksError, match=f"bad.json: .*{message}|bad.json.*{message}"):
        box_files.read_boxes(written(tmp_path / "bad.json", content))


def test_an_empty_box_is_none_and_other_values_are_refused(tmp_path):
    content = annotations()
    content["annotations"][3]["bbox"] = []
    assert coco.read_annotations(written(tmp_path / "a.json", content)).skipped == {coco.NO_BOX: [4]}
    for value in (False, 0, {}, ""):
        content["annotations"][3]["bbox"] = value
        with pytest.raises(OaksError, match=r"a\.json: annotation 4: bbox must be"):
            coco.read_annotations(written(tmp_path / "a.json", content))


@pytest.mark.parametrize("box", [[5, 5, 0, 0], [5, 5, -3, 4], [5, 5, 3, 0]])
def test_boxes_without_extent_are_skipped_by_id(tmp_path, caplog, box):
    content = annotations()
    content["annotations"][3]["bbox"] = box
    with caplog.at_level(logging.WARNING, logger="oaks"):
        people = box_files.read_boxes(written(tmp_path / "a.json", content))
    assert people.of(9)[0].tolist() == [[10, 20, 40, 60]]
    assert "skipped annotations without a box of some extent in " in caplog.text
    assert "a.json: 1, with ids 4" in caplog.text
    rows = [{"image_id": 1, "category_id": 1, "bbox": b, "score": 1} for b in (box, [1, 2, 3, 4])]
    with caplog.at_level(logging.WARNING, logger="oaks"):
        assert box_files.read_boxes(written(tmp_path / "d.json", rows)).of(1)[0].tolist() == [[1, 2, 4, 6]]
    assert "skipped rows whose box has no extent in " in caplog.text
    assert "d.json: 1, with ids 0" in caplog.text
    with pytest.raises(ValueError, match=r"d\.json: none of its 1 boxes has a positive width and height"):
        box_files.read_boxes(written(tmp_path / "d.json", rows[:1]))
    content["annotations"] = [{**content["annotations"][3]}]
    with pytest.raises(
        ValueError, match=r"a\.json: 1 annotation, none of which can be used: annotations without"
    ):
        box_files.read_boxes(written(tmp_path / "a.json", content))


def test_an_empty_category_is_refused_with_the_counts_of_others(tmp_path):
    rows = [{"image_id": 1, "category_id": c, "bbox": [1, 2, 3, 4]} for c in (0, 0, 7)]
    with pytest.raises(
        ValueError, match="none of its 3 rows is of category 1, got 2 of category 0, 1 of category 7"
    ):
        box_files.read_boxes(written(tmp_path / "d.json", rows))
    assert len(box_files.read_boxes(tmp_path / "d.json", 0).of(1)[0]) == 2
    assert len(box_files.read_boxes(tmp_path / "d.json", "7").of(1)[0]) == 1
    with pytest.raises(ValueError, match="names no categories; pass the category's id, got 'person'"):
        box_files.read_boxes(tmp_path / "d.json", "person")
    content = annotations()
    content["annotations"] = [content["annotations"][1]]
    with pytest.raises(
        ValueError, match=r"none of its 1 annotations is of category 3 \('person'\), got 1 of category 4"
    ):
        box_files.read_boxes(written(tmp_path / "a.json", content))
    content = annotations()
    content["annotations"] = [content["annotations"][2]]
    with pytest.raises(ValueError, match="must not all be crowds"):
        box_files.read_boxes(written(tmp_path / "a.json", content))
    for nobody in ([], annotations(annotations=[])):
        assert box_files.read_boxes(written(tmp_path / "n.json", nobody)).boxes == {}


KEYPOINTS = ["nose", "tail"]


@pytest.mark.parametrize(
    ("categories", "category", "expected"),
    [
        ([{"id": 0, "name": "Person", "keypoints": KEYPOINTS}, {"id": 1, "name": "Bicycle"}], None, 0),
        ([{"id": 1, "name": "bicycle"}, {"id": 4, "name": " PERSON"}], None, 4),
        ([{"id": 1, "name": "person"}, {"id": 4, "name": "dog", "keypoints": KEYPOINTS}], None, 4),
        ([{"id": 2, "name": "dog", "keypoints": KEYPOINTS}, {"id": 4, "name": "person", "keypoints": KEYPOINTS}], None, 4),
        ([{"id": 7, "name": "human", "keypoints": KEYPOINTS}], None, 7),
        ([], None, 1),
        ([], 5, 5),
        ([{"id": 7, "name": "Human"}, {"id": 8, "name": "person"}], "human", 7),
        ([{"id": 7, "name": "Human"}, {"id": 8, "name": "person"}], "7", 7),
        ([{"id": 7, "name": "Human"}, {"id": 8, "name": "person"}], 8, 8),
        ([{"id": 7, "name": "human"}, {"id": 8, "name": "dog"}], None, "7 'human', 8 'dog'"),
        ([{"id": 7, "name": "human"}], None, "7 'human'"),
        ([{"id": 1, "name": "bicycle", "keypoints": []}], None, "1 'bicycle'"),
        ([{"id": 1, "name": "person"}, {"id": 2, "name": "Person"}], None, "1 'person', 2 'Person'"),
        ([{"id": i, "name": f"dog {i}", "keypoints": KEYPOINTS} for i in (1, 2)], None, "1 'dog 1', 2 'dog 2'"),
        ([{"id": 1, "name": "person"}], "human", "'human', got 1 'person'"),
        ([{"id": 1, "name": "person"}], 3, "3, got 1 'person'"),
        ([{"id": 1.5, "name": "person"}], None, "id must be an integer"),
    ],
)  # fmt: skip
def test_the_category_of_people_is_chosen_by_one_rule(categories, category, expected):
    if isinstance(expected, int):
        assert coco.choose_category(categories, "a.json", category)["id"] == expected
    else:
        with pytest.raises(ValueError, match=rf"a\.json: .*{expected}"):
            coco.choose_category(categories, "a.json", category)


def test_names_are_compared_in_one_form(tmp_path):
    content = annotations(
        images=[{"id": 7, "file_name": "images\\Fu\u0308\u00dfe.jpg"}, {"id": 9, "file_name": "./b//c.jpg"}]
    )
    people = box_files.read_boxes(written(tmp_path / "a.json", content))
    assert people.image_id("somewhere/images/F\u00fc\u00dfe.jpg") == 7
    assert people.image_id("Fu\u0308\u00dfe.jpg") == 7
    assert people.image_id("x/b/c.jpg") == 9


def test_whole_floats_are_ids_and_everything_else_is_kept(tmp_path):
    content = annotations(
        annotations=[{"id": 4.0, "image_id": 9.0, "category_id": 3.0, "bbox": [1, 2, 3, 4.5]}]
    )
    found = coco.read_annotations(written(tmp_path / "a.json", content))
    assert (found.ids.tolist(), found.image.tolist(), found.boxes.tolist()) == ([4], [1], [[1, 2, 3, 4.5]])
    assert np.isnan(found.areas).all()
    assert found.sizes.tolist() == [[0, 0], [0, 0]]
    del content["annotations"][0]["id"]
    assert coco.read_annotations(written(tmp_path / "a.json", content)).ids.tolist() == [1]


def test_annotations_of_images_that_are_not_listed_are_skipped_by_id(tmp_path, caplog):
    content = annotations()
    content["annotations"][0]["image_id"] = 4711
    with caplog.at_level(logging.WARNING, logger="oaks"):
        found = coco.read_annotations(written(tmp_path / "a.json", content))
    assert found.ids.tolist() == [3, 4]
    assert found.skipped == {coco.NO_IMAGE: [1]}
    assert "skipped annotations of images that the file does not list in " in caplog.text
    assert "a.json: 1, with ids 1" in caplog.text


@pytest.mark.parametrize("box", [[50, 5, 9, 9], [5, 40, 9, 9], [-9, 5, 9, 9], [5, -70, 9, 9]])
def test_boxes_outside_of_their_image_are_skipped(tmp_path, box):
    content = annotations(images=[{"id": 9, "file_name": "b.jpg", "width": 50, "height": 40}])
    content["annotations"][3]["bbox"] = box
    with SkippedItems() as skipped:
        found = coco.read_annotations(written(tmp_path / "a.json", content))
    assert found.ids.tolist() == [1, 3]  # whose boxes lie partly outside
    assert found.skipped == {coco.OUTSIDE: [4]}
    assert skipped.items == {f"{coco.OUTSIDE} in {tmp_path / 'a.json'}": "1, with ids 4"}


def test_boxes_outside_of_a_picture_whose_size_is_not_stated_are_skipped(tmp_path):
    content = annotations()
    content["annotations"][3]["bbox"] = [50, 5, 9, 9]
    source = boxes_from_file(written(tmp_path / "a.json", content))
    picture = Frame(np.zeros((80, 50, 3), np.uint8), 0, 0, Fraction(1), name="b.jpg")
    with SkippedItems() as skipped:
        boxes, scores = source.find(picture)
    assert (boxes.tolist(), scores.tolist()) == ([[10, 20, 40, 60]], [1])
    assert skipped.items == {f"boxes of {tmp_path / 'a.json'} outside of b.jpg": "1 of 2"}


def test_boxes_outside_of_a_frame_are_named_with_their_file(tmp_path):
    frame = Frame(np.zeros((80, 50, 3), np.uint8), 0, 0, Fraction(1))
    with SkippedItems() as skipped:
        paths = [tmp_path / folder / "det.txt" for folder in ("a", "b")]
        for path in paths:
            path.parent.mkdir()
            path.write_text("1,1,60,5,9,9,1,-1,-1,-1\n")
            assert len(boxes_from_file(path).find(frame)[0]) == 0
    assert list(skipped.items) == [f"boxes of {path} outside of frame 0" for path in paths]


def test_invalid_json_is_refused(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        box_files.read_boxes(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError):
        box_files.read_boxes(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"bad\.json.* levels deep"):
        box_files.read_boxes(tmp_path / "bad.json")


def test_boxes_of_the_category_of_people(tmp_path):
    rows = [{"image_id": 1, "category_id": c, "bbox": [c, 0, 5, 5], "score": 1} for c in (1, 7)]
    assert box_files.read_boxes(written(tmp_path / "rows.json", rows), 7).boxes[1].tolist() == [[7, 0, 12, 5]]
    content = annotations(
        categories=[{"id": 7, "name": "Person"}],
        images=[{"id": 1, "file_name": "a.jpg"}],
        annotations=rows,
    )
    assert box_files.read_boxes(written(tmp_path / "people.json", content)).boxes[1].tolist() == [
        [7, 0, 12, 5]
    ]


def test_a_category_may_have_no_keypoints_and_no_numbers_for_names(tmp_path):
    """Converters write an empty list, which is false as a list and an error as an array (from NumPy 2.2 on)."""
    content = annotations()
    content["categories"] = [{"id": 3, "name": "person", "keypoints": []}]
    content["annotations"] = [{**content["annotations"][0], "keypoints": []}]
    kept = []
    read_json(
        written(tmp_path / "a.json", content),
        strict=False,
        kept=lambda entry: kept.append(coco._needed(entry)),
    )
    assert [entry["keypoints"] for entry in kept if entry and "keypoints" in entry] == [[], []]
    assert coco.read_annotations(tmp_path / "a.json", skeleton=oaks.COCO17).ids.tolist() == [1]
    content["categories"][0]["keypoints"] = [1, 2, 3]
    path = written(tmp_path / "b.json", content)
    with pytest.raises(oaks.ArgumentError, match=r"b\.json: category 3 lacks the keypoints \['nose'"):
        coco.read_annotations(path, skeleton=oaks.COCO17)
    content["categories"][0]["image_id"] = 1  # as an annotation has
    path = written(tmp_path / "c.json", content)
    with pytest.raises(oaks.ArgumentError, match=r"categories\[0\]: keypoints must be names, got numbers"):
        coco.read_annotations(path, skeleton=oaks.COCO17)


def large(count: int) -> dict:
    """Five people in each picture."""
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [rng.uniform(0, 500, (count, 17, 2)).round(2), rng.integers(0, 3, (count, 17, 1))], axis=2
    )
    people = [
        {"id": n + 1, "image_id": n // 5, "category_id": 1 + (n % 7 == 3), "iscrowd": int(n % 50 == 9), "area": 50.5 + n,
         "bbox": [1, 2.5, 3, 4 + n], "keypoints": own.ravel().tolist(), "num_keypoints": int((own[:, 2] > 0).sum()),
         "segmentation": [[0.25 + n] * 20]}
        for n, own in enumerate(points)
    ]  # fmt: skip
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480, "coco_url": "u" * 200}
              for n in range(-(-count // 5))]  # fmt: skip
    categories = [
        {"id": 1, "name": "person", "keypoints": list(oaks.COCO17.keypoints)},
        {"id": 2, "name": "bicycle"},
    ]
    return {"images": images, "annotations": people, "categories": categories}


def assert_columns_like_objects(folder, content):
    """Compare the reader of files, which gathers columns, with the check of parsed content."""
    found = coco.read_annotations(written(folder / "a.json", content), skeleton=oaks.COCO17)
    expected = coco.check_annotations(content, found.path, skeleton=oaks.COCO17)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


@pytest.mark.parametrize("change", [
    {}, {"image_id": 3.0}, {"keypoints": []}, {"keypoints": None, "num_keypoints": 0}, {"area": None}, {"iscrowd": None},
    {"bbox": None}, {"num_keypoints": None}, {"attributes": {"image_id": 3}},
])  # fmt: skip
def test_columns_and_objects_give_the_same_annotations(tmp_path, change):
    """Files in the usual form are gathered as columns; one annotation in another form sends the whole file the other way."""
    content = large(60)
    person = content["annotations"][20]
    person |= change
    if "keypoints" in change:
        person["num_keypoints"] = 0
    assert_columns_like_objects(tmp_path, content)


def test_keypoints_of_another_category_and_file_names_of_categories_do_not_disturb_people(tmp_path):
    """The first annotation has 21 keypoints of a hand, and no person has any; categories have icons."""
    content = large(60)
    for person in content["annotations"]:
        person |= {"keypoints": [], "num_keypoints": 0}
    content["annotations"][0] |= {"category_id": 2, "keypoints": [1.0, 2.0, 2] * 21, "num_keypoints": 21}
    for category in content["categories"]:
        category["file_name"] = "icon.png"
    assert_columns_like_objects(tmp_path, content)


def test_an_annotation_elsewhere_does_not_stand_for_a_null_among_the_annotations(tmp_path):
    content = large(5)
    content["info"] = content["annotations"][0]
    content["annotations"][0] = None
    with pytest.raises(oaks.ArgumentError, match=r"annotations\[0\] must be an object, got None"):
        coco.read_annotations(written(tmp_path / "a.json", content), skeleton=oaks.COCO17)


@pytest.mark.parametrize("change", [
    {"id": 3}, {"id": -1}, {"category_id": "1"}, {"bbox": [1, 2, float("nan"), 4]}, {"bbox": [1, 2, 3]}, {"iscrowd": 2},
    {"keypoints": [1] * 48}, {"num_keypoints": 3.5}, {"num_keypoints": -1}, {"area": float("inf")}, {"id": 10**30},
    {"keypoints": [5.0] * 51}, {"bbox": [1, 2, 3, 10**400]}, {"area": True}, {"keypoints": [1e9] * 51},
    {"bbox": [1, 1e10, 3, 4]},
])  # fmt: skip
def test_columns_and_objects_refuse_the_same(tmp_path, change):
    content = large(60)
    content["annotations"][20] |= change
    with pytest.raises(oaks.ArgumentError) as expected:
        coco.check_annotations(content, tmp_path / "a.json", skeleton=oaks.COCO17)
    with pytest.raises(oaks.ArgumentError) as found:
        coco.read_annotations(written(tmp_path / "a.json", content), skeleton=oaks.COCO17)
    assert str(found.value) == str(expected.value)


def test_large_files_take_little_memory(tmp_path, monkeypatch):
    """A third of what their objects would; 17 keypoints take 408 bytes, and 350 of those are of people and returned."""
    monkeypatch.setattr(structured, "_PART", 1 << 12)
    count = 4000
    path = written(tmp_path / "a.json", large(count))
    for read in (partial(coco.read_annotations, skeleton=oaks.COCO17), read_boxes):
        tracemalloc.start()
        read(path)
        assert tracemalloc.get_traced_memory()[1] < 1300 * count
        tracemalloc.stop()


def test_names_are_found_without_a_search(tmp_path):
    """20,000 pictures that a file does not name took 20 minutes."""

    class Names(dict):
        def __iter__(self):
            raise AssertionError("a search of all names")

        items = keys = values = __iter__

    people = read_boxes(written(tmp_path / "a.json", large(10)))
    people._by_path, people._by_name = Names(people._by_path), Names(people._by_name)
    assert people.image_id("folder/1.jpg") == 1
    assert people.image_id("folder/other/unknown.jpg") is None


def test_indices_of_equal_values():
    found = indices_by(np.array([3, 1, 3, 3, 1]))
    assert {value: own.tolist() for value, own in found.items()} == {1: [1, 4], 3: [0, 2, 3]}
    assert indices_by(np.zeros(0, int)) == {}
