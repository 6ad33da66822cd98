"""What `oaks val` and its verbs do with their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oaks.errors import BackendUnavailable

if TYPE_CHECKING:
    from oaks.skeleton import Skeleton
    from oaks.val.evaluate import Settings
    from oaks.val.report.document import Report


class RunByDefault(typer.core.TyperGroup):
    """`oaks val BUNDLE ANNOTATIONS` is `oaks val run BUNDLE ANNOTATIONS`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the verb in front where none was given."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault,
    no_args_is_help=True,
    help="Evaluate: every table and figure of the paper, and what the score is worth. "
    "[bold]oaks val BUNDLE ANNOTATIONS[/bold] does it all.",
)

Annotations = Annotated[Path, typer.Argument(help="COCO keypoint annotations.")]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of the images; the annotations' name without .json if there is one."),
]
BoxSource = Annotated[str, typer.Option(help="'ground truth' or 'detected', for files without a header.")]
Against = Annotated[str, typer.Option(help="'paper' prints the paper's figures beside these.")]
Resamples = Annotated[int, typer.Option(min=1, help="Resamples of the images for the intervals.")]
Seed = Annotated[int, typer.Option(help="Of all chance.")]
Landing = Annotated[
    str, typer.Option(help="Where the error analysis puts corrected keypoints: definition or released.")
]
JudgedBy = Annotated[str, typer.Option("--judge", help="pycocotools or faster-coco-eval.")]
SkeletonFile = Annotated[
    Path | None, typer.Option("--skeleton", help="JSON of another skeleton than COCO-17.")
]
Out = Annotated[Path, typer.Option(help="Folder for the report.")]
Backend = Annotated[str, typer.Option(help="auto, tensorrt, torch, openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; left to the backend if not given.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads for the networks; all cores if not given.")]
Flip = Annotated[bool, typer.Option(help="Average with the mirrored crop, as the paper does.")]
Refine = Annotated[
    str | None, typer.Option(help="Decoder: second_peak, gradient, dark or none; the bundle's.")
]
Nms = Annotated[float, typer.Option(help="OKS above which the worse of two poses goes; 0: none.")]
MinBoxScore = Annotated[float, typer.Option(help="Leave out detected boxes with a lower score.")]


@app.command()
def run(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, zip or name.")],
    annotations: Annotations,
    images: Images = None,
    out: Out = Path("report"),
    boxes: Annotated[
        Path | None,
        typer.Option(help="Detected boxes (COCO box results); detector-like ones if left out."),
    ] = None,
    ground_truth_only: Annotated[bool, typer.Option(help="Leave the detected boxes out.")] = False,
    backend: Backend = "auto",
    precision: Precision = "auto",
    device: Device = None,
    threads: Threads = None,
    flip: Flip = True,
    refine: Refine = None,
    nms: Nms = 0.9,
    min_box_score: MinBoxScore = 0.0,
    against: Against = "",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    landing: Landing = "definition",
    judge: JudgedBy = "pycocotools",
    skeleton: SkeletonFile = None,
) -> None:
    """Run a bundle over a data set, with ground-truth and with detected boxes, and write the whole report."""
    require_packages()
    from oaks.inference import Engine
    from oaks.val.detect import detect as run_over
    from oaks.val.detections import Detections
    from oaks.val.evaluate import evaluate
    from oaks.val.ground_truth import Truth

    truth = Truth.load(annotations, skeleton=_skeleton(skeleton))
    folder = _images(images, annotations)
    settings = _settings(against, resamples, seed, landing, judge, folder)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with Engine(
        bundle, backend, flip, precision=precision, device=device, threads=threads, refine=refine
    ) as engine:
        made.append(run_over(engine, truth, folder, out / "ground-truth-boxes.json"))
        if not ground_truth_only:
            if boxes is None:
                boxes = _make_boxes(annotations, out / "detector-like-boxes.json", seed)
            chosen = {"boxes": boxes, "nms": nms or None, "min_box_score": min_box_score}
            made.append(run_over(engine, truth, folder, out / "detected-boxes.json", **chosen))
    names = ("ground-truth boxes", "detected boxes")
    results = [Detections.load(path, truth, name=name) for path, name in zip(made, names, strict=False)]
    report = evaluate(truth, results, settings)
    report.title = f"{engine.bundle.name} on {annotations.name}"
    _finish(report, out)


