"""Checked readers of structured files: JSON, YAML, .npz and the metadata of .safetensors.

Sizes and depth are checked before a parser sees the text, top-level types afterwards. Every fault raises
ArgumentError, whose message names the file; OutOfMemory where the content does not fit into memory.
"""

from __future__ import annotations

import codecs
import gc
import io
import json
import os
import re
import stat
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np

from oaks import limits
from oaks.addresses import redacted
from oaks.arguments import as_path
from oaks.errors import ArgumentError, OutOfMemory
from oaks.limits import Limits

if TYPE_CHECKING:
    import yaml

_BRACKETS = b'"[]{}'
_SPACE, _OF_NUMBERS = re.compile(r"[ \t\n\r]*"), re.compile(r"[-+.eE0-9]*")
_TYPES: dict[type, str] = {dict: "an object", list: "a list"}
_PLAIN_SCALAR = 3000
"""Maximum characters of an unquoted YAML value. Parsing one as a number takes time quadratic in its length, and Python
does not print numbers of more than 4300 digits, as which 3600 hexadecimal ones count."""
_PART = 1 << 20
_CUT_OFF = 64
"""More characters than the longest token but texts and numbers has; numbers are parsed as far as they go."""
_ATTEMPTS, _BETWEEN = 20, 0.005
_NPY_MAGIC = b"\x93NUMPY"


def read_json(
    path: str | Path, *, top: type | tuple[type, ...] | None = None, strict: bool = True,
    bounds: Limits | None = None, kept: Callable[[dict[str, Any]], Any] | None = None,
) -> Any:  # fmt: skip
    """Return the content of a JSON file.

    Args:
        path: the file.
        top: dict, list or both: what the content must be.
        strict: whether to refuse NaN and infinities. COCO files are checked by their own reader, which can name the
            annotation. Fields that occur twice in an object are always refused.
        bounds: limits on size and depth; limits.current() if None.
        kept: function that returns what is kept of an object, for files of a million objects, which are then read in
            parts; only with strict=False. It is called for nested objects first, and again for those of an element
            that was not yet whole in the text so far.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is not valid JSON, or its content is of another type.
    """
    if kept is None:
        return parse_json(read_bytes(path, "json_bytes", bounds), path, top=top, strict=strict, bounds=bounds)
    check_regular(path)
    bounds = bounds or limits.current()
    limits.check(f"{path}: its size in bytes", "json_bytes", Path(path).stat().st_size, bounds)
    with _json_errors(path), open(path, "rb") as file, _collector_paused():
        value = _Parts(file, path, bounds, kept).document()
    return check_top(value, path, top)


def parse_json(
    content: bytes, label: str | Path, *, top: type | tuple[type, ...] | None = None, strict: bool = True,
    bounds: Limits | None = None,
) -> Any:  # fmt: skip
    """Return the content of JSON bytes, as `read_json` does; `label` is what messages call them.

    Raises:
        ArgumentError: it is not valid JSON, or its content is of another type.
    """
    try:
        check_depth(content, label, bounds)
    except MemoryError as error:
        raise OutOfMemory(f"{label}: its content does not fit into memory") from error
    hooks: dict[str, Any] = {"object_pairs_hook": _once}
    if strict:
        hooks["parse_constant"] = _refuse_constant
    with _json_errors(label), _collector_paused():
        text = content.decode("utf-8-sig")
        del content  # frees the memory if the caller keeps no reference
        value = json.loads(text, **hooks)
    return check_top(value, label, top)


