"""oaks fit and oaks rescore, as they are typed."""

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


def test_a_scorer_is_fitted_and_scores_the_results_anew(files, tmp_path):
    rows, content = (json.loads(path.read_text()) for path in files)
    boxes = {person["id"]: person["bbox"] for person in content["annotations"]}
    for row in rows:
        row["bbox"] = boxes[row["annotation_id"]]
    results, annotations = frozen.save(tmp_path / "boxes", rows, content)
    done = run("fit", results, "--annotations", annotations, "--out", tmp_path / "scorer", "--estimator", "made-up",
               "--resamples", 20)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "scorer: " in done.stdout
    out = tmp_path / "better.json"
    done = run("rescore", tmp_path / "scorer", results, "--out", out, "--estimator", "made-up", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"results": str(out)}
    better = json.loads(out.read_text())
    assert [row["keypoints"] for row in better] == [row["keypoints"] for row in rows]
    assert [row["score"] for row in better] != [row["score"] for row in rows]


def test_results_and_a_network_exclude_each_other(files, tmp_path):
    results, annotations = files
    for given in ((results, "--network", "b"), ()):
        done = run("fit", *given, "--annotations", annotations, "--out", tmp_path / "scorer")
        assert (done.exit_code, done.stderr) == (2, "oaks: pass exactly one of results, --network\n")
