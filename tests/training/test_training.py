"""Trainings learn, stop cleanly, resume exactly, and lose only the steps since the last checkpoint when killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from oaks.errors import ArgumentError
from oaks.files import held
from oaks.skeleton import COCO17
from oaks.training import callbacks
from oaks.training.callbacks import AtomicCheckpointIO, CheckpointAndStop
from oaks.training.checkpoint import load_network
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.module import NetworkTraining, moving_average, rate_factor
from oaks.training.networks import build
from oaks.training.pose import PoseTraining
from oaks.training.recipe import CosineSchedule, StepSchedule, parse_recipe, read_recipe
from oaks.training.run import Hardware, resume, train
from oaks.training.run_folder import RunFolder, is_first_process
from tests.training import conftest
from tests.training.conftest import (
    CPU,
    ONE_STEP,
    TINY,
    assert_same_weights,
    card_of,
    checkpoint_step,
    losses,
    pose_recipe,
    quiet,
    source,
    write_people,
)

HELD_OUT = {"train": [source()], "folds": {"count": 3, "held_out": 1}}


def start(run: Path, folder: Path, machine: Hardware = CPU, console: Console | None = None, **fields: object):
    return conftest.start(run, folder, pose_recipe(**fields), machine, console)


def kill() -> None:
    raise RuntimeError("killed")


@pytest.fixture
def before_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Call it with a step and a function: trainings call that function before the step."""

    def install(step: int, action: Callable[[], object]) -> None:
        original = PoseTraining.training_step

        def training_step(self: PoseTraining, batch: dict, batch_idx: int) -> torch.Tensor:
            if self.global_step == step:
                action()
            return original(self, batch, batch_idx)

        monkeypatch.setattr(PoseTraining, "training_step", training_step)

    return install


@pytest.fixture
def whole(tmp_path: Path, people_folder: Path) -> Path:
    """A training of eight steps without a stop."""
    assert start(tmp_path / "whole", people_folder) == tmp_path / "whole" / "network.safetensors"
    assert sorted(losses(tmp_path / "whole")) == list(range(8))
    return tmp_path / "whole"


def test_a_training_must_describe_its_network() -> None:
    class Undescribed(NetworkTraining):
        pass

    with pytest.raises(TypeError, match="details"):
        Undescribed(parse_recipe(pose_recipe(), "test"), 1, 1)


def test_a_stopped_training_resumes_exactly(whole: Path, people_folder: Path) -> None:
    run = whole.parent / "stopped"
    assert start(run, people_folder, ONE_STEP) is None
    console = quiet()
    with held(run), pytest.raises(ArgumentError, match="another run is writing it"):
        resume(run, ONE_STEP, console=console)
    for _ in range(3):
        assert resume(run, ONE_STEP, console=console) is None
    assert f"oaks train --resume {run}" in console.file.getvalue().replace("\n", "")
    assert sorted(losses(run)) == [0, 1, 2, 3]
    assert resume(run, CPU, console=quiet()) == run / "network.safetensors"
    assert losses(run) == losses(whole)
    assert (run / "network.safetensors").read_bytes() == (whole / "network.safetensors").read_bytes()
    assert "date" in card_of(run)


