"""Fits a scorer to a frozen heatmap network, on features of its heatmaps of annotated people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks import bundle as bundles
from oaks import ops
from oaks.arguments import check_choice, is_integer
from oaks.bundle import Bundle
from oaks.bundle_files import DESCRIPTION
from oaks.errors import ArgumentError
from oaks.fit.boosting import CHOSEN, Settings
from oaks.fit.card import fit_card
from oaks.fit.heatmap_store import Shard, stored_heatmaps
from oaks.fit.networks import PRESETS, Preset, import_network, imported_from
from oaks.fit.paths import Paths, listed, paired_paths
from oaks.fit.people import PERSON, People, in_both, joined_id, load_truth, people_of
from oaks.fit.report import Fitted
from oaks.fit.scored_bundle import write_bundle
from oaks.results_features import map_feature_names, with_opinion
from oaks.scorer import Card
from oaks.skeleton import COCO17, Skeleton
from oaks.val.ground_truth import GroundTruth
from oaks.val.interval import check_resamples

SCORERS = ("trees", "ks-net")
AUGMENT = 2
"""Number of further crops of each person that trees are fitted to, unless the caller says otherwise. On held-out people two
close as much of the gap to the oracle as none, or a little more (docs/calibrate.md)."""
MOST_AUGMENT = 16
SCALE, SIDES, SHIFT = 0.12, 0.06, 0.05
"""Standard deviations of the boxes of further crops: of the logarithm of their size, of the logarithm of each side
beyond that, and of their center in parts of each side."""


def fit_heatmaps(
    model: str | Path | Bundle,
    annotations: Paths,
    images: Paths,
    *,
    store: str | Path,
    out: str | Path | None = None,
    preset: str | Preset | None = None,
    preset_settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    skeleton: Skeleton = COCO17,
    category: str | int | None = None,
    scorer: str = "trees",
    second_opinion: str | None = None,
    augment: int | None = None,
    trained_annotations: Paths = (),
    trained_images: Paths = (),
    settings: Settings = CHOSEN,
    resamples: int = 1000,
    threads: int | None = None,
) -> Fitted:
    """Fit a scorer to a frozen heatmap network on annotated people.

    The network runs over the crop and the mirrored crop of every person with labeled keypoints. Its heatmaps are stored
    as float16 in `store`, from which a stopped run resumes. People in images that are missing, damaged or too large are
    skipped, as are those whose heatmaps are not finite, also those of the second opinion; any other failure ends the
    run.

    Args:
        model: a bundle with a heatmap network, or an ONNX file, from which oaks.fit.import_network makes one in `store`.
        annotations: COCO keypoint annotations, one file or several.
        images: the folder of the images of each annotation file.
        store: folder of the heatmaps; about 0.2 MB for each crop and 64 x 48 maps.
        out: folder of the new bundle, which must not exist; None writes nothing.
        preset: preset of an ONNX file, as for import_network.
        preset_settings: changed fields of the preset, for example {"refine": "dark"}.
        name: name of the new bundle; None: the model's.
        skeleton: the keypoints of an ONNX file, in the order of its maps.
        category: name or id of the category of people; None: as oaks.coco.choose_category.
        scorer: "trees": boosted trees on features of the maps, which are fitted in seconds; "ks-net": a KS network that
            gives visibility too, on the maps themselves.
        second_opinion: name of a shipped bundle whose pose of the same person gives further features; the Engine then
            runs its network too.
        augment: number of further crops of each person that trees are fitted to, in boxes that are shifted and scaled
            at random; None: 2 for trees. The tables are of the annotated boxes alone. A KS network takes none.
        trained_annotations, trained_images: people that the network was trained on, as `annotations` and `images` are
            given. The trees learn from them too; since the network errs less on them than on others, the trees are
            then recalibrated on the people of `annotations`. The tables are of those alone.
        settings: settings of the trees.
        resamples: number of bootstrap resamples.
        threads: CPU threads of the network; None: all cores.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        FileExistsError: `out` exists.
        ArgumentError: the model gives no heatmaps, the skeletons differ, `store` holds maps of another network or of
            other people, or a person to fit to is among those that the network was trained on.
    """
    check_resamples(resamples, settings.seed)
    check_choice("scorer", scorer, SCORERS)
    copies = _checked_augment(augment, scorer)
    if scorer != "trees" and listed(trained_annotations):
        raise ArgumentError(f"trained_annotations must come with scorer 'trees', got {scorer!r}")
    second = None if second_opinion is None else _second_bundle(second_opinion, scorer)
    if out is not None and Path(out).exists():
        raise FileExistsError(f"out must not exist, got {out}")
    if isinstance(model, str | Path) and Path(model).suffix == ".onnx":
        bundle = imported(Path(model), Path(store) / "network", preset, preset_settings or {}, name, skeleton)
    else:
        bundle = model if isinstance(model, Bundle) else Bundle.load(model)
    files, folders = paired_paths(annotations, images)
    known_files, known_folders = paired_paths(trained_annotations, trained_images, "trained_")
    if bundle.pose.kind != "heatmaps":
        raise ArgumentError(
            f"model must give heatmaps, got kind {bundle.pose.kind!r}; fit a scorer to its results instead"
        )
    if scorer == "ks-net":
        from oaks.fit.ks_net import fit_ks_net

        people, maps = averaged_people(bundle, files, folders, Path(store), threads, category)
        fitted = fit_ks_net(people, maps, heatmap_card(bundle), Path(store), resamples=resamples)
    else:
        if known_files:
            truths = (load_truth(paths, bundle.skeleton, category) for paths in (files, known_files))
            _check_apart(*truths)
        first, *more = (
            described_people(bundle, files, folders, Path(store), threads, category, copy, second)
            for copy in range(copies + 1)
        )
        trained = None
        if known_files:
            kept = Path(store) / "trained"
            trained = described_people(
                bundle, known_files, known_folders, kept, threads, category, second=second
            )
        fitted = fit_card(
            *first,
            heatmap_card(bundle, second),
            settings=settings,
            resamples=resamples,
            more=more,
            trained=trained,
        )
    return (
        fitted
        if out is None
        else replace(fitted, path=write_bundle(bundle, fitted, Path(out), name or bundle.name))
    )


def _check_apart(people: GroundTruth, trained: GroundTruth) -> None:
    """Refuse people to fit to who are among those that the network was trained on: by file name and keypoints."""

    def named(truth: GroundTruth) -> set[tuple[str, bytes]]:
        names = [Path(truth.file_names[image]).name for image in truth.image[truth.counted]]
        points = truth.keypoints[truth.counted]
        return {(name, own.tobytes()) for name, own in zip(names, points, strict=True)}

    if both := named(people) & named(trained):
        raise ArgumentError(
            f"trained_annotations must hold none of the people to fit to, got {len(both)} of them, "
            f"for instance in {min(both)[0]}"
        )


def _checked_augment(augment: int | None, scorer: str) -> int:
    """Return the number of further crops of each person.

    Raises:
        ArgumentError: it is negative or no integer, or a KS network would take some.
    """
    if scorer != "trees":
        if augment:
            raise ArgumentError(f"augment must come with scorer 'trees', got {augment} and {scorer!r}")
        return 0
    if augment is None:
        return AUGMENT
    if not is_integer(augment) or not 0 <= augment <= MOST_AUGMENT:
        raise ArgumentError(f"augment must be an integer from 0 to {MOST_AUGMENT}, got {augment!r}")
    return augment


def imported(
    model: Path,
    folder: Path,
    preset: str | Preset | None,
    settings: Mapping[str, Any],
    name: str | None,
    skeleton: Skeleton,
) -> Bundle:
    """Return the bundle of an ONNX file in a folder, which an earlier run may have made.

    Raises:
        ArgumentError: there is no preset, or the folder holds another network or another preset's.
    """
    if preset is None:
        raise ArgumentError(f"preset must be one of {', '.join(PRESETS)} with an ONNX file, got None")
    if not (folder / DESCRIPTION).is_file():
        return import_network(model, folder, preset=preset, name=name, skeleton=skeleton, **settings)
    bundle = Bundle.load(folder)
    stated = imported_from(model, preset, settings)
    if bundle.description["extra"]["imported"] != stated or bundle.skeleton != skeleton:
        raise ArgumentError(
            f"{folder} must hold {model} by preset {stated['preset']!r}, got another network; name another store"
        )
    return bundle


def _second_bundle(name: str, scorer: str) -> Bundle:
    """Return the shipped bundle of a second opinion.

    Raises:
        ArgumentError: there is no such bundle, or the scorer is a KS network, which does not use poses.
    """
    if name not in bundles.shipped():
        raise ArgumentError(f"second_opinion must be a shipped bundle, {bundles.shipped()}, got {name!r}")
    if scorer != "trees":
        raise ArgumentError(f"second_opinion must come with scorer 'trees', got {scorer!r}")
    return Bundle.load(name)


def heatmap_card(bundle: Bundle, second: Bundle | None = None) -> Card:
    """Return the card of a scorer for a bundle's heatmaps and a second bundle's poses; the fit completes it."""
    return Card(
        kind="heatmaps",
        estimator=bundle.name,
        decoder=decoder_in_words(bundle),
        skeleton=bundle.skeleton,
        boxes=True,
        second_opinion=None if second is None else second.name,
        features=map_feature_names(bundle.skeleton.count, second_opinion=second is not None),
    )


def described_people(
    bundle: Bundle,
    annotations: Sequence[str | Path],
    images: Sequence[Path],
    store: Path,
    threads: int | None,
    category: str | int | None = None,
    copy: int = 0,
    second: Bundle | None = None,
) -> tuple[People, np.ndarray]:
    """Return the network's poses of the annotated people, and features (N, K, F) of their heatmaps.

    With `copy` above 0, the crops are made of boxes that are shifted and scaled at random, as oaks.fit.fit_heatmaps
    does to have more crops of each person. With a second network, its poses of the same people in the same boxes are
    features too.
    """
    people, features = _people_with(features_of, bundle, annotations, images, store, threads, category, copy)
    if second is None:
        return people, features
    kept = store / "second-opinion"
    other, _ = described_people(second, annotations, images, kept, threads, category, copy)
    first, same = in_both(people, other)
    people, features = people.only(first), features[first]
    assert people.boxes is not None  # those that the crops were made of
    opinion = other.points[same], other.heat[same]
    return people, with_opinion(people.truth.skeleton, features, people.points, people.boxes, opinion)


def averaged_people(
    bundle: Bundle,
    annotations: Sequence[str | Path],
    images: Sequence[Path],
    store: Path,
    threads: int | None,
    category: str | int | None = None,
) -> tuple[People, np.ndarray]:
    """Return the network's poses of the annotated people, and their flip-averaged heatmaps (N, K, h, w) float16."""
    return _people_with(averaged_maps, bundle, annotations, images, store, threads, category)


