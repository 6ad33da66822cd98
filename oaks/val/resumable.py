"""Resumable work over many images."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from oaks.coco_results import check_rows, header_path, read_results, write_results
from oaks.errors import ArgumentError
from oaks.files import check_no_fifo, hold, naming
from oaks.progress import progress
from oaks.skipping import skip
from oaks.structured import parse_json, read_bytes, require

TIMELESS = ("date", "system", "skipped")
"""Entries of the header that may differ between the parts of one run."""
PEOPLE_AT_ONCE = 32

log = logging.getLogger("oaks")

Rows = list[dict[str, Any]]


def run_over_images(
    people: Mapping[int, int],
    estimate: Callable[[list[int]], Iterable[tuple[int, Rows]]],
    out: str | Path,
    header: Mapping[str, Any],
    skipped: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the results of many images, with a header, in the order of the images.

    Progress is kept in `<out>.partial` after every few images. The same call resumes from it, and does nothing if
    `out` exists.

    Args:
        people: how many people each image has, by image.
        estimate: yields (image, rows) for each of a few images; images that it leaves out have no rows, and are tried
            again when a stopped run is resumed.
        out: the file to write.
        header: what the results depend on.
        skipped: image name -> why it has no rows; `estimate` adds to it, and the header of the results gets it.

    Raises:
        ArgumentError: `out`, or what a stopped run left, was made with other settings, which the message names; or another
            run is writing it.
    """
    out = Path(out)
    described: dict[str, Any] = json.loads(
        json.dumps(header)
    )  # in the form that JSON returns, for comparisons
    if out.is_file():
        return _checked(out, described)
    partial = out.with_name(out.name + ".partial")
    check_no_fifo(partial)
    with naming(partial), partial.open("a", encoding="utf-8") as file:
        hold(file.fileno(), partial)
        written = out.is_file()  # by another run meanwhile
        if not written:
            done = _resume(partial, described, people)
            before = sum(people[image] for image in done)
            with progress(out.name, sum(people.values()), done=before) as advance:
                if partial.stat().st_size == 0:
                    _append(file, {"header": described})
                for batch in _batches(people, [image for image in people if image not in done]):
                    for image, rows in estimate(batch):
                        check_rows(rows)
                        _append(file, {"image": image, "rows": rows})
                        done[image] = rows
                    advance(sum(people[image] for image in batch))
            rows = [row for image in people for row in done.get(image, ())]
            write_results(out, rows, {**described, "skipped": dict(skipped)} if skipped else described)
    partial.unlink(missing_ok=True)  # Windows cannot remove open files
    return _checked(out, described) if written else out


def _checked(out: Path, described: dict[str, Any]) -> Path:
    """Return complete results if they were made with these settings; their skipped images are logged again."""
    header = read_results(out)[1]
    _refuse_other_settings(header_path(out), header, described)
    for name, reason in stated_skips(header, header_path(out)).items():
        skip(name, reason)
    return out


def stated_skips(header: Mapping[str, Any] | None, path: Path) -> dict[str, str]:
    """Return image name -> why it has no rows, as the header of a results file states them.

    Args:
        header: the header, if there is one.
        path: its file, for messages.

    Raises:
        ArgumentError: the header states something else under "skipped".
    """
    stated = (header or {}).get("skipped")
    if stated is None:
        return {}
    if not isinstance(stated, dict) or not all(isinstance(reason, str) for reason in stated.values()):
        raise ArgumentError(
            f"{path}: skipped must be an object with a reason for each image name, got {str(stated)[:64]}"
        )
    return stated


def _batches(people: Mapping[int, int], images: list[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for image in images:
        batch.append(image)
        if sum(people[i] for i in batch) >= PEOPLE_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _append(file: IO[str], line: Mapping[str, Any]) -> None:
    file.write(json.dumps(line, allow_nan=False) + "\n")
    file.flush()


def _resume(partial: Path, header: dict[str, Any], people: Mapping[int, int]) -> dict[int, Rows]:
    """Return rows by image of a stopped run; an incomplete last line is dropped."""
    text = read_bytes(partial, "json_bytes")
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with partial.open("r+b") as file:
            file.truncate(len(whole))
    try:
        lines = [parse_json(line, partial, top=dict, strict=False) for line in whole.split(b"\n")[:-1]]
        stated = header
        if lines:
            require(lines[0], {"header": dict}, partial)
            stated = lines[0]["header"]
        for line in lines[1:]:
            require(line, {"image": int, "rows": list}, partial)
            check_rows(line["rows"])
    except ArgumentError as error:
        raise ArgumentError(f"{partial} is not the progress of a stopped run: {error}; remove it") from error
    _refuse_other_settings(partial, stated, header)
    rows = {line["image"]: line["rows"] for line in lines[1:]}
    if unknown := [image for image in rows if image not in people]:
        raise ArgumentError(
            f"{partial} is not the progress of a stopped run: it has image {unknown[0]}, which this run lacks; "
            "remove it"
        )
    return rows


def _refuse_other_settings(path: Path, stated: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    before, now = _flat(stated or {}), _flat(expected)
    changed = [
        f"{key} {before.get(key)!r}, now it is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if key.partition(".")[0] not in TIMELESS and before.get(key) != now.get(key)
    ]
    if changed:
        raise ArgumentError(f"{path}: made with {'; '.join(changed)}; remove it, or write elsewhere")


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested settings to names such as "networks.pose.file"."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return flat
