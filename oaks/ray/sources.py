"""Sources of pictures: files, folders and globs, on this machine or behind any address that fsspec opens.

A task is the unit of work that is finished or repeated as a whole: some picture files, one tar shard, one Parquet file,
or one video.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import ReadError, TarFile
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from oaks import limits
from oaks.addresses import redacted
from oaks.errors import ArgumentError, BackendUnavailable
from oaks.images import (
    SUFFIXES,
    VIDEO_SUFFIXES,
    decode_image,
    natural_key,
    read_image,
    skip_foreign,
)

if TYPE_CHECKING:
    from fsspec.core import OpenFile
    from typing_extensions import Self

PICTURES, TAR, PARQUET, VIDEO = "pictures", "tar", "parquet", "video"
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_PART = 1 << 20
_ATTEMPTS = 3
"""Attempts to read from an address: a connection may break."""


@dataclass(frozen=True)
class Task:
    """Unit of work of a worker.

    Attributes:
        kind: PICTURES, TAR, PARQUET or VIDEO.
        address: the shard, Parquet file or video; None for PICTURES.
        pictures: addresses of picture files; empty for the other kinds.
    """

    kind: str
    address: str | None = None
    pictures: tuple[str, ...] = ()

    def split(self) -> list[Task]:
        """Return one task per picture file; empty for a task of one file or of another kind."""
        return [Task(PICTURES, None, (name,)) for name in self.pictures] if len(self.pictures) > 1 else []


@dataclass(frozen=True)
class Inventory:
    """Files that sources name, each once, in the order of the sources; those of a folder or glob in natural order.

    Attributes:
        pictures: addresses of picture files. Files of this machine have absolute paths.
        others: address of each tar shard, Parquet file and video -> its kind.
    """

    pictures: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)

    def tasks(self, done: set[str], size: int) -> list[Task]:
        """Return the unfinished tasks.

        Args:
            done: addresses of pictures, shards and videos that are finished, as `stored` gives them.
            size: picture files of a task.
        """
        left = self.pictures_left(done)
        parts = [Task(PICTURES, None, tuple(left[i : i + size])) for i in range(0, len(left), size)]
        return parts + [
            Task(kind, address) for address, kind in self.others.items() if stored(address) not in done
        ]

    def pictures_left(self, done: set[str]) -> list[str]:
        """Return the unfinished pictures; `done` as for `tasks`."""
        return [address for address in self.pictures if stored(address) not in done]


def stored(address: str) -> str:
    """Return an address as results hold it: without its password."""
    return redacted(address, alone=True)


def find_sources(sources: Sequence[str | Path]) -> Inventory:
    """Return the pictures, tar shards (.tar, .tgz), Parquet files and videos that files, folders and globs name.

    Folders are read without their subfolders. Files of other kinds in a folder are left out; image files of
    kinds that are not read are skipped.

    Raises:
        FileNotFoundError: a source names nothing of these kinds.
        ArgumentError: a source is a stream.
        BackendUnavailable: the package that opens such addresses is not installed.
    """
    found = Inventory()
    pictures: dict[str, None] = {}
    for source in sources:
        files, named = _listed(str(source))
        kinds = {address: kind_of(address) for address in files}
        if named and kinds[files[0]] is None:
            raise ArgumentError(
                f"source must be a picture, a tar shard, a Parquet file or a video, got {stored(str(source))}"
            )
        if not any(kinds.values()):
            counts = Counter(Path(address).suffix.lower() or "no extension" for address in files)
            holds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(6)) or "no files"
            raise FileNotFoundError(f"pictures not found: {stored(str(source))!r}; it holds {holds}")
        skip_foreign(files)
        for address, kind in kinds.items():
            if kind == PICTURES:
                pictures[address] = None
            elif kind is not None:
                found.others[address] = kind
    found.pictures.extend(pictures)
    alike = [name for name, count in Counter(map(stored, [*pictures, *found.others])).items() if count > 1]
    if alike:
        raise ArgumentError(
            "sources must differ in more than passwords and parameters that may be secret, which results do not hold, "
            f"got several named {alike[0]}; process them in separate runs"
        )
    return found


def kind_of(address: str) -> str | None:
    """Return PICTURES, TAR, PARQUET or VIDEO by the suffix; None for other files."""
    name = address.lower()
    if name.endswith(_TAR_SUFFIXES):
        return TAR
    suffix = Path(name).suffix
    if suffix in (".parquet", ".pq"):
        return PARQUET
    if suffix in VIDEO_SUFFIXES:
        return VIDEO
    return PICTURES if suffix in SUFFIXES else None


def file_name(address: str) -> str:
    """Return the name of a picture's file, without folders; of a shard's picture, as the shard has it."""
    inside = address.removeprefix("tar://").partition("::")[0] if address.startswith("tar://") else address
    return inside.replace("\\", "/").rpartition("/")[2]


def _listed(source: str) -> tuple[list[str], bool]:
    """Addresses of the files that a source names, and whether it names one file itself."""
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(source)
    except ImportError as error:
        raise BackendUnavailable(f"{stored(source)} cannot be opened: {error}") from error
    except ValueError as error:
        raise ArgumentError(f"source must be pictures or videos, got {stored(source)}: {error}") from error
    if files.isfile(path):
        return [_address(files, path)], True
    if files.isdir(path):
        # A broken link is listed too; its row holds the error.
        listed = [entry["name"] for entry in files.ls(path, detail=True) if entry["type"] != "directory"]
    else:
        listed = [name for name in files.glob(path) if not files.isdir(name)] if _is_glob(path) else []
    if not listed:
        raise FileNotFoundError(
            f"pictures not found: {stored(source)!r}; pass files, a folder, a glob or an address"
        )
    return sorted((_address(files, name) for name in listed), key=natural_key), False


def _is_glob(path: str) -> bool:
    return any(character in path for character in "*?[")


def _address(files: Any, path: str) -> str:
    """Return an absolute path on this machine, or an address elsewhere."""
    from fsspec.implementations.local import LocalFileSystem

    return str(path) if isinstance(files, LocalFileSystem) else str(files.unstrip_protocol(path))


def _opened(address: str) -> OpenFile:
    """Return a file behind an address, to be read in a `with` block."""
    import fsspec

    return cast("OpenFile", fsspec.open(address, "rb"))  # a list for a list of addresses only


def picture_reader(address: str) -> Callable[[], np.ndarray]:
    """Return a function that reads a picture file."""
    if "://" not in address:
        return lambda: read_image(address)
    return lambda: decode_image(read_bytes(address), stored(address))


def read_bytes(address: str) -> bytes:
    """Return the content of a picture file behind an address, within the limit on image files.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read, after several attempts.
        LimitError: it is too large.
    """
    name, largest = stored(address), limits.current().image_bytes
    for attempt in range(_ATTEMPTS):
        try:
            with _opened(address) as file:
                content = file.read(largest + 1)
            break
        except Exception as error:  # each file system has its own exceptions
            if _is_missing(error):
                raise FileNotFoundError(f"image not found: {name}") from error
            if attempt == _ATTEMPTS - 1:
                why = redacted(f"{type(error).__name__}: {error}")
                raise OSError(f"{name}: could not be read: {why}") from error
            time.sleep(2**attempt)
    limits.check(f"{name}: the file's size in bytes", "image_bytes", len(content))
    return content


def _is_missing(error: Exception) -> bool:
    """Return whether the file does not exist. fsspec raises the same error without a connection, but with another cause."""
    cause = error.__cause__
    return isinstance(error, FileNotFoundError) and (
        not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError)
    )


_DAMAGED: tuple[type[Exception], ...] = tuple(
    getattr(tarfile, f"{name}HeaderError") for name in ("Empty", "Invalid", "Truncated")
)


class _Entry(tarfile.TarInfo):
    """An entry of a shard. tarfile takes a damaged or missing header behind the first entry for the shard's end."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _DAMAGED as error:
            raise ReadError(f"unexpected end of data: {error}") from error


