"""Fine-tuning: continue to train a bundle's pose network on your own people, refit its scorer, write a new bundle.

from oaks.finetune import finetune
done = finetune("small", "my.json", "images", out="mine")
done.print()                                     # AP before and after, on people of images held out
engine = oaks.Engine("mine")
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks import bundle as bundles
from oaks import limits, ops
from oaks.arguments import is_number
from oaks.bundle import Bundle
from oaks.bundle_files import DESCRIPTION
from oaks.coco import AREA_OF_BOX, IMAGE_FIELDS, PERSON, estimated_areas, read_annotations
from oaks.errors import ArgumentError
from oaks.files import replacing_folder, write_json
from oaks.fit.boosting import CHOSEN
from oaks.fit.card import fit_card
from oaks.fit.heatmaps import described_people, heatmap_card
from oaks.fit.paths import Paths, paired_paths
from oaks.fit.people import People, in_both
from oaks.fit.report import Fitted, measured_with
from oaks.fit.scored_bundle import scored_description, write_forests
from oaks.ops import Forest
from oaks.progress import plain_console
from oaks.scorer import Scorer, load_forests
from oaks.skeleton import COCO17, Skeleton
from oaks.skipping import skip
from oaks.structured import read_json
from oaks.val.bootstrap import Comparison, Contender, compare_rankings
from oaks.val.detect import ReadableImages
from oaks.val.ground_truth import GroundTruth
from oaks.val.interval import check_resamples
from oaks.val.report.document import Cell, Column, Table
from oaks.val.scores import TITLES, ScoredDetections

if TYPE_CHECKING:
    from rich.console import Console

    from oaks.training.recipe import PoseRecipe

log = logging.getLogger("oaks")

FEWEST = 20
"""Minimum number of people with labeled keypoints."""
FOLDS = CHOSEN.folds
"""Minimum number of held-out images: one for each fold of the scorer."""
LARGEST_SHARE = 0.8
DRAWS, FEWEST_EPOCHS, MOST_EPOCHS = 2000, 4.0, 25.0
"""Samples drawn if `epochs` is not given, and bounds on the resulting epochs."""
HALF_TOLERANCE = 0.05
"""Largest typical difference of the half-stored network from torch's. It is wider than that of `oaks export`, because
the faint heatmaps of a few people may decide it, and because AP after fine-tuning is measured with the half-stored
network."""
SHOWN = ("AP", "AP50", "AP75", "AR")
_READ = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "keypoints", "num_keypoints")
"""Fields of annotations that the two parts keep, beside IMAGE_FIELDS; others may hold NaN, which is not written."""
FROZEN = {"mobile_oa_hpe": ["backbone.stem.*", "backbone.blocks.0.*", "backbone.blocks.1.*"]}
"""Frozen parameters by architecture: the first layers, which see edges and colors, need no adaptation."""


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of a fine-tuning. The defaults suit a hundred to a few thousand people.

    Attributes:
        held_out: share of the people that only measure and fit the scorer; whole images, above 0 and at most 0.8.
        epochs: mean number of draws of each person; None: enough for 2,000 samples, between 4 and 25.
        learning_rate: its maximum; warm-up, then cosine decay.
        batch: people per step.
        seed: random seed of the split, the order of people and their augmentation.
        resamples: bootstrap resamples of the images, for the intervals.
    """

    held_out: float = 0.25
    epochs: float | None = None
    learning_rate: float = 2e-4
    batch: int = 16
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        if not is_number(self.held_out) or not 0 < self.held_out <= LARGEST_SHARE:
            raise ArgumentError(f"held_out must be above 0 and at most {LARGEST_SHARE}, got {self.held_out}")
        for name in ("epochs", "learning_rate", "batch"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value > 0):
                raise ArgumentError(f"{name} must be above 0, got {value!r}")
        limits.check("batch", "batch", self.batch)
        check_resamples(self.resamples, self.seed)


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuned bundle, and its evaluation on people in held-out images.

    Attributes:
        path: folder of the new bundle.
        before: the held-out people's poses by the bundle that was fine-tuned.
        after: those by the new one; similarity and visibility come from scorers fitted to other held-out images.
        comparisons: both, by the conventional and the OAKS score, with bootstrap intervals over images.
        warnings: possible problems with the people, as sentences.
    """

    path: Path
    before: ScoredDetections
    after: ScoredDetections
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]

    @property
    def tables(self) -> list[Table]:
        """Average precision before and after, with intervals and gains."""
        return [before_and_after(contenders(self.before, self.after), self.comparisons)]

    def print(self) -> None:
        """Print the tables to the terminal."""
        from oaks.val.report.writer import print_tables

        print_tables(self.tables)


@dataclass(frozen=True)
class Source:
    """One annotation file, split by image.

    Attributes:
        name: what cards call it.
        images: folder of its images.
        train, held_out: COCO files of the two parts.
    """

    name: str
    images: Path
    train: Path
    held_out: Path


def finetune(
    model: str | Path | Bundle,
    annotations: Paths,
    images: Paths,
    *,
    out: str | Path,
    settings: FinetuneSettings | None = None,
    category: str | int | None = None,
    accelerator: str = "auto",
    threads: int | None = None,
    max_minutes: float | None = None,
    console: Console | None = None,
) -> Finetuned | None:
    """Continue to train a bundle's pose network on annotated people, refit its scorer, and write a new bundle.

    The images are split: most people are trained on; the rest measure AP before and after, and the scorer is fitted to
    them. Checkpoints and heatmaps are kept in a folder beside the new bundle, whose name is that of `out` with
    ".finetune" after it; the same call resumes a stopped run. Images that are missing, damaged or too large are
    skipped.

    Args:
        model: a bundle with torch weights: a shipped one's name, or one that `oaks export` wrote.
        annotations: COCO keypoint annotations with the bundle's keypoints, one file or several.
        images: the folder of the images of each annotation file.
        out: folder of the new bundle, which must not exist; its name becomes the bundle's.
        settings: of the training; None: the defaults.
        category: name or id of the category of people; None as oaks.coco.choose_category says.
        accelerator: "auto", "cpu" or "gpu".
        threads: CPU threads; None: the defaults of torch and ONNX Runtime.
        max_minutes: stop with a checkpoint after so many minutes of training.
        console: where the progress is shown; None: standard error.

    Returns:
        The new bundle and its figures, or None if the time ran out.

    Raises:
        FileNotFoundError: a file, a folder or every image is missing.
        FileExistsError: `out` exists.
        ArgumentError: the bundle has no weights to start from, there are too few people or images, or the folder
            beside `out` holds another fine-tuning.
        BackendUnavailable: LightGBM is not installed.
    """
    settings, console = settings or FinetuneSettings(), console or plain_console()
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"out must not exist, got {out}; pass another folder")
    bundle = model if isinstance(model, Bundle) else Bundle.load(model)
    _check_model(bundle)
    files, folders = paired_paths(annotations, images)
    work = out.with_name(f"{out.name}.finetune")
    sources = _begin(work, bundle, files, folders, settings, category)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    network = _train(bundle, sources, work, settings, accelerator, max_minutes, console)
    if network is None:
        return None
    tuned = _export(network, sources, work, out.name)
    (old, old_features), (new, features) = _held_out_people(bundle, tuned, sources, work, threads)
    # Trees that use a second network's poses cannot be kept: those features are not computed here.
    forests = [] if bundle.second_opinion() is not None else load_forests(bundle)
    before = _scored(old, *(ops.forest(old_features, forest) for forest in forests))
    fitted = _refitted(tuned, new, features, forests, settings.resamples)
    after = _scored(new) if fitted is None else fitted.measured
    rows = contenders(before, after)
    comparisons = tuple(compare_rankings(rows, resamples=settings.resamples, seed=settings.seed))
    problems = _problems(new, fitted, rows, comparisons, work)
    for problem in problems:
        log.warning("%s", problem)
    path = _write(bundle, tuned, fitted, out, comparisons, rows)
    return Finetuned(path, before, after, comparisons, (*(fitted.warnings if fitted else ()), *problems))


def _check_model(bundle: Bundle) -> None:
    if not bundle.has_weights("pose"):
        raise ArgumentError(
            f"model must have torch weights of a pose network, got bundle {bundle.name!r} ({bundle.path}); `oaks export` "
            "writes them, other projects' networks cannot be fine-tuned"
        )
    pose = bundle.pose
    if pose.kind != "heatmaps" or pose.alignment != "half_pixel" or pose.color != "rgb":
        raise ArgumentError(
            "model must give heatmaps of alignment 'half_pixel' for RGB crops, "
            f"got kind {pose.kind!r}, alignment {pose.alignment!r} and color {pose.color!r}"
        )
    if "heatmap_sigma" not in bundle.description["networks"]["pose"]:
        raise ArgumentError(
            f"model must state heatmap_sigma, got bundle {bundle.name!r} without it; write the sigma of the heatmaps that "
            "its network was trained on into networks.pose of bundle.json"
        )


def _begin(
    work: Path,
    bundle: Bundle,
    files: Sequence[Path],
    folders: Sequence[Path],
    settings: FinetuneSettings,
    category: str | int | None,
) -> list[Source]:
    """Split the people, or check that the existing split was made with the same arguments."""
    stated = {
        "model": bundle.sha256,
        "annotations": [_digest(path) for path in files],
        "category": category,
        **asdict(settings),
    }
    del stated["resamples"]  # it does not affect the training
    record = work / "finetune.json"
    if record.is_file():
        found = read_json(record, top=dict)
        if changed := [key for key in stated if found.get(key) != stated[key]]:
            raise ArgumentError(
                f"{work} must hold this fine-tuning, got one with another {changed[0]}; delete it or name another folder"
            )
        for name, reason in found.get("skipped", {}).items():
            skip(name, reason)
        return _sources(work, files, folders)
    truths = [_truth(path, bundle.skeleton, category) for path in files]
    readable = [
        ReadableImages(truth, folder, np.unique(truth.image[truth.counted]).tolist(), joined=len(files) > 1)
        for truth, folder in zip(truths, folders, strict=True)
    ]
    contents = split_people(truths, settings, [list(images.files) for images in readable])
    sources = _sources(work, files, folders)
    for source, (train, held_out) in zip(sources, contents, strict=True):
        source.train.parent.mkdir(parents=True, exist_ok=True)
        source.held_out.parent.mkdir(parents=True, exist_ok=True)
        write_json(source.train, train)
        write_json(source.held_out, held_out)
    skipped = {name: reason for images in readable for name, reason in images.skipped.items()}
    write_json(record, {**stated, "skipped": skipped} if skipped else stated)
    return sources


def _truth(path: Path, skeleton: Skeleton, category: str | int | None) -> GroundTruth:
    """Return the people of a file; missing areas are estimated from the boxes."""
    found = read_annotations(path, skeleton=skeleton, category=category)
    unknown = np.isnan(found.areas)
    if count := int(unknown.sum()):
        log.warning(
            "%s: annotations without area: %d; %g times the area of the box is used", path, count, AREA_OF_BOX
        )
    areas = np.where(unknown, estimated_areas(found.boxes[:, 2:]), found.areas)
    return GroundTruth.from_annotations(replace(found, areas=areas), skeleton)


def _digest(path: Path) -> str:
    return hashlib.sha256(json.dumps(read_json(path, top=dict, strict=False)).encode()).hexdigest()


def _sources(work: Path, files: Sequence[Path], folders: Sequence[Path]) -> list[Source]:
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem) or "people" for path in files]
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names)]
    return [
        Source(name, folder.resolve(), work / "train" / f"{name}.json", work / "held_out" / f"{name}.json")
        for name, folder in zip(names, folders, strict=True)
    ]


def split_people(
    truths: Sequence[GroundTruth], settings: FinetuneSettings, readable: Sequence[Sequence[int]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the content of each annotation file in two parts: people to train on, and people held out.

    Images are held out in a random order until they hold the share of the people that is to be held out. `readable` are
    the indices of the images of each file that can be read; the others are in neither part.

    Raises:
        ArgumentError: there are too few people or images.
    """
    labeled = [
        truth.image_ids[truth.image[truth.counted & np.isin(truth.image, images)]]
        for truth, images in zip(truths, readable, strict=True)
    ]
    people = sum(map(len, labeled))
    if people < FEWEST:
        raise ArgumentError(
            f"annotations must hold at least {FEWEST} people with labeled keypoints, got {people}"
        )
    places = [(number, image) for number, ids in enumerate(labeled) for image in np.unique(ids).tolist()]
    if len(places) < 2 * FOLDS:
        raise ArgumentError(
            f"annotations must hold people in at least {2 * FOLDS} images, of which {FOLDS} are held out, "
            f"got {len(places)}"
        )
    order = np.random.default_rng(settings.seed).permutation(len(places))
    counts = [
        dict(zip(*(a.tolist() for a in np.unique(ids, return_counts=True)), strict=True)) for ids in labeled
    ]
    held: list[set[int]] = [set() for _ in truths]
    count = 0
    for rank, place in enumerate(order.tolist()):
        if rank >= len(places) - FOLDS or (rank >= FOLDS and count >= settings.held_out * people):
            break
        number, image = places[place]
        held[number].add(image)
        count += counts[number][image]
    return [
        _parts(truth, set(truth.image_ids[list(images)].tolist()), ids)
        for truth, images, ids in zip(truths, readable, held, strict=True)
    ]


