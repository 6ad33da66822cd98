"""The report's page in a headless Chromium: on a phone and a laptop, with the light and the dark theme."""

from __future__ import annotations

from pathlib import Path

import pytest

from oaks.val.report.writer import PAGE

from . import browser

# Every test here needs the fixture of a whole evaluation.
from .test_report import made  # noqa: F401

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium"),
]
WINDOWS = {"phone": (390, 844), "laptop": (1366, 768)}
SIZES = """({
  page: document.documentElement.scrollWidth, window: document.documentElement.clientWidth,
  height: document.documentElement.scrollHeight, answer: document.querySelector(".answer").getBoundingClientRect().bottom,
  folded: [...document.querySelectorAll("details")].every(d => !d.open),
})"""
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", WINDOWS)
def test_the_page_fits_and_is_legible(made, chromium, window, scheme):  # noqa: F811
    width, height = WINDOWS[window]
    chromium.errors.clear()
    chromium.show(made[0] / PAGE, width=width, height=height, scheme=scheme)
    folded = chromium.evaluate(SIZES)
    assert folded["page"] == folded["window"] == width
    assert folded["folded"]
    assert folded["height"] < 12_000
    assert folded["answer"] <= height
    background = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(background.split("(")[1].split(",")[0]) < 100) == (scheme == "dark")
    chromium.evaluate("document.getElementById('all').click()")
    opened = chromium.evaluate(SIZES)
    assert opened["page"] == width
    assert opened["height"] > folded["height"]
    texts = chromium.evaluate(f"{CONTRAST}(4.5)")
    assert texts["count"] > 500
    assert texts["poor"] == []
    assert chromium.errors == []


def test_figures_scale_with_the_page(made, chromium):  # noqa: F811
    widths = {}
    for window, (width, height) in WINDOWS.items():
        chromium.show(made[0] / PAGE, width=width, height=height, scheme="light")
        chromium.evaluate("document.getElementById('all').click()")
        widths[window] = chromium.evaluate(
            "[...document.querySelectorAll('.figure svg')].map(s => [s.getBoundingClientRect().width,"
            " s.closest('.scroll').clientWidth, s.getBoundingClientRect().height / s.getBoundingClientRect().width,"
            " s.viewBox.baseVal.height / s.viewBox.baseVal.width])"
        )
    assert len(widths["phone"]) == len(widths["laptop"]) >= 10
    for window, figures in widths.items():
        for drawn, room, shape, expected in figures:
            # On a phone a figure keeps a legible width and scrolls within its card.
            assert drawn == pytest.approx(max(room, 640) if window == "phone" else room, abs=1)
            assert shape == pytest.approx(expected, rel=0.01)


def test_links_open_their_target_and_columns_sort(made, chromium):  # noqa: F811
    chromium.show(made[0] / PAGE, width=1366, height=768, scheme="light")
    chromium.evaluate("location.hash = '#class-counts'; reveal()")
    assert chromium.evaluate("document.getElementById('class-counts').open")
    cells = (
        "[...document.querySelectorAll('#ranking-exact tbody td:nth-child(2)')].map(cell => cell.dataset.v)"
    )
    chromium.evaluate("document.querySelector('#ranking-exact th:nth-child(2)').click()")
    values = [float(value) for value in chromium.evaluate(cells) if value]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 2


def test_the_checks_find_poor_contrast_and_a_wide_page(chromium, tmp_path):
    page = tmp_path / "poor.html"
    page.write_text(
        '<!doctype html><body style="background:#fff"><p style="color:#999">pale</p><p>clear</p>'
        '<div style="width:900px">wide</div><script>console.error("told")</script>'
    )
    chromium.errors.clear()
    chromium.show(page, width=390, height=844, scheme="light")
    assert chromium.evaluate("document.documentElement.scrollWidth") > 390
    assert [text for text, _ in chromium.evaluate(f"{CONTRAST}(4.5)")["poor"]] == ["pale"]
    assert len(chromium.errors) == 1
    chromium.errors.clear()
