"""Images: finding the files (`image_files`), reading them, and converting every input to one form.

An image gives the same pixels as a path, as a PIL image, and as an array read by OpenCV: rotated by its orientation
tag, 16 bits reduced to the upper 8, without alpha channel, palettes resolved.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oaks import limits
from oaks.addresses import redacted
from oaks.arguments import as_path
from oaks.errors import ArgumentError, OutOfMemory
from oaks.image_files import (
    SUFFIXES,
    VIDEO_SUFFIXES,
    ImageFolder,
    find_images,
    images_in,
    natural_key,
    plain_name,
    skip_foreign,
)
from oaks.ops import is_device_array
from oaks.skipping import skip

_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
_SEVERAL = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")
"""Formats that may hold several frames. The thumbnail in a JPEG file is not a frame."""
_SECOND_DECODER = ("GIF", "AVIF", "JPEG2000", "DIB", "TIFF")
"""Formats that Pillow decodes where OpenCV cannot."""

# EXIF tag 274 -> (rows and columns swapped, rows reversed, columns reversed), in that order.
_ORIENTATIONS = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
_ORIENTATION_TAG = 274

log = logging.getLogger("oaks")


class Header(NamedTuple):
    """Header of an image file, read without decoding its pixels."""

    size: tuple[int, int]
    """(width, height) as the image is shown, after its orientation tag is applied."""

    orientation: int
    """EXIF orientation, 1 to 8."""

    format: str
    """Pillow's name of the file format."""

    animated: bool = False
    """Whether the file holds several frames: an animation, or a TIFF of several pages."""

    mode: str = "RGB"
    """Pillow's name of the kind of pixels."""


def read_image(path: str | Path, *, bounds: limits.Limits | None = None) -> np.ndarray:
    """Read an image file: (H, W, 3) uint8 BGR, with its orientation tag applied. Animations give the first frame.

    Args:
        path: the file.
        bounds: the largest file and image to accept; limits.current() if None.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: the file is damaged, incomplete, no image, or beyond the limits.
        OutOfMemory: it does not fit into memory.
    """
    return pixels_of(path, *open_image(path, bounds))


def decode_image(content: bytes, name: str, *, bounds: limits.Limits | None = None) -> np.ndarray:
    """Decode the content of an image file: the pixels that `read_image` returns for it.

    Args:
        content: bytes of the file.
        name: what messages call it.
        bounds: the largest file and image to accept; limits.current() if None.

    Raises:
        LimitError: the content or the image is beyond the limits.
        ArgumentError: the content is damaged, incomplete or no image.
        OutOfMemory: it does not fit into memory.
    """
    bounds = bounds or limits.current()
    limits.check(f"{name}: the file's size in bytes", "image_bytes", len(content), bounds)
    return pixels_of(name, content, _checked_header(name, content, bounds))


