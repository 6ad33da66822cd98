"""Tracks at their decision edges: which poses keep an id, and which lose it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from oaks import COCO17, Poses, Skeleton
from oaks.poses import NO_TRACK
from oaks.video.tracking import Tracker

from .scenes import STANDING, people

RATE = 30.0


def ids(poses: Poses) -> list[int]:
    return poses.track_ids.tolist()


def tracker_of(poses: Poses, size: tuple[int, int] | None = None, **settings) -> Tracker:
    """A tracker whose first frame had these poses."""
    tracker = Tracker(COCO17, **settings)
    tracker.update(poses, 0.0, size=size)
    return tracker


def reference_oks(a: np.ndarray, b: np.ndarray) -> float:
    """OKS in float64 with the area that the tracker uses, b's extent."""
    width, height = np.ptp(b, axis=0)
    squared = ((a - b) ** 2).sum(axis=1)
    return float(np.mean(np.exp(-squared / (2 * width * height * (2 * np.array(COCO17.sigmas)) ** 2))))


def test_ids_start_at_one_and_all_else_is_unchanged():
    poses = people([(100, 100), (300, 100)], oaks=[0.9, 0.5])
    tracked = Tracker(COCO17).update(poses, 0.0)
    assert ids(tracked) == [1, 2]
    for name in ("keypoints", "visibility", "similarity", "scores", "oaks_scores", "boxes", "frame_index"):
        assert getattr(tracked, name) is getattr(poses, name)