def test_a_killed_training_resumes_from_its_last_checkpoint(
    whole: Path, people_folder: Path, monkeypatch, before_step
) -> None:
    run = whole.parent / "killed"
    before_step(6, kill)
    # A clock on which some checkpoints are due.
    monkeypatch.setattr(callbacks.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
    with pytest.raises(RuntimeError, match="killed"):
        start(run, people_folder)
    monkeypatch.undo()
    assert 0 < checkpoint_step(run) <= 6
    resume(run, CPU, console=quiet())
    assert losses(run) == losses(whole)
    assert_same_weights(whole, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_cleanly(
    tmp_path: Path, people_folder: Path, before_step, number: signal.Signals
) -> None:
    before_step(3, lambda: os.kill(os.getpid(), number))
    before, console = signal.getsignal(number), quiet()
    if number == signal.SIGINT:  # Ctrl-C ends the command after the checkpoint
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", people_folder, console=console)
    else:
        assert start(tmp_path / "run", people_folder, console=console) is None
    assert signal.getsignal(number) == before
    assert number.name in console.file.getvalue()
    assert checkpoint_step(tmp_path / "run") == 4


def test_a_training_in_another_thread_installs_no_signal_handlers(
    tmp_path: Path, people_folder: Path
) -> None:
    """As on Ray Train; only the main thread may install handlers."""
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as other:
        made = other.submit(start, tmp_path / "run", people_folder).result()
    assert made == tmp_path / "run" / "network.safetensors"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_failed_save_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch) -> None:
    path, keeper = tmp_path / "last.ckpt", AtomicCheckpointIO()
    keeper.save_checkpoint({"step": 1}, path)

    def half(content: object, file: io.BufferedWriter) -> None:
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        keeper.save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    """torch.load accepts flipped bits, and the training would resume with wrong weights."""
    path, keeper = tmp_path / "last.ckpt", AtomicCheckpointIO()
    weights = torch.arange(4096, dtype=torch.float32)
    keeper.save_checkpoint({"state_dict": {"weights": weights}, "global_step": 3}, path)
    whole = path.read_bytes()
    assert keeper.load_checkpoint(path, weights_only=True)["global_step"] == 3
    refused = 0
    for at in range(0, len(whole), 397):
        content = bytearray(whole)
        content[at] ^= 0x10
        path.write_bytes(content)
        try:
            found = keeper.load_checkpoint(path, weights_only=True)
        except ArgumentError:
            refused += 1
        else:  # a byte of the padding between parts
            assert torch.equal(found["state_dict"]["weights"], weights)
    assert refused > 30
    for content in (b"", b"text", whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(
            ArgumentError, match="got a damaged one .*; delete it to train from the beginning"
        ):
            keeper.load_checkpoint(path, weights_only=True)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "denied"), OSError(5, "Input/output error"), MemoryError()]
)
@pytest.mark.parametrize("place", ["zipfile.ZipFile.testzip", "torch.load"])
def test_errors_of_the_disk_are_not_reported_as_damage(tmp_path, monkeypatch, error, place):
    path, keeper = tmp_path / "last.ckpt", AtomicCheckpointIO()
    keeper.save_checkpoint({"step": 1}, path)

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(place, fails)
    with pytest.raises(type(error)) as raised:
        keeper.load_checkpoint(path, weights_only=True)
    assert raised.value is error


def test_the_advice_to_delete_is_only_for_damaged_checkpoints(tmp_path: Path) -> None:
    path, keeper = tmp_path / "last.ckpt", AtomicCheckpointIO()
    keeper.save_checkpoint({"step": quiet}, path)  # a function, which weights_only refuses
    with pytest.raises(ArgumentError, match=r"last\.ckpt must be .*, got an undamaged file that") as raised:
        keeper.load_checkpoint(path, weights_only=True)
    assert "delete it" not in str(raised.value)
    keeper.save_checkpoint({"weights": torch.arange(4096)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    message = r"^checkpoint \S*last\.ckpt must be as it was written, got another checksum of .*; delete it to train from"
    with pytest.raises(ArgumentError, match=message):
        keeper.load_checkpoint(path, weights_only=True)


def test_the_files_of_a_training(whole: Path, people_folder: Path) -> None:
    card = card_of(whole)
    assert (card["step"], card["steps"], card["recipe"]) == (8, 8, "tiny")
    assert card["data"] == ["people: 12 of 12 people trained on"]
    assert set(card["versions"]) == {"oaks", "torch", "lightning"}
    network, description = load_network(whole / "network.safetensors")
    assert description["kind"] == "pose"
    assert description["input"]["size"] == [48, 64]
    assert description["trained_on"] == ["people"]
    assert description["heatmap_sigma"] == 1
    assert network(torch.zeros(1, 3, 64, 48))[0].shape == (1, 17, 16, 12)
    assert list((whole / "logs" / "tensorboard").glob("events*"))
    with pytest.raises(ValueError, match="already holds a training"):
        start(whole, people_folder)
    with pytest.raises(ValueError, match="no training was started"):
        resume(whole / "logs")


def test_metrics_are_those_of_the_held_out_people(tmp_path: Path, people_folder: Path) -> None:
    run = tmp_path / "run"
    start(run, people_folder, data=HELD_OUT)
    card = card_of(run)
    held = int(card["metrics"]["people"])
    assert 0 < held < 12
    assert card["data"] == [f"people: {12 - held} of 12 people trained on"]
    assert {"conventional AP", "oracle AP75", "visibility accuracy", "visibility accuracy nose"} <= set(
        card["metrics"]
    )
    assert load_network(run / "network.safetensors")[1]["metrics"] == card["metrics"]


@pytest.fixture
def validated(tmp_path: Path, people_folder: Path) -> Path:
    """A training without a stop, validated once per epoch and therefore at its last step."""
    start(tmp_path / "validated", people_folder, data=HELD_OUT)
    card = card_of(tmp_path / "validated")
    assert card["step"] == card["steps"] == 6
    return tmp_path / "validated"


def assert_ended_like(run: Path, validated: Path) -> None:
    """Compare network, metrics and card with those of a training without a stop."""
    kept = ("step", "steps", "metrics", "damaged images skipped")
    assert {name: card_of(run)[name] for name in kept} == {name: card_of(validated)[name] for name in kept}
    assert_same_weights(run, validated)
    described = [load_network(folder / "network.safetensors")[1] for folder in (run, validated)]
    assert {**described[0]["card"], "date": card_of(run)["date"]} == card_of(run)
    assert described[0]["metrics"] == described[1]["metrics"]


# The last validation is within the training, or after it.
@pytest.mark.parametrize("validate_every", [1, 1.3])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(PoseTraining, "on_validation_epoch_end"), (callbacks, "save_network"), (callbacks, "write_json")],
)
def test_a_training_killed_in_its_last_validation_validates_when_resumed(
    validated: Path, people_folder: Path, monkeypatch, before_step, owner, name: str, validate_every: float
) -> None:
    run, function = validated.parent / "killed", getattr(owner, name)
    reached: list[int] = []
    before_step(5, lambda: reached.append(5))

    def fatal(*arguments: object, **named: object) -> object:
        if owner is PoseTraining:
            last = arguments[0].global_step == 6
        else:
            last = reached and arguments[0].parent == run
        return kill() if last else function(*arguments, **named)

    monkeypatch.setattr(owner, name, fatal)
    with pytest.raises(RuntimeError, match="killed"):
        start(run, people_folder, data=HELD_OUT, training={"validate_every": validate_every})
    assert checkpoint_step(run) == 6
    assert not RunFolder(run).complete()
    monkeypatch.undo()
    assert resume(run, CPU, console=quiet()) == run / "network.safetensors"
    assert RunFolder(run).complete()
    assert_ended_like(run, validated)


