"""Packed people: crops with a margin for augmentation, many per file, so that training reads little.

A shard is a safetensors file with concatenated JPEGs, the byte where each ends, the labels in pixel indices of the stored
crops, and the transforms to the original images. A folder of shards is one source of people.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from oaks.errors import ArgumentError
from oaks.files import replacing, write_json
from oaks.structured import read_json, require
from oaks.training.checkpoint import may_be_damage
from oaks.training.data.geometry import window_of
from oaks.training.data.people import DamagedImage, Person, digest_of
from oaks.training.recipe import Augmentation

FORMAT = 1
SHARD_BYTES = 28_000_000
JPEG_QUALITY = 92
COLUMNS: dict[str, tuple[str, type[np.generic]]] = {
    "keypoints": ("keypoints", np.float32), "boxes": ("box", np.float32), "areas": ("area", np.float32),
    "annotatable": ("annotatable", np.uint8), "image_ids": ("image_id", np.int64), "person_ids": ("person_id", np.int64),
    "to_image": ("to_image", np.float32),
}  # fmt: skip
"""Tensor of a shard -> field of Person, and stored type."""


class Packing(NamedTuple):
    """Settings of packed people, or the least that a training requires.

    Attributes:
        size: (width, height) of the crops that networks see.
        padding: size of these crops relative to the box.
        detail, reach: as in `stored_crop`.
    """

    size: tuple[int, int]
    padding: float
    detail: float
    reach: float

    def __str__(self) -> str:
        width, height = self.size
        return (f"crops of {width}×{height} with padding {self.padding:g}, detail {self.detail:.3g} "
                f"and reach {self.reach:.3g}")  # fmt: skip

    def serves(self, required: Packing) -> bool:
        """Whether people packed like this have at least the extent and the detail of `required`.

        The windows of crops with another aspect ratio differ; the worst case of all boxes is used. A margin that is one
        crop pixel too small at the strongest augmentation is accepted.
        """
        (width, height), (w, h) = self.size, required.size
        aspects = (w / h) / (width / height)  # how much wider the other window is for tall boxes
        detail = self.detail * width / w * required.padding / self.padding * min(1, aspects)
        reach = self.reach * self.padding / required.padding / max(1, aspects)
        reach *= math.hypot(1, height / width) / math.hypot(1, h / w)
        return detail > required.detail - 1e-6 and reach > required.reach - 2 / math.hypot(w, h)


def required_packing(
    settings: Augmentation, size: tuple[int, int], padding: float, detail: float = 1.0
) -> Packing:
    """Return the least packing that contains all crops, unchanged or augmented with `settings`."""
    turn = np.deg2rad(np.linspace(0, min(settings.rotation, 90), 91))
    reach = 0.0
    for along, across in (size, size[::-1]):  # half of the rotated and shifted window, per axis
        rotated = (along * np.cos(turn) + across * np.sin(turn)).max()
        reach = max(reach, along, settings.scale[1] * rotated + 2 * settings.shift * along)
    return Packing(size, padding, detail, float(reach / np.hypot(*size)))


@dataclass
class ShardPeople:
    """People read from a folder of shards; made by `read_shards`."""

    name: str
    bytes: list[np.ndarray]  # per shard, uint8
    places: np.ndarray  # (P, 3) int64: shard, first byte, end
    columns: dict[str, np.ndarray]
    skipped: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def image_ids(self) -> np.ndarray:
        """(P,) int64."""
        return self.columns["image_ids"]

    @property
    def person_ids(self) -> np.ndarray:
        """(P,) int64."""
        return self.columns["person_ids"]

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Person]:  # noqa: ARG002
        """Return the stored crop and the person at `index`.

        Raises:
            DamagedImage: the stored crop cannot be decoded.
        """
        shard, begin, end = self.places[index]
        image = cv2.imdecode(self.bytes[shard][begin:end], cv2.IMREAD_COLOR)
        row: dict[str, Any] = {name: self.columns[column][index] for column, (name, _) in COLUMNS.items()}
        if image is None:
            raise DamagedImage(f"{self.name}: shard {shard}, person {row['person_id']}: cannot be decoded")
        return image, Person(**{name: value if value.ndim else value.item() for name, value in row.items()})

    def subset(self, rows: np.ndarray) -> ShardPeople:
        """Return the source reduced to `rows`."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, places=self.places[rows], columns=columns)

    def digest(self) -> str:
        """Return the digest of the labels and of the JPEGs' positions, which differ between almost all packings."""
        return digest_of("packed", self.places, *(self.columns[name] for name in COLUMNS))


