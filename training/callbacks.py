"""Callbacks: checkpoints and networks written whole or not at all, and stopping with one when asked to."""

from __future__ import annotations

import os
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
from oaks.progress import plain_console
from oaks.training.checkpoint import check_archive, may_be_damage, save_network
from oaks.training.module import NetworkTraining

LAST = "last.ckpt"
_ADVICE = "delete it to train from the beginning"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill at any moment leaves the previous one."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        """Saves to `path`, on this machine's disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, sync=True) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Load what `save_checkpoint` wrote, if every byte of it is as it was written.

        Raises:
            ArgumentError: the file is damaged, or holds something else; the message names it.
            OSError: it cannot be read.
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
            if zipfile.is_zipfile(path):  # its checksums are right: deleting it may lose a good one
                raise ArgumentError(
                    f"checkpoint {path} must be one that a training of this version wrote, got an undamaged file that "
                    f"cannot be loaded ({found})"
                ) from error
            raise ArgumentError(
                f"checkpoint {path} must be as it was written, got a damaged one ({found}); {_ADVICE}"
            ) from error


class CheckpointAndStop(Callback):
    """Writes last.ckpt every so often, and stops with one on SIGINT, SIGTERM or when the time is up.

    A second SIGINT stops at once, without a checkpoint.

    Args:
        folder: of last.ckpt.
        every_minutes: between checkpoints.
        deadline: of `time.monotonic`, or None.
        console: where what happens is said.
    """

    def __init__(
        self, folder: Path, *, every_minutes: float, deadline: float | None, console: Console
    ) -> None:
        self.path, self.every, self.deadline, self.console = (
            folder / LAST,
            every_minutes * 60,
            deadline,
            console,
        )
        self.reason: str | None = None
        self._saved = self._told = time.monotonic()
        self._first_step = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Take over the signals where Python allows it: in the main thread. Ray Train runs trainings in another one."""
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
        """Saves when it is time to, and stops when asked to."""
        assert isinstance(pl_module, NetworkTraining)
        module = pl_module
        now = time.monotonic()
        if self.deadline is not None and now > self.deadline:
            self.reason = self.reason or "the time is up"
        last = trainer.global_step == module.steps  # where there is nothing left to stop but the validation
        stop, save = self.reason is not None and not last, now - self._saved > self.every
        if trainer.world_size > 1:  # one process may be ahead of another's clock or signal
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            save = trainer.strategy.reduce_boolean_decision(save, all=False)
        if stop or save or last:
            trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()
        if stop:
            self.reason = self.reason or "another process stopped"
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # a stop is not the place for a validation
        elif not self.console.is_terminal and now - self._told > 60:
            self._told = now
            self._report_progress(trainer, module)

    def _report_progress(self, trainer: lightning.Trainer, module: NetworkTraining) -> None:
        done = trainer.global_step - self._first_step
        seconds = time.monotonic() - self._began
        left = (module.steps - trainer.global_step) * seconds / max(done, 1) / 3600
        figures = ", ".join(f"{k} {float(v):.4g}" for k, v in trainer.progress_bar_metrics.items())
        people = done * module.recipe.training.batch / seconds
        self.console.print(
            f"step {trainer.global_step}/{module.steps}: {figures}; {people:.1f} people/s, {left:.1f} h left",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Gives the signals back."""
        self.on_train_end(trainer, pl_module)


class SaveNetwork(lightning.Callback):
    """After every validation writes the network and, last, its metrics card.

    Attributes:
        step: of the training at which both were last written.
    """

    def __init__(self, network: Path, card: Path, lines: list[str]) -> None:
        self.network, self.card, self.lines = network, card, lines
        self.commit = git_commit()
        self.step: int | None = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes both."""
        assert isinstance(pl_module, NetworkTraining)
        self.write(trainer, pl_module)

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
        # Without the date: whether a training was stopped and resumed or not, its network is the same bytes.
        save_network(self.network, module.best, {**module.description(), "metrics": figures, "card": card})
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(self.card, {**card, "date": date}, indent=1)


def git_commit() -> str | None:
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
            # Without optional locks: status would take the index's, and let a commit made meanwhile fail.
            ["git", "--no-optional-locks", "status", "--porcelain"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-changed" if changes.stdout.strip() else "")


def is_first_process() -> bool:
    """Whether this is the process that writes files: rank 0 of however many Lightning or a cluster starts."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name, 0)) == 0 for name in ranks)


def wait_for(path: Path, console: Console) -> None:
    """Returns once the first process has written `path`; on another host that is when its disk shows it."""
    if not path.exists():
        console.print(
            f"Waiting for the first process to prepare the data ({path})", soft_wrap=True, markup=False
        )
    while not path.exists():
        time.sleep(1)


def count_sessions(folder: Path) -> int:
    """How many sessions of a training have been logged in `folder`."""
    return len(list(folder.glob("session-*"))) if folder.is_dir() else 0


def stderr_console() -> Console:
    """Where people read what a training does."""
    return plain_console()


__all__ = [
    "LAST",
    "AtomicCheckpointIO",
    "CheckpointAndStop",
    "SaveNetwork",
    "count_sessions",
    "git_commit",
    "is_first_process",
    "stderr_console",
    "wait_for",
]
