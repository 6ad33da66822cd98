"""Validation of networks on annotated people, by the same steps as at inference: crop, network, decode, score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from oaks import ops
from oaks.boxes import to_xywh
from oaks.errors import ArgumentError
from oaks.skeleton import Skeleton
from oaks.training.data.augmentation import vary
from oaks.training.data.people import DamagedImage, People, Person
from oaks.training.data.sampling import init_worker, warn_once
from oaks.training.recipe import Augmentation
from oaks.val.calibration import pearson
from oaks.val.coco_eval import coco_metrics
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import similarity_to_labels


@dataclass(frozen=True)
class CropSettings:
    """How crops for a pose network are cut and normalized, and how its heatmaps are decoded."""

    size: tuple[int, int]
    padding: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    alignment: str
    refine: str
    skeleton: Skeleton

    def describe(self) -> dict[str, Any]:
        """Return the settings as a part of a trained network's description."""
        size, mean, std = list(self.size), list(self.mean), list(self.std)
        return {
            "skeleton": self.skeleton.to_dict(),
            "input": {"size": size, "mean": mean, "std": std, "color": "bgr"},
            "alignment": self.alignment,
            "refine": self.refine,
            "padding": self.padding,
        }

    @classmethod
    def of(cls, description: dict[str, Any]) -> CropSettings:
        """Return the settings in the description of a trained pose network."""
        seen = description["input"]
        return cls(
            tuple(seen["size"]), description["padding"], tuple(seen["mean"]), tuple(seen["std"]),
            description["alignment"], description["refine"], Skeleton.from_dict(description["skeleton"]),
        )  # fmt: skip


def crop_person(image: np.ndarray, person: Person, view: CropSettings) -> dict[str, Any]:
    """Return a crop (3, H, W) float32 as at inference, its transform (2, 3), and the person's labels."""
    crop = ops.crop(
        image, person.box[None], size=view.size, padding=view.padding, mean=view.mean, std=view.std
    )
    return {"crop": crop.pixels[0], "transform": crop.transforms[0], **person._asdict()}


class CropDataset(Dataset[dict[str, Any] | None]):
    """Crops of the people of several sources, as at inference; None if the image cannot be decoded.

    Args:
        sources: sources of people.
        view: crop settings of the pose network.
        views: number of crops of each person: the first unchanged, the others augmented.
        settings: the augmentation.

    Attributes:
        begins: the first place of each source, and the end. Within a source, all people's first views come first.
    """

    def __init__(
        self,
        sources: Sequence[People],
        view: CropSettings,
        *,
        views: int = 1,
        settings: Augmentation | None = None,
    ) -> None:
        self.sources, self.view, self.settings = list(sources), view, settings or Augmentation()
        self.begins = np.cumsum([0, *(len(people) * views for people in self.sources)])

    def __len__(self) -> int:
        return int(self.begins[-1])

    def __getitem__(self, place: int) -> dict[str, Any] | None:
        source = int(np.searchsorted(self.begins, place, side="right")) - 1
        people = self.sources[source]
        turn, index = divmod(place - int(self.begins[source]), len(people))
        rng = np.random.default_rng([place, 3])
        try:
            image, person = people.sample(index, rng)
        except DamagedImage as error:
            warn_once(f"{error}; skipped")
            return None
        if turn > 0:
            image, person = vary(image, person, rng, self.settings)
        return {**crop_person(image, person, self.view), "place": place, "source": source}


def _collate(items: list[dict[str, Any] | None]) -> dict[str, Tensor] | None:
    readable = [item for item in items if item is not None]
    return default_collate(readable) if readable else None


def ordered_loader(
    samples: Any, *, batch: int, workers: int, places: Sequence[int] | None = None
) -> DataLoader:
    """Return a loader of batches in order. Samples that are None are skipped; a batch of only these is None.

    Args:
        samples: dataset with a length, such as CropDataset.
        batch: samples per batch.
        workers: loader workers.
        places: indices of the samples; None: all.
    """
    return DataLoader(
        samples,
        batch_size=batch,
        sampler=list(range(len(samples)) if places is None else places),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=init_worker,
    )


