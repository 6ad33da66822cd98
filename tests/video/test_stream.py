"""The tracking generator: the same poses for any threading and batching, and one result per frame."""

from __future__ import annotations

import copy
import json
import threading
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import bundles
import numpy as np
import pytest
from executors import stand_in

import oaks
from oaks import coco_results
from oaks.box_files import read_mot
from oaks.errors import StateError
from oaks.poses import NO_TRACK
from oaks.video import BoxSource, Frame, OneEuro, Summary, Tracker, first_boxes, open_source, track
from oaks.video.outputs import StreamFiles, track_into
from oaks.video.sources import FrameSource

from .clips import number_of, numbered, spoil, write_clip

DOTS = {"red": (3, 4), "green": (8, 6), "blue": (5, 12)}
"""Heatmap cells of the tiny bundle's three keypoints, in its input of 48 by 64 pixels."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    bundle = bundles.write(tmp_path_factory.mktemp("bundles") / "tiny")
    with oaks.Engine(bundle, "onnxruntime") as engine:
        yield engine


def scene(
    frames: int, *, people: int = 2, speed: int = 4, size: tuple[int, int] = (240, 160)
) -> list[np.ndarray]:
    """Return images of people of three dots who walk to the right, one below another."""
    one, images = bundles.picture(DOTS), []
    for n in range(frames):
        image = np.zeros((size[1], size[0], 3), np.uint8)
        for person in range(people):
            x, y = 8 + speed * n, 8 + 72 * person
            image[y : y + 64, x : x + 48] = one
        images.append(image)
    return images


def walkers(frame: Frame, *, people: int = 2, speed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of the people of `scene`, without the network's padding of 1.25."""
    lefts = 8 + speed * frame.index
    boxes = [(lefts + 4.8, 8 + 72 * p + 6.4, lefts + 43.2, 8 + 72 * p + 57.6) for p in range(people)]
    return np.array(boxes, np.float32), np.full(people, 0.5, np.float32)


KNOWN = BoxSource("known", walkers)
NOBODY = BoxSource("nobody", lambda _frame: (np.zeros((0, 4), np.float32), np.zeros(0, np.float32)))


def gathered(sources, engine, **settings) -> list[tuple[Frame, oaks.Poses]]:
    return list(track(sources, engine, **settings))


def assert_same(a: list, b: list) -> None:
    assert [frame.index for frame, _ in a] == [frame.index for frame, _ in b]
    for (_, one), (_, other) in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_every_frame_has_the_poses_of_the_engine_with_track_ids(engine):
    images = scene(20)
    summary = Summary()
    tracked = gathered(images, engine, boxes=KNOWN, summary=summary)
    assert [frame.index for frame, _ in tracked] == list(range(20))
    for (frame, poses), image in zip(tracked, images, strict=True):
        boxes, scores = walkers(frame)
        expected = engine.infer(image, boxes=boxes, box_scores=scores)
        np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-3)
        np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-5)
        assert poses.track_ids.tolist() == [1, 2]
        assert poses.frame_index.tolist() == [frame.index] * 2
    assert (summary.frames, summary.people, summary.tracks, summary.dropped) == (20, 40, 2, 0)
    assert summary.complete
    assert {"frames", "boxes", "track", "engine pose", "engine crop"} <= set(summary.stages)
    assert summary.seconds > 0


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("together", [1, 3, 8])
def test_threads_and_batches_do_not_change_poses(engine, threaded, together):
    images = scene(20)
    expected = gathered(images, engine, boxes=KNOWN, threaded=False, together=1)
    assert_same(gathered(images, engine, boxes=KNOWN, threaded=threaded, together=together), expected)


