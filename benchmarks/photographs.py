"""Evaluate a bundle on annotated people that it was not trained on: the tables of its model card, and a line in the log.

    python benchmarks/photographs.py BUNDLE ANNOTATIONS IMAGES --log benchmarks/results/coco-val2017-test.jsonl

Ground-truth boxes. Intervals are paired bootstraps over images. The whole report is written beside the results.
--no-log writes no line; it is refused for people that are for measuring only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import measure
import typer

from oaks import Engine
from oaks.val.bootstrap import Contender, compare_rankings
from oaks.val.calibration import measure_calibration
from oaks.val.detect import detect
from oaks.val.detections import Detections
from oaks.val.evaluate import Settings, evaluate
from oaks.val.ground_truth import OCCLUSION_CLASSES, GroundTruth
from oaks.val.interval import Interval
from oaks.val.report import ranking
from oaks.val.report.writer import save_report
from oaks.val.scores import TITLES, ScoredDetections
from oaks.val.visibility import visibility_metrics

MEASURING_ONLY = ("coco-val2017", "test.json")
"""End of the path of the annotations whose people are for measuring only."""

SCORES = ("conventional", "oaks", "oracle")
TABLE_3 = ("true_ks_all_visible", "true_ks_predicted_visibility", "oracle")
FORMS = {"all": "all", "own": "the level's own"}
"""Detections that compete in an occlusion level: name in the figures, and words of the table."""


def shown(interval: Interval) -> str:
    """Return points with their 95 % interval."""
    numbers = (interval.value, interval.low, interval.high)
    value, low, high = (f"{round(100 * number, 1) + 0.0:.1f}" for number in numbers)  # + 0.0: no minus zero
    return f"{value} [{low}, {high}]"


def table(titles: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows])


def card(measured: ScoredDetections, resamples: int) -> tuple[list[str], dict]:
    """Return the model card's tables, and the figures for the log."""
    contenders = [Contender(key, measured, measured.scores[key].ranks) for key in SCORES]
    found = {
        comparison.figure: comparison for comparison in compare_rankings(contenders, resamples=resamples)
    }
    figures = ranking.rank(measured)
    worth = {
        key: measure_calibration(measured.scores[key].values, measured.own_oks)
        for key in ("conventional", "oaks")
    }
    gap = ranking.gap_closed(figures, "oaks")
    of_scores = [
        [TITLES[key], *(shown(found[name].values[n]) for name in ("AP", "AP50", "AP75", "AR"))]
        for n, key in enumerate(SCORES)
    ]
    of_classes = [
        [c.title, FORMS[form], *(shown(found[f"AP75 {c.key} ({form})"].values[n]) for n in range(2)),
         shown(found[f"AP75 {c.key} ({form})"].differences[0])]
        for form in FORMS for c in OCCLUSION_CLASSES
    ]  # fmt: skip
    of_table_3 = [
        [TITLES[key], *(f"{100 * figures[key][name]:.1f}" for name in ("AP", "AP50", "AP75", "APM", "APL"))]
        for key in TABLE_3
    ]
    of_worth = [
        [TITLES[key], f"{w.pearson:.3f}", f"{w.spearman:.3f}", f"{w.ece:.3f}", f"{w.brier:.3f}"]
        for key, w in worth.items()
    ]
    tables = [
        table(["score", "AP", "AP50", "AP75", "AR"], of_scores),
        f"Share of the gap from conventional to oracle that OAKS closes: {100 * gap:.0f} %",
        table(["AP75", "detections", "conventional", "OAKS", "difference"], of_classes),
        table(["score", "AP", "AP50", "AP75", "APM", "APL"], of_table_3),
        table(["score", "Pearson with OKS", "Spearman", "ECE", "Brier"], of_worth),
        table(["visibility", "accuracy %", "always the majority's answer %"], of_visibility(measured)),
    ]
    kept = {
        "people": int(measured.truth.counted.sum()),
        **{key: {name: round(figures[key][name], 4) for name in ("AP", "AP50", "AP75", "AR")} for key in SCORES},
        "gap closed": round(gap, 3),
        "Pearson with OKS": {key: round(w.pearson, 3) for key, w in worth.items()},
        "ECE": {key: round(w.ece, 3) for key, w in worth.items()},
        "AP75 gain": {c.key: round(found[f"AP75 {c.key} (all)"].differences[0].value, 4) for c in OCCLUSION_CLASSES},
    }  # fmt: skip
    return tables, kept


