"""`oaks val` and its verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, SKIPPED, verb
from oaks.errors import ArgumentError

if TYPE_CHECKING:
    from oaks.val.ground_truth import GroundTruth
    from oaks.val.report.document import Section

Results = Annotated[list[Path], typer.Argument(help="COCO keypoint results.")]
Report = Annotated[Path, typer.Option(help="Folder for the report.")]
AddTo = Annotated[
    Path | None, typer.Option(help="Folder of a report to add the table to. Default: print it only.")
]


class RunByDefault(TyperGroup):
    """`oaks val BUNDLE ANNOTATIONS` is `oaks val run BUNDLE ANNOTATIONS`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the verb `run` where none was given."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@verb(extra="val")
def run(
    output: Output,
    *,
    bundle: options.BundleArgument,
    annotations: options.AnnotationsArgument,
    images: options.Images = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Detected boxes (COCO box results). Default: those of --detector or of the bundle's detector; without "
            "one, detector-like boxes from the labels."
        ),
    ] = None,
    detector: options.DetectorOptions,
    ground_truth_only: Annotated[
        bool, typer.Option("--ground-truth-only", help="Evaluate with ground-truth boxes only.")
    ] = False,
    engine: options.EngineOptions,
    nms: options.Nms = options.NMS,
    min_box_score: options.MinBoxScore = 0.0,
    evaluation: options.EvaluationOptions,
    skeleton: options.Skeleton_ = None,
    category: options.Category = None,
    out: Report = Path("report"),
) -> None:
    """Run a bundle over a data set, with ground-truth and with detected boxes, and write the whole report."""
    from oaks.val.evaluate import evaluate_bundle, images_folder

    truth = _truth(annotations, skeleton, category, out)
    folder = images_folder(annotations, images)
    settings = evaluation.settings(folder)
    detector.check(boxes)
    if ground_truth_only:
        unused = {"--detector": detector.detector, "--detector-threshold": detector.detector_threshold}
        options.leave_out({"--boxes": boxes, **unused}, "with --ground-truth-only")
    with engine.open(bundle, detector.load(engine, bundle)) as opened:
        output.kept = f"the results so far are in {out}; the same command resumes"
        if not (opened.has_detector or ground_truth_only or boxes):
            output.say(
                "the bundle has no detector: boxes are made from the labels, as a detector might give them"
            )
        report = evaluate_bundle(
            opened, truth, folder, out, boxes=boxes, ground_truth_only=ground_truth_only,
            nms=nms or None, min_box_score=min_box_score, settings=settings,
        )  # fmt: skip
    _finish(output, report, out)


@verb(extra="val")
def detect(
    output: Output,
    *,
    bundle: options.BundleArgument,
    annotations: options.AnnotationsArgument,
    out: Annotated[Path, typer.Option(help="Results file to write.")],
    images: options.Images = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Detected boxes (COCO box results). Default: the annotated ones.")
    ] = None,
    engine: options.EngineOptions,
    nms: options.Nms = options.NMS,
    min_box_score: options.MinBoxScore = 0.0,
    skeleton: options.Skeleton_ = None,
    category: options.Category = None,
) -> None:
    """Run a bundle over a data set and write a COCO results file; the same command resumes a stopped run."""
    from oaks.val.detect import detect as library
    from oaks.val.evaluate import images_folder

    truth = _truth(annotations, skeleton, category)
    folder = images_folder(annotations, images)
    with engine.open(bundle) as opened:
        output.kept = f"the results so far are next to {out}; the same command resumes"
        path = library(opened, truth, folder, out, boxes=boxes, nms=nms or None, min_box_score=min_box_score)
    output.item({"results": path}, str(path))


@verb(extra="val")
def boxes(
    output: Output,
    *,
    annotations: options.AnnotationsArgument,
    out: Annotated[Path, typer.Option(help="COCO box results to write.")],
    images: options.Images = None,
    category: options.Category = None,
    seed: options.Seed = 0,
    jitter: Annotated[
        float, typer.Option(min=0, help="Standard deviation of center and size, relative to the box.")
    ] = 0.05,
    misses: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of missing an easy person.")
    ] = 0.02,
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of finding a person twice.")
    ] = 0.08,
    background: Annotated[float, typer.Option(min=0, help="Mean number of false boxes per image.")] = 0.7,
) -> None:
    """Turn ground truth into detector-like boxes with scores: jittered, missed, duplicated or false."""
    from oaks.val.synthetic_boxes import DetectorLike, write_detector_like

    detector = DetectorLike(jitter, misses, duplicates, background)
    path = write_detector_like(
        annotations, out, seed=seed, detector=detector, images=images, category=category
    )
    output.item({"boxes": path}, str(path))


