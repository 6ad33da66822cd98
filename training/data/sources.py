"""Opens the sources of a recipe and splits them into training and validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from oaks.errors import ArgumentError
from oaks.names import number_of
from oaks.skeleton import Skeleton
from oaks.training.data.people import ImageSource, People, digest_of, fold_of, read_coco
from oaks.training.data.sampling import sample_readable
from oaks.training.data.shards import Packing, read_shards
from oaks.training.recipe import (
    AnySource,
    CocoSource,
    Data,
    Folds,
    PeopleSource,
    RenderedSource,
    ShardSource,
)

Samples = TypeVar("Samples", bound=Any)


class DataFolders(NamedTuple):
    """Folders of a recipe's sources.

    Attributes:
        data: folder that the recipe's paths are relative to.
        packed: folder of packed sources; a source that it contains is read from there.
        rendered: folder of `stored` rendered sources.
    """

    data: Path = Path()
    packed: Path | None = None
    rendered: Path | None = None


@dataclass
class Split(Generic[Samples]):
    """The sources of training and validation, with the relative frequency of each training source."""

    train: list[Samples] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    validation: list[Samples] = field(default_factory=list)

    def add(self, source: PeopleSource, samples: Samples, trained: np.ndarray, held_out: np.ndarray) -> None:
        """Add the samples of a recipe's training source; `trained` and `held_out` are indices."""
        if len(trained):
            self.train.append(samples.subset(trained))
            self.weights.append(source.weight if source.weight is not None else len(trained))
        if source.hold_out and len(held_out):
            self.validation.append(samples.subset(held_out))

    def check_not_empty(self) -> None:
        """Raise ArgumentError if no training samples are left."""
        if not self.train:
            raise ArgumentError("data must have samples to train on outside the held-out fold, got none")


class PeopleSplit(Split[People]):
    """The people of training and validation."""

    def digest(self) -> str:
        """Return a digest of who they are. It does not depend on how they are stored."""
        parts: list[np.ndarray | str] = []
        for people in (*self.train, *self.validation):
            parts += [people.name, people.image_ids, people.person_ids]
        return digest_of(*parts)


def existing(folder: Path, *paths: Path) -> list[Path]:
    """Return the paths within a folder.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    for path in paths:
        if not (folder / path).exists():
            raise FileNotFoundError(
                f"data not found: {folder / path}; pass the folder that contains {path} as --data"
            )
    return [folder / path for path in paths]


def open_source(
    source: AnySource, skeleton: Skeleton, place: DataFolders, required: Packing | None = None
) -> People:
    """Return the people of one source.

    Args:
        source: a recipe's source.
        skeleton: skeleton of the people.
        place: folders of the sources.
        required: the least sufficient packing, for a packed source.

    Raises:
        ArgumentError: the source is empty, has another skeleton, is packed for less than required, or none of its images
            can be read; the message names the file.
        FileNotFoundError: a file is missing.
    """
    people = _open(source, skeleton, place, required)
    if source.limit is not None:
        people = people.subset(np.arange(min(source.limit, len(people))))
    _, person, _ = sample_readable(people, 0, np.random.default_rng(0))
    if len(person.keypoints) != skeleton.count:
        raise ArgumentError(
            f"{source.name} must have the {skeleton.count} keypoints of skeleton {skeleton.name!r}, "
            f"got {len(person.keypoints)}"
        )
    return people


def _open(source: AnySource, skeleton: Skeleton, place: DataFolders, required: Packing | None) -> People:
    if place.packed is not None and not place.packed.is_dir():
        raise FileNotFoundError(f"packed people not found: {place.packed}; pass their folder as --packed")
    if place.packed is not None and (place.packed / source.name / "index.json").is_file():
        return read_shards(place.packed / source.name, source.name, required)
    if isinstance(source, ShardSource):
        return read_shards(place.data / source.folder, source.name, required)
    if isinstance(source, RenderedSource):
        from oaks.training.data.rendered import open_rendered

        return open_rendered(source, skeleton, place.rendered)
    return _open_coco(source, skeleton, place)


def _open_coco(source: CocoSource, skeleton: Skeleton, place: DataFolders) -> People:
    optional = [source.boxes] if source.boxes else []
    annotations, images, *boxes = existing(place.data, source.annotations, source.images, *optional)
    return read_coco(
        source.name,
        annotations,
        images,
        skeleton,
        boxes=boxes[0] if boxes else None,
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
) -> PeopleSplit:
    """Open all people that a recipe trains and validates on.

    Args:
        data: the recipe's data.
        skeleton: skeleton of the people.
        place: folders of the sources.
        tell: called with one line per source, which says how much was skipped and why.
        required: the least sufficient packing, for packed sources.

    Raises:
        ArgumentError: a person is both trained and validated on, there is nobody to train on, or none of the images of a
            source's part can be read.
    """
    split = PeopleSplit()
    for source in data.train:
        people = open_source(source, skeleton, place, required)
        trained, held_out = split_folds(people, data.folds)
        tell(describe_source(people, "trained on", len(trained)))
        split.add(source, people, trained, held_out)
    for source in data.validation:
        people = open_source(source, skeleton, place, required)
        tell(describe_source(people, "validated on", len(people)))
        split.validation.append(people)
    split.check_not_empty()
    check_disjoint(split.train, split.validation)
    for people in (*split.train, *split.validation):  # now rather than in the middle of the training
        sample_readable(people, 0, np.random.default_rng(0))
    return split


def split_folds(samples: ImageSource[Any], folds: Folds | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the samples to train on, and of those in the held-out fold."""
    everything = np.arange(len(samples))
    if folds is None:
        return everything, everything[:0]
    fold = fold_of(samples.name, samples.image_ids, folds.count)
    held = fold == folds.held_out
    return everything[~held if folds.trained is None else np.isin(fold, folds.trained)], everything[held]


def check_disjoint(train: Sequence[People], validation: Sequence[People]) -> None:
    """Raise ArgumentError if a person is in both `train` and `validation`."""
    seen = {(people.name, int(person)) for people in train for person in people.person_ids}
    both = [(people.name, int(person)) for people in validation for person in people.person_ids
            if (people.name, int(person)) in seen]  # fmt: skip
    if both:
        raise ArgumentError(
            f"data: {number_of(len(both), 'person is', 'people are')} trained and validated on, "
            f"for instance {both[:3]}"
        )


def describe_source(people: People, use: str, used: int) -> str:
    """Return one line about a source: how many of its people are used, and how many were skipped."""
    skipped = "; ".join(f"{count} {reason}" for reason, count in people.skipped.items())
    return f"{people.name}: {used} of {len(people)} people {use}" + (f" ({skipped})" if skipped else "")


__all__ = [
    "DataFolders",
    "PeopleSplit",
    "Split",
    "check_disjoint",
    "describe_source",
    "existing",
    "open_data",
    "open_source",
    "split_folds",
]
