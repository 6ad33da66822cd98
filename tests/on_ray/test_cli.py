"""The command lines of oaks predict --ray and oaks serve."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from oaks.cli.main import app
from oaks.cli.options import with_ray_address
from oaks.errors import ArgumentError
from oaks.ray import batches, serving

from .conftest import write_pictures


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, words)])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        (["a", "--ray"], ["a", "--ray=local"]),
        (["--ray", "a", "--out", "b"], ["--ray=local", "a", "--out", "b"]),
        (["--ray", "--out", "b"], ["--ray=local", "--out", "b"]),
        (["--ray", "auto", "a"], ["--ray", "auto", "a"]),
        (["a", "--ray", "10.0.0.1:6379"], ["a", "--ray", "10.0.0.1:6379"]),
        (["a", "--ray", "ray://head-1.local:10001"], ["a", "--ray", "ray://head-1.local:10001"]),
        (["a", "--ray=[::1]:6379"], ["a", "--ray=[::1]:6379"]),
        (["--ray", "C:\\photos"], ["--ray=local", "C:\\photos"]),
        (["a"], ["a"]),
    ],
)
def test_ray_needs_no_address(typed, understood):
    assert with_ray_address(typed) == understood


def test_a_run_on_ray_reports_its_results(tiny, tmp_path, monkeypatch):
    called = {}

    def predict_files(sources, out, bundle, *, start, advance, **settings):
        called.update(settings, sources=sources, bundle=bundle)
        start(10, 5)
        advance(10)
        return batches.BatchSummary(out, 15, 20, 5, {"x.jpg": "damaged"}, ["y.mp4"])

    monkeypatch.setattr(batches, "predict_files", predict_files)
    words = (
        "predict",
        tmp_path,
        "--ray",
        "--bundle",
        tiny,
        "--boxes",
        "whole",
        "--out",
        tmp_path / "out",
        "--threads",
        2,
    )
    code, text = run(*words, "--workers", 3, "--coco", "--nms", 0)
    assert code == 1
    assert "resumed: pictures done: 5; pictures and other files left: 10" in text
    assert "skipped x.jpg: damaged" in text
    assert "not finished: y.mp4" in text
    assert f"20 people in 14 pictures: {tmp_path / 'out' / 'parts'}" in " ".join(text.split())
    assert (called["address"], called["workers"], called["threads"], called["coco"]) == ("local", 3, 2, True)
    assert (called["nms"], called["boxes"].description, called["column"]) == (None, "whole", "image")
    code, text = run(*words, "--json")
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert records[0] == {"image": "x.jpg", "skipped": "damaged"}
    assert (records[1]["pictures"], records[1]["people"], records[1]["unfinished"]) == (15, 20, 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--workers", "2"], "--workers must be left out without --ray, got 2"),
        (["--coco"], "--coco must be left out without --ray"),
        (["--column", "jpg"], "--column must be left out without --ray"),
        (["--ray", "--pictures"], "--pictures must be left out with --ray"),
        (["--ray"], "boxes must be given, as bundle 'tiny' has no detector, got None; pass"),
        (["--ray", "--boxes", "whole", "--detector", "x.onnx"], "pass at most one of --boxes, --detector"),
    ],
)
def test_invalid_arguments_are_refused_before_ray_starts(tiny, tmp_path, monkeypatch, words, reason):
    monkeypatch.setattr(batches, "connected", lambda _address: pytest.fail("Ray was started"))
    write_pictures(tmp_path / "photos", 1)
    code, text = run("predict", tmp_path / "photos", "--bundle", tiny, "--out", tmp_path / "out", *words)
    assert code == 2
    assert reason in " ".join(text.split())
    assert not (tmp_path / "out").exists()


def test_a_service_gets_the_typed_settings(tiny, monkeypatch):
    called = {}

    def serve(bundle, **settings):
        called.update(settings, bundle=bundle)
        settings["ready"]("http://127.0.0.1:8000")

    monkeypatch.setattr(serving, "serve", serve)
    code, text = run(
        "serve", tiny, "--port", 8123, "--boxes", "whole", "--wait", 5, "--max-people", 7, "--queue", 9
    )
    assert code == 0
    assert "at http://127.0.0.1:8000; Ctrl-C stops it" in text
    assert (called["bundle"], called["port"], called["queue"]) == (str(tiny), 8123, 9)
    assert called["wait"] == pytest.approx(0.005)
    assert (called["bounds"].people, called["boxes"].description, called["address"]) == (7, "whole", None)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--boxes", "people.json"], "--boxes must be 'whole'"),
        (["--port", "70000"], "65535"),
        (["--queue", "0"], "queue"),
    ],
)
def test_a_service_refuses_invalid_settings(tiny, words, reason):
    code, text = run("serve", tiny, *words)
    assert code == 2
    assert reason in " ".join(text.split())


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to this process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_runs_until_a_signal_with_the_settings_it_was_given(monkeypatch, number):
    seen = []

    @contextlib.contextmanager
    def running(bundle, **settings):
        seen.append((bundle, settings))
        yield "http://127.0.0.1:1"
        seen.append("ended")

    def ready(address):
        seen.append(address)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(serving, "running", running)
    before = signal.getsignal(number)
    serving.serve("tiny", ready=ready, port=8123, queue=9)
    assert seen == [("tiny", {"port": 8123, "queue": 9}), "http://127.0.0.1:1", "ended"]
    assert signal.getsignal(number) is before


def test_a_service_that_waits_for_signals_must_run_in_the_main_thread(monkeypatch):
    monkeypatch.setattr(serving, "running", lambda *_, **__: pytest.fail("a service was started"))
    with (
        ThreadPoolExecutor(1) as other,
        pytest.raises(ArgumentError, match="must be called in the main thread"),
    ):
        other.submit(serving.serve, "tiny").result()
