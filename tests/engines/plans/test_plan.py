"""Building a plan: profiles, flags, errors, timings, progress and Ctrl-C, with stand-ins for all versions."""

from __future__ import annotations

import contextlib
import io
import itertools
import signal
import threading
import time

import bundles
import pytest
import tensorrt_listings as listings
import tensorrt_stand_in as stand_in
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress
from tensorrt_world import MAGIC, World

from oaks.engines.plans.library import TensorRTError, library
from oaks.engines.plans.plan import SPAN, BuildSettings, Profile, TimingCache, build, profiles_for
from oaks.engines.plans.progress import Phases, run_in_worker

ONNX = bundles.pose_network(3, bundles.SIZE, visibility=True)
SETTINGS = BuildSettings((Profile(1, 2), Profile(3, 8)))


@pytest.fixture(params=listings.VERSIONS)
def world(request, monkeypatch):
    made = World()
    stand_in.install(monkeypatch, request.param, made)
    return made


@pytest.fixture(params=["10.16", "11.4"])
def ordinary(request, monkeypatch):
    """Ordinary TensorRT, not that for RTX."""
    made = World()
    stand_in.install(monkeypatch, request.param, made)
    return made


@pytest.fixture
def rtx(monkeypatch):
    made = World()
    stand_in.install(monkeypatch, "rtx_1.7", made)
    return made


def built(
    world: World, recipe: BuildSettings = SETTINGS, timing: TimingCache | None = None, **settings
) -> bytes:
    settings = {"label": "tiny/pose", "show": False, **settings}
    return build(library(world.trt.__name__), ONNX, recipe, timing or TimingCache(), **settings)


# ---- profiles


@given(st.lists(st.integers(1, 600), min_size=1, max_size=12, unique=True).map(sorted))
def test_profiles_cover_every_batch_once_and_are_tuned_for_given_batches(batches):
    profiles = profiles_for(batches)
    assert profiles[0].smallest == 1
    assert profiles[-1].largest == batches[-1]
    for below, above in itertools.pairwise(profiles):
        assert above.smallest == below.largest + 1
    for profile in profiles:
        assert profile.largest in batches
    for batch in batches:
        (mine,) = [p for p in profiles if p.smallest <= batch <= p.largest]
        assert mine.largest < batch * SPAN or mine.largest == batch


def test_powers_of_two_make_a_few_profiles():
    assert profiles_for([1, 2, 4, 8, 16, 32, 64]) == (
        Profile(1, 1),
        Profile(2, 4),
        Profile(5, 16),
        Profile(17, 64),
    )


@pytest.mark.parametrize("batches", [[], [0, 1]])
def test_missing_batches_are_refused(batches):
    with pytest.raises(ValueError, match=r"batches must be numbers of 1 or more"):
        profiles_for(batches)


# ---- building


def test_a_plan_is_built_with_the_profiles_and_flags_of_its_settings(world):
    plan = built(world)
    assert plan.startswith(MAGIC)
    (config,) = world.configs
    assert config._values["profiles"] == [
        {"crops": [[1, 3, 64, 48], [2, 3, 64, 48], [2, 3, 64, 48]]},
        {"crops": [[3, 3, 64, 48], [8, 3, 64, 48], [8, 3, 64, 48]]},
    ]
    assert config._values["cleared"] == ["TF32"]
    assert config._values["builder_optimization_level"] == 3


def test_tf32_stays_enabled_if_the_settings_allow_it(world):
    built(world, BuildSettings((Profile(1, 1),), tf32=True, level=5))
    assert world.configs[0]._values["cleared"] == []
    assert world.configs[0]._values["builder_optimization_level"] == 5


def test_building_happens_in_another_thread_with_the_device_current(world):
    current = []

    @contextlib.contextmanager
    def active():
        current.append(threading.current_thread().name)
        yield
        current.append("done")

    built(world, active=active)
    assert world.threads == ["oaks-build"]
    assert current == ["oaks-build", "done"]


def test_errors_of_the_parser_are_reported(world):
    world.parse_errors = ["unsupported operator", "and more"]
    with pytest.raises(
        TensorRTError,
        match=r"tiny/pose: TensorRT cannot read this ONNX model: Conv 'node_3': unsupported operator; Conv .*and more",
    ):
        built(world)
    assert world.built == 0


def test_errors_of_the_builder_are_reported(world):
    library(world.trt.__name__)
    world.say("ERROR", "an earlier error")
    world.build_fails = "Could not find any implementation for node Conv_1"
    with pytest.raises(
        TensorRTError, match=r"could not build a plan(.|\n)*ERROR: Could not find any"
    ) as caught:
        built(world)
    assert "earlier" not in str(caught.value)


def test_a_refused_profile_is_an_error(world):
    world.refuses.add("profile")
    with pytest.raises(TensorRTError, match=r"refuses batches 1 to 2(.|\n)*not consistent"):
        built(world)


def test_a_fixed_batch_is_an_error(world):
    world.batch_fixed = True
    with pytest.raises(
        TensorRTError, match=r"only axis 0, the batch, may vary; 'crops' has shape \(4, 3, 64, 48\)"
    ):
        built(world)


# ---- timings


