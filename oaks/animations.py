"""Animated GIF, WebP, PNG and AVIF files: how many frames they hold, and the frames with their durations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from oaks.errors import ArgumentError, OutOfMemory
from oaks.images import Header, open_image, turned

# In seconds. Browsers show a frame without a duration, and a GIF's frame with a shorter one, for the default time.
_DEFAULT, _SHORTEST_GIF = 0.1, 0.02
# Of TIFF and BigTIFF; Pillow also reads files whose version is in the other byte order.
_TIFF = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
_STARTS = (b"GIF8", b"\x89PNG", *_TIFF)
_AVIF = (b"ftypavif", b"ftypavis", b"ftypmif1", b"ftypmsf1")


class Animation:
    """An animated picture file. Iterating gives its frames, each (H, W, 3) uint8 BGR, and the seconds it is shown.

    Args:
        path: the file.

    Attributes:
        count: number of frames that the file states or holds; 1 for a still picture.
        cut_short: whether the file ends before it should.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: the file is damaged, not a picture, or beyond the limits.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._content, self._header = open_image(path)
        with self._open() as image:
            # The still picture for programs that do not play APNG.
            self._skipped = int(bool(image.info.get("default_image")))
            try:
                self.count = max(getattr(image, "n_frames", 1) - self._skipped, 1)
            except (OSError, SyntaxError, ValueError, EOFError):
                self.count = 1
        self.cut_short = _ends_early(self._content, self._header)

    def _open(self) -> Any:
        from PIL import Image

        Image.init()
        # Image.open has a limit on pixels that cannot be raised for one call.
        return Image.OPEN[self._header.format][0](io.BytesIO(self._content), "")

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yield the frames.

        Raises:
            ArgumentError: a frame is damaged or missing; the frames before it have been yielded.
        """
        with self._open() as image:
            for number in range(self._skipped, self.count + self._skipped):
                try:
                    image.seek(number)
                    image.load()
                    pixels = np.ascontiguousarray(np.asarray(image.convert("RGBA"))[..., 2::-1])
                except MemoryError as error:
                    raise OutOfMemory(f"{self.path}: a frame does not fit into memory") from error
                except (EOFError, OSError, SyntaxError, ValueError) as error:
                    self.cut_short = True
                    raise ArgumentError(
                        f"{self.path}: damaged: frame {number - self._skipped} of {self.count} cannot be read: {error}"
                    ) from error
                yield turned(pixels, self._header.orientation), self._seconds(image.info.get("duration"))

    def _seconds(self, milliseconds: Any) -> float:
        seconds = float(milliseconds or 0) / 1000
        shortest = _SHORTEST_GIF if self._header.format == "GIF" else 0.0
        return seconds if seconds > 0 and seconds >= shortest else _DEFAULT


def is_animation(path: str | Path) -> bool:
    """Return whether a picture file holds several frames or pages; False for files that are not pictures.

    A GIF without its end counts as an animation: the missing part may hold further frames.
    """
    try:
        if not _may_hold_several(path):
            return False
        content, header = open_image(path)
        return header.animated or (header.format == "GIF" and _ends_early(content, header))
    except (ArgumentError, OSError):
        return False


def _may_hold_several(path: str | Path) -> bool:
    """Return whether a file begins as a GIF, PNG, TIFF, WebP or AVIF does, so that no video is read as a whole."""
    if not Path(path).is_file():  # a FIFO would wait for its writer
        return False
    with open(path, "rb") as file:
        head = file.read(12)
    return head.startswith(_STARTS) or head[8:] == b"WEBP" or head[4:] in _AVIF


def _ends_early(content: bytes, header: Header) -> bool:
    """Return whether the end of a file is missing; bytes after the end do not count."""
    if header.format == "GIF":
        return not _reaches_trailer(content)
    if header.format == "WEBP":
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    return header.format == "PNG" and not _reaches_iend(content)


def _reaches_trailer(content: bytes) -> bool:
    """Return whether the blocks of a GIF lead to its trailer (GIF89a, appendix A)."""

    def colors(flags: int) -> int:
        return 6 << (flags & 7) if flags & 0x80 else 0

    at = 13 + colors(content[10])
    while at < len(content):
        if content[at] == ord(";"):
            return True
        if content[at] == ord("!"):
            at += 2
        elif content[at] == ord(","):
            if at + 9 >= len(content):
                return False
            at += 11 + colors(content[at + 9])
        else:  # decoders skip bytes between blocks
            at += 1
            continue
        while at < len(content) and content[at]:  # sub-blocks
            at += 1 + content[at]
        at += 1
    return False


def _reaches_iend(content: bytes) -> bool:
    """Return whether the chunks of a PNG lead to the last one (PNG, 5.3)."""
    at = 8
    while at + 12 <= len(content):
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return False


__all__ = ["Animation", "is_animation"]
