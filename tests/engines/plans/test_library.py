"""The TensorRT libraries: loading, errors and the log, with stand-ins for all versions."""

from __future__ import annotations

import logging
import sys

import pytest
import tensorrt_listings as listings
import tensorrt_stand_in as stand_in
from tensorrt_world import World

from oaks import BackendUnavailable
from oaks.engines.plans import library as module
from oaks.engines.plans.library import Log, library


@pytest.fixture(params=listings.VERSIONS)
def world(request, monkeypatch):
    made = World()
    stand_in.install(monkeypatch, request.param, made)
    return made


def loaded(world) -> module.Library:
    return library(world.trt.__name__)


def test_there_is_one_library_and_one_logger(world):
    assert loaded(world) is loaded(world)
    assert loaded(world).logger is world.logger
    assert loaded(world).version == world.trt.__version__
    assert loaded(world).flavor == world.trt.__name__


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt_rtx"])
def test_without_tensorrt_the_error_says_what_to_install(monkeypatch, flavor):
    monkeypatch.setattr(module, "_loaded", {})
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    extra = flavor.replace("_", "-")
    with pytest.raises(BackendUnavailable, match=rf"cannot be imported: .*pip install 'oaks\[{extra}\]'"):
        library(flavor)


def test_an_old_tensorrt_is_refused(world, monkeypatch):
    monkeypatch.setattr(world.trt, "__version__", "0.6.1")
    with pytest.raises(BackendUnavailable, match=r"must be (10\.3|1\.7) or newer, got 0\.6\.1; `pip install"):
        loaded(world)


@pytest.mark.parametrize("what", ["builder", "runtime"])
def test_a_missing_gpu_is_reported(world, what):
    used = loaded(world)
    world.no_gpu = True
    with pytest.raises(BackendUnavailable, match=r"finds no GPU(.|\n)*ERROR: CUDA initialization failure"):
        getattr(used, what)()


def test_an_error_ends_with_the_log_since_the_mark(world):
    used = loaded(world)
    world.say("ERROR", "an earlier error")
    mark = used.log.mark()
    world.say("INFO", "chatter")
    world.say("WARNING", "careful")
    world.say("ERROR", "too bad")
    text = str(used.failure("it did not work", mark))
    assert text.startswith(f"it did not work. {used.name} wrote")
    assert text.endswith("wrote:\nWARNING: careful\nERROR: too bad")


def test_the_log_keeps_its_last_lines_with_their_numbers():
    log = Log(length=3)
    marks = []
    for number in range(5):
        marks.append(log.mark())
        log.add("ERROR", str(number))
    assert log.since() == ["ERROR: 2", "ERROR: 3", "ERROR: 4"]
    assert log.since(marks[3]) == ["ERROR: 3", "ERROR: 4"]
    assert log.since(log.mark()) == []


def test_without_warnings_the_tail_is_the_last_lines_of_any_kind():
    log = Log()
    assert log.tail() == "(TensorRT wrote nothing)"
    for number in range(20):
        log.add("INFO", str(number))
    assert log.tail(count=2) == "INFO: 18\nINFO: 19"


def test_lines_are_passed_to_logging_except_verbose_ones(world, caplog):
    loaded(world)
    with caplog.at_level(logging.DEBUG, logger="oaks.tensorrt"):
        for severity in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
            world.say(severity, f"a {severity}")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "a INFO"),
        ("INFO", "a WARNING"),
        ("WARNING", "a ERROR"),
        ("ERROR", "a INTERNAL_ERROR"),
    ]