def test_timings_are_read_and_updated(ordinary):
    timing = TimingCache(b"before")
    built(ordinary, timing=timing)
    assert timing.content == b"before|measured"


@pytest.mark.parametrize("how", ["create", "set"])
def test_timings_that_tensorrt_rejects_are_replaced(ordinary, how):
    timing = TimingCache(b"of another version")
    if how == "create":
        ordinary.timings_rejected = [timing.content]
    else:
        ordinary.refuses.add("timings")
    built(ordinary, timing=timing)
    assert timing.content == b"|measured"


def test_timings_of_a_failed_build_are_kept(ordinary):
    ordinary.build_fails = "no"
    timing = TimingCache(b"before")
    with pytest.raises(TensorRTError):
        built(ordinary, timing=timing)
    assert timing.content == b"before|measured"


def test_a_tensorrt_that_accepts_no_timings_is_an_error(ordinary):
    ordinary.timings_rejected = [b""]
    with pytest.raises(TensorRTError, match="accepts no timing cache"):
        built(ordinary)


def test_tensorrt_for_rtx_gets_no_timings_and_the_caller_allocates_memory(rtx):
    timing = TimingCache(b"before")
    built(rtx, timing=timing)
    built(rtx, BuildSettings(SETTINGS.profiles, capabilities=("75", "121")))
    assert timing.content == b"before"
    assert [config._values["set"] for config in rtx.configs] == [["REQUIRE_USER_ALLOCATION"]] * 2
    assert [config._values["capabilities"] for config in rtx.configs] == [[], ["SM75", "SM121"]]


def test_a_capability_that_tensorrt_for_rtx_refuses_is_an_error(rtx):
    rtx.refuses.add("capability")
    with pytest.raises(TensorRTError, match="refuses compute capability 75"):
        built(rtx, BuildSettings(SETTINGS.profiles, capabilities=("75",)))


def test_the_error_for_fp32_on_turing_says_what_to_do(rtx):
    library("tensorrt_rtx")
    rtx.build_fails = "Cannot compile operation 'node_linear' for Turing (SM75): FP32 GEMM is not supported."
    with pytest.raises(TensorRTError, match=r"compute capability 7.5: pass precision 'fp16'"):
        built(rtx, BuildSettings(SETTINGS.profiles, capabilities=("75",)))


# ---- progress and Ctrl-C


def phases_in_a_thread(log: list):
    """Return callbacks as TensorRT makes them: from a thread of its own, with nested phases and missing steps."""

    def steps(monitor) -> bool:
        def run() -> None:
            monitor.phase_start("Building Engine", None, 3)
            monitor.phase_start("Computing tactics", "Building Engine", 2)
            log.append(monitor.step_complete("Computing tactics", 1))
            monitor.phase_finish("Computing tactics")
            log.append(monitor.step_complete("Building Engine", 0))
            log.append(monitor.step_complete("a phase that never started", 0))
            monitor.phase_finish("Building Engine")
            monitor.phase_finish("a phase that never started")

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return all(log)

    return steps


def test_showing_progress_does_not_stop_the_build(world, capsys):
    log: list[bool] = []
    world.steps = phases_in_a_thread(log)
    assert built(world, show=True).startswith(MAGIC)
    assert log == [True, True, True]


def test_phases_are_nested_bars_that_disappear():
    progress = Progress(console=Console(file=io.StringIO()))
    phases = Phases(progress, threading.Event())
    phases.start("outer", None, 4)
    phases.start("inner", "outer", 2)
    assert phases.step("inner", 0)
    assert [(task.description, task.completed, task.total) for task in progress.tasks] == [
        ("outer", 0, 4),
        ("  inner", 1, 2),
    ]
    phases.finish("inner")
    assert [task.description for task in progress.tasks] == ["outer"]


def test_an_error_while_showing_progress_stops_the_build_and_is_reported(world, monkeypatch):
    def broken(self, *arguments, **settings):
        raise RuntimeError("the screen is gone")

    monkeypatch.setattr(Progress, "add_task", broken)
    log: list[bool] = []
    world.steps = phases_in_a_thread(log)
    with pytest.raises(TensorRTError, match="showing the progress") as caught:
        built(world, show=True)
    assert "screen is gone" in str(caught.value.__cause__)
    assert log[0] is False


def test_ctrl_c_stops_a_build_and_keeps_its_timings(world, ctrl_c):
    """The main thread gets the signal, because TensorRT works in another one."""
    started, answers = threading.Event(), []

    def steps(monitor) -> bool:
        monitor.phase_start("Building Engine", None, 1000)
        started.set()
        for step in range(1000):
            answers.append(monitor.step_complete("Building Engine", step))
            if not answers[-1]:
                return False
            time.sleep(0.01)
        return True

    def press() -> None:
        if started.wait(30):
            signal.raise_signal(signal.SIGINT)

    world.steps = steps
    timing = TimingCache()
    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        built(world, timing=timing)
    assert answers[-1] is False
    assert len(answers) < 1000
    assert timing.content == (b"" if world.trt.__name__ == "tensorrt_rtx" else b"|measured")


def test_the_worker_returns_results_and_raises_errors():
    assert run_in_worker(lambda cancelled: cancelled.is_set()) is False
    with pytest.raises(ZeroDivisionError):
        run_in_worker(lambda cancelled: 1 / 0)