def readable_images(paths: Iterable[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield the image files that can be read, with their pixels as `read_image` returns them; skip the others."""
    for path in paths:
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            skip(path, error)
        else:
            yield path, image


def pixels_of(name: str | Path, content: bytes, header: Header) -> np.ndarray:
    """Decode what `open_image` returned; see `read_image`."""
    if header.animated:
        pages = header.format == "TIFF"
        log.warning(
            "%s: only the first of its %s is read%s",
            name, "pages" if pages else "frames", "" if pages else "; oaks track reads an animation",
        )  # fmt: skip
    if _is_deep(header.mode, header.format):
        raise _too_deep(name, header.mode)
    if _is_cut_off(content):
        raise ArgumentError(f"{name}: damaged: the JPEG file ends before its picture does")
    try:
        image = _decode(content, header)
    except MemoryError as error:
        raise OutOfMemory(f"{name}: an image of {_sides(header.size)} does not fit into memory") from error
    if image is None:
        raise ArgumentError(f"{name}: damaged: its {header.format} data cannot be decoded")
    return image


def read_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of an image file as `read_image` returns it, from the file's header alone.

    Raises:
        FileNotFoundError, ArgumentError: as `read_image`; damage after the header is not noticed.
    """
    return open_image(path)[1].size


def fitted_size(size: tuple[int, int], within: tuple[int, int]) -> tuple[tuple[int, int], float]:
    """Return the largest size of an image's shape within another, each side at least 1, and the scale to it.

    Args:
        size: (width, height) of the image.
        within: (width, height) to fit it into.
    """
    scale = min(within[0] / size[0], within[1] / size[1])
    return (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)), scale


def check_size(path: str | Path, size: tuple[int, int], labeled: Sequence[int]) -> None:
    """Refuse labels that were made for an image of another size.

    Args:
        path: the image file, for messages.
        size: (width, height) of the image as it is shown.
        labeled: (width, height) that the labels state; 0 where they do not.

    Raises:
        ArgumentError: a stated side differs; the message gives both sizes.
    """
    if any(stated and stated != side for stated, side in zip(labeled, size, strict=True)):
        turned = tuple(labeled) == size[::-1]
        hint = (
            "; the labels seem to be for the pixels before the EXIF orientation is applied" if turned else ""
        )
        raise ArgumentError(
            f"{path}: its size must be that of its labels, {_sides(labeled)}, got {_sides(size)}{hint}"
        )


def _sides(size: Sequence[int]) -> str:
    return f"{size[0]}×{size[1]}"


def open_image(path: str | Path, bounds: limits.Limits | None = None) -> tuple[bytes, Header]:
    """Return a file's content and header, both within the limits.

    Raises:
        FileNotFoundError, ArgumentError: as `read_image`.
    """
    bounds = bounds or limits.current()
    if not as_path("path", path).is_file():  # FIFOs and devices, which may never end, are no files either
        raise FileNotFoundError(f"image not found: {redacted(str(path))}")
    limits.check(f"{path}: the file's size in bytes", "image_bytes", os.path.getsize(path), bounds)
    try:
        content = Path(path).read_bytes()
    except MemoryError as error:
        raise OutOfMemory(f"{path}: the file does not fit into memory") from error
    return content, _checked_header(path, content, bounds)


def _checked_header(name: str | Path, content: bytes, bounds: limits.Limits) -> Header:
    header = _header(content, name)
    if header is None:
        raise ArgumentError(
            f"{name}: {'damaged: the file is empty' if not content else 'damaged, or not an image that can be read'}"
        )
    limits.check(f"{name}: width times height", "image_pixels", header.size[0] * header.size[1], bounds)
    return header


def _header(content: bytes, label: str | Path) -> Header | None:
    """Return the header of an image, or None where it cannot be read.

    Pillow's plugins are called one by one: Image.open has a limit on pixels that cannot be raised for one call.
    """
    from PIL import Image

    Image.init()
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        try:
            if factory is None or (accept is not None and accept(content[:16]) is not True):
                continue
            with factory(io.BytesIO(content), "") as image:
                orientation = 1 if name == "TIFF" else _exif(content, name, image).get(_ORIENTATION_TAG, 1)
                # The decoder rotates TIFF; whether Pillow's size is before or after that depends on the version.
                swapped = name == "TIFF" and image.tag_v2.get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
                stored = (image.tag_v2[256], image.tag_v2[257]) if name == "TIFF" else image.size
                animated = name in _SEVERAL and bool(getattr(image, "is_animated", False))
                mode = image.mode
        except MemoryError as error:
            raise OutOfMemory(f"{label}: its header does not fit into memory") from error
        except Exception:
            continue
        size = (int(stored[0]), int(stored[1]))
        if orientation not in _ORIENTATIONS:
            orientation = 1
        if swapped or (orientation != 1 and _ORIENTATIONS[orientation][0]):
            size = (size[1], size[0])
        if min(size) > 0:
            return Header(size, orientation, name, animated, mode)
    return None


def _exif(content: bytes, name: str, image: Any) -> Any:
    """Return the EXIF tags. Of a PNG they are read here: Pillow would decode all pixels first."""
    from PIL import Image

    if name != "PNG":
        return image.getexif()
    tags, at = Image.Exif(), 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"eXIf":
            tags.load(content[at + 8 : at + 8 + length])
        at += length + 12
    return tags


def _decode(content: bytes, header: Header) -> np.ndarray | None:
    import cv2

    flags = cv2.IMREAD_COLOR if header.format == "TIFF" else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = None
    # OpenCV would multiply a TIFF's colors by alpha, and replace a GIF's transparent ones by the background's.
    if header.format != "GIF" and (header.format, header.mode) != ("TIFF", "RGBA"):
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise MemoryError(str(error)) from error
    if image is not None:
        return turned(image, header.orientation)
    return _decode_with_pillow(content) if header.format in _SECOND_DECODER else None


def _decode_with_pillow(content: bytes) -> np.ndarray | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=_SECOND_DECODER) as image:
            image = ImageOps.exif_transpose(image)
            return np.ascontiguousarray(np.asarray(image.convert("RGBA"))[..., 2::-1])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image (H, W, 3) rotated and mirrored by an EXIF orientation."""
    if orientation not in _ORIENTATIONS:
        return image
    swapped, rows, columns = _ORIENTATIONS[orientation]
    image = image.swapaxes(0, 1) if swapped else image
    return np.ascontiguousarray(image[:: -1 if rows else 1, :: -1 if columns else 1])


def _is_cut_off(content: bytes) -> bool:
    """Return whether a JPEG's data has no end marker: OpenCV silently fills the missing part with gray."""
    if content[:2] != b"\xff\xd8":
        return False
    at, data, fill = 2, 0xDA, 0xFF
    while at + 1 < len(content) and content[at + 1] != data:
        # Skip headers, which may hold thumbnails with end markers of their own.
        at += 1 if content[at + 1] == fill else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return b"\xff\xd9" not in content[at:]


