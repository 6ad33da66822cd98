"""Trainings: they learn, stop cleanly, resume exactly, and lose nothing when they are killed."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from oaks.errors import ArgumentError
from oaks.skeleton import COCO17
from oaks.training import callbacks
from oaks.training.callbacks import AtomicCheckpointIO, CheckpointAndStop
from oaks.training.checkpoint import load_network
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.module import NetworkTraining, moving_average, rate_factor
from oaks.training.networks import build
from oaks.training.pose import PoseTraining
from oaks.training.recipe import CosineSchedule, StepSchedule, parse_recipe, read_recipe
from oaks.training.run import Hardware, RunFolder, resume, train
from tests.training.conftest import TINY, pose_recipe, source, write_people

CPU = Hardware(accelerator="cpu", devices=1)


def quiet() -> Console:
    return Console(file=io.StringIO())


def start(run: Path, folder: Path, machine: Hardware = CPU, console: Console | None = None, **fields: object):
    recipe = parse_recipe(pose_recipe(**fields), "test")
    return train(recipe, run, DataFolders(folder.parent), machine, console=console or quiet())


def losses(run: Path) -> dict[int, str]:
    """The loss of every step, as written down; of steps done twice, the last."""
    curve = {}
    for path in sorted(run.glob("logs/session-*/metrics.csv")):
        for row in csv.DictReader(io.StringIO(path.read_text())):
            if row.get("loss"):
                curve[int(row["step"])] = row["loss"]
    return curve


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_network(path)[0].state_dict()


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)


@pytest.fixture
def whole(tmp_path: Path, people_folder: Path) -> Path:
    """A training of eight steps that nothing stopped."""
    assert start(tmp_path / "whole", people_folder) == tmp_path / "whole" / "network.safetensors"
    assert sorted(losses(tmp_path / "whole")) == list(range(8))
    return tmp_path / "whole"


def test_a_training_that_does_not_say_what_it_saves_cannot_be_made() -> None:
    class Nameless(NetworkTraining):
        pass

    with pytest.raises(TypeError, match="description"):
        Nameless(parse_recipe(pose_recipe(), "test"), torch.nn.Linear(1, 1), 1, 1)


def test_a_training_that_was_stopped_goes_on_exactly(whole: Path, people_folder: Path, monkeypatch) -> None:
    run = whole.parent / "stopped"
    assert start(run, people_folder, Hardware("cpu", 1, max_minutes=1e-9)) is None
    console = quiet()
    for _ in range(3):
        assert resume(run, Hardware("cpu", 1, max_minutes=1e-9), console=console) is None
    assert f"oaks train --resume {run}" in console.file.getvalue().replace("\n", "")
    assert sorted(losses(run)) == [0, 1, 2, 3]
    assert resume(run, CPU, console=quiet()) == run / "network.safetensors"
    assert losses(run) == losses(whole)
    assert (run / "network.safetensors").read_bytes() == (whole / "network.safetensors").read_bytes()
    assert "date" in json.loads((run / "metrics.json").read_text())


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(
    whole: Path, people_folder: Path, monkeypatch
) -> None:
    run, step = whole.parent / "killed", PoseTraining.training_step

    def fatal(self: PoseTraining, batch: dict, batch_idx: int) -> torch.Tensor:
        if self.global_step == 6:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PoseTraining, "training_step", fatal)
    monkeypatch.setattr(
        callbacks.time, "monotonic", iter(range(0, 10**6, 100)).__next__
    )  # a checkpoint now and then
    with pytest.raises(RuntimeError, match="killed"):
        start(run, people_folder)
    monkeypatch.undo()
    saved = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < saved <= 6
    resume(run, CPU, console=quiet())
    assert losses(run) == losses(whole)
    assert_same(weights(whole / "network.safetensors"), weights(run / "network.safetensors"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_cleanly(
    tmp_path: Path, people_folder: Path, monkeypatch, number: signal.Signals
) -> None:
    step = PoseTraining.training_step

    def interrupted(self: PoseTraining, batch: dict, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PoseTraining, "training_step", interrupted)
    before, console = signal.getsignal(number), quiet()
    if number == signal.SIGINT:  # Ctrl-C ends the command, after the checkpoint
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", people_folder, console=console)
    else:
        assert start(tmp_path / "run", people_folder, console=console) is None
    assert signal.getsignal(number) == before
    assert number.name in console.file.getvalue()
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_training_in_another_thread_leaves_signals_alone(tmp_path: Path, people_folder: Path) -> None:
    """As on Ray Train; only the main thread may set handlers."""
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as other:
        made = other.submit(start, tmp_path / "run", people_folder).result()
    assert made == tmp_path / "run" / "network.safetensors"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_save_that_breaks_off_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch) -> None:
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
    """torch itself loads one with flipped bits, and the training would go on from wrong weights."""
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
        else:  # padding between the parts
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
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error, place):
    path, keeper = tmp_path / "last.ckpt", AtomicCheckpointIO()
    keeper.save_checkpoint({"step": 1}, path)

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(place, fails)
    with pytest.raises(type(error)) as raised:
        keeper.load_checkpoint(path, weights_only=True)
    assert raised.value is error


def test_only_damaged_checkpoints_are_to_be_deleted(tmp_path: Path) -> None:
    path, keeper = tmp_path / "last.ckpt", AtomicCheckpointIO()
    keeper.save_checkpoint({"step": quiet}, path)  # a function, which weights_only refuses
    with pytest.raises(ArgumentError, match=r"last\.ckpt must be .*, got an undamaged file that") as raised:
        keeper.load_checkpoint(path, weights_only=True)
    assert "delete" not in str(raised.value)
    keeper.save_checkpoint({"weights": torch.arange(4096)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = r"^checkpoint \S*last\.ckpt must be as it was written, got another checksum of .*; delete it to train from"
    with pytest.raises(ArgumentError, match=said):
        keeper.load_checkpoint(path, weights_only=True)


def test_what_a_training_leaves(whole: Path, people_folder: Path) -> None:
    card = json.loads((whole / "metrics.json").read_text())
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
    with pytest.raises(ValueError, match="holds a training already"):
        start(whole, people_folder)
    with pytest.raises(ValueError, match="no training was started there"):
        resume(whole / "logs")


def test_held_out_people_are_measured_and_named(tmp_path: Path, people_folder: Path) -> None:
    data = {"train": [source()], "folds": {"count": 3, "held_out": 1}}
    run = tmp_path / "run"
    start(run, people_folder, data=data)
    card = json.loads((run / "metrics.json").read_text())
    held = int(card["metrics"]["people"])
    assert 0 < held < 12
    assert card["data"] == [f"people: {12 - held} of 12 people trained on"]
    assert {"conventional AP", "oracle AP75", "visibility accuracy", "visibility accuracy nose"} <= set(
        card["metrics"]
    )
    assert load_network(run / "network.safetensors")[1]["metrics"] == card["metrics"]


HELD_OUT = {"train": [source()], "folds": {"count": 3, "held_out": 1}}


def card_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture
def validated(tmp_path: Path, people_folder: Path) -> Path:
    """A training that nothing stopped, validated once in an epoch and so at its last step."""
    start(tmp_path / "validated", people_folder, data=HELD_OUT)
    card = card_of(tmp_path / "validated")
    assert card["step"] == card["steps"] == 6
    return tmp_path / "validated"


def assert_ended_like(run: Path, validated: Path) -> None:
    """The network, its metrics and its card are those of a training that nothing stopped."""
    kept = ("step", "steps", "metrics", "damaged images skipped")
    assert {name: card_of(run)[name] for name in kept} == {name: card_of(validated)[name] for name in kept}
    paths = [folder / "network.safetensors" for folder in (run, validated)]
    assert_same(*map(weights, paths))
    described = [load_network(path)[1] for path in paths]
    assert {**described[0]["card"], "date": card_of(run)["date"]} == card_of(run)
    assert described[0]["metrics"] == described[1]["metrics"]


@pytest.mark.parametrize(
    "validate_every", [1, 1.3]
)  # the last validation falls within the training, or after it
@pytest.mark.parametrize(
    "place", ["PoseTraining.on_validation_epoch_end", "callbacks.save_network", "callbacks.write_json"]
)
def test_a_training_killed_in_its_last_validation_ends_with_one(
    validated: Path, people_folder: Path, monkeypatch, place: str, validate_every: float
) -> None:
    run, owner, name = validated.parent / "killed", *place.split(".")
    owner = {"PoseTraining": PoseTraining, "callbacks": callbacks}[owner]
    function = getattr(owner, name)

    def fatal(*arguments: object, **named: object) -> object:
        if reached and owner is callbacks and arguments[0].parent == run:
            raise RuntimeError("killed")
        if owner is PoseTraining and arguments[0].global_step == 6:
            raise RuntimeError("killed")
        return function(*arguments, **named)

    reached: list[int] = []
    begun = PoseTraining.training_step

    def step(self: PoseTraining, batch: dict, batch_idx: int) -> torch.Tensor:
        reached.extend([6] if self.global_step == 5 else [])
        return begun(self, batch, batch_idx)

    monkeypatch.setattr(PoseTraining, "training_step", step)
    monkeypatch.setattr(owner, name, fatal)
    fields = {"data": HELD_OUT, "training": {"validate_every": validate_every}}
    with pytest.raises(RuntimeError, match="killed"):
        start(run, people_folder, **fields)
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 6
    assert not RunFolder(run).complete()
    monkeypatch.undo()
    assert resume(run, CPU, console=quiet()) == run / "network.safetensors"
    assert RunFolder(run).complete()
    assert_ended_like(run, validated)


def test_a_stop_at_the_last_step_does_not_leave_out_the_validation(
    validated: Path, people_folder: Path, monkeypatch
) -> None:
    step = PoseTraining.training_step

    def interrupted(self: PoseTraining, batch: dict, batch_idx: int) -> torch.Tensor:
        if self.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PoseTraining, "training_step", interrupted)
    run = validated.parent / "run"
    assert start(run, people_folder, data=HELD_OUT) == run / "network.safetensors"
    assert_ended_like(run, validated)


@pytest.mark.parametrize("validate_every", [0.7, 1.3, 5])
def test_the_last_step_is_validated_however_often_others_are(
    validated: Path, people_folder: Path, validate_every: float
) -> None:
    run = validated.parent / "run"
    start(run, people_folder, data=HELD_OUT, training={"validate_every": validate_every})
    assert_ended_like(run, validated)


def test_a_complete_training_stays_as_it_is(validated: Path) -> None:
    written, console = (validated / "metrics.json").stat().st_mtime_ns, quiet()
    assert resume(validated, CPU, console=console) == validated / "network.safetensors"
    assert (validated / "metrics.json").stat().st_mtime_ns == written
    assert "Trained already" in console.file.getvalue()


def test_a_first_start_that_failed_does_not_lock_the_folder(tmp_path: Path, people_folder: Path) -> None:
    run, gone = tmp_path / "run", tmp_path / "gone.pth"
    with pytest.raises(FileNotFoundError, match="name the folder .* with --data"):
        start(run, tmp_path / "nowhere" / "people")
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        start(run, people_folder, initial={"path": str(gone)})
    with pytest.raises(ValueError, match="no training was started there"):
        resume(run, CPU, console=quiet())
    assert start(run, people_folder) == run / "network.safetensors"


def test_data_may_be_replaced_by_others_before_anything_was_learnt(
    tmp_path: Path, people_folder: Path, monkeypatch
) -> None:
    write_people(tmp_path / "others" / "people", images=3)
    monkeypatch.setattr(PoseTraining, "training_step", lambda self, batch, batch_idx: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(tmp_path / "run", people_folder)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="holds a training already"):
        start(tmp_path / "run", people_folder)
    assert resume(tmp_path / "run", CPU, data=tmp_path / "others", console=quiet()) is not None
    assert card_of(tmp_path / "run")["data"] == ["people: 6 of 6 people trained on"]


def test_a_training_whose_data_have_moved_goes_on_exactly(whole: Path, people_folder: Path) -> None:
    run, moved = whole.parent / "run", whole.parent / "moved"
    assert start(run, people_folder, Hardware("cpu", 1, max_minutes=1e-9)) is None
    moved.mkdir()
    people_folder.rename(moved / "people")
    with pytest.raises(FileNotFoundError, match="--data"):
        resume(run, CPU, console=quiet())
    write_people(moved / "others" / "people", images=4)
    with pytest.raises(ValueError, match="begun with other people than those in data .*others"):
        resume(run, CPU, data=moved / "others", console=quiet())
    assert resume(run, Hardware("cpu", 1, max_minutes=1e-9), data=moved, console=quiet()) is None
    assert resume(run, CPU, console=quiet()) is not None  # the new place is remembered
    assert losses(run) == losses(whole)
    assert_same(weights(whole / "network.safetensors"), weights(run / "network.safetensors"))


def test_nobody_is_trained_and_validated_on(tmp_path: Path, people_folder: Path) -> None:
    data = {"train": [source()], "validation": [source(limit=2)]}
    with pytest.raises(ValueError, match="2 people are trained and validated on"):
        start(tmp_path / "run", people_folder, data=data)


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data not found: .*annotations\.json; .* --data"):
        start(tmp_path / "run", tmp_path / "nowhere" / "people")


def test_damaged_images_are_counted_in_the_card(tmp_path: Path, people_folder: Path, caplog) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")
    console = quiet()
    start(tmp_path / "run", people_folder, console=console, augmentation={})
    assert "skipped damaged images in training: 6 times; the log names them" in caplog.text
    card = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # Everyone twice: person 3 is replaced by 4, which is in the same picture and skipped too.
    assert card["damaged images skipped"] == 2 * (2 + 1)


def test_damaged_images_of_people_held_out_are_counted(tmp_path: Path, people_folder: Path, caplog) -> None:
    data = parse_recipe(pose_recipe(data=HELD_OUT), "test").data
    held = open_data(data, COCO17, DataFolders(people_folder.parent)).validation[0].image_ids
    assert len(set(held)) > 1
    (people_folder / "images" / f"{held[0]}.jpg").write_bytes(b"no picture")
    console = quiet()
    start(tmp_path / "run", people_folder, console=console, data=HELD_OUT)
    card = card_of(tmp_path / "run")
    assert card["damaged images left out of the validation"] == 2
    assert card["metrics"]["people"] == len(held) - 2
    assert "skipped damaged images in validation: 2 times; the log names them" in caplog.text


def test_schedules_are_defined_over_the_whole_training() -> None:
    step = rate_factor(StepSchedule(kind="step", epochs=[120, 150]), 1600, 10)
    assert [step(s) for s in (0, 1199, 1200, 1499, 1500)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = rate_factor(CosineSchedule(kind="cosine", final=0.1, warmup_steps=9), 100, 10)
    assert cosine(0) == pytest.approx(0.1)
    assert cosine(50) == pytest.approx(0.55)
    assert cosine(100) == pytest.approx(0.1)


def test_the_average_forgets_where_it_began() -> None:
    kept, average = [torch.zeros(2), torch.tensor(0)], moving_average(0.5)
    for count in range(1, 30):
        average(kept[:1], [torch.ones(2)], torch.tensor(count))
        average(kept[1:], [torch.tensor(count)], torch.tensor(count))
    torch.testing.assert_close(kept[0], torch.ones(2), atol=1e-6, rtol=0)
    assert kept[1] == 29


def test_weights_to_start_from_are_loaded(tmp_path: Path, people_folder: Path) -> None:
    torch.manual_seed(5)
    donor = build({**TINY, "input": [48, 64], "keypoints": 17})
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    console = quiet()
    start(tmp_path / "run", people_folder, Hardware("cpu", 1, max_minutes=1e-9), console,
          initial={"path": str(tmp_path / "donor.pth")}, training={"learning_rate": 1e-9, "average": None})  # fmt: skip
    assert "entries loaded" in console.file.getvalue()
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(state["network.backbone.conv1.weight"], donor.backbone.conv1.weight.data)


def test_weights_that_know_the_people_held_out_are_refused(tmp_path: Path, people_folder: Path) -> None:
    data = {"train": [source()], "folds": {"count": 3, "held_out": 1}}
    donor = start(tmp_path / "donor", people_folder, data=data)
    start(tmp_path / "same", people_folder, data=data, initial={"path": str(donor)})
    other = {**data, "folds": {"count": 3, "held_out": 2}}
    with pytest.raises(
        ValueError, match=r"trained on people of \['people'\] who are held out here \(fold 2 of 3\)"
    ):
        start(tmp_path / "other", people_folder, data=other, initial={"path": str(donor)})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_stop_cleanly(
    tmp_path: Path, people_folder: Path, number: signal.Signals
) -> None:
    """As Ctrl-C in a terminal and `timeout` send them: the processes that load people get them too."""
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
            said = process.stderr.read()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert f"{number.name}.\nGo on with" in said, said
    assert "exited unexpectedly" not in said


def test_a_card_names_no_commit_of_somebody_elses(tmp_path: Path, monkeypatch) -> None:
    """oaks in an environment within a repository of its user's, and in one of its own."""
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
    assert not callbacks.is_first_process()


