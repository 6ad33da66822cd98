"""Hand-made cases for each kind of error and each threshold between kinds, with their expected curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oaks.skeleton import COCO17
from oaks.val.detections import Detections
from oaks.val.error_analysis import KINDS, SIZES, STAGES, analyze, classify, corrected_points
from oaks.val.ground_truth import OCCLUSION_CLASSES, GroundTruth
from oaks.val.matching import match
from oaks.val.oks import pairs, similarities

from . import slow_error_analysis, synthetic

AREA = 10000.0
ONE, HALF, NONE = [1.0] * 101, [1.0] * 51 + [0.0] * 50, [0.0] * 101
LEFT_WRIST, RIGHT_WRIST, NOSE = 9, 10, 0
RIGHT, FAR = np.array([1.0, 0.0]), np.array([0.0, 5000.0])


def offset(k, similarity):
    """Return the distance in pixels from a keypoint, of a person of AREA, at which a similarity is reached."""
    return math.sqrt(-2 * math.log(similarity) * AREA * (2 * COCO17.sigmas[k]) ** 2)


class Scene:
    """People and detections, for GroundTruth and Detections."""

    def __init__(self):
        self.people, self.rows = [], []

    def person(self, image=1, at=0.0, labeled=range(17)):
        points = synthetic.STANDING + np.array([1000.0 + at, 100.0])
        flags = np.array([2 if k in labeled else 0 for k in range(17)])
        self.people.append({
            "id": len(self.people) + 1, "image_id": image, "category_id": 1,
            "keypoints": np.column_stack([points * (flags > 0)[:, None], flags]).ravel().tolist(),
            "num_keypoints": int((flags > 0).sum()), "bbox": [1000.0 + at, 100.0, 100.0, 125.0], "area": AREA,
            "iscrowd": 0,
        })  # fmt: skip
        return points.copy()

    def found(self, points, score, image=1):
        row = np.column_stack([points, np.ones(17)]).ravel().tolist()
        self.rows.append({"image_id": image, "category_id": 1, "keypoints": row, "score": score})

    def arrays(self):
        images = [{"id": i} for i in sorted({entry["image_id"] for entry in self.people + self.rows})]
        categories = [{"id": 1, "name": "person"}]
        content = {"images": images, "annotations": self.people, "categories": categories}
        truth = GroundTruth.from_coco(content)
        return truth, Detections.from_rows(self.rows, truth, box_source="detected")

    def analyze(self, among=None, **options):
        truth, found = self.arrays()
        members = None if among is None else truth.occlusion == among
        return analyze(
            truth, found.image, found.keypoints, found.scores, found.areas, among=members, **options
        )

    def errors(self):
        """The ground truth, the keypoints of the detections, and their errors."""
        truth, found = self.arrays()
        between = pairs(truth, found.keypoints, found.image)
        given = (found.image, found.scores, found.areas)
        localized = match(truth, between, *given, thresholds=np.array([0.1]), sizes=SIZES)
        return truth, found.keypoints, classify(truth, found.keypoints, between, localized)

    def kinds(self):
        """(N,17) the kind of each keypoint by name; None for a keypoint without one."""
        return [[KINDS[k] if k >= 0 else None for k in row] for row in self.errors()[2].kind]


def precision(analysis, start, *later):
    """Compare the curves stage by stage; the last given one is expected for all later stages."""
    expected = [start, *later, *[later[-1] if later else start] * (len(STAGES) - 1 - len(later))]
    for stage, curve in zip(STAGES, expected, strict=True):
        assert analysis.precision[stage] == pytest.approx(curve), stage
    return analysis


def test_exact_poses_have_no_errors():
    scene = Scene()
    scene.found(scene.person(), 0.9)
    analysis = precision(scene.analyze(), ONE)
    assert analysis.counts == {"good": 17, "jitter": 0, "inversion": 0, "swap": 0, "miss": 0}
    assert list(analysis.ap.values()) == pytest.approx([1] * 8)


def test_jitter_is_corrected_to_085_or_by_the_released_code_to_096():
    scene = Scene()
    points = scene.person()
    scene.found(points + [[0, offset(k, 0.6)] for k in range(17)], 0.9)
    analysis = precision(scene.analyze(), NONE, NONE, NONE, NONE, ONE)
    assert analysis.counts["jitter"] == 17
    for threshold, landing, reached in (
        (0.84, "definition", True),
        (0.86, "definition", False),
        (0.95, "released", True),
        (0.97, "released", False),
    ):
        found = scene.analyze(threshold=threshold, landing=landing)
        assert found.ap["jitter"] == pytest.approx(float(reached)), (threshold, landing)


def test_misses_are_corrected_to_05_or_by_the_released_code_to_084():
    scene = Scene()
    points = scene.person()
    wrong = points.copy()
    wrong[:5] += [0, 400.0]
    scene.found(wrong, 0.9)
    # Twelve keypoints have similarity 1, and five 0, which become .5.
    assert 12 / 17 < 0.75 < (12 + 5 * 0.5) / 17
    analysis = precision(scene.analyze(), NONE, ONE)
    assert analysis.counts["miss"] == 5
    corrected = (12 + 5 * 0.5) / 17
    assert scene.analyze(threshold=corrected - 0.001).ap["miss"] == pytest.approx(1)
    assert scene.analyze(threshold=corrected + 0.001).ap["miss"] == 0
    released = (12 + 5 * 0.5**0.25) / 17
    assert scene.analyze(threshold=released - 0.001, landing="released").ap["miss"] == pytest.approx(1)
    assert scene.analyze(threshold=released + 0.001, landing="released").ap["miss"] == 0


def test_inversions_are_corrected_at_their_present_similarity():
    scene = Scene()
    points = scene.person()
    arms = [5, 6, 7, 8, 9, 10]
    wrong = points.copy()
    wrong[arms] = points[COCO17.mirror[arms]]
    wrong[LEFT_WRIST] += [offset(LEFT_WRIST, 0.9), 0]
    scene.found(wrong, 0.9)
    analysis = precision(scene.analyze(), NONE, NONE, NONE, ONE)
    assert analysis.counts["inversion"] == 6
    assert scene.analyze(threshold=(16 + 0.9) / 17 - 1e-6).ap["inversion"] == pytest.approx(1)
    assert scene.analyze(threshold=(16 + 0.9) / 17 + 1e-6).ap["inversion"] == 0


def test_swaps_are_corrected_at_their_present_similarity():
    scene = Scene()
    points, other = scene.person(), scene.person(at=400.0)
    wrong = points.copy()
    wrong[5:11] = other[5:11]
    # One of them lies at the other person's counterpart.
    wrong[LEFT_WRIST] = other[RIGHT_WRIST]
    scene.found(wrong, 0.9)
    scene.found(other, 0.8)
    analysis = precision(scene.analyze(), [0.5] * 51 + [0] * 50, [0.5] * 51 + [0] * 50, ONE)
    assert analysis.counts["swap"] == 6
    assert analysis.counts["good"] == 17 + 11


def test_kinds_change_at_the_similarity_thresholds():
    """Similarities just below and just above .5 and .85, to the own label, its counterpart and another person's."""
    k, below, above = LEFT_WRIST, -1e-9, 1e-9
    scene = Scene()
    own, other = scene.person(), scene.person(at=400.0)
    cases = [
        (own, 0.5 + below, "miss"),
        (own, 0.5 + above, "jitter"),
        (own, 0.85 + below, "jitter"),
        (own, 0.85 + above, "good"),
        (own[COCO17.mirror], 0.5 + below, "miss"),
        (own[COCO17.mirror], 0.5 + above, "inversion"),
        (own[COCO17.mirror], 0.9, "inversion"),
        (other, 0.5 + below, "miss"),
        (other, 0.5 + above, "swap"),
        (other[COCO17.mirror], 0.5 + above, "swap"),
        (other[COCO17.mirror], 0.95, "swap"),
    ]
    for place, similarity, kind in cases:
        scene.rows.clear()
        points = own.copy()
        points[k] = place[k] + [0, offset(k, similarity)]
        scene.found(points, 0.9)
        found = scene.kinds()[0]
        assert found[k] == kind, (similarity, kind)
        assert set(found[:k] + found[k + 1 :]) == {"good"}


