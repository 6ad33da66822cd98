"""torch on CUDA: the same poses as on the CPU, the whole pass as one graph, and the fallback without graphs."""

from __future__ import annotations

import numpy as np
import pytest

import oaks

from . import test_agreement

pytestmark = pytest.mark.needs_cuda
exported, people, expected = test_agreement.exported, test_agreement.people, test_agreement.expected


@pytest.fixture(params=[1, 7, 8, 40])
def count(request):
    return request.param


def test_the_gpu_agrees_with_the_cpu(exported, people, expected, count):
    with oaks.Engine(exported, "torch", device="cuda", precision="fp32", max_batch=16) as engine:
        for _ in range(2):  # recorded, then replayed
            poses = engine.infer(people[0][:count], boxes=people[1][:count])
        assert engine.describe()["cuda_graphs"] == "captured"
    apart = np.linalg.norm(poses.keypoints - expected.keypoints[:count], axis=2)
    assert (apart <= 0.05).mean() >= 0.99
    np.testing.assert_allclose(poses.scores, expected.scores[:count], atol=1e-3)


def test_without_graphs_work_runs_directly(exported, people, expected, monkeypatch, caplog):
    import torch

    def refuse(*arguments, **options):
        raise RuntimeError("capture is refused here")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    with oaks.Engine(exported, "torch", device="cuda", precision="fp32") as engine:
        poses = engine.infer(people[0], boxes=people[1])
        poses = engine.infer(people[0], boxes=people[1])
        assert engine.describe()["cuda_graphs"] == "failed: capture is refused here"
    assert caplog.text.count("capture is refused here") == 1
    np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-3)


def test_tensors_on_the_gpu_stay_there(exported, people, expected):
    import torch

    frames = [torch.from_numpy(frame).cuda() for frame in people[0]]
    with oaks.Engine(exported, "torch", device="cuda", precision="fp32") as engine:
        poses = engine.infer(frames, boxes=people[1])
        with torch.cuda.stream(torch.cuda.Stream()):
            late = torch.zeros_like(frames[0])
            torch.cuda._sleep(50_000_000)
            late.copy_(frames[0])
            waited = engine.infer(late, boxes=people[1][0])
    np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(waited.scores, expected.scores[:1], atol=1e-3)


def test_two_engines_share_the_gpu(exported, people, expected):
    with (
        oaks.Engine(exported, "torch", device="cuda", precision="fp32") as one,
        oaks.Engine(exported, "torch", device="cuda", precision="fp16", flip=False) as two,
    ):
        for _ in range(3):
            poses = one.infer(people[0], boxes=people[1])
            assert len(two.infer(people[0], boxes=people[1])) == len(poses)
    np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-3)