def _parts(truth: GroundTruth, readable: set[int], held: set[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of a file for the people of the `readable` images outside `held`, and for those within."""
    content = read_json(truth.path, top=dict, strict=False)
    images = [
        {field: image[field] for field in IMAGE_FIELDS if field in image}
        for image in content["images"] if int(image["id"]) in readable
    ]  # fmt: skip
    people = [
        _needed(a) for a in content["annotations"]
        if int(a.get("category_id", truth.category_id)) == truth.category_id and int(a["image_id"]) in readable
    ]  # fmt: skip
    own: dict[str, Any] = next(
        (c for c in content.get("categories", []) if int(c["id"]) == truth.category_id), {}
    )
    # The parts are read without the caller's choice of a category.
    skeleton: dict[str, Any] = {field: own[field] for field in ("keypoints", "skeleton") if field in own}
    categories = [{**skeleton, "id": truth.category_id, "name": PERSON}]

    def part(of_held: bool) -> dict[str, Any]:
        return {
            "categories": categories,
            "images": [image for image in images if (int(image["id"]) in held) == of_held],
            "annotations": [a for a in people if (int(a["image_id"]) in held) == of_held],
        }

    return part(False), part(True)


def _needed(annotation: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an annotation that are read, with an area if it has a box."""
    kept = {field: annotation[field] for field in _READ if field in annotation}
    if kept.get("area") is None and kept.get("bbox"):
        kept["area"] = float(estimated_areas(np.array(kept["bbox"][2:])))
    return kept


def _with_people(sources: Sequence[Source], part: str) -> list[tuple[Source, int]]:
    """Return the sources with people in a part, and their numbers of annotations."""
    counts = [
        len(read_json(getattr(source, part), top=dict, strict=False)["annotations"]) for source in sources
    ]
    return [(source, count) for source, count in zip(sources, counts, strict=True) if count]


def _train(
    bundle: Bundle,
    sources: Sequence[Source],
    work: Path,
    settings: FinetuneSettings,
    accelerator: str,
    max_minutes: float | None,
    console: Console,
) -> Path | None:
    """Train or resume; return the file of the trained network, or None if the time ran out."""
    from oaks.training.checkpoint import load_from_bundle, save_network
    from oaks.training.run import Hardware, resume, train
    from oaks.training.run_folder import RunFolder

    folder, machine = RunFolder(work / "run"), Hardware(accelerator, 1, max_minutes=max_minutes)
    if folder.settings.exists():
        return resume(folder.path, machine, console=console)
    network, description = load_from_bundle(bundle.torch_network("pose"))
    initial = work / "initial.safetensors"
    save_network(initial, network, description)
    return train(finetuning_recipe(bundle, description, sources, initial, settings), folder.path, None, machine,
                 console=console)  # fmt: skip


def finetuning_recipe(
    bundle: Bundle,
    description: Mapping[str, Any],
    sources: Sequence[Source],
    initial: Path,
    settings: FinetuneSettings,
) -> PoseRecipe:
    """Return the recipe of the training (oaks.training.recipe).

    Args:
        bundle: holds the network to be trained.
        description: of that network, as load_from_bundle gives it.
        sources: the people.
        initial: file of the network's weights.
        settings: of the training.
    """
    from oaks.training.recipe import PoseRecipe

    pose, skeleton = bundle.pose, bundle.skeleton
    network = {k: v for k, v in description["architecture"].items() if k not in ("keypoints", "input")}
    logits = network["name"] == "mobile_oa_hpe"
    kept = _with_people(sources, "train")
    count = sum(number for _, number in kept)
    named = COCO17.name
    if skeleton != COCO17:
        named = str(initial.with_name("skeleton.json").resolve())
        write_json(named, skeleton.to_dict())
    return PoseRecipe.model_validate({
        "kind": "pose", "title": f"{bundle.name}, fine-tuned", "license": bundle.license, "skeleton": named,
        "network": network, "input": pose.size, "padding": pose.padding, "mean": pose.mean, "std": pose.std,
        "heatmap_sigma": description["heatmap_sigma"], "refine": pose.refine,
        "heatmap_loss": "cross_entropy" if logits else "squared", "visibility_weight": 8 if logits else 1,
        "initial": {"path": str(initial.resolve()), "freeze": FROZEN.get(network["name"], [])},
        "data": {"train": [
            {"kind": "coco", "name": source.name, "annotations": str(source.train.resolve()),
             "images": str(source.images)} for source, _ in kept
        ]},
        "augmentation": {
            "rotation": 30, "rotation_probability": 0.4, "scale": [0.75, 1.25], "shift": 0.05,
            "flip": 0.5 if skeleton.pairs else 0, "half_body": 0.1, "occluders": 0.2, "color": 0.5, "gray": 0.05,
            "blur": 0.1, "noise": 0.05,
        },
        "training": {
            "epochs": settings.epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, DRAWS / count)),
            "batch": settings.batch, "optimizer": "adamw", "learning_rate": settings.learning_rate,
            "weight_decay": 0.02, "schedule": {"kind": "cosine", "warmup_steps": 10}, "average": 0.99,
            "clip_gradient": 5.0, "seed": settings.seed,
        },
    })  # fmt: skip


