"""Writers of tracked poses: JSON lines, MOT and COCO files that are valid after every frame.

JSON lines and MOT files hold every frame written so far, whatever ends the process. A large COCO file may lack the
newest (CocoFile).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from oaks.boxes import number_from_one, to_xywh
from oaks.files import Staged, check_no_fifo, followed, naming, replacing
from oaks.poses import NO_TRACK, Poses
from oaks.video.frames import Frame

_SMALL = 1 << 16
"""Maximum bytes of a results file that is copied after every frame."""
_SPARED = 20
"""A larger one is copied again after this multiple of the time that the last copy took."""


class Sink(Protocol):
    """Protocol of a writer: takes frames and their poses in order."""

    def write(self, frame: Frame, poses: Poses) -> None:
        """Write one frame's poses, which have track_ids."""

    def close(self) -> None:
        """Flush and close."""


class JsonLines:
    """One JSON object per frame and line: frame (its number, from 0), time (s), and poses.

    The poses are rows as Poses.to_coco gives them.

    Args:
        path: the file.
        image_id: frame -> the image id of its rows.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, image_id: Callable[[Frame], int] = number_from_one) -> None:
        self._file, self._image_id = _Growing(path), image_id

    def write(self, frame: Frame, poses: Poses) -> None:
        self._file.append(_json(frame_record(frame, poses, self._image_id)) + b"\n")

    def close(self) -> None:
        self._file.close()


def frame_record(frame: Frame, poses: Poses, image_id: Callable[[Frame], int]) -> dict[str, Any]:
    """Return one frame as a JSON object: frame (its number, from 0), time (s), name if it is a file, and poses."""
    content = {"frame": frame.index, "time": round(frame.time, 6), "poses": _rows(frame, poses, image_id)}
    return {**content, "name": Path(frame.name).name} if frame.name else content


def _rows(frame: Frame, poses: Poses, image_id: Callable[[Frame], int]) -> list[dict[str, Any]]:
    # A picture that the box file does not list has neither id nor poses.
    return poses.to_coco(image_id(frame), file_names=Path(frame.name).name or None) if len(poses) else []


class MotFile:
    """MOTChallenge's text format, without untracked poses.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = _Growing(path)

    def write(self, frame: Frame, poses: Poses) -> None:
        self._file.append("".join(f"{line}\n" for line in mot_lines(poses, number_from_one(frame))).encode())

    def close(self) -> None:
        self._file.close()


def mot_lines(poses: Poses, frame: int) -> Iterator[str]:
    """Return the lines of a frame's tracked poses, without line ends.

    Args:
        poses: of one frame, with track_ids.
        frame: its number, from 1.
    """
    for pose in poses:
        if pose.track_id != NO_TRACK:
            box = ",".join(f"{value:.2f}" for value in to_xywh(pose.box.tolist()))
            # The gate's score is finite; the other one need not be.
            score = min(max(np.nan_to_num(pose.score), 0.0), 1.0)
            yield f"{frame},{pose.track_id},{box},{score:.4f},-1,-1,-1"


class CocoFile:
    """A COCO keypoint results file for oaks.coco_results.read_results: it is complete at any time.

    Rows go to a file beside it. Copies of that file replace it: after every frame while they are small, then as often
    as copying takes a twentieth of the time. When it is closed, the file of rows itself replaces it.

    If the process is killed, the file holds whole frames up to its last copy. All frames are in the hidden file of rows
    (.oaks-... in the same folder), in the same format, until the same file is written again. `oaks track` also has them
    in poses.jsonl.

    Args:
        path: the file; of a symbolic link, the file that it points to is replaced.
        image_id: frame -> the image id of its rows.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, image_id: Callable[[Frame], int] = number_from_one) -> None:
        self._path = followed(path)
        self._image_id, self._empty = image_id, True
        replaceable = self._path.is_file() or not self._path.exists()
        with naming(self._path):
            self._staged = Staged(self._path, buffering=0) if replaceable else None
        self._file = _Growing(
            self._staged.file if self._staged else self._path, b"[", b"\n]\n", named=self._path
        )
        self._next = 0.0
        self._publish()

    def write(self, frame: Frame, poses: Poses) -> None:
        rows = [_json(row) for row in _rows(frame, poses, self._image_id)]
        if rows:
            self._file.append((b"\n" if self._empty else b",\n") + b",\n".join(rows))
            self._empty = False
            self._publish()

    def _publish(self) -> None:
        """Replace the file by a copy of the rows so far (atomic write)."""
        begun = time.monotonic()
        if self._staged is None or (self._file.size > _SMALL and begun < self._next):
            return
        assert self._staged.path is not None
        with suppress(OSError), open(self._staged.path, "rb") as rows, replacing(self._path) as copy:
            shutil.copyfileobj(rows, copy)  # without room for a copy, the rows replace the file at the end
        end = time.monotonic()
        self._next = end + _SPARED * (end - begun)

    def close(self) -> None:
        if self._staged is not None:
            with naming(self._path):
                self._staged.replace()
            self._staged = None
        self._file.close()


class _Growing:
    """A file that is complete after every `append`. If the disk is full, it keeps its last complete state.

    Args:
        path: the file, or an open one without a buffer.
        head, tail: bytes that the file starts and ends with.
        named: what messages call it.
    """

    def __init__(
        self,
        path: str | Path | IO[bytes],
        head: bytes = b"",
        tail: bytes = b"",
        *,
        named: Path | None = None,
    ) -> None:
        self._path = named or path
        if isinstance(path, str | Path):
            check_no_fifo(path)
            path = open(path, "wb", buffering=0)  # noqa: SIM115
        self._file: IO[bytes] = path
        self._end, self._tail = 0, tail
        self.append(head)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end + len(self._tail)

    def append(self, content: bytes) -> None:
        """Write content before the tail."""
        try:
            self._write(content + self._tail)
        except OSError as error:
            error.filename = str(self._path)
            # The old tail fits: its space still belongs to the file.
            self._file.truncate(self._end + (len(self._tail) if self._end else 0))
            self._write(self._tail if self._end else b"")
            raise
        self._end += len(content)

    def _write(self, content: bytes) -> None:
        self._file.seek(self._end)
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        self._file.close()


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


__all__ = ["CocoFile", "JsonLines", "MotFile", "Sink", "frame_record", "mot_lines"]
