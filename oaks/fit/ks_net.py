"""Fits a KS network with a visibility head as the scorer of a frozen heatmap network, on the maps themselves."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.files import replacing
from oaks.fit.boosting import folds_of
from oaks.fit.card import check_people, filled
from oaks.fit.people import People
from oaks.fit.recalibration import calibrated, fit_scale_and_bias, logits_of, targets_of
from oaks.fit.report import Fitted, KSNetScorer, compared, measured_with, summary
from oaks.progress import bars
from oaks.scorer import Card

if TYPE_CHECKING:
    import torch

log = logging.getLogger("oaks")

NETWORK = MappingProxyType(
    {"backbone": "resnet18", "width": 0.25, "fine": True, "figures": True, "hidden": 256}
)
"""The KS network of the recipe `tiny_ks_net`."""
COMPARED = 32
"""Number of people on whose maps the exported network is compared with the torch network."""


@dataclass(frozen=True)
class KSNetSettings:
    """Settings of the training of the KS network.

    Attributes:
        network: arguments of oaks.training.networks.KSNet: backbone and sizes.
        epochs: how often every person is drawn; every second time mirrored.
        batch: people per step.
        learning_rate: the highest learning rate; it follows a cosine.
        weight_decay: weight decay of AdamW.
        folds: number of parts into which the images are divided for out-of-fold predictions; there is one training for
            each part, and one on all people.
        seed: random seed.
    """

    network: Mapping[str, Any] = field(default_factory=lambda: dict(NETWORK))
    epochs: float = 8
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    folds: int = 3
    seed: int = 0


def fit_ks_net(
    people: People,
    maps: np.ndarray,
    card: Card,
    keep: Path,
    *,
    settings: KSNetSettings | None = None,
    resamples: int = 1000,
) -> Fitted:
    """Train a KS network on heatmaps (N, K, h, w), out of fold and then on all people.

    The loss is the cross entropy of keypoint similarity (labeled keypoints) and of visibility (all keypoints). The
    weights of each training are stored in `keep`, so that a stopped run resumes after the last finished training.

    Args:
        people: the people of the maps.
        maps: flip-averaged maps, float16.
        card: card of the scorer; its figures are completed here.
        keep: folder of the heatmaps.
        settings: settings of the training.
        resamples: number of bootstrap resamples.

    Raises:
        ArgumentError: there are fewer people than map features.
        ModuleNotFoundError: torch or onnx is not installed.
    """
    settings = settings or KSNetSettings()
    warnings = check_people(people, len(card.features))
    for warning in warnings:
        log.warning("%s", warning)
    fold = folds_of(people.images, settings.folds, settings.seed)
    runs = [np.flatnonzero(people.known & (fold != number)) for number in range(settings.folds)]
    runs.append(np.flatnonzero(people.known))
    folder = keep / f"ks-net-{_key(settings, people)}"
    with bars() as progress:
        task = progress.add_task(
            "Training KS networks", total=sum(_steps(len(used), settings) for used in runs)
        )
        training = _Training(people, maps, settings, lambda: progress.advance(task))
        networks = [
            training.network(used, folder / f"{number}.safetensors") for number, used in enumerate(runs)
        ]
    similarity, visibility = (np.zeros(people.heat.shape) for _ in range(2))
    for number, network in enumerate(networks[:-1]):
        rows = np.flatnonzero(fold == number)
        similarity[rows], visibility[rows] = predicted(network, maps[rows])
    calibration, predictions = _calibrated(people, similarity, visibility)
    measured = measured_with(people.truth, people.detections, *predictions)
    comparisons = compared(measured, resamples=resamples, seed=settings.seed)
    card = filled(
        card, people, summary(measured, comparisons), {"epochs": settings.epochs, "seed": settings.seed}
    )
    scorer = KSNetScorer(card, exported(networks[-1], maps[:COMPARED]), training.architecture, calibration)
    return Fitted(scorer, measured, comparisons, tuple(warnings))


def _calibrated(
    people: People, *uncalibrated: np.ndarray
) -> tuple[dict[str, dict[str, float]], list[np.ndarray]]:
    """Return scale and bias of the logits of similarity and visibility (N, K), and the calibrated predictions."""
    numbers, values = {}, []
    heads = zip(("similarity", "visibility"), uncalibrated, targets_of(people), strict=True)
    for name, prediction, (target, counted) in heads:
        logits = logits_of(prediction)
        scale, bias = fit_scale_and_bias(logits[counted], target[counted])
        numbers[name] = {"scale": round(scale, 6), "bias": round(bias, 6)}
        values.append(calibrated(logits, scale, bias))
    return numbers, values


def _key(settings: KSNetSettings, people: People) -> str:
    """Return a hash of everything that the weights depend on."""
    stated = json.dumps(
        {**asdict(settings), "people": people.truth.ids[people.detections.own].tolist()}, default=dict
    )
    return hashlib.sha256(stated.encode()).hexdigest()[:12]


def _steps(people: int, settings: KSNetSettings) -> int:
    """Return the number of steps of a training on so many people."""
    return max(1, round(settings.epochs * math.ceil(people / settings.batch)))


@dataclass(frozen=True)
class _Training:
    """The trainings of KS networks on parts of the same people.

    Attributes:
        people: all people.
        maps: (N, K, h, w) their maps.
        settings: settings of each training.
        step_done: called after every step.
    """

    people: People
    maps: np.ndarray
    settings: KSNetSettings
    step_done: Callable[[], object]

    @property
    def architecture(self) -> dict[str, Any]:
        """The networks' description for oaks.training.networks.build."""
        keypoints = self.maps.shape[1]
        return {"name": "ks_net", **self.settings.network, "visibility": True, "keypoints": keypoints}

    def network(self, used: np.ndarray, path: Path) -> torch.nn.Module:
        """Return a network trained on the people `used`, or the one that an earlier run stored in `path`."""
        import torch
        from safetensors.torch import load_file, save

        from oaks.training.networks import build

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = build(self.architecture)
            if path.is_file():
                network.load_state_dict(load_file(path))
                for _ in range(_steps(len(used), self.settings)):
                    self.step_done()
                return network.eval()
            self.train(network, used)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(save({name: value.contiguous() for name, value in network.state_dict().items()}))
        return network.eval()

    def train(self, network: torch.nn.Module, used: np.ndarray) -> None:
        """Train a network on the people `used`."""
        import torch
        from torch.nn import functional

        from oaks.training.losses import similarity_loss

        people, settings, steps = self.people, self.settings, _steps(len(used), self.settings)
        network.train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        rng, mirror = np.random.default_rng(settings.seed), people.truth.skeleton.mirror
        order = np.concatenate(
            [rng.permutation(used) for _ in range(math.ceil(steps * settings.batch / len(used)))]
        )
        similarities, labels = people.similarity, people.labeled
        for step in range(steps):
            rows = order[step * settings.batch : (step + 1) * settings.batch]
            parts = [self.maps[rows].astype(np.float32), similarities[rows], labels[rows]]
            if step % 2:  # the averaged maps of the mirrored person
                parts = [part[:, mirror] for part in parts]
                parts[0] = parts[0][..., ::-1]
            given, ks, labeled = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts)
            similarity, visibility = network(given)
            seen = functional.binary_cross_entropy_with_logits(visibility, labeled, reduction="none")
            loss = similarity_loss(similarity, ks, labeled, "cross_entropy") + seen.sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            self.step_done()


def predicted(network: torch.nn.Module, maps: np.ndarray, batch: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Return uncalibrated similarity and visibility (n, K) of maps (n, K, h, w)."""
    import torch

    found = []
    with torch.inference_mode():
        for first in range(0, len(maps), batch):
            outputs = network(torch.from_numpy(maps[first : first + batch].astype(np.float32)))
            found.append([torch.sigmoid(output).numpy() for output in outputs])
    similarity, visibility = (np.concatenate(column) for column in zip(*found, strict=True))
    return similarity, visibility


def exported(network: torch.nn.Module, maps: np.ndarray) -> bytes:
    """Return the network as ONNX, stored in fp16 and compared with the torch network on these maps.

    Raises:
        ExportError: it differs too much from the torch network.
    """
    from oaks.engines.export.export import TrainedNetwork, check_differences, graph_of, models

    samples = maps.astype(np.float32)
    part = TrainedNetwork("ks", Path(), network, {}, samples, samples[:0])
    ((_, model, rows),) = models(part, graph_of(part), ("fp16",), {}, None)
    check_differences(rows)
    return model.SerializeToString()


__all__ = ["KSNetSettings", "exported", "fit_ks_net", "predicted"]
