"""Kill verbs at random moments, and compare the files of reruns with those of a run that nobody killed.

    python -m durability.kills --kills 200 --seed 0 [--log FILE] [VERB ...]      (in tests/)

Print a line of JSON after every kill: how many kills came before the end of their run, how many files could not be
read, and how many files of reruns were not the same bytes. Kills after the end do not count. With `--log` the kills are
kept in a file, and the same command resumes. Verbs run in processes forked from one that has imported the package, so
that kills hit the work and not the imports; with `--fresh` each run starts a new interpreter. Verbs that take little time
are killed more often (ROUND).
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
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

LONGEST = 600
"""Seconds that a run may take on a busy machine."""


class Run(Protocol):
    """A verb that runs in a process group of its own."""

    pid: int

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
        self.pid = self.process.pid

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

    def add(self, other: Outcome) -> None:
        """Add the kills of another."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))

    def faults(self) -> list[str]:
        """Everything that must not happen."""
        return [*self.unreadable, *self.different, *self.failed]


@dataclass(frozen=True)
class Reference:
    """A run that was left alone: its files, and about how many seconds of processor time it takes from the first one on."""

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
        time.sleep(0.003)


def processor_time(run: Run) -> float | None:
    """Seconds of processor time of a run so far, which do not depend on what else the machine does; None after its end."""
    try:
        return time.clock_gettime((~run.pid << 3) | 2)  # Linux: the clock of another process
    except OSError:
        return None


def reference(verb: Any, out: Path, start: Callable[[list[str]], Run]) -> Reference:
    """Run a verb without a kill, in a folder that is not there before and not after."""
    from durability.verbs import contents, unreadable

    out.mkdir()
    run = start(verb.arguments(out))
    until_first_file(run, out)
    begun = last = processor_time(run) or 0.0
    while not run.ended():
        last = processor_time(run) or last
        time.sleep(0.003)
    code, said = run.wait()
    assert code == 0, said
    assert unreadable(out) == []
    files = contents(out, verb)
    assert files
    shutil.rmtree(out)
    return Reference(files, last - begun)


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
    end = (processor_time(run) or 0.0) + rng.uniform(0, whole.seconds)
    while not run.ended() and (processor_time(run) or end) < end:
        time.sleep(0.001)
    ended = run.ended()
    run.kill()
    run.wait()
    found.late += ended
    found.kills += not ended
    found.unreadable += [f"after the kill: {file}" for file in unreadable(out)]
    code, said = start(verb.rerun(out)).wait()
    if code and not (verb.once and "must not exist" in said):
        found.failed.append(f"exit code {code}: {said[-2000:]}")
    else:
        found.unreadable += [f"after the rerun: {file}" for file in unreadable(out)]
        found.different += [f"left behind: {path.name}" for path in out.rglob(".oaks-*")]
        files = contents(out, verb)
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

ROUND = {
    "predict": 4, "track": 4, "val run": 1, "val detect": 4, "val boxes": 3, "val report": 2, "val others": 1, "fit": 1,
    "rescore": 2, "import": 3, "finetune": 1, "benchmark": 1, "export": 1, "render": 2, "render-video": 2, "pack": 4,
    "train": 2,
}  # fmt: skip
"""How often each verb is killed while the others are killed as often as they say here."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verbs", nargs="*", metavar="VERB", help="default: all")
    parser.add_argument("--kills", type=int, default=200, help="for all verbs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="file that keeps the kills; the same command resumes")
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

    names = chosen.verbs or list(ROUND)
    _in_child(lambda: write_inputs(folder, names))
    verbs = verbs_on(folder)
    order = [name for turn in range(max(ROUND.values())) for name in names if turn < ROUND[name]]
    outcomes = {name: Outcome() for name in names}
    done = _logged(chosen.log, outcomes)
    wholes: dict[str, Reference] = {}
    while sum(found.kills for found in outcomes.values()) < chosen.kills:
        name = order[done % len(order)]
        if name not in wholes:
            wholes[name] = reference(verbs[name], folder / "out", start)
        one, rng = Outcome(), random.Random(f"{chosen.seed} {done}")
        kill_once(verbs[name], folder / "out", wholes[name], rng, start, one)
        done += 1
        if chosen.log is not None:
            with chosen.log.open("a") as log:
                log.write(json.dumps({"verb": name, **asdict(one)}) + "\n")
        outcomes[name].add(one)
        for fault in one.faults():
            print(json.dumps({"verb": name, "fault": fault}), flush=True)
        print(json.dumps(_totals(outcomes)), flush=True)
    return 1 if any(found.faults() for found in outcomes.values()) else 0


def _logged(log: Path | None, outcomes: dict[str, Outcome]) -> int:
    """Add the kills of a file to the outcomes; return how many there are, those after the end too."""
    lines = [] if log is None or not log.exists() else log.read_text().splitlines()
    for line in lines:
        content = json.loads(line)
        outcomes[content.pop("verb")].add(Outcome(**content))
    return len(lines)


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