@verb(extra="val")
def report(
    output: Output,
    *,
    results: Results,
    annotations: options.Annotations,
    images: options.Images = None,
    box_source: options.BoxSource = None,
    evaluation: options.EvaluationOptions,
    skeleton: options.Skeleton_ = None,
    category: options.Category = None,
    out: Report = Path("report"),
) -> None:
    """Evaluate results files, made by oaks or by another program, and write the report."""
    from oaks.val.detections import Detections
    from oaks.val.evaluate import evaluate, images_folder

    truth = _truth(annotations, skeleton, category, out)
    try:
        folder = images_folder(annotations, images)
    except FileNotFoundError:
        if images is not None:
            raise
        folder = None
        output.warn("no folder of images found, so the report has no cases; name it with --images")
    settings = evaluation.settings(folder)
    loaded = [Detections.load(path, truth, box_source=box_source) for path in results]
    _finish(output, evaluate(truth, loaded, settings), out)


@verb(extra="val")
def compare(
    output: Output,
    *,
    results: Annotated[list[Path], typer.Argument(help="Two or more COCO keypoint results.")],
    annotations: options.Annotations,
    box_source: options.BoxSource = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Score to rank by: oaks, conventional, own, oracle, ... Default: each file's best."
        ),
    ] = None,
    resamples: options.Resamples = 1000,
    seed: options.Seed = 0,
    skeleton: options.Skeleton_ = None,
    category: options.Category = None,
    add_to: AddTo = None,
) -> None:
    """Compare results files, with paired bootstrap intervals over images."""
    from oaks.val.evaluate import compare_files, measure

    if len(results) < 2:
        raise ArgumentError(f"results must be two files or more, got {len(results)}")
    measured = measure(_truth(annotations, skeleton, category, add_to), results, box_source)
    section = compare_files(measured, resamples=resamples, seed=seed, score=score)
    _show(output, section, add_to)


@verb(extra="val")
def trainings(
    output: Output,
    *,
    results: Annotated[list[Path], typer.Argument(help="Results of several trainings.")],
    annotations: options.Annotations,
    over: Annotated[
        list[Path],
        typer.Option(
            help="Results of the same trainings under another setting, in their order. Repeatable. Default: the same "
            "results, ranked by --over-score."
        ),
    ] = [],  # noqa: B006
    score: Annotated[
        str, typer.Option(help="Score that the results are ranked by.")
    ] = "oaks_true_visibility",
    over_score: Annotated[
        str, typer.Option(help="Score that the results of --over are ranked by.")
    ] = "heat_true_visibility",
    box_source: options.BoxSource = None,
    skeleton: options.Skeleton_ = None,
    category: options.Category = None,
    add_to: AddTo = None,
) -> None:
    """Compare several trainings under two settings, or two scores, by the paired t-test (table 4)."""
    from oaks.val.evaluate import measure
    from oaks.val.report.comparison import trainings_section

    truth = _truth(annotations, skeleton, category, add_to)
    second = measure(truth, results, box_source)
    first = measure(truth, over, box_source) or second
    _show(output, trainings_section(first, second, over_score, score), add_to)


@verb(extra="val")
def others(
    output: Output,
    *,
    results: Annotated[
        list[Path],
        typer.Argument(
            help="COCO keypoint results of other estimators. Files with the same poses belong to one estimator: its "
            "own first, then those that oaks rescore or a fitted bundle wrote."
        ),
    ],
    annotations: options.Annotations,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle that scores results without visibility and similarity.")
    ] = None,
    images: options.Images = None,
    box_source: options.BoxSource = None,
    engine: options.EngineOptions,
    against: options.Against = None,
    skeleton: options.Skeleton_ = None,
    category: options.Category = None,
    resamples: options.Resamples = 1000,
    seed: options.Seed = 0,
    out: Report = Path("report"),
) -> None:
    """Other estimators under their own score, OAKS and the oracle, by occlusion level (table 9); added to a report."""
    from oaks.val.evaluate import images_folder, measure
    from oaks.val.report.other_estimators import section

    if len({path.stem for path in results}) < len(results):
        raise ArgumentError(f"results must have different file names, got {[path.stem for path in results]}")
    paper = options.beside_paper(against)
    truth, paths = _truth(annotations, skeleton, category, out), list(results)
    if bundle is not None:
        from oaks.val.rescore import rescore

        out.mkdir(parents=True, exist_ok=True)
        output.kept = f"the results so far are in {out}; the same command resumes"
        folder = images_folder(annotations, images)
        with engine.open(bundle) as opened:
            paths = [
                rescore(opened, truth, path, folder, out / f"{path.stem}-oaks.json", box_source=box_source)
                for path in results
            ]
    measured = measure(truth, paths, box_source)
    sources = {path.stem: one for path, one in zip(results, measured, strict=True)}
    _show(output, section(sources, paper, resamples=resamples, seed=seed), out)


