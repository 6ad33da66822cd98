"""How far figures of each keypoint's own heatmap go: gradient boosting in KS-net's place, on people new to the pose network.

    pip install scikit-learn
    python benchmarks/boosted_ks.py POSE_NETWORK --data DIR [--packed DIR] [--ks KS_NETWORK]

The people are those that the pose network's recipe holds out. The boosting is fitted in five turns, each time to four
fifths of their images, and judged on the rest. With KS-net, a second table shows both on the people whom KS-net's recipe
holds out. Rows with true visibility or true KS say what perfect knowledge of one of the two would be worth.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingRegressor

from oaks import ops
from oaks.training.checkpoint import load_network
from oaks.training.data.people import fold_of
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.networks.ks_net import MapFigures
from oaks.training.recipe import Recipe, parse_recipe
from oaks.training.validation import CropSettings, ResultCollector, ValidationResults, estimates, pearson
from oaks.val.coco_eval import coco_metrics

TURNS = 5


def look(
    pose: torch.nn.Module, ks: torch.nn.Module | None, recipe: Recipe, place: DataFolders, view: CropSettings
) -> tuple[ValidationResults, np.ndarray, list[str]]:
    """What the networks say on the people held out, (N, K, 6) figures of their maps, and the sources' names."""
    people = open_data(recipe.data, view.skeleton, place).validation
    figures_of = MapFigures(len(view.skeleton.keypoints))
    figures_of.norm = torch.nn.Identity()
    collector, figures = ResultCollector(view.skeleton), []
    for batch, found in estimates(pose, people, view, ks=ks):
        collector.add(batch, found)
        figures.append(
            figures_of(torch.from_numpy(found.heatmaps)).reshape(len(found.heat), 6, -1).mT.numpy()
        )
    return collector.outcome(), np.concatenate(figures), [source.name for source in people]


def boosted(outcome: ValidationResults, figures: np.ndarray) -> np.ndarray:
    """KS (N, K) as boosting tells it that was fitted to other images."""
    count, keypoints, _ = figures.shape
    width, height = (outcome.boxes[:, 2:] - outcome.boxes[:, :2]).T
    of_person = np.stack([np.sqrt(width * height), width / height], axis=1)[:, None].repeat(keypoints, axis=1)
    of_keypoint = np.arange(keypoints)[None, :, None].repeat(count, axis=0)
    known = np.concatenate([figures, outcome.visibility[..., None], of_person, of_keypoint], axis=2)
    ks, _ = outcome.true_similarity()
    labeled = outcome.keypoints[..., 2] > 0
    turn = outcome.images[:, 1] % TURNS
    told = np.zeros((count, keypoints), np.float32)
    for number in range(TURNS):
        learnt = labeled & (turn != number)[:, None]
        model = HistGradientBoostingRegressor(
            max_iter=300, learning_rate=0.05, max_leaf_nodes=15, l2_regularization=1, random_state=0
        ).fit(known[learnt], ks[learnt])
        asked = known[turn == number]
        told[turn == number] = model.predict(asked.reshape(-1, asked.shape[2])).reshape(len(asked), keypoints)
    return told.clip(0, 1)


def chosen(outcome: ValidationResults, rows: np.ndarray) -> ValidationResults:
    """Some of the people."""
    arrays = {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name != "skeleton"}
    return replace(outcome, **{n: None if v is None else v[rows] for n, v in arrays.items()})


def show(title: str, outcome: ValidationResults, told: np.ndarray) -> None:
    """The table of one group of people."""
    truth = outcome.truth()
    order = truth.ids - 1
    ks, oks = outcome.true_similarity()
    seen = (outcome.keypoints[..., 2] > 0).astype(np.float32)
    scores = {
        "conventional": ops.conventional_score(outcome.heat),
        "heat value, true visibility": ops.score(outcome.heat, seen),
        "boosting": ops.score(told, outcome.visibility),
        "boosting, true visibility": ops.score(told, seen),
    }
    if outcome.similarity is not None:
        scores |= {
            "KS-net": ops.score(outcome.similarity, outcome.visibility),
            "KS-net, true visibility": ops.score(outcome.similarity, seen),
        }
    scores |= {
        "true KS, predicted visibility": ops.score(ks.astype(np.float32), outcome.visibility),
        "oracle": oks,
    }
    judged = {
        name: coco_metrics(truth, truth.image, outcome.points[order], np.asarray(score, float)[order])
        for name, score in scores.items()
    }
    low, high = judged["conventional"]["AP"], judged["oracle"]["AP"]
    table = Table(
        "score", "AP", "AP75", "gap closed %", "Pearson with OKS", title=f"{title}: {len(oks)} people"
    )
    for name, figures in judged.items():
        table.add_row(
            name, f"{100 * figures['AP']:.1f}", f"{100 * figures['AP75']:.1f}",
            f"{100 * (figures['AP'] - low) / (high - low):.0f}", f"{pearson(np.asarray(scores[name]), oks):.3f}",
        )  # fmt: skip
    Console(width=100).print(table)


def main(
    pose: Annotated[Path, typer.Argument(help="network.safetensors of the pose network.")],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's paths begin at.")],
    packed: Annotated[Path | None, typer.Option(help="Folder of packed people (oaks pack).")] = None,
    ks: Annotated[Path | None, typer.Option(help="network.safetensors of a KS-net for it.")] = None,
) -> None:
    """Fit, judge and print."""
    network, description = load_network(pose)
    ks_network, of_ks = load_network(ks) if ks else (None, None)
    recipe = parse_recipe(description["recipe"], str(pose))
    # Sources of which nobody is held out are not opened at all.
    wanted = [source for source in recipe.data.train if source.hold_out]
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": wanted})})
    outcome, figures, names = look(
        network, ks_network, recipe, DataFolders(data, packed), CropSettings.of(description)
    )
    told = boosted(outcome, figures)
    show("Held out from the pose network", replace(outcome, similarity=None), told)
    if of_ks is not None:
        folds = of_ks["recipe"]["data"]["folds"]
        fold = [
            fold_of(names[source], np.array([image]), folds["count"])[0] for source, image in outcome.images
        ]
        rows = np.flatnonzero(np.array(fold) == folds["held_out"])
        show("Held out from both", chosen(outcome, rows), told[rows])


if __name__ == "__main__":
    typer.run(main)