def test_a_second_interrupt_stops_at_once() -> None:
    callback = CheckpointAndStop(Path(), every_minutes=5, deadline=None, console=quiet())
    callback._on_signal(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        callback._on_signal(signal.SIGINT, None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_the_loss(tmp_path: Path, people_folder: Path, precision: str) -> None:
    """On a dozen people, without augmentation, in forty steps."""
    training = {"epochs": 10, "learning_rate": 0.01, "precision": precision, "log_every": 1}
    start(tmp_path / "run", people_folder, augmentation={}, training=training)
    curve = [float(value) for _, value in sorted(losses(tmp_path / "run").items())]
    assert np.mean(curve[-4:]) < 0.9 * np.mean(curve[:4])


@pytest.mark.real_people
def test_two_steps_on_real_people(tmp_path: Path, real_data: Path) -> None:
    """All six sets, those of 12 joints among them, from their own files."""
    changes = ["input=[64, 96]", "network.width=0.25", "training.epochs=1", "training.batch=40", "initial=null",
               "training.workers=0", "training.log_every=1", "training.precision=fp32",
               *(f"data.train.{i}.limit=12" for i in range(6))]  # fmt: skip
    recipe = read_recipe("small_pose", changes)
    assert train(recipe, tmp_path / "run", DataFolders(real_data), CPU, console=quiet()) is not None
    curve = losses(tmp_path / "run")
    assert len(curve) == 2
    assert all(np.isfinite(float(value)) for value in curve.values())
    card = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert any(line.startswith("lspet") for line in card["data"])