@app.command()
def detect(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, zip or name.")],
    annotations: Annotations,
    out: Annotated[Path, typer.Option(help="Results file to write.")],
    images: Images = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Detected boxes (COCO box results); the annotated ones if not given.")
    ] = None,
    backend: Backend = "auto",
    precision: Precision = "auto",
    device: Device = None,
    threads: Threads = None,
    flip: Flip = True,
    refine: Refine = None,
    nms: Nms = 0.9,
    min_box_score: MinBoxScore = 0.0,
    skeleton: SkeletonFile = None,
) -> None:
    """Run a bundle over a data set and write a COCO results file; the same command resumes a stopped run."""
    from oaks.inference import Engine
    from oaks.val.detect import detect as run_over
    from oaks.val.ground_truth import Truth

    truth = Truth.load(annotations, skeleton=_skeleton(skeleton))
    with Engine(
        bundle, backend, flip, precision=precision, device=device, threads=threads, refine=refine
    ) as engine:
        folder = _images(images, annotations)
        run_over(engine, truth, folder, out, boxes=boxes, nms=nms or None, min_box_score=min_box_score)
    typer.echo(out)


@app.command()
def boxes(
    annotations: Annotations,
    out: Annotated[Path, typer.Option(help="COCO box results to write.")],
    seed: Seed = 0,
    jitter: Annotated[float, typer.Option(min=0, help="Of centre and size, relative to the box.")] = 0.05,
    misses: Annotated[float, typer.Option(min=0, max=1, help="Chance to miss an easy person.")] = 0.02,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Chance to find one twice.")] = 0.08,
    background: Annotated[float, typer.Option(min=0, help="Boxes per image where nobody is.")] = 0.7,
) -> None:
    """Turn ground truth into detector-like boxes: jittered, missed, repeated or made up, with scores."""
    from oaks.val.synthetic_boxes import DetectorLike

    typer.echo(_make_boxes(annotations, out, seed, DetectorLike(jitter, misses, duplicates, background)))


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="COCO keypoint results, one file or several.")],
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations.")],
    images: Images = None,
    out: Out = Path("report"),
    box_source: BoxSource = "",
    against: Against = "",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    landing: Landing = "definition",
    judge: JudgedBy = "pycocotools",
    skeleton: SkeletonFile = None,
) -> None:
    """Evaluate results files made by oaks or by anyone else, and write the report."""
    require_packages()
    from oaks.val.detections import Detections
    from oaks.val.evaluate import evaluate
    from oaks.val.ground_truth import Truth

    truth = Truth.load(annotations, skeleton=_skeleton(skeleton))
    loaded = [Detections.load(path, truth, box_source=box_source or None) for path in results]
    settings = _settings(against, resamples, seed, landing, judge, _images(images, annotations, wanted=False))
    _finish(evaluate(truth, loaded, settings), out)


@app.command()
def compare(
    results: Annotated[list[Path], typer.Argument(help="Two or more COCO keypoint results.")],
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations.")],
    box_source: BoxSource = "",
    score: Annotated[
        str, typer.Option(help="What to rank by: oaks, conventional, own, oracle, ...; the best each has.")
    ] = "",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    add_to: Annotated[Path | None, typer.Option(help="Folder of a report to add the table to.")] = None,
    skeleton: SkeletonFile = None,
) -> None:
    """Results side by side, with paired bootstrap intervals over images."""
    require_packages()
    from oaks.val.detections import Detections
    from oaks.val.evaluate import side_by_side
    from oaks.val.ground_truth import Truth
    from oaks.val.report.writer import add, print_tables
    from oaks.val.scores import Measured

    if len(results) < 2:
        raise ValueError(f"results: two files or more wanted, got {len(results)}")
    truth = Truth.load(annotations, skeleton=_skeleton(skeleton))
    sources = [
        Measured.of(truth, Detections.load(path, truth, box_source=box_source or None)) for path in results
    ]
    section = side_by_side(sources, resamples=resamples, seed=seed, score=score or None)
    print_tables(section.items)
    if add_to is not None:
        typer.echo(add(add_to, [section]))


@app.command()
def trainings(
    results: Annotated[list[Path], typer.Argument(help="Results of several trainings.")],
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations.")],
    over: Annotated[
        list[Path] | None,
        typer.Option(help="Results of the same trainings under another setting, once each, in their order."),
    ] = None,
    score: Annotated[str, typer.Option(help="What the results are ranked by.")] = "oaks_true_visibility",
    over_score: Annotated[str, typer.Option(help="What the others are.")] = "heat_true_visibility",
    box_source: BoxSource = "",
    add_to: Annotated[Path | None, typer.Option(help="Folder of a report to add the table to.")] = None,
    skeleton: SkeletonFile = None,
) -> None:
    """Several trainings under two settings, or two scores, with the paired t-test (table 4)."""
    require_packages()
    from oaks.val.detections import Detections
    from oaks.val.ground_truth import Truth
    from oaks.val.report.comparison import trainings_table
    from oaks.val.report.document import Section
    from oaks.val.report.writer import add, print_tables
    from oaks.val.scores import Measured

    truth = Truth.load(annotations, skeleton=_skeleton(skeleton))
    second = [Measured.of(truth, Detections.load(p, truth, box_source=box_source or None)) for p in results]
    first = [Measured.of(truth, Detections.load(p, truth, box_source=box_source or None)) for p in over or ()]
    table = trainings_table(
        [(measured, over_score) for measured in first or second],
        [(measured, score) for measured in second],
    )
    print_tables([table])
    if add_to is not None:
        text = f"{', '.join(path.stem for path in results)} on {annotations.name}."
        typer.echo(add(add_to, [Section("trainings", "Several trainings", text, (table,))]))