def _export(network: Path, sources: Sequence[Source], work: Path, name: str) -> Bundle:
    """Export the trained network as a bundle without a scorer, compared with torch on crops of held-out people."""
    from oaks.engines.export.export import COMPARED, export
    from oaks.training.checkpoint import read_description

    folder = work / "network"
    if (folder / DESCRIPTION).is_file():
        return Bundle.load(folder)
    crops = _crops(_with_people(sources, "held_out")[0][0], read_description(network), COMPARED)
    return export(
        network, out=folder, precisions=("fp16",), crops=crops, name=name, tolerance={"fp16": HALF_TOLERANCE}
    )


def _crops(source: Source, description: Mapping[str, Any], count: int) -> np.ndarray:
    """Crops (n, H, W, 3) uint8 of up to `count` held-out people."""
    from oaks.skeleton import Skeleton
    from oaks.training.data.people import DamagedImage, read_coco

    skeleton = Skeleton.from_dict(description["skeleton"])
    people = read_coco(source.name, source.held_out, source.images, skeleton)
    crops: list[np.ndarray] = []
    for index in range(len(people)):
        if len(crops) == count:
            break
        try:
            image, person = people.sample(index)
        except DamagedImage as error:
            skip(people.files[index], error)
            continue
        crop = ops.crop(
            image, person.box[None], size=tuple(description["input"]["size"]), padding=description["padding"],
            mean=(0, 0, 0), std=(1, 1, 1), color="rgb",
        )  # fmt: skip
        crops.append(crop.pixels[0].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8))
    if not crops:
        raise ArgumentError(
            f"images must hold held-out people that can be read, got {source.images} without any"
        )
    return np.stack(crops)


