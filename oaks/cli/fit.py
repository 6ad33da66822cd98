"""`oaks fit`, `oaks rescore` and `oaks import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import verb
from oaks.errors import ArgumentError

Change = Annotated[
    list[str],
    typer.Option(
        "--set", help="Change a field of the preset: refine=dark, mean=0,0,0, size=192,256. Repeatable."
    ),
]


@verb(extra="fit")
def fit(
    output: Output,
    *,
    source: Annotated[
        list[str],
        typer.Argument(
            help="COCO keypoint results (.json), one file or several; or a heatmap network: an ONNX file or a bundle."
        ),
    ],
    annotations: Annotated[
        list[Path], typer.Option(help="COCO keypoint annotations, one file per results file. Repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the scorer; for a network, of the new bundle.")],
    images: Annotated[
        list[Path], typer.Option(help="For a network: folder of the images of each annotation file.")
    ] = [],  # noqa: B006
    preset: Annotated[
        str | None, typer.Option(help="For an ONNX file: preset of its origin, as for oaks import.")
    ] = None,
    change: Change = [],  # noqa: B006
    store: Annotated[
        Path | None, typer.Option(help="For a network: folder for its heatmaps. Default: OUT.heatmaps.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(help="For a network: trees (default), or ks-net (a network on the heatmaps)."),
    ] = None,
    second_opinion: Annotated[
        str | None,
        typer.Option(
            help="For a network: shipped bundle whose poses the scorer uses too, for instance small."
        ),
    ] = None,
    augment: Annotated[
        int | None,
        typer.Option(
            help="For trees on a network's heatmaps: number of further crops of each person to fit to, in boxes that are "
            "shifted and scaled at random. Default: 2."
        ),
    ] = None,
    trained_annotations: Annotated[
        list[Path],
        typer.Option(
            help="For trees on a network's heatmaps: COCO annotations of people that the network was trained on. The "
            "trees learn from them too, and are calibrated on the others. Repeatable."
        ),
    ] = [],  # noqa: B006
    trained_images: Annotated[
        list[Path], typer.Option(help="Image folder of each --trained-annotations file. Repeatable.")
    ] = [],  # noqa: B006
    second: Annotated[
        list[Path],
        typer.Option(help="For results: those of a second estimator for the same boxes, row by row."),
    ] = [],  # noqa: B006
    reference: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="For results: results and annotations of people outside the estimator's training set. Warns if the "
            "people to fit to seem to be in that set."
        ),
    ] = None,
    estimator: options.Estimator = None,
    decoder: Annotated[
        str | None, typer.Option(help="For results: the estimator's decoder. Default: as the header says.")
    ] = None,
    box_source: options.BoxSource = None,
    category: options.Category = None,
    skeleton: options.Skeleton_ = None,
    threads: options.Threads = None,
    resamples: options.Resamples = 1000,
    seed: options.Seed = 0,
) -> None:
    """Fit a scorer to a frozen pose estimator: to its results, or to the heatmaps of its network."""
    from oaks.fit import Settings, fit_heatmaps, fit_results
    from oaks.fit.networks import read_settings

    # On a busy machine the threads that grow trees wait for each other.
    settings = Settings(threads=threads or 1, seed=seed)
    for_networks = {
        "--images": images, "--preset": preset, "--set": change, "--store": store, "--scorer": scorer,
        "--second-opinion": second_opinion, "--augment": augment,
        "--trained-annotations": trained_annotations, "--trained-images": trained_images,
    }  # fmt: skip
    for_results = {
        "--second": second, "--reference": reference, "--decoder": decoder, "--box-source": box_source,
    }  # fmt: skip
    if all(path.endswith(".json") for path in source):
        options.leave_out(for_networks, "for results files")
        fitted = fit_results(
            source, annotations, out=out, estimator=estimator, decoder=decoder, settings=settings,
            skeleton=options.skeleton(skeleton), box_source=box_source, category=category, second=second or None,
            reference=reference, resamples=resamples,
        )  # fmt: skip
    elif len(source) == 1:
        options.leave_out(for_results, "for a network")
        store = store or out.with_name(f"{out.name}.heatmaps")
        output.kept = f"the heatmaps so far are in {store}; the same command resumes"
        fitted = fit_heatmaps(
            source[0], annotations, images, store=store, out=out, preset=preset,
            preset_settings=read_settings(change), name=estimator, category=category,
            skeleton=options.skeleton(skeleton), scorer=scorer or "trees", settings=settings,
            second_opinion=second_opinion, augment=augment, trained_annotations=trained_annotations,
            trained_images=trained_images, resamples=resamples, threads=threads,
        )  # fmt: skip
    else:
        raise ArgumentError(f"source must be results files (.json), or one network, got {source}")
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
    estimator: options.Estimator = None,
    decoder: Annotated[
        str | None, typer.Option(help="The estimator's decoder. Default: as the results' header says.")
    ] = None,
    category: Annotated[
        int | None,
        typer.Option(help="Category id of people; other rows stay unchanged. Default: every row."),
    ] = None,
) -> None:
    """Rescore the poses of a results file with a scorer; keypoints stay unchanged."""
    from oaks.scorer import Scorer
    from oaks.val.rescore import rescore_results

    path = rescore_results(
        Scorer(scorer), results, out, estimator=estimator, decoder=decoder, second=second, category=category
    )
    output.item({"results": path}, str(path))


@verb(extra="export")
def import_(
    output: Output,
    *,
    network: Annotated[Path, typer.Argument(help="ONNX file of a heatmap network.")],
    preset: Annotated[
        str,
        typer.Option(
            help="Preset of its origin: simple-baselines, hrnet, mmpose, mmpose-udp, vitpose, rtmpose or movenet."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle, which must not exist.")],
    change: Change = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="Name of the bundle. Default: the file's.")] = None,
    license: Annotated[str, typer.Option(help="License of the weights.")] = "unknown",
    skeleton: options.Skeleton_ = None,
) -> None:
    """Make a bundle of another project's ONNX heatmap network."""
    from oaks.fit import import_network
    from oaks.fit.networks import read_settings

    bundle = import_network(
        network, out, preset=preset, name=name, license=license, skeleton=options.skeleton(skeleton),
        **read_settings(change),
    )  # fmt: skip
    output.item({"bundle": bundle.path}, f"bundle {bundle.name}: {bundle.path}")