def test_a_stop_at_the_last_step_does_not_skip_the_validation(
    validated: Path, people_folder: Path, before_step
) -> None:
    before_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run = validated.parent / "run"
    assert start(run, people_folder, data=HELD_OUT) == run / "network.safetensors"
    assert_ended_like(run, validated)


@pytest.mark.parametrize("validate_every", [0.7, 1.3, 5])
def test_the_last_step_is_validated_with_any_interval(
    validated: Path, people_folder: Path, validate_every: float
) -> None:
    run = validated.parent / "run"
    start(run, people_folder, data=HELD_OUT, training={"validate_every": validate_every})
    assert_ended_like(run, validated)


def test_a_complete_training_does_not_change(validated: Path) -> None:
    written, console = (validated / "metrics.json").stat().st_mtime_ns, quiet()
    assert resume(validated, CPU, console=console) == validated / "network.safetensors"
    assert (validated / "metrics.json").stat().st_mtime_ns == written
    assert "Already trained" in console.file.getvalue()


def test_a_failed_start_leaves_the_folder_free(tmp_path: Path, people_folder: Path) -> None:
    run, gone = tmp_path / "run", tmp_path / "gone.pth"
    with pytest.raises(FileNotFoundError, match=r"data not found: .*annotations\.json; .* as --data"):
        start(run, tmp_path / "nowhere" / "people")
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        start(run, people_folder, initial={"path": str(gone)})
    with pytest.raises(ValueError, match="no training was started"):
        resume(run, CPU, console=quiet())
    assert start(run, people_folder) == run / "network.safetensors"


def test_data_can_be_replaced_before_the_first_checkpoint(
    tmp_path: Path, people_folder: Path, monkeypatch, before_step
) -> None:
    write_people(tmp_path / "others" / "people", images=3)
    before_step(0, kill)
    with pytest.raises(RuntimeError, match="killed"):
        start(tmp_path / "run", people_folder)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="already holds a training"):
        start(tmp_path / "run", people_folder)
    assert resume(tmp_path / "run", CPU, data=tmp_path / "others", console=quiet()) is not None
    assert card_of(tmp_path / "run")["data"] == ["people: 6 of 6 people trained on"]


