"""Small videos whose frames encode their number."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (96, 64)
BITS = 8


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8: the number in white and black stripes, most significant bit left; the top right is red."""
    image = np.full((size[1], size[0], 3), 0, np.uint8)
    for bit in range(BITS):
        left, right = bit * size[0] // BITS, (bit + 1) * size[0] // BITS
        image[size[1] // 2 :, left:right] = 255 * (number >> (BITS - 1 - bit) & 1)
    image[: size[1] // 2, size[0] // 2 :] = (0, 0, 255)
    return image


def number_of(image: np.ndarray) -> int:
    """The number in a picture, of any size."""
    height, width = image.shape[:2]
    row = image[3 * height // 4].mean(axis=1)
    stripes = [row[(2 * bit + 1) * width // (2 * BITS)] > 127 for bit in range(BITS)]
    return sum(1 << (BITS - 1 - bit) for bit, white in enumerate(stripes) if white)


def write_clip(
    path: Path,
    frames: int | Sequence[np.ndarray],
    *,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    size: tuple[int, int] = SIZE,
    first: int = 0,
    codec: str = "libx264",
    gop: int = 5,
    flags: str = "",
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write a video in the format of the suffix. If `frames` is a count, frames are `numbered` from `first`."""
    pictures = [numbered(first + n, size) for n in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "10", "preset": "ultrafast"}
        stream.codec_context.time_base = time_base
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 0
        for n, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = n if pts is None else pts[n], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple[int, int]]:
    """(position, size) in bytes of every packet of a video file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def spoil(path: Path, number: int) -> Path:
    """Overwrite a packet, so that it cannot be decoded."""
    at, size = packets(path)[number]
    content = bytearray(path.read_bytes())
    content[at : at + size] = b"\xff" * size
    path.write_bytes(content)
    return path


def turn(path: Path, degrees: int) -> Path:
    """Make players rotate an MP4 file clockwise by 90, 180 or 270 degrees."""
    return show_as(path, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees])


def show_as(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Write a display matrix (a, b, c, d) into an MP4 file.

    The bytes are those of the track's header (ISO 14496-12, 8.3.2): x' = a x + c y, y' = b x + d y.
    """
    a, b, c, d = (round(value * 65536) for value in matrix)
    content = bytearray(path.read_bytes())
    box = content.index(b"tkhd") + 4
    at = box + 4 + (32 if content[box] else 20) + 16
    one = 1 << 16
    assert struct.unpack_from(">9i", content, at) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def restamp(path: Path, out: Path, stamp: Callable[[int, int], int]) -> Path:
    """Copy a video with other timestamps.

    Args:
        stamp: number of a packet, its timestamp -> the new one, in the same units.
    """
    with av.open(str(path)) as source, av.open(str(out), "w") as container:
        given = source.streams.video[0]
        stream = container.add_stream_from_template(given)
        for n, packet in enumerate(p for p in source.demux(given) if p.size):
            packet.pts, packet.stream = stamp(n, packet.pts), stream
            container.mux(packet)
    return out


def decode(path: Path) -> list[tuple[float, np.ndarray]]:
    """(time, picture) of every frame, by PyAV alone."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
