"""Metadata of a video's container: how frames are displayed, and whether the file is complete."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from oaks import limits

if TYPE_CHECKING:
    import av
    import av.container

_ASPECTS = (Fraction(1, 8), Fraction(8))  # pixel aspect ratio; a larger value means a damaged file
_MOST_STRETCH = 8  # the same of a display matrix that is neither a turn nor a mirroring
_SHOWN = "width times height of a frame as it is shown"
_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS
_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"wide", b"skip", b"sidx", b"uuid")
_LARGEST_HEADER = 4096
_TRANSPORT_PACKETS = ((188, 0), (192, 4), (204, 0))
"""Bytes of an MPEG transport packet, and where in it its sync byte 0x47 is (ISO 13818-1; M2TS; DVB)."""


def as_shown(picture: av.VideoFrame, pixel_aspect: Fraction | None) -> np.ndarray:
    """Return a decoded frame as players show it: (H, W, 3) uint8 BGR, square pixels, display matrix applied."""
    image = square(picture.to_ndarray(format="bgr24"), pixel_aspect)
    return transform(image, _display_matrix(picture))


def square(image: np.ndarray, pixel_aspect: Fraction | None) -> np.ndarray:
    """Enlarge an image whose pixels are `pixel_aspect` times as wide as high to square pixels."""
    if not pixel_aspect or pixel_aspect == 1 or not _ASPECTS[0] <= pixel_aspect <= _ASPECTS[1]:
        return image
    import cv2

    height, width = image.shape[:2]
    size = round(width * max(pixel_aspect, Fraction(1))), round(height / min(pixel_aspect, Fraction(1)))
    if size == (width, height):
        return image
    limits.check(_SHOWN, "video_pixels", size[0] * size[1])
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def transform(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Apply a display matrix to an image.

    Args:
        image: (H, W, 3).
        matrix: (2, 2) [[a, b], [c, d]]: x' = a x + c y, y' = b x + d y (ISO 14496-12, 6.2.2); None and matrices that
            are singular, or nearly so, change nothing. The scale is ignored.
    """
    if matrix is None or not np.isfinite(matrix).all():
        return image
    scale = np.sqrt(abs(np.linalg.det(matrix)))
    if scale < 1e-3:
        return image
    (a, b), (c, d) = matrix / scale
    straight, swapped = max(abs(b), abs(c)) < 0.02, max(abs(a), abs(d)) < 0.02
    if not (straight or swapped):
        stretched = np.linalg.cond(matrix) > _MOST_STRETCH
        return image if stretched else _warp(image, np.array([[a, c], [b, d]]))
    x, y = (a, d) if straight else (c, b)
    image = image.swapaxes(0, 1) if swapped else image
    return np.ascontiguousarray(image[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1])


def _warp(image: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Apply a linear map (2, 2) of x and y to an image, in the smallest picture that holds the result; corners are
    black."""
    import cv2

    height, width = image.shape[:2]
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ linear.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    # Edges to pixel indices: a pixel's center is half a pixel after its edge.
    shift = linear @ (0.5, 0.5) - low - 0.5
    size = tuple(int(side) for side in np.ceil(high - low - 1e-6))
    limits.check(_SHOWN, "video_pixels", size[0] * size[1])
    return cv2.warpAffine(image, np.column_stack([linear, shift]), size, flags=cv2.INTER_LINEAR)


def _display_matrix(picture: av.VideoFrame) -> np.ndarray | None:
    """(2, 2) of a frame's display matrix, or None if it has none."""
    side_data: Any = picture.side_data
    for entry in side_data:
        if entry.type.name == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(entry), np.int32)
            return values[[0, 1, 3, 4]].reshape(2, 2) / 65536 if len(values) == 9 else None
    return None


def has_timestamps(container: av.container.InputContainer) -> bool:
    """Whether the format has timestamps; otherwise FFmpeg makes them up, 25 per second."""
    form = container.format
    return not (int(form.flags) & _NO_TIMESTAMPS or form.name.endswith("_pipe") or form.name == "image2pipe")


def stated_length(container: av.container.InputContainer) -> float | None:
    """Stated duration of a file's video in seconds; None if it is not stated.

    The stream's duration may include what an edit list removes, and the container's may include sound, so the smaller
    of the two is returned.
    """
    stream = container.streams.video[0]
    time_base = stream.time_base or Fraction(0)
    known = []
    if stream.duration and stream.duration > 0:
        known.append(float(stream.duration * time_base))
    elif len(container.streams) > 1:
        return None
    if container.duration and container.duration > 0:
        known.append(container.duration / 1e6)
    if not known:
        return None
    # Some recorders count from the start of their clock, not from the first frame.
    start = float((stream.start_time or 0) * time_base)
    length = min(known)
    return length - start if 0 < start < length else length


def is_whole(path: str | Path) -> bool | None:
    """Whether a file has the size that its container states (MP4 and MOV, MKV and WebM, AVI, FLV); None if none
    is stated. A transport stream is whole if no packet is cut off at its end."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in _FIRST_BOXES:
            return _boxes_end(file, size) <= size
        if head[:4] == b"RIFF":
            return _chunks_end(file, size) <= size
        if head[:4] == b"\x1aE\xdf\xa3":
            end = _segment_end(file.read(_LARGEST_HEADER))
            return None if end is None else end <= size
        start = file.read(_LARGEST_HEADER)
        if head[:3] == b"FLV":
            stated = _number_after(b"filesize\0", start)
            return stated <= size if stated > 0 else None
        for length, sync in _TRANSPORT_PACKETS:
            if start[sync::length][:4] == b"\x47" * 4:
                file.seek(size - size % length)
                rest = file.read(length)
                return rest[sync : sync + 1] != b"\x47"
    return None


def _number_after(name: bytes, start: bytes) -> float:
    """The number of this name in the metadata at the start of an FLV file; 0 if there is none (Adobe, annex E.5)."""
    at = start.find(name) + len(name)
    number = start[at : at + 8]
    return float(np.frombuffer(number, ">f8")[0]) if at >= len(name) and len(number) == 8 else 0.0


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box of an ISO file ends (ISO 14496-12, 4.2)."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return size if not head.strip(b"\0") else size + 1
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file
            return size
        if length < 8 or not (head[4:8].isascii() and head[4:8].decode().isprintable()):
            return at  # not a box: padding that some devices append
        at += length
    return at


def _chunks_end(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk of an AVI file ends; files above 1 GiB have several."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length == 0:
            break
        at += 8 + length + length % 2
    return at - 1 if at - 1 == size else at  # the final padding byte may be missing


def _segment_end(head: bytes) -> int | None:
    """Where the first segment of a Matroska file ends; None if the file states no size (RFC 8794)."""

    def number(at: int, *, marked: bool) -> tuple[int, int]:
        """Read a variable-length number, with or without its length marker, and where it ends."""
        length = 9 - head[at].bit_length()
        value = int.from_bytes(head[at : at + length], "big")
        return (value if marked else value & ((1 << 7 * length) - 1)), at + length

    try:
        _, at = number(0, marked=True)
        length, at = number(at, marked=False)
        at += length
        identifier, at = number(at, marked=True)
        start = at
        length, at = number(at, marked=False)
    except IndexError:
        return None
    unknown = length == (1 << 7 * (at - start)) - 1
    return None if unknown or identifier != 0x18538067 else at + length


__all__ = ["as_shown", "has_timestamps", "is_whole", "square", "stated_length", "transform"]