def test_a_training_with_moved_data_resumes_exactly(whole: Path, people_folder: Path) -> None:
    run, moved = whole.parent / "run", whole.parent / "moved"
    assert start(run, people_folder, ONE_STEP) is None
    moved.mkdir()
    people_folder.rename(moved / "people")
    with pytest.raises(FileNotFoundError, match="--data"):
        resume(run, CPU, console=quiet())
    write_people(moved / "others" / "people", images=4)
    with pytest.raises(ValueError, match="data must be the people that .*, got others in data .*others"):
        resume(run, CPU, data=moved / "others", console=quiet())
    assert resume(run, ONE_STEP, data=moved, console=quiet()) is None
    assert resume(run, CPU, console=quiet()) is not None  # the new folder has been recorded
    assert losses(run) == losses(whole)
    assert_same_weights(whole, run)


def test_people_both_trained_and_validated_on_are_refused(tmp_path: Path, people_folder: Path) -> None:
    data = {"train": [source()], "validation": [source(limit=2)]}
    with pytest.raises(ValueError, match="2 people are trained and validated on"):
        start(tmp_path / "run", people_folder, data=data)


def test_damaged_images_are_counted_in_the_card(tmp_path: Path, people_folder: Path, caplog) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")
    start(tmp_path / "run", people_folder, augmentation={})
    assert "skipped damaged images in training: 6 times; the log names them" in caplog.text
    # In both turns 3 are skipped: person 3 is replaced by 4, who is in the same picture, and 4 itself is skipped.
    assert card_of(tmp_path / "run")["damaged images skipped"] == 2 * (2 + 1)


def test_damaged_images_of_held_out_people_are_counted(tmp_path: Path, people_folder: Path, caplog) -> None:
    data = parse_recipe(pose_recipe(data=HELD_OUT), "test").data
    held = open_data(data, COCO17, DataFolders(people_folder.parent)).validation[0].image_ids
    assert len(set(held)) > 1
    (people_folder / "images" / f"{held[0]}.jpg").write_bytes(b"no picture")
    start(tmp_path / "run", people_folder, data=HELD_OUT)
    card = card_of(tmp_path / "run")
    assert card["damaged images left out of the validation"] == 2
    assert card["metrics"]["people"] == len(held) - 2
    assert "skipped damaged images in validation: 2 times; the log names them" in caplog.text


def test_schedules_cover_the_whole_training() -> None:
    step = rate_factor(StepSchedule(kind="step", epochs=[120, 150]), 1600, 10)
    assert [step(s) for s in (0, 1199, 1200, 1499, 1500)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = rate_factor(CosineSchedule(kind="cosine", final=0.1, warmup_steps=9), 100, 10)
    assert cosine(0) == pytest.approx(0.1)
    assert cosine(50) == pytest.approx(0.55)
    assert cosine(100) == pytest.approx(0.1)


def test_the_average_forgets_the_initial_weights() -> None:
    kept, average = [torch.zeros(2), torch.tensor(0)], moving_average(0.5)
    for count in range(1, 30):
        average(kept[:1], [torch.ones(2)], torch.tensor(count))
        average(kept[1:], [torch.tensor(count)], torch.tensor(count))
    torch.testing.assert_close(kept[0], torch.ones(2), atol=1e-6, rtol=0)
    assert kept[1] == 29


def test_initial_weights_are_loaded(tmp_path: Path, people_folder: Path) -> None:
    torch.manual_seed(5)
    donor = build({**TINY, "input": [48, 64], "keypoints": 17})
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    console = quiet()
    start(tmp_path / "run", people_folder, ONE_STEP, console,
          initial={"path": str(tmp_path / "donor.pth")}, training={"learning_rate": 1e-9, "average": None})  # fmt: skip
    assert "entries loaded" in console.file.getvalue()
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(state["network.backbone.conv1.weight"], donor.backbone.conv1.weight.data)


def test_without_epochs_the_mean_of_networks_is_validated_and_saved(
    tmp_path: Path, people_folder: Path
) -> None:
    donors = [
        start(tmp_path / f"donor{seed}", people_folder, data=HELD_OUT, training={"seed": seed})
        for seed in range(3)
    ]
    run, (first, *others) = tmp_path / "mean", [str(path) for path in donors]
    initial = {"path": first, "average_with": others}
    network = start(run, people_folder, data=HELD_OUT, initial=initial, training={"epochs": 0})
    mean, *parts = (load_network(path)[0].state_dict() for path in (network, *donors))
    for name, value in mean.items():
        if value.is_floating_point():
            expected = sum(part[name].double() for part in parts) / 3
            torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-5)
    card = card_of(run)
    assert card["step"] == card["steps"] == 0
    with pytest.raises(ValueError, match="epochs must be above 0 without initial weights, got 0"):
        start(tmp_path / "random", people_folder, data=HELD_OUT, training={"epochs": 0})
    assert card["metrics"]["people"] == card_of(tmp_path / "donor0")["metrics"]["people"]
    assert RunFolder(run).complete()