def _held_out_people(
    bundle: Bundle, tuned: Bundle, sources: Sequence[Source], work: Path, threads: int | None
) -> tuple[tuple[People, np.ndarray], tuple[People, np.ndarray]]:
    """Return poses of the same held-out people, and features of their heatmaps, by the old and by the new bundle."""
    held = [source for source, _ in _with_people(sources, "held_out")]
    files, folders = [source.held_out for source in held], [source.images for source in held]
    old, old_features = described_people(bundle, files, folders, work / "heatmaps" / "before", threads)
    new, features = described_people(tuned, files, folders, work / "heatmaps" / "after", threads)
    first, same = in_both(old, new)
    return (old.only(first), old_features[first]), (new.only(same), features[same])


def _image_count(people: People) -> int:
    return len(np.unique(people.images[people.known]))


def _refitted(
    tuned: Bundle, people: People, features: np.ndarray, forests: Sequence[Forest], resamples: int
) -> Fitted | None:
    """Fit a scorer to held-out people, from the old bundle's forests if it has some; None if the people are too few."""
    if _image_count(people) < FOLDS or not (forests or people.known.sum() >= features.shape[2]):
        return None
    start = (forests[0], forests[1]) if forests else None
    return fit_card(people, features, heatmap_card(tuned), settings=CHOSEN, resamples=resamples, start=start)


