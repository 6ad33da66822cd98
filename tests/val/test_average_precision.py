"""Loading, matching and class filters, against a script that uses pycocotools only."""

from __future__ import annotations

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oaks.coco_results import write_results
from oaks.skeleton import COCO17, Skeleton
from oaks.val.coco_eval import FIGURES, coco_metrics
from oaks.val.detections import Detections
from oaks.val.ground_truth import LARGE, LARGEST, MEDIUM, OCCLUSION_CLASSES, GroundTruth
from oaks.val.matching import match, precision_recall
from oaks.val.occlusion import evaluate_occlusion
from oaks.val.oks import pairs
from oaks.val.scores import ScoredDetections

from . import synthetic

SIZES = {"all": (0, LARGEST), "medium": (MEDIUM, LARGE), "large": (LARGE, LARGEST)}


def standalone(content, rows, sigmas=None, keep=None, area=None, score="score"):
    """Run pycocotools alone. `keep(labeled)` chooses the people to find."""
    content = copy.deepcopy(content)
    factors = {}
    for image in content["images"]:
        factors[image["id"]] = (
            image.get("orig_width", image["width"]) / image["width"],
            image.get("orig_height", image["height"]) / image["height"],
        )
    for person in content["annotations"]:
        sx, sy = factors[person["image_id"]]
        person["keypoints"] = enlarge(person["keypoints"], sx, sy)
        x, y, w, h = person["bbox"]
        person["bbox"], person["area"] = [x * sx, y * sy, w * sx, h * sy], person["area"] * (sx * sy)
        if keep is not None and not keep(person["num_keypoints"]):
            person["num_keypoints"] = 0
    plain = [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "keypoints": enlarge(row["keypoints"], *factors[row["image_id"]]),
            "score": row[score],
        }
        for row in rows
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(plain), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        if area is not None:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [area], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        if area is None:
            evaluation.summarize()
    return evaluation


def assert_judged_alike(expected, truth, detections, **options):
    """Our figures are those of pycocotools to the last digit, and NaN for its -1.

    faster-coco-eval adds up in another order, so it may differ in the sixteenth digit.
    """
    ten = np.where(expected.stats == -1, np.nan, expected.stats)
    found = (truth, detections.image, detections.keypoints, detections.scores)
    figures = coco_metrics(*found, **options)
    assert list(figures) == list(FIGURES)
    np.testing.assert_array_equal(list(figures.values()), ten)
    faster = coco_metrics(*found, **options, by="faster-coco-eval")
    np.testing.assert_allclose(list(faster.values()), ten, rtol=1e-12, atol=1e-15)


def enlarge(keypoints, sx, sy):
    points = np.array(keypoints, dtype=float).reshape(-1, 3)
    points[:, 0] *= sx
    points[:, 1] *= sy
    return points.ravel().tolist()


def matches_of(truth, detections, **options):
    found = pairs(truth, detections.keypoints, detections.image)
    return match(truth, found, detections.image, detections.scores, detections.areas, **options)


def assert_equal_everywhere(content, rows, *, skeleton=COCO17, boxes="detected"):
    """Figures and our own matching equal pycocotools to the last digit, at any size."""
    expected = standalone(content, rows, skeleton.sigmas)
    truth = GroundTruth.from_coco(content, skeleton=skeleton)
    detections = Detections.from_rows(rows, truth, box_source=boxes)
    assert_judged_alike(expected, truth, detections)
    for a, sizes in enumerate(SIZES.values()):
        precision, recall = precision_recall(matches_of(truth, detections, sizes=sizes))
        if np.isnan(precision).any():
            assert (expected.eval["precision"][:, :, 0, a, 0] == -1).all()
            continue
        assert np.array_equal(precision, expected.eval["precision"][:, :, 0, a, 0])
        assert np.array_equal(recall, expected.eval["recall"][:, 0, a, 0])
    return expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("boxes", ["ground truth", "detected"])
def test_the_ten_figures_equal_those_of_pycocotools_to_the_last_digit(seed, boxes):
    content = synthetic.annotations(seed, images=25, reduced=seed % 2 == 1)
    rows = synthetic.detections(content, seed, boxes=boxes)
    np.random.default_rng(seed).shuffle(rows)
    expected = assert_equal_everywhere(content, rows, boxes=boxes)
    assert 0.05 < expected.stats[0] < 0.95


def test_equal_scores_and_crowded_images_are_ranked_as_by_pycocotools():
    content = synthetic.annotations(5, images=6)
    rows = [
        row for seed in range(9) for row in synthetic.detections(content, seed, boxes="detected", noise=0.08)
    ]
    np.random.default_rng(0).shuffle(rows)
    for row in rows:
        row["score"] = round(row["score"], 1)
    per_image = np.unique([row["image_id"] for row in rows], return_counts=True)[1]
    assert per_image.max() > 20
    assert len({row["score"] for row in rows}) < 10
    assert_equal_everywhere(content, rows)


