"""Evaluation of one or several results files, or of a bundle, as one Report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.ops import OKS_THRESHOLD
from oaks.progress import progress
from oaks.val.bootstrap import Comparison, Contender, compare_rankings
from oaks.val.coco_eval import CocoBackend
from oaks.val.detect import detect, detected_jobs
from oaks.val.detections import Detections
from oaks.val.error_analysis import Landing
from oaks.val.find_people import find_people
from oaks.val.ground_truth import GroundTruth
from oaks.val.interval import check_resamples
from oaks.val.report import calibration, cases, occlusion, ranking, visibility
from oaks.val.report.answer import answer
from oaks.val.report.comparison import files_section
from oaks.val.report.document import Report, Section
from oaks.val.report.head import headline_tiles, report_head
from oaks.val.report.writer import DATA, load_report, save_report
from oaks.val.scores import TITLES, ScoredDetections
from oaks.val.synthetic_boxes import write_detector_like

if TYPE_CHECKING:
    from oaks.inference import Engine

SECTIONS = ("ranking", "comparison", "occlusion", "calibration", "visibility", "cases")
"""Sections that an evaluation writes; other commands write the other sections of a report."""


@dataclass(frozen=True)
class Settings:
    """Options of an evaluation.

    Attributes:
        judge: the implementation of average precision for the tables of all scores.
        resamples, seed: number of resamples and random seed of the bootstrap over images.
        landing: position of corrected keypoints in the error analysis.
        beside_paper: whether to show the paper's figures too.
        images: folder of image files, for the cases; None: no cases.
    """

    judge: CocoBackend = "pycocotools"
    resamples: int = 1000
    seed: int = 0
    landing: Landing = "definition"
    beside_paper: bool = False
    images: Path | None = None

    def __post_init__(self) -> None:
        for name, kind in (("judge", CocoBackend), ("landing", Landing)):
            check_choice(name, getattr(self, name), get_args(kind))
        check_resamples(self.resamples, self.seed)


def evaluate(truth: GroundTruth, results: Sequence[Detections], settings: Settings = Settings()) -> Report:
    """Measure one or several results files on the same people.

    Raises:
        ArgumentError: there are no results, or two have the same name.
    """
    names = [detections.name for detections in results]
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"results must be at least one, each with its own name, got {names}")
    report = Report(title=f"{', '.join(names)} on {Path(truth.path).name}")
    sources: dict[str, ScoredDetections] = {}
    rankings: dict[str, tuple[ScoredDetections, ranking.Ranking]] = {}
    gains: dict[str, list[Comparison]] = {}
    sections: list[Section | None] = []
    bootstrap: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    with progress("Evaluating", 5 * len(results) + 3) as advance:
        for detections in results:
            name = detections.name
            measured = sources[name] = ScoredDetections.of(truth, detections)
            advance()
            rankings[name] = (measured, ranking.rank(measured, settings.judge))
            advance(2)
            if {"conventional", "oaks"} <= measured.scores.keys():
                pair = [measured.scores[key] for key in ("conventional", "oaks")]
                contenders = [Contender(score.key, measured, score.ranks) for score in pair]
                gains[name] = compare_rankings(contenders, **bootstrap)
            advance(2)
        paper, landing = settings.beside_paper, settings.landing
        sections.append(ranking.section(rankings, paper))
        if len(sources) > 1 and len({detections.box_source for detections in results}) == 1:
            sections.append(compare_files(list(sources.values()), **bootstrap))
        advance()
        sections.append(occlusion.section(truth, sources, gains, beside_paper=paper, landing=landing))
        advance()
        sections.append(calibration.section(sources, paper))
        sections.append(visibility.section(sources, paper))
        if settings.images is not None:
            sections.append(cases.section(sources[names[0]], settings.images))
        advance()
    for section in filter(None, sections):
        report.put(section.without_name(names[0]) if len(names) == 1 else section)
    report.head = report_head(
        truth, list(sources.values()), judge=settings.judge, landing=landing, **bootstrap
    )
    report.answer = answer(sources, gains)
    report.tiles = headline_tiles(truth, *rankings[names[0]])
    return report


def evaluate_bundle(
    engine: Engine,
    truth: GroundTruth,
    images: str | Path,
    out: str | Path,
    *,
    boxes: str | Path | None = None,
    ground_truth_only: bool = False,
    nms: float | None = OKS_THRESHOLD,
    min_box_score: float = 0.0,
    settings: Settings = Settings(),
) -> Report:
    """Run a bundle over a data set, with ground-truth and with detected boxes, and evaluate what it finds.

    The results files in `out` are kept; a stopped call resumes from them. Images that are missing, damaged or too large
    are skipped (oaks.val.detect.detect): their people count as missed.

    Args:
        engine: runs the bundle.
        truth: the data set.
        images: folder of its images.
        out: folder for the results files; created if it does not exist.
        boxes: COCO box results; None: boxes of the Engine's detector, or, without a detector, detector-like boxes made
            from the ground truth.
        ground_truth_only: skip the run with detected boxes.
        nms: OKS threshold for detected boxes; None keeps all poses.
        min_box_score: minimum score of a detected box.
        settings: options of the evaluation.

    Raises:
        FileNotFoundError: the box file, or every image, is missing.
        ArgumentError: a file in `out` was made with other settings, or an argument is wrong.
    """
    out = Path(out)
    if boxes is not None and not ground_truth_only:
        # Refuse wrong boxes before the run with ground-truth boxes.
        detected_jobs(truth, boxes, min_box_score)
    out.mkdir(parents=True, exist_ok=True)
    made = {"ground-truth boxes": detect(engine, truth, images, out / "ground-truth-boxes.json")}
    if not ground_truth_only:
        own = boxes is None  # a detector that finds nobody is measured; a file is refused before the work
        if boxes is None and engine.has_detector:
            boxes = find_people(engine, truth, images, out / "people-boxes.json")
        elif boxes is None:
            boxes = write_detector_like(
                truth.path, out / "detector-like-boxes.json", seed=settings.seed, images=images,
                skeleton=truth.skeleton, category=truth.category_id,
            )  # fmt: skip
        made["detected boxes"] = detect(
            engine, truth, images, out / "detected-boxes.json", boxes=boxes, nms=nms, min_box_score=min_box_score,
            allow_nobody=own,
        )  # fmt: skip
    results = [Detections.load(path, truth, name=name) for name, path in made.items()]
    report = evaluate(truth, results, settings)
    report.title = f"{engine.bundle.name} on {Path(truth.path).name}"
    return report


def save_evaluation(report: Report, folder: str | Path) -> Path:
    """Save an evaluation, keeping the sections that other commands have added to the report in the folder.

    Returns:
        The path of the page.
    """
    if (Path(folder) / DATA).is_file():
        report.sections += [
            section for section in load_report(folder).sections if section.key not in SECTIONS
        ]
    return save_report(report, folder)


def measure(
    truth: GroundTruth, results: Sequence[str | Path], box_source: str | None = None
) -> list[ScoredDetections]:
    """Read results files and pair their poses with the people.

    Args:
        truth: the people.
        results: COCO keypoint results.
        box_source: "ground truth" or "detected", for files whose header does not state it.
    """
    return [
        ScoredDetections.of(truth, Detections.load(path, truth, box_source=box_source)) for path in results
    ]


def images_folder(annotations: str | Path, images: str | Path | None = None) -> Path:
    """Return the folder of a data set's images: `images`, else the annotations' path without .json, or images/ beside it.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    annotations = Path(annotations)
    beside = [annotations.with_suffix(""), annotations.parent / "images"]
    for folder in beside if images is None else [Path(images)]:
        if folder.is_dir():
            return folder
    tried = images or " or ".join(map(str, beside))
    raise FileNotFoundError(f"folder of images not found: {tried}; name it with --images")


def compare_files(
    sources: Sequence[ScoredDetections], *, resamples: int, seed: int, score: str | None = None
) -> Section:
    """Compare the files with the first, ranked by one score, or each by its best.

    Raises:
        ArgumentError: a file does not have the score.
    """
    chosen = [m.best if score is None else m.ranked_by(score) for m in sources]
    contenders = [Contender(m.name, m, c.ranks) for m, c in zip(sources, chosen, strict=True)]
    found = compare_rankings(contenders, resamples=resamples, seed=seed)
    titles = dict.fromkeys(TITLES[c.key] for c in chosen)
    return files_section([c.name for c in contenders], found, " or ".join(titles))
