"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes its place when the block ends well; until then what was there stays.

    Raises:
        OSError: the folder is not there or cannot be written to.
    """
    path = Path(path)
    handle, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(staged, 0o644)
        os.replace(staged, path)
    except BaseException:
        os.unlink(staged)
        raise


def write_json(path: str | Path, content: Any, *, indent: int | None = None) -> None:
    """Writes JSON, in which NaN has no place.

    Raises:
        ValueError: the content holds NaN or an infinity, or something that JSON does not know.
    """
    try:
        text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    except TypeError as error:  # a NumPy array or number, for one
        raise ValueError(str(error)) from error
    with replacing(path) as file:
        file.write(text.encode("utf-8") + b"\n")


__all__ = ["replacing", "write_json"]
