"""The TensorRT libraries: each imported once, with one log for the process, failures made exceptions.

TensorRT 10, TensorRT 11 and TensorRT for RTX are one family with nearly the same names. TensorRT seldom raises:
it returns None or False and says why in its log. So callers ask the Library for an exception, which carries
the end of that log.
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
    import tensorrt as tensorrt  # given on to oaks.executors, where the name means the module tensorrt.py

log = logging.getLogger("oaks.tensorrt")

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
"""The flavours: ordinary TensorRT for every NVIDIA GPU, and TensorRT for RTX."""

OLDEST = {TENSORRT: (10, 3), RTX: (1, 7)}
"""The oldest version of each whose Python names are the ones used here."""

_NAMES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
_INSTALL = {TENSORRT: "`pip install 'oaks[tensorrt]'`", RTX: "`pip install 'oaks[tensorrt-rtx]'`"}

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
        flavour: TENSORRT or RTX.
        trt: the module.
        logger: the one trt.ILogger; builders, parsers and runtimes all get it.
        log: where the logger writes.
    """

    flavour: str
    trt: ModuleType
    logger: tensorrt.ILogger
    log: Log

    @property
    def version(self) -> str:
        return self.trt.__version__

    @property
    def name(self) -> str:
        """For messages, with the version."""
        return f"{_NAMES[self.flavour]} {self.version}"

    def failure(self, what: str, mark: int = 0) -> TensorRTError:
        """An exception that says what failed and what TensorRT wrote since the mark."""
        return TensorRTError(f"{what}. {self.name} wrote:\n{self.log.tail(mark)}")

    def builder(self) -> tensorrt.Builder:
        """Raises BackendUnavailable where there is no GPU that TensorRT can use."""
        trt, mark = self.trt, self.log.mark()
        try:
            return trt.Builder(self.logger)
        except TypeError as error:  # "factory function returned nullptr"
            raise self._unusable(error, mark) from error

    def runtime(self) -> tensorrt.Runtime:
        """Raises BackendUnavailable where there is no GPU that TensorRT can use."""
        trt, mark = self.trt, self.log.mark()
        try:
            return trt.Runtime(self.logger)
        except TypeError as error:
            raise self._unusable(error, mark) from error

    def _unusable(self, error: TypeError, mark: int) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self.name} finds no GPU and driver that it can use ({error}); check `nvidia-smi`. "
            f"It wrote:\n{self.log.tail(mark)}"
        )


_lock = threading.Lock()
_loaded: dict[str, Library] = {}


def library(flavour: str = TENSORRT) -> Library:
    """A TensorRT library, imported on the first call.

    Args:
        flavour: TENSORRT or RTX.

    Raises:
        BackendUnavailable: it is not installed, does not load, or is older than OLDEST.
    """
    with _lock:
        if flavour not in _loaded:
            _loaded[flavour] = _load(flavour)
        return _loaded[flavour]


def _load(flavour: str) -> Library:
    name, install = _NAMES[flavour], _INSTALL[flavour]
    try:
        trt = rtx.load() if flavour == RTX else importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{name} cannot be imported: {error}; {install}") from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < OLDEST[flavour]:
        oldest = ".".join(map(str, OLDEST[flavour]))
        raise BackendUnavailable(f"{name} must be {oldest} or newer, got {trt.__version__}; {install}")
    lines = Log()
    return Library(flavour, trt, _logger(trt, lines), lines)


def _logger(trt: ModuleType, lines: Log) -> tensorrt.ILogger:
    base: Any = trt.ILogger  # which of the libraries' classes it is, only the running program knows

    class Logger(base):
        """Hands every line to the Log. Must not raise: TensorRT only prints exceptions from here."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            lines.add(severity.name, msg)

    return Logger()


__all__ = ["OLDEST", "RTX", "TENSORRT", "Library", "Log", "TensorRTError", "library"]
