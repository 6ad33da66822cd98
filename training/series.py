"""Runs the trainings of a bundle one after another: `oaks train-series small --data DIR`.

After a stop, the same command resumes.
"""

from __future__ import annotations

import time
from pathlib import Path

from oaks.arguments import check_choice
from oaks.training.recipe import KSRecipe, read_recipe
from oaks.training.run import Hardware, train_or_resume

SERIES = {
    "small": ("small_pose", "small_pose_fine", "small_pose_longer"),
    "tiny": (
        "tiny_pose",
        "tiny_pose_fine",
        "tiny_pose_larger",
        "tiny_pose_longer",
        "tiny_pose_varied",
        "tiny_pose_mean",
    ),
    "rendered": ("rendered_oa_hpe", "rendered_ks_net"),
    "detector": (
        "person_detector",
        "person_detector_fine",
        "person_detector_longer",
        "person_detector_varied",
        "person_detector_mean",
    ),
}
"""Recipes in the order of training: each names the networks of those before it; a KS-net comes last."""


def train_series(
    which: str,
    data: Path | None = None,
    *,
    runs: Path = Path("runs"),
    packed: Path | None = None,
    max_minutes: float | None = None,
    accelerator: str = "auto",
) -> list[Path] | None:
    """Run the trainings that are not complete.

    Args:
        which: a key of SERIES.
        data: folder that the recipes' paths are relative to; default: the working directory, or for a resumed training
            the folder that it was started with.
        runs: folder of the trainings, each named as its recipe. The recipes look for each other's networks in
            `runs` of the working directory.
        packed: folder of packed people (`oaks pack`); replaces that of a resumed training.
        max_minutes: time after which the current training stops with a checkpoint; None: no limit.
        accelerator: "auto", "cpu" or "gpu".

    Returns:
        The files of the pose network and, if the series has one, the KS-net, or of the detector; None if the time limit
        was reached first.

    Raises:
        ArgumentError: `which` is unknown, or a recipe's data do not fit.
        FileNotFoundError: data are missing.
    """
    check_choice("which", which, SERIES)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    networks = []
    for name in SERIES[which]:
        left = None if deadline is None else max(0.0, (deadline - time.monotonic()) / 60)
        recipe, machine = read_recipe(name), Hardware(accelerator, max_minutes=left)
        network = train_or_resume(recipe, runs / name, machine, data=data, packed=packed)
        if network is None:
            return None
        networks.append(network)
    return networks[-2:] if isinstance(recipe, KSRecipe) else networks[-1:]


__all__ = ["SERIES", "train_series"]
