"""What a training leaves: the network with its metrics card, written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import lightning
import torch

import oaks
from oaks.training.checkpoint import save_network
from oaks.training.module import NetworkTraining


def write_text(path: Path, text: str) -> None:
    """Writes beside `path` and renames."""
    staged = path.with_name(path.name + ".part")
    staged.write_text(text, encoding="utf-8")
    os.replace(staged, path)


class NetworkKeeper(lightning.Callback):
    """After every validation writes the network and, last, its metrics card.

    Attributes:
        step: of the training at which both were last written.
    """

    def __init__(self, network: Path, card: Path, lines: list[str]) -> None:
        self.network, self.card, self.lines = network, card, lines
        self.commit = commit()
        self.step: int | None = None

    def on_validation_end(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        """Writes both."""
        self.write(trainer, module)

    def write(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        """Writes both, from the first process. A card of the last step says that the training is complete."""
        self.step = trainer.global_step
        if not trainer.is_global_zero:
            return
        measured = {n: v for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
        figures = {name.removeprefix("val/"): round(float(value), 6) for name, value in measured.items()}
        recipe = module.recipe.model_dump(mode="json")
        card = {
            "recipe": recipe["title"],
            "step": trainer.global_step,
            "steps": module.steps,
            "data": self.lines,
            "damaged images passed over": int(module.damaged),
            "damaged images left out of the validation": module.left_out,
            "metrics": figures,
            "commit": self.commit,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": f"{trainer.world_size} × {trainer.strategy.root_device}, {platform.machine()}",
            "precision": recipe["training"]["precision"],
            "versions": {
                "oaks": oaks.__version__,
                "torch": torch.__version__,
                "lightning": lightning.__version__,
            },
        }
        save_network(self.network, module.best, {**module.description(), "metrics": figures, "card": card})
        write_text(self.card, json.dumps(card, indent=1))


def commit() -> str | None:
    """The commit of the source tree that this file lies in, marked if it has changes; None outside of one."""
    here = Path(__file__).parent
    try:
        # Installed into an environment that lies in somebody's own repository, it is none of its files.
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=here,
            capture_output=True,
            check=True,
        )
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-changed" if changes.stdout.strip() else "")


__all__ = ["NetworkKeeper", "commit", "write_text"]
