"""Behavior shared by all verbs: exit codes, one line per error, --json, --quiet and --verbose, quick start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Annotated

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import oaks
from oaks.cli import verb as verbs
from oaks.cli.main import app, main
from oaks.cli.output import Output
from oaks.cli.verb import verb

VERBS = (
    "predict", "track", "val", "train", "train-series", "pack", "fit", "rescore", "import", "export", "plan", "render",
    "render-video", "benchmark", "demo", "doctor",
)  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), np.full((80, 60, 3), 90, np.uint8))
    return path


def predicting(bundle, source, folder) -> list[str]:
    """Return the arguments of `oaks predict` for pictures of one person each, with the output in the folder."""
    words = ("predict", source, "--bundle", bundle.path, "--backend", "onnxruntime", "--boxes", "whole")
    return [*map(str, words), "--out", str(folder / "out")]


def code_of(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def python(*words: object, **settings) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **settings)


def test_python_m_oaks_is_the_command():
    answer = python("-m", "oaks", "--version")
    assert (answer.returncode, answer.stdout) == (0, f"oaks {oaks.__version__}\n")


def test_every_verb_has_the_shared_options_and_lists_exit_codes():
    listed = CliRunner().invoke(app, ["--help"]).output
    for name in VERBS:
        assert name in listed
        said = CliRunner().invoke(app, [name, "--help"], terminal_width=200).output
        if name != "val":
            assert all(option in said for option in ("--json", "--quiet", "--verbose"))
            assert "130 interrupted" in said
    for name in typer.main.get_command(app).commands["val"].commands:
        assert "--json" in CliRunner().invoke(app, ["val", name, "--help"], terminal_width=200).output


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (oaks.ArgumentError("size must be positive, got 0"), 2, "oaks: size must be positive, got 0"),
        (FileNotFoundError("images not found: x"), 2, "oaks: images not found: x"),
        (oaks.BackendUnavailable("no OpenVINO"), 2, "oaks: no OpenVINO"),
        (oaks.BundleError("b.zip is damaged"), 2, "oaks: b.zip is damaged"),
        (ModuleNotFoundError("No module named 'av'", name="av"), 2,
         "oaks: av is not installed; run: pip install 'oaks[video]'"),
        (OSError(28, "No space left on device"), 3,
         "oaks: a file could not be written or read: [Errno 28] No space left on device; half is in x"),
        (oaks.OaksError("it failed"), 3, "oaks: it failed"),
        (ValueError("could not broadcast"), 3,
         "oaks: unexpected ValueError: could not broadcast; run again with --verbose for the traceback"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid"), 3,
         "oaks: unexpected UnicodeDecodeError: 'utf-8' codec can't decode byte 0x78 in position 0: invalid; "
         "run again with --verbose for the traceback"),
        (oaks.ArgumentError("source rtsp://a:b@c must exist"), 2, "oaks: source rtsp://a:***@c must exist"),
        (ZeroDivisionError("division by zero"), 3,
         "oaks: unexpected ZeroDivisionError: division by zero; run again with --verbose for the traceback"),
        (KeyboardInterrupt(), 130, "oaks: interrupted; half is in x"),
    ],
)  # fmt: skip
def test_each_kind_of_error_is_one_line_with_its_exit_code(raised, code, said):
    @verb(extra="video")
    def fails(output: Output, *, width: Annotated[int, typer.Option(help="Width.")] = 3) -> None:
        """Fail."""
        output.kept = "half is in x"
        raise raised

    only = typer.Typer()
    only.command()(fails)
    result = CliRunner().invoke(only, [])
    assert (result.exit_code, result.stderr, result.stdout) == (code, f"{said}\n", "")
    loud = CliRunner().invoke(only, ["--verbose"])
    assert loud.exit_code == code
    assert ("Traceback" in loud.stderr) == (code != 130)
    assert "a:b@c" not in loud.stderr


def test_skipped_items_exit_with_1():
    @verb()
    def skips(output: Output) -> int:
        """Skip."""
        return verbs.SKIPPED

    only = typer.Typer()
    only.command()(skips)
    assert CliRunner().invoke(only, []).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "oaks: Missing argument"),
        (["predict", "a.png", "--nmss", "1"], "--nmss"),
        (["train", "--hosts", "0"], "--hosts"),
        (["nothing"], "No such command 'nothing'"),
        (["val", "compare", "a.json"], "--annotations"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_with_2(arguments, said, capsys):
    assert code_of(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "--help" in error
    assert error.count("\n") == 1


def test_json_is_one_object_per_item_and_nothing_else(tiny, picture, tmp_path):
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:30])
    result = CliRunner().invoke(app, [*predicting(tiny, tmp_path, tmp_path), "--json"])
    assert result.exit_code == 1, result.output
    good, cut = sorted(map(json.loads, result.stdout.splitlines()), key=lambda one: one["image"])
    assert (good["image"], good["image_id"], good["people"]) == (str(picture), 1, 1)
    assert len(good["poses"][0]["keypoints"]) == 51
    assert (cut["image"], set(cut)) == (str(tmp_path / "cut.png"), {"image", "skipped"})


def test_quiet_prints_nothing_but_errors(tiny, picture, tmp_path):
    words = [*predicting(tiny, picture, tmp_path), "--quiet"]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.output) == (0, "")
    result = CliRunner().invoke(app, [*words, "--absent", "gray"])
    assert result.exit_code == 2
    assert "absent" in result.stderr


def test_a_closed_pipe_prints_no_traceback(tiny, picture, tmp_path):
    """As in `oaks predict ... | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        answer = subprocess.run(
            [sys.executable, "-m", "oaks", *predicting(tiny, picture, tmp_path)], stdout=out, stderr=subprocess.PIPE,
            text=True, timeout=120, check=False,
        )  # fmt: skip
    assert answer.returncode == 3
    assert answer.stderr == ""


def test_start_up_imports_no_heavy_package():
    heavy = {
        "torch", "cv2", "onnxruntime", "openvino", "scipy", "av", "pycocotools", "lightning", "matplotlib", "yaml"
    }  # fmt: skip
    program = "import sys, oaks.cli.main; print(*({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(python("-c", program).stdout.split())
    assert "typer" in loaded
    assert not loaded & heavy


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("lightning", "training", ["train", "rendered_oa_hpe", "--out", "run"]),
        ("yaml", "training", ["pack", "rendered_oa_hpe", "--out", "packed"]),
        ("torch", "export", ["export", "pose.safetensors", "--out", "bundle"]),
        ("safetensors", "export", ["export", "pose.safetensors", "--out", "bundle"]),
    ],
)
def test_a_missing_package_is_one_line_with_its_extra(module, extra, arguments, tmp_path):
    blocked = f"import sys; sys.modules[{module!r}] = None; from oaks.cli.main import main; main()"
    answer = python("-c", blocked, *arguments, cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.strip() == f"oaks: {module} is not installed; run: pip install 'oaks[{extra}]'"


def test_the_verb_chooses_among_extras_that_bring_a_module():
    advice = {
        ("scipy", "video"): "video", ("scipy", "val"): "val", ("torch", None): "training",
        ("torch", "val"): "training", ("onnx", "export"): "export", ("numpy", "predict"): None,
    }  # fmt: skip
    assert {asked: verbs._extra_with(*asked) for asked in advice} == advice


@pytest.mark.parametrize(
    "words",
    [
        ("val", "detect", "tiny", "a.json", "--out", "b.json", "--min-box-score", "nan"),
        ("track", "a.mp4", "--rate", "nan"),
        ("train", "a.yaml", "--max-minutes", "nan"),
    ],
)
def test_nan_is_refused_as_a_number(capsys, words):
    """These options have no range, and every comparison with NaN is false."""
    assert code_of(*words) == 2
    assert capsys.readouterr().err == f"oaks: {words[-2]} must be a number, got nan\n"