def of_visibility(measured: ScoredDetections) -> list[list[str]]:
    """Return the rows of table 2: each keypoint, then their mean."""
    truth, detections = measured.truth, measured.detections
    flags = truth.flags[detections.own]
    rows = []
    for k, name in enumerate(truth.skeleton.keypoints):
        found = visibility_metrics(detections.visibility[:, k], flags[:, k])
        rows.append((name.replace("_", " "), found.accuracy, max(found.labeled, 1 - found.labeled)))
    rows.append(("mean", *(sum(row[column] for row in rows) / len(rows) for column in (1, 2))))
    return [[name, f"{100 * accuracy:.1f}", f"{100 * majority:.1f}"] for name, accuracy, majority in rows]


def check_log(annotations: Path, log: Path | None, no_log: bool) -> None:
    """Check that the run can be logged as its options say, before anything is measured.

    Raises:
        typer.BadParameter: neither or both are given, or no log of people who are for measuring only.
        OSError: the log cannot be written.
    """
    if (log is None) != no_log:
        raise typer.BadParameter("pass exactly one of --log, --no-log")
    ends = {path.parts[-2:] for path in (annotations.absolute(), annotations.resolve())}
    if no_log and MEASURING_ONLY in ends:
        raise typer.BadParameter(f"{annotations}: its people are for measuring only; pass --log FILE")
    if log is not None:
        log.open("a", encoding="utf-8").close()


def main(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, zip or name.")],
    annotations: Annotated[Path, typer.Argument(help="COCO keypoint annotations.")],
    images: Annotated[Path, typer.Argument(help="Folder of their images.")],
    out: Annotated[Path, typer.Option(help="Folder of the results and the report.")] = Path(
        "runs/photographs"
    ),
    log: Annotated[Path | None, typer.Option("--log", help="JSON Lines file that gets a line.")] = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Write no log.")] = False,
    backend: Annotated[str, typer.Option(help="Backend of the Engine.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precision of the Engine.")] = "auto",
    refine: Annotated[str | None, typer.Option(help="Decoder. Default: the bundle's.")] = None,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 1000,
    note: Annotated[str, typer.Option(help="Note for the log.")] = "",
) -> None:
    """Measure a bundle on annotated people, and log it."""
    check_log(annotations, log, no_log)
    truth = GroundTruth.load(annotations)
    out.mkdir(parents=True, exist_ok=True)
    with Engine(bundle, backend, precision=precision, refine=refine) as engine:
        described = engine.describe()
        people = f"{annotations.parent.name}-{annotations.stem}"
        name = f"{engine.bundle.name}-{described['bundle_sha256'][:12]}-{engine.precision}-{engine.refine}-{people}"
        results = detect(engine, truth, images, out / f"{name}.json")
    detections = Detections.load(results, truth, name=name)
    tables, kept = card(ScoredDetections.of(truth, detections), resamples)
    save_report(
        evaluate(truth, [detections], Settings(resamples=resamples, beside_paper=True, images=images)),
        out / name,
    )
    print("\n\n".join(tables))
    if log is not None:
        stated = ("bundle", "bundle_sha256", "backend", "precision", "decoder", "flip")
        made_with = {key: described[key] for key in stated}
        measure.add_to_log(log, note=note, annotations="/".join(annotations.parts[-2:]), **made_with, **kept)


if __name__ == "__main__":
    typer.run(main)
