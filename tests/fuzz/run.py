"""Feed one reader, or each in turn, with hostile inputs for a given time, in this process.

    python -m fuzz.run --seconds 60 --seed 0 [TARGET ...]      (in tests/)

Print a line of JSON per target: how many inputs were tried, how many were refused, and what went wrong: an exception
that is not the package's own, more than five seconds of processor time (or a minute), or more than 1 GB of memory. A
crash ends the process; the line before names the target, and the file of `--last` holds the input.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import json
import logging
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException

SLOWEST = 5.0
LARGEST = 1 << 30
_CHUNK = 40


class TooSlow(BaseException):
    """An input took longer than SLOWEST."""


_watched = False
"""Whether an input is being read: an alarm that comes later is too late."""


def _alarm(number: int, frame: Any) -> None:
    if _watched:
        raise TooSlow


def peak() -> int:
    """Bytes of memory that this process has held at most."""
    try:  # Linux: ru_maxrss would begin with what the parent process held
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def is_refusal(error: BaseException) -> bool:
    """Whether an error is one that the package documents: its own, or a file that cannot be opened."""
    from oaks import OaksError

    return isinstance(error, OaksError) or (isinstance(error, OSError) and error.errno is not None) or isinstance(
        error, FileNotFoundError | ConnectionError
    )  # fmt: skip


def feed(target: Any, seconds: float, start: int, last: Path | None) -> dict[str, Any]:
    """Runs one target; gives its counts and what went wrong, each kind of fault once with an input."""
    counts: Counter[str] = Counter()
    faults: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="oaks-fuzz-"))
    held = [peak()]

    def fault(kind: str, value: Any, text: str) -> None:
        counts["faults"] += 1
        entry = faults.setdefault(kind, {"count": 0, "input": repr(value)[:400], "traceback": text[-1500:]})
        entry["count"] += 1

    def attempt(value: Any) -> None:
        if time.monotonic() > end:
            return
        counts["inputs"] += 1
        if last is not None:
            with contextlib.suppress(Exception):
                last.write_bytes(pickle.dumps(value))
        inner = Path(tempfile.mkdtemp(dir=folder))
        begun = time.process_time()
        global _watched
        signal.setitimer(signal.ITIMER_PROF, SLOWEST)
        signal.setitimer(signal.ITIMER_REAL, 12 * SLOWEST)
        try:
            _watched = True
            target.read(value, inner)
        except TooSlow:
            fault(f"more than {SLOWEST:g} s", value, traceback.format_exc())
        except Exception as error:
            if is_refusal(error):
                counts["refused"] += 1
            else:
                frames = traceback.extract_tb(error.__traceback__)
                own = [frame for frame in frames if "fuzz" not in frame.filename] or frames
                fault(
                    f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}",
                    value,
                    traceback.format_exc(),
                )
        finally:
            _watched = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            shutil.rmtree(inner, ignore_errors=True)
        if time.process_time() - begun > SLOWEST and not any("more than" in kind for kind in faults):
            fault(f"more than {SLOWEST:g} s", value, "outside of Python code")
        if peak() - held[0] > LARGEST:
            fault("more than 1 GB", value, f"{(peak() - held[0]) >> 20} MiB more than before")
            held[0] = peak()

    chosen = settings(
        max_examples=_CHUNK, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    chunk = start
    while time.monotonic() < end:

        def run(value: Any) -> None:
            attempt(value)

        with contextlib.suppress(HypothesisException):  # of its own bookkeeping; the inputs so far were tried
            seed(chunk)(chosen(given(target.inputs)(run)))()
        chunk += 1
        gc.collect()
    shutil.rmtree(folder, ignore_errors=True)
    return {**{name: counts[name] for name in ("inputs", "refused", "faults")}, "kinds": faults}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last", type=Path, help="file for the input that is tried")
    parser.add_argument("--list", action="store_true", help="print the targets' names")
    arguments = parser.parse_args()
    from fuzz import sanitized

    sanitized.load()
    from fuzz.targets import make_targets

    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _alarm)
    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="oaks-fuzz-") as folder:
        targets = make_targets(Path(folder))
        if arguments.list:
            print("\n".join(targets))
            return 0
        chosen = arguments.targets or list(targets)
        for name in chosen:
            print(json.dumps({"target": name}), flush=True)
            found = feed(targets[name], arguments.seconds / len(chosen), arguments.seed, arguments.last)
            print(json.dumps({"target": name, **found}), flush=True)
            failed += found["faults"]
            total += found["inputs"]
    print(json.dumps({"inputs": total, "faults": failed}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