def test_initial_weights_trained_on_held_out_people_are_refused(tmp_path: Path, people_folder: Path) -> None:
    donor = start(tmp_path / "donor", people_folder, data=HELD_OUT)
    start(tmp_path / "same", people_folder, data=HELD_OUT, initial={"path": str(donor)})
    other = {**HELD_OUT, "folds": {"count": 3, "held_out": 2}}
    with pytest.raises(ValueError, match=r"without the held-out people of \['people'\] \(fold 2 of 3\)"):
        start(tmp_path / "other", people_folder, data=other, initial={"path": str(donor)})
    unseen = start(tmp_path / "unseen", people_folder, data=other)
    with pytest.raises(ValueError, match=r"without the held-out people .* got .*donor"):
        start(tmp_path / "mean", people_folder, data=other,
              initial={"path": str(unseen), "average_with": [str(donor)]})  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_stop_cleanly(
    tmp_path: Path, people_folder: Path, number: signal.Signals
) -> None:
    """Ctrl-C in a terminal and `timeout` also send them to the loader workers."""
    content = pose_recipe(training={"epochs": 5000, "workers": 1, "checkpoint_minutes": 0.001})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    run = tmp_path / "run"
    words = ["train", str(tmp_path / "recipe.yaml"), "--out", str(run), "--data", str(people_folder.parent)]
    with subprocess.Popen(
        [sys.executable, "-m", "oaks", *words, "--accelerator", "cpu"],
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            while not (run / "last.ckpt").exists():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.05)
            os.killpg(process.pid, number)
            output = process.stderr.read()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert f"{number.name}.\nResume with" in output, output
    assert "exited unexpectedly" not in output


def test_the_commit_in_the_card_is_that_of_oaks(tmp_path: Path, monkeypatch) -> None:
    """oaks installed within a user's repository has no commit; in its own repository it has one."""
    file = tmp_path / "callbacks.py"
    file.write_text("")
    monkeypatch.setattr(callbacks, "__file__", str(file))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True)
    assert callbacks.git_commit() is None
    for words in (["add", "callbacks.py"], ["commit", "-q", "-m", "ours"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert callbacks.git_commit() == head.stdout.strip()


def test_other_processes_wait_until_the_data_are_prepared(tmp_path: Path, monkeypatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (tmp_path / "prepared.json").touch()

    monkeypatch.setattr(callbacks.time, "sleep", sleep)
    console = quiet()
    callbacks.wait_for(tmp_path / "prepared.json", console)
    assert len(waits) == 3
    assert "prepared.json" in console.file.getvalue()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_first_process()


def test_a_second_interrupt_stops_at_once() -> None:
    callback = CheckpointAndStop(Path(), every_minutes=5, deadline=None, console=quiet())
    callback._on_signal(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        callback._on_signal(signal.SIGINT, None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_the_loss(tmp_path: Path, people_folder: Path, precision: str) -> None:
    """On twelve people, without augmentation, in forty steps."""
    training = {"epochs": 10, "learning_rate": 0.01, "precision": precision, "log_every": 1}
    start(tmp_path / "run", people_folder, augmentation={}, training=training)
    curve = [float(value) for _, value in sorted(losses(tmp_path / "run").items())]
    assert np.mean(curve[-4:]) < 0.9 * np.mean(curve[:4])


@pytest.mark.real_people
def test_two_steps_on_real_people(tmp_path: Path, real_data: Path) -> None:
    """All six data sets from their own files, including those with 12 joints."""
    changes = ["input=[64, 96]", "network.width=0.25", "training.epochs=1", "training.batch=40", "initial=null",
               "training.workers=0", "training.log_every=1", "training.precision=fp32",
               *(f"data.train.{i}.limit=12" for i in range(6))]  # fmt: skip
    recipe = read_recipe("small_pose", changes)
    assert train(recipe, tmp_path / "run", DataFolders(real_data), CPU, console=quiet()) is not None
    curve = losses(tmp_path / "run")
    assert len(curve) == 2
    assert all(np.isfinite(float(value)) for value in curve.values())
    assert any(line.startswith("lspet") for line in card_of(tmp_path / "run")["data"])
