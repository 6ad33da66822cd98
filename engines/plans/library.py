"""The TensorRT library: imported once, with one log for the process, its failures made exceptions.

TensorRT seldom raises: it returns None or False and says why in its log. So whoever calls it asks the
Library for an exception, which carries the end of that log.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from oaks.errors import BackendUnavailable

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger("oaks.tensorrt")

OLDEST = (10, 3)
"""The oldest TensorRT whose Python names are the ones used here."""

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.WARNING,
    "WARNING": logging.INFO,
    "INFO": logging.DEBUG,
}
"""TensorRT's severities as ours: what it calls an error is raised as an exception where it matters."""


class TensorRTError(BackendUnavailable):
    """TensorRT is there and could not do what was asked. The message ends with what it wrote to its log."""


class Log:
    """The last lines that TensorRT wrote, from whichever thread."""

    def __init__(self, length: int = 200) -> None:
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=length)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, severity: str, message: str) -> None:
        """Keeps a line and hands it on to logging. VERBOSE is dropped: a build writes megabytes of it."""
        if severity not in _LEVELS:
            return
        with self._lock:
            self._lines.append((self._count, severity, message))
            self._count += 1
        log.log(_LEVELS[severity], "%s", message)

    def mark(self) -> int:
        """A place in the log, for `since`."""
        return self._count

    def since(self, mark: int = 0) -> list[str]:
        """The kept lines from a mark on."""
        with self._lock:
            return [f"{severity}: {message}" for number, severity, message in self._lines if number >= mark]

    def tail(self, mark: int = 0, count: int = 8) -> str:
        """The last warnings and errors since a mark; where there is none, the last lines of any kind."""
        lines = self.since(mark)
        grave = [line for line in lines if not line.startswith("INFO")]
        return "\n".join((grave or lines)[-count:]) or "(TensorRT wrote nothing)"


@dataclass(frozen=True)
class Library:
    """TensorRT, and the log of everything that it does in this process.

    Attributes:
        trt: the module.
        logger: the one trt.ILogger; builders, parsers and runtimes all get it.
        log: where the logger writes.
    """

    trt: ModuleType
    logger: trt.ILogger
    log: Log

    @property
    def version(self) -> str:
        return self.trt.__version__

    def failure(self, what: str, mark: int = 0) -> TensorRTError:
        """An exception that says what failed and what TensorRT wrote since the mark."""
        return TensorRTError(f"{what}. TensorRT {self.version} wrote:\n{self.log.tail(mark)}")

    def builder(self) -> trt.Builder:
        """Raises BackendUnavailable where there is no GPU that TensorRT can use."""
        trt, mark = self.trt, self.log.mark()
        try:
            return trt.Builder(self.logger)
        except TypeError as error:  # "factory function returned nullptr"
            raise self._unusable(error, mark) from error

    def runtime(self) -> trt.Runtime:
        """Raises BackendUnavailable where there is no GPU that TensorRT can use."""
        trt, mark = self.trt, self.log.mark()
        try:
            return trt.Runtime(self.logger)
        except TypeError as error:
            raise self._unusable(error, mark) from error

    def _unusable(self, error: TypeError, mark: int) -> BackendUnavailable:
        return BackendUnavailable(
            f"TensorRT {self.version} finds no GPU and driver that it can use ({error}); check `nvidia-smi`. "
            f"It wrote:\n{self.log.tail(mark)}"
        )


_lock = threading.Lock()
_loaded: Library | None = None


def library() -> Library:
    """TensorRT, imported on the first call.

    Raises:
        BackendUnavailable: it is not installed, its libraries do not load, or it is older than OLDEST.
    """
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def _load() -> Library:
    wanted = "`pip install 'oaks[tensorrt]'`"
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"TensorRT cannot be imported: {error}; {wanted}") from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BackendUnavailable(f"TensorRT {oldest} or newer is needed, {trt.__version__} is here; {wanted}")
    lines = Log()

    class Logger(trt.ILogger):
        """Hands every line to the Log. What is raised in here TensorRT only prints, so nothing is."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            lines.add(severity.name, msg)

    return Library(trt, Logger(), lines)


__all__ = ["OLDEST", "Library", "Log", "TensorRTError", "library"]