@app.command()
def others(
    results: Annotated[list[Path], typer.Argument(help="Other estimators' COCO keypoint results.")],
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations.")],
    bundle: Annotated[
        str, typer.Option(help="Bundle that scores results without visibility and similarity.")
    ] = "",
    images: Images = None,
    out: Out = Path("report"),
    box_source: BoxSource = "",
    backend: Backend = "auto",
    precision: Precision = "auto",
    device: Device = None,
    threads: Threads = None,
    flip: Flip = True,
    against: Against = "",
    skeleton: SkeletonFile = None,
) -> None:
    """Other estimators' poses under their own score and under OAKS (table 9), added to a report."""
    require_packages()
    from oaks.val.detections import Detections
    from oaks.val.ground_truth import Truth
    from oaks.val.report.other_estimators import section
    from oaks.val.report.writer import add, print_tables
    from oaks.val.scores import Measured

    truth = Truth.load(annotations, skeleton=_skeleton(skeleton))
    paths = list(results)
    if bundle:
        from oaks.inference import Engine
        from oaks.val.rescore import rescore

        out.mkdir(parents=True, exist_ok=True)
        folder = _images(images, annotations)
        with Engine(bundle, backend, flip, precision=precision, device=device, threads=threads) as engine:
            paths = [
                rescore(
                    engine, truth, path, folder, out / f"{path.stem}-oaks.json", box_source=box_source or None
                )
                for path in results
            ]
    sources = {
        path.stem: Measured.of(truth, Detections.load(scored, truth, box_source=box_source or None))
        for path, scored in zip(results, paths, strict=True)
    }
    _check("against", against, ("", "paper"))
    made = section(sources, against == "paper")
    print_tables(made.items)
    typer.echo(add(out, [made]))


def require_packages() -> None:
    """Raises BackendUnavailable if a package that evaluation needs is not installed."""
    import importlib.util

    missing = [
        name
        for name in ("pycocotools", "scipy", "matplotlib", "jinja2")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise BackendUnavailable(f"oaks val needs {', '.join(missing)}: pip install 'oaks[val]'")


def _skeleton(path: Path | None) -> Skeleton:
    from oaks.skeleton import COCO17, Skeleton

    return COCO17 if path is None else Skeleton.from_json(path)


def _images(images: Path | None, annotations: Path, *, wanted: bool = True) -> Path:
    """The folder that was named, or lies beside the annotations under their name, or is called images."""
    beside = [annotations.with_suffix(""), annotations.parent / "images"]
    for folder in [images] if images is not None else beside:
        if folder is not None and folder.is_dir():
            return folder
    if images is not None or wanted:
        tried = images or " and ".join(map(str, beside))
        raise FileNotFoundError(f"images: there is no folder {tried}; name it by --images")
    return beside[0]


def _settings(against: str, resamples: int, seed: int, landing: str, judge: str, images: Path) -> Settings:
    from oaks.val.evaluate import Settings

    _check("against", against, ("", "paper"))
    _check("landing", landing, ("definition", "released"))
    _check("judge", judge, ("pycocotools", "faster-coco-eval"))
    return Settings(
        judge=judge,  # type: ignore[arg-type]
        resamples=resamples,
        seed=seed,
        landing=landing,  # type: ignore[arg-type]
        beside_paper=against == "paper",
        images=images if images.is_dir() else None,
    )


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: one of {', '.join(filter(None, choices))} wanted, got {value!r}")


def _make_boxes(annotations: Path, out: Path, seed: int, detector: Any = None) -> Path:
    import json

    from oaks.files import write_json
    from oaks.val.synthetic_boxes import detector_like

    content = json.loads(annotations.read_text(encoding="utf-8"))
    write_json(out, detector_like(content, seed=seed, detector=detector))
    return out


def _finish(report: Report, out: Path) -> None:
    """Prints the ranking and saves the report, with the sections that other commands have added to it."""
    from oaks.val.evaluate import SECTIONS
    from oaks.val.report.writer import DATA, load, print_tables, save

    if (out / DATA).is_file():
        report.sections += [section for section in load(out).sections if section.key not in SECTIONS]
    print_tables(item for section in report.sections if section.key == "ranking" for item in section.items)
    typer.echo(f"{save(report, out)} and, beside it, report.json and report.md")
