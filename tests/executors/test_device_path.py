"""The Engine on a device, simulated by a stand-in that is as asynchronous as a GPU."""

from __future__ import annotations

import gc

import bundles
import numpy as np
import pytest

import oaks
from oaks.ops import native

from . import stand_in
from .pictures import boxes, frames


def assert_same(poses, expected):
    for name in ("keypoints", "visibility", "similarity", "heat", "scores", "boxes", "frame_index"):
        np.testing.assert_allclose(getattr(poses, name), getattr(expected, name), atol=1e-6, err_msg=name)


@pytest.fixture(params=[True, False], ids=["flip", "no flip"])
def reference(request, tiny):
    with oaks.Engine(tiny, backend="onnxruntime", precision="fp32", flip=request.param) as engine:
        yield engine


@pytest.mark.parametrize("capture", [True, False], ids=["graph", "no graph"])
@pytest.mark.parametrize("staged", [False, True], ids=["in a row", "staged"])
def test_the_device_gives_what_the_cpu_gives(tiny, reference, monkeypatch, capture, staged):
    memories = stand_in.install(monkeypatch, capture=capture)
    with oaks.Engine(tiny, backend="stand_in", precision="fp32", flip=reference.flip, max_batch=8) as engine:
        engine.staged = staged
        assert engine.describe()["batches"] == [1, 2, 4, 8]
        for count in (1, 2, 3, 5, 8, 11, 27, 4, 1):  # up and down again, so that old content would show
            pictures, people = frames(4), [boxes(count), boxes(0), boxes(2, count), boxes(1, count)]
            poses = engine.infer(pictures, boxes=people)
            assert_same(poses, reference.infer(pictures, boxes=people))
        crops = frames(7)
        assert_same(engine.infer(crops, boxes="whole"), reference.infer(crops, boxes="whole"))
        if not staged:
            assert engine.describe()["cuda_graphs"] == (
                "captured" if capture else "failed: this device cannot"
            )
    assert memories[0].active_depth == 0


def test_frames_go_up_once_and_results_come_down_once_per_pass(tiny, monkeypatch):
    (memories, people) = stand_in.install(monkeypatch), [boxes(5), boxes(6), boxes(9)]
    with oaks.Engine(tiny, backend="stand_in", max_batch=8) as engine:
        engine.infer(frames(3), boxes=people)
        (memory,) = memories
        assert (memory.uploads, memory.downloads) == (1, len(engine._pipeline.plan(20)))
        assert engine.describe()["networks"]["pose"]["batches"] == [2, 4, 8, 16]
        assert engine.describe()["networks"]["ks"]["batches"] == [1, 2, 4, 8]


def test_a_graph_is_recorded_once_for_a_batch_size(tiny, monkeypatch):
    memories = stand_in.install(monkeypatch)
    with oaks.Engine(tiny, backend="stand_in", max_batch=4) as engine:
        engine.warmup()
        assert memories[0].recorded == 3
        before = memories[0].replayed
        for _ in range(3):
            engine.infer(frames(1)[0], boxes=boxes(4))
        assert (memories[0].recorded, memories[0].replayed) == (3, before + 3)


def test_frames_that_lie_on_the_device_stay_there(tiny, monkeypatch):
    memories = stand_in.install(monkeypatch)
    pictures, people = frames(3), [boxes(2, i) for i in range(3)]
    there = stand_in.OnDevice(pictures[1])
    with oaks.Engine(tiny, backend="stand_in", precision="fp32") as engine:
        poses = engine.infer([pictures[0], there, pictures[2]], boxes=people)
        alone = engine.infer(there, boxes=people[1])
        assert memories[0].waited_for == [there, there]
        largest = max(array.nbytes for array in memories[0].pinned)
        with pytest.raises(ValueError, match=r"frames must be an image \(H, W, 3\) of uint8"):
            engine.infer(stand_in.OnDevice(pictures[0].astype(np.float32)), boxes="whole")
    with oaks.Engine(tiny, backend="onnxruntime") as reference:
        expected = reference.infer(pictures, boxes=people)
    assert_same(poses, expected)
    np.testing.assert_allclose(alone.keypoints, expected.keypoints[2:4], atol=1e-6)
    assert largest < 2 * (pictures[0].nbytes + pictures[2].nbytes + 4096)


