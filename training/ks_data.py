"""KS-net's data: heatmaps of a trained pose network, and the similarity of its points to the labels.

Heatmaps are stored as memory-mapped float16 in parts, each renamed once complete, so that writing can be resumed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from oaks.errors import ArgumentError
from oaks.files import replacing, write_json
from oaks.skeleton import Skeleton
from oaks.structured import read_json
from oaks.training.data.augmentation import vary
from oaks.training.data.people import People, fold_of
from oaks.training.data.sampling import Draw, sample_readable
from oaks.training.recipe import Augmentation
from oaks.training.validation import (
    CropDataset,
    CropSettings,
    Estimate,
    crop_person,
    estimate,
    ordered_loader,
    original_labels,
)
from oaks.val.oks import similarity_to_labels

FORMAT = 2
PART = 512  # views per part


@dataclass(frozen=True)
class PoseNetworks:
    """One trained pose network, or one for each fold.

    Attributes:
        networks: in evaluation mode. If there are several, network i was trained without fold i.
        view: their common crop settings.
    """

    networks: Sequence[nn.Module]
    view: CropSettings

    def folds(self, names: Sequence[str], sources: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
        """Return (N,) int64: the index of the network to run on each person."""
        folds = np.zeros(len(image_ids), np.int64)
        for source in np.unique(sources):
            own = sources == source
            folds[own] = fold_of(names[int(source)], image_ids[own], len(self.networks))
        return folds

    def estimate(
        self, names: Sequence[str], batch: dict[str, Any], *, ks: nn.Module | None = None
    ) -> Estimate:
        """Return the estimates on a batch of crops, for each person by the network trained without their fold.

        Args:
            names: names of the sources.
            batch: a batch of `CropDataset` or `OnlineCrops`.
            ks: KS-net; None: its predictions are left out.
        """
        folds = self.folds(names, batch["source"].cpu().numpy(), batch["image_id"].cpu().numpy())
        parts: list[tuple[np.ndarray, Estimate]] = []
        for fold in np.unique(folds):
            rows = np.flatnonzero(folds == fold)
            found = estimate(
                self.networks[fold],
                batch["crop"][torch.from_numpy(rows).to(batch["crop"].device)],
                batch["transform"].cpu().numpy()[rows],
                self.view,
                ks=ks,
            )
            parts.append((rows, found))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        columns = zip(*(found for _, found in parts), strict=True)
        joined: list[Any] = [None if c[0] is None else np.concatenate(c)[order] for c in columns]
        return Estimate(*joined)


def true_similarity(
    batch: dict[str, Any], found: Estimate, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray]:
    """Return true KS (N, K) float32, 0 for keypoints without annotation, and which are annotated, (N, K) bool.

    The points are decoded as at inference (section 4.2 of the paper).
    """
    labels = original_labels(batch)
    ks, _ = similarity_to_labels(labels.to_image(found.points), labels.keypoints, labels.areas, skeleton)
    annotated = (labels.keypoints[..., 2] > 0) & batch["annotatable"].cpu().numpy().astype(bool)
    return ks.astype(np.float32), annotated


def mirror_sample(
    heatmaps: np.ndarray, similarity: np.ndarray, annotated: np.ndarray, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return heatmaps (K, h, w), KS (K,) and annotated flags (K,) of a person, mirrored.

    The flip-averaged maps of a mirrored person are the mirrored flip-averaged maps.
    """
    order = skeleton.mirror
    return heatmaps[order, :, ::-1], similarity[order], annotated[order]


