"""Progress bars and Ctrl-C for builds: TensorRT works in a thread, Ctrl-C sets a flag that stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import tensorrt
    from rich.progress import Progress, TaskID

    from oaks.engines.plans.library import Library

Result = TypeVar("Result")


class Phases:
    """TensorRT's nested phases as progress bars. Called from TensorRT's own threads.

    Args:
        progress: shows the bars; None: no bars.
        cancelled: set to stop the build.

    Attributes:
        failure: an exception raised in here. TensorRT would swallow it, so it is kept and the build is stopped.
    """

    def __init__(self, progress: Progress | None, cancelled: threading.Event) -> None:
        self._progress, self._cancelled = progress, cancelled
        self._tasks: dict[str, tuple[TaskID, int]] = {}
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._shielded(lambda: self._add(name, parent, steps))

    def step(self, name: str, step: int) -> bool:
        """Whether the build continues."""
        with self._lock:
            if name in self._tasks and self._progress is not None:
                task = self._tasks[name][0]
                self._shielded(partial(self._progress.update, task, completed=step + 1))
        return self.failure is None and not self._cancelled.is_set()

    def finish(self, name: str) -> None:
        with self._lock:
            if name in self._tasks and self._progress is not None:
                task = self._tasks.pop(name)[0]
                self._shielded(partial(self._progress.remove_task, task))

    def _add(self, name: str, parent: str | None, steps: int) -> None:
        if self._progress is not None:
            depth = self._tasks[parent][1] + 1 if parent in self._tasks else 0
            self._tasks[name] = (self._progress.add_task("  " * depth + name, total=steps), depth)

    def _shielded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:
            self.failure = self.failure or error


def monitor(library: Library, phases: Phases) -> tensorrt.IProgressMonitor:
    """Return the object through which TensorRT reports its phases."""
    trt = library.trt

    base: Any = trt.IProgressMonitor  # the class depends on the library that is loaded at run time

    class Monitor(base):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


def run_in_worker(work: Callable[[threading.Event], Result]) -> Result:
    """Run `work` in a thread while this thread waits, ready for Ctrl-C.

    Args:
        work: takes an event that is set when it should stop early; it can then return or raise anything.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the work has stopped, unless it was pressed twice.
        BaseException: what the work raised.
    """
    cancelled, done = threading.Event(), threading.Event()
    results: list[Result] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work(cancelled))
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=body, name="oaks-build", daemon=True)
    try:
        thread.start()
        _wait(done)
    except KeyboardInterrupt:
        cancelled.set()
        if thread.is_alive():
            _wait(done)
        raise
    if errors:
        raise errors[0]
    return results[0]


def _wait(done: threading.Event) -> None:
    # With a timeout: a wait without one cannot be interrupted on Windows.
    while not done.wait(0.1):
        pass


__all__ = ["Phases", "monitor", "run_in_worker"]
