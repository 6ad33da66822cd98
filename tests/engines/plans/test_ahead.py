"""Plans built ahead of time, with the stand-in for TensorRT; test_real_builder.py uses the library."""

from __future__ import annotations

import json

import bundles
import pycuda_stand_in
import pytest
import tensorrt_stand_in
from tensorrt_world import World

import oaks
from oaks.bundle import Bundle
from oaks.engines.plans.ahead import plan_bundle
from oaks.engines.plans.library import TensorRTError
from oaks.executors import pycuda


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    made = pycuda_stand_in.install(monkeypatch, devices=2)
    made.capabilities = [(8, 9), (7, 5)]
    monkeypatch.setenv("OAKS_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def world(monkeypatch, gpu):
    made = World()
    made.streams = gpu.streams
    tensorrt_stand_in.install(monkeypatch, "rtx_1.7", made)
    return made


@pytest.fixture
def tiny(tmp_path) -> Bundle:
    return bundles.write(tmp_path / "tiny", half=True)


def made(bundle: Bundle, **settings):
    return plan_bundle(bundle.path, show=False, **settings)


def names(bundle: Bundle) -> list[str]:
    return sorted(path.name for path in bundle.path.glob("*.plan"))


def test_an_engine_uses_the_bundles_plans(tiny, world):
    plans = made(tiny)
    assert [(plan.role, plan.precision, plan.capabilities) for plan in plans] == [
        ("pose", "fp16", ()),
        ("ks", "fp16", ()),
    ]
    assert sorted(plan.file for plan in plans) == names(tiny)
    assert [(tiny.path / plan.file).stat().st_size for plan in plans] == [plan.bytes for plan in plans]
    for settings in ({}, {"flip": False}, {"max_batch": 7}):
        with oaks.Engine(tiny.path, backend="tensorrt", **settings) as engine:
            assert engine.describe()["networks"]["pose"]["plan"] == str(tiny.path / plans[0].file)
    assert world.built == 2


def test_larger_batches_than_the_plans_are_built(tiny, world):
    made(tiny, max_batch=4)
    with oaks.Engine(tiny.path, backend="tensorrt", max_batch=8) as engine:
        assert engine.describe()["networks"]["pose"]["plan"].startswith(str(tiny.path.parent / "cache"))
    assert world.built == 4


def test_no_gpu_is_needed(tiny, world, monkeypatch):
    pycuda_stand_in.install(monkeypatch, devices=0)
    assert len(made(tiny)) == 2


def test_capabilities_of_the_default_share_a_plan(tiny, world, gpu):
    plans = made(tiny, capabilities=["75", "86", "89"], precisions=["fp16", "fp32"])
    assert [(plan.role, plan.precision, plan.capabilities) for plan in plans] == [
        (role, precision, named)
        for precision in ("fp16", "fp32")
        for role in ("pose", "ks")
        for named in (("75",), ())
    ]
    before = world.built
    for device in ("cuda:0", "cuda:1"):
        for precision in ("fp16", "fp32"):
            with oaks.Engine(tiny.path, backend="tensorrt_rtx", precision=precision, device=device):
                pass
    assert world.built == before == 8


def test_building_again_replaces_plans_of_the_same_purpose_only(tiny, world, monkeypatch):
    made(tiny, precisions=["fp32"])
    first = made(tiny, precisions=["fp16"])
    monkeypatch.setattr(world.trt, "__version__", "1.8.0")
    second = made(tiny, precisions=["fp16"], max_batch=2)
    assert {plan.file for plan in first}.isdisjoint(plan.file for plan in second)
    held = Bundle.load(tiny.path).plans
    assert [(p.role, p.precision, p.version) for p in held] == [
        ("pose", "fp32", "1.7.1.116"), ("ks", "fp32", "1.7.1.116"),
        ("pose", "fp16", "1.8.0"), ("ks", "fp16", "1.8.0"),
    ]  # fmt: skip
    assert sorted(p.file for p in held) == names(tiny)


def test_building_the_same_plans_again_changes_nothing(tiny, world):
    made(tiny)
    before = (tiny.path / "bundle.json").read_bytes()
    made(tiny)
    assert (tiny.path / "bundle.json").read_bytes() == before


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failed_build_does_not_change_the_bundle(tiny, world, fails_at, monkeypatch):
    before = (tiny.path / "bundle.json").read_bytes()

    def steps(monitor) -> bool:
        world.build_fails = "no" if world.built == fails_at else None
        return True

    world.steps = steps
    with pytest.raises(TensorRTError):
        made(tiny)
    assert names(tiny) == []
    assert (tiny.path / "bundle.json").read_bytes() == before


def test_plans_of_ordinary_tensorrt_are_for_this_gpu(tiny, gpu, monkeypatch):
    world = World()
    world.streams = gpu.streams
    tensorrt_stand_in.install(monkeypatch, "11.4", world)
    made(tiny, flavor="tensorrt")
    (plan, _) = Bundle.load(tiny.path).plans
    assert plan.key["device"]["compute_capability"] == "89"
    with oaks.Engine(tiny.path, backend="tensorrt"):
        assert world.built == 2
    with oaks.Engine(tiny.path, backend="tensorrt", device="cuda:1"):
        assert world.built == 4


def test_plans_of_an_untrusted_bundle_can_be_ignored(tiny, world):
    made(tiny)
    with oaks.Engine(Bundle.load(tiny.path, plans=False), backend="tensorrt"):
        assert world.built == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flavor": "tensorflow"}, "flavor must be 'tensorrt_rtx' or 'tensorrt', got 'tensorflow'"),
        ({"flavor": "tensorrt", "capabilities": ["89"]}, "capabilities must be left out"),
        ({"precisions": ["int8"]}, "precision must be one that bundle .*, got 'int8'"),
    ],
)
def test_wrong_arguments_are_named(tiny, world, settings, message):
    with pytest.raises(ValueError, match=message):
        made(tiny, **settings)
    assert json.loads((tiny.path / "bundle.json").read_text()).get("plans") is None


def test_an_unsupported_capability_is_reported(tiny, world):
    with pytest.raises(oaks.BackendUnavailable, match=r"this GPU has 9\.0"):
        made(tiny, capabilities=["90"])


def test_no_device_is_opened(tiny, world):
    pycuda.device.cache_clear()
    made(tiny)
    assert pycuda.device.cache_info().currsize == 0