def tar_pictures(address: str) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Yield the pictures of a tar shard, as WebDataset packs them: the address, and a function that reads each.

    The address is as results hold it.

    Raises:
        OSError, ArgumentError: the shard, or the rest of it, cannot be read.
    """
    largest = limits.current().image_bytes
    try:
        # A stream is read once from its start to its end, so that nothing is fetched twice.
        with (
            _opened(address) as file,
            _decompressed(file) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry) as shard,
        ):
            for entry in shard:
                if not entry.isfile() or Path(entry.name).suffix.lower() not in SUFFIXES:
                    continue
                name = f"tar://{entry.name}::{stored(address)}"
                if entry.size > largest:
                    yield name, _too_large(name, entry.size)
                    continue
                member = shard.extractfile(entry)
                content = b"" if member is None else member.read()
                yield name, decoder(content, name)
            # The checksum follows the archive's end, where tarfile stops reading.
            while stream.read(_PART):
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ArgumentError(f"{stored(address)}: damaged: {error}") from error


def _decompressed(file: Any) -> io.BufferedIOBase:
    """Return a file's content, decompressed if it is gzipped. tarfile's own streams do not check the checksum."""
    buffered = io.BufferedReader(file, _PART)
    return gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == b"\x1f\x8b" else buffered


def parquet_pictures(address: str, column: str) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Yield the pictures in a Parquet file's column of encoded images: address and row, and a function that reads each.

    The column holds bytes, or structs with a field "bytes" as Hugging Face's data sets have. The address is as results
    hold it.

    Raises:
        OSError, ArgumentError: the file cannot be read, or has no such column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = stored(address)
    try:
        with _opened(address) as file:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            if column not in names:
                raise ArgumentError(f"{shown}: column {column!r} not found; it has {', '.join(names[:20])}")
            row = 0
            for batch in table.iter_batches(batch_size=16, columns=[column]):
                values = batch.column(0)
                if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
                    values = values.field("bytes")
                for value in values.to_pylist():
                    name = f"{shown}#row={row}"
                    yield name, decoder(value, name)
                    row += 1
    except pa.ArrowInvalid as error:
        raise ArgumentError(f"{shown}: damaged: {error}") from error


def decoder(content: Any, name: str) -> Callable[[], np.ndarray]:
    """Return a function that decodes an encoded image."""

    def decode() -> np.ndarray:
        if not isinstance(content, bytes):
            raise ArgumentError(f"{name}: must be an encoded image, got {type(content).__name__}")
        return decode_image(content, name)

    return decode


def _too_large(name: str, size: int) -> Callable[[], np.ndarray]:
    def refuse() -> np.ndarray:
        limits.check(f"{name}: the file's size in bytes", "image_bytes", size)
        raise AssertionError("a file within the limits was refused")

    return refuse


@contextmanager
def local_copy(address: str) -> Iterator[str]:
    """A local file with the content of an address; a downloaded copy is removed after the block."""
    if "://" not in address:
        yield address
        return
    with tempfile.TemporaryDirectory(prefix="oaks-") as folder:
        copy = Path(folder) / Path(address).name
        with _opened(address) as source, open(copy, "wb") as target:
            while block := source.read(16 << 20):
                target.write(block)
        yield str(copy)


__all__ = [
    "PARQUET",
    "PICTURES",
    "TAR",
    "VIDEO",
    "Inventory",
    "Task",
    "decoder",
    "file_name",
    "find_sources",
    "kind_of",
    "local_copy",
    "parquet_pictures",
    "picture_reader",
    "read_bytes",
    "tar_pictures",
]
