"""Atomic writes of files and folders, and bounded reads."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from oaks.arguments import as_path
from oaks.errors import ArgumentError

log = logging.getLogger("oaks")

_AT_ONCE = 4
"""Number of hidden names per path: so many processes can write it at the same time and have their leftovers removed."""


class Staged:
    """A hidden file beside a path, which replaces it when it is complete.

    The file is locked while it is open. Its name follows from the path, so that the next write of the same path removes
    a file that a killed process left; on systems without locks such a file stays.

    Args:
        path: the file to replace.
        buffering: as for `open`.

    Attributes:
        file: the hidden file, open to be written.
        path: its path; None once it has replaced the other file.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """

    def __init__(self, path: Path, *, buffering: int = -1) -> None:
        self._target = path
        staged, handle = _make_beside(path, _make_file)
        self.path: Path | None = staged
        self.file: IO[bytes] = open(handle, "wb", buffering)  # noqa: SIM115 - closed by close()

    def replace(self, *, sync: bool = False) -> None:
        """Replace the other file. This file stays open; on Windows it is closed first.

        Args:
            sync: whether to flush the content to the disk first.
        """
        assert self.path is not None
        self.file.flush()
        if sync:
            os.fsync(self.file.fileno())
        if os.name == "nt":
            self.file.close()
        os.replace(self.path, self._target)
        self.path = None

    def close(self) -> None:
        """Close the file, and remove it if it has not replaced the other file."""
        staged, self.path = self.path, None
        try:
            self.file.close()
        finally:
            if staged is not None:
                with suppress(OSError):
                    os.unlink(staged)


@contextmanager
def replacing(path: str | Path, *, sync: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends without an error.

    Args:
        path: the file.
        sync: whether to flush the content to the disk before the rename, so that it survives a power cut.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    path = as_path("path", path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "must be a regular file, got a folder or device", str(path))
    with naming(path):
        staged = Staged(path)
        try:
            yield staged.file
            staged.replace(sync=sync)
        except BaseException:
            with suppress(OSError):  # on a full disk, the first error is raised
                staged.close()
            raise
        staged.close()


def _make_beside(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Make a hidden file or folder beside a path; return its path, and its handle, which locks it.

    Its name is of fixed length, since the path's own may be as long as names can be.

    Args:
        path: the path.
        make: creates a file or a folder, and opens it.
    """
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    for number in range(_AT_ONCE):
        name = path.with_name(f".oaks-{digest}-{number}")
        _remove_unheld(name)
        try:
            handle = make(name)
        except FileExistsError:
            continue
        if (locked := _lock(handle)) is None or (locked and _is_at(name, handle)):
            return name, handle
        os.close(handle)  # another process takes it for the file of a killed one, and removes it
    name = path.with_name(f".oaks-{secrets.token_hex(8)}")
    return name, make(name)


def _make_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _make_folder(path: Path) -> int:
    path.mkdir()
    # Windows cannot open folders, so the handle is of the null device there, and locks nothing.
    return os.open(path if os.name != "nt" else os.devnull, os.O_RDONLY)


def hold(handle: int, path: str | Path, *, wait: bool = False) -> None:
    """Lock an open file or folder until it is closed, so that one run at a time writes it.

    The lock ends with the process. Windows and some file systems have no such locks; nothing is held there.

    Args:
        handle: the open file or folder.
        path: what messages call it.
        wait: whether to wait until another run has closed it.

    Raises:
        ArgumentError: another run holds it.
    """
    if _lock(handle) is not False:
        return
    if not wait:
        raise ArgumentError(f"{path}: another run is writing it; wait until it has ended, or write elsewhere")
    log.warning("%s: another run is writing it; waiting until it has ended", path)
    _lock(handle, wait=True)