@pytest.mark.parametrize(("similarity", "kind"), [(0.5, "jitter"), (0.85, "good")])
def test_a_similarity_equal_to_a_threshold_counts_as_the_better_kind(similarity, kind):
    """Areas are tried until the similarity equals the threshold to the last digit."""
    scene = Scene()
    points = scene.person()
    moved = points.copy()
    moved[LEFT_WRIST, 1] += offset(LEFT_WRIST, similarity)
    scene.found(moved, 0.9)
    for step in range(-200, 200):
        scene.people[0]["area"] = AREA * (1 + step * 2.0**-52)
        truth, found = scene.arrays()
        if similarities(truth, found.keypoints, np.array([0]))[0][0, LEFT_WRIST] == similarity:
            break
    else:
        pytest.fail("no area gives the border itself")
    assert scene.kinds()[0][LEFT_WRIST] == kind


def test_the_most_similar_label_decides_and_on_ties_the_own_label():
    scene = Scene()
    points = scene.person()
    middle = (points[LEFT_WRIST] + points[RIGHT_WRIST]) / 2
    # Folded hands: both wrists are similar to both labels.
    shift = offset(LEFT_WRIST, 0.9)
    scene.people[0]["keypoints"][3 * LEFT_WRIST : 3 * LEFT_WRIST + 2] = (middle + RIGHT * shift).tolist()
    scene.people[0]["keypoints"][3 * RIGHT_WRIST : 3 * RIGHT_WRIST + 2] = (middle - RIGHT * shift).tolist()
    for x, kind in ((0.0, "good"), (1e-6, "good"), (-1e-6, "inversion")):
        scene.rows.clear()
        wrists = points.copy()
        wrists[LEFT_WRIST] = middle + RIGHT * x
        wrists[RIGHT_WRIST] = middle - RIGHT * shift
        scene.found(wrists, 0.9)
        assert scene.kinds()[0][LEFT_WRIST] == kind


