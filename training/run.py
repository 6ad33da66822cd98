"""One training from a recipe, with all its files in one folder; it can be stopped and resumed."""

from __future__ import annotations

import logging
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from oaks.errors import ArgumentError
from oaks.files import held, write_json
from oaks.names import number_of
from oaks.progress import plain_console, say
from oaks.skeleton import COCO17
from oaks.skipping import skip
from oaks.training.callbacks import (
    AtomicCheckpointIO,
    CheckpointAndStop,
    SaveNetwork,
    count_sessions,
    wait_for,
)
from oaks.training.checkpoint import read_description
from oaks.training.data.detection import UNREADABLE
from oaks.training.data.shards import required_packing
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.detector import DetectorTraining, ImageData, open_images
from oaks.training.ks import HeatmapData, KSTraining, fill_store, load_pose_networks, open_store
from oaks.training.module import NetworkTraining, PeopleData, TrainingData, count_steps
from oaks.training.networks.summary import describe
from oaks.training.pose import PoseTraining
from oaks.training.recipe import AnyRecipe, DetectorRecipe, KSRecipe, PoseRecipe, parse_recipe
from oaks.training.run_folder import RunFolder, is_first_process
from oaks.training.validation import CropDataset

PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Hardware:
    """Hardware and time limit of a training.

    Attributes:
        accelerator: "auto", "cpu" or "gpu".
        devices: number of processes on this host, or "auto".
        hosts: number of hosts.
        max_minutes: time after which the training stops with a checkpoint; None: no limit.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    hosts: int = 1
    max_minutes: float | None = None


def train(
    recipe: AnyRecipe,
    run: str | Path,
    place: DataFolders | None = None,
    machine: Hardware | None = None,
    *,
    console: Console | None = None,
) -> Path | None:
    """Start a training in a new folder; return the trained network's file, or None if it was stopped.

    The folder counts as used only after data and initial weights have been opened, so that errors in them can be
    corrected without another folder.

    Raises:
        ArgumentError: the folder already holds a training, another run is writing it, or the recipe's data do not fit.
        FileNotFoundError: data of the recipe are missing.
    """
    folder = RunFolder(run)
    folder.refuse_begun()
    place = (place or DataFolders())._replace(rendered=folder.rendered)
    return _run(
        _with_absolute_paths(recipe), folder, place, machine or Hardware(), console or plain_console()
    )


def resume(
    run: str | Path,
    machine: Hardware | None = None,
    *,
    data: Path | None = None,
    packed: Path | None = None,
    console: Console | None = None,
) -> Path | None:
    """Resume the training in a folder exactly at its last checkpoint; a complete training does not change.

    Args:
        run: the folder.
        machine: hardware and time limit.
        data: new folder of the recipe's relative paths, if the data have moved.
        packed: new folder of packed people.
        console: shows the progress.

    Raises:
        ArgumentError: no training was started in the folder, it was started with other people, or another run is writing
            it.
        FileNotFoundError: data of the recipe are missing.
    """
    folder, console = RunFolder(run), console or plain_console()
    recipe, place = folder.read()
    if folder.complete():
        say(console, f"Already trained: {folder.network}")
        return folder.network
    place = place._replace(data=data or place.data, packed=packed or place.packed)
    return _run(recipe, folder, place, machine or Hardware(), console)


def train_or_resume(
    recipe: AnyRecipe,
    run: str | Path,
    machine: Hardware | None = None,
    *,
    data: Path | None = None,
    packed: Path | None = None,
) -> Path | None:
    """Start a training, resume it, or return the network of a complete one; None if it was stopped.

    Args:
        recipe: recipe of a new training.
        run: the folder.
        machine: hardware and time limit.
        data, packed: as `resume` takes them; for a new training, `data` is the working directory by default.

    Raises:
        ArgumentError, FileNotFoundError: as `train` and `resume`.
    """
    folder = RunFolder(run)
    if folder.complete():
        return folder.network
    if folder.settings.is_file():
        return resume(run, machine, data=data, packed=packed)
    return train(recipe, run, DataFolders(data or Path(), packed), machine)


@dataclass(frozen=True)
class _Opened:
    """A training whose data and initial weights have been opened.

    Attributes:
        recipe, folder, place, machine: as `train` takes them.
        module: the network with its initial weights.
        data: the samples.
        lines: lines about the sources, for the network's card.
        console: shows the progress.
        deadline: time.monotonic() at which the training stops; None: no limit.
    """

    recipe: AnyRecipe
    folder: RunFolder
    place: DataFolders
    machine: Hardware
    module: NetworkTraining
    data: PeopleData | ImageData
    lines: list[str]
    console: Console
    deadline: float | None

    @property
    def how_to_resume(self) -> str:
        return f"Resume with: oaks train --resume {self.folder.path}"


def _run(
    recipe: AnyRecipe, folder: RunFolder, place: DataFolders, machine: Hardware, console: Console
) -> Path | None:
    deadline = None if machine.max_minutes is None else time.monotonic() + 60 * machine.max_minutes
    lightning.seed_everything(recipe.training.seed, verbose=False)
    if not is_first_process():
        wait_for(folder.prepared, console)
    module, data, lines = _open(recipe, folder, place, console)
    opened = _Opened(recipe, folder, place, machine, module, data, lines, console, deadline)
    folder.path.mkdir(parents=True, exist_ok=True)
    with held(folder.path) if is_first_process() else nullcontext():
        folder.record(recipe, place, data.split.digest())
        if not _heatmaps_made(opened):
            return None
        if is_first_process():
            write_json(folder.prepared, lines, indent=1)
        return _fit(opened)


def _heatmaps_made(opened: _Opened) -> bool:
    """Make the heatmaps that a KS-net is trained on, if it is one; return whether there was time for all of them."""
    data, module = opened.data, opened.module
    if not (isinstance(data, HeatmapData) and data.store is not None and isinstance(module, KSTraining)):
        return True
    opened.lines.extend(_fill_store(data, module, opened.machine, opened.console, opened.deadline))
    if data.store.missing():
        say(opened.console, f"Stopped before all heatmaps were made: time limit.\n{opened.how_to_resume}")
        return False
    return True


def _fit(opened: _Opened) -> Path | None:
    """Train, validate and save; return the network's file, or None if the training was stopped."""
    recipe, folder, module, data = opened.recipe, opened.folder, opened.module, opened.data
    console, validated = opened.console, bool(data.split.validation)
    every = recipe.training.checkpoint_minutes
    stopping = CheckpointAndStop(folder.path, every_minutes=every, deadline=opened.deadline, console=console)
    keeper = SaveNetwork(folder.network, folder.card, opened.lines)
    with _quiet_lightning():
        trainer = make_trainer(
            recipe, folder, opened.machine, module, [stopping, keeper], console, validated=validated
        )
        if module.steps:
            begun = folder.checkpoint if folder.checkpoint.exists() else None
            trainer.fit(module, data, ckpt_path=begun, weights_only=True)
        done = trainer.global_step >= module.steps
        if done and keeper.step != module.steps:  # the last step had no validation, or it was interrupted
            if validated:
                trainer.validate(module, data, verbose=False)
            else:
                keeper.write(trainer, module)
    if trainer.is_global_zero:
        _report_damaged_images(module, data)
    if trainer.is_global_zero and done:
        say(console, f"Trained: {folder.network}")
    elif trainer.is_global_zero:
        say(
            console,
            f"Stopped at step {trainer.global_step} of {module.steps}: {stopping.reason}.\n{opened.how_to_resume}",
        )
        if stopping.reason == "SIGINT":
            raise KeyboardInterrupt
    return folder.network if done else None