@contextmanager
def _json_errors(label: str | Path) -> Iterator[None]:
    """Name the file in errors of its parser."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        named = str(error).startswith(f"{label} ")
        raise ArgumentError(str(error) if named else f"{label} is not valid JSON: {error}") from error
    except MemoryError as error:
        raise OutOfMemory(f"{label}: its content does not fit into memory") from error


class _Parts:
    """Parser of a large JSON list, or object of lists, that holds one part of the text at a time.

    Args:
        file: the file.
        label: what messages call it.
        bounds: limits on depth.
        kept: as read_json takes it.
    """

    def __init__(
        self, file: IO[bytes], label: str | Path, bounds: Limits, kept: Callable[[dict[str, Any]], Any]
    ) -> None:
        self._file, self._label, self._bounds, self._kept = file, label, bounds, kept
        self._text, self._at, self._depth, self._ended = "", 0, 0, False
        self._before = (
            0,
            0,
            0,
        )  # of the text that is dropped: lines, characters after the last, characters in all
        self._decoded = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode = json.JSONDecoder(object_pairs_hook=lambda pairs: kept(_once(pairs))).raw_decode

    def document(self) -> Any:
        """The whole content.

        Raises:
            ArgumentError: it is not valid JSON; the message has the place in the file.
        """
        try:
            if self._next() == "{":
                pairs = [self._pair() for _ in self._separated("}")]
                value = self._kept(_once(pairs))
            else:
                value = self._value()
            if self._next():
                self._fail("Extra data")
        except json.JSONDecodeError as error:
            line, column, char = self._place(error.pos)
            raise ArgumentError(
                f"{self._label} is not valid JSON: {error.msg}: line {line + 1} column {column + 1} (char {char})"
            ) from error
        return value

    def _place(self, at: int) -> tuple[int, int, int]:
        """Return line, column and character in the file, from 0, of a place in the text."""
        lines, column, chars = self._before
        within = self._text.count("\n", 0, at)
        column = at - self._text.rfind("\n", 0, at) - 1 if within else column + at
        return lines + within, column, chars + at

    def _pair(self) -> tuple[str, Any]:
        if self._next() != '"':
            self._fail("Expecting property name enclosed in double quotes")
        name = self._element()
        if self._next() != ":":
            self._fail("Expecting ':' delimiter")
        self._at += 1
        return name, self._value()

    def _value(self) -> Any:
        """The next value; a list is read element by element."""
        return [self._element() for _ in self._separated("]")] if self._next() == "[" else self._element()

    def _separated(self, end: str) -> Iterator[None]:
        """Yield before each element of an object or a list, which is read between."""
        self._at, self._depth = self._at + 1, self._depth + 1
        found = "" if self._next() != end else end
        while found != end:
            yield
            if (found := self._next()) not in (",", end):
                self._fail("Expecting ',' delimiter")
            self._at += found == ","
        self._at, self._depth = self._at + 1, self._depth - 1

    def _element(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Of what the end of the text cuts off, an unterminated string alone may begin far from that end.
                cut_off = error.pos > len(self._text) - _CUT_OFF or error.msg.startswith("Unterminated")
                if self._ended or not cut_off:
                    raise
            else:
                # A number may continue in the next part.
                whole = self._text[end - 1] in '"]}' or _end_of(_OF_NUMBERS, self._text, end) < len(
                    self._text
                )
                if whole or self._ended:
                    self._at = end
                    return value
            self._read()

    def _next(self) -> str:
        """Skip white space; return the next character, or "" at the end."""
        while True:
            self._at = _end_of(_SPACE, self._text, self._at)
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read()

    def _read(self) -> None:
        """Read the next part, which is at least as long as the unparsed text, so that a long value needs few reads."""
        self._before = self._place(self._at)
        left = self._text[self._at :]
        part = self._file.read(max(4 * _PART, len(left)))
        self._text, self._at, self._ended = left + self._decoded.decode(part, final=not part), 0, not part
        check_depth(self._text.encode(), self._label, self._bounds, above=self._depth)

    def _fail(self, problem: str) -> NoReturn:
        raise json.JSONDecodeError(problem, self._text, self._at)


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Return where a pattern that always matches ends."""
    match = pattern.match(text, start)
    assert match is not None
    return match.end()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector, which would only cost time: parsing creates no cycles."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def read_yaml(path: str | Path, *, top: type | None = None, bounds: Limits | None = None) -> Any:
    """Return the content of a YAML file. Tags, aliases (nested, they grow without end) and repeated fields are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is not valid YAML, or its content is of another type.
    """
    return parse_yaml(read_bytes(path, "yaml_bytes", bounds), path, top=top, bounds=bounds)


