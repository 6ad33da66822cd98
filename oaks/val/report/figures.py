"""The report's drawings, as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas

from oaks.val.calibration import CalibrationMetrics
from oaks.val.error_analysis import STAGES, ErrorAnalysis
from oaks.val.matching import RECALLS

INK, MUTED, GRID = "#1c2733", "#5b6b7b", "#e3e8ee"
COLORS = {
    "conventional": "#8a97a6",
    "oaks": "#0b7a75",
    "own": "#7a5cc2",
    "oracle": "#d08c2e",
}
FLAG_COLORS = ("#0b7a75", "#d08c2e", "#b4443c")
"""Colors of visible, hidden and unlabeled keypoints."""
DENSITY = LinearSegmentedColormap.from_list("density", ["#dcecec", "#5aa9a4", "#0b5f6a", "#08252f"])
FLAT = {"origin": "lower", "interpolation": "nearest", "aspect": "auto"}
STAGE_COLORS = {
    "original": "#ffffff",
    "miss": "#f3e2a0",
    "swap": "#efb27a",
    "inversion": "#d9705f",
    "jitter": "#9c4a52",
    "score": "#4f86c0",
    "background": "#8a6bb0",
    "negatives": "#5aa27c",
}

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "oaks",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#b9c3ce",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "axes.facecolor": "none",  # the page's own, in both themes
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.parse_math": False,  # a $ in a file's name must not start a formula
}


BELOW = {
    "loc": "upper left",
    "bbox_to_anchor": (-0.02, -0.24),
    "borderaxespad": 0.0,
    "handlelength": 1.1,
    "columnspacing": 1.0,
    "labelspacing": 0.35,
}
"""Position of a legend below its panel, where it hides nothing."""


class Drawing:
    """A drawing in progress; `svg` holds the result after the block."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.svg = ""


@contextmanager
def drawing(width: float, height: float) -> Iterator[Drawing]:
    """Context of a canvas of a size in inches, in the report's style."""
    with rc_context(STYLE):
        draft = Drawing(Canvas(figsize=(width, height), layout="constrained"))
        yield draft
        buffer = io.StringIO()
        draft.canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    # Coordinates rounded down to hundredths of a point look the same, and the file is much smaller.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    # Unused element ids would occur in the page once per drawing.
    used = set(re.findall(r"#([^\s\")]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda name: name[0] if name[1] in used else "", text)
    draft.svg = text[text.index("<svg") :].strip()


def _row(draft: Drawing, count: int, *, sharex: bool = False) -> np.ndarray:
    """Return (count,) panels side by side with a shared vertical axis."""
    return draft.canvas.subplots(1, count, squeeze=False, sharey=True, sharex=sharex)[0]


def _legend(axes: Axes, **options: Any) -> None:
    """Add a legend, unless no line or area of the panel has a label."""
    if axes.get_legend_handles_labels()[0]:
        for handle in axes.legend(**options).get_patches():
            handle.set(edgecolor="#8895a3", linewidth=0.5)


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel=x, ylabel=y)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))


def precision_recall_curves(
    titles: Sequence[str], curves: Sequence[Mapping[str, np.ndarray]], names: Mapping[str, str]
) -> str:
    """Draw a panel per occlusion level with the precision (101,) of each score at OKS .75."""
    with drawing(10.5, 3.4) as draft:
        panels = draft.canvas.subplots(1, len(titles), sharey=True)
        for axes, title, panel in zip(panels, titles, curves, strict=True):
            for key, precision in panel.items():
                if np.isfinite(precision).all():
                    axes.plot(
                        RECALLS,
                        precision,
                        color=COLORS.get(key, INK),
                        label=f"{100 * precision.mean():.1f}  {names[key]}",
                    )
            _unit(axes, "recall", "precision" if axes is panels[0] else "")
            axes.set_title(title)
            _legend(axes, **BELOW)
    return draft.svg


def error_curves(rows: Mapping[str, Sequence[ErrorAnalysis]], titles: Sequence[str]) -> str:
    """Draw figures 11 and 12: a row per score and a panel per class, with the area gained by each correction."""
    with drawing(10.5, 3.8 * len(rows)) as draft:
        layout: Any = draft.canvas.get_layout_engine()
        layout.set(hspace=0.09)
        grid = draft.canvas.subplots(len(rows), len(titles), squeeze=False, sharey=True)
        for line, (name, analyzes) in zip(grid, rows.items(), strict=True):
            for axes, title, analysis in zip(line, titles, analyzes, strict=True):
                _error_panel(axes, analysis)
                axes.set_title(f"{title}\n{name}", fontsize=9.5)
                _unit(axes, "recall", "precision" if axes is line[0] else "")
    return draft.svg


