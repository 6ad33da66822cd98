"""The command lines of oaks fit and oaks rescore."""

from __future__ import annotations

import json

import pytest
from fit import frozen
from typer.testing import CliRunner

from oaks.cli.main import app

pytest.importorskip("lightgbm")
pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return frozen.write(tmp_path_factory.mktemp("people"))


def run(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_a_scorer_is_fitted_and_rescores_the_results(files, tmp_path):
    rows, content = (json.loads(path.read_text()) for path in files)
    boxes = {person["id"]: person["bbox"] for person in content["annotations"]}
    for row in rows:
        row["bbox"] = boxes[row["annotation_id"]]
    results, annotations = frozen.save(tmp_path / "boxes", rows, content)
    done = run("fit", results, "--annotations", annotations, "--out", tmp_path / "scorer", "--estimator", "made-up",
               "--decoder", "argmax", "--resamples", 20)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "scorer: " in done.stdout
    out = tmp_path / "better.json"
    done = run("rescore", tmp_path / "scorer", results, "--out", out, "--decoder", "dark")
    assert (done.exit_code, out.exists()) == (2, False)
    assert "decoder must be 'argmax', which the scorer was fitted to, got 'dark'" in done.stderr
    done = run("rescore", tmp_path / "scorer", results, "--out", out, "--estimator", "made-up", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"results": str(out)}
    better = json.loads(out.read_text())
    assert [row["keypoints"] for row in better] == [row["keypoints"] for row in rows]
    assert [row["score"] for row in better] != [row["score"] for row in rows]


def test_results_and_a_network_exclude_each_other(files, tmp_path):
    results, annotations = files
    done = run("fit", results, "small", "--annotations", annotations, "--out", tmp_path / "scorer")
    assert done.exit_code == 2
    expected = f"oaks: source must be results files (.json), or one network, got ['{results}', 'small']\n"
    assert done.stderr == expected


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        (
            "results",
            ["--second-opinion", "small"],
            "--second-opinion must be left out for results files, got small",
        ),
        ("results", ["--scorer", "ks-net"], "--scorer must be left out for results files, got ks-net"),
        ("results", ["--images", "there"], "--images must be left out for results files, got there"),
        ("results", ["--set", "refine=dark"], "--set must be left out for results files, got refine=dark"),
        ("net.onnx", ["--second", "other.json"], "--second must be left out for a network, got other.json"),
        ("net.onnx", ["--decoder", "dark"], "--decoder must be left out for a network, got dark"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(files, tmp_path, source, words, message):
    results, annotations = files
    source = results if source == "results" else source
    done = run("fit", source, "--annotations", annotations, "--out", tmp_path / "scorer", *words)
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "scorer").exists()


def test_a_missing_network_is_named(files, tmp_path):
    words = (
        "fit",
        "nowhere.onnx",
        "--annotations",
        files[1],
        "--images",
        tmp_path,
        "--out",
        tmp_path / "bundle",
    )
    done = run(*words)
    assert done.exit_code == 2
    assert done.stderr.startswith("oaks: preset must be one of simple-baselines, hrnet, ")
    done = run(*words, "--preset", "hrnet")
    assert done.exit_code == 2
    assert "model not found: nowhere.onnx" in done.stderr


def test_a_missing_reference_is_named(files, tmp_path):
    done = run("fit", files[0], "--annotations", files[1], "--reference", files[0], tmp_path / "none.json", "--out",
               tmp_path / "scorer", "--resamples", 2)  # fmt: skip
    assert done.exit_code == 2
    assert "none.json" in done.stderr
