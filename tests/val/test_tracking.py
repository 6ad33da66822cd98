"""Tracking metrics against figures calculated by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oaks.val.ground_truth import GroundTruth
from oaks.val.tracking import TrackedFrame, TrackScores, frames_by_oks, person_ids, score_tracks, steadiness

from . import synthetic


def frame(people, tracks, similarity, counted=None):
    similarity = np.array(similarity, float).reshape(len(people), len(tracks))
    counted = np.ones(len(people), bool) if counted is None else np.array(counted, bool)
    return TrackedFrame(np.array(people, int), np.array(tracks, int), similarity, counted)


def test_perfect_tracks_have_mota_and_idf1_of_1():
    frames = [frame([1, 2], [7, 5], np.eye(2)) for _ in range(4)]
    scores = score_tracks(frames)
    assert (scores.people, scores.poses, scores.misses, scores.false_positives) == (8, 8, 0, 0)
    assert (scores.mota, scores.motp, scores.idf1, scores.recall) == (1, 1, 1, 1)
    assert len(scores.switches) == 0


def test_exchanged_ids_are_two_switches():
    """Four frames, ids exchanged from the third on: two switches of eight; half of each belongs together."""
    frames = [frame([1, 2], [1, 2], np.eye(2))] * 2 + [frame([1, 2], [1, 2], np.eye(2)[::-1])] * 2
    scores = score_tracks(frames)
    assert scores.switches.tolist() == [[2, 0, 1], [2, 1, 1]]
    assert scores.mota == pytest.approx(1 - 2 / 8)
    assert scores.idf1 == pytest.approx(2 * 4 / 16)  # IDTP 4 of 8 people and 8 poses
    assert scores.recall == 1


def test_misses_false_positives_and_a_switch_after_a_gap():
    """Person 1 is found as 4, missed, found as 9; a pose on nobody in the first frame.

    3 people, 3 poses: 1 miss, 1 false positive, 1 switch: MOTA 1 - 3/3 = 0; MOTP (0.9 + 0.7) / 2;
    IDF1: one of the tracks fits once: 2 * 1 / 6.
    """
    frames = [frame([1], [4, 8], [[0.9, 0.1]]), frame([1], [], [[]]), frame([1], [9], [[0.7]])]
    scores = score_tracks(frames)
    assert (scores.misses, scores.false_positives) == (1, 1)
    assert scores.switches.tolist() == [[2, 0, 0]]
    assert scores.mota == 0
    assert scores.motp == pytest.approx(0.8)
    assert scores.idf1 == pytest.approx(1 / 3)
    assert scores.recall == pytest.approx(2 / 3)
    assert scores.matches.tolist() == [[0, 0, 0], [2, 0, 0]]


def test_a_pair_stays_while_it_reaches_the_threshold():
    frames = [frame([1], [4], [[0.9]]), frame([1], [4, 6], [[0.6, 0.95]]), frame([1], [4, 6], [[0.4, 0.95]])]
    scores = score_tracks(frames)
    assert scores.matches[:, 2].tolist() == [0, 0, 1]
    assert scores.switches.tolist() == [[2, 0, 1]]
    assert scores.false_positives == 2


def test_a_broken_pair_has_no_priority():
    """Unmatched for a frame, person 1 gets the better pose, and the switch counts against the last match."""
    frames = [frame([1], [4], [[0.9]]), frame([1], [4], [[0.2]]), frame([1], [4, 6], [[0.6, 0.95]])]
    scores = score_tracks(frames)
    assert scores.switches.tolist() == [[2, 0, 0]]
    assert (scores.misses, scores.false_positives) == (1, 2)


def test_pairs_have_the_largest_sum_of_similarities():
    """The greedy choice (0.9 first) would leave the second person without a pose."""
    scores = score_tracks([frame([1, 2], [5, 6], [[0.9, 0.8], [0.7, 0.1]])])
    assert sorted(scores.matches[:, 1:].tolist()) == [[0, 1], [1, 0]]
    assert scores.similarities.sum() == pytest.approx(1.5)


def test_a_pose_below_the_threshold_displaces_no_pair():
    """If 0.45 counted, 0.45 + 0.6 would exceed 0.9."""
    scores = score_tracks([frame([1, 2], [5, 6], [[0.9, 0.6], [0.45, 0.0]])])
    assert scores.matches.tolist() == [[0, 0, 0]]
    assert score_tracks([frame([1], [5], [[0.5]])]).recall == 1
    assert score_tracks([frame([1], [5], [[0.6]])], threshold=0.7).recall == 0


def test_poses_of_people_who_do_not_count_are_ignored():
    frames = [frame([1, 2], [5, 6, 7], [[0.9, 0.0, 0.0], [0.0, 0.8, 0.2]], counted=[True, False])]
    scores = score_tracks(frames)
    assert (scores.people, scores.poses, scores.false_positives, scores.same) == (1, 2, 1, 1)
    # People who count take precedence.
    scores = score_tracks([frame([1, 2], [5], [[0.6], [0.9]], counted=[True, False])])
    assert (scores.recall, scores.false_positives) == (1, 0)


def test_idf1_assigns_each_track_to_one_person():
    """Person 1: track 3 for three frames, 4 for two. Person 2: track 3 for two. 3 + 0 against 2 + 2: 4."""
    frames = (
        [frame([1, 2], [3], [[0.9], [0.0]])] * 3
        + [frame([1, 2], [4, 3], [[0.9, 0.0], [0.0, 0.9]])] * 2
    )  # fmt: skip
    scores = score_tracks(frames)
    assert scores.same == 4
    assert scores.idf1 == pytest.approx(2 * 4 / (10 + 7))


def test_figures_without_people_are_undefined():
    for frames in ([], [frame([], [], [])], [frame([1], [2], [[0.9]], counted=[False])]):
        scores = score_tracks(frames)
        assert math.isnan(scores.mota)
        assert math.isnan(scores.motp)
        assert (scores.people, scores.poses) == (0, 0)
    assert score_tracks([frame([], [3], [])]).false_positives == 1


def test_scores_of_videos_are_combined():
    first = score_tracks([frame([1], [4], [[0.9]])] * 3)
    second = score_tracks([frame([1], [4], [[0.7]]), frame([1], [5], [[0.7]])])
    both = TrackScores.together([first, second])
    assert (both.people, both.poses, both.same) == (5, 5, 4)
    assert len(both.switches) == 1  # equal ids in different videos are different tracks
    assert both.mota == pytest.approx(1 - 1 / 5)
    assert both.motp == pytest.approx((3 * 0.9 + 2 * 0.7) / 5)


def test_frames_are_made_of_annotations_by_oks():
    """Each pose lies on one person of its frame, one on nobody; people without keypoints do not count."""
    content = synthetic.annotations(3, images=6)
    for number, entry in enumerate(content["annotations"]):
        entry["track_id"] = 100 + number
    truth = GroundTruth.from_coco(content)
    people = person_ids(truth, content)
    assert people.tolist() == [100 + number - 1 for number in truth.ids]
    own = np.flatnonzero(truth.counted)
    keypoints = np.concatenate([truth.keypoints[own], truth.keypoints[:1] + 5000])
    image, tracks = np.append(truth.image[own], truth.image[-1]), np.append(people[own] + 500, 7)
    frames = frames_by_oks(truth, people, keypoints, image, tracks)
    assert len(frames) == 6
    scores = score_tracks(frames)
    assert (scores.people, scores.false_positives, scores.misses) == (len(own), 1, 0)
    assert scores.motp == pytest.approx(1)
    enough = frames_by_oks(truth, people, keypoints, image, tracks, fewest=6)
    assert score_tracks(enough).people == (truth.labeled[own] >= 6).sum() < len(own)
    assert score_tracks(enough).false_positives == 1  # poses of people who do not count are ignored
    for number, row, column in scores.matches:
        assert frames[number].tracks[column] == frames[number].people[row] + 500
    with pytest.raises(ValueError, match="image must hold ascending"):
        frames_by_oks(truth, people, keypoints, image[::-1], tracks)
    with pytest.raises(ValueError, match="tracks must hold each track at most once"):
        frames_by_oks(truth, people, keypoints, np.zeros_like(image), np.ones_like(tracks))
    del content["annotations"][2]["track_id"]
    with pytest.raises(ValueError, match="every annotation must have a track_id, got none in annotation 3"):
        person_ids(truth, content)


def walk(frames, person=0):
    """One keypoint that moves by (3, 4) pixels in a frame."""
    time = np.arange(frames)
    true = (time[:, None] * np.array([3.0, 4.0]))[:, None]
    return true, np.ones((frames, 1), bool), np.full(frames, 50.0), time, np.full(frames, person)


def test_constant_motion_has_no_jitter_and_its_lag_is_measured():
    true, *rest = walk(9)
    for delay in (0.0, 1.0, -0.5):
        found = steadiness(true - delay * np.array([3.0, 4.0]), true, *rest)
        assert found.lag == pytest.approx(delay)
        assert found.jitter == pytest.approx(0, abs=1e-12)
        assert found.error == pytest.approx(abs(delay) * 5 / 50)
        assert found.count == 7


def test_alternating_points_have_jitter():
    """Every other frame is shifted by 1 pixel: each second difference is 2 pixels, for a person of 50 pixels."""
    true, *rest = walk(8)
    found = true.copy()
    found[::2, 0, 0] += 1
    measured = steadiness(found, true, *rest)
    assert measured.jitter == pytest.approx(2)
    assert measured.relative_jitter == pytest.approx(2 / 50)
    assert measured.shake == pytest.approx(2 / 50)
    assert measured.error == pytest.approx(0.5 / 50)


def test_accelerated_motion_has_jitter_and_no_shake():
    """x = t^2 has the second difference 2, one frame late too, with lag 1."""
    time = np.arange(-6, 7)
    true = np.stack([time**2.0, np.zeros(13)], 1)[:, None]
    late = np.stack([(time - 1) ** 2.0, np.zeros(13)], 1)[:, None]
    rest = np.ones((13, 1), bool), np.full(13, 10.0), time, np.zeros(13, int)
    measured = steadiness(late, true, *rest)
    assert measured.jitter == pytest.approx(2)
    assert measured.shake == pytest.approx(0, abs=1e-12)
    assert measured.lag == pytest.approx(1)


def test_gaps_people_and_unknown_keypoints_interrupt_runs():
    """Nine frames without the fifth are two runs of 4, with two second differences each; people are kept apart."""
    true, known, sizes, time, person = walk(9)
    keep = np.arange(9) != 4
    parts = [array[keep] for array in (true, true, known, sizes, time, person)]
    assert steadiness(*parts).count == 4
    mixed = np.random.default_rng(0).permutation(16)
    other = [*parts[:-1], np.ones(8, int)]
    assert steadiness(*(np.concatenate(both)[mixed] for both in zip(parts, other, strict=True))).count == 8
    known = known.copy()
    known[2] = False
    assert steadiness(true, true, known, sizes, time, person).count == 4  # the middles 4 to 7
    lost = true.copy()
    lost[2] = np.nan
    measured = steadiness(lost, true, np.ones_like(known), sizes, time, person)
    assert (measured.count, measured.error) == (4, 0)
    empty = steadiness(*(array[:2] for array in parts))
    assert empty.count == 0
    assert math.isnan(empty.jitter)
    assert math.isnan(empty.lag)