def test_other_skeletons_use_their_own_sigmas_and_count():
    skeleton = Skeleton("five", tuple("abcde"), (0.02, 0.05, 0.1, 0.15, 0.2), pairs=((0, 1),))
    content = synthetic.annotations(3, images=20, skeleton=skeleton)
    rows = synthetic.detections(content, 3, skeleton=skeleton, boxes="detected")
    expected = assert_equal_everywhere(content, rows, skeleton=skeleton)
    assert expected.stats[0] > 0.05


@given(seed=st.integers(0, 2**31), noise=st.floats(0.0, 0.5), duplicates=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_figures_of_random_results_equal_those_of_pycocotools(seed, noise, duplicates):
    content = synthetic.annotations(seed, images=3)
    assume(any(person["num_keypoints"] and not person["iscrowd"] for person in content["annotations"]))
    rows = [
        row
        for copy in range(duplicates)
        for row in synthetic.detections(content, seed + copy, noise=noise, boxes="detected")
    ]
    assume(rows)
    assert_equal_everywhere(content, rows)


@pytest.mark.parametrize("occlusion", range(4))
def test_an_occlusion_class_equals_pycocotools_with_all_others_ignored(occlusion):
    content = synthetic.annotations(11, images=40)
    rows = synthetic.detections(content, 11, boxes="detected")
    fewest, most = OCCLUSION_CLASSES[occlusion].fewest, OCCLUSION_CLASSES[occlusion].most
    truth = GroundTruth.from_coco(content)
    detections = Detections.from_rows(rows, truth)
    members = truth.occlusion == occlusion
    assert members.sum() > 5

    of_class = {"keep": lambda labeled: fewest <= labeled <= most}
    assert_judged_alike(standalone(content, rows, **of_class), truth, detections, among=members)
    of_class["area"] = [MEDIUM, LARGEST]
    curves = standalone(content, rows, **of_class)
    measured = ScoredDetections.of(truth, detections)
    found = evaluate_occlusion(measured, detections.scores, occlusion)
    assert found.ap == curves.eval["precision"][:, :, 0, 0, 0].mean()
    assert found.ap75 == curves.eval["precision"][5, :, 0, 0, 0].mean()

    position = {image["id"]: i for i, image in enumerate(sorted(content["images"], key=lambda i: i["id"]))}
    rows = sorted(rows, key=lambda row: position[row["image_id"]])
    own_rows = [row for row, own in zip(rows, measured.occlusion, strict=True) if own == occlusion]
    curves = standalone(content, own_rows, **of_class)
    found = evaluate_occlusion(measured, detections.scores, occlusion, own_only=True)
    assert found.ap == curves.eval["precision"][:, :, 0, 0, 0].mean()
    assert found.ap75 == curves.eval["precision"][5, :, 0, 0, 0].mean()


def test_figures_without_people_to_find_are_nan():
    content = synthetic.annotations(0, images=2)
    truth = GroundTruth.from_coco(content)
    detections = Detections.from_rows(synthetic.detections(content, 0), truth, box_source="ground truth")
    nobody = np.zeros(len(truth.ids), dtype=bool)
    found = coco_metrics(truth, detections.image, detections.keypoints, detections.scores, among=nobody)
    assert np.isnan(list(found.values())).all()
    assert np.isnan(precision_recall(matches_of(truth, detections, among=nobody))[0]).all()


@pytest.fixture(scope="module")
def real_test(real_data):
    path = real_data / "coco-val2017" / "test.json"
    return json.loads(path.read_text()), GroundTruth.load(path)


def of_everybody(content, swapped=False):
    """Detections with the annotated keypoints themselves, or left and right exchanged."""
    rows = []
    for person in content["annotations"]:
        if person["num_keypoints"]:
            points = np.array(person["keypoints"]).reshape(-1, 3)[COCO17.mirror if swapped else slice(None)]
            row = {
                "image_id": person["image_id"],
                "category_id": 1,
                "score": 1.0,
                "annotation_id": person["id"],
            }
            rows.append(row | {"keypoints": points.ravel().tolist()})
    return rows


@pytest.mark.real_people
@pytest.mark.parametrize(("swapped", "ap"), [(False, 1.0), (True, 0.002)])
def test_ap_of_real_labels_exact_and_with_left_and_right_exchanged(real_test, swapped, ap):
    content = real_test[0]
    expected = assert_equal_everywhere(content, of_everybody(content, swapped), boxes="ground truth")
    assert round(expected.stats[0], 3) == ap


@pytest.mark.real_people
def test_real_people_have_the_stated_occlusion_classes(real_data):
    counts = {}
    for part in ("train", "test"):
        truth = GroundTruth.load(real_data / "coco-val2017" / f"{part}.json")
        counts[part] = tuple(truth.class_counts().values())
    assert counts == {"train": (480, 842, 1282, 424), "test": (260, 673, 1046, 351)}


@pytest.mark.real_people
def test_results_read_from_a_file_have_the_figures_of_pycocotools(real_test, tmp_path):
    content, truth = real_test
    rows = synthetic.detections(content, 7, noise=0.1)
    write_results(tmp_path / "results.json", rows, {"box_source": "annotated: test.json"})
    detections = Detections.load(tmp_path / "results.json", truth)
    assert detections.box_source == "ground truth"
    assert_judged_alike(standalone(content, rows), truth, detections)