def _problems(
    people: People,
    fitted: Fitted | None,
    rows: Sequence[Contender],
    comparisons: Sequence[Comparison],
    work: Path,
) -> list[str]:
    """Return sentences about too few held-out people, and about an AP that fell."""
    found = []
    if (images := _image_count(people)) < FOLDS:
        found.append(
            f"only {images} of the held-out images could be read, and a scorer needs {FOLDS}: the bundle gives the "
            "conventional score, and AP before and after says little; replace the skipped images, delete the folder "
            f"{work} and fine-tune again"
        )
    elif fitted is None:
        found.append(
            f"{int(people.known.sum())} held-out people are too few to fit a scorer to; the bundle gives the "
            "conventional score"
        )
    conventional_after = next(n for n, row in enumerate(rows) if row.measured is not rows[0].measured)
    gain = {c.figure: c for c in comparisons}["AP"].differences[conventional_after - 1]
    if gain.high < 0:
        found.append(f"AP fell on the held-out people, by {-100 * gain.value:.1f} points")
    return found


def _scored(people: People, *predictions: np.ndarray) -> ScoredDetections:
    """Score the poses against the ground truth, with predicted similarity and visibility if available."""
    if predictions:
        return measured_with(people.truth, people.detections, *predictions)
    return ScoredDetections.of(people.truth, people.detections)


