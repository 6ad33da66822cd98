"""Reading annotations and results: errors name the file and the id."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest

from oaks.coco import NO_AREA, NO_BOX, NO_IMAGE, check_annotations
from oaks.coco_results import write_results
from oaks.skeleton import COCO17, Skeleton
from oaks.val.coco_eval import coco_metrics
from oaks.val.detections import Detections
from oaks.val.evaluate import Settings, evaluate
from oaks.val.ground_truth import GroundTruth
from oaks.val.report import other_estimators
from oaks.val.scores import ScoredDetections

from . import synthetic


@pytest.fixture
def content():
    return synthetic.annotations(1)


@pytest.fixture
def rows(content):
    return synthetic.detections(content, 1)


def labeled(content):
    return next(person for person in content["annotations"] if person["num_keypoints"] > 3)


def without_area(content):
    person = labeled(content)
    del person["area"]
    return f"annotation {person['id']}: 'area' is missing", "0.53"


def repeated_annotation(content):
    content["annotations"][3]["id"] = content["annotations"][5]["id"]
    return f"annotation id {content['annotations'][5]['id']}", "2 times"


def repeated_image(content):
    content["images"].append(dict(content["images"][0]))
    return (f"image id {content['images'][0]['id']}",)


def labels_unlike_their_number(content):
    person = labeled(content)
    person["keypoints"][2::3] = [0] * 17
    return f"annotation {person['id']}", "num_keypoints", "labeled keypoints, 0"


def too_few_keypoints(content):
    content["annotations"][4]["keypoints"] = content["annotations"][4]["keypoints"][:42]
    return "annotation 5", "51 numbers for 17 keypoints", "got 42"


def coordinate_that_is_no_number(content):
    content["annotations"][4]["keypoints"][0] = float("nan")
    return "annotation 5", "finite"


def unknown_flag(content):
    content["annotations"][4]["keypoints"][2] = 3
    return "annotation 5", "0, 1 or 2"


def nobody_labeled(content):
    for person in content["annotations"]:
        person |= {"keypoints": [0] * 51, "num_keypoints": 0}
    return ("at least one person must have a labeled keypoint",)


def categories_without_a_person(content):
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return "'person'", "cat"


def keypoints_in_another_order(content):
    names = content["categories"][0]["keypoints"]
    content["categories"][0]["keypoints"] = [*names[1:], names[0]]
    return "keypoints must be", "'coco17'"


@pytest.mark.parametrize(
    "spoil",
    [without_area, repeated_annotation, repeated_image, labels_unlike_their_number, too_few_keypoints,
     coordinate_that_is_no_number, unknown_flag, nobody_labeled, categories_without_a_person, keypoints_in_another_order],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip
def test_wrong_annotations_are_refused_with_the_file_and_the_place(tmp_path, content, spoil):
    refused(tmp_path, content, *spoil(content))


@pytest.mark.parametrize("wrong", [[], {"images": []}, {"images": [], "annotations": 3, "categories": []}])
def test_a_file_without_annotations_is_refused(tmp_path, wrong):
    refused(tmp_path, wrong, "COCO annotation")


def refused(folder, content, *words):
    """The file is refused with a message that names it and all the words."""
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        GroundTruth.load(path)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


def test_names_of_keypoints_may_be_written_differently(content):
    category = content["categories"][0]
    category["keypoints"] = [name.replace("_", " ").title() for name in category["keypoints"]]
    assert GroundTruth.from_coco(content).category_id == 1


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("area", 0, NO_AREA), ("area", -2.5, NO_AREA), ("bbox", None, NO_BOX), ("bbox", [5, 5, 0, 0], NO_BOX),
     ("bbox", [5, 5, -3, 9], NO_BOX), ("image_id", 4711, NO_IMAGE)],
)  # fmt: skip
def test_people_without_an_area_a_box_or_an_image_are_skipped_by_id(content, field, value, reason):
    person = labeled(content)
    person[field] = value
    truth = GroundTruth.from_coco(content)
    assert person["id"] not in truth.ids
    assert len(truth.ids) == len(content["annotations"]) - 1
    assert check_annotations(content, skeleton=COCO17).skipped == {reason: [person["id"]]}


@pytest.mark.parametrize("keypoints", [None, []])
def test_a_person_without_keypoints_is_kept_and_not_counted(content, keypoints):
    person = labeled(content)
    person |= {"keypoints": keypoints, "num_keypoints": 0}
    truth = GroundTruth.from_coco(content)
    assert not truth.counted[truth.ids == person["id"]].any()
    assert len(truth.ids) == len(content["annotations"])


def test_annotation_id_zero_counts_unlike_in_pycocotools(content):
    truth = GroundTruth.from_coco(content)
    person = labeled(content)
    at = int(np.flatnonzero(truth.ids == person["id"])[0])
    person["id"] = 0
    zero = GroundTruth.from_coco(content)
    found = [coco_metrics(t, t.image, t.keypoints, np.ones(len(t.ids)))["AP"] for t in (truth, zero)]
    assert zero.ids[at] == 0
    assert found[0] == found[1] > 0.9


# Values that are wrong at most places of a COCO file; each place gets each of them in turn.
SPOILT = [None, "x", "12", -1, 0.5, float("nan"), float("inf"), [], [[1]], {}, [None] * 51, [["1"]] * 17]


def places(content, above=()):
    """Yield the path of every key and index; of a list, those of the first two entries."""
    for key in content if isinstance(content, dict) else range(min(2, len(content))):
        yield (*above, key)
        if isinstance(content[key], dict | list):
            yield from places(content[key], (*above, key))


def spoiled(content, place, value):
    content = copy.deepcopy(content)
    within = content
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    return content


def refusals(content, load):
    """Return the messages of `load` for content with one wrong value each; any other error than ValueError fails."""
    said = []
    for place in places(content):
        for value in SPOILT:
            try:
                load(spoiled(content, place, value))
            except ValueError as error:
                said.append(str(error))
    return said


def test_every_error_in_annotations_names_the_file():
    content = synthetic.annotations(0, images=3, reduced=True)
    said = refusals(content, lambda spoiled: GroundTruth.from_coco(spoiled, path="people.json"))
    assert len(said) > 200
    assert [message for message in said if "people.json" not in message] == []


@pytest.mark.parametrize("box_source", ["ground truth", "detected"])
def test_every_error_in_results_names_the_file(box_source):
    content = synthetic.annotations(0, images=3)
    truth, rows = GroundTruth.from_coco(content), synthetic.detections(content, 1)
    said = refusals(
        rows,
        lambda spoiled: Detections.from_rows(spoiled, truth, path="results.json", box_source=box_source),
    )
    assert len(said) > 200
    assert [message for message in said if "results.json" not in message] == []


def test_people_without_keypoints_are_not_counted(content):
    truth = GroundTruth.from_coco(content)
    without = [person["id"] for person in content["annotations"] if person["num_keypoints"] == 0]
    assert without
    assert not truth.counted[np.isin(truth.ids, without)].any()
    assert (truth.occlusion[~truth.counted] == -1).all()


def test_people_in_reduced_images_have_coordinates_of_the_original():
    small, large = synthetic.annotations(1, reduced=True), synthetic.annotations(1)
    reduced, plain = GroundTruth.from_coco(small), GroundTruth.from_coco(large)
    assert reduced.scales[0].tolist() == [1.25, 1.25]
    assert np.allclose(reduced.areas, plain.areas * 1.25**2)
    assert np.allclose(reduced.boxes, plain.boxes * 1.25)
    assert np.allclose(reduced.keypoints, plain.keypoints * 1.25)
    rows = synthetic.detections(large, 1)
    found = Detections.from_rows(rows, reduced, box_source="ground truth")
    assert np.allclose(
        found.keypoints, Detections.from_rows(rows, plain, box_source="ground truth").keypoints * 1.25
    )


@pytest.mark.parametrize(
    ("keypoints", "expected"), [(1, 0), (5, 0), (6, 1), (10, 1), (11, 2), (15, 2), (16, 3)]
)
def test_occlusion_classes_by_labeled_keypoints(keypoints, expected):
    content = synthetic.annotations(0)
    person = content["annotations"][0]
    person["keypoints"] = [5.0, 5.0, 1] * keypoints + [0, 0, 0] * (17 - keypoints)
    person["num_keypoints"], person["iscrowd"] = keypoints, 0
    assert GroundTruth.from_coco(content).occlusion[0] == expected


def test_people_are_sorted_by_image_then_in_file_order(content):
    shuffled = copy.deepcopy(content)
    np.random.default_rng(0).shuffle(shuffled["annotations"])
    np.random.default_rng(1).shuffle(shuffled["images"])
    truth = GroundTruth.from_coco(shuffled)
    assert np.all(np.diff(truth.image) >= 0)
    assert np.all(np.diff(truth.image_ids) > 0)
    for image in range(len(truth.image_ids)):
        own = [p["id"] for p in shuffled["annotations"] if p["image_id"] == truth.image_ids[image]]
        assert truth.ids[truth.image == image].tolist() == own


def rejected(content, rows, *words, skeleton=COCO17):
    """The rows are refused with a message that names the file and all the words."""
    truth = GroundTruth.from_coco(content, path="truth.json", skeleton=skeleton)
    with pytest.raises(ValueError, match=r"found\.json") as caught:
        Detections.from_rows(rows, truth, path="found.json", box_source="ground truth")
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("image_id", lambda _: 4711, ["no image 4711", "truth.json"]),
        ("score", lambda _: float("nan"), ["score must be a finite number"]),
        ("score", lambda _: float("inf"), ["score must be a finite number"]),
        *[(key, lambda _: None, [f"{key!r} is missing"]) for key in ("score", "keypoints", "image_id", "category_id")],
        ("keypoints", lambda values: values[:-3], ["17 keypoints", "has 16"]),
        ("keypoints", lambda values: [float("nan"), *values[1:]], ["keypoints must be finite"]),
        ("visibility", lambda _: None, ["visibility is missing"]),
        ("heat", lambda values: values[:-1], ["heat must be a list of 17"]),
        ("annotation_id", lambda _: 999, ["no annotation 999"]),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_row_is_refused(content, rows, field, change, words):
    rows[2][field] = change(rows[2][field])
    rejected(content, rows, "row 2", *words)


def test_results_of_another_category_and_results_that_are_no_list_are_refused(content, rows):
    rejected(
        content, [row | {"category_id": 7} for row in rows], "category_id 1", f"got {len(rows)} of category 7"
    )
    rejected(content, {}, "must be a list of detections, got dict")


def test_annotation_ids_that_do_not_fit_are_refused(content, rows):
    rejected(content, [*rows, dict(rows[2])], f"annotation {rows[2]['annotation_id']} is also that of row")
    other = next(row for row in rows if row["image_id"] != rows[0]["image_id"])
    swapped = [rows[0] | {"annotation_id": other["annotation_id"]}, *rows[1:]]
    rejected(content, swapped, "row 0", f"lies in image {other['image_id']}")
    unlabeled = next(p for p in content["annotations"] if p["num_keypoints"] == 0)
    own = {"annotation_id": unlabeled["id"], "image_id": unlabeled["image_id"]}
    rejected(
        content, [rows[0] | own, *rows[1:]], "row 0", f"annotation {unlabeled['id']} has no labeled keypoints"
    )


@pytest.mark.parametrize("box_source", ["detected", "ground truth"])
def test_results_without_detections_have_ap_zero_and_a_report(content, box_source):
    truth = GroundTruth.from_coco(content, path="truth.json")
    nobody = Detections.from_rows([], truth, path="found.json", box_source=box_source)
    assert nobody.count == 0
    assert {"oaks", "conventional"} <= set(ScoredDetections.of(truth, nobody).scores)
    for judge in ("pycocotools", "faster-coco-eval"):
        figures = coco_metrics(truth, nobody.image, nobody.keypoints, nobody.scores, by=judge)
        assert figures["AP"] == figures["AR"] == 0
    report = evaluate(truth, [nobody], Settings(resamples=5))
    assert [section.key for section in report.sections]
    table = other_estimators.section({"found": ScoredDetections.of(truth, nobody)}, False, resamples=5)
    assert table.items


def test_more_poses_than_people_with_ground_truth_boxes_are_refused(content, rows):
    for row in rows:
        del row["annotation_id"]
    rows += [dict(row) for row in rows if row["image_id"] == rows[0]["image_id"]]
    rejected(content, rows, f"image {rows[0]['image_id']}", "labeled people")


def test_results_of_another_skeleton_are_refused(content, rows):
    skeleton = Skeleton("five", tuple("abcde"), (0.1,) * 5)
    other = synthetic.annotations(1, skeleton=skeleton)
    rejected(other, rows, "row 0", "'five'", "5 keypoints", skeleton=skeleton)


def test_the_header_states_the_box_source(tmp_path, content, rows):
    truth = GroundTruth.from_coco(content)
    for stated, expected in (
        ("annotated: a.json", "ground truth"),
        ("detected: b.json", "detected"),
        (None, None),
    ):
        write_results(tmp_path / "r.json", rows, {"box_source": stated} if stated else {})
        found = Detections.load(tmp_path / "r.json", truth)
        assert found.box_source == (expected or "detected")
        assert found.name == "r"
    assert Detections.load(tmp_path / "r.json", truth, box_source="ground truth").box_source == "ground truth"
    with pytest.raises(ValueError, match="box_source"):
        Detections.load(tmp_path / "r.json", truth, box_source="anything")


def test_poses_without_annotation_id_are_assigned_one_to_one(content, rows):
    truth = GroundTruth.from_coco(content)
    stated = Detections.from_rows(rows, truth, box_source="ground truth")
    exact = copy.deepcopy(rows)
    people = {person["id"]: person for person in content["annotations"]}
    for row in exact:
        row["keypoints"] = people[row.pop("annotation_id")]["keypoints"]
    assigned = Detections.from_rows(exact, truth, box_source="ground truth")
    assert np.array_equal(assigned.own, stated.own)
    assert len(set(assigned.own.tolist())) == len(assigned.own)


def test_detected_poses_belong_to_the_person_of_the_largest_oks(content):
    person = labeled(content)
    far = [x + 5000 if k % 3 < 2 else x for k, x in enumerate(person["keypoints"])]
    rows = [
        {"image_id": person["image_id"], "category_id": 1, "keypoints": points, "score": 0.5}
        for points in (person["keypoints"], far, person["keypoints"])
    ]
    truth = GroundTruth.from_coco(content)
    found = Detections.from_rows(rows, truth, box_source="detected")
    index = truth.ids.tolist().index(person["id"])
    assert found.own.tolist() == [index, -1, index]


def test_the_third_number_of_keypoints_is_heat_unless_constant(content):
    truth = GroundTruth.from_coco(content)
    row = {"image_id": content["images"][0]["id"], "category_id": 1, "score": 0.5}
    varied = Detections.from_rows(
        [row | {"keypoints": [1.0, 2.0, 0.1, 3.0, 4.0, 0.9] + [1.0, 1.0, 0.5] * 15}], truth
    )
    assert varied.heat[0, :3].tolist() == [0.1, 0.9, 0.5]
    constant = Detections.from_rows([row | {"keypoints": [1.0, 2.0, 2.0] * 17}], truth)
    assert constant.heat is None
