"""Re-entrant calls of an Engine or Detector, from a signal handler, finalizer or callback."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref

import bundles
import numpy as np
import pytest
from test_detector import write, yolox

import oaks
from oaks.errors import StateError

BOXES = [[10, 5, 60, 80], [0, 0, 120, 90]]


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    bundle = bundles.write(tmp_path_factory.mktemp("bundles") / "tiny")
    with oaks.Engine(bundle, backend="onnxruntime") as made:
        yield made


def within(engine, monkeypatch, call):
    """What `call` raises while the same thread is between crop and results; the outer call's poses."""
    raised: list[BaseException] = []
    start = engine._pipeline.start

    def interrupted(*arguments, **settings):
        begun = start(*arguments, **settings)
        try:
            call()
        except StateError as error:
            raised.append(error)
        return begun

    monkeypatch.setattr(engine._pipeline, "start", interrupted)
    return engine.infer(frame(0), boxes=BOXES), raised


@pytest.mark.parametrize("use", ["infer", "call", "warmup", "close", "exit"])
def test_reentrant_calls_are_refused_and_harmless(engine, monkeypatch, use):
    expected = engine.infer(frame(0), boxes=BOXES).keypoints
    calls = {
        "infer": lambda: engine.infer(frame(1), boxes=BOXES),
        "call": lambda: engine(frame(1), boxes=BOXES),
        "warmup": engine.warmup,
        "close": engine.close,
        "exit": lambda: engine.__exit__(None, None, None),
    }
    poses, raised = within(engine, monkeypatch, calls[use])
    assert [str(error) for error in raised] == [str(raised[0])]
    assert "called again from within" in str(raised[0])
    np.testing.assert_array_equal(poses.keypoints, expected)
    monkeypatch.undo()
    np.testing.assert_array_equal(engine.infer(frame(0), boxes=BOXES).keypoints, expected)


def test_another_thread_waits_instead(engine, monkeypatch):
    expected = engine.infer(frame(1), boxes=BOXES).keypoints
    found: list[np.ndarray] = []

    def call():
        other = threading.Thread(target=lambda: found.append(engine.infer(frame(1), boxes=BOXES).keypoints))
        monkeypatch.undo()
        other.start()
        other.join(0.2)
        assert other.is_alive()
        others.append(other)

    others: list[threading.Thread] = []
    within(engine, monkeypatch, call)
    others[0].join(60)
    np.testing.assert_array_equal(found[0], expected)


def test_after_an_error_the_engine_is_free(engine, monkeypatch):
    def broken(*arguments, **settings):
        raise ValueError("broken")

    monkeypatch.setattr(engine._pipeline, "start", broken)
    with pytest.raises(ValueError, match="broken"):
        engine.infer(frame(0), boxes=BOXES)
    monkeypatch.undo()
    assert len(engine.infer(frame(0), boxes=BOXES)) == 2


def interruptions(engine, disturb, start, stop) -> tuple[int, int]:
    """Wrong results among many calls while `disturb` calls the same Engine, and how often that was refused."""
    expected = [engine.infer(frame(seed), boxes=BOXES) for seed in range(2)]
    refused, wrong = [], []

    def call(*_):
        try:
            poses = engine.infer(frame(1), boxes=BOXES)
        except StateError as error:
            refused.append(error)
            return
        if not np.array_equal(poses.keypoints, expected[1].keypoints):
            wrong.append("within")

    disturb(call)
    start()
    try:
        end = time.monotonic() + 60
        while len(refused) < 20 and time.monotonic() < end:
            poses = engine.infer(frame(0), boxes=BOXES)
            if not np.array_equal(poses.keypoints, expected[0].keypoints):
                wrong.append("outer")
    finally:
        stop()
    return len(wrong), len(refused)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers with signals")
def test_signal_handlers_never_give_wrong_poses(engine):
    before = signal.getsignal(signal.SIGALRM)
    try:
        wrong, refused = interruptions(
            engine,
            lambda call: signal.signal(signal.SIGALRM, call),
            lambda: signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007),
            lambda: signal.setitimer(signal.ITIMER_REAL, 0),
        )
    finally:
        signal.signal(signal.SIGALRM, before)
    assert wrong == 0
    assert refused >= 20, "no signal came while the Engine was at work"


def test_finalizers_never_give_wrong_poses(engine):
    made: list[type] = []

    def disturb(call):
        class Cyclic:
            def __init__(self):
                self.itself = self

            def __del__(self):
                call()

        made.append(Cyclic)

    thresholds, start = gc.get_threshold(), engine._pipeline.start

    def littering(*arguments, **settings):
        for kind in made:
            kind()
        return start(*arguments, **settings)

    engine._pipeline.start = littering
    try:
        wrong, refused = interruptions(
            engine, disturb, lambda: gc.set_threshold(3, 1, 1), lambda: gc.set_threshold(*thresholds)
        )
    finally:
        engine._pipeline.start = start
    assert wrong == 0
    assert refused >= 20, "no finalizer ran while the Engine was at work"


def test_a_detector_refuses_too(tmp_path, monkeypatch):
    detector = oaks.Detector(
        write(tmp_path / "detector.onnx", yolox([(8, 2, 5, (20, 44, 16, 30), 0.9, 0.8)]))
    )
    find, raised = detector._model.find, []

    def interrupted(pixels):
        try:
            detector.detect(frame(1))
        except StateError as error:
            raised.append(str(error))
        return find(pixels)

    monkeypatch.setattr(detector._model, "find", interrupted)
    detector.detect(frame(0))
    assert "this Detector is at work in this thread" in raised[0]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
def test_a_dropped_engine_of_a_bundle_that_is_opened_by_its_path_is_gone_at_once(tmp_path, backend):
    """Checks of its description try several forms; what they refuse must not keep the caller alive."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    bundles.write_with_detector(tmp_path / "tiny")
    gc.collect()
    gc.disable()
    try:
        dropped = oaks.Engine(tmp_path / "tiny", backend=backend)
        left = weakref.ref(dropped)
        del dropped
        assert left() is None
    finally:
        gc.enable()


def test_a_dropped_engine_and_detector_are_gone_at_once(tmp_path):
    """Without waiting for the collector of cycles: networks are large."""
    bundle = bundles.write(tmp_path / "tiny")
    gc.collect()
    gc.disable()
    try:
        dropped = oaks.Engine(bundle, backend="onnxruntime")
        dropped.infer(frame(0), boxes=BOXES)
        detector = oaks.Detector(write(tmp_path / "d.onnx", yolox([(8, 2, 5, (20, 44, 16, 30), 0.9, 0.8)])))
        detector.detect(frame(0))
        left = [
            weakref.ref(dropped._pipeline.executors["pose"]._session),
            weakref.ref(detector._model._session),
        ]
        del dropped, detector
        assert [ref() for ref in left] == [None, None]
    finally:
        gc.enable()