@pytest.mark.parametrize("every", [1, 2])
def test_groups_overlap_on_a_device_if_their_boxes_are_independent(engine, monkeypatch, every):
    boxes = BoxSource("known", walkers, every=every)
    expected = gathered(scene(12), engine, boxes=boxes, together=3)
    stand_in.install(monkeypatch)
    order = []
    with oaks.Engine(engine.bundle, "stand_in", precision="fp32") as device:
        begin, end = device._begin, device._end
        monkeypatch.setattr(device, "_begin", lambda *given: (order.append("begin"), begin(*given))[1])
        monkeypatch.setattr(device, "_end", lambda begun: (order.append("end"), end(begun))[1])
        assert_same(gathered(scene(12), device, boxes=boxes, together=3), expected)
        if every == 1:
            assert order == ["begin", *["begin", "end"] * 3, "end"]
        else:
            assert order == ["begin", "end"] * 12
        unfinished = track(scene(12), device, boxes=boxes, together=3)
        next(unfinished)
        unfinished.close()
        assert device._pipeline._under_way == 0


def test_frames_of_a_file_share_passes_unless_they_depend_on_each_other(engine, monkeypatch):
    batches, infer = [], engine.infer

    def note(frames, **arguments):
        batches.append(len(frames))
        return infer(frames, **arguments)

    monkeypatch.setattr(engine, "infer", note)
    gathered(scene(20), engine, boxes=KNOWN, together=8)
    assert batches == [8, 8, 4]
    batches.clear()
    gathered(scene(4), engine, boxes=BoxSource("known", walkers, every=2), together=8)
    assert batches == [1, 1, 1, 1]


def test_people_are_tracked_from_first_boxes_alone(engine):
    """The predicted boxes follow the dots, which move 4 pixels per frame."""
    images = scene(25)
    first, _ = walkers(Frame(images[0], 0, 0, Fraction(1, 30)))
    tracker = Tracker(bundles.RGB, match=0.1)
    tracked = gathered(images, engine, boxes=first_boxes(first), tracker=tracker)
    assert tracker.started == 0, "each source has a copy"
    for frame, poses in tracked:
        assert poses.track_ids.tolist() == [1, 2]
        lefts = poses.keypoints[:, :, 0].min(axis=1)
        np.testing.assert_allclose(lefts, 8 + 4 * frame.index + 4 * DOTS["red"][0] + 1.5, atol=3)


def test_tracks_of_people_who_disappear_end(engine):
    """Poses in black pictures have low scores, so that tracks and their boxes end."""
    images = scene(5) + [np.zeros((160, 240, 3), np.uint8)] * 20
    first, _ = walkers(Frame(images[0], 0, 0, Fraction(1, 30)))
    tracker = Tracker(bundles.RGB, match=0.1, gate=0.5, patience=0.31)
    tracked = gathered(images, engine, boxes=first_boxes(first), tracker=tracker)
    assert [poses.track_ids.tolist() for _, poses in tracked[:5]] == [[1, 2]] * 5
    assert all((poses.track_ids == NO_TRACK).all() for _, poses in tracked[5:])
    counts = [len(poses) for _, poses in tracked]
    assert counts == [2] * 14 + [0] * 11, "nine frames fit in the patience"


def test_boxes_are_taken_at_every_nth_frame(engine):
    asked = []

    def find(frame):
        asked.append(frame.index)
        return walkers(frame)

    boxes, tracker = BoxSource("", find, every=4), Tracker(bundles.RGB, match=0.1)
    tracked = gathered(scene(10), engine, boxes=boxes, tracker=tracker)
    assert asked == [0, 4, 8]
    assert all(poses.track_ids.tolist() == [1, 2] for _, poses in tracked)
    scores = np.array([poses.box_scores for _, poses in tracked])
    np.testing.assert_allclose(scores, 0.5, err_msg="a track keeps the score of the box that found it")


