"""Training of the person detector: its images, one step, and validation on held-out images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oaks.detector_formats import decode_centers
from oaks.errors import ArgumentError
from oaks.training.data.detection import DetectionImages, ImageBoxes, Letterboxed, Windows, read_detection
from oaks.training.data.people import digest_of
from oaks.training.data.sampling import sample_readable
from oaks.training.data.sources import DataFolders, Split, existing, split_folds
from oaks.training.losses import DetectionLoss, detection_loss
from oaks.training.module import NetworkTraining, PixelNormalization, TrainingData
from oaks.training.networks.detector import STRIDE
from oaks.training.recipe import DetectionData, DetectorRecipe

THRESHOLD = 0.05
"""Smallest score of a box in validations, lower than the thresholds of bundles."""


class ImageSplit(Split[DetectionImages]):
    """The images of training and validation."""

    def digest(self) -> str:
        """Return the digest of all labels."""
        return digest_of(*(source.digest() for source in (*self.train, *self.validation)))


def open_images(data: DetectionData, place: DataFolders, tell: Callable[[str], object] = str) -> ImageSplit:
    """Open all images that a recipe trains and validates on. Only completely annotated images are validated on.

    Args:
        data: the recipe's data.
        place: folders of the sources.
        tell: called with one line per source.

    Raises:
        FileNotFoundError: a file or a folder is missing.
        ArgumentError: a file does not fit, no training images are left, or none of a source's images can be read.
    """
    split = ImageSplit()
    for source in data.train:
        annotations, folder = existing(place.data, source.annotations, source.images)
        images = read_detection(source.name, annotations, folder, background=source.background)
        if source.limit is not None:
            images = images.subset(np.arange(min(source.limit, len(images))))
        trained, held_out = split_folds(images, data.folds)
        held_out = np.array([i for i in held_out if images.people[i].complete], np.int64)
        tell(f"{images.name}: {len(trained)} of {len(images)} images trained on, "
             f"{len(held_out)} complete ones held out")  # fmt: skip
        split.add(source, images, trained, held_out)
    split.check_not_empty()
    for images in (*split.train, *split.validation):  # now rather than in the middle of the training
        sample_readable(images, 0)
    return split


class DetectorTraining(NetworkTraining):
    """A detector on augmented windows; validated as at inference."""

    def __init__(self, recipe: DetectorRecipe, steps: int, steps_per_epoch: int) -> None:
        super().__init__(recipe, steps, steps_per_epoch)
        self.recipe: DetectorRecipe
        self.found: list[tuple[int, np.ndarray, np.ndarray]] = []  # place, boxes, scores
        self.normalize = PixelNormalization(recipe.mean, recipe.std)
        self.middles: Tensor
        w, h = recipe.input[0] // STRIDE, recipe.input[1] // STRIDE
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        self.register_buffer("middles", (torch.stack([xs, ys]) + 0.5) * STRIDE, persistent=False)

    def details(self) -> dict[str, Any]:
        """Return the input and the IoU threshold of NMS."""
        recipe = self.recipe
        size, mean, std = (list(values) for values in (recipe.input, recipe.mean, recipe.std))
        return {
            "kind": "detector",
            "input": {"size": size, "mean": mean, "std": std, "color": "rgb"},
            "overlap": recipe.overlap,
        }

    def loss(self, batch: dict[str, Tensor]) -> DetectionLoss:
        """Return the two parts of the loss of a batch of `Windows`."""
        centers, sizes, offsets = self.network(self.normalize(batch["pixels"]))
        middles, sizes = self.middles + offsets.float(), sizes.float()
        boxes = torch.cat([middles - sizes / 2, middles + sizes / 2], dim=1)
        return detection_loss(centers, boxes, batch["heat"], batch["weight"], batch["boxes"], batch["share"])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the total loss of a batch; log it with its parts."""
        self.count_undecodable(batch)
        loss = self.loss(batch)
        total = loss.center + self.recipe.box_weight * loss.box
        self.log_dict({"loss": total, "center_loss": loss.center, "box_loss": loss.box}, prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor] | None, batch_idx: int) -> None:  # noqa: ARG002
        """Collect the boxes found in one batch of `Letterboxed`, in pixels of the images."""
        if batch is None:
            return
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            outputs = self.best.eval()(self.normalize(batch["pixels"]))
        maps = [value.float().cpu().numpy() for value in outputs]
        scales = batch["scale"].cpu().numpy()
        for i, place in enumerate(batch["place"].tolist()):
            boxes, scores = decode_centers(
                *(value[i] for value in maps), stride=STRIDE, threshold=THRESHOLD, overlap=self.recipe.overlap
            )
            self.found.append((place, boxes / np.tile(scales[i], 2), scores))

    def on_validation_epoch_end(self) -> None:
        """Log the average precision on all held-out images."""
        found = self.gathered(self.found)
        if not found:
            raise ArgumentError("validation must have images that can be read, got none")
        images = Letterboxed(self.validation_split().validation, self.recipe.input)
        self.left_out = len(images) - len(found)
        truths = [images.people(place) for place, _, _ in found]
        self.log_metrics(average_precision([(boxes, scores) for _, boxes, scores in found], truths))
        self.found = []


def average_precision(
    found: Sequence[tuple[np.ndarray, np.ndarray]], truths: Sequence[ImageBoxes]
) -> dict[str, float]:
    """Return COCO's box AP, AP50 and AR100 of people; crowds are ignored.

    Args:
        found: boxes (N, 4) xyxy and scores (N,) of each image.
        truths: people of the same images, in the same order.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for image, ((boxes, scores), people) in enumerate(zip(found, truths, strict=True), start=1):
        for kind, corners in enumerate((people.boxes, people.regions)):
            for x1, y1, x2, y2 in corners.astype(float).tolist():
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": kind,
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
                })  # fmt: skip
        for (x1, y1, x2, y2), score in zip(boxes.astype(float).tolist(), scores.tolist(), strict=True):
            rows.append({
                "image_id": image, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score,
            })  # fmt: skip
    if not rows or not annotations:
        return {"AP": 0.0, "AP50": 0.0, "AR": 0.0}
    truth: Any = COCO()
    truth.dataset = {
        "images": [{"id": number + 1} for number in range(len(found))],
        "categories": [{"id": 1}],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"AP": evaluation.stats[0], "AP50": evaluation.stats[1], "AR": evaluation.stats[8]}


class ImageData(TrainingData):
    """Whole images with person boxes."""

    recipe: DetectorRecipe
    split: ImageSplit

    def samples(self) -> tuple[Windows, Sequence[int]]:
        """Return augmented windows."""
        recipe, sources = self.recipe, self.split.train
        windows = Windows(
            sources, recipe.augmentation, size=recipe.input, stride=STRIDE, seed=recipe.training.seed
        )
        return windows, [len(source) for source in sources]

    def held_out(self) -> Letterboxed:
        """Return the validation images, as at inference."""
        return Letterboxed(self.split.validation, self.recipe.input)


__all__ = ["DetectorTraining", "ImageData", "ImageSplit", "average_precision", "open_images"]
