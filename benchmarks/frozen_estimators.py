"""Measure scorers that are fitted to a frozen estimator: AP, AP75 by occlusion level, correlation, calibration.

    python benchmarks/frozen_estimators.py BUNDLE --fit ANNOTATIONS IMAGES ... --test ANNOTATIONS IMAGES --store DIR \\
        --log benchmarks/results/coco-val2017-test.jsonl [--curve] [--second BUNDLE]
    python benchmarks/frozen_estimators.py BUNDLE --fit ANNOTATIONS IMAGES ... --store DIR --ks-net

BUNDLE is a frozen heatmap network, imported by oaks.fit.import_network. Scorers from its results and from its heatmaps
are fitted to all people of --fit; with --curve also to 100, 400, 1,000 and 2,000 of them. With --test they are measured
on people of other images, and every run on people that are for measuring only is logged. Without --test, the tables
are out of fold. --second adds a scorer whose features include the poses of another bundle. --ks-net adds a KS network with
a visibility head (oaks fit --scorer ks-net), on the same folds as the trees. --augment N adds a scorer from heatmaps that
is also fitted to N further crops of each person, as oaks fit does with 2.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import add_to_log
from photographs import check_log

from oaks import ops
from oaks.bundle import Bundle
from oaks.fit import boosting
from oaks.fit.boosting import CHOSEN, Examples, Settings
from oaks.fit.card import examples_of
from oaks.fit.heatmaps import averaged_people, described_people, heatmap_card
from oaks.fit.ks_net import KSNetSettings, fit_ks_net
from oaks.fit.people import People, in_both
from oaks.fit.report import class_table, compared, measured_with, summary
from oaks.names import number_of
from oaks.results_features import results_features, with_opinion
from oaks.val.bootstrap import Comparison
from oaks.val.report.document import Column, Table
from oaks.val.report.writer import print_tables

SHALLOW = {"backbone": "conv2", "width": 0.5, "figures": True, "hidden": 256}
"""A KS network that trains four times as fast as the default."""
SIZES = (100, 400, 1000, 2000)
"""Numbers of people of the learning curve; all people come last."""


def prepared(
    bundle: Bundle, sets: list[tuple[Path, Path]], store: Path, copy: int = 0
) -> tuple[People, np.ndarray]:
    """Return the network's poses of the people of several annotation files, and features of their maps."""
    return described_people(bundle, [a for a, _ in sets], [i for _, i in sets], store, None, copy=copy)


def features_of(
    people: People, maps: np.ndarray, second: People | None
) -> tuple[People, dict[str, np.ndarray]]:
    """Return the people that both networks have, and the features (N, K, F) of each form of scorer."""
    if second is not None:
        first, same = in_both(people, second)
        people, maps, second = people.only(first), maps[first], second.only(same)
    assert people.boxes is not None
    results = results_features(people.truth.skeleton, people.points, people.heat, people.boxes)
    forms = {"results": results, "heatmaps": maps}
    if second is not None:
        poses = (people.points, people.boxes, (second.points, second.heat))
        forms |= {
            "results + second": with_opinion(people.truth.skeleton, results, *poses),
            "heatmaps + second": with_opinion(people.truth.skeleton, maps, *poses),
        }
    return people, forms


def some(examples: Examples, people: int, count: int, seed: int) -> np.ndarray:
    """Choose `count` of the first `people`, or a few more, and their copies, from images drawn at random, (N,) bool."""
    images = np.unique(examples.images)
    order = np.random.default_rng(seed).permutation(images)
    rank = np.empty(len(images), int)
    rank[np.searchsorted(images, order)] = np.arange(len(images))
    of_person = rank[np.searchsorted(images, examples.images)]
    last = np.sort(of_person[:people])[min(count, people) - 1]
    return of_person <= last