def parse_yaml(
    content: bytes | str, label: str | Path, *, top: type | None = None, bounds: Limits | None = None
) -> Any:
    """Return the content of YAML text, as `read_yaml` does; `label` is what messages call it.

    Raises:
        ArgumentError: it is not valid YAML, or its content is of another type.
    """
    import yaml

    deepest = (bounds or limits.current()).json_depth
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ArgumentError(
                    f"{label}: YAML aliases (*{event.anchor}) are not allowed; write the value out"
                )
            if (tag := getattr(event, "tag", None)) is not None:
                raise ArgumentError(
                    f"{label}: YAML tags ({tag[:64]}) are not allowed; write the value without its type"
                )
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > _PLAIN_SCALAR:
                raise ArgumentError(
                    f"{label}: YAML texts beyond {_PLAIN_SCALAR} characters must be quoted, got {len(event.value)} unquoted"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > deepest:
                raise ArgumentError(f"{label} must be at most {deepest} levels deep, got more")
        value = yaml.load(text, Loader=_yaml_loader())
    except ArgumentError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        raise ArgumentError(f"{label}: not YAML: {error}") from error
    except MemoryError as error:
        raise OutOfMemory(f"{label}: its content does not fit into memory") from error
    return check_top(value, label, top)


@cache
def _yaml_loader() -> type[yaml.SafeLoader]:
    """Return PyYAML's loader of plain types, changed to refuse repeated fields, of which it would keep the last."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if names and (twice := names.most_common(1)[0])[1] > 1:
                raise yaml.YAMLError(f"field {twice[0][:64]!a} occurs twice in an object")
            return super().construct_mapping(node, deep)

    return Loader


def read_npz(path: str | Path, *, bounds: Limits | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file; pickled objects are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is damaged, holds anything but arrays, or exceeds the limit.
    """
    bounds = bounds or limits.current()
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = sum(info.file_size for info in entries)
            limits.check(f"{path}: the size of its arrays in bytes", "array_bytes", size, bounds)
            return {
                info.filename.removesuffix(".npy"): _member(archive, info, path, bounds) for info in entries
            }
    except (ArgumentError, FileNotFoundError):
        raise
    except MemoryError as error:
        raise OutOfMemory(f"{path}: its arrays do not fit into memory") from error
    except Exception as error:  # the parsers of zip and npy raise many kinds of errors on damaged files
        raise ArgumentError(f"{path}: not an .npz file that can be read: {error}") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str | Path, bounds: Limits) -> np.ndarray:
    label = f"{path}: {info.filename[:64]!a}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArgumentError(f"{label} must be stored or deflated, got another compression")
    with archive.open(info) as file:
        start = file.read(8)
        if start[:6] != _NPY_MAGIC:
            raise ArgumentError(f"{label} must be an array, got something else")
        length = int.from_bytes(head := file.read(2 if start[6] == 1 else 4), "little")
        limits.check(f"{label}: the size of its header", "metadata_bytes", length, bounds)
        header = io.BytesIO(start + head + file.read(length))
        version = np.lib.format.read_magic(header)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, column_major, dtype = read_header(header)
        count = 1
        for side in shape:
            count *= int(side)
        size = count * dtype.itemsize
        if dtype.hasobject or not dtype.itemsize:
            raise ArgumentError(f"{label} must hold numbers or text, got Python objects")
        if min(shape, default=0) < 0 or size > info.file_size:
            raise ArgumentError(
                f"{label} must have {size} bytes of data, got {info.file_size}: it is damaged"
            )
        data = np.empty(size, np.uint8)
        filled = 0
        while part := file.read(min(_PART, size - filled)):
            data[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
        if filled < size or file.read(1):
            came = "more" if filled == size else filled
            raise ArgumentError(f"{label} must have {size} bytes of data, got {came}: it is damaged")
    if not size:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, data, order="F" if column_major else "C")


