"""Table 9: which files belong to one estimator, and figures against pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from oaks.cli.main import app
from oaks.val.coco_eval import coco_metrics
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.interval import Interval
from oaks.val.occlusion import evaluate_occlusion
from oaks.val.report import paper
from oaks.val.report.other_estimators import section
from oaks.val.scores import ScoredDetections

from . import synthetic

pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def content():
    return synthetic.annotations(3, images=40)


@pytest.fixture(scope="module")
def rows(content):
    return synthetic.detections(content, 4, boxes="ground truth")


def own(rows):
    """The estimator's own results: no visibility, no similarity."""
    kept = ("image_id", "category_id", "annotation_id", "keypoints", "heat", "score")
    return [{key: row[key] for key in kept if key in row} for row in rows]


def another(rows):
    """The same poses with another scorer's similarity."""
    return [{**row, "similarity": [value**2 for value in row["similarity"]]} for row in rows]


def moved(rows):
    """Another estimator's poses."""
    found = json.loads(json.dumps(rows))
    for row in found:
        row["keypoints"][0::3] = [x + 1.5 for x in row["keypoints"][0::3]]
    return found


def measured(content, rows):
    truth = GroundTruth.from_coco(content)
    return ScoredDetections.of(truth, Detections.from_rows(rows, truth, box_source="ground truth"))


def test_files_with_the_same_poses_belong_to_one_estimator(content, rows):
    sources = {
        name: measured(content, part)
        for name, part in {"a": own(rows), "b": rows, "c": another(rows), "d": moved(rows)}.items()
    }
    found = section(sources, beside_paper=True, resamples=20)
    overall, *by_class = found.items
    titles = [row[:2] for row in overall.rows]
    assert titles == [
        ("a", "Score in the file"), ("a", "OAKS, b"), ("a", "OAKS, c"), ("a", "Oracle (true KS, true visibility)"),
        ("d", "Conventional (mean heat)"), ("d", "OAKS"), ("d", "Oracle (true KS, true visibility)"),
    ]  # fmt: skip
    assert overall.accent == (1, 2, 5)
    truth = sources["a"].truth
    for number, (name, key) in enumerate([("a", "own"), ("b", "oaks"), ("c", "oaks"), ("a", "oracle")]):
        score = sources[name].scores[key]
        found = sources[name].detections
        judged = coco_metrics(truth, found.image, found.keypoints, score.ranks)
        assert overall.rows[number][2].value == pytest.approx(judged["AP"], abs=1e-9)
        assert overall.rows[number][3].value == pytest.approx(judged["AP75"], abs=1e-9)
        assert overall.rows[number][2].low <= judged["AP"] <= overall.rows[number][2].high
        for table, own_only, figure in zip(
            by_class, (False, True, False, True), ("ap75", "ap75", "ap", "ap"), strict=True
        ):
            for c in range(4):
                expected = evaluate_occlusion(sources[name], score.ranks, c, own_only=own_only)
                value = table.rows[number][2 + c].value
                np.testing.assert_allclose(value, getattr(expected, figure), atol=1e-9)
    gain, gap = overall.rows[1][4], overall.rows[1][5]
    aps = [overall.rows[n][2].value for n in (0, 1, 3)]
    assert gain.value == pytest.approx(aps[1] - aps[0])
    assert gap == pytest.approx((aps[1] - aps[0]) / (aps[2] - aps[0]))
    assert overall.rows[0][4] is None
    papers = [row for row in by_class[0].rows if str(row[0]).startswith("paper")]
    assert [row[2:] for row in papers] == list(paper.OTHER_ESTIMATORS.values())
    assert not any(isinstance(cell, Interval) for row in papers for cell in row)
    assert not [row for table in by_class[1:] for row in table.rows if str(row[0]).startswith("paper")]


def test_a_rescored_file_is_compared_with_the_conventional_score(content, rows):
    both = measured(content, rows)
    rescored = [
        {**row, "score": float(score)} for row, score in zip(rows, both.scores["oaks"].ranks, strict=True)
    ]
    overall = section({"r": measured(content, rescored)}, beside_paper=False, resamples=2).items[0]
    assert [row[1] for row in overall.rows][:2] == ["Conventional (mean heat)", "OAKS"]


def test_an_estimator_without_oaks_is_refused(content, rows):
    with pytest.raises(ValueError, match=r"^results: no visibility or similarity; name a bundle"):
        section({"a": measured(content, own(rows)), "d": measured(content, moved(rows))}, False, resamples=2)


def test_the_command_adds_the_section_to_a_report(content, rows, tmp_path):
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(content))
    for name, part in (("own", own(rows)), ("maps", rows)):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    arguments = ["val", "others", tmp_path / "own.json", tmp_path / "maps.json", "--annotations", annotations,
                 "--box-source", "ground truth", "--resamples", 3, "--against", "paper",
                 "--out", tmp_path / "report"]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert "AP at OKS .75 by occlusion level" in done.stdout
    page = (tmp_path / "report" / "report.md").read_text()
    assert "Other estimators: own score, OAKS and oracle" in page
    assert "paper, first estimator" in page
