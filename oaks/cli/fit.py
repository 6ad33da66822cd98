"""`oaks fit`, `oaks rescore` and `oaks import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import verb
from oaks.errors import ArgumentError


@verb(extra="fit")
def fit(
    output: Output,
    *,
    results: Annotated[
        list[Path] | None, typer.Argument(help="COCO keypoint results of an estimator, one file or several.")
    ] = None,
    annotations: Annotated[
        list[Path], typer.Option(help="COCO keypoint annotations, one file per results file. Repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the scorer; with --network, of the new bundle.")],
    network: Annotated[
        Path | None,
        typer.Option(help="Fit to the heatmaps of a bundle's network (oaks import) instead of results."),
    ] = None,
    images: Annotated[
        list[Path], typer.Option(help="With --network: folder of the images of each annotation file.")
    ] = [],  # noqa: B006
    store: Annotated[
        Path | None, typer.Option(help="With --network: folder for its heatmaps. Default: OUT.heatmaps.")
    ] = None,
    scorer: Annotated[
        str, typer.Option(help="With --network: trees, or ks-net, a network that sees the heatmaps.")
    ] = "trees",
    estimator: Annotated[
        str | None, typer.Option(help="Name of the estimator. Default: as the results' header says.")
    ] = None,
    second: Annotated[
        list[Path], typer.Option(help="Results of a second estimator for the same boxes, row by row.")
    ] = [],  # noqa: B006
    second_opinion: Annotated[
        str | None,
        typer.Option(
            help="With --network: a shipped bundle whose poses the scorer looks at too, as in small."
        ),
    ] = None,
    box_source: options.BoxSource = None,
    category: options.Category = None,
    skeleton: options.Skeleton_ = None,
    threads: options.Threads = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of the images.")] = 1000,
) -> None:
    """Fit a scorer to a frozen pose estimator: from its results alone, or from its heatmaps."""
    from oaks.fit import fit_heatmaps, fit_results

    if bool(results) == (network is not None):
        raise ArgumentError("pass exactly one of results, --network")
    if network is None:
        fitted = fit_results(
            results or [], annotations, out=out, estimator=estimator, skeleton=options.skeleton(skeleton),
            box_source=box_source, category=category, second=second or None, resamples=resamples,
        )  # fmt: skip
    else:
        store = store or out.with_name(f"{out.name}.heatmaps")
        output.kept = f"the heatmaps so far are in {store}; the same command resumes"
        fitted = fit_heatmaps(
            network, annotations, images, store=store, out=out, name=estimator, category=category,
            scorer=scorer, second_opinion=second_opinion, resamples=resamples, threads=threads,
        )  # fmt: skip
    output.tables(fitted.tables)
    output.item({"scorer": fitted.path}, f"scorer: {fitted.path}")


@verb(extra="fit")
def rescore(
    output: Output,
    *,
    scorer: Annotated[Path, typer.Argument(help="File or folder of a scorer (oaks fit).")],
    results: Annotated[Path, typer.Argument(help="COCO keypoint results of its estimator.")],
    out: Annotated[Path, typer.Option(help="Results file to write.")],
    second: Annotated[
        Path | None, typer.Option(help="Results of the second estimator, where the scorer takes one.")
    ] = None,
    estimator: Annotated[
        str | None, typer.Option(help="Name of the estimator. Default: as the results' header says.")
    ] = None,
    category: Annotated[
        int | None,
        typer.Option(help="Category id of people; other rows stay as they are. Default: every row."),
    ] = None,
) -> None:
    """Give the poses of a results file the scores of a scorer; keypoints stay as they are."""
    from oaks.scorer import Scorer
    from oaks.val.rescore import rescore_results

    path = rescore_results(
        Scorer(scorer), results, out, estimator=estimator, second=second, category=category
    )
    output.item({"results": path}, str(path))


@verb(extra="export")
def import_(
    output: Output,
    *,
    network: Annotated[Path, typer.Argument(help="ONNX file of a heatmap network.")],
    preset: Annotated[
        str,
        typer.Option(help="Where it is from: simple-baselines, hrnet, mmpose, mmpose-udp, movenet, ..."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle, which must not exist.")],
    name: Annotated[str | None, typer.Option(help="Name of the bundle. Default: the file's.")] = None,
    license: Annotated[str, typer.Option(help="License of the weights.")] = "unknown",
    skeleton: options.Skeleton_ = None,
) -> None:
    """Make a bundle of another project's ONNX heatmap network."""
    from oaks.fit import import_network

    bundle = import_network(
        network, out, preset=preset, name=name, license=license, skeleton=options.skeleton(skeleton)
    )
    output.item({"bundle": bundle.path}, f"bundle {bundle.name}: {bundle.path}")