def test_half_precision_is_taken_where_the_bundle_has_it(tiny, tmp_path, monkeypatch):
    stand_in.install(monkeypatch)
    with (
        oaks.Engine(tiny, backend="stand_in") as engine,
        oaks.Engine(tiny, "onnxruntime", precision="fp16") as host,
    ):
        assert engine.precision == "fp16"
        assert_same(engine.infer(frames(2), boxes="whole"), host.infer(frames(2), boxes="whole"))
    with oaks.Engine(bundles.write(tmp_path / "single"), backend="stand_in") as engine:
        assert engine.precision == "fp32"
    with oaks.Engine(bundles.write(tmp_path / "alone", ks=False, half=True), backend="stand_in") as engine:
        assert engine.precision == "fp16"


def test_half_precision_is_not_taken_of_the_pose_network_alone(tmp_path, monkeypatch):
    stand_in.install(monkeypatch)
    made = bundles.write(tmp_path / "mixed", half=True)
    made = bundles.rewrite(made.path, [name for name in made.files if name != "ks.fp16.onnx"])
    with oaks.Engine(made, backend="stand_in") as engine:
        assert engine.precision == "fp32"


def test_the_score_that_the_bundle_wants_is_given_on_a_device_too(tmp_path, monkeypatch):
    stand_in.install(monkeypatch)
    made = bundles.write(tmp_path / "told", score="conventional")
    with oaks.Engine(made, backend="stand_in") as engine:
        poses = engine.infer(frames(2), boxes="whole")
    assert poses.score_kind == "conventional"
    np.testing.assert_array_equal(poses.scores, poses.conventional_scores)
    assert np.isfinite(poses.oaks_scores).all()


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [(0, 1, 1)]),
        (3, [(0, 2, 2), (2, 1, 1)]),
        (7, [(0, 7, 8)]),
        (6, [(0, 4, 4), (4, 2, 2)]),
        (13, [(0, 8, 8), (8, 4, 4), (12, 1, 1)]),
        (15, [(0, 8, 8), (8, 7, 8)]),
        (16, [(0, 8, 8), (8, 8, 8)]),
    ],
)
def test_people_are_split_with_little_padding(tiny, monkeypatch, count, expected):
    stand_in.install(monkeypatch)
    with oaks.Engine(tiny, backend="stand_in", max_batch=8) as engine:
        assert engine._pipeline.plan(count) == expected


def test_timings_separate_stages_only_if_staged(tiny, monkeypatch):
    stand_in.install(monkeypatch)
    with oaks.Engine(tiny, backend="stand_in") as engine:
        engine.infer(frames(1), boxes="whole")
        assert set(engine.timings.seconds) == {"read", "crop", "device", "score"}
        engine.timings.reset()
        engine.staged = True
        engine.infer(frames(1), boxes="whole")
        assert set(engine.timings.seconds) == {"read", "crop", "pose", "decode", "ks", "device", "score"}


def test_device_memory_does_not_grow(tiny, monkeypatch):
    memories = stand_in.install(monkeypatch)
    with oaks.Engine(tiny, backend="stand_in") as engine:
        for count in (1, 5, 3, 8, 2) * 3:
            engine.infer(frames(2), boxes=[boxes(count), boxes(1)])
    assert len(memories[0].pinned) <= 6


def test_a_frame_on_another_gpu_is_refused(tiny, monkeypatch):
    stand_in.install(monkeypatch)
    frame = stand_in.OnDevice(frames(1)[0])
    with oaks.Engine(tiny, backend="stand_in") as engine:
        assert len(engine.infer(frame, boxes=boxes(1))) == 1
        native.cuda.devices[frame.content.ctypes.data] = 1
        with pytest.raises(
            ValueError, match=r"Engine's device, cuda:0, got one on cuda:1; copy it, or make an"
        ):
            engine.infer(frame, boxes=boxes(1))


def test_an_engine_that_is_dropped_gives_its_memory_back_at_once(tiny, monkeypatch):
    memories = stand_in.install(monkeypatch)
    engine = oaks.Engine(tiny, backend="stand_in")
    engine.infer(frames(1), boxes=[boxes(1)])
    gc.disable()
    try:
        del engine
        assert memories[0].closed == 1
    finally:
        gc.enable()
    engine = oaks.Engine(tiny, backend="stand_in")
    engine.close()
    del engine
    assert memories[1].closed == 1


