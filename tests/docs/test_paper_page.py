"""The page with the paper's tables holds what was measured, and says what was not."""

from __future__ import annotations

import importlib
import re

import pytest

from oaks.val.report import paper

from .pages import ROOT


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("paper_page")


def test_the_tables_are_those_of_the_results(page):
    text = page.PAGE.read_text("utf-8")
    assert page.filled(text, page.load()) == text, "run `python benchmarks/paper_page.py`"
    assert {match[2] for match in page.MARKED.finditer(text)} == set(page.WRITERS)


def test_what_was_not_run_is_said_with_its_command(page):
    for name in ("1", "2", "3", "4", "6", "7", "8", "gains"):
        text = page.WRITERS[name]({})
        assert text.startswith("Not run: `python benchmarks/paper.py"), name
    rows = page.WRITERS["5"]({}).splitlines()
    assert sum("not run" in row for row in rows if row.startswith("|")) == len(paper.KS_NET_BACKBONES)
    assert "What was not run: `python benchmarks/paper.py" in "\n".join(rows[-2:])


def test_the_paper_s_numbers_stand_in_every_table(page):
    tables = page.load()
    assert "| HPE | ground truth | paper | 74.8 | 92.4 |" in page.WRITERS["1"](tables)
    assert "| paper, second estimator | OAKS | not stated | 40.2 | 90.0 | 95.0 | 98.1 |" in page.WRITERS["9"](
        tables
    )
    assert re.search(r"^\| ResNet-18 \| paper \| 75\.1 ", page.WRITERS["5"](tables), re.M)


def test_other_estimators_are_read_from_the_printed_tables(page):
    rows = [line for line in page.WRITERS["9"]({}).splitlines() if not line.startswith("| paper")]
    assert "| movenet-thunder | own score | all | 0.4 | 21.1 | 62.5 | 79.6 |" in rows
    assert "| movenet-thunder | OAKS | the level's own | 8.4 | 40.4 | 67.9 | 85.6 |" in rows
    assert not [row for row in rows if "–" in row]
