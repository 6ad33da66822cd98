"""The Engine with the CUDA kernels themselves, on emulated blocks: the same poses as on the CPU."""

from __future__ import annotations

import sys

import bundles
import numpy as np
import pytest
from emulator import build

import oaks

from . import stand_in

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the emulator's coroutines need POSIX contexts"
)
PAIRED = oaks.Skeleton("paired", tuple("abcde"), (0.1,) * 5, pairs=((0, 3), (1, 2)))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("flip", [True, False], ids=["flip", "no flip"])
def test_the_cuda_path_agrees_with_the_cpu(tmp_path, monkeypatch, precision, flip):
    made = bundles.write(tmp_path / "paired", skeleton=PAIRED, half=True)
    random = np.random.default_rng(4)
    frames = [random.integers(0, 256, (70, 90, 3), dtype=np.uint8) for _ in range(2)]
    boxes = [np.array([[5, 5, 60, 66], [-9, 20, 50, 90]]), np.array([[0, 0, 90, 70]] * 3)]
    stand_in.install(monkeypatch, operations=build.load().cuda, last=0)
    with (
        oaks.Engine(made, "onnxruntime", precision=precision, flip=flip) as host,
        oaks.Engine(made, "stand_in", precision=precision, flip=flip, max_batch=4) as device,
    ):
        expected = host.infer(frames, boxes=boxes)
        for _ in range(2):
            poses = device.infer(frames, boxes=boxes)
    apart = np.linalg.norm(poses.keypoints - expected.keypoints, axis=2)
    assert (apart <= 0.05).mean() >= 0.99
    tolerance = {"fp32": 1e-5, "fp16": 5e-3}[precision]
    for name in ("heat", "visibility", "similarity", "scores"):
        np.testing.assert_allclose(
            getattr(poses, name), getattr(expected, name), atol=tolerance, err_msg=name
        )
