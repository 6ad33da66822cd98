"""Finding image files: by path, folder, glob, or the name that labels give them; and their natural order.

`oaks.images` exports these names too.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from oaks.addresses import redacted
from oaks.errors import ArgumentError
from oaks.names import number_of
from oaks.skipping import skip_together

SUFFIXES = frozenset(
    [
        ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff",
        ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm",
    ]
)  # fmt: skip
"""Extensions of files that are read as images."""

FOREIGN_SUFFIXES = frozenset(
    [
        ".heic", ".heics", ".heif", ".hif", ".jxl", ".jxr", ".svg", ".psd", ".xcf", ".eps", ".dng", ".cr2", ".cr3",
        ".nef", ".arw", ".orf", ".pef", ".srw", ".rw2", ".raf", ".raw", ".ico", ".tga", ".exr", ".hdr", ".pcx", ".pfm",
    ]
)  # fmt: skip
"""Extensions of image files that are not read; in a folder they are skipped."""

VIDEO_SUFFIXES = frozenset(
    [
        ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
        ".ts", ".webm", ".wmv", ".y4m",
    ]
)  # fmt: skip
"""Extensions of files that hold videos."""


def natural_key(path: str | Path) -> tuple[Any, ...]:
    """Sort key under which frame2.jpg comes before frame10.jpg, in every part of a path."""

    def key(part: str) -> tuple[str | int, ...]:
        # Text and numbers alternate, so that only like types are compared.
        pieces = re.split(r"(\d+)", part.casefold())
        return tuple(int(piece) if place % 2 else piece for place, piece in enumerate(pieces))

    return (*map(key, Path(path).parts), (), str(path))


def images_in(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, without its subfolders, in natural order; image files of other kinds are skipped.

    Links that lead nowhere are returned too, so that reading them names them.

    Raises:
        FileNotFoundError: there is none; the message says what the folder holds.
    """
    entries = sorted(Path(folder).iterdir(), key=natural_key)
    files = [entry for entry in entries if not entry.is_dir()]
    found = [entry for entry in files if entry.suffix.lower() in SUFFIXES]
    if not found:
        kinds = Counter(entry.suffix.lower() or "no extension" for entry in files)
        holds = [f"{count} {kind}" for kind, count in kinds.most_common(6)]
        if folders := len(entries) - len(files):
            holds.append(number_of(folders, "folder"))
        raise FileNotFoundError(
            f"images not found: {str(folder)!r}; it holds {', '.join(holds) or 'no files'}"
        )
    skip_foreign(files)
    return found


def skip_foreign(files: Iterable[str | Path]) -> None:
    """Skip the image files, or addresses of them, that are not read; one line of the log names a folder's of a kind."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in map(str, files):
        if (suffix := Path(name).suffix.lower()) in FOREIGN_SUFFIXES:
            kinds.setdefault((os.path.dirname(name), suffix), []).append(name)
    for (folder, suffix), names in kinds.items():
        called = f"{suffix} {'file' if len(names) == 1 else 'files'} in {folder or '.'}"
        skip_together(names, called, "image files of this kind are not read; convert them to JPEG or PNG")


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """Return the image files that files, folders (not their subfolders) and globs name, each once.

    Files stay in the order of `sources`; those of a folder or a glob come in natural order.

    Raises:
        FileNotFoundError: a source names no image.
        ArgumentError: a source is a video or a stream.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if "://" in str(source):
            raise ArgumentError(
                f"source must be images, got {redacted(str(source), alone=True)}; this is a stream: use oaks track"
            )
        path = Path(source)
        if path.is_dir():
            listed = images_in(path)
        elif path.is_file():
            listed = [path]
        else:
            # glob also returns a path that exists but is no file or folder (a dangling link, a device); it is left
            # out, so that it is reported as not found.
            matched = (p for p in map(Path, glob.glob(str(source))) if p != path and not p.is_dir())
            listed = sorted(matched, key=natural_key)
        if not listed:
            raise FileNotFoundError(
                f"images not found: {redacted(str(source))!r}; pass an image, a folder or a glob"
            )
        if videos := [path for path in listed if path.suffix.lower() in VIDEO_SUFFIXES]:
            raise ArgumentError(f"source must be images, got {videos[0]}; this is a video: use oaks track")
        found.update(dict.fromkeys(listed))
    return list(found)


def plain_name(name: str) -> str:
    """Return a file name in one form: composed Unicode (NFC), "/" between folders, no "." parts."""
    text = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return "/".join(part for part in text.split("/") if part not in ("", "."))


class ImageFolder:
    """The folder of a data set's images; finds the files that its labels name.

    Names are found in any Unicode form, with "/" or "\\" between folders. A name that leads out of the folder
    is refused.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._listed: dict[Path, dict[str, Path]] = {}

    def find(self, name: str) -> Path | None:
        """Return the file of a name, or None if there is none.

        Raises:
            ArgumentError: the name leads out of the folder.
        """
        relative = self._relative(name)
        try:
            if (path := self.folder / relative).is_file():
                return path
            place = self.folder
            for part in relative.parts:
                if not (below := place / part).exists():
                    below = self._names(place).get(plain_name(part), below)
                place = below
            return place if place.is_file() else None
        except ValueError as error:  # a NUL or a lone surrogate
            raise ArgumentError(f"file_name must be a file's name, got {name[:128]!a}") from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return None

    def path(self, name: str) -> Path:
        """Return the file of a name.

        Raises:
            FileNotFoundError: there is none.
            ArgumentError: the name leads out of the folder.
        """
        if (path := self.find(name)) is None:
            raise FileNotFoundError(f"image not found: {self.folder / self._relative(name)}")
        return path

    def _relative(self, name: str) -> PurePosixPath:
        slashed = name.replace("\\", "/")
        path = PurePosixPath(slashed)
        folder = PurePosixPath(Path(os.path.abspath(self.folder)).as_posix())  # without ".."
        if path.is_absolute() and path.is_relative_to(folder):
            path = path.relative_to(folder)
        windows = PureWindowsPath(name)
        if "\0" in name or path.is_absolute() or ".." in path.parts or windows.drive or not path.parts:
            raise ArgumentError(f"file_name must stay within {self.folder}, got {name[:128]!a}")
        return path

    def _names(self, folder: Path) -> dict[str, Path]:
        """Plain name -> file of what lies in a folder."""
        if folder not in self._listed:
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            self._listed[folder] = {plain_name(entry.name): entry for entry in entries}
        return self._listed[folder]


__all__ = [
    "FOREIGN_SUFFIXES",
    "SUFFIXES",
    "VIDEO_SUFFIXES",
    "ImageFolder",
    "find_images",
    "images_in",
    "natural_key",
    "plain_name",
    "skip_foreign",
]