class Estimate(NamedTuple):
    """Estimates of the networks on N crops, as NumPy arrays."""

    points: np.ndarray  # (N, K, 2) pixel indices of the source's image
    heat: np.ndarray  # (N, K)
    heatmaps: np.ndarray  # (N, K, h, w) float32, flip-averaged
    visibility: np.ndarray | None  # (N, K) probabilities
    similarity: np.ndarray | None  # (N, K) predicted KS


@torch.inference_mode()
def estimate(
    pose: nn.Module, crops: Tensor, transforms: np.ndarray, view: CropSettings, *, ks: nn.Module | None = None
) -> Estimate:
    """Run the networks on crops and their mirror images, and decode the heatmaps.

    Args:
        pose: the pose network, in evaluation mode.
        crops: (N, 3, H, W) normalized, on the network's device.
        transforms: (N, 2, 3) from crop to image pixel indices.
        view: crop settings of the pose network.
        ks: the KS-net, in evaluation mode; None: no predicted KS.
    """
    count = len(crops)
    with torch.autocast(crops.device.type, enabled=False):  # in single precision, as at inference
        both, logits = pose(torch.cat([crops, crops.flip(3)]).contiguous(memory_format=torch.channels_last))
    maps = both.float().cpu().contiguous().numpy()
    pairs = view.skeleton.pairs
    decoded = ops.decode(
        maps[:count], maps[count:], flip_pairs=pairs, refine=view.refine, alignment=view.alignment,
        crop_size=view.size, transforms=transforms, average=True,
    )  # fmt: skip
    visibility = similarity = None
    if logits is not None:
        mirrored = logits[count:, torch.from_numpy(view.skeleton.mirror).to(logits.device)]
        visibility = torch.sigmoid((logits[:count].float() + mirrored.float()) / 2).cpu().numpy()
    if ks is not None:
        similarity = (
            torch.sigmoid(ks(torch.from_numpy(decoded.heatmaps).to(crops.device)).float()).cpu().numpy()
        )
    return Estimate(decoded.points, decoded.heat, decoded.heatmaps, visibility, similarity)


@dataclass
class ValidationResults:
    """Estimates on N people and their labels, in pixel indices of the original images.

    Attributes:
        points: (N, K, 2).
        heat: (N, K).
        visibility: (N, K) probabilities, or None.
        similarity: (N, K) predicted KS, or None.
        keypoints: (N, K, 3) labels.
        boxes: (N, 4) xyxy.
        areas: (N,).
        annotatable: (N, K) bool.
        images: (N, 2) source and image id.
        skeleton: skeleton of the people.
    """

    points: np.ndarray
    heat: np.ndarray
    visibility: np.ndarray | None
    similarity: np.ndarray | None
    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    annotatable: np.ndarray
    images: np.ndarray
    skeleton: Skeleton

    def truth(self) -> GroundTruth:
        """Return the labels as ground truth; the person with id n + 1 is row n."""
        _, image = np.unique(self.images, axis=0, return_inverse=True)
        image = image.reshape(-1)
        order = np.argsort(image, kind="stable")
        return GroundTruth.from_arrays(
            skeleton=self.skeleton,
            ids=order + 1,
            image=image[order],
            keypoints=self.keypoints[order, :, :2],
            flags=self.keypoints[order, :, 2],
            areas=self.areas[order],
            boxes=to_xywh(self.boxes[order].astype(float)),
        )

    def true_similarity(self) -> tuple[np.ndarray, np.ndarray]:
        """Return true KS (N, K), 0 for unlabeled keypoints, and OKS (N,) of each pose with its own person."""
        return similarity_to_labels(self.points, self.keypoints, self.areas, self.skeleton)

    def metrics(self) -> dict[str, float]:
        """Return AP by score, visibility accuracy, and the agreement of heat and predicted KS with true KS.

        "majority accuracy" is that of always predicting each keypoint's more frequent label. Undefined figures, such as
        the correlation of a constant, are omitted.
        """
        truth = self.truth()
        order = truth.ids - 1
        ks, oks = self.true_similarity()
        figures: dict[str, float] = {"people": len(oks), "OKS": float(oks.mean())}
        scores = {"conventional": ops.conventional_score(self.heat), "oracle": oks}
        seen = np.ones_like(self.heat) if self.visibility is None else self.visibility
        if self.similarity is not None:
            scores["OAKS"] = ops.score(self.similarity, seen)
        for name, score in scores.items():
            judged = coco_metrics(truth, truth.image, self.points[order], np.asarray(score, float)[order])
            figures |= {f"{name} {figure}": judged[figure] for figure in ("AP", "AP50", "AP75")}
            if name != "oracle":
                figures[f"{name} Pearson with OKS"] = pearson(score, oks)
        labeled = self.keypoints[..., 2] > 0
        figures["heat Pearson with KS"] = pearson(self.heat[labeled], ks[labeled])
        if self.similarity is not None:
            figures["KS error"] = float(np.abs(self.similarity - ks)[labeled].mean())
            figures["KS Pearson"] = pearson(self.similarity[labeled], ks[labeled])
        if self.visibility is not None:
            known = self.annotatable.sum(0)
            defined = known > 0
            right = ((self.visibility > 0.5) == labeled) & self.annotatable
            per_keypoint = right.sum(0)[defined] / known[defined]
            share = (labeled & self.annotatable).sum(0)[defined] / known[defined]
            figures["visibility accuracy"] = float(per_keypoint.mean())
            figures["majority accuracy"] = float(np.maximum(share, 1 - share).mean())
            names = np.array(self.skeleton.keypoints)[defined]
            for name, value in zip(names.tolist(), per_keypoint, strict=True):
                figures[f"visibility accuracy {name}"] = float(value)
        return {name: value for name, value in figures.items() if np.isfinite(value)}


