"""Scores by the paper's equations, from a case small enough to compute by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oaks.skeleton import Skeleton
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import similarities
from oaks.val.report.ranking import gap_closed
from oaks.val.scores import ScoredDetections

THREE = Skeleton("three", ("a", "b", "c"), (0.1, 0.1, 0.1))
HEAT = (0.9, 0.3, 0.6)
SIMILARITY = (0.8, 0.4, 0.5)
VISIBILITY = (1.0, 0.5, 0.25)


def person(person_id, image_id, points=(10, 10, 2, 20, 10, 1, 0, 0, 0)):
    """A person whose first two keypoints are labeled, unless said otherwise."""
    return {
        "id": person_id, "image_id": image_id, "category_id": 1, "keypoints": list(points), "bbox": [0, 0, 20, 20],
        "num_keypoints": sum(flag > 0 for flag in points[2::3]), "area": 400.0, "iscrowd": 0,
    }  # fmt: skip


def truth_of(*people):
    images = [{"id": image} for image in sorted({p["image_id"] for p in people})]
    categories = [{"id": 1, "name": "person"}]
    content = {"images": images, "annotations": list(people), "categories": categories}
    return GroundTruth.from_coco(content, skeleton=THREE)


def measured(box_source="ground truth", header=None, **changes):
    """The first keypoint is exact, the second is 4 pixels off, the third is not labeled."""
    truth = truth_of(person(1, 1))
    row = {
        "image_id": 1, "category_id": 1, "keypoints": [10, 10, 0, 24, 10, 0, 3, 3, 0], "score": 0.123, "box_score": 0.5,
        "heat": HEAT, "similarity": SIMILARITY, "visibility": VISIBILITY, **changes,
    }  # fmt: skip
    found = Detections.from_rows([row], truth, box_source=box_source, header=header, path="file.json")
    return ScoredDetections.of(truth, found)


def detected(header, **changes):
    return measured("detected", header, **changes)


# Equation 2 with d = 4, s^2 = 400, k = 0.2.
KS = math.exp(-(4**2) / (2 * 400 * 0.2**2))

EXPECTED = {
    "own": 0.123,
    "conventional": (0.9 + 0.3 + 0.6) / 3,
    "oaks": (0.8 * 1 + 0.4 * 0.5 + 0.5 * 0.25) / 1.75,
    "heat_predicted_visibility": (0.9 * 1 + 0.3 * 0.5 + 0.6 * 0.25) / 1.75,
    "oaks_all_visible": (0.8 + 0.4 + 0.5) / 3,
    "heat_true_visibility": (0.9 + 0.3) / 2,
    "oaks_true_visibility": (0.8 + 0.4) / 2,
    "true_ks_all_visible": (1 + KS) / 3,
    "true_ks_predicted_visibility": (1 + KS * 0.5) / 1.75,
    "oracle": (1 + KS) / 2,
}


def test_every_score_follows_its_equation():
    scores = measured().scores
    assert {key: score.values[0] for key, score in scores.items()} == pytest.approx(EXPECTED)


def test_ground_truth_boxes_do_not_change_scores():
    for score in measured().scores.values():
        assert score.ranks[0] == score.values[0]


def test_scores_in_detected_boxes_are_multiplied_by_box_scores():
    scores = measured("detected").scores
    known = ("own", "conventional", "oaks", "heat_predicted_visibility", "oaks_all_visible")
    assert set(scores) == set(known)
    for key in known[1:]:
        assert scores[key].values[0] == pytest.approx(EXPECTED[key])
        assert scores[key].ranks[0] == pytest.approx(EXPECTED[key] * 0.5)
    assert scores["own"].ranks[0] == 0.123


@pytest.mark.parametrize("power", [0, 0.25, 1])
def test_scores_of_predicted_similarity_use_the_box_score_power_of_the_header(power):
    scores = detected({"box_score_power": power}).scores
    for key in ("oaks", "oaks_all_visible"):
        assert scores[key].ranks[0] == pytest.approx(EXPECTED[key] * 0.5**power)
    for key in ("conventional", "heat_predicted_visibility"):
        assert scores[key].ranks[0] == pytest.approx(EXPECTED[key] * 0.5)
    assert "own" not in detected({"box_score_power": power}, score=EXPECTED["oaks"] * 0.5**power).scores


@pytest.mark.parametrize("power", [-0.5, 1.5, "1", True, None, float("nan")])
def test_a_box_score_power_outside_0_to_1_is_refused(power):
    message = r"file\.json: box_score_power of the header must be a number from 0 to 1"
    with pytest.raises(ValueError, match=message):
        detected({"box_score_power": power})


def test_a_negative_box_score_with_a_power_is_refused():
    message = r"file\.json: box_score must be at least 0 with box_score_power, got -0\.5"
    with pytest.raises(ValueError, match=message):
        detected({"box_score_power": 0.25}, box_score=-0.5)
    assert detected({}, box_score=-0.5).scores["oaks"].ranks[0] == pytest.approx(-0.5 * EXPECTED["oaks"])
    assert detected({"box_score_power": 0.25}, box_score=0).scores["oaks"].ranks[0] == 0


def test_the_score_of_a_file_ranked_by_oaks_is_the_oaks_score():
    stated = EXPECTED["oaks"] * 0.5 + 3e-8
    scores = measured("detected", score=stated).scores
    assert "own" not in scores
    assert scores["oaks"].ranks[0] == stated


def test_scores_without_visibility_or_similarity_are_left_out():
    assert "oaks" not in measured(visibility=None).scores
    assert set(measured("detected", visibility=None, similarity=None).scores) == {"own", "conventional"}
    assert measured("detected", visibility=None, similarity=None).best.key == "own"


def test_a_skeleton_of_one_keypoint_has_lists_of_one_number():
    skeleton = Skeleton("dot", ("dot",), (0.1,), (), ())
    truth = GroundTruth.from_arrays(
        path="truth.json", skeleton=skeleton, category_id=1, ids=np.array([1]), image=np.array([0]),
        image_ids=np.array([5]), file_names=("a.jpg",), sizes=np.array([[64, 48]]), scales=np.ones((1, 2)),
        keypoints=np.array([[[9.0, 8.0]]]), flags=np.array([[2]]), areas=np.array([400.0]),
        boxes=np.array([[0.0, 0, 20, 20]]), crowd=np.array([False]),
    )  # fmt: skip
    row = {"image_id": 5, "category_id": 1, "keypoints": [9, 8, 0.5], "score": 0.5, "annotation_id": 1,
           "visibility": [0.25], "similarity": [0.75], "box_score": 0.5}  # fmt: skip
    found = Detections.from_rows([row], truth)
    assert (found.visibility.tolist(), found.similarity.tolist()) == ([[0.25]], [[0.75]])
    with pytest.raises(ValueError, match="visibility must be a list of 1"):
        Detections.from_rows([{**row, "visibility": 0.25}], truth)


def test_a_pose_without_visible_keypoints_scores_zero():
    assert measured(visibility=(0.0, 0.0, 1e-8)).scores["oaks"].values[0] == 0.0


def test_a_pose_without_a_person_has_oks_zero():
    truth = truth_of(person(1, 1), person(2, 2))
    far = {"image_id": 2, "category_id": 1, "keypoints": [900, 900, 1] * 3, "score": 0.4}
    found = ScoredDetections.of(truth, Detections.from_rows([far], truth, box_source="detected"))
    assert found.own_oks.tolist() == [0.0]
    assert found.flags.tolist() == [[-1, -1, -1]]
    assert found.occlusion.tolist() == [-1]


def test_oks_with_a_person_without_keypoints_uses_the_doubled_box():
    truth = truth_of(person(1, 1), person(2, 1, [0] * 9))
    inside = np.array([[[-20.0, -20.0], [40.0, 40.0], [0.0, 0.0]]])
    assert similarities(truth, inside, np.array([1]))[1].tolist() == [1.0]
    beside = np.array([[[-24.0, 0.0], [0.0, 44.0], [0.0, 0.0]]])
    assert similarities(truth, beside, np.array([1]))[1][0] == pytest.approx((2 * KS + 1) / 3)


def test_the_share_of_the_gap_to_the_oracle():
    ranking = {"conventional": {"AP": 0.5}, "oaks": {"AP": 0.56}, "oracle": {"AP": 0.7}}
    assert gap_closed(ranking, "oaks") == pytest.approx(0.3)
    assert gap_closed(ranking, "oracle") == pytest.approx(1)
    assert gap_closed({"oaks": {"AP": 0.5}}, "oaks") is None
    assert gap_closed(ranking | {"oracle": {"AP": 0.5}}, "oaks") is None
