"""From the sources that a recipe names to people: which of them are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oaks.errors import ArgumentError
from oaks.names import number_of
from oaks.skeleton import Skeleton
from oaks.training.data.people import People, digest_of, fold_of, read_coco
from oaks.training.data.sampling import sample_readable
from oaks.training.data.shards import Packing, read_shards
from oaks.training.recipe import AnySource, CocoSource, Data, Folds, RenderedSource, ShardSource


class DataFolders(NamedTuple):
    """Where a recipe's sources are found.

    Attributes:
        data: folder that relative paths in the recipe begin at.
        packed: folder of packed sources: where it has one of a source's name, that is read instead.
        rendered: folder in which `stored` rendered sources are kept.
    """

    data: Path = Path()
    packed: Path | None = None
    rendered: Path | None = None


class Split(NamedTuple):
    """People by what they are for, with how often each source is drawn from."""

    train: list[People]
    weights: list[float]
    validation: list[People]

    def digest(self) -> str:
        """Of who is trained and validated on, however they are stored."""
        parts: list[np.ndarray | str] = []
        for people in (*self.train, *self.validation):
            parts += [people.name, people.image_ids, people.person_ids]
        return digest_of(*parts)


def open_source(
    source: AnySource, skeleton: Skeleton, place: DataFolders, required: Packing | None = None
) -> People:
    """The people of one source.

    Args:
        source: the recipe's.
        skeleton: of the people.
        place: where to find them.
        required: the least packing that is enough, for a packed source.

    Raises:
        ArgumentError: the source is empty, of another skeleton or packed for less than is required, or nobody in it can
            be read; the message names the file.
        FileNotFoundError: there is no such file.
    """
    people = _open(source, skeleton, place, required)
    if source.limit is not None:
        people = people.subset(np.arange(min(source.limit, len(people))))
    _, person, _ = sample_readable(people, 0, np.random.default_rng(0))
    if len(person.keypoints) != skeleton.count:
        raise ArgumentError(
            f"{source.name} must have {skeleton.count} keypoints, as {skeleton.name!r} has, "
            f"got {len(person.keypoints)}"
        )
    return people


def _open(source: AnySource, skeleton: Skeleton, place: DataFolders, required: Packing | None) -> People:
    if place.packed is not None and not place.packed.is_dir():
        raise FileNotFoundError(f"packed people not found: {place.packed}; name their folder with --packed")
    if place.packed is not None and (place.packed / source.name / "index.json").is_file():
        return read_shards(place.packed / source.name, source.name, required)
    if isinstance(source, ShardSource):
        return read_shards(place.data / source.folder, source.name, required)
    if isinstance(source, RenderedSource):
        from oaks.training.data.rendered import open_rendered

        return open_rendered(source, skeleton, place.rendered)
    return _open_coco(source, skeleton, place)


def _open_coco(source: CocoSource, skeleton: Skeleton, place: DataFolders) -> People:
    for path in (source.annotations, source.images, *([source.boxes] if source.boxes else [])):
        if not (place.data / path).exists():
            raise FileNotFoundError(
                f"data not found: {place.data / path}; name the folder that {path} lies in with --data"
            )
    return read_coco(
        source.name,
        place.data / source.annotations,
        place.data / source.images,
        skeleton,
        boxes=place.data / source.boxes if source.boxes else None,
        never_labeled=source.never_labeled,
        trust_absence=source.trust_absence,
        min_keypoints=source.min_keypoints,
        category=source.category,
    )


def open_data(
    data: Data,
    skeleton: Skeleton,
    place: DataFolders,
    tell: Callable[[str], object] = str,
    required: Packing | None = None,
) -> Split:
    """All people that a recipe trains and validates on.

    Args:
        data: the recipe's.
        skeleton: of the people.
        place: where to find them.
        tell: is given one line on each source, with what was left out of it.
        required: the least packing that is enough, for packed sources.

    Raises:
        ArgumentError: people are both trained and validated on, or there is nobody to train on or nobody in a
            source's part who can be read.
    """
    train, weights, validation = [], [], []
    for source in data.train:
        people = open_source(source, skeleton, place, required)
        kept, held = split_folds(people, data.folds)
        tell(describe_source(people, "trained on", len(kept)))
        if len(kept):
            train.append(people.subset(kept))
            weights.append(source.weight if source.weight is not None else len(kept))
        if source.hold_out and len(held):
            validation.append(people.subset(held))
    for source in data.validation:
        people = open_source(source, skeleton, place, required)
        tell(describe_source(people, "validated on", len(people)))
        validation.append(people)
    if not train:
        raise ArgumentError("data: the held-out fold leaves nobody to train on")
    check_disjoint(train, validation)
    for people in (*train, *validation):  # now, and not in the middle of the training
        sample_readable(people, 0, np.random.default_rng(0))
    return Split(train, weights, validation)


def split_folds(people: People, folds: Folds | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the people that are trained on, and of those in the held-out fold."""
    everyone = np.arange(len(people))
    if folds is None:
        return everyone, everyone[:0]
    of = fold_of(people.name, people.image_ids, folds.count)
    held = of == folds.held_out
    return everyone[~held if folds.trained is None else np.isin(of, folds.trained)], everyone[held]


def check_disjoint(train: Sequence[People], validation: Sequence[People]) -> None:
    """Raises a ValueError if a person of `train` is also in `validation`."""
    seen = {(people.name, int(person)) for people in train for person in people.person_ids}
    both = [(people.name, int(person)) for people in validation for person in people.person_ids
            if (people.name, int(person)) in seen]  # fmt: skip
    if both:
        raise ArgumentError(
            f"data: {number_of(len(both), 'person is', 'people are')} trained and validated on, "
            f"for instance {both[:3]}"
        )


def describe_source(people: People, use: str, used: int) -> str:
    """One line on a source."""
    left_out = "; ".join(f"{count} {reason}" for reason, count in people.skipped.items())
    return f"{people.name}: {used} of {len(people)} people {use}" + (f" ({left_out})" if left_out else "")


__all__ = [
    "DataFolders",
    "Split",
    "check_disjoint",
    "describe_source",
    "open_data",
    "open_source",
    "split_folds",
]
