"""Read the files of a bundle from its folder or zip: regular files only, and never more bytes than expected."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from oaks.errors import BundleError, OutOfMemory
from oaks.files import check_size, read_regular
from oaks.limits import BundleLimits

DESCRIPTION = "bundle.json"

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP_END = b"PK\x05\x06"


class BundleFiles:
    """Reader of a bundle's files by name.

    Args:
        path: the folder or zip.
        limits: on the sizes of a zip and of its directory.
    """

    def __init__(self, path: Path, limits: BundleLimits) -> None:
        self.path = path
        self._limits = limits

    def read(self, name: str, largest: int) -> bytes:
        """Return a file's content.

        Args:
            name: the file's name, without a folder.
            largest: maximum size in bytes, in addition to limits.file_bytes; a larger file is not read.

        Raises:
            BundleError: it is missing, damaged, larger, or no regular file; the message names it.
        """
        largest = min(largest, self._limits.file_bytes)
        try:
            if self.path.is_dir():
                return self._from_folder(name, largest)
            return self._from_zip(name, largest)
        except (OSError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error,
                RuntimeError, ValueError) as error:  # fmt: skip
            raise BundleError(f"{self.path}/{name} cannot be read: {error}") from error
        except MemoryError as error:
            raise OutOfMemory(f"{self.path}/{name} does not fit into memory") from error

    def _from_folder(self, name: str, largest: int) -> bytes:
        path = self.path / name
        if path.is_symlink():
            raise OSError("it must be a regular file, got a link")
        return read_regular(path, largest)

    def _from_zip(self, name: str, largest: int) -> bytes:
        with self.path.open("rb") as file:
            self._check_directory(file)
            with zipfile.ZipFile(file) as archive:
                info = archive.getinfo(_member(archive, name))
                if info.compress_type not in _COMPRESSIONS:
                    raise OSError("it must be stored or deflated, got another compression")
                check_size(info.file_size, largest)
                with archive.open(info) as member:
                    content = member.read(largest + 1)
        check_size(len(content), largest)
        return content

    def _check_directory(self, file: Any) -> None:
        """Bound the memory that zipfile takes when it opens a zip."""
        size = os.fstat(file.fileno()).st_size
        if size > self._limits.bundle_bytes:
            raise OSError(f"the zip must have at most {self._limits.bundle_bytes} bytes, got {size}")
        file.seek(max(size - (1 << 16) - 22, 0))
        end = file.read()
        at = end.rfind(_ZIP_END)
        directory = int.from_bytes(end[at + 12 : at + 16], "little") if at >= 0 else 0
        if directory > self._limits.directory_bytes:
            raise OSError(f"the zip's directory must have at most {self._limits.directory_bytes} bytes")
        file.seek(0)


def _member(archive: zipfile.ZipFile, name: str) -> str:
    """Return a file's name within a zip, whose files lie at the top level or in a single folder; other entries, which
    some systems add, are ignored."""
    names = set(archive.namelist())
    if name in names:
        return name
    folders = [entry.rpartition("/")[0] for entry in names if entry.endswith(f"/{DESCRIPTION}")]
    return f"{folders[0]}/{name}" if len(folders) == 1 else name


__all__ = ["DESCRIPTION", "BundleFiles"]