def told(
    examples: Examples, rows: np.ndarray | None, features: np.ndarray | None, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Predict similarity and visibility, for other people's features or for the examples themselves, out of fold."""
    if features is not None:
        forests = boosting.fit_forests(examples, settings, rows)
        return ops.forest(features, forests[0]), ops.forest(features, forests[1])
    count, keypoints = examples.similarity.shape
    similarity, visibility = np.zeros((2, count, keypoints), np.float32)
    for part, ks, seen in boosting.out_of_fold(examples, settings):
        similarity[part], visibility[part] = ks, seen
    return similarity, visibility


def fit_network(
    bundle: Bundle, sets: list[tuple[Path, Path]], store: Path, resamples: int, settings: KSNetSettings
) -> tuple[tuple[Comparison, ...], dict[str, Any]]:
    """Return comparisons and figures of a KS network on the heatmaps, out of fold."""
    people, maps = averaged_people(bundle, [a for a, _ in sets], [i for _, i in sets], store, None)
    fitted = fit_ks_net(people, maps, heatmap_card(bundle), store, settings=settings, resamples=resamples)
    return fitted.comparisons, summary(fitted.measured, fitted.comparisons)


def row_of(name: str, comparisons: tuple[Comparison, ...], figures: dict[str, Any]) -> list[Any]:
    """Return a scorer's row of the table of estimators."""
    gain = next(c for c in comparisons if c.figure == "AP").differences[0]
    ap = [figures["oaks"][key] for key in ("AP", "AP75")]
    return [name, *ap, gain, figures["gap closed"],
            figures["oaks"]["Pearson"], figures["oaks"]["ECE"]]  # fmt: skip


def bound_row(key: str, figures: dict[str, Any], closed: float) -> list[Any]:
    """Return the row of the conventional score or of the oracle."""
    known = figures[key]
    return [key, known["AP"], known["AP75"], None, closed, known.get("Pearson"), known.get("ECE")]


def estimators_table(title: str, rows: list[list[Any]]) -> Table:
    """Return a table of AP, its gain over the conventional score, gap to the oracle, correlation and calibration."""
    columns = (Column("Score", "text"), Column("AP"), Column("AP75"), Column("AP gain", "points"),
               Column("Gap closed %"), Column("Pearson", "number"), Column("ECE", "number"))  # fmt: skip
    return Table("estimators", title, columns, tuple(map(tuple, rows)))


def log_line(
    args: argparse.Namespace, bundle: Bundle, form: str, fitted: int, figures: dict[str, Any]
) -> None:
    """Add a run on the people of --test to the log."""
    if args.log is not None and args.test:
        made_with = {"estimator": bundle.name, "scorer": form, "fitted people": fitted}
        annotations = "/".join(args.test[0][0].parts[-2:])
        script = "frozen_estimators.py"
        add_to_log(args.log, note=args.note, script=script, annotations=annotations, **made_with, **figures)


def parsed() -> argparse.Namespace:
    """Return the checked options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="Bundle of the frozen heatmap network.")
    parser.add_argument(
        "--fit", nargs=2, type=Path, action="append", required=True, metavar=("ANNOTATIONS", "IMAGES")
    )
    parser.add_argument(
        "--test", nargs=2, type=Path, action="append", default=[], metavar=("ANNOTATIONS", "IMAGES")
    )
    parser.add_argument("--store", type=Path, required=True, help="Folder of the stored heatmaps.")
    parser.add_argument("--second", type=Path, help="Bundle whose poses are further features.")
    parser.add_argument("--ks-net", action="store_true", help="Add a KS network; not with --test.")
    parser.add_argument("--shallow", action="store_true", help="With --ks-net: the paper's two convolutions.")
    parser.add_argument(
        "--augment",
        type=int,
        default=0,
        metavar="N",
        help="Add a scorer that is also fitted to N further crops of each person. Default: 0, none.",
    )
    parser.add_argument("--curve", action="store_true", help="Also fit to fewer people.")
    parser.add_argument("--resamples", type=int, default=1000, help="Number of bootstrap resamples.")
    parser.add_argument("--log", type=Path, help="JSON Lines file that gets a line per run.")
    parser.add_argument("--no-log", action="store_true", help="Write no log.")
    parser.add_argument("--note", default="", help="Note for the log.")
    args = parser.parse_args()
    for tested, _ in args.test:
        check_log(tested, args.log, args.no_log)
    if args.ks_net and args.test:
        parser.error("--ks-net compares out of fold, without --test")
    return args


def main() -> None:
    """Fit, measure, print and log."""
    args = parsed()
    of_network = KSNetSettings(network=SHALLOW) if args.shallow else KSNetSettings()
    settings = replace(CHOSEN, folds=of_network.folds) if args.ks_net else CHOSEN
    bundle = Bundle.load(args.bundle)
    people, maps = prepared(bundle, args.fit, args.store / bundle.name / "fit")
    second = Bundle.load(args.second) if args.second else None
    opinion = prepared(second, args.fit, args.store / second.name / "fit")[0] if second else None
    people, forms = features_of(people, maps, opinion)
    judged, measured_forms = people, dict.fromkeys(forms)
    copies = [
        prepared(bundle, args.fit, args.store / bundle.name / "fit", copy)
        for copy in range(1, args.augment + 1)
    ]
    if args.test:
        judged, judged_maps = prepared(bundle, args.test, args.store / bundle.name / "test")
        opinion = prepared(second, args.test, args.store / second.name / "test")[0] if second else None
        judged, measured_forms = features_of(judged, judged_maps, opinion)
    further = {}
    if copies:
        title = f"heatmaps, {number_of(len(copies), 'further crop')}"
        forms[title], measured_forms[title] = forms["heatmaps"], measured_forms["heatmaps"]
        further[title] = copies
    rows, whole, curve = [], None, []
    sizes = (*(SIZES if args.curve and args.test else ()), None)
    for form, features in forms.items():
        examples = examples_of([(people, features), *further.get(form, ())])
        for size in sizes:
            chosen = None if size is None else some(examples, len(features), size, seed=0)
            similarity, visibility = told(examples, chosen, measured_forms[form], settings)
            scored = len(judged.heat)  # out of fold, the further crops come after these
            measured = measured_with(
                judged.truth, judged.detections, similarity[:scored], visibility[:scored]
            )
            comparisons = compared(measured, resamples=args.resamples if size is None else 1, seed=0)
            figures = summary(measured, comparisons)
            count = len(features) if chosen is None else int(chosen[: len(features)].sum())
            log_line(args, bundle, form, count, figures)
            curve.append((form, count, figures["AP gain"], figures["gap closed"], figures["oaks"]["Pearson"]))
            if size is None:
                rows.append(row_of(form, comparisons, figures))
                whole = figures
                print_tables([replace(class_table(comparisons), title=f"{bundle.name}: scorer from {form}")])
    if args.ks_net:
        fit_store = args.store / bundle.name / "fit"
        comparisons, figures = fit_network(bundle, args.fit, fit_store, args.resamples, of_network)
        rows.append(row_of("KS network", comparisons, figures))
        print_tables([replace(class_table(comparisons), title=f"{bundle.name}: KS network")])
    rows = [bound_row("conventional", whole, 0.0), *rows, bound_row("oracle", whole, 1.0)]
    where = ", ".join("/".join(a.parts[-2:]) for a, _ in args.test) or "out of fold"
    print_tables(
        [estimators_table(f"{bundle.name}, {whole['people']} people ({where}), ground-truth boxes", rows)]
    )
    if len(sizes) > 1:
        columns = (Column("Scorer", "text"), Column("Fitted people", "count"), Column("AP gain", "points"),
                   Column("Gap closed %"), Column("Pearson", "number"))  # fmt: skip
        print_tables(
            [Table("curve", f"{bundle.name}: people that a scorer is fitted to", columns, tuple(curve))]
        )


if __name__ == "__main__":
    main()