def _error_panel(axes: Axes, analysis: ErrorAnalysis) -> None:
    below = np.zeros(len(RECALLS))
    for stage in STAGES:
        precision = analysis.precision[stage]
        if not np.isfinite(precision).all():
            continue
        # A correction can lower precision at some recall; the largest precision so far is drawn.
        above = np.maximum(below, precision)
        axes.fill_between(
            RECALLS,
            below,
            above,
            facecolor=STAGE_COLORS[stage],
            edgecolor="none",
            label=f"{100 * analysis.ap[stage]:.1f}  {stage}",
        )
        axes.plot(RECALLS, precision, color=INK, linewidth=1.4 if stage == "original" else 0.5)
        below = above
    _legend(axes, **BELOW | {"ncols": 2, "fontsize": 7.5, "handleheight": 0.9})


def by_flag(panels: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Draw figure 4: a panel per value with its distribution for visible, hidden and unlabeled keypoints."""
    with drawing(10.5, 2.9) as draft:
        for axes, (title, groups) in zip(_row(draft, len(panels)), panels.items(), strict=True):
            edges = np.linspace(0, max(1.0, *(float(v.max(initial=0)) for v in groups.values())), 51)
            for (label, values), color in zip(groups.items(), FLAG_COLORS, strict=True):
                if len(values):
                    share = np.histogram(values, edges)[0] / len(values)
                    axes.stairs(share, edges, fill=True, color=color, alpha=0.3)
                    axes.stairs(
                        share,
                        edges,
                        color=color,
                        linewidth=1.4,
                        label=f"{label}, median {np.median(values):.2f}",
                    )
            axes.set(title=title, xlabel="value", ylabel="share of keypoints", xlim=(0, edges[-1]))
            axes.set_ylim(bottom=0)
            _legend(axes, loc="best")
    return draft.svg


def against_similarity(panels: Mapping[str, tuple[np.ndarray, np.ndarray, float]], label: str) -> str:
    """Draw figure 5: a panel per keypoint with a value against its true KS, and Pearson's r."""
    with drawing(10.5, 3.1) as draft:
        for axes, (title, (true, value, r)) in zip(_row(draft, len(panels)), panels.items(), strict=True):
            edges = np.linspace(0, 1, 41)
            counts = np.histogram2d(np.clip(value, 0, 1), true, (edges, edges))[0]
            axes.imshow(np.ma.masked_equal(np.log1p(counts), 0), cmap=DENSITY, extent=(0, 1, 0, 1), **FLAT)
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.set(
                xlim=(0, 1), ylim=(0, 1), xlabel="true keypoint similarity", title=f"{title}, r = {r:.3f}"
            )
            if not axes.get_subplotspec().colspan.start:
                axes.set_ylabel(label)
            axes.grid(False)
    return draft.svg


def score_histograms(panels: Mapping[str, np.ndarray], colors: Mapping[str, str]) -> str:
    """Draw figure 6: histograms of scores and of the true OKS, side by side."""
    with drawing(10.5, 2.5) as draft:
        grid = _row(draft, len(panels))
        for axes, (title, values) in zip(grid, panels.items(), strict=True):
            share = np.full(len(values), 1 / len(values))
            axes.hist(values, np.linspace(0, 1, 41), weights=share, color=colors[title], alpha=0.85)
            axes.axvline(values.mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.set(title=f"{title}, mean {values.mean():.2f}", xlim=(0, 1), xlabel="value")
        grid[0].set_ylabel("share of poses")
    return draft.svg


def reliability(panels: Mapping[str, Mapping[str, CalibrationMetrics]], names: Mapping[str, str]) -> str:
    """Draw mean OKS against mean score per bin: a panel per group of poses, a line per score."""
    with drawing(10.5, 3.3) as draft:
        grid = _row(draft, len(panels))
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
            for key, line in lines.items():
                if line.count:
                    axes.plot(
                        line.bin_scores,
                        line.bin_oks,
                        marker="o",
                        markersize=3.2,
                        linewidth=1.3,
                        color=COLORS.get(key, INK),
                        label=f"{names[key]}, ECE {line.ece:.3f}",
                    )
            _unit(axes, "mean score", "")
            axes.set_title(title)
            _legend(axes, **BELOW)
        grid[0].set_ylabel("mean true OKS")
    return draft.svg


def intervals(panels: Mapping[str, Sequence[tuple[str, float, float, float]]], unit: str) -> str:
    """Draw (label, value, low, high) around zero, a line each; all panels have the same labels."""
    with drawing(10.5, 2.1) as draft:
        for axes, (title, rows) in zip(_row(draft, len(panels), sharex=True), panels.items(), strict=True):
            for line, (_, value, low, high) in enumerate(reversed(rows)):
                color = COLORS["oaks"] if low > 0 else "#b4443c" if high < 0 else MUTED
                axes.plot(
                    [low, high], [line, line], color=color, linewidth=4, alpha=0.35, solid_capstyle="round"
                )
                axes.plot([value], [line], marker="o", markersize=6, color=color)
                axes.annotate(
                    f"{value:+.1f}".replace("-", "−"),
                    (value, line),
                    (0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=color,
                )
            axes.axvline(0, color=INK, linewidth=0.9)
            axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
            axes.tick_params(axis="y", length=0)
            axes.set(xlabel=unit, ylim=(-0.5, len(rows) - 0.3), title=title)
            axes.grid(False, axis="y")
            axes.spines["left"].set_visible(False)
    return draft.svg