class HeatmapStore:
    """A folder with heatmaps (P, K, h, w) float16, true KS (P, K) and annotated flags (P, K) of P views of people.

    Views whose images cannot be decoded are marked and have no heatmaps.

    Args:
        folder: folder of the parts.
        key: everything that the heatmaps depend on; a folder that was written for another key is refused.
        shape: (P, K, h, w).

    Raises:
        ArgumentError: the folder holds other heatmaps, or the disk is too small.
    """

    def __init__(self, folder: Path, key: dict[str, Any], shape: tuple[int, int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        self.parts = -(-shape[0] // PART)
        index = {"format": FORMAT, "key": key, "shape": list(shape)}
        path = folder / "index.json"
        if path.is_file():
            if read_json(path) != json.loads(json.dumps(index)):
                raise ArgumentError(
                    f"{folder} must hold heatmaps of these people, labels, networks and augmentation, got others, or some "
                    "of another version; delete it or set another store"
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = 2 * int(np.prod(shape)), shutil.disk_usage(folder).free
        if needed > 0.95 * free:
            raise ArgumentError(
                f"{folder} must have space for {needed / 1e9:.1f} GB of heatmaps, got {free / 1e9:.1f} GB; "
                "with heatmaps: live in the recipe nothing is stored"
            )
        write_json(path, index, indent=1)

    def missing(self) -> list[int]:
        """Return the parts that are not written yet."""
        return [part for part in range(self.parts) if not self._labels(part).is_file()]

    def places(self, part: int) -> range:
        """Return the views in a part."""
        return range(part * PART, min((part + 1) * PART, self.shape[0]))

    def write(
        self, crops: CropDataset, names: Sequence[str], networks: PoseNetworks, *, device: torch.device, batch: int,
        workers: int, advance: Callable[[int], None], stop: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """Write every missing part.

        Args:
            crops: the P views.
            names: names of the sources.
            networks: the pose networks, on `device`.
            device: device of the networks.
            batch: people per pass.
            workers: loader workers.
            advance: called after each pass with its number of views.
            stop: called before each part; True stops.
        """
        for part in self.missing():
            if stop():
                return
            places = self.places(part)
            heatmaps = np.zeros((len(places), *self.shape[1:]), np.float16)
            similarity = np.zeros((len(places), self.shape[1]), np.float32)
            annotated = np.zeros((len(places), self.shape[1]), bool)
            readable = np.zeros(len(places), bool)
            for content in ordered_loader(crops, batch=batch, workers=workers, places=places):
                if content is None:
                    continue
                content["crop"] = content["crop"].to(device)
                found = networks.estimate(names, content)
                rows = content["place"].numpy() - places.start
                heatmaps[rows], readable[rows] = found.heatmaps, True
                similarity[rows], annotated[rows] = true_similarity(content, found, networks.view.skeleton)
                advance(len(rows))
            self._write_part(part, heatmaps, similarity, annotated, readable)

    def put(self, heatmaps: np.ndarray, similarity: np.ndarray, annotated: np.ndarray) -> None:
        """Write every missing part from the results of another runtime.

        Args:
            heatmaps: (P, K, h, w), flip-averaged.
            similarity: (P, K) true KS, 0 for keypoints without annotation.
            annotated: (P, K) bool.

        Raises:
            ArgumentError: the heatmaps have another shape than the store.
        """
        if heatmaps.shape != self.shape:
            raise ArgumentError(f"heatmaps must have shape {self.shape}, got {heatmaps.shape}")
        for part in self.missing():
            rows = slice(self.places(part).start, self.places(part).stop)
            maps = heatmaps[rows].astype(np.float16)
            readable = np.ones(len(maps), bool)
            self._write_part(part, maps, similarity[rows].astype(np.float32), annotated[rows], readable)

    def _write_part(
        self,
        part: int,
        heatmaps: np.ndarray,
        similarity: np.ndarray,
        annotated: np.ndarray,
        readable: np.ndarray,
    ) -> None:
        with replacing(self._heatmaps(part)) as file:
            np.save(file, heatmaps)
        with replacing(self._labels(part)) as file:  # last, because its presence marks the part as complete
            np.savez(file, similarity=similarity, annotated=annotated, readable=readable)

    def _heatmaps(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.heatmaps.npy"

    def _labels(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.labels.npz"

    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return true KS (P, K), annotated flags (P, K), and which views could be read (P,)."""
        parts = [np.load(self._labels(part)) for part in range(self.parts)]
        similarity, annotated, readable = (
            np.concatenate([part[name] for part in parts]) for name in ("similarity", "annotated", "readable")
        )
        return similarity, annotated, readable

    @cache  # noqa: B019 - as many as there are parts, for as long as the store lives
    def _mapped(self, part: int) -> np.ndarray:
        return np.load(self._heatmaps(part), mmap_mode="r")

    def heatmaps(self, place: int) -> np.ndarray:
        """Return the heatmaps (K, h, w) float16 of one view."""
        return self._mapped(place // PART)[place % PART]


class StoredHeatmaps(Dataset[dict[str, Any]]):
    """KS-net's samples from a complete store, indexed by draws and mirrored at random.

    Args:
        store: the store.
        begins: the first view of each source, and the end.
        skeleton: skeleton of the people.
        flip: probability of mirroring.
        seed: random seed.

    Raises:
        ArgumentError: none of a source's images could be read.
    """

    def __init__(
        self, store: HeatmapStore, begins: Sequence[int], skeleton: Skeleton, *, flip: float, seed: int
    ) -> None:
        self.store, self.begins, self.skeleton, self.flip, self.seed = store, begins, skeleton, flip, seed
        self.similarity, self.annotated, self.readable = store.labels()
        for number, (begin, end) in enumerate(pairwise(begins)):
            if not self.readable[begin:end].any():
                raise ArgumentError(
                    f"{store.folder} must have views of source {number} that could be read, got none; delete the folder"
                )

    def _readable_view(self, draw: Draw) -> tuple[int, int]:
        """Return the place of the drawn view, or of the next one that could be read, and the number of skipped ones."""
        begin, end = int(self.begins[draw.source]), int(self.begins[draw.source + 1])
        if self.readable[begin + draw.index]:
            return begin + draw.index, 0
        places = begin + (draw.index + np.arange(end - begin)) % (end - begin)
        damaged = int(self.readable[places].argmax())
        return int(places[damaged]), damaged

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        place, damaged = self._readable_view(draw)
        heatmaps, similarity = self.store.heatmaps(place), self.similarity[place]
        annotated = self.annotated[place]
        if np.random.default_rng([self.seed, 2, draw.number]).random() < self.flip:
            heatmaps, similarity, annotated = mirror_sample(heatmaps, similarity, annotated, self.skeleton)
        return {
            "heatmaps": np.array(heatmaps),  # a copy, because the mapped file is read-only
            "similarity": similarity,
            "annotated": annotated.astype(np.float32),
            "damaged": damaged,
        }


class OnlineCrops(Dataset[dict[str, Any]]):
    """Augmented crops of people, indexed by draws, for live heatmaps."""

    def __init__(
        self, sources: Sequence[People], view: CropSettings, settings: Augmentation, *, seed: int
    ) -> None:
        self.sources, self.view, self.settings, self.seed = list(sources), view, settings, seed

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, 2, draw.number])
        image, person, damaged = sample_readable(self.sources[draw.source], draw.index, rng)
        image, person = vary(image, person, rng, self.settings)
        mirrored = np.random.default_rng([self.seed, 4, draw.number]).random() < self.settings.flip
        return {
            **crop_person(image, person, self.view),
            "source": draw.source,
            "damaged": damaged,
            "mirrored": mirrored,
        }


__all__ = [
    "HeatmapStore",
    "OnlineCrops",
    "PoseNetworks",
    "StoredHeatmaps",
    "mirror_sample",
    "true_similarity",
]