def test_a_keypoint_without_counterpart_cannot_be_inverted():
    scene = Scene()
    points = scene.person()
    points[NOSE] += [0, offset(NOSE, 0.7)]
    scene.found(points, 0.9)
    assert scene.kinds()[0][NOSE] == "jitter"


def test_unlabeled_keypoints_have_no_kind_and_cause_no_inversion():
    scene = Scene()
    labeled = [k for k in range(17) if k != RIGHT_WRIST]
    points = scene.person(labeled=labeled)
    points[LEFT_WRIST] = points[RIGHT_WRIST]
    scene.found(points, 0.9)
    kinds = scene.kinds()[0]
    assert kinds[RIGHT_WRIST] is None
    assert kinds[LEFT_WRIST] == "miss"


def test_a_detection_below_oks_01_is_background():
    scene = Scene()
    points = scene.person()
    for similarity, count in ((0.1 - 1e-6, 0), (0.1 + 1e-6, 17)):
        scene.rows.clear()
        scene.found(points + [[0, offset(k, similarity)] for k in range(17)], 0.9)
        assert sum(kind is not None for kind in scene.kinds()[0]) == count
    assert scene.analyze().counts["miss"] == 17


def test_background_ranked_first_is_corrected_by_optimal_scores():
    scene = Scene()
    scene.found(scene.person(), 0.3)
    scene.found(scene.person(image=2) + FAR, 0.9, image=2)
    half = [0.5] * 51 + [0] * 50
    analysis = precision(scene.analyze(), half, half, half, half, half, HALF, HALF, ONE)
    assert analysis.counts == {"good": 17, "jitter": 0, "inversion": 0, "swap": 0, "miss": 0}