def stored_crop(
    image: np.ndarray, person: Person, *, size: tuple[int, int], padding: float, detail: float, reach: float
) -> tuple[np.ndarray, Person]:
    """Return the part of an image that augmented crops of a person can show, at most at the required resolution.

    Args:
        image: (H, W, 3) uint8.
        person: in pixel indices of `image`.
        size: (width, height) of the crops that networks will see.
        padding: size of these crops relative to the box.
        detail: stored pixels per pixel of such a crop; the image is never enlarged.
        reach: size of the stored region relative to the padded box rotated by any angle; the margin is for scale and
            shift.

    Returns:
        The stored region, and the person in its pixel indices.
    """
    center, extent = window_of(person.box, size, padding)
    half = np.full(2, np.hypot(*extent) / 2 * reach)
    rows, columns = image.shape[:2]
    low = np.clip(np.floor(center - half), 0, (columns - 1, rows - 1)).astype(int)
    high = np.clip(np.ceil(center + half), low + 1, (columns, rows)).astype(int)
    region = image[low[1] : high[1], low[0] : high[0]]
    factor = min(1.0, max(detail * size[0] / extent[0], 1 / min(region.shape[:2])))
    if factor < 1:  # by factor, not by size: rounding the size would change the aspect ratio
        region = cv2.resize(region, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    step = 1 / factor  # image pixels per stored pixel
    keypoints = person.keypoints.copy()
    keypoints[:, :2] = (keypoints[:, :2] - low + 0.5) / step - 0.5
    keypoints[keypoints[:, 2] == 0] = 0
    box = (person.box.reshape(2, 2) - low) / step
    shift = low + 0.5 * step - 0.5  # image = step · stored + shift
    scale, offset = person.to_image[:2], person.to_image[2:]
    to_image = np.concatenate([scale * step, scale * shift + offset])
    return region, person._replace(
        keypoints=keypoints.astype(np.float32),
        box=box.reshape(4).astype(np.float32),
        area=person.area / step**2,
        to_image=to_image.astype(np.float32),
    )


def write_shards(
    name: str,
    people: Iterable[tuple[np.ndarray, Person]],
    folder: Path,
    *,
    size: tuple[int, int],
    padding: float = 1.25,
    detail: float = 1.3,
    reach: float = 1.4,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Pack people into a folder, replace the shards there, and return the number of people.

    Args:
        name: name of the source.
        people: (image, person) pairs.
        folder: folder of people-0000.safetensors and following, and index.json, which lists them and is written last.
        size: (width, height) of the crops that networks will see.
        padding: size of these crops relative to the box.
        detail, reach: as in `stored_crop`.
        shard_bytes: largest total size of a shard's JPEGs.
        progress: called once per person.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)  # it describes the old shards
    files: list[str] = []
    jpegs: list[np.ndarray] = []
    rows: list[Person] = []
    count = pending = 0

    def flush() -> None:
        nonlocal pending
        if rows:
            files.append(f"people-{len(files):04d}.safetensors")
            _write_shard(folder / files[-1], jpegs, rows)
            jpegs.clear()
            rows.clear()
            pending = 0

    for image, person in people:
        region, stored = stored_crop(image, person, size=size, padding=padding, detail=detail, reach=reach)
        done, jpeg = cv2.imencode(".jpg", region, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not done:
            raise ArgumentError(
                f"{name}: person {person.person_id}: OpenCV could not encode a {region.shape} crop"
            )
        if pending + jpeg.size > shard_bytes:
            flush()
        jpegs.append(jpeg.ravel())
        rows.append(stored)
        pending += jpeg.size
        count += 1
        progress()
    flush()
    index = {"format": FORMAT, "name": name, "people": count, "size": list(size), "padding": padding,
             "detail": detail, "reach": reach, "files": files}  # fmt: skip
    write_json(folder / "index.json", index, indent=1)
    for stale in set(folder.glob("people-*.safetensors")) - {folder / file for file in files}:
        stale.unlink(missing_ok=True)
    return count


def _write_shard(path: Path, jpegs: list[np.ndarray], rows: list[Person]) -> None:
    ends = np.cumsum([jpeg.size for jpeg in jpegs])
    content = {
        "bytes": np.concatenate(jpegs),
        "ends": ends.astype(np.int64),
        **{
            column: np.array([getattr(row, name) for row in rows], kind)
            for column, (name, kind) in COLUMNS.items()
        },
    }
    with replacing(path) as file:
        file.write(save(content))


def read_index(folder: Path) -> tuple[dict[str, Any], Packing]:
    """Return the content of index.json in a folder of shards, and the packing that it states.

    Raises:
        ArgumentError: the file is missing or has another format; the message names it.
    """
    path = folder / "index.json"
    if not path.is_file():
        raise ArgumentError(
            f"{folder} must have an index.json, got none: it holds no packed people, or packing was not finished"
        )
    index = read_json(path, top=dict)
    if index.get("format") != FORMAT:
        raise ArgumentError(f"{path} must have format {FORMAT}, got {index.get('format')!r}")
    numbers = dict.fromkeys(("padding", "detail", "reach"), (int, float))
    fields: dict[str, Any] = {"name": str, "files": list, "people": int, "size": list, **numbers}
    require(index, fields, path)
    if not all(isinstance(name, str) and Path(name).name == name for name in index["files"]):
        raise ArgumentError(f"{path}: files must be names of files in its folder, got {index['files']!r}")
    if len(index["size"]) != 2 or not all(type(side) is int and side > 0 for side in index["size"]):
        raise ArgumentError(f"{path}: size must be two positive integers, got {index['size']!r}")
    return index, Packing(tuple(index["size"]), index["padding"], index["detail"], index["reach"])


def read_shards(folder: Path, name: str | None = None, required: Packing | None = None) -> ShardPeople:
    """Return the people of a folder of shards.

    Args:
        folder: a folder that `write_shards` wrote.
        name: name of the source; None: the name that it was packed with.
        required: the least sufficient packing.

    Raises:
        ArgumentError: the folder is incomplete or has another format, a shard is damaged, or the people are packed with
            less detail or margin than required; the message names the file.
    """
    index, packing = read_index(folder)
    path = folder / "index.json"
    if required is not None and not packing.serves(required):
        raise ArgumentError(
            f"{path} must be packed for at least {required}, got {packing}; pack these people again with `oaks pack` "
            "and this training's recipe"
        )
    data, places = [], []
    columns: dict[str, list[np.ndarray]] = {column: [] for column in COLUMNS}
    for number, file in enumerate(index["files"]):
        try:
            with safe_open(folder / file, framework="np") as shard:
                data.append(shard.get_tensor("bytes"))
                ends = shard.get_tensor("ends")
                for column in COLUMNS:
                    columns[column].append(shard.get_tensor(column))
        except Exception as error:
            if not may_be_damage(error) and not isinstance(error, FileNotFoundError):
                raise
            raise ArgumentError(f"{folder / file} must be a complete shard, got {error}") from error
        begins = np.concatenate([[0], ends[:-1]])
        places.append(np.stack([np.full(len(ends), number), begins, ends], axis=1))
    if not places:
        raise ArgumentError(f"{path}: files must be at least one shard, got none")
    joined = {column: np.concatenate(parts) for column, parts in columns.items()}
    joined["annotatable"] = joined["annotatable"].astype(bool)
    people = ShardPeople(name or index["name"], data, np.concatenate(places), joined)
    if len(people) != index["people"] or math.prod(joined["boxes"].shape) != 4 * len(people):
        raise ArgumentError(
            f"{folder} must hold {index['people']} people, as index.json states, got {len(people)}"
        )
    return people


__all__ = [
    "Packing",
    "ShardPeople",
    "read_index",
    "read_shards",
    "required_packing",
    "stored_crop",
    "write_shards",
]