def contenders(before: ScoredDetections, after: ScoredDetections) -> list[Contender]:
    """Both bundles' poses ranked by each available score; those before fine-tuning come first."""
    found = []
    for when, measured in (("before", before), ("after", after)):
        for key in ("conventional", "oaks"):
            if key in measured.scores:
                title = f"{when}: {TITLES[key]}"
                found.append(Contender(title, measured, measured.scores[key].ranks))
    return found


def before_and_after(rows: Sequence[Contender], comparisons: Sequence[Comparison]) -> Table:
    """AP, AP50, AP75 and AR by each bundle's scores, and the gain in AP over the first."""
    found = {comparison.figure: comparison for comparison in comparisons}
    lines: list[tuple[Cell, ...]] = []
    for number, row in enumerate(rows):
        values = [found[figure].values[number] for figure in SHOWN]
        gain = found["AP"].differences[number - 1] if number else None
        lines.append((row.name, *values, gain))
    people = int((rows[0].measured.detections.own >= 0).sum())
    return Table(
        "finetune",
        f"{people} held-out people, ground-truth boxes",
        (Column("Score", "text"), *(Column(figure) for figure in SHOWN), Column("AP gain", "points")),
        tuple(lines),
        "Per cent with 95 % intervals, bootstrap over images. The gain is over the first row.",
        (1,),
    )


def _write(
    bundle: Bundle,
    tuned: Bundle,
    fitted: Fitted | None,
    out: Path,
    comparisons: Sequence[Comparison],
    rows: Sequence[Contender],
) -> Path:
    """Write the new bundle atomically: the trained network, its scorer, and the old bundle's detector."""
    content = dict(tuned.description) if fitted is None else scored_description(tuned, fitted, out.name)
    content = {key: value for key, value in content.items() if key not in ("format", "files")}
    content["networks"] = dict(content["networks"])
    if "sources" in bundle.description:
        content["sources"] = bundle.description["sources"]
    if bundle.has("detector"):
        content["networks"]["detector"] = bundle.description["networks"]["detector"]
    found = {comparison.figure: comparison for comparison in comparisons}
    content["extra"] = {
        **content.get("extra", {}),
        "finetuned": {
            "from": {"name": bundle.name, "sha256": bundle.sha256},
            "held-out people": int((rows[0].measured.detections.own >= 0).sum()),
            **{
                row.name: {f: round(found[f].values[n].value, 4) for f in SHOWN} for n, row in enumerate(rows)
            },
        },
    }
    with replacing_folder(out) as staged:
        for role, part in content["networks"].items():
            holder = tuned if role == "pose" else bundle
            for file in part.get("files", {}).values():
                (staged / file).write_bytes(holder.read(file))
        if fitted is not None:
            assert isinstance(fitted.scorer, Scorer)
            write_forests(staged, fitted.scorer)
        bundles.write(staged, content)
        Bundle.load(staged)
    return out


__all__ = ["FinetuneSettings", "Finetuned", "finetune"]
