"""Callbacks: atomic checkpoints and networks, and a clean stop on signals and at the time limit."""

from __future__ import annotations

import platform
import signal
import subprocess
import threading
import time
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console

import oaks
from oaks.errors import ArgumentError
from oaks.files import replacing, write_json
from oaks.progress import say
from oaks.training.checkpoint import check_archive, may_be_damage, save_network
from oaks.training.module import NetworkTraining
from oaks.training.run_folder import LAST

_ADVICE = "delete it to train from the beginning"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: a kill at any moment leaves the previous one."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        """Save to `path`, on this machine's disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, sync=True) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Load a checkpoint that `save_checkpoint` wrote.

        Raises:
            ArgumentError: the file is damaged, or is no such checkpoint; the message names it.
            OSError: the file cannot be read.
        """
        try:
            check_archive(path)
        except ArgumentError as error:
            raise ArgumentError(f"checkpoint {error}; {_ADVICE}") from error
        try:
            return super().load_checkpoint(path, *arguments, **named)
        except Exception as error:  # the parser of pickle raises whatever the file makes it raise
            if not may_be_damage(error):
                raise
            found = f"{type(error).__name__}: {error}"
            if zipfile.is_zipfile(path):  # its checksums are correct, so it may be worth keeping
                raise ArgumentError(
                    f"checkpoint {path} must be one that a training of this version wrote, got an undamaged file that "
                    f"cannot be loaded ({found})"
                ) from error
            raise ArgumentError(
                f"checkpoint {path} must be as it was written, got a damaged one ({found}); {_ADVICE}"
            ) from error


class CheckpointAndStop(Callback):
    """Writes last.ckpt regularly, and stops with one on SIGINT, on SIGTERM and at the time limit.

    A second SIGINT stops at once, without a checkpoint.

    Args:
        folder: folder of last.ckpt.
        every_minutes: time between checkpoints.
        deadline: time limit on the clock of `time.monotonic`; None: no limit.
        console: shows the progress if it is not a terminal.
    """

    def __init__(
        self, folder: Path, *, every_minutes: float, deadline: float | None, console: Console
    ) -> None:
        self.path, self.every = folder / LAST, every_minutes * 60
        self.deadline, self.console = deadline, console
        self.reason: str | None = None
        self._saved = self._told = time.monotonic()
        self._first_step = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Install the signal handlers. Python allows this only in the main thread; Ray Train uses another one."""
        self._saved = self._told = self._began = time.monotonic()
        self._first_step = trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Save a checkpoint when one is due, and stop if requested."""
        assert isinstance(pl_module, NetworkTraining)
        module = pl_module
        now = time.monotonic()
        if self.deadline is not None and now > self.deadline:
            self.reason = self.reason or "time limit"
        last = trainer.global_step == module.steps  # only the validation is left, which is not skipped
        stop, save = self.reason is not None and not last, now - self._saved > self.every
        if trainer.world_size > 1:  # processes may differ in their clocks, and get signals at different steps
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            save = trainer.strategy.reduce_boolean_decision(save, all=False)
        if stop or save or last:
            trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()
        if stop:
            self.reason = self.reason or "another process stopped"
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # no validation before the stop
        elif not self.console.is_terminal and now - self._told > 60:
            self._told = now
            self._report_progress(trainer, module)

    def _report_progress(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        done = trainer.global_step - self._first_step
        seconds = time.monotonic() - self._began
        left = (module.steps - trainer.global_step) * seconds / max(done, 1) / 3600
        figures = ", ".join(f"{k} {float(v):.4g}" for k, v in trainer.progress_bar_metrics.items())
        people = done * module.recipe.training.batch / seconds
        done_of = f"step {trainer.global_step}/{module.steps}"
        say(self.console, f"{done_of}: {figures}; {people:.1f} samples/s, {left:.1f} h left")

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Restore the signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Restore the signal handlers."""
        self.on_train_end(trainer, pl_module)


class SaveNetwork(lightning.Callback):
    """Writes the network and then its metrics card after every validation.

    Attributes:
        step: training step at which both were last written.
    """

    def __init__(self, network: Path, card: Path, lines: list[str]) -> None:
        self.network, self.card, self.lines = network, card, lines
        self.commit = git_commit()
        self.step: int | None = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the network and its metrics card."""
        assert isinstance(pl_module, NetworkTraining)
        self.write(trainer, pl_module)

    def write(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        """Write both, in the first process. A card of the last step marks the training as complete."""
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
            "damaged images skipped": int(module.damaged),
            "damaged images left out of the validation": module.left_out,
            "metrics": figures,
            "commit": self.commit,
            "machine": f"{trainer.world_size} × {trainer.strategy.root_device}, {platform.machine()}",
            "precision": recipe["training"]["precision"],
            "versions": {
                "oaks": oaks.__version__,
                "torch": torch.__version__,
                "lightning": lightning.__version__,
            },
        }
        # Without the date, so that a resumed training writes the same bytes as one without a stop.
        save_network(self.network, module.best, {**module.description(), "metrics": figures, "card": card})
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(self.card, {**card, "date": date}, indent=1)


def git_commit() -> str | None:
    """Return the commit of this source tree, with "-changed" if it has changes; None if it is not under git."""

    def git(*words: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # Fails if this file is installed in an environment within a user's own repository.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        head = git("rev-parse", "HEAD")
        # Without locks: status would otherwise lock the index, and a simultaneous commit would fail.
        changes = git("--no-optional-locks", "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("-changed" if changes else "")


def wait_for(path: Path, console: Console) -> None:
    """Wait until the first process has written `path`, possibly on a disk shared between hosts."""
    if not path.exists():
        say(console, f"Waiting for the first process to prepare the data ({path})")
    while not path.exists():
        time.sleep(1)


def count_sessions(folder: Path) -> int:
    """Return the number of a training's sessions logged in a folder."""
    return len(list(folder.glob("session-*"))) if folder.is_dir() else 0


__all__ = [
    "AtomicCheckpointIO",
    "CheckpointAndStop",
    "SaveNetwork",
    "count_sessions",
    "git_commit",
    "wait_for",
]
