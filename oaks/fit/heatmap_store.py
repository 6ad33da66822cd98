"""Runs a frozen heatmap network over annotated people and stores its heatmaps, so that a stopped run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oaks import executors, ops
from oaks.bundle import Bundle
from oaks.errors import ArgumentError
from oaks.executors.base import HostMemory
from oaks.files import replacing, write_json
from oaks.progress import progress
from oaks.skipping import skip
from oaks.structured import read_json, read_npz, require
from oaks.val.detect import ReadableImages
from oaks.val.ground_truth import GroundTruth

PEOPLE_AT_ONCE = 64
"""Number of people in a shard of stored heatmaps."""
CROPS_AT_ONCE = 32
"""Number of crops in one call of the network. With all 128 of a shard at once, `small` takes several GB of memory."""
STORE, SKIPPED = "store.json", "skipped.json"
_MEMBERS = ("people", "maps", "transforms", "frame_sizes")


@dataclass(frozen=True)
class Shard:
    """The network's outputs for n people.

    Attributes:
        people: (n,) indices into the annotated people.
        maps: (n, 2, K, h, w) float16: heatmaps of the crops, and the network's raw output for the mirrored crops.
        transforms: (n, 2, 3) crop pixel -> image pixel.
        frame_sizes: (n, 2) width and height of each person's picture.
    """

    people: np.ndarray
    maps: np.ndarray
    transforms: np.ndarray
    frame_sizes: np.ndarray


def stored_heatmaps(
    bundle: Bundle,
    truth: GroundTruth,
    images: Path,
    store: Path,
    threads: int | None = None,
    *,
    joined: bool = False,
    note: str = "",
) -> Iterator[Shard]:
    """Run the pose network over all people with labeled keypoints, or read what an earlier run has stored.

    People in images that are missing, damaged or too large are skipped, as are those whose heatmaps are not finite.
    Any other failure ends the run, which the next call resumes. `joined` says that `truth` is one of several data sets,
    so that what is skipped is named by folder too; `note` is added to the title of the progress bar.

    Raises:
        FileNotFoundError: every image is missing.
        OSError, RuntimeError: an image, or the network, failed.
        ArgumentError: `store` holds maps of another network or of other people.
    """
    people = np.flatnonzero(truth.counted)
    parts = [people[first : first + PEOPLE_AT_ONCE] for first in range(0, len(people), PEOPLE_AT_ONCE)]
    _open_store(store, bundle, truth)
    missing = [n for n in range(len(parts)) if not _shard_path(store, n).is_file()]
    skipped: dict[str, str] = read_json(store / SKIPPED, top=dict) if (store / SKIPPED).is_file() else {}
    for name, reason in skipped.items():
        skip(name, reason)
    if missing:
        readable = ReadableImages(truth, images, np.unique(truth.image[people]).tolist(), joined=joined)
        label, done = f"Heatmaps of {Path(truth.path).name}{note}", len(parts) - len(missing)
        with progress(label, len(parts), done=done) as advance, _Runner(bundle, threads) as runner:
            for number in missing:
                shard = runner(readable, parts[number])
                if readable.skipped.keys() - skipped.keys():
                    write_json(store / SKIPPED, skipped := {**skipped, **readable.skipped})
                with replacing(_shard_path(store, number)) as file:
                    np.savez(file, **vars(shard))
                advance()
    for number in range(len(parts)):
        stored = read_npz(path := _shard_path(store, number))
        require(stored, dict.fromkeys(_MEMBERS, np.ndarray), path)
        yield Shard(**{name: stored[name] for name in _MEMBERS})


class _Runner:
    """The pose network on the CPU."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        self._pose, self._memory = bundle.pose, HostMemory()
        network = bundle.network("pose")
        self._executor = executors.open_network(
            "onnxruntime", network, memory=self._memory, threads=threads, batches=[CROPS_AT_ONCE]
        )

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self._executor.close()

    def __call__(self, images: ReadableImages, people: np.ndarray) -> Shard:
        pose, truth = self._pose, images.truth
        read = dict(images.read(np.unique(truth.image[people]).tolist()))
        people = people[np.isin(truth.image[people], list(read))]
        if not len(people):
            shape = (0, 2, *self._executor.outputs["heatmaps"].shape)
            return Shard(people, np.zeros(shape, np.float16), np.zeros((0, 2, 3)), np.zeros((0, 2)))
        frames = list(read.values())
        index = np.searchsorted(list(read), truth.image[people]).astype(np.int32)
        crops = ops.crop(
            frames,
            truth.file_boxes(people),
            size=pose.size,
            frame_index=index,
            padding=pose.padding,
            mean=pose.mean,
            std=pose.std,
            color="bgr" if pose.color == "rgb" else "rgb",
            mirrored=True,
        )
        with np.errstate(over="ignore"):
            maps = self._run(crops.pixels).astype(np.float16)
        maps = maps.reshape(2, len(people), *maps.shape[1:]).swapaxes(0, 1)
        finite = np.isfinite(maps).all(axis=(1, 2, 3, 4))
        for bad in people[~finite]:
            image, annotation = int(truth.image[bad]), int(truth.ids[bad])
            images.skip(image, "its heatmaps are not finite in float16", annotation=annotation)
        sizes = np.array([frames[i].shape[1::-1] for i in index], np.float32)
        return Shard(people[finite], maps[finite], crops.transforms[finite], sizes[finite])

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        dtype = self._executor.inputs["crops"].dtype
        parts = [pixels[first : first + CROPS_AT_ONCE] for first in range(0, len(pixels), CROPS_AT_ONCE)]
        return np.concatenate([self._run_part(np.ascontiguousarray(part, dtype)) for part in parts])

    def _run_part(self, pixels: np.ndarray) -> np.ndarray:
        outputs = {
            name: self._memory.empty((len(pixels), *tensor.shape), tensor.dtype)
            for name, tensor in self._executor.outputs.items()
        }
        self._executor.bind({"crops": pixels}, outputs)()
        return outputs["heatmaps"]


def _shard_path(store: Path, number: int) -> Path:
    return store / f"{number:05}.npz"


def _open_store(store: Path, bundle: Bundle, truth: GroundTruth) -> None:
    """Create the folder of the maps, or check that it holds the maps of this network and these people."""
    pose = bundle.pose
    stated = json.loads(
        json.dumps(
            {
                "network": bundle.network("pose").sha256,
                "size": pose.size,
                "mean": pose.mean,
                "std": pose.std,
                "color": pose.color,
                "padding": pose.padding,
                "people": truth.ids[truth.counted].tolist(),
                "boxes": np.round(truth.boxes[truth.counted], 2).tolist(),
                "people_at_once": PEOPLE_AT_ONCE,
            }
        )
    )
    store.mkdir(parents=True, exist_ok=True)
    path = store / STORE
    if not path.is_file():
        write_json(path, stated)
        return
    found = read_json(path, top=dict)
    if changed := [key for key in stated if found.get(key) != stated[key]]:
        raise ArgumentError(
            f"{store} must hold heatmaps of this run, got another {changed[0]}; name another folder"
        )


__all__ = ["Shard", "stored_heatmaps"]