def safetensors_metadata(
    path: str | Path, content: bytes | None = None, *, bounds: Limits | None = None
) -> dict[str, str]:
    """Return the metadata of a .safetensors file: text by name; empty if it has none.

    Args:
        path: the file, or what messages call `content`.
        content: the file's bytes, if they have been read.
        bounds: limits on size and depth; limits.current() if None.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is not such a file.
    """
    bounds = bounds or limits.current()
    if content is None:
        check_regular(path)
        with open(path, "rb") as file:
            length = int.from_bytes(start := file.read(8), "little")
            limits.check(f"{path}: the size of its metadata", "metadata_bytes", length, bounds)
            text = file.read(length)
    else:
        start, length = content[:8], int.from_bytes(content[:8], "little")
        limits.check(f"{path}: the size of its metadata", "metadata_bytes", length, bounds)
        text = content[8 : 8 + length]
    if len(start) < 8 or len(text) < length:
        raise ArgumentError(f"{path}: not a .safetensors file: it is too short")
    header = parse_json(text, path, top=dict, bounds=bounds)
    found = header.get("__metadata__", {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ArgumentError(f"{path}: __metadata__ must be an object of texts, got {str(found)[:64]}")
    return found


def check_regular(path: str | Path) -> None:
    """Refuse anything but a regular file: a FIFO or a device may never end.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is a folder, a FIFO or a device, or no possible name.
    """
    try:
        status = as_path("path", path).stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"file not found: {redacted(str(path))}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ArgumentError(f"{path} must be a file, got a folder, FIFO or device")


def read_bytes(path: str | Path, limit: str, bounds: Limits | None = None) -> bytes:
    """Return the content of a regular file within a limit.

    Args:
        path: the file.
        limit: name of the limit on its size, an attribute of Limits.
        bounds: limits.current() if None.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is larger, or not a regular file.
    """
    check_regular(path)
    bounds = bounds or limits.current()
    limits.check(f"{path}: its size in bytes", limit, Path(path).stat().st_size, bounds)
    try:
        with open(path, "rb") as file:
            for _ in range(_ATTEMPTS):
                before = os.fstat(file.fileno())
                content = file.read(getattr(bounds, limit) + 1)
                after = os.fstat(file.fileno())
                if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                    break
                time.sleep(_BETWEEN)  # the file grew while it was read: part of the content may be old
                file.seek(0)
    except MemoryError as error:
        raise OutOfMemory(f"{path}: the file does not fit into memory") from error
    limits.check(f"{path}: its size in bytes", limit, len(content), bounds)
    return content


def check_depth(content: bytes, label: str | Path, bounds: Limits | None = None, *, above: int = 0) -> None:
    """Refuse JSON with too many levels of objects and arrays, before a recursive parser sees it.

    Args:
        content: JSON, or a part of it that starts with a value. A text that is cut off at its end is left out.
        label: what messages call it.
        bounds: limits.current() if None.
        above: number of levels that the part may lie in.

    Raises:
        ArgumentError: it is deeper than the limit.
    """
    deepest = (bounds or limits.current()).json_depth
    if b"\\" in content:
        content = re.sub(rb"\\.", b"", content, flags=re.DOTALL)
    kept = content.translate(None, bytes(sorted(set(range(256)) - set(_BRACKETS))))
    brackets = re.sub(rb'"[^"]*("|$)', b"", kept.replace(b'""', b""))
    steps = np.frombuffer(brackets, np.uint8)
    opening = np.isin(steps, np.frombuffer(b"[{", np.uint8)).astype(np.int8)
    closing = np.isin(steps, np.frombuffer(b"]}", np.uint8)).astype(np.int8)
    depth = int(np.cumsum(opening - closing, dtype=np.int64).max(initial=0)) + above
    if depth > deepest:
        raise ArgumentError(f"{label} must be at most {deepest} levels deep, got {depth}")


def check_top(value: Any, label: str | Path, top: type | tuple[type, ...] | None) -> Any:
    """Return the value, if it is of the right type.

    Raises:
        ArgumentError: it is not; the message names the file.
    """
    if top is not None and not isinstance(value, top):
        raise ArgumentError(f"{label}: must hold {_type_names(top)}, got {_type_names(type(value))}")
    return value


def _type_names(kinds: type | tuple[type, ...]) -> str:
    return " or ".join(_TYPES.get(k, k.__name__) for k in (kinds if isinstance(kinds, tuple) else (kinds,)))


def require(
    content: Mapping[str, Any], names: Mapping[str, type | tuple[type, ...]], label: str | Path
) -> None:
    """Refuse an object whose fields are missing or of another type. True and false do not count as numbers.

    Args:
        content: the object.
        names: field -> its type, or types.
        label: what messages call the file.

    Raises:
        ArgumentError: a field is missing or does not fit; the message names it.
    """
    for name, kind in names.items():
        if name not in content:
            raise ArgumentError(f"{label}: the field {name!r} is missing")
        value, kinds = content[name], kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ArgumentError(f"{label}: {name} must be {_type_names(kinds)}, got {type(value).__name__}")


def _refuse_constant(name: str) -> float:
    raise ArgumentError(f"{name} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = (name for name, _ in pairs)
        twice = Counter(names).most_common(1)[0][0]
        raise ArgumentError(f"field {twice[:64]!a} occurs twice in an object")
    return content


__all__ = [
    "check_depth",
    "check_regular",
    "check_top",
    "parse_json",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_npz",
    "read_yaml",
    "require",
    "safetensors_metadata",
]