class OriginalLabels(NamedTuple):
    """Labels of N people in pixel indices of the original images."""

    keypoints: np.ndarray  # (N, K, 3) float64, 0 if not labeled
    areas: np.ndarray  # (N,)
    scale: np.ndarray  # (N, 1, 2) original = source's image * scale + shift
    shift: np.ndarray  # (N, 1, 2)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Convert points (N, P, 2) from pixel indices of the source's images to those of the original images."""
        return points * self.scale + self.shift


def original_labels(batch: dict[str, Tensor]) -> OriginalLabels:
    """Return the labels of a batch of crops."""
    n = {name: batch[name].cpu().numpy() for name in ("to_image", "keypoints", "area")}
    scale, shift = n["to_image"][:, None, :2], n["to_image"][:, None, 2:]
    keypoints = n["keypoints"].astype(np.float64)
    keypoints[..., :2] = keypoints[..., :2] * scale + shift
    keypoints[keypoints[..., 2] == 0] = 0
    return OriginalLabels(keypoints, n["area"] * scale.prod(axis=(1, 2)), scale, shift)


class ResultCollector:
    """Collects estimates and labels of batches. `rows` of several processes can be joined."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.rows: list[dict[str, Any]] = []

    def add(self, batch: dict[str, Tensor], found: Estimate) -> None:
        """Add a batch of crops and the estimates on it."""
        n = {name: value.cpu().numpy() for name, value in batch.items() if name != "crop"}
        labels = original_labels(batch)
        edges = labels.to_image(n["box"].reshape(-1, 2, 2) - 0.5) + 0.5
        self.rows.append({
            "place": n["place"],
            "points": labels.to_image(found.points),
            "heat": found.heat,
            "visibility": found.visibility,
            "similarity": found.similarity,
            "keypoints": labels.keypoints,
            "boxes": edges.reshape(-1, 4),
            "areas": labels.areas,
            "annotatable": n["annotatable"].astype(bool),
            "images": np.stack([n["source"], n["image_id"]], axis=1),
        })  # fmt: skip

    def outcome(self) -> ValidationResults:
        """Return everything collected, in the order of the people.

        Raises:
            ArgumentError: nothing was collected, because no image could be read.
        """
        if not self.rows:
            raise ArgumentError("validation must have images that can be read, got none")
        joined: dict[str, Any] = {
            name: None if self.rows[0][name] is None else np.concatenate([row[name] for row in self.rows])
            for name in self.rows[0]
        }
        _, order = np.unique(joined.pop("place"), return_index=True)
        ordered: dict[str, Any] = {n: None if v is None else v[order] for n, v in joined.items()}
        return ValidationResults(**ordered, skeleton=self.skeleton)


__all__ = [
    "CropDataset", "CropSettings", "Estimate", "ResultCollector", "ValidationResults", "estimate", "ordered_loader",
    "original_labels",
]  # fmt: skip