@contextmanager
def held(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an existing folder during the block (see `hold`). Forks do not hold it, so that none outlives a killed run."""
    if os.name == "nt":  # it cannot open folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    _held.add(handle)
    try:
        hold(handle, folder, wait=wait)
        yield
    finally:
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


def _let_go() -> None:
    """Close the held folders in a fork; its parent still holds them."""
    while _held:
        os.close(_held.pop())


_held: set[int] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _lock(handle: int, *, wait: bool = False) -> bool | None:
    """Lock an open file or folder until it is closed: False if another process holds it, None if that is impossible."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _is_at(path: Path, handle: int) -> bool:
    """Return whether an open file or folder is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_unheld(path: Path, *, unlocked: bool = False) -> None:
    """Remove a hidden file or folder that no process has locked, if it exists.

    Args:
        path: the file or folder.
        unlocked: whether to remove it on systems without locks too.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(path, flags)
    except OSError:
        return
    try:
        locked = _lock(handle)
        if (locked or (locked is None and unlocked)) and _is_at(path, handle):
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(path)
    finally:
        os.close(handle)


def followed(path: str | Path) -> Path:
    """Return the file that a symbolic link points to; any other path unchanged."""
    return Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add this path to an OSError of the block that names no file, such as the one of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """Open a new folder that replaces `folder` when the block ends without an error.

    Raises:
        OSError: the folder cannot be written or replaced.
    """
    folder = Path(folder)
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged, handle = _make_beside(folder, _make_folder)
        try:
            yield staged
            _replace_folder(staged, folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        finally:
            os.close(handle)


def _replace_folder(staged: Path, folder: Path) -> None:
    """Replace a folder by a staged one, and delete the old one.

    On Linux the two are exchanged in one step, so that a kill leaves either the old or the new folder. On other
    systems, a kill between two renames leaves the old folder with the suffix .old.

    Raises:
        OSError: the folder cannot be replaced; it is then as it was.
    """
    try:
        if not folder.exists():
            os.replace(staged, folder)
            return
    except OSError:
        if not folder.exists():  # otherwise another process has put its own there meanwhile
            raise
    if _exchange(staged, folder):
        _remove_unheld(staged, unlocked=True)
        return
    old = staged.with_name(f"{staged.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # left by a killed process that had put the new folder in place
    os.replace(folder, old)
    try:
        os.replace(staged, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step (renameat2, Linux); return False where the system cannot."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def check_no_fifo(path: str | Path) -> None:
    """Raise OSError if a path that is to be written in place is a FIFO: writing would wait for a reader."""
    if Path(path).is_fifo():
        raise OSError(errno.EINVAL, "must not be a FIFO", str(path))


def read_regular(path: str | Path, largest: int) -> bytes:
    """Return a regular file's content, at most `largest` bytes; never waits for a FIFO's writer.

    Raises:
        OSError: it is missing, larger, or a folder, FIFO or device.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it must be a regular file, got a folder, FIFO or device")
        check_size(status.st_size, largest)
        content = file.read(largest + 1)
    check_size(len(content), largest)
    return content


def check_size(size: int, largest: int) -> None:
    """Raise OSError if a file has more than `largest` bytes."""
    if size > largest:
        raise OSError(f"it must have at most {largest} bytes, got {size}")


def write_json(path: str | Path, content: Any, *, indent: int | None = None) -> None:
    """Write JSON atomically. NaN is refused.

    Raises:
        ArgumentError: the content holds NaN, an infinity, or a type that JSON does not have.
    """
    try:
        text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:  # a NumPy array or number, for one
        raise ArgumentError(str(error)) from error
    write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 atomically, with its line ends unchanged."""
    with replacing(path) as file:
        # A lone surrogate stands for an undecodable byte of a file's name; in JSON, its escape reads as the same text.
        file.write(text.encode("utf-8", "backslashreplace"))


__all__ = [
    "Staged",
    "check_no_fifo",
    "check_size",
    "held",
    "hold",
    "naming",
    "read_regular",
    "replacing",
    "replacing_folder",
    "write_json",
    "write_text",
]
