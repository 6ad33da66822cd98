"""The files of one training in a folder; importing this loads no Lightning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from oaks.errors import ArgumentError
from oaks.files import write_json, write_text
from oaks.structured import read_json, read_yaml, require
from oaks.training.data.sources import DataFolders
from oaks.training.recipe import AnyRecipe, parse_recipe

LAST = "last.ckpt"


class _PlainDumper(yaml.SafeDumper):
    """Writes no aliases, which the reader of recipes refuses."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


class RunFolder:
    """The files of one training.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe, self.settings = self.path / "recipe.yaml", self.path / "run.json"
        self.checkpoint, self.network = self.path / LAST, self.path / "network.safetensors"
        self.card, self.logs = self.path / "metrics.json", self.path / "logs"
        self.rendered, self.heatmaps = self.path / "rendered", self.path / "heatmaps"
        self.prepared = self.path / "prepared.json"

    def refuse_begun(self) -> None:
        """Raise ArgumentError if the folder already holds a training."""
        if (
            self.settings.exists() and is_first_process()
        ):  # other processes may find what the first has written
            raise ArgumentError(
                f"out must be a new folder, got {self.path}, which already holds a training; resume it with "
                f"--resume {self.path}, or pass another folder"
            )

    def record(self, recipe: AnyRecipe, place: DataFolders, people: str) -> None:
        """Write the recipe and the settings, in the first process.

        Args:
            recipe: recipe of the training.
            place: folders of the sources.
            people: digest of the split.

        Raises:
            ArgumentError: the checkpoint's training used other people.
        """
        if not is_first_process():
            return
        begun = read_json(self.settings, top=dict) if self.settings.exists() else {}
        if self.checkpoint.exists() and begun.get("people", people) != people:
            raise ArgumentError(
                f"data must be the people that {self.path} was started with (data {begun['data']}, packed "
                f"{begun['packed']}), got others in data {place.data}, packed {place.packed}"
            )
        settings = {
            "data": str(place.data.resolve()),
            "packed": str(place.packed.resolve()) if place.packed else None,
            "people": people,
        }
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(
            self.recipe, yaml.dump(recipe.model_dump(mode="json"), Dumper=_PlainDumper, sort_keys=False)
        )
        write_json(self.settings, settings, indent=1)

    def complete(self) -> bool:
        """Whether the folder holds a complete training."""
        if not (self.card.is_file() and self.network.is_file()):
            return False
        card = read_json(self.card, top=dict, strict=False)
        require(card, {"step": int, "steps": int}, self.card)
        return card["step"] >= card["steps"]

    def read(self) -> tuple[AnyRecipe, DataFolders]:
        """Return what `record` wrote.

        Raises:
            ArgumentError: no training was started in the folder.
        """
        if not self.settings.is_file():
            raise ArgumentError(
                f"resume must be the folder of a training, got {self.path}, where no training was started; if it was "
                "stopped while its data were prepared, repeat the first command"
            )
        settings = read_json(self.settings, top=dict)
        require(settings, {"data": str, "packed": (str, type(None))}, self.settings)
        recipe = parse_recipe(read_yaml(self.recipe), str(self.recipe))
        packed = Path(settings["packed"]) if settings["packed"] else None
        return recipe, DataFolders(Path(settings["data"]), packed, self.rendered)


def is_first_process() -> bool:
    """Whether this is the process that writes files: rank 0 of those that Lightning or a cluster starts."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name, 0)) == 0 for name in ranks)


__all__ = ["LAST", "RunFolder", "is_first_process"]
