"""The trainings behind a bundle, one after another: `oaks train-series small --data DIR`.

Stopped at any moment, the same command goes on where it was.
"""

from __future__ import annotations

import time
from pathlib import Path

from oaks.arguments import check_choice
from oaks.training.data.sources import DataFolders
from oaks.training.recipe import KSRecipe, read_recipe
from oaks.training.run import Hardware, RunFolder, resume, train

SERIES = {
    "small": ("small_pose", "small_pose_fine", "small_pose_longer"),
    "tiny": ("tiny_pose", "tiny_pose_fine"),
    "rendered": ("rendered_oa_hpe", "rendered_ks_net"),
    "detector": ("person_detector", "person_detector_fine"),
}
"""In the order of training: each recipe names the networks of those before it; a KS-net comes last."""


def train_series(
    which: str,
    data: Path | None = None,
    *,
    runs: Path = Path("runs"),
    packed: Path | None = None,
    max_minutes: float | None = None,
    accelerator: str = "auto",
) -> list[Path] | None:
    """Trains what is not trained yet.

    Args:
        which: a key of SERIES.
        data: folder that the recipes' paths begin at; by default the working directory, or for a training that is
            gone on with where it has found its data so far.
        runs: folder of the trainings, each named as its recipe. The recipes look for each other's networks in
            `runs` of the working directory.
        packed: folder of packed people (`oaks pack`); replaces the one of a training that is gone on with.
        max_minutes: stop with a checkpoint after so long, counted over all trainings.
        accelerator: "auto", "cpu" or "gpu".

    Returns:
        The files of the pose network and, if the series has one, the KS-net, or of the detector; None if the time was
        up before all was trained.

    Raises:
        ArgumentError: `which` is unknown, or a recipe's data do not fit.
        FileNotFoundError: data are not there.
    """
    check_choice("which", which, SERIES)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    for name in SERIES[which]:
        left = None if deadline is None else max(0.0, (deadline - time.monotonic()) / 60)
        if not _complete(name, runs / name, data, packed, Hardware(accelerator, max_minutes=left)):
            return None
    *earlier, last = SERIES[which]
    kept = [*earlier[-1:], last] if isinstance(read_recipe(last), KSRecipe) else [last]
    return [RunFolder(runs / name).network for name in kept]


def _complete(name: str, folder: Path, data: Path | None, packed: Path | None, machine: Hardware) -> bool:
    """Whether the training in `folder` is complete, after starting or going on with it if it was not."""
    run = RunFolder(folder)
    if run.complete():
        return True
    if run.settings.exists():
        return resume(folder, machine, data=data, packed=packed) is not None
    return train(read_recipe(name), folder, DataFolders(data or Path(), packed), machine) is not None


__all__ = ["SERIES", "train_series"]