Describe = Callable[[Bundle, GroundTruth, Shard], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Function that returns an array with a row per person of a shard, their keypoints (n, K, 2) and heat (n, K)."""


def _people_with(
    describe: Describe,
    bundle: Bundle,
    annotations: Sequence[str | Path],
    images: Sequence[Path],
    store: Path,
    threads: int | None,
    category: str | int | None,
    copy: int = 0,
) -> tuple[People, np.ndarray]:
    skeleton = bundle.skeleton
    rows: list[dict[str, Any]] = []
    found = []
    joined = len(annotations) > 1
    for number, (path, folder) in enumerate(zip(annotations, images, strict=True)):
        truth = GroundTruth.load(path, skeleton=skeleton, category=category)
        kept, note = store / str(number), ""
        if copy:
            truth, kept = shifted_and_scaled(truth, copy), store / f"{number}-augmented-{copy}"
            note = f", further crop {copy}"
        for shard in stored_heatmaps(bundle, truth, folder, kept, threads, joined=joined, note=note):
            if not len(shard.people):
                continue
            described, points, heat = describe(bundle, truth, shard)
            found.append(described)
            rows += _rows(truth, shard.people, points, heat, number if joined else None)
    if not rows:
        raise ArgumentError(
            "images must hold annotated people whose picture can be read and whose heatmaps are finite, got none"
        )
    header = {"estimator": bundle.name, "box_source": "annotated"}
    people = people_of(rows, [header], load_truth(annotations, skeleton, category), bundle.name)
    return people, np.concatenate(found)[people.detections.rows]


def shifted_and_scaled(truth: GroundTruth, copy: int) -> GroundTruth:
    """Return the people with boxes that are shifted and scaled at random, always the same for the same `copy`."""
    random = np.random.default_rng(copy)
    low, sides = truth.boxes[:, :2], truth.boxes[:, 2:]
    center = low + sides / 2 + random.normal(0, SHIFT, sides.shape) * sides
    size = random.normal(0, SCALE, (len(sides), 1)) + random.normal(0, SIDES, sides.shape)
    sides = sides * np.exp(size)
    return replace(truth, boxes=np.concatenate([center - sides / 2, sides], axis=1))


def features_of(
    bundle: Bundle, truth: GroundTruth, shard: Shard
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, K, F), keypoints (n, K, 2) in pixels of the image files, and heat (n, K)."""
    straight, mirrored = (np.ascontiguousarray(shard.maps[:, copy]) for copy in (0, 1))
    decoded = _decoded(bundle, shard, straight, mirrored)
    features = ops.map_features(
        straight,
        mirrored,
        points=decoded.points,
        boxes=truth.file_boxes(shard.people).astype(np.float32),
        frame_sizes=shard.frame_sizes,
        flip_pairs=bundle.skeleton.pairs,
        alignment=bundle.pose.alignment,
    )
    return features, decoded.points, decoded.heat


def averaged_maps(
    bundle: Bundle,
    truth: GroundTruth,  # noqa: ARG001 - as features_of
    shard: Shard,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return flip-averaged heatmaps (n, K, h, w) float16, keypoints (n, K, 2) in pixels of the image files, and heat."""
    straight, mirrored = (np.ascontiguousarray(shard.maps[:, copy], np.float32) for copy in (0, 1))
    decoded = _decoded(bundle, shard, straight, mirrored, average=True)
    return decoded.heatmaps.astype(np.float16), decoded.points, decoded.heat


def _decoded(
    bundle: Bundle, shard: Shard, straight: np.ndarray, mirrored: np.ndarray, *, average: bool = False
) -> Any:
    pose = bundle.pose
    return ops.decode(
        straight,
        mirrored,
        flip_pairs=bundle.skeleton.pairs,
        refine=pose.refine,
        alignment=pose.alignment,
        crop_size=pose.size,
        transforms=shard.transforms,
        blur_sigma=pose.blur_sigma if pose.refine == "dark" else None,
        average=average,
    )


def decoder_in_words(bundle: Bundle) -> str:
    """Return the decoder as a scorer's card states it."""
    pose = bundle.pose
    blur = f", blur {pose.blur_sigma:g}" if pose.refine == "dark" and pose.blur_sigma else ""
    return f"{pose.alignment}, {pose.refine}{blur}, flip"


def _rows(
    truth: GroundTruth, people: np.ndarray, points: np.ndarray, heat: np.ndarray, file: int | None
) -> list[dict[str, Any]]:
    """Return COCO rows of a shard; ids are those of oaks.fit.people.load_truth."""
    number = file or 0
    boxes = truth.file_boxes(people)
    flat = np.concatenate([points, heat[..., None]], axis=2).reshape(len(people), -1).astype(float)
    return [
        {
            "image_id": joined_id(number, int(truth.image_ids[truth.image[g]])),
            "annotation_id": joined_id(number, int(truth.ids[g])),
            "category_id": truth.category_id if file is None else PERSON,
            "keypoints": flat[n].tolist(),
            "score": float(heat[n].mean()),
            "box": [*boxes[n, :2].tolist(), *(boxes[n, 2:] - boxes[n, :2]).tolist()],
        }
        for n, g in enumerate(people)
    ]


__all__ = ["averaged_people", "described_people", "fit_heatmaps", "heatmap_card"]
