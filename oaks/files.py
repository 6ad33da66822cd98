"""Atomic writes of files and folders, and bounded reads."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from oaks.arguments import as_path
from oaks.errors import ArgumentError


@contextmanager
def replacing(path: str | Path, *, sync: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends without an error.

    Args:
        path: the file.
        sync: whether to flush the content to the disk before the rename, so that it survives a power cut.

    Raises:
        OSError: the folder is not there or cannot be written to.
    """
    path = as_path("path", path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "must be a regular file, got a folder or device", str(path))
    with naming(path):
        staged = beside(path)
        file = open(staged, "xb")  # noqa: SIM115 - closed below, before it is renamed
        try:
            with file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(staged, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(staged)
            raise


def beside(path: Path) -> Path:
    """An unused name beside a path, of fixed length, since the path's own name may be as long as names can be."""
    return path.with_name(f".oaks-{secrets.token_hex(8)}")


def followed(path: str | Path) -> Path:
    """The file that a symbolic link points to; any other path as it is."""
    return Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add this path to an OSError of the block that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """Open a new folder that replaces `path` when the block ends without an error.

    Raises:
        OSError: the folder cannot be written or replaced.
    """
    folder = Path(folder)
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = beside(folder)
        staged.mkdir()
        try:
            yield staged
            _replace_folder(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _replace_folder(staged: Path, folder: Path) -> None:
    """Replace a folder by a staged one, and delete the old one.

    On Linux the two are exchanged in one step, so that a kill leaves either the old or the new folder. On other
    systems, a kill between two renames leaves the old folder with the suffix .old.

    Raises:
        OSError: the folder cannot be replaced; it is then as it was.
    """
    if not folder.exists():
        os.replace(staged, folder)
        return
    if _exchange(staged, folder):
        shutil.rmtree(staged)
        return
    old = staged.with_name(f"{staged.name}.old")
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
        ArgumentError: the content holds NaN or an infinity, or something that JSON does not know.
    """
    try:
        text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:  # a NumPy array or number, for one
        raise ArgumentError(str(error)) from error
    write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 atomically, with its line ends unchanged."""
    with replacing(path) as file:
        # A lone surrogate stands for an undecodable byte of a file's name: in JSON its escape is the same text.
        file.write(text.encode("utf-8", "backslashreplace"))


__all__ = [
    "check_size",
    "naming",
    "read_regular",
    "replacing",
    "replacing_folder",
    "write_json",
    "write_text",
]
