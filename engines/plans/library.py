"""The TensorRT libraries: each imported once, with one log per process, and failures turned into exceptions.

TensorRT 10, TensorRT 11 and TensorRT for RTX have nearly the same Python names. TensorRT seldom raises: it returns None
or False and writes the reason to its log. Callers therefore get an exception from the Library, which includes the
end of that log.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from oaks.engines.plans import rtx
from oaks.errors import BackendUnavailable

if TYPE_CHECKING:
    import tensorrt as tensorrt  # for oaks.executors, where `tensorrt` would resolve to its own module

log = logging.getLogger("oaks.tensorrt")

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
"""The flavors: ordinary TensorRT for every NVIDIA GPU, and TensorRT for RTX."""

OLDEST = {TENSORRT: (10, 3), RTX: (1, 7)}
"""The oldest version of each that has the Python names used here."""

_NAMES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
_INSTALL = {TENSORRT: "`pip install 'oaks[tensorrt]'`", RTX: "`pip install 'oaks[tensorrt-rtx]'`"}

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.WARNING,
    "WARNING": logging.INFO,
    "INFO": logging.DEBUG,
}
"""TensorRT's severities -> logging levels. Errors are logged as warnings: those that matter are raised as exceptions."""


class TensorRTError(BackendUnavailable):
    """TensorRT is installed but failed. The message ends with what it wrote to its log."""


class Log:
    """The last lines that TensorRT wrote, from any thread."""

    def __init__(self, length: int = 200) -> None:
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=length)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, severity: str, message: str) -> None:
        """Keep a line and pass it to logging. VERBOSE is dropped: a build writes megabytes of it."""
        if severity not in _LEVELS:
            return
        with self._lock:
            self._lines.append((self._count, severity, message))
            self._count += 1
        log.log(_LEVELS[severity], "%s", message)

    def mark(self) -> int:
        """Return the current position in the log, for `since`."""
        return self._count

    def since(self, mark: int = 0) -> list[str]:
        """Return the kept lines from a mark on."""
        with self._lock:
            return [f"{severity}: {message}" for number, severity, message in self._lines if number >= mark]

    def tail(self, mark: int = 0, count: int = 8) -> str:
        """Return the last warnings and errors since a mark; if there are none, the last lines of any kind."""
        lines = self.since(mark)
        important = [line for line in lines if not line.startswith("INFO")]
        return "\n".join((important or lines)[-count:]) or "(TensorRT wrote nothing)"


@dataclass(frozen=True)
class Library:
    """A TensorRT library and its log in this process.

    Attributes:
        flavor: TENSORRT or RTX.
        trt: the module.
        logger: the trt.ILogger that all builders, parsers and runtimes share.
        log: the log that the logger writes to.
    """

    flavor: str
    trt: ModuleType
    logger: tensorrt.ILogger
    log: Log

    @property
    def version(self) -> str:
        return self.trt.__version__

    @property
    def name(self) -> str:
        """Name with the version, for messages."""
        return f"{_NAMES[self.flavor]} {self.version}"

    def failure(self, what: str, mark: int = 0) -> TensorRTError:
        """Return an exception that says what failed and what TensorRT wrote since the mark."""
        return TensorRTError(f"{what}. {self.name} wrote:\n{self.log.tail(mark)}")

    def builder(self) -> tensorrt.Builder:
        """Create a builder; raise BackendUnavailable if TensorRT can use no GPU."""
        trt = self.trt
        return self._created(trt.Builder)

    def runtime(self) -> tensorrt.Runtime:
        """Create a runtime; raise BackendUnavailable if TensorRT can use no GPU."""
        trt = self.trt
        return self._created(trt.Runtime)

    def _created(self, kind: Any) -> Any:
        mark = self.log.mark()
        try:
            return kind(self.logger)
        except TypeError as error:  # "factory function returned nullptr"
            raise BackendUnavailable(
                f"{self.name} finds no GPU and driver that it can use ({error}); check `nvidia-smi`. "
                f"It wrote:\n{self.log.tail(mark)}"
            ) from error


_lock = threading.Lock()
_loaded: dict[str, Library] = {}


def library(flavor: str = TENSORRT) -> Library:
    """Return a TensorRT library, imported on the first call.

    Args:
        flavor: TENSORRT or RTX.

    Raises:
        BackendUnavailable: it is not installed, cannot be loaded, or is older than OLDEST.
    """
    with _lock:
        if flavor not in _loaded:
            _loaded[flavor] = _load(flavor)
        return _loaded[flavor]


def _load(flavor: str) -> Library:
    name, install = _NAMES[flavor], _INSTALL[flavor]
    try:
        trt = rtx.load() if flavor == RTX else importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{name} cannot be imported: {error}; {install}") from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < OLDEST[flavor]:
        oldest = ".".join(map(str, OLDEST[flavor]))
        raise BackendUnavailable(f"{name} must be {oldest} or newer, got {trt.__version__}; {install}")
    lines = Log()
    return Library(flavor, trt, _logger(trt, lines), lines)


def _logger(trt: ModuleType, lines: Log) -> tensorrt.ILogger:
    base: Any = trt.ILogger  # the class depends on the library that is loaded at run time

    class Logger(base):
        """Passes every line to the Log. Must not raise: TensorRT only prints exceptions from here."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            lines.add(severity.name, msg)

    return Logger()


__all__ = ["OLDEST", "RTX", "TENSORRT", "Library", "Log", "TensorRTError", "library"]