def test_smoothing_is_off_by_default(engine):
    images, random = scene(12, speed=0), np.random.default_rng(0)
    shaken = [np.roll(image, int(random.integers(-3, 4)), axis=1) for image in images]
    still = BoxSource("", lambda frame: walkers(frame, speed=0))
    plain = gathered(shaken, engine, boxes=still)
    smoother = OneEuro()
    steady = gathered(shaken, engine, boxes=still, smoother=smoother)
    expected = [smoother.update(poses, frame.time) for frame, poses in plain]
    assert_same(steady, [(frame, poses) for (frame, _), poses in zip(plain, expected, strict=True)])
    motion = [np.diff([poses.keypoints for _, poses in result], n=2, axis=0) for result in (plain, steady)]
    assert np.abs(motion[1]).mean() < 0.7 * np.abs(motion[0]).mean()


def test_several_files_are_tracked_through_one_engine(engine):
    one, two = scene(12), scene(7, people=1)
    single, summary = BoxSource("", lambda frame: walkers(frame, people=1)), Summary()
    alone = [gathered(one, engine, boxes=KNOWN), gathered(two, engine, boxes=single)]
    sources = [open_source(one), open_source(two)]
    both = gathered(sources, engine, boxes=[KNOWN, single], summary=summary)
    for number in (0, 1):
        assert_same([(f, p) for f, p in both if f.stream == number], alone[number])
    assert (summary.frames, summary.tracks) == (19, 3)
    with pytest.raises(ValueError, match="boxes must be given once for each of the 2 sources, got 3"):
        track([open_source(one), open_source(two)], engine, boxes=[KNOWN] * 3)


class Live(FrameSource):
    """A camera whose frames may wait for an event."""

    def __init__(self, images: list[np.ndarray], gates: dict[int, threading.Event] | None = None) -> None:
        super().__init__("camera", live=True)
        self._images, self._gates = images, gates or {}
        self.sent = 0

    def __iter__(self):
        for index, image in enumerate(self._images):
            if index in self._gates:
                self._gates[index].wait(30)
            self.sent = index + 1
            yield Frame(image, index, index, Fraction(1, 30))


def test_a_live_source_drops_and_counts_the_oldest_frames(engine):
    """All other frames arrive while the first is processed; the newest two remain, and one that was being passed on."""
    images = [numbered(n) for n in range(60)]
    source, summary = Live(images), Summary()
    frames = track([source], engine, boxes=NOBODY, summary=summary)
    seen = [next(frames)[0]]
    while source.sent < 60:
        threading.Event().wait(0.01)
    threading.Event().wait(0.1)
    seen += [frame for frame, _ in frames]
    indices = [frame.index for frame in seen]
    assert indices[-2:] == [58, 59]
    assert indices == sorted(set(indices)) == [number_of(frame.image) for frame in seen]
    assert summary.dropped == 60 - len(seen) > 40
    assert summary.complete, "a camera that is too fast is no fault"


def test_a_stalled_camera_does_not_block_another(engine):
    """All frames of the second camera arrive while the first is silent."""
    release = threading.Event()
    stalled, running = Live(scene(4), {2: release}), Live(scene(6))
    last = None
    for frame, _ in track([stalled, running], engine, boxes=NOBODY):
        if frame.stream == 1 and frame.index == 5:
            release.set()
        last = frame
    assert release.is_set()
    assert (last.stream, last.index) == (0, 3)


def test_a_change_of_size_keeps_ids_and_boxes(engine):
    """Pictures change to half the size, with boxes from the tracker only."""
    large = scene(8, speed=0)
    small = [image[::2, ::2].copy() for image in scene(8, speed=0)]
    first, _ = walkers(Frame(large[0], 0, 0, Fraction(1, 30)), speed=0)
    tracker = Tracker(bundles.RGB, match=0.1)
    tracked = gathered(large + small, engine, boxes=first_boxes(first), tracker=tracker)
    assert [poses.track_ids.tolist() for _, poses in tracked] == [[1, 2]] * 16
    before, after = (tracked[n][1].keypoints for n in (7, 15))
    np.testing.assert_allclose(after, before / 2, atol=2.5)


def test_an_engine_that_takes_rgb_gets_rgb(engine):
    images = scene(2)
    with oaks.Engine(engine.bundle, "onnxruntime", color="rgb") as other:
        assert_same(gathered(images, other, boxes=KNOWN), gathered(images, engine, boxes=KNOWN))


