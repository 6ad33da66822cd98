"""Our loading, matching and class filters against pycocotools in a script that uses nothing of ours."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oaks.val.judge import FIGURES, judge
from oaks.val.matching import match, precision_recall
from oaks.val.results import Detections
from oaks.val.similarity import pairs
from oaks.val.truth import LARGE, LARGEST, MEDIUM, Truth

from . import synthetic

SIZES = {"all": (0, LARGEST), "medium": (MEDIUM, LARGE), "large": (LARGE, LARGEST)}


def standalone(content, rows, sigmas=None, keep=None, area=None, score="score"):
    """Figures and precision arrays of pycocotools alone. `keep(labelled)` chooses whom to find."""
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


def enlarge(keypoints, sx, sy):
    points = np.array(keypoints, dtype=float).reshape(-1, 3)
    points[:, 0] *= sx
    points[:, 1] *= sy
    return points.ravel().tolist()


def matches_of(truth, detections, **options):
    found = pairs(truth, detections.keypoints, detections.image)
    return match(truth, found, detections.image, detections.scores, detections.areas, **options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("boxes", ["ground truth", "detected"])
def test_the_ten_figures_are_pycocotools_to_the_last_digit(seed, boxes):
    content = synthetic.annotations(seed, images=25, reduced=seed % 2 == 1)
    rows = synthetic.detections(content, seed, boxes=boxes)
    np.random.default_rng(seed).shuffle(rows)
    expected = standalone(content, rows)
    assert 0.05 < expected.stats[0] < 0.95
    truth = Truth.from_coco(content)
    detections = Detections.from_rows(rows, truth, box_source=boxes)
    for by in ("pycocotools", "faster-coco-eval"):
        found = judge(truth, detections.image, detections.keypoints, detections.scores, by=by)
        assert list(found) == list(FIGURES)
        assert list(found.values()) == expected.stats.tolist()

    for a, sizes in enumerate(SIZES.values()):
        precision, recall = precision_recall(matches_of(truth, detections, sizes=sizes))
        assert np.array_equal(precision, expected.eval["precision"][:, :, 0, a, 0])
        assert np.array_equal(recall, expected.eval["recall"][:, 0, a, 0])
