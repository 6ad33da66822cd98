"""Kill verbs at random moments, and compare the files of reruns with those of a run that nobody killed.

    python -m durability.kills --kills 200 --seed 0 [VERB ...]      (in tests/)

Print a line of JSON after every kill: how many kills came before the end of their run, how many files could not be
read, and how many files of reruns were not the same bytes. Verbs run in processes forked from one that has imported
the package, so that kills hit the work and not the imports; with `--fresh` each run starts a new interpreter.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

LONGEST = 600
"""Seconds that a run may take on a busy machine."""


class Run(Protocol):
    """A verb that runs in a process group of its own."""

    def ended(self) -> bool:
        """Whether it has come to its end."""

    def kill(self) -> None:
        """Send SIGKILL to all of its processes."""

    def wait(self) -> tuple[int, str]:
        """Its exit code and standard error, once it has ended."""


class Fresh:
    """A run in a new interpreter."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oaks", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it may have ended in this moment
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=LONGEST)
        return self.process.returncode, said


class Forked:
    """A run in a child of this process, which has imported what the verbs need and has opened no network."""

    def __init__(self, arguments: list[str]) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the run
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._child(arguments))

    def _child(self, arguments: list[str]) -> int:
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self.said.fileno(), 2)
            from oaks.cli.main import main

            main(arguments)
        except SystemExit as end:
            return int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
        return 70

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # before it has a group of its own
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        end = time.monotonic() + LONGEST
        while not self.ended():
            assert time.monotonic() < end, "the run does not end"
            time.sleep(0.002)
        assert self.code is not None
        with self.said:
            self.said.seek(0)
            return self.code, self.said.read().decode(errors="replace")


@dataclass
class Outcome:
    """What kills of one verb came to.

    Attributes:
        kills: that came before the end of the run.
        late: after it.
        unreadable: files that could not be read, after a kill or after a rerun.
        different: files of a rerun that are missing, too many, or not the same bytes.
        failed: reruns that failed, by what they said.
    """

    kills: int = 0
    late: int = 0
    unreadable: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Everything that must not happen."""
        return [*self.unreadable, *self.different, *self.failed]


@dataclass(frozen=True)
class Reference:
    """A run that was left alone: its files, and about how many seconds it writes."""

    files: dict[str, bytes]
    seconds: float


def state(folder: Path) -> list[tuple[str, int]]:
    """What lies in a folder, and how large it is."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found.append((str(path), path.stat().st_size))
    return sorted(found)


def until_first_file(run: Run, out: Path) -> None:
    """Wait until a run has written something, or has ended."""
    while not run.ended() and not state(out):
        time.sleep(0.002)


def reference(verb: Any, out: Path, start: Callable[[list[str]], Run]) -> Reference:
    """Run a verb without a kill, in a folder that is not there before and not after."""
    from durability.verbs import contents, unreadable

    out.mkdir()
    run = start(verb.arguments(out))
    until_first_file(run, out)
    begun = time.monotonic()
    code, said = run.wait()
    seconds = time.monotonic() - begun
    assert code == 0, said
    assert unreadable(out) == []
    files = contents(out, verb.compared)
    assert files
    shutil.rmtree(out)
    return Reference(files, seconds)


def _first_difference(expected: bytes | None, got: bytes | None) -> str:
    """What two files have where they first differ."""
    if expected is None or got is None:
        return "too many" if expected is None else "missing"
    at = next(
        (n for n, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b),
        min(len(expected), len(got)),
    )
    part = slice(max(at - 40, 0), at + 40)
    return f"at byte {at}: {expected[part]!r}, got {got[part]!r}"


def kill_once(
    verb: Any,
    out: Path,
    whole: Reference,
    rng: random.Random,
    start: Callable[[list[str]], Run],
    found: Outcome,
) -> None:
    """Kill a run some time after its first file, and rerun it."""
    from durability.verbs import contents, unreadable

    out.mkdir()
    run = start(verb.arguments(out))
    until_first_file(run, out)
    time.sleep(rng.uniform(0, whole.seconds))
    ended = run.ended()
    run.kill()
    run.wait()
    found.late += ended
    found.kills += not ended
    found.unreadable += [f"after the kill: {file}" for file in unreadable(out)]
    code, said = start(verb.rerun(out)).wait()
    if code:
        found.failed.append(f"exit code {code}: {said[-2000:]}")
    else:
        found.unreadable += [f"after the rerun: {file}" for file in unreadable(out)]
        files = contents(out, verb.compared)
        names = files.keys() | whole.files.keys()
        found.different += sorted(
            f"{name}: {_first_difference(whole.files.get(name), files.get(name))}"
            for name in names
            if files.get(name) != whole.files.get(name)
        )
    shutil.rmtree(out)


IMPORTED = (
    "oaks.cli.main", "oaks.executors.onnxruntime", "oaks.engines.export.export", "oaks.fit", "oaks.training.run",
    "oaks.val.evaluate", "oaks.video", "onnxruntime", "av", "faster_coco_eval", "lightning",
    "matplotlib.figure", "onnx", "onnxscript", "scipy.optimize",
)  # fmt: skip
"""What verbs import on their way; none of it opens a network. LightGBM is not here: `fit` refuses one from before a fork."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verbs", nargs="*", metavar="VERB", help="default: all")
    parser.add_argument("--kills", type=int, default=200, help="for all verbs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--fresh", action="store_true", help="a new interpreter for each run, which takes longer"
    )
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="oaks-kills-") as folder:
        return _kill_all(Path(folder), chosen)


def _kill_all(folder: Path, chosen: argparse.Namespace) -> int:
    start: Callable[[list[str]], Run] = Fresh if chosen.fresh else Forked
    if not chosen.fresh:
        for name in IMPORTED:
            importlib.import_module(name)
    from durability.verbs import verbs_on, write_inputs

    _in_child(lambda: write_inputs(folder))
    verbs = verbs_on(folder)
    names = chosen.verbs or list(verbs)
    rng, outcomes, wholes = random.Random(chosen.seed), {name: Outcome() for name in names}, {}
    faults = 0
    for number in range(
        chosen.kills
    ):  # by turns, so that a run that is stopped has killed every verb as often
        name = names[number % len(names)]
        if name not in wholes:
            wholes[name] = reference(verbs[name], folder / "out", start)
        found = outcomes[name]
        before = len(found.faults())
        kill_once(verbs[name], folder / "out", wholes[name], rng, start, found)
        for fault in found.faults()[before:]:
            faults += 1
            print(json.dumps({"verb": name, "fault": fault}), flush=True)
        print(json.dumps(_totals(outcomes)), flush=True)
    return 1 if faults else 0


def _in_child(work: Callable[[], None]) -> None:
    """Do work that starts threads in a child, so that this process can fork later."""
    if (pid := os.fork()) == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the inputs cannot be made"


def _totals(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    return {
        "kills": sum(found.kills for found in outcomes.values()),
        "after the end": sum(found.late for found in outcomes.values()),
        "unreadable": sum(len(found.unreadable) for found in outcomes.values()),
        "different": sum(len(found.different) for found in outcomes.values()),
        "failed": sum(len(found.failed) for found in outcomes.values()),
        "by verb": {name: found.kills for name, found in outcomes.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