@verb(extra="video")
def tracks(
    output: Output,
    *,
    results: Annotated[Path, typer.Argument(help="results.json of oaks track.")],
    annotations: Annotated[
        Path, typer.Argument(help="COCO keypoint annotations of the frames, with track ids.")
    ],
    threshold: Annotated[float, typer.Option(help="Minimum OKS at which a pose matches a person.")] = 0.5,
    fewest: Annotated[
        int, typer.Option(min=1, help="Minimum number of labeled keypoints; people with fewer do not count.")
    ] = 1,
    skeleton: options.Skeleton_ = None,
    category: options.Category = None,
) -> None:
    """Compare tracks with annotated people: MOTA, IDF1, exchanged ids, jitter and lag of keypoints."""
    from oaks.val.tracking import evaluate_tracks

    found = evaluate_tracks(
        results, annotations, skeleton=options.skeleton(skeleton), category=category, threshold=threshold,
        fewest=fewest,
    )  # fmt: skip
    output.item(
        {name: None if value != value else value for name, value in found.figures.items()},
        "\n".join(f"{name.replace('_', ' '):16} {value:.4g}" for name, value in found.figures.items()),
    )


@verb(extra="training")
def ablate(
    output: Output,
    *,
    kind: Annotated[str, typer.Argument(help="backbones (table 5) or trainings (table 4).")],
    recipe: Annotated[str, typer.Argument(help="Recipe of a KS-net: file, or name of a built-in recipe.")],
    annotations: options.Annotations,
    out: Annotated[Path, typer.Option(help="Folder of the trainings.")],
    images: options.Images = None,
    report: Annotated[Path, typer.Option(help="Folder of the report that gets the table.")] = Path("report"),
    pose: Annotated[
        Path | None, typer.Option(help="Pose network to evaluate with. Default: the recipe's first.")
    ] = None,
    data: options.Data = Path(),
    packed: options.Packed = None,
    change: options.Set = [],  # noqa: B006
    backbones: Annotated[
        str | None, typer.Option(help="Comma-separated backbones. Default: the paper's six.")
    ] = None,
    trainings: Annotated[int, typer.Option(min=1, help="Number of trainings, with seeds from 0.")] = 10,
    max_minutes: options.MaxMinutes = None,
    accelerator: options.Accelerator = "auto",
    device: Annotated[str, typer.Option(help="Device to evaluate on: cpu or cuda.")] = "cpu",
    against: options.Against = None,
) -> int:
    """Train variants of KS-net, evaluate them, and add the paper's table of them to a report."""
    from oaks.training.ablations import PAPER_BACKBONES
    from oaks.training.ablations import ablate as library
    from oaks.training.data.sources import DataFolders
    from oaks.training.recipe import read_recipe
    from oaks.training.run import Hardware
    from oaks.val.evaluate import images_folder
    from oaks.val.report.writer import check_report

    check_report(report)
    output.kept = f"the trainings so far are in {out}; the same command resumes"
    section = library(
        kind, read_recipe(recipe, change), annotations, images_folder(annotations, images), out, pose=pose,
        place=DataFolders(data, packed), machine=Hardware(accelerator, max_minutes=max_minutes),
        backbones=PAPER_BACKBONES if backbones is None else backbones.split(","), trainings=trainings,
        device=device, beside_paper=options.beside_paper(against),
    )  # fmt: skip
    if section is None:
        output.warn("stopped before the last training was done; the same command resumes")
        return SKIPPED
    _show(output, section, report)
    return DONE


def _truth(
    annotations: Path, skeleton: Path | None, category: str | None, report: Path | None = None
) -> GroundTruth:
    """Read the annotations. A missing package and a report that cannot be read are refused before the work."""
    from oaks.val import require_packages

    require_packages()
    from oaks.val.ground_truth import GroundTruth
    from oaks.val.report.writer import check_report

    check_report(report)
    return GroundTruth.load(annotations, skeleton=options.skeleton(skeleton), category=category)


def _finish(output: Output, report: Any, out: Path) -> None:
    """Print the ranking and save the report."""
    from oaks.val.evaluate import save_evaluation

    output.tables([item for part in report.sections if part.key == "ranking" for item in part.items])
    output.say(f"{save_evaluation(report, out)} and, beside it, report.json and report.md")


def _show(output: Output, section: Section, report: Path | None) -> None:
    """Print a section's tables, and add it to the report in a folder."""
    output.tables(section.items)
    if report is not None:
        from oaks.val.report.writer import add_sections

        output.say(str(add_sections(report, [section])))


app = typer.Typer(
    cls=RunByDefault,
    no_args_is_help=True,
    help="Evaluate: every table and figure of the paper, and the calibration of the score. "
    "[bold]oaks val BUNDLE ANNOTATIONS[/bold] does it all.",
)
for function in (run, detect, boxes, report, compare, trainings, others, tracks, ablate):
    app.command()(function)
