"""The real TensorRT, PyCUDA and a GPU: `pytest -m tensorrt`, where they are available."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from oaks import Engine
from oaks.bundle import Bundle
from oaks.engines.export.export import export
from oaks.engines.plans import cache
from oaks.engines.plans.cache import load_plan
from oaks.engines.plans.progress import Phases
from oaks.executors import pycuda, tensorrt

pytestmark = [pytest.mark.tensorrt, pytest.mark.timeout(1800)]

NEAR = {"fp32": (0.05, 0.99), "fp16": (0.4, 0.9), "int8": (3.2, 0.9)}
"""(pixels, share): this share of the visible keypoints must be within these input pixels of ONNX Runtime's."""


@pytest.fixture(scope="module", autouse=True)
def _tensorrt():
    if reason := tensorrt.unavailable("cuda"):
        pytest.skip(reason)


@pytest.fixture(scope="module")
def bundle(checkpoints, pictures, tmp_path_factory) -> Bundle:
    out = tmp_path_factory.mktemp("export") / "tiny"
    precisions = ("fp32", "fp16", "int8")
    return export(
        *checkpoints, out=out, precisions=precisions, crops=pictures, tolerance={"int8": 0.6}, show=False
    )


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """A cache folder that the tests share, so that each plan is built once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("plans")
        monkeypatch.setenv("OAKS_CACHE", str(folder))
        yield folder / "tensorrt"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_results_match_onnx_runtime(bundle, plans, pictures, precision):
    with (
        Engine(bundle, backend="tensorrt", precision=precision, max_batch=8) as engine,
        Engine(bundle, backend="onnxruntime", precision=precision) as reference,
    ):
        apart = []
        for count in (1, 3, 8, 11, 24, 2):
            poses, expected = (
                engine.infer(pictures[:count], boxes="whole"),
                reference.infer(pictures[:count], boxes="whole"),
            )
            distance = np.linalg.norm(poses.keypoints - expected.keypoints, axis=-1)
            apart.append(distance[expected.present] * bundle.size[0] / pictures.shape[2])
            np.testing.assert_allclose(
                poses.scores, expected.scores, atol={"fp32": 1e-3}.get(precision, 0.05)
            )
        assert engine.describe()["cuda_graphs"] == "captured"
    pixels, share = NEAR[precision]
    together = np.concatenate(apart)
    assert len(together) > 200, "too few keypoints are visible to speak of 99 of 100"
    assert (together <= pixels).mean() >= share


def test_a_cached_plan_is_loaded_and_not_built(bundle, plans, pictures, monkeypatch):
    with Engine(bundle, backend="tensorrt", precision="fp16", max_batch=4) as engine:
        before = engine.infer(pictures[:4], boxes="whole")

    def build(*_arguments, **_settings):
        raise AssertionError("built again")

    monkeypatch.setattr(cache, "build", build)
    with Engine(bundle, backend="tensorrt", precision="fp16", max_batch=4) as engine:
        np.testing.assert_array_equal(engine.infer(pictures[:4], boxes="whole").keypoints, before.keypoints)


def test_a_graph_gives_the_results_of_single_launches(bundle, plans, pictures, monkeypatch):
    with Engine(bundle, backend="tensorrt", precision="fp16", max_batch=4) as engine:
        captured = engine.infer(pictures[:4], boxes="whole")
    monkeypatch.setattr(pycuda.DeviceMemory, "record", lambda memory, work: work)
    with Engine(bundle, backend="tensorrt", precision="fp16", max_batch=4) as engine:
        launched = engine.infer(pictures[:4], boxes="whole")
    np.testing.assert_array_equal(captured.keypoints, launched.keypoints)
    np.testing.assert_array_equal(captured.scores, launched.scores)


@pytest.mark.parametrize("harm", ["truncated", "foreign"])
def test_a_damaged_plan_is_set_aside_and_built_again(bundle, tmp_path, harm):
    gpu, network = pycuda.device(0), bundle.network("ks", "fp16")
    with gpu.active():
        path = load_plan(network, gpu, batches=[1, 2], folder=tmp_path, show=False).path
        content = path.read_bytes()
        note = path.with_suffix(".json").read_text()
        spoilt = content[: len(content) // 2] if harm == "truncated" else b"\0" * len(content)
        path.write_bytes(spoilt)
        # The note has the hash of the damaged plan, so that only TensorRT can detect the damage.
        digests = (cache.hashlib.sha256(part).hexdigest() for part in (content, spoilt))
        path.with_suffix(".json").write_text(note.replace(*digests))
        again = load_plan(network, gpu, batches=[1, 2], folder=tmp_path, show=False)
    assert again.engine is not None
    assert path.with_name(path.name + ".bad").read_bytes() == spoilt


def test_ctrl_c_stops_a_build(bundle, tmp_path, monkeypatch, ctrl_c):
    step, pressed = Phases.step, []

    def press(phases, name, number):
        if not pressed:
            pressed.append(name)
            signal.raise_signal(signal.SIGINT)
        return step(phases, name, number)

    monkeypatch.setattr(Phases, "step", press)
    gpu = pycuda.device(0)
    with gpu.active(), pytest.raises(KeyboardInterrupt):
        load_plan(bundle.network("pose", "fp16"), gpu, batches=[1], folder=tmp_path, show=False)
    assert pressed
    assert not list(tmp_path.glob("*.plan"))


def test_timings_are_kept(plans, bundle):
    with Engine(bundle, backend="tensorrt", precision="fp32", max_batch=1):
        pass
    assert any(path.stat().st_size > 0 for path in plans.glob("timings-*.cache"))