def test_a_failed_detector_ends_the_run_and_the_threads(engine):
    def find(frame):
        if frame.index == 3:
            raise StateError("the detector is closed")
        return walkers(frame)

    before = threading.active_count()
    summary, seen = Summary(), []
    with pytest.raises(StateError, match="the detector is closed"):
        seen.extend(track(scene(30), engine, boxes=BoxSource("", find), together=1, summary=summary))
    assert threading.active_count() == before
    assert summary.frames <= 3


@pytest.mark.parametrize("together", [1, 8])
@pytest.mark.parametrize("error", [ValueError, RuntimeError, MemoryError, KeyError])
def test_frames_whose_boxes_cannot_be_found_are_named_and_the_run_continues(engine, together, error):
    """Every runtime raises different errors."""

    def find(frame):
        if frame.index in (3, 7):
            raise error(f"no box for frame {frame.index}")
        return walkers(frame)

    summary = Summary()
    boxes = BoxSource("", find)
    tracked = gathered(scene(12), engine, boxes=boxes, together=together, summary=summary)
    assert [len(poses) for _, poses in tracked] == [0 if n in (3, 7) else 2 for n in range(12)]
    assert (summary.failed, summary.complete) == (2, False)
    reasons = [problem.rpartition(": ")[2].strip("'") for problem in summary.problems]
    assert reasons == ["no box for frame 3", "no box for frame 7"]
    ids = {int(track) for _, poses in tracked for track in poses.track_ids}
    assert ids == {1, 2}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("how", ["nan", "raises", "some"])
def test_frames_that_a_network_fails_on_are_named_and_the_run_continues(engine, monkeypatch, how, every):
    """The network gives NaN, or the runtime raises an error, for frames 4 and 5 only."""
    infer = engine.infer
    bad = [4, 5]
    images = scene(12)

    def failing(frames, *, boxes, box_scores):
        places = [next(n for n, image in enumerate(images) if image is frame) for frame in frames]
        if how == "raises" and set(places) & set(bad):
            raise RuntimeError("Non-zero status code returned while running Conv node")
        poses = infer(frames, boxes=boxes, box_scores=box_scores)
        lost = np.isin(np.array(places)[poses.frame_index], bad)
        if how == "some":
            lost &= np.arange(len(poses)) % 2 == 0
        if how == "raises":
            return poses
        changed = copy.deepcopy(poses)
        for name in (
            "keypoints",
            "heat",
            "visibility",
            "similarity",
            "oaks_scores",
            "conventional_scores",
            "scores",
        ):
            getattr(changed, name)[lost] = np.nan
        return changed

    monkeypatch.setattr(engine, "infer", failing)
    summary = Summary()
    source = open_source(images)
    boxes = BoxSource("known", walkers, every=every)
    tracker = Tracker(bundles.RGB, match=0.1)
    tracked = gathered([source], engine, boxes=boxes, summary=summary, tracker=tracker)
    assert [frame.index for frame, _ in tracked] == list(range(12))
    assert summary.failed == 2
    assert not summary.complete
    assert ["frame 4: " in summary.problems[0], "frame 5: " in summary.problems[1]] == [True, True]
    assert tracked[-1][1].track_ids.tolist() == [1, 2]


