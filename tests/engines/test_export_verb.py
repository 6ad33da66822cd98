"""The command line of oaks export."""

from __future__ import annotations

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from oaks.bundle import Bundle
from oaks.cli.main import app

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture
def crops(pictures, tmp_path):
    np.savez(tmp_path / "crops.npz", crops=pictures)
    return tmp_path / "crops.npz"


def run(*arguments: object):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_a_bundle_is_written_and_listed(checkpoints, crops, tmp_path):
    pose, ks = checkpoints
    options = ("--ks", ks, "--out", tmp_path / "b", "--crops", crops, "--name", "mine")
    done = run(pose, *options, "--precision", "fp32", "--precision", "fp16")
    assert done.exit_code == 0, done.output
    bundle = Bundle.load(tmp_path / "b")
    assert bundle.name == "mine"
    assert bundle.networks["ks"].files == {kind: f"ks.{kind}.onnx" for kind in ("fp32", "fp16")}
    for name in bundle.files:
        assert name in done.stdout
    assert "Difference from the torch network" in done.stderr


def test_above_the_tolerance_the_exit_code_is_3_and_no_bundle_is_written(checkpoints, crops, tmp_path):
    done = run(checkpoints[0], "--out", tmp_path / "b", "--crops", crops, "--tolerance", "fp16=0")
    assert done.exit_code == 3
    assert "differences from the torch network exceed the tolerance" in " ".join(done.stderr.split())
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tolerance", "fp32"), r"--tolerance must be PRECISION=NUMBER"),
        (("--tolerance", "fp32=much"), r"--tolerance must be PRECISION=NUMBER.*'fp32=much'"),
        (("--precision", "fp8"), r"precisions must be some of"),
        (("--plan", "fastest"), r"--plan must be rtx or trt, got 'fastest'"),
    ],
)
def test_wrong_options_are_named(checkpoints, crops, tmp_path, options, message):
    done = run(checkpoints[0], "--out", tmp_path / "b", "--crops", crops, *options)
    assert done.exit_code == 2
    assert re.match(f"oaks: {message}", done.stderr.splitlines()[-1])


def test_plans_are_built_in_the_exported_precisions(checkpoints, crops, tmp_path, monkeypatch):
    from oaks.engines.plans import ahead, library

    asked = []
    monkeypatch.setattr(library, "library", lambda flavor: asked.append(flavor))

    def plan_bundle(folder, *, precisions, flavor, show):
        asked.append((Bundle.load(folder).name, precisions, flavor))
        return [ahead.MadePlan("pose", "fp16", (), "pose.plan", 2_000_000, 1.5)]

    monkeypatch.setattr(ahead, "plan_bundle", plan_bundle)
    done = run(checkpoints[0], "--out", tmp_path / "b", "--crops", crops, "--plan", "rtx")
    assert done.exit_code == 0, done.output
    assert asked == ["tensorrt_rtx", ("b", ["fp16"], "tensorrt_rtx")]
    assert "pose.plan" in done.stdout


def test_a_missing_library_is_reported_before_the_export(checkpoints, crops, tmp_path, monkeypatch):
    from oaks import BackendUnavailable
    from oaks.engines.plans import library

    def missing(flavor):
        raise BackendUnavailable("TensorRT cannot be imported; `pip install 'oaks[tensorrt]'`")

    monkeypatch.setattr(library, "library", missing)
    done = run(checkpoints[0], "--out", tmp_path / "b", "--crops", crops, "--plan", "trt")
    assert done.exit_code in (2, 3)
    assert "pip install 'oaks[tensorrt]'" in done.stderr
    assert not (tmp_path / "b").exists()