def test_close_tries_every_step(tiny, monkeypatch):
    def broken(self):
        raise RuntimeError("an illegal memory access was encountered")

    memories = stand_in.install(monkeypatch)
    engine = oaks.Engine(tiny, backend="stand_in")
    monkeypatch.setattr(stand_in.Executor, "close", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.close()
    assert memories[0].closed == 1
    engine.close()


# ---- calls that overlap


def test_a_stream_of_calls_gives_what_calls_one_by_one_give(tiny, reference, monkeypatch):
    """On streams that run as late as they may: what is overwritten too early, or not waited for, shows."""
    stand_in.install(monkeypatch)
    calls = [(frames(1 + n % 3), [boxes((5 * n + i) % 12, n) for i in range(1 + n % 3)]) for n in range(9)]
    with oaks.Engine(tiny, backend="stand_in", precision="fp32", flip=reference.flip, max_batch=4) as engine:
        for _ in range(2):
            streamed = list(engine.infer_stream([p for p, _ in calls], [b for _, b in calls]))
            assert len(streamed) == len(calls)
            for poses, (pictures, people) in zip(streamed, calls, strict=True):
                assert_same(poses, reference.infer(pictures, boxes=people))
        assert_same(engine.infer(*calls[1]), reference.infer(*calls[1]))


def test_the_next_call_is_cropped_while_one_runs(tiny, monkeypatch):
    stand_in.install(monkeypatch)
    events: list[str] = []
    with oaks.Engine(tiny, backend="stand_in", max_batch=4) as engine:
        memory = engine._pipeline.memory
        reach, upload = memory.reach, memory.ahead.upload
        memory.reach = lambda mark: (events.append("wait"), reach(mark))
        memory.ahead.upload = lambda source, target: (events.append("upload"), upload(source, target))
        for poses in engine.infer_stream(frames(4), "whole"):
            events.append("poses")
            assert len(poses) == 1
    assert events == ["upload", "upload", "wait", "poses", "upload", "wait", "poses", "upload", "wait", "poses",
                      "wait", "poses"]  # fmt: skip


def test_a_stream_raises_what_went_wrong_after_the_poses_before_it(tiny, monkeypatch):
    stand_in.install(monkeypatch)
    with oaks.Engine(tiny, backend="stand_in", max_batch=4) as engine:
        stream = engine.infer_stream([*frames(2), "no such picture"], "whole")
        assert [len(next(stream)), len(next(stream))] == [1, 1]
        with pytest.raises(FileNotFoundError):
            next(stream)
        few = engine.infer_stream(frames(2), [boxes(1)])
        assert len(next(few)) == 1
        with pytest.raises(ValueError, match="boxes must have an element for each of frames, got 1"):
            next(few)


def test_parallel_streams_and_calls_keep_their_results(tiny, monkeypatch):
    stand_in.install(monkeypatch)
    with (
        oaks.Engine(tiny, backend="stand_in", precision="fp32", max_batch=4) as engine,
        oaks.Engine(tiny, backend="onnxruntime", precision="fp32") as host,
    ):
        first, second = (engine.infer_stream(frames(5), [boxes(n, i) for i in range(5)]) for n in (3, 6))
        for i in range(5):
            assert_same(next(first), host.infer(frames(5)[i], boxes=boxes(3, i)))
            assert_same(engine.infer(frames(2), boxes="whole"), host.infer(frames(2), boxes="whole"))
            if i < 3:
                assert_same(next(second), host.infer(frames(5)[i], boxes=boxes(6, i)))
        second.close()  # with a call under way
        assert engine._pipeline._under_way == 0
        assert_same(engine.infer(frames(2), boxes="whole"), host.infer(frames(2), boxes="whole"))


def test_a_stream_whose_engine_is_closed_says_so(tiny, monkeypatch):
    stand_in.install(monkeypatch)
    engine = oaks.Engine(tiny, backend="stand_in")
    stream = engine.infer_stream(frames(3), "whole")
    next(stream)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(stream)


def test_on_a_cpu_a_stream_runs_in_order_and_looks_at_nothing_ahead(tiny):
    taken = []

    def source():
        for number, picture in enumerate(frames(3)):
            taken.append(number)
            yield picture

    with oaks.Engine(tiny, backend="onnxruntime") as engine:
        for number, poses in enumerate(engine.infer_stream(source(), "whole")):
            assert taken == list(range(number + 1))
            assert_same(poses, engine.infer(frames(3)[number], boxes="whole"))
