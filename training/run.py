"""One training from a recipe: a folder that holds all of it, started once and resumed as often as need be."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import subprocess
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

import oaks
from oaks.training.checkpoint import save_network
from oaks.training.data.sampling import Draws, Samples, make_loader
from oaks.training.data.sources import Place, Split, open_data
from oaks.training.evaluation import Crops, View, crop_loader
from oaks.training.pieces import (
    LAST,
    Pieces,
    WholeCheckpoints,
    is_first_process,
    piece_number,
    stderr_console,
)
from oaks.training.pose_training import NetworkTraining, PoseTraining
from oaks.training.recipe import KSRecipe, PoseRecipe, parse_recipe

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        accelerator: "auto", "cpu" or "gpu", as Lightning takes it.
        devices: number of processes on this host, or "auto".
        hosts: number of hosts.
        max_minutes: stop with a checkpoint after so long, counted from the start of the command.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    hosts: int = 1
    max_minutes: float | None = None


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
        self.rendered = self.path / "rendered"

    def begin(self, recipe: PoseRecipe | KSRecipe, place: Place) -> None:
        """Writes down what is trained on what.

        Raises:
            ValueError: another training lies there.
        """
        if self.settings.exists() and is_first_process():
            raise ValueError(f"{self.path}: holds a training already; go on with it by --resume {self.path}, "
                             "or name another folder")  # fmt: skip
        if is_first_process():
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.recipe, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
            settings = {
                "data": str(place.data.resolve()),
                "packed": str(place.packed.resolve()) if place.packed else None,
            }
            write_text(self.settings, json.dumps(settings, indent=1))

    def read(self) -> tuple[PoseRecipe | KSRecipe, Place]:
        """What `begin` wrote.

        Raises:
            ValueError: no training was started there.
        """
        if not self.settings.is_file():
            raise ValueError(f"{self.path}: no training was started there")
        settings = json.loads(self.settings.read_text(encoding="utf-8"))
        recipe = parse_recipe(yaml.safe_load(self.recipe.read_text(encoding="utf-8")), str(self.recipe))
        packed = Path(settings["packed"]) if settings["packed"] else None
        return recipe, Place(Path(settings["data"]), packed, self.rendered)


class PeopleModule(lightning.LightningDataModule):
    """Loaders that begin where the training stands."""

    def __init__(self, recipe: PoseRecipe, split: Split, view: View, steps: int) -> None:
        super().__init__()
        self.recipe, self.split, self.view, self.steps = recipe, split, view, steps

    def train_dataloader(self) -> Any:
        """Augmented samples from the step on that the trainer has reached."""
        training, trainer = self.recipe.training, self.trainer
        batch, rest = divmod(training.batch, trainer.world_size)
        if rest:
            raise ValueError(
                f"batch must be a multiple of the {trainer.world_size} processes, got {training.batch}"
            )
        samples = Samples(
            self.split.train, self.recipe.augmentation, size=self.recipe.input, padding=self.recipe.padding,
            skeleton=self.view.skeleton, seed=training.seed,
        )  # fmt: skip
        draws = Draws(
            [len(people) for people in self.split.train], self.split.weights, batch=batch, steps=self.steps,
            start=trainer.global_step, seed=training.seed, rank=trainer.global_rank, processes=trainer.world_size,
        )  # fmt: skip
        return make_loader(samples, draws, training.workers)

    def val_dataloader(self) -> Any:
        """Everyone held out, shared between the processes."""
        if not self.split.validation:
            return []
        crops = Crops(self.split.validation, self.view)
        places = range(self.trainer.global_rank, len(crops), self.trainer.world_size)
        return crop_loader(
            crops, batch=self.recipe.training.batch, workers=self.recipe.training.workers, places=places
        )


def write_text(path: Path, text: str) -> None:
    """Writes beside `path` and renames."""
    staged = path.with_name(path.name + ".part")
    staged.write_text(text, encoding="utf-8")
    os.replace(staged, path)


def train(
    recipe: PoseRecipe | KSRecipe,
    run: str | Path,
    place: Place | None = None,
    machine: Machine | None = None,
    *,
    console: Console | None = None,
) -> Path | None:
    """Starts a training in a new folder; gives the trained network's file, or None if it was stopped before its end.

    Raises:
        ValueError: the folder holds a training already, or the recipe's data do not fit.
        FileNotFoundError: data that the recipe names are not there.
    """
    folder = RunFolder(run)
    place = (place or Place())._replace(rendered=folder.rendered)
    folder.begin(recipe, place)
    return _run(recipe, folder, place, machine or Machine(), console or stderr_console())


def resume(run: str | Path, machine: Machine | None = None, *, console: Console | None = None) -> Path | None:
    """Goes on with the training in a folder, exactly where its last checkpoint is.

    Raises:
        ValueError: no training was started there.
    """
    folder = RunFolder(run)
    recipe, place = folder.read()
    return _run(recipe, folder, place, machine or Machine(), console or stderr_console())


def _run(
    recipe: PoseRecipe | KSRecipe, folder: RunFolder, place: Place, machine: Machine, console: Console
) -> Path | None:
    deadline = None if machine.max_minutes is None else time.monotonic() + 60 * machine.max_minutes
    lightning.seed_everything(recipe.training.seed, verbose=False)
    if isinstance(recipe, KSRecipe):
        from oaks.training.ks_training import prepare_ks

        module, data, lines = prepare_ks(recipe, folder, place, machine, console)
    else:
        module, data, lines = _prepare_pose(recipe, place, console)
    if recipe.initial is not None and not folder.checkpoint.exists():
        from oaks.training.foreign import load_weights

        console.print(str(load_weights(module.network, place.data / recipe.initial.path, recipe.initial)))
    pieces = Pieces(
        folder.path, every_minutes=recipe.training.checkpoint_minutes, deadline=deadline, console=console
    )
    keeper = NetworkKeeper(folder, lines)
    with _quiet_lightning():
        trainer = make_trainer(recipe, folder, machine, module, [pieces, keeper], console)
        trainer.fit(
            module,
            data,
            ckpt_path=folder.checkpoint if folder.checkpoint.exists() else None,
            weights_only=True,
        )
    if trainer.global_step < module.steps:
        console.print(f"[bold]Stopped at step {trainer.global_step} of {module.steps}: {pieces.reason}.[/]\n"
                      f"Go on with: oaks train --resume {folder.path}")  # fmt: skip
        return None
    console.print(f"Trained: {folder.network}")
    return folder.network


def _prepare_pose(
    recipe: PoseRecipe, place: Place, console: Console
) -> tuple[PoseTraining, PeopleModule, list[str]]:
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if is_first_process():
            console.print(line, highlight=False, soft_wrap=True)

    split = open_data(recipe.data, recipe.load_skeleton(), place, tell)
    steps, per_epoch = count_steps(recipe, sum(len(people) for people in split.train))
    module = PoseTraining(recipe, steps, per_epoch)
    return module, PeopleModule(recipe, split, module.view, steps), lines


def count_steps(recipe: PoseRecipe | KSRecipe, people: int) -> tuple[int, int]:
    """Steps of the whole training and of one epoch."""
    per_epoch = math.ceil(people / recipe.training.batch)
    return max(1, round(recipe.training.epochs * per_epoch)), per_epoch


def make_trainer(
    recipe: PoseRecipe | KSRecipe,
    folder: RunFolder,
    machine: Machine,
    module: NetworkTraining,
    callbacks: list[Any],
    console: Console,
) -> lightning.Trainer:
    """Lightning's trainer for one piece: the whole training is one Lightning epoch, validated every so many steps."""
    if console.is_terminal:
        callbacks = [*callbacks, RichProgressBar()]
    piece = f"piece-{piece_number(folder.logs):03d}"
    every = min(max(1, round(recipe.training.validate_every * module.steps_per_epoch)), module.steps)
    processes = machine.hosts * (
        machine.devices if isinstance(machine.devices, int) else torch.cuda.device_count()
    )
    return lightning.Trainer(
        accelerator=machine.accelerator,
        devices=1 if machine.devices == "auto" and not torch.cuda.is_available() else machine.devices,
        num_nodes=machine.hosts,
        strategy="ddp" if processes > 1 else "auto",
        precision=PRECISION[recipe.training.precision],
        max_epochs=1,
        max_steps=module.steps,
        val_check_interval=every,
        num_sanity_val_steps=0,
        gradient_clip_val=recipe.training.clip_gradient,
        log_every_n_steps=recipe.training.log_every,
        logger=[
            CSVLogger(folder.path, name="logs", version=piece),
            TensorBoardLogger(folder.path, name="logs", version="tensorboard"),
        ],
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=console.is_terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


class NetworkKeeper(lightning.Callback):
    """After every validation, and at the end, writes the network and its metrics card."""

    def __init__(self, folder: RunFolder, lines: list[str]) -> None:
        self.folder, self.lines = folder, lines
        self.commit = commit()

    def on_validation_end(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        """Writes both, from the first process."""
        self._write(trainer, module)

    def on_train_end(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        """Writes both, if the training is complete."""
        if trainer.global_step >= module.steps:
            self._write(trainer, module)

    def _write(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        if not trainer.is_global_zero:
            return
        figures = {name.removeprefix("val/"): round(float(value), 6)
                   for name, value in trainer.callback_metrics.items() if name.startswith("val/")}  # fmt: skip
        recipe = module.recipe.model_dump(mode="json")
        card = {
            "recipe": recipe["title"],
            "step": trainer.global_step,
            "steps": module.steps,
            "data": self.lines,
            "damaged images passed over": module.damaged,
            "metrics": figures,
            "commit": self.commit,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {trainer.strategy.root_device}, {trainer.world_size} processes",
            "precision": recipe["training"]["precision"],
            "versions": {
                "oaks": oaks.__version__,
                "torch": torch.__version__,
                "lightning": lightning.__version__,
            },
        }
        write_text(self.folder.card, json.dumps(card, indent=1))
        save_network(
            self.folder.network, module.best, {**module.description(), "metrics": figures, "card": card}
        )


def commit() -> str | None:
    """The commit of the source tree that oaks is imported from, marked if it has changes; None outside of one."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-changed" if changes.stdout.strip() else "")


@contextmanager
def _quiet_lightning() -> Any:
    """Leaves out what Lightning says about itself, and its warnings about choices made here on purpose."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*no `val_dataloader`.*",
            ".*`val_check_interval`.*",
            ".*is smaller than the logging interval.*",
            ".*isinstance.treespec, LeafSpec.*",
            ".*Checkpoint directory.*exists and is not empty.*",
        ):
            warnings.filterwarnings("ignore", message)
        yield


__all__ = ["Machine", "RunFolder", "commit", "count_steps", "make_trainer", "resume", "train", "write_text"]
