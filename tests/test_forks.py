"""Objects of the parent in a forked child: they work or are refused by name, and the child always ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import bundles
import pytest

from oaks import forks
from oaks.errors import BackendUnavailable, StateError
from oaks.video.threads import ReadAhead, WriteBehind

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]

PARENT = textwrap.dedent(
    """
    import gc, os, sys, time
    import numpy as np
    import oaks
    from oaks import ops

    def told(pid, seconds=60):
        "How a child ended: its exit status, minus a signal's number, or None where it had to be killed."
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return None

    def fork(name, work):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            result = work()  # a raw exception ends the child with 1
            print(name, "says", result, flush=True)
            sys.exit(7)
        print(name, "ends with", told(pid), flush=True)
    """
)

ENGINE = PARENT + textwrap.dedent(
    """
    bundle, backend = sys.argv[1:]
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = np.float32([[10, 5, 60, 80]] * 9)
    held = {"engine": oaks.Engine(bundle, backend, device="cpu")}
    expected = held["engine"].infer(frame, boxes=boxes).keypoints

    def refused(call):
        try:
            call()
        except oaks.OaksError as error:
            return type(error).__name__
        return "nothing"

    def drop():
        held.clear()
        gc.collect()
        return "dropped"

    def again():
        try:
            held["engine"] = oaks.Engine(bundle, backend, device="cpu")
        except oaks.BackendUnavailable as error:
            return error
        return np.array_equal(held["engine"].infer(frame, boxes=boxes).keypoints, expected)

    def nested():
        pid = os.fork()
        if pid == 0:
            sys.exit(5)
        return told(pid)

    fork("exit", lambda: "nothing")
    fork("drop", drop)
    fork("use", lambda: refused(lambda: held["engine"].infer(frame, boxes=boxes)))
    fork("detector", lambda: refused(lambda: held["engine"].detect(frame)))
    fork("close", lambda: held["engine"].close())
    fork("again", again)
    fork("operations", lambda: ops.decode(np.ones((9, 3, 64, 48), np.float32))[0].shape)
    fork("nested", nested)
    print("parent", np.array_equal(held["engine"].infer(frame, boxes=boxes).keypoints, expected))
    """
)


def run(program: str, *arguments: str) -> dict[str, str]:
    """What a program printed: the first word of each line -> the rest."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    lines: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, rest = line.partition(" ")
        lines[name] = f"{lines[name]}; {rest}" if name in lines else rest
    return lines


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_children_of_an_engines_process_work_or_refuse_and_end(tmp_path, backend):
    bundle = bundles.write(tmp_path / "tiny").path if backend != "torch" else Path("tiny")
    lines = run(ENGINE, str(bundle), backend)
    again = "True"
    if backend == "torch":  # its threads do not survive, which it cannot tell itself
        again = "backend 'torch' on cpu: torch was loaded before"
    expected = {
        "exit": "nothing", "drop": "dropped", "use": "StateError", "detector": "StateError", "close": "None",
        "again": again, "operations": "(9, 3, 2)", "nested": "5",
    }  # fmt: skip
    for name, says in expected.items():
        assert lines[name].startswith(f"says {says}"), (name, lines)
        assert lines[name].endswith("ends with 7"), (name, lines)
    assert lines["parent"] == "True"


def test_a_decoder_and_an_encoder_of_the_parent_are_refused_and_kept(tmp_path):
    program = PARENT + textwrap.dedent(
        """
        from oaks.video import open_source
        from oaks.video.annotated import AnnotatedVideo
        from oaks.video.frames import Frame
        from fractions import Fraction
        path = sys.argv[1]
        from dataclasses import replace
        poses = replace(oaks.Poses.empty(oaks.COCO17, "oaks"), track_ids=np.zeros(0, np.int64))
        video = AnnotatedVideo(path)
        image = np.zeros((64, 64, 3), np.uint8)
        frames = [Frame(image, i, i, Fraction(1, 30)) for i in range(40)]
        for frame in frames[:20]:
            video.write(frame, poses)

        def write():
            global video
            try:
                video.write(frames[20], poses)
            except oaks.OaksError as error:
                answer = type(error).__name__
            video.close()
            del video
            gc.collect()
            return answer

        fork("encoder", write)
        for frame in frames[20:]:
            video.write(frame, poses)
        video.close()
        source = open_source(path)
        reading = iter(source)
        next(reading)

        def read():
            global source, reading
            try:
                list(source)
            except oaks.OaksError as error:
                answer = type(error).__name__
            del source, reading
            gc.collect()
            return answer

        fork("decoder", read)
        print("parent", len(list(reading)))
        """
    )
    lines = run(program, str(tmp_path / "clip.mp4"))
    assert lines == {
        "encoder": "says StateError; ends with 7",
        "decoder": "says StateError; ends with 7",
        "parent": "39",
    }


def in_child(work) -> str:
    """What a forked child of this process says; it ends without pytest's own cleaning up."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer


def test_queues_of_the_parent_are_refused():
    ahead = ReadAhead(iter(range(10)), 2)
    written: list[int] = []
    behind = WriteBehind(written.append, 2)
    assert in_child(lambda: next(ahead)).startswith("StateError: this ReadAhead was made in process")
    assert in_child(lambda: behind(1)).startswith("StateError: this WriteBehind was made in process")
    assert in_child(lambda: (ahead.close(), behind.close())) == "(None, None)"
    assert list(ahead) == list(range(10))
    behind(1)
    behind.close()
    ahead.close()
    assert written == [1]


def test_trees_are_not_fitted_in_a_fork_of_a_process_that_loaded_lightgbm():
    pytest.importorskip("lightgbm")
    from oaks.fit import boosting

    assert "LightGBM was loaded before this process was forked" in in_child(boosting._lightgbm)


def test_objects_are_kept_alive_in_the_child_only():
    class Thing:
        def __del__(self):
            os.write(dropped, b"dropped")

    reading, dropped = os.pipe()
    thing = forks.outlives_forks(Thing())

    def drop():
        nonlocal thing
        thing = None

    assert in_child(drop) == "None"
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 10)
    thing = None
    assert os.read(reading, 10) == b"dropped"
    os.close(reading)
    os.close(dropped)


def test_messages_name_both_processes():
    forks.check_process(os.getpid(), "Thing")
    with pytest.raises(
        StateError, match=rf"this Thing .* process 1, .* fork {os.getpid()}.*one Thing in each"
    ):
        forks.check_process(1, "Thing")
    assert issubclass(StateError, RuntimeError)
    assert not issubclass(StateError, BackendUnavailable)