@pytest.mark.parametrize("gate", ["oaks", "conventional"])
@pytest.mark.parametrize("lost", [("oaks_scores", "scores", "similarity"), ("heat", "conventional_scores")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_numbers_that_are_not_finite_leave_every_file_readable(
    engine, tmp_path, monkeypatch, gate, lost, value
):
    """From the first frame on, the numbers of one frame in three are not finite, or nearly so."""
    infer, images = engine.infer, scene(6)

    def failing(frames, *, boxes, box_scores):
        poses = infer(frames, boxes=boxes, box_scores=box_scores)
        places = [next(n for n, image in enumerate(images) if image is frame) for frame in frames]
        bad = np.array(places)[poses.frame_index] % 3 == 0
        changed = {}
        for name in lost:
            changed[name] = getattr(poses, name).copy()
            changed[name][bad] = value
        return replace(poses, **changed)

    monkeypatch.setattr(engine, "infer", failing)
    summary = track_into(
        [StreamFiles(tmp_path)], [open_source(images)], engine, boxes=[KNOWN], smoother=OneEuro(),
        tracker=Tracker(bundles.RGB, match=0.1, score=gate),
    )  # fmt: skip
    assert summary.frames == 6
    assert summary.failed == (2 if "scores" in lost and value != 3e38 else 0)
    rows, _ = coco_results.read_results(tmp_path / "results.json")
    assert [row["image_id"] for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert np.isfinite([number for row in rows for number in (row["score"], *row["keypoints"])]).all()
    read_mot(tmp_path / "tracks.txt")
    assert len((tmp_path / "poses.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("bad", [None, "gone.png", np.zeros((4, 4)), np.zeros((4, 4, 3)), [[1], [2, 3]]])
def test_a_frame_that_is_no_picture_is_counted_and_named(engine, bad):
    """cv2.VideoCapture returns None for a frame that it cannot read."""
    images: list = scene(6)
    images[2] = bad
    images[4] = Frame(bad, 4, 4, Fraction(1, 30))
    summary = Summary()
    tracked = gathered(images, engine, boxes=KNOWN, summary=summary)
    assert [frame.index for frame, _ in tracked] == [0, 1, 3, 5]
    assert (summary.damaged, summary.complete) == (2, False)
    assert tracked[-1][1].track_ids.tolist() == [1, 2]


def test_a_closed_engine_ends_the_run(tmp_path):
    with oaks.Engine(bundles.write(tmp_path / "tiny"), "onnxruntime") as closed:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        gathered(scene(4), closed, boxes=KNOWN)


def test_a_score_that_the_bundle_lacks_is_refused_at_once(engine):
    stand_in = SimpleNamespace(gives_oaks=False, bundle=engine.bundle)
    with pytest.raises(ValueError, match="tracker's score must be 'conventional'"):
        track(scene(1), stand_in, boxes=KNOWN, tracker=Tracker(bundles.RGB, score="oaks"))


def test_a_picture_too_large_for_h264_ends_the_video_alone(engine, tmp_path):
    """H.264 allows at most 16,384 rows."""
    images = [np.zeros((16_400, 16, 3), np.uint8)] * 3
    output = StreamFiles(tmp_path / "out")
    summary = track_into(
        [output], [open_source(images)], engine, boxes=[NOBODY], tracker=Tracker(bundles.RGB), smoother=None
    )
    assert summary.frames == 3
    assert not summary.complete
    assert any("16 x 16400" in problem for problem in summary.problems)
    assert len((tmp_path / "out" / "poses.jsonl").read_text().splitlines()) == 3
    assert json.loads((tmp_path / "out" / "results.header.json").read_text())["complete"] is False


def test_stopping_early_leaves_no_thread(engine):
    before = threading.active_count()
    frames = track(scene(30), engine, boxes=KNOWN, together=2)
    next(frames)
    frames.close()
    assert threading.active_count() == before


def test_problems_of_a_source_are_in_the_summary(tmp_path, engine):
    clip = spoil(write_clip(tmp_path / "clip.mp4", 12, gop=1), 5)
    summary = Summary()
    frames = [frame for frame, _ in track(clip, engine, boxes=NOBODY, summary=summary)]
    assert len(frames) == 11
    assert (summary.damaged, summary.complete) == (1, False)


def test_wrong_arguments_are_named_at_once(engine, tmp_path):
    with pytest.raises(ValueError, match="together must be an integer of at least 1, got 0"):
        track(scene(1), engine, boxes=KNOWN, together=0)
    with pytest.raises(FileNotFoundError, match="source not found"):
        track(tmp_path / "gone.mp4", engine, boxes=KNOWN)
