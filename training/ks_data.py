"""KS-net's data: what a trained pose network makes of people, and how close to their labels it comes.

Written once as memory-mapped float16 heatmaps, in parts that are renamed when they are whole, so that the
writing can be stopped and gone on with.
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
    crop_loader,
    crop_person,
    estimate,
    original_labels,
)
from oaks.val.oks import similarity_to_labels

FORMAT = 2
PART = 512  # views per part


@dataclass(frozen=True)
class PoseNetworks:
    """The trained pose network, or one for each fold of the people.

    Attributes:
        networks: in evaluation mode; the one at place i has not seen fold i, if there are several.
        view: that they share.
    """

    networks: Sequence[nn.Module]
    view: CropSettings

    def folds(self, names: Sequence[str], sources: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
        """(N,) int: the network that is to be run on each person, by the person's source and image."""
        if len(self.networks) == 1:
            return np.zeros(len(image_ids), np.int64)
        return np.array(
            [
                fold_of(names[int(s)], image_ids[n : n + 1], len(self.networks))[0]
                for n, s in enumerate(sources.tolist())
            ]
        )

    def estimate(
        self, names: Sequence[str], batch: dict[str, Any], *, ks: nn.Module | None = None
    ) -> Estimate:
        """What is estimated on a batch of `crop_loader`, each person by the network that has not seen them.

        Args:
            names: of the sources.
            batch: of the loader.
            ks: KS-net, if its predictions are asked for.
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
    """True KS (N, K) float32, 0 where not annotated, and which keypoints are annotated (N, K) bool.

    The points are those of the decoder that is used at test time (section 4.2).
    """
    labels = original_labels(batch)
    ks, _ = similarity_to_labels(labels.to_image(found.points), labels.keypoints, labels.areas, skeleton)
    annotated = (labels.keypoints[..., 2] > 0) & batch["annotatable"].cpu().numpy().astype(bool)
    return ks.astype(np.float32), annotated


def mirror_sample(
    heatmaps: np.ndarray, similarity: np.ndarray, annotated: np.ndarray, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What KS-net learns from one person, (K, h, w) and (K,) each, of that person mirrored.

    The flip-averaged maps of a mirrored person are the mirrored flip-averaged maps.
    """
    order = skeleton.mirror
    return heatmaps[order, :, ::-1], similarity[order], annotated[order]


class HeatmapStore:
    """Heatmaps (P, K, h, w) float16, true KS (P, K) and annotated flags of the P views of people in a folder.

    Views of images that cannot be decoded have no heatmaps, and are marked.

    Args:
        folder: of the parts.
        key: what the heatmaps depend on; a folder that was written for another key is refused.
        shape: (P, K, h, w).

    Raises:
        ArgumentError: the folder holds other heatmaps, or the disk is too small for these.
    """

    def __init__(self, folder: Path, key: dict[str, Any], shape: tuple[int, int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        self.parts = -(-shape[0] // PART)
        index = {"format": FORMAT, "key": key, "shape": list(shape)}
        path = folder / "index.json"
        if path.is_file():
            if read_json(path) != json.loads(json.dumps(index)):
                raise ArgumentError(f"{folder}: holds heatmaps of other people, labels, networks or augmentation, or of an "
                                 "earlier version; delete it or name another folder")  # fmt: skip
            return
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = 2 * int(np.prod(shape)), shutil.disk_usage(folder).free
        if needed > 0.95 * free:
            raise ArgumentError(
                f"{folder}: {needed / 1e9:.1f} GB of heatmaps do not fit into {free / 1e9:.1f} GB; "
                "set heatmaps: live in the recipe to make them in every step instead"
            )
        write_json(path, index, indent=1)

    def missing(self) -> list[int]:
        """Parts that are not written yet."""
        return [part for part in range(self.parts) if not self._labels(part).is_file()]

    def places(self, part: int) -> range:
        """The views in a part."""
        return range(part * PART, min((part + 1) * PART, self.shape[0]))

    def write(
        self, crops: CropDataset, names: Sequence[str], networks: PoseNetworks, *, device: torch.device, batch: int,
        workers: int, advance: Callable[[int], None], stop: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """Writes every missing part.

        Args:
            crops: the P views.
            names: of the sources.
            networks: on `device`.
            device: where they run.
            batch: people per pass.
            workers: loading processes.
            advance: is given the number of views done, after each pass.
            stop: asked before each part whether to leave the others for another time.
        """
        for part in self.missing():
            if stop():
                return
            places = self.places(part)
            heatmaps = np.zeros((len(places), *self.shape[1:]), np.float16)
            similarity = np.zeros((len(places), self.shape[1]), np.float32)
            annotated = np.zeros((len(places), self.shape[1]), bool)
            readable = np.zeros(len(places), bool)
            for content in crop_loader(crops, batch=batch, workers=workers, places=places):
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
        """Write every missing part from what another runtime has made of the P views.

        Args:
            heatmaps: (P, K, h, w), averaged over the flip.
            similarity: (P, K) true KS, 0 where not annotated.
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
        with replacing(self._labels(part)) as file:  # last: its presence says that the part is whole
            np.savez(file, similarity=similarity, annotated=annotated, readable=readable)

    def _heatmaps(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.heatmaps.npy"

    def _labels(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.labels.npz"

    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True KS (P, K), annotated flags (P, K), and which views could be read (P,), of everything."""
        parts = [np.load(self._labels(part)) for part in range(self.parts)]
        similarity, annotated, readable = (
            np.concatenate([part[name] for part in parts]) for name in ("similarity", "annotated", "readable")
        )
        return similarity, annotated, readable

    @cache  # noqa: B019 - as many as there are parts, for as long as the store lives
    def _mapped(self, part: int) -> np.ndarray:
        return np.load(self._heatmaps(part), mmap_mode="r")

    def heatmaps(self, place: int) -> np.ndarray:
        """(K, h, w) float16 of one view, read from the disk."""
        return self._mapped(place // PART)[place % PART]


class StoredHeatmaps(Dataset[dict[str, Any]]):
    """KS-net's samples from a store, addressed by draws; mirrored at random.

    Args:
        store: whose parts are all written.
        begins: the first view of each source, and the end.
        skeleton: of the people.
        flip: how often a sample is mirrored.
        seed: of that.

    Raises:
        ArgumentError: nobody of a source could be read.
    """

    def __init__(
        self, store: HeatmapStore, begins: Sequence[int], skeleton: Skeleton, *, flip: float, seed: int
    ) -> None:
        self.store, self.begins, self.skeleton, self.flip, self.seed = store, begins, skeleton, flip, seed
        self.similarity, self.annotated, self.readable = store.labels()
        for number, (begin, end) in enumerate(pairwise(begins)):
            if not self.readable[begin:end].any():
                raise ArgumentError(
                    f"{store.folder}: none of the images of source {number} could be read; delete it"
                )

    def _readable_view(self, draw: Draw) -> tuple[int, int]:
        """The place of the view that is drawn, or of the next one that could be read, and how many lie between."""
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
            "heatmaps": np.array(heatmaps),  # a copy: the mapped file cannot be written to
            "similarity": similarity,
            "annotated": annotated.astype(np.float32),
            "damaged": damaged,
        }


class OnlineCrops(Dataset[dict[str, Any]]):
    """Varied crops of people, addressed by draws, of which a training step makes the heatmaps itself."""

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