def test_background_is_what_matches_nobody_after_all_corrections():
    """Two people who look alike, so that the second pose is ranked lower; and a pose that stays below .75."""
    scene = Scene()
    scene.found(scene.person(), 0.9)
    scene.found(scene.person(at=8.0), 0.8)
    weak = scene.person(image=2)
    weak[:9] += [0, 4000.0]
    # Eight keypoints are exact, and nine are corrected to .5.
    assert 0.7 < (8 + 9 * 0.5) / 17 < 0.75
    scene.found(weak, 0.1, image=2)
    analysis = scene.analyze()
    assert analysis.ap["jitter"] == pytest.approx(67 / 101)
    assert analysis.ap["score"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert analysis.ap["background"] == pytest.approx(67 / 101)
    assert analysis.ap["negatives"] == pytest.approx(1)


def test_soft_suppression_ranks_duplicates_last():
    scene = Scene()
    points = scene.person()
    scene.found(points, 0.5)
    scene.found(points + 0.01, 0.9)
    worse = scene.person(image=2)
    worse[:3] += [0, 4000.0]
    scene.found(worse, 0.1, image=2)
    # Without suppression, the duplicate (nearly 1) would rank before the second person (14 and 3 halves of 17).
    analysis = scene.analyze()
    assert analysis.ap["jitter"] < 1
    assert analysis.ap["score"] == pytest.approx(1)


def test_undetected_people_are_false_negatives():
    scene = Scene()
    scene.found(scene.person(), 0.9)
    scene.person(at=400.0)
    analysis = precision(scene.analyze(), *[HALF] * 7, ONE)
    assert analysis.ap["background"] == pytest.approx(51 / 101)


def test_the_last_stage_is_undefined_if_nobody_was_found():
    scene = Scene()
    scene.found(scene.person() + FAR, 0.9)
    analysis = scene.analyze()
    assert [analysis.ap[stage] for stage in list(STAGES)[:-1]] == [0.0] * 7
    assert math.isnan(analysis.ap["negatives"])


def test_people_of_other_classes_and_their_matches_are_ignored():
    scene = Scene()
    scene.found(scene.person(labeled=range(5, 8)), 0.4)
    scene.found(scene.person(at=400.0), 0.9)
    for among in (0, 3):
        analysis = precision(scene.analyze(among=among), ONE)
        assert sum(analysis.counts.values()) == (3 if among == 0 else 17)
    assert math.isnan(scene.analyze(among=1).ap["original"])


def test_a_failed_pose_of_another_class_is_a_false_positive():
    scene = Scene()
    scene.found(scene.person(labeled=range(5, 8)), 0.4)
    scene.found(scene.person(at=400.0) + FAR, 0.9)
    analysis = scene.analyze(among=0)
    assert analysis.ap["original"] == pytest.approx(0.5)
    assert analysis.ap["score"] == pytest.approx(1)


def test_people_below_32_pixels_squared_are_ignored():
    scene = Scene()
    scene.found(scene.person(), 0.4)
    scene.person(at=400.0)
    scene.people[1]["area"] = 32.0**2 - 1
    precision(scene.analyze(), ONE)
    scene.people[1]["area"] = 32.0**2
    precision(scene.analyze(), *[HALF] * 7, ONE)


def test_corrected_points_lie_to_the_right_of_their_label():
    scene = Scene()
    points = scene.person()
    points[LEFT_WRIST] += [0, 900.0]
    scene.found(points, 0.9)
    truth, keypoints, errors = scene.errors()
    for landing, similarity in (("definition", 0.5), ("released", 0.5**0.25)):
        corrected = corrected_points(truth, keypoints, errors, landing)[0]
        expected = truth.keypoints[0, LEFT_WRIST] + [offset(LEFT_WRIST, similarity), 0]
        assert corrected[LEFT_WRIST] == pytest.approx(expected)
        assert np.array_equal(np.delete(corrected, LEFT_WRIST, 0), np.delete(points, LEFT_WRIST, 0))
    with pytest.raises(ValueError, match="landing"):
        corrected_points(truth, keypoints, errors, "elsewhere")


@pytest.mark.parametrize("landing", ["definition", "released"])
@pytest.mark.parametrize("seed", range(3))
def test_every_stage_equals_the_naive_implementation(seed, landing):
    content = synthetic.annotations(seed + 20, images=14)
    rows = [
        row
        for copy in range(2)
        for row in synthetic.detections(content, seed + copy, boxes="detected", noise=0.12)
    ]
    truth = GroundTruth.from_coco(content)
    found = Detections.from_rows(rows, truth)
    compared = 0
    for index, occlusion in enumerate(OCCLUSION_CLASSES):
        fewest, most = occlusion.fewest, occlusion.most
        stages, kinds = slow_error_analysis.curves(
            content, rows, COCO17, keep=lambda n, a=fewest, b=most: a <= n <= b, landing=landing
        )
        given = (found.image, found.keypoints, found.scores, found.areas)
        analysis = analyze(truth, *given, among=truth.occlusion == index, landing=landing)
        assert analysis.counts == kinds
        compared += sum(kinds.values())
        for stage, expected in zip(STAGES, stages, strict=True):
            if (expected == -1).all():
                assert np.isnan(analysis.precision[stage]).all()
            else:
                assert analysis.precision[stage] == pytest.approx(expected, abs=1e-12), stage
    assert compared > 100
