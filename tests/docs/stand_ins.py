"""Stand-ins for what the documentation's code needs beside files: a camera, a display, a GPU with TensorRT, a service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pycuda_stand_in
import pytest
import tensorrt_stand_in
from tensorrt_world import World

import oaks.video
from oaks.video import sources

SERVICE = "http://127.0.0.1:8000"
"""Where the pages' service listens."""


class Window:
    """Stands in for the preview's window."""

    ended = False

    def __init__(self, *_: Any, **__: Any) -> None:
        self.shown = 0

    def write(self, frame: Any, poses: oaks.Poses) -> None:
        self.shown += 1

    def close(self) -> None:
        assert self.shown


@contextmanager
def camera_and_display() -> Iterator[None]:
    """A machine whose camera 0 sends the frames of street.mp4, and whose windows are `Window`s."""
    open_named = sources._open_named
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sources,
            "_open_named",
            lambda name, *rest: open_named("street.mp4" if name == "0" else name, *rest),
        )
        patch.setattr(oaks.video, "Preview", Window)
        yield


@contextmanager
def gpu_with_tensorrt(version: str) -> Iterator[None]:
    """A machine with a GPU and a version of TensorRT, whose plans run on ONNX Runtime; it must have built some."""
    with pytest.MonkeyPatch.context() as patch:
        gpu, world = pycuda_stand_in.install(patch), World()
        world.streams = gpu.streams
        tensorrt_stand_in.install(patch, version, world)
        patch.setenv("OAKS_CACHE", str(Path("plans").resolve()))
        yield
        assert world.built


def ask_service(place: str, words: list[str]) -> None:
    """Run a `curl` for the pages' service, which runs without Ray, on a free port, for as long as it takes."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    from on_ray.server import served

    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with served("tiny") as (address, _):
        command = ["curl", "--silent", "--fail", *(word.replace(SERVICE, address) for word in words[1:])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{place}: {done.stderr}"
    assert json.loads(done.stdout)["poses"], place


@contextmanager
def interrupted_when_serving() -> Iterator[None]:
    """Ctrl-C for this process as soon as the pages' service answers."""
    answered, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def wait() -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end and not answered.is_set():
            if signal.getsignal(signal.SIGINT) is before:  # the service answers before it takes Ctrl-C over
                time.sleep(0.2)
                continue
            try:
                with urllib.request.urlopen(f"{SERVICE}/healthz", timeout=5) as reply:
                    if reply.status == 200:
                        answered.set()
                        os.kill(os.getpid(), signal.SIGINT)
            except OSError:
                time.sleep(0.2)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    yield
    assert answered.is_set()
    waiting.join()
