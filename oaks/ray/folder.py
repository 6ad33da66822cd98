"""The folder of a run: each Parquet part holds finished tasks, so that a stopped run can be resumed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from oaks.coco_results import header_path, make_header
from oaks.errors import ArgumentError
from oaks.files import replacing, write_json
from oaks.ray import rows
from oaks.ray.sources import Task, file_name, stored
from oaks.skeleton import Skeleton
from oaks.structured import read_json

if TYPE_CHECKING:
    import pyarrow as pa

_STATUS_SECONDS = 5.0
"""Interval between writes of status.json."""

_STAGED = ".staged-"
_COUNTED = ("file", "person", "error")
"""Columns that `Progress` is counted from."""


@dataclass
class Progress:
    """Totals of a folder.

    Attributes:
        pictures: pictures, and frames of videos, with or without an error.
        people: poses in them.
        errors: address -> why it could not be read.
        sources: shards, Parquet files and videos that are finished.
    """

    pictures: int = 0
    people: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)


class BatchFolder:
    """The folder of a run: run.json (settings), status.json (progress), parts/ (one Parquet file per task).

    A part is written atomically when its task is finished: it holds whole tasks or does not exist. Only one process at
    a time can open the folder.

    Args:
        path: the folder; created if it does not exist.
        settings: everything that the results depend on; they must be the same when a run is resumed.

    Raises:
        ArgumentError: the folder holds a run with other settings, is in use, or holds a part that cannot be read.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        import filelock

        self.path, self.parts = Path(path), Path(path) / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise ArgumentError(
                f"out must be a folder that no other run writes to, got {self.path}"
            ) from error
        try:
            self._check_settings(settings)
            self.progress, self.done = Progress(), set[str]()
            self._open: dict[int, _Part] = {}
            for staged in self.parts.glob(f"{_STAGED}*"):
                staged.unlink()
            self._next = 0
            for part in self._listed():
                self._next = max(self._next, int(part.name[5:12]) + 1)
                self._count(part)
        except BaseException:
            self._lock.release()
            raise
        self._told = 0.0

    def __enter__(self) -> BatchFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in self._open.values():
            part.discard()
        self._open.clear()
        self._lock.release()

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        path = self.path / "run.json"
        given = json.loads(json.dumps(settings))
        if not path.exists():
            write_json(path, given, indent=1)
            return
        begun = read_json(path, top=dict)
        for name in sorted({*begun, *given}):
            if begun.get(name) != given.get(name):
                raise ArgumentError(
                    f"{name} must be {begun.get(name)!r}, as when {self.path} was created, got {given.get(name)!r}; "
                    "pass a new folder"
                )

    def _listed(self) -> list[Path]:
        return sorted(
            part for part in self.parts.iterdir() if re.fullmatch(r"part-\d{7}.*\.parquet", part.name)
        )

    def _count(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                about = rows.read_about(file.metadata.metadata, str(path))
                for batch in file.iter_batches(columns=list(_COUNTED)):
                    self._add(pa.Table.from_batches([batch]))
        except (OSError, pa.ArrowInvalid) as error:
            raise ArgumentError(
                f"{path}: damaged: {error}; delete it, and its task is computed again"
            ) from error
        if about["source"] is not None:
            self._finish(about["source"])

    def _add(self, table: pa.Table) -> None:
        self.done.update(table["file"].unique().to_pylist())
        self.progress.people += table.num_rows - table["person"].null_count
        # Person 0 is in the first row of a picture, None in the only row of a picture without people.
        self.progress.pictures += sum(not person for person in table["person"].to_pylist())
        if table["error"].null_count < table.num_rows:
            failed = table.filter(table["error"].is_valid())
            self.progress.errors.update(
                zip(failed["file"].to_pylist(), failed["error"].to_pylist(), strict=True)
            )

    def _finish(self, source: str) -> None:
        self.progress.sources.add(source)
        self.done.add(source)

    def add(self, table: pa.Table) -> bool:
        """Add rows of one task; the last rows of the task commit its part.

        Args:
            table: rows of `rows.schema` and the columns task and about.

        Returns:
            Whether the task is finished.
        """
        number, own = table["task"][0].as_py(), table.select(list(rows.COLUMNS))
        part = self._open.get(number)
        if part is None:
            part = self._open[number] = _Part(self.parts / f"{_STAGED}{number}", own.schema)
        part.write(own)
        ends = table["about"].drop_null()
        if not len(ends):
            return False
        about = ends[0].as_py()
        source = json.loads(about)["source"]
        del self._open[number]
        part.commit(self.parts / _part_name(self._next, source), about)
        self._next += 1
        for counted in part.counted:
            self._add(counted)
        if source is not None:
            self._finish(source)
        return True

    def tell(self, left: Sequence[Task], *, now: bool = False) -> None:
        """Write status.json, at most every few seconds unless `now`.

        Args:
            left: tasks that are not finished.
        """
        if not now and time.monotonic() - self._told < _STATUS_SECONDS:
            return
        self._told = time.monotonic()
        found = self.progress
        content = {
            "complete": not left, "tasks_left": len(left), "pictures": found.pictures, "people": found.people,
            "errors": len(found.errors), "finished": sorted(found.sources),
            "unfinished": sorted(stored(task.address) for task in left if task.address),
        }  # fmt: skip
        write_json(self.path / "status.json", content, indent=1)

    def write_coco(self, number: Callable[[str], int | None]) -> Path:
        """Write results.json (COCO format) and its header from all parts.

        Args:
            number: image id of a picture whose row has none; None leaves the picture out.

        Returns:
            The results file.

        Raises:
            ArgumentError: a part holds frames of a video, which have no image ids.
        """
        import pyarrow.parquet as pq

        path = self.path / "results.json"
        ids: dict[str, int] = {}
        about: dict[str, Any] = {"made": {"box_source": ""}, "nms": None}
        separator = "[\n"
        with replacing(path) as file:
            for part in self._listed():
                with pq.ParquetFile(part) as content:
                    table = content.read()
                    about = rows.read_about(content.metadata.metadata, str(part))
                for row in _coco_rows(table, about, number, ids):
                    file.write((separator + json.dumps(row, allow_nan=False)).encode())
                    separator = ",\n"
            file.write(b"[]\n" if separator == "[\n" else b"\n]\n")
        header = make_header(
            about["made"], nms=about["nms"], complete=True, images=ids, skipped=self.progress.errors,
            box_source=about["made"]["box_source"],
        )  # fmt: skip
        write_json(header_path(path), header, indent=1)
        return path


def _coco_rows(
    table: pa.Table, about: Mapping[str, Any], number: Callable[[str], int | None], ids: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part in COCO's format; `ids` gets the id of each of its pictures."""
    import pyarrow as pa

    if table["frame"].null_count < table.num_rows:
        raise ArgumentError("coco must be False for videos, whose frames have no image ids, got True")
    without_error, with_person = table["error"].is_null().to_numpy(), table["person"].is_valid().to_numpy()
    read = table.filter(pa.array(without_error | with_person))
    for file, stated in zip(read["file"].to_pylist(), read["image_id"].to_pylist(), strict=True):
        own = number(file) if stated is None else stated
        if own is not None:
            ids[file] = own
    poses = rows.to_poses(table, Skeleton.from_dict(about["skeleton"]), about["score_kind"])
    with_people = table.filter(table["person"].is_valid())
    files = list(dict.fromkeys(with_people["file"].to_pylist()))
    for row in poses.to_coco(file_names=[file_name(file) for file in files]):
        if (own := ids.get(files[row["image_id"]])) is not None:
            yield {**row, "image_id": own}


class _Part:
    """A Parquet file that is renamed into place when it is complete."""

    def __init__(self, staged: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self.staged, self.counted = staged, list["pa.Table"]()
        self._writer = pq.ParquetWriter(staged, schema.remove_metadata(), compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table.replace_schema_metadata(None))
        self.counted.append(table.select(list(_COUNTED)))

    def commit(self, path: Path, about: str) -> None:
        self._writer.add_key_value_metadata({"oaks": about})
        self._writer.close()
        self.staged.replace(path)

    def discard(self) -> None:
        self._writer.close()
        self.staged.unlink(missing_ok=True)


def _part_name(number: int, source: str | None) -> str:
    """Return part-0000012.parquet; for a shard or video, its name follows the number."""
    stem = "" if source is None else "-" + re.sub(r"[^A-Za-z0-9._-]+", "_", source.rpartition("/")[2])[-80:]
    return f"part-{number:07d}{stem}.parquet"


__all__ = ["BatchFolder", "Progress"]