def _report_damaged_images(module: NetworkTraining, data: TrainingData) -> None:
    counts = {"training": int(module.damaged), "validation": module.left_out}
    for what, count in counts.items():
        if count:
            skip(f"damaged images in {what}", f"{number_of(count, 'time')}; the log names them")
    sources: list[Any] = [*data.split.train, *data.split.validation]
    for name, count in {source.name: source.skipped[UNREADABLE] for source in sources}.items():
        if count:
            skip(f"images of {name}", f"{count} cannot be read; the log names them")


def _open(
    recipe: AnyRecipe, folder: RunFolder, place: DataFolders, console: Console
) -> tuple[NetworkTraining, PeopleData | ImageData, list[str]]:
    """Return the training with its initial weights, its data, and lines about the sources."""
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if is_first_process():
            say(console, line)

    if isinstance(recipe, PoseRecipe):
        required = required_packing(recipe.augmentation, recipe.input, recipe.padding)
        split = open_data(recipe.data, recipe.load_skeleton(), place, tell, required)
        steps, per_epoch = count_steps(recipe.training, sum(len(people) for people in split.train))
        module = PoseTraining(recipe, steps, per_epoch)
        _load_initial(recipe, module, folder, console)
        return module, PeopleData(recipe, split, steps, module.view), lines
    if isinstance(recipe, DetectorRecipe):
        images = open_images(recipe.data, place, tell)
        steps, per_epoch = count_steps(recipe.training, sum(len(source) for source in images.train))
        detector = DetectorTraining(recipe, steps, per_epoch)
        _load_initial(recipe, detector, folder, console)
        return detector, ImageData(recipe, images, steps), lines
    pose, descriptions = load_pose_networks(recipe)
    required = required_packing(recipe.augmentation, pose.view.size, pose.view.padding)
    split = open_data(recipe.data, recipe.load_skeleton(), place, tell, required)
    lines += [
        f"heatmaps by {path}: {d['recipe']['title']}"
        for path, d in zip(recipe.pose, descriptions, strict=True)
    ]
    if recipe.calibrate and not split.validation:
        raise ArgumentError(
            "calibrate must have validation people, got none: folds and hold_out of the recipe exclude all"
        )
    stored = recipe.heatmaps == "stored"
    people = sum(len(people) for people in split.train)
    steps, per_epoch = count_steps(recipe.training, people * (recipe.views if stored else 1))
    ks = KSTraining(recipe, pose, split, steps, per_epoch)
    _load_initial(recipe, ks, folder, console)
    crops = CropDataset(split.train, pose.view, views=recipe.views, settings=recipe.augmentation)
    store = None
    if stored:
        store = open_store(recipe, recipe.store or folder.heatmaps, split, pose, crops)
    return ks, HeatmapData(recipe, split, steps, pose.view, store, crops), lines