def test_ids_follow_people_in_any_order_of_boxes():
    tracker, random = Tracker(COCO17), np.random.default_rng(0)
    ways = [(np.array(start, float), np.array(speed, float)) for start, speed in
            (((100, 100), (150, 0)), ((500, 100), (-150, 0)), ((300, 400), (0, 60)))]  # fmt: skip
    names: dict[int, int] = {}
    for n in range(60):
        order = random.permutation(3)
        centers = [ways[i][0] + ways[i][1] * n / RATE + (0, 40 * (i == 1)) for i in order]
        for person, track in zip(order, ids(tracker.update(people(centers), n / RATE)), strict=True):
            assert names.setdefault(int(person), track) == track
    assert sorted(names.values()) == [1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_is_optimal(seed):
    """Compared with every permutation, for people so close that a greedy assignment would be worse."""
    random = np.random.default_rng(seed)
    before = random.uniform(0, 60, (5, 2)) * (1, 0.5)
    after = before[random.permutation(5)] + random.normal(0, 12, (5, 2))
    tracker = Tracker(COCO17, repeat=1.0, match=0.0)
    assert ids(tracker.update(people(before), 0.0)) == [1, 2, 3, 4, 5]
    table = np.array([
        [reference_oks(a + STANDING, b + STANDING) for b in before] for a in after
    ])  # fmt: skip
    sums = {order: table[range(5), order].sum() for order in itertools.permutations(range(5))}
    best, second = sorted(sums.values())[-1], sorted(sums.values())[-2]
    assert best - second > 1e-3, "the input must tell the orders apart"
    expected = max(sums, key=sums.get)
    assert ids(tracker.update(people(after), 1e-9)) == [track + 1 for track in expected]


def test_the_assignment_is_not_greedy():
    """Two tracks compete for one pose; a greedy assignment would leave one without a pose."""
    tracker = tracker_of(people([(0, 0), (26, 0)]), repeat=1.0)
    table = [[reference_oks(np.array((x, 0)) + STANDING, np.array((at, 0)) + STANDING)
              for at in (0, 26)] for x in (14, 45)]  # fmt: skip
    assert table[0][1] > table[0][0] > 0.2 > table[1][0]
    assert table[0][0] + table[1][1] > table[0][1]
    assert ids(tracker.update(people([(14, 0), (45, 0)]), 1e-9)) == [1, 2]


def test_pairs_below_the_threshold_displace_no_good_pair():
    """Two pairs just below the threshold have a larger sum than the pair above it with the remaining one."""

    def oks(apart: float) -> float:
        return reference_oks(STANDING + np.array((apart, 0.0)), STANDING)

    near = next(d for d in np.arange(0, 40, 0.25) if oks(d) < 0.6)
    far = next(d for d in np.arange(0, 40, 0.25) if oks(d) < 0.5)
    assert 2 * oks(far) > oks(near) + oks(near + 2 * far)
    tracker = tracker_of(people([(0, 0), (near + far, 0)]), match=0.5)
    assert ids(tracker.update(people([(near, 0), (-far, 0)]), 1e-9)) == [1, 3]


def test_a_pose_at_the_gate_updates_its_track_and_one_below_does_not():
    gate = float(np.float32(0.3))
    below = float(np.nextafter(np.float32(0.3), np.float32(0)))
    tracker = Tracker(COCO17, gate=gate)
    assert ids(tracker.update(people([(0, 0), (200, 0)], oaks=[gate, below]), 0.0)) == [1, NO_TRACK]
    assert ids(tracker.update(people([(0, 0), (200, 0)], oaks=[below, gate]), 0.1)) == [NO_TRACK, 2]
    assert tracker.started == 2


def test_a_pose_below_the_gate_takes_part_in_the_assignment():
    """The first person's pose is nearer to the second one's track, whose own pose is below the gate."""
    before, after = people([(0, 0), (26, 0)]), [(14, 0), (26, 0)]
    moved, first, second = (np.array((x, 0)) + STANDING for x in (14, 0, 26))
    assert reference_oks(moved, second) > reference_oks(moved, first) > 0.2
    tracker = tracker_of(before, repeat=1.0)
    assert ids(tracker.update(people(after, oaks=[0.9, 0.1]), 1e-9)) == [1, NO_TRACK]
    alone = tracker_of(before, repeat=1.0)
    # Without the second pose, the first is assigned to the second track.
    assert ids(alone.update(people(after[:1]), 1e-9)) == [2]


def test_a_match_changes_at_the_oks_threshold():
    moved = STANDING + np.array((17.0, 0))
    edge = reference_oks(moved, STANDING)
    assert 0.1 < edge < 0.5
    for match, expected in ((edge - 1e-5, 1), (edge + 1e-5, 2)):
        tracker = tracker_of(people([(0, 0)]), match=match)
        assert ids(tracker.update(people([(17, 0)]), 0.0)) == [expected]


def test_a_track_of_one_pose_allows_a_larger_distance():
    """The velocity of a track with one pose is unknown."""
    runner, stander = Tracker(COCO17), Tracker(COCO17)
    for time in (0.0, 0.1):
        stander.update(people([(0, 0)]), time)
    runner.update(people([(0, 0)]), 0.1)
    moved = people([(30, 0)])
    assert (ids(runner.update(moved, 0.2)), ids(stander.update(moved, 0.2))) == ([1], [2])
    assert ids(runner.update(people([(60, 0)]), 0.3)) == [1]


def test_the_chosen_score_is_compared_with_the_gate():
    poses = people([(0, 0)], oaks=0.1, conventional=0.9)
    assert ids(Tracker(COCO17).update(poses, 0.0)) == [NO_TRACK]
    assert ids(Tracker(COCO17, score="conventional").update(poses, 0.0)) == [1]


@pytest.mark.parametrize(("gap", "expected"), [(1.0, 1), (1.0 + 1e-6, 2)])
def test_a_track_is_lost_after_patience(gap, expected):
    tracker = tracker_of(people([(0, 0)]), patience=1.0)
    tracker.update(people([(0, 0)], oaks=0.1), 0.5)
    assert ids(tracker.update(people([(0, 0)]), gap)) == [expected]


@pytest.mark.parametrize("patience", [0.0, 1.0])
def test_frames_may_be_farther_apart_than_patience(patience):
    tracker = tracker_of(people([(0, 0)]), patience=patience)
    assert tracker.boxes(5.0)[1].tolist() == [1]
    assert ids(tracker.update(people([(4, 0)]), 5.0)) == [1]
    tracker.update(people([]), 10.0)
    assert tracker.boxes(10.0)[1].tolist() == []


def test_an_id_survives_an_occlusion_by_another_person():
    """B walks behind A, who stands. While B is hidden, B's box holds A's pose, or a bad one."""
    tracker = Tracker(COCO17)
    for n in range(90):
        b = 5.0 * n
        hidden = abs(b - 200) < 55
        poses = people([(200, 0), (b, 0)], oaks=[0.9, 0.12 if hidden else 0.8])
        tracked = ids(tracker.update(poses, n / RATE))
        assert tracked == [1, NO_TRACK if hidden else 2], n


SIZE = (400, 300)


def test_a_track_ends_when_its_person_leaves_and_nobody_gets_its_id():
    """A pan to the right: the first person leaves on the left, and poses in the box then show the second one."""
    tracker = tracker_of(people([(60, 150), (300, 150)]), size=SIZE)
    gone = None
    for n in range(1, 60):
        time, shift = n / RATE, 4.0 * n
        _, own = tracker.boxes(time, SIZE)
        first, second = (60 - shift, 150), (300 - shift, 150)
        at = [first if track == 1 and first[0] > -10 else second for track in own]
        tracked = tracker.update(people(at), time, of_tracks=own, size=SIZE, unique=True)
        if 1 not in own and gone is None:
            gone = first[0]
        assert 1 not in ids(tracked) or first[0] > -10, "the id stays with its person"
        assert len(tracked) == len(set(ids(tracked))) <= 2, "nobody has two poses"
        if second[0] > 20:
            assert 2 in ids(tracked)
    assert gone is not None
    assert -45 < gone < 10


def test_a_person_half_in_view_at_the_edge_keeps_the_track():
    tracker = Tracker(COCO17)
    poses = people([(4, 150)])
    for n in range(30):
        _, own = tracker.boxes(n / RATE, SIZE)
        tracked = tracker.update(poses, n / RATE, of_tracks=own if n else None, size=SIZE)
        assert ids(tracked) == [1]


def test_a_track_without_visible_keypoints_ends_only_at_the_edge():
    for center, expected in (((4, 150), [NO_TRACK]), ((200, 150), [1])):
        tracker = tracker_of(people([center]), size=SIZE)
        unseen = people([center], visibility=0.1)
        assert ids(tracker.update(unseen, 0.1, of_tracks=[1], size=SIZE)) == [1]
        _, own = tracker.boxes(0.2, SIZE)
        assert list(own) == [track for track in expected if track > 0]
        assert ids(tracker.update(unseen, 0.2, of_tracks=[1], size=SIZE)) == expected


def test_a_track_ends_when_its_box_shows_the_person_of_another():
    tracker = tracker_of(people([(100, 150), (200, 150)]))
    tracked = tracker.update(
        people([(202, 150), (200, 150)], oaks=[0.8, 0.9]), 0.1, of_tracks=[1, 2], unique=True
    )
    assert ids(tracked) == [2]
    assert list(tracker.boxes(0.2)[1]) == [2]
    # Poses in detected boxes end no track: the first person may be hidden for a moment.
    other = tracker_of(people([(100, 150), (200, 150)]))
    tracked = other.update(people([(202, 150), (200, 150)], oaks=[0.8, 0.9]), 0.1)
    assert ids(tracked) == [NO_TRACK, 2]
    assert list(other.boxes(0.2)[1]) == [1, 2]


def test_detected_people_are_tracked_until_they_leave_the_picture():
    tracker = Tracker(COCO17)
    for n in range(40):
        center = (40 - 4 * n, 150)
        tracked = tracker.update(people([center] if center[0] > -40 else []), n / RATE, size=SIZE)
        assert ids(tracked) in ([1], [])
    assert list(tracker.boxes(40 / RATE, SIZE)[1]) == []


def test_boxes_of_the_tracker_start_no_track():
    tracker = tracker_of(people([(0, 0)]))
    assert ids(tracker.update(people([(300, 0), (2, 0)]), 0.1, of_tracks=[1, 1])) == [NO_TRACK, 1]
    assert tracker.started == 1


def test_two_boxes_of_one_person_give_one_track():
    tracker = Tracker(COCO17)
    poses = people([(0, 0), (2, 0), (300, 0)], oaks=[0.7, 0.9, 0.8])
    assert ids(tracker.update(poses, 0.0)) == [NO_TRACK, 1, 2]


def test_tracks_of_the_last_frame_are_assigned_first():
    """A pose lies between a track of the last frame and an older one, whose allowed distance has grown."""
    tracker = tracker_of(people([(0, 0), (60, 0)]))
    for n in range(1, 25):
        tracker.update(people([(0, 0)]), n / RATE)
    assert ids(tracker.update(people([(14, 0)]), 25 / RATE)) == [1]


def test_a_pose_below_the_gate_does_not_change_its_track():
    tracker = Tracker(COCO17)
    for n in range(4):
        tracker.update(people([(10 * n, 0)]), 0.1 * n)
    expected, _ = tracker.boxes(0.5)
    tracker.update(people([(90, 40)], oaks=0.2), 0.4)
    boxes, of = tracker.boxes(0.5)
    np.testing.assert_array_equal(boxes, expected)
    assert of.tolist() == [1]


def test_predicted_boxes_are_padded_extents_moved_with_the_body():
    """At uneven times: motion depends on time and not on the number of frames."""
    tracker = Tracker(COCO17)
    for time in (0.0, 0.1, 0.13, 0.4, 0.5):
        tracker.update(people([(100 * time, -20 * time), (500, 0)]), time)
    boxes, of = tracker.boxes(0.7)
    low, high = STANDING.min(axis=0), STANDING.max(axis=0)
    margin = 0.12 * np.sqrt(np.prod(high - low))
    corners = np.concatenate([low + 0.5 - margin, high + 0.5 + margin])
    moves = np.array([(70, -14, 70, -14), (500, 0, 500, 0)])
    np.testing.assert_allclose(boxes, corners + moves, atol=1e-2)
    assert of.tolist() == [1, 2]
    assert boxes.dtype == np.float32


def test_a_track_has_a_box_until_it_is_lost():
    tracker = tracker_of(people([(0, 0)]), patience=0.5)
    tracker.update(people([]), 0.4)  # without a pose from here on
    assert tracker.boxes(0.5)[1].tolist() == [1]
    boxes, of = tracker.boxes(0.51)
    assert boxes.shape == (0, 4)
    assert of.shape == (0,)
    tracker.update(people([]), 0.6)
    assert tracker._tracks == [], "a lost track takes no memory"


def test_absent_keypoints_move_with_the_body():
    tracker = tracker_of(people([(0, 0)]))
    seen = np.where(np.arange(17) >= 11, 0.0, 1.0)
    wrong = np.where(seen[:, None] == 0, (0, -60), (0, 0))  # the network guesses the legs too high
    tracker.update(people([(30, 0)], visibility=seen, noise=wrong, oaks=0.6), 0.1)
    boxes, _ = tracker.boxes(0.1)
    whole, _ = tracker_of(people([(30, 0)])).boxes(0.0)
    np.testing.assert_allclose(boxes, whole, atol=0.1)


def test_a_half_hidden_person_is_matched_by_visible_keypoints():
    """With all keypoints, the guessed legs would lower OKS below the threshold."""
    legs = np.arange(17) >= 11
    tracker = tracker_of(people([(0, 0)]), match=0.7)
    guessed = people([(0, 0)], visibility=np.where(legs, 0.1, 0.9), noise=np.where(legs[:, None], 70, 0))
    assert reference_oks(guessed.keypoints[0], STANDING) < 0.7
    assert ids(tracker.update(guessed, 0.1)) == [1]


def test_nan_keypoints_are_ignored():
    poses = people([(0, 0), (300, 0)])
    poses.keypoints[0, 5:9] = np.nan
    poses.keypoints[1] = np.nan
    tracker = Tracker(COCO17)
    assert ids(tracker.update(poses, 0.0)) == [1, NO_TRACK]
    assert ids(tracker.update(people([(2, 0)]), 0.1)) == [1]
    boxes, _ = tracker.boxes(0.1)
    np.testing.assert_allclose(boxes, tracker_of(people([(2, 0)])).boxes(0.0)[0], atol=1e-3)


def test_a_change_of_size_keeps_the_ids():
    tracker = Tracker(COCO17)
    for n in range(4):
        tracker.update(people([(200 + 10 * n, 300)]), 0.1 * n)
    expected = tracker.boxes(0.4)[0] * 0.5
    tracker.rescale((0.5, 0.5))
    centers = (tracker.boxes(0.4)[0][:, :2] + tracker.boxes(0.4)[0][:, 2:]) / 2
    np.testing.assert_allclose(centers, (expected[:, :2] + expected[:, 2:]) / 2, atol=0.5)
    assert ids(tracker.update(people([(120, 150)], scale=0.5), 0.4)) == [1]


def test_a_track_keeps_its_last_box_score():
    tracker = tracker_of(people([(0, 0)]))
    assert tracker.box_scores([1]).tolist() == [1]


def test_frames_without_poses_are_tracked():
    tracker = Tracker(COCO17)
    assert ids(tracker.update(people([]), 0.0)) == []
    assert ids(tracker.update(people([(0, 0)]), 0.0)) == [1]
    assert ids(tracker.update(people([]), 1.0)) == []


def test_a_bundle_without_visibility_is_tracked_by_the_conventional_score():
    poses = people([(0, 0)], oaks=np.nan, visibility=np.nan, similarity=np.nan, score_kind="conventional")
    tracker = Tracker(COCO17, score="conventional")
    assert ids(tracker.update(poses, 0.0)) == [1]
    assert ids(tracker.update(poses, 0.1)) == [1]
    with pytest.raises(ValueError, match="poses must have the oaks score, which gates, got none"):
        Tracker(COCO17).update(poses, 0.0)


def test_a_frame_without_scores_keeps_all_ids():
    tracker = Tracker(COCO17)
    lost = people([(0, 0), (300, 0)], oaks=np.nan, similarity=np.nan)
    assert ids(tracker.update(lost, 0.0)) == [NO_TRACK] * 2
    assert ids(tracker.update(people([(0, 0), (300, 0)]), 0.1)) == [1, 2]
    assert ids(tracker.update(lost, 0.2)) == [NO_TRACK] * 2
    assert ids(tracker.update(people([(0, 0), (300, 0)]), 0.3)) == [1, 2]


@pytest.mark.parametrize(("gate", "kind"), [("conventional", "oaks"), ("oaks", "conventional")])
def test_a_first_frame_without_scores_raises_no_error(gate, kind):
    tracker = Tracker(COCO17, score=gate)
    lost = people([(0, 0)], oaks=np.nan, similarity=np.nan, conventional=np.nan, score_kind=kind)
    assert ids(tracker.update(lost, 0.0)) == [NO_TRACK]
    assert ids(tracker.update(people([(0, 0)], score_kind=kind), 0.1)) == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate": 1.2}, "gate must be a number from 0 to 1, got 1.2"),
        ({"match": -0.1}, "match must be "),
        ({"repeat": float("nan")}, "repeat must be "),
        ({"score": "heat"}, "score must be one of 'oaks', 'conventional', got 'heat'"),
        ({"patience": -1}, "patience must be 0 seconds or more, got -1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tracker(COCO17, **arguments)


def test_time_and_skeleton_must_fit():
    tracker = tracker_of(people([(0, 0)]))
    with pytest.raises(ValueError, match="time must be at least the last frame's, 0.0"):
        tracker.update(people([(0, 0)]), -0.1)
    with pytest.raises(ValueError, match="time must be "):
        tracker.update(people([(0, 0)]), float("nan"))
    other = Skeleton("coco17", COCO17.keypoints, (0.1,) * 17)
    with pytest.raises(ValueError, match="poses must have the tracker's skeleton 'coco17'"):
        tracker.update(Poses.empty(other), 1.0)
