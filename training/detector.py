"""Training the person detector: its images, one step, and validation on images that are held out."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from oaks.detector_formats import decode_centers
from oaks.errors import ArgumentError
from oaks.training.data.detection import DetectionImages, Letterboxed, People, Windows, read_detection
from oaks.training.data.people import digest_of, fold_of
from oaks.training.data.sampling import init_worker
from oaks.training.data.sources import DataFolders
from oaks.training.losses import DetectionLoss, detection_loss
from oaks.training.module import NetworkTraining, loader_from_here, places_of_process
from oaks.training.networks import build
from oaks.training.networks.detector import STRIDE
from oaks.training.recipe import DetectionData, DetectorRecipe

THRESHOLD = 0.05
"""Least score of boxes that validations count; those that are used have a higher one."""


class ImageSplit(NamedTuple):
    """Images by what they are for, with how often each source is drawn from."""

    train: list[DetectionImages]
    weights: list[float]
    validation: list[DetectionImages]

    def digest(self) -> str:
        """Of the labels of all of them."""
        return digest_of(*(source.digest() for source in (*self.train, *self.validation)))


def open_images(data: DetectionData, place: DataFolders, tell: Callable[[str], object] = str) -> ImageSplit:
    """All images that a recipe trains and validates on; validated are those with complete annotations alone.

    Args:
        data: the recipe's.
        place: where to find them.
        tell: is given one line on each source.

    Raises:
        FileNotFoundError: a file or a folder is missing.
        ArgumentError: a file does not fit, or nothing is left to train on.
    """
    train, weights, validation = [], [], []
    for source in data.train:
        for path in (source.annotations, source.images):
            if not (place.data / path).exists():
                raise FileNotFoundError(
                    f"{source.name} not found: {place.data / path}; name the folder that {path} lies in with --data"
                )
        images = read_detection(
            source.name, place.data / source.annotations, place.data / source.images,
            background=source.background,
        )  # fmt: skip
        if source.limit is not None:
            images = images.subset(np.arange(min(source.limit, len(images))))
        everything = np.arange(len(images))
        kept, held = everything, everything[:0]
        if data.folds is not None:
            fold = fold_of(images.name, images.image_ids, data.folds.count)
            held = everything[fold == data.folds.held_out]
            trained = data.folds.trained
            kept = everything[fold != data.folds.held_out if trained is None else np.isin(fold, trained)]
        held = np.array([i for i in held if images.people[i].complete], np.int64)
        tell(
            f"{images.name}: {len(kept)} of {len(images)} images trained on, {len(held)} complete ones held out"
        )
        if len(kept):
            train.append(images.subset(kept))
            weights.append(source.weight if source.weight is not None else len(kept))
        if source.hold_out and len(held):
            validation.append(images.subset(held))
    if not train:
        raise ArgumentError("data must have images to train on beside the held-out fold, got none")
    return ImageSplit(train, weights, validation)


class DetectorTraining(NetworkTraining):
    """A detector on augmented windows; validation takes the averaged weights along the path of use."""

    def __init__(self, recipe: DetectorRecipe, steps: int, steps_per_epoch: int) -> None:
        super().__init__(recipe, build(recipe.architecture()), steps, steps_per_epoch)
        self.recipe: DetectorRecipe
        self.found: list[tuple[int, np.ndarray, np.ndarray]] = []  # place, boxes, scores
        self.mean: Tensor
        self.std: Tensor
        self.middles: Tensor
        self.register_buffer("mean", torch.tensor(recipe.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(recipe.std)[:, None, None], persistent=False)
        w, h = recipe.input[0] // STRIDE, recipe.input[1] // STRIDE
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        self.register_buffer("middles", (torch.stack([xs, ys]) + 0.5) * STRIDE, persistent=False)

    def description(self) -> dict[str, Any]:
        """What is saved with the network; see `oaks.training.checkpoint`."""
        recipe = self.recipe
        return {
            "kind": "detector",
            "architecture": recipe.architecture(),
            "input": {
                "size": list(recipe.input),
                "mean": list(recipe.mean),
                "std": list(recipe.std),
                "color": "rgb",
            },
            "stride": STRIDE,
            "overlap": recipe.overlap,
            "trained_on": [source.name for source in recipe.data.train],
            "recipe": recipe.model_dump(mode="json"),
            "license": recipe.license,
        }

    def loss(self, batch: dict[str, Tensor]) -> DetectionLoss:
        """The two parts of the loss of one batch of `Windows`."""
        centers, sizes, offsets = self.network(self.normalized(batch["pixels"]))
        middles, sizes = self.middles + offsets.float(), sizes.float()
        boxes = torch.cat([middles - sizes / 2, middles + sizes / 2], dim=1)
        return detection_loss(centers, boxes, batch["heat"], batch["weight"], batch["boxes"], batch["share"])

    def normalized(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to the network's input (N, 3, H, W)."""
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The total loss of one batch, logged with its parts."""
        self.count_undecodable(batch)
        loss = self.loss(batch)
        total = loss.center + self.recipe.box_weight * loss.box
        self.log("loss", total, prog_bar=True)
        self.log("center_loss", loss.center, prog_bar=True)
        self.log("box_loss", loss.box, prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Boxes in one batch of `Letterboxed`, in pixels of the images."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            outputs = self.best.eval()(self.normalized(batch["pixels"]))
        maps = [value.float().cpu().numpy() for value in outputs]
        for i, (place, scale) in enumerate(
            zip(batch["place"].tolist(), batch["scale"].cpu().numpy(), strict=True)
        ):
            boxes, scores = decode_centers(
                *(value[i] for value in maps), stride=STRIDE, threshold=THRESHOLD, overlap=self.recipe.overlap
            )
            self.found.append((place, boxes / np.tile(scale, 2), scores))

    def on_validation_epoch_end(self) -> None:
        """Logs the average precision on all held-out images, gathered from all processes."""
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.found)
            self.found = [row for part in parts for row in part]
        data: ImageModule = self.trainer.datamodule  # type: ignore[attr-defined]  # which Lightning sets
        images = Letterboxed(data.split.validation, self.recipe.input)
        truths = [images.people(place) for place, _, _ in self.found]
        figures = average_precision([(boxes, scores) for _, boxes, scores in self.found], truths)
        self.found = []
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, sync_dist=True)


def average_precision(
    found: Sequence[tuple[np.ndarray, np.ndarray]], truths: Sequence[People]
) -> dict[str, float]:
    """COCO's box AP, AP50 and AR100 of people; crowds are ignored.

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


class ImageModule(lightning.LightningDataModule):
    """Loaders that begin where the training stands."""

    def __init__(self, recipe: DetectorRecipe, split: ImageSplit, steps: int) -> None:
        super().__init__()
        self.recipe, self.split, self.steps = recipe, split, steps

    def train_dataloader(self) -> Any:
        """Augmented windows from the step on that the trainer has reached."""
        training, sources = self.recipe.training, self.split.train
        windows = Windows(
            sources, self.recipe.augmentation, size=self.recipe.input, stride=STRIDE, seed=training.seed
        )
        lengths = [len(source) for source in sources]
        return loader_from_here(self, training, windows, lengths, self.split.weights, self.steps)

    def val_dataloader(self) -> Any:
        """All held-out images, shared between the processes."""
        if not self.split.validation:
            return []
        images = Letterboxed(self.split.validation, self.recipe.input)
        places = list(places_of_process(self, len(images)))
        training = self.recipe.training
        return DataLoader(
            images, batch_size=training.batch, sampler=places, num_workers=training.workers,
            worker_init_fn=init_worker,
        )  # fmt: skip


__all__ = ["DetectorTraining", "ImageModule", "ImageSplit", "average_precision", "open_images"]