def _load_initial(recipe: AnyRecipe, module: NetworkTraining, folder: RunFolder, console: Console) -> None:
    if recipe.initial is None:
        return
    from oaks.training.pretrained import freeze, load_weights

    freeze(module.network, recipe.initial.freeze)
    if not folder.checkpoint.exists():
        _check_unseen_people(recipe)
        matched = load_weights(module.network, recipe.initial)
        say(console, str(matched))


def _check_unseen_people(recipe: AnyRecipe) -> None:
    """Refuse initial weights that oaks trained on people that the recipe holds out.

    Raises:
        ArgumentError: the weights were trained on such people; the message names both.
    """
    folds = recipe.data.folds
    if recipe.initial is None or folds is None or folds.held_out is None:
        return
    for path in (recipe.initial.path, *recipe.initial.average_with):
        try:
            described = read_description(path)
        except ValueError:  # not trained by oaks
            continue
        theirs = parse_recipe(described["recipe"], str(path)).data
        held_out = {source.name for source in recipe.data.train if source.hold_out}
        shared = sorted(held_out & {source.name for source in theirs.train})
        unseen = theirs.folds is not None and theirs.folds.holds_out([folds.held_out], folds.count)
        if shared and not unseen:
            raise ArgumentError(
                f"initial must be weights trained without the held-out people of {shared} (fold {folds.held_out} of "
                f"{folds.count}), got {path} with data.folds {theirs.folds}"
            )


def _fill_store(
    data: HeatmapData, module: KSTraining, machine: Hardware, console: Console, deadline: float | None
) -> list[str]:
    """Store the missing heatmaps; return a line about people whose images cannot be decoded, if any."""
    device = "cuda" if machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    store = data.store
    assert store is not None
    fill_store(
        store, data.recipe, data.split, module.pose, data.crops, torch.device(device), console,
        stop=lambda: deadline is not None and time.monotonic() > deadline,
    )  # fmt: skip
    if store.missing():
        return []
    _, _, readable = store.labels()
    if readable.all():
        return []
    line = f"heatmaps: {int((~readable).sum())} of {len(readable)} left out, of damaged images"
    if is_first_process():
        say(console, line)
    return [line]


def _with_absolute_paths(recipe: AnyRecipe) -> AnyRecipe:
    """Return the recipe with absolute paths of networks, so that it can be resumed from any working directory."""
    content = recipe.model_dump(mode="json")
    if content["initial"] is not None:
        content["initial"]["path"] = str(Path(content["initial"]["path"]).resolve())
        content["initial"]["average_with"] = [
            str(Path(path).resolve()) for path in content["initial"]["average_with"]
        ]
    if isinstance(recipe, KSRecipe):
        content["pose"] = [str(path.resolve()) for path in recipe.pose]
        content["store"] = str(recipe.store.resolve()) if recipe.store else None
    if content["skeleton"] != COCO17.name:
        content["skeleton"] = str(Path(content["skeleton"]).resolve())
    return type(recipe).model_validate(content)


def network_summary(recipe: AnyRecipe) -> str:
    """Return one line with the parameters and multiply-accumulates of a recipe's network."""
    size = (192, 256) if isinstance(recipe, KSRecipe) else recipe.input
    cost = describe(recipe.architecture(), size)
    return (f"{recipe.title}: {cost.parameters:,} parameters, {cost.macs / 1e9:.3f} GMAC "
            f"for a crop of {size[0]}×{size[1]}")  # fmt: skip


def make_trainer(
    recipe: AnyRecipe,
    folder: RunFolder,
    machine: Hardware,
    module: NetworkTraining,
    callbacks: list[Any],
    console: Console,
    *,
    validated: bool,
) -> lightning.Trainer:
    """Return Lightning's trainer for one session; a whole training is one Lightning epoch."""
    if console.is_terminal:
        callbacks = [*callbacks, RichProgressBar()]
    session = f"session-{count_sessions(folder.logs):03d}"
    every = max(1, min(round(recipe.training.validate_every * module.steps_per_epoch), module.steps))
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
        limit_val_batches=None if validated else 0,
        inference_mode=False,  # KS-net's calibration needs gradients
        gradient_clip_val=recipe.training.clip_gradient,
        log_every_n_steps=recipe.training.log_every,
        logger=[
            CSVLogger(folder.path, name="logs", version=session),
            TensorBoardLogger(folder.path, name="logs", version="tensorboard"),
        ],
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=console.is_terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def _quiet_lightning() -> Any:
    """Silence Lightning's messages about itself, and its warnings about settings that are intended here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*is smaller than the logging interval.*",
            ".*isinstance.treespec, LeafSpec.*",
        ):
            warnings.filterwarnings("ignore", message)
        yield


__all__ = ["Hardware", "make_trainer", "network_summary", "resume", "train", "train_or_resume"]