def is_single(frames: Any) -> bool:
    """Return whether the argument is one image rather than several."""
    if isinstance(frames, str | Path | Mapping) or _is_pil(frames):
        return True
    shape = getattr(frames, "shape", None)
    return len(shape) != 4 if shape is not None else not isinstance(frames, Iterable)


def in_order(image: np.ndarray, color: str) -> np.ndarray:
    """Return a BGR image (H, W, 3) in the channel order `color`, "bgr" or "rgb"."""
    return image if color == "bgr" else np.ascontiguousarray(image[..., ::-1])


def as_frame(name: str, frame: Any, color: str, *, on_device: bool) -> Any:
    """Return one picture as (H, W, 3) uint8 in the channel order `color`.

    Args:
        frame: an array in that order already, a path, a PIL image, or, if `on_device`, a device array.

    Raises:
        ArgumentError: it is none of these.
        FileNotFoundError: a path does not exist.
    """
    if isinstance(frame, str | Path):
        return in_order(read_image(frame), color)
    if _is_pil(frame):
        image = _from_pil(name, frame)
        return image if color == "rgb" else np.ascontiguousarray(image[..., ::-1])
    if is_device_array(frame):
        if not on_device:
            raise ArgumentError(f"{name} must be a host array for an Engine on the CPU, got a device array")
        _check_image(name, tuple(frame.shape), np.dtype(frame.__cuda_array_interface__["typestr"]))
        return frame
    if frame is None:
        raise ArgumentError(
            f"{name} must be an image, got None (cv2.imread returns None for unreadable files)"
        )
    try:
        array = np.asarray(frame)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} must be an image, got {type(frame).__name__}: {error}") from error
    _check_image(name, array.shape, array.dtype)
    return array


def per_frame(name: str, values: Any, count: int, *, single: bool) -> list[Any]:
    """Return an argument that is given once per frame as a list; a single frame's is given bare."""
    if single:
        return [values]
    if isinstance(values, np.ndarray) and values.ndim == 0:
        values = values.item()
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) != count:
        came = f"{len(values)}" if hasattr(values, "__len__") else type(values).__name__
        raise ArgumentError(f"{name} must have one entry for each of the {count} frames, got {came}")
    return list(values)


def _is_pil(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "getbands")


def _from_pil(name: str, image: Any) -> np.ndarray:
    """Return a PIL image as (H, W, 3) uint8 RGB: the pixels that its file gives through `read_image`."""
    from PIL import ImageOps

    limits.check(f"{name}: width times height", "image_pixels", image.width * image.height)
    try:
        if _is_deep(image.mode, image.format):
            raise _too_deep(name, image.mode)
        sixteen = image.mode.startswith("I")
        image = ImageOps.exif_transpose(image)
        if sixteen:
            gray = (np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=2)
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{name}: the PIL image cannot be decoded: {error}") from error
    except MemoryError as error:
        raise OutOfMemory(f"{name}: an image of {_sides(image.size)} does not fit into memory") from error


def _is_deep(mode: str, format: str | None) -> bool:
    """Return whether an image has 32 bits per channel, whose range is unknown. PNG and PPM have 16 in mode I."""
    return mode == "F" or (mode == "I" and format not in ("PNG", "PPM"))


def _too_deep(name: str | Path, mode: str) -> ArgumentError:
    return ArgumentError(
        f"{name} must have 8 or 16 bits per channel, got an image of mode {mode!r}; convert it to 8 bits"
    )


def _check_image(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1 or dtype != np.uint8:
        raise ArgumentError(f"{name} must be an image (H, W, 3) of uint8, got {shape} of {dtype}")


__all__ = [
    "SUFFIXES",
    "VIDEO_SUFFIXES",
    "Header",
    "ImageFolder",
    "as_frame",
    "check_size",
    "decode_image",
    "find_images",
    "fitted_size",
    "images_in",
    "in_order",
    "is_single",
    "natural_key",
    "open_image",
    "per_frame",
    "pixels_of",
    "plain_name",
    "read_image",
    "read_size",
    "readable_images",
    "skip_foreign",
    "turned",
]
