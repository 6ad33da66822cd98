"""Structured files: what is too large, too deep or of another type is refused by name before it is parsed."""

from __future__ import annotations

import json
import os
import re
import zipfile

import numpy as np
import pytest

from oaks import structured
from oaks.errors import ArgumentError
from oaks.limits import Limits


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("{}", 1), ("[[[]]]", 3), (r'{"a\"[[[[": "]]\\", "b": [1]}', 2), ('"[[["', 0), ("1", 0),
        (r'["\\\\", [[]]]', 3), ("[[1], [2], [{}]]", 3), ("[" * 100_000, 100_000),
    ],
)  # fmt: skip
def test_levels_are_counted_outside_of_texts(text, depth):
    structured.check_depth(text.encode(), "a.json", Limits(json_depth=depth))
    with pytest.raises(ValueError, match=rf"a\.json must be at most {depth - 1} levels deep, got {depth}"):
        structured.check_depth(text.encode(), "a.json", Limits(json_depth=depth - 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "at most 64 levels deep"), (b"9" * 5000, "is not valid JSON"), (b'{"a": NaN}', "NaN is not a JSON"),
        (b'{"a": 1, "b": {"a": 2, "a": 3}}', "field 'a' occurs twice"), (b"\xff", "utf-8"), (b"", "is not valid JSON"),
        (b"[-Infinity]", "-Infinity is not a JSON"),
        (b"[1]", "must hold an object, got a list"), (b"3", "must hold an object, got int"), (b"{", "is not valid JSON"),
    ],
)  # fmt: skip
def test_json_that_does_not_fit_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json.*{message}"):
        structured.read_json(tmp_path / "a.json", top=dict)


def test_json_is_read_whole(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"ä": [1, 2.5, None]}).encode())
    assert structured.read_json(tmp_path / "a.json", top=(dict, list)) == {"ä": [1, 2.5, None]}
    assert np.isnan(structured.parse_json(b'{"a": NaN}', "x", strict=False)["a"])
    for strict in (True, False):
        with pytest.raises(ValueError, match="field 'a' occurs twice"):
            structured.parse_json(b'{"a": 1, "a": 2}', "x", strict=strict)
    with pytest.raises(
        ValueError, match=r"a\.json: its size in bytes must be at most 5, got .*OAKS_LIMIT_JSON_BYTES"
    ):
        structured.read_json(tmp_path / "a.json", bounds=Limits(json_bytes=5))


def test_only_regular_files_are_opened(tmp_path):
    """A FIFO would make the reader wait for ever."""
    os.mkfifo(tmp_path / "a.json")
    for path in (tmp_path / "a.json", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="must be a file, got a folder, FIFO or device"):
            structured.read_json(path)
    with pytest.raises(FileNotFoundError, match=r"file not found: .*b\.json"):
        structured.read_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match="must be a path without NUL"):
        structured.read_json("a\0b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", r"aliases \(\*x\) are not allowed"), ("[" * 1000, "at most 64 levels deep"),
        ("a: !!python/object:x {}", r"tags \(tag:yaml.org,2002:python/object:x\) are not allowed"),
        ("a: !!timestamp x", "are not allowed"), ("a: !!bool x", "are not allowed"), ("!!set {a, b}", "are not allowed"),
        ("a: 1\nb: {c: 1, 'c': 2}", "field 'c' occurs twice in an object"),
        ("a: 0x" + "f" * 3600, "must be quoted"), ("a: [", "not YAML"), ("a: 2000-99-99", "not YAML"),
        ("- 1", "must hold an object, got a list"), ("", "must hold an object, got NoneType"),
    ],
)  # fmt: skip
def test_yaml_that_does_not_fit_is_named(text, message):
    with pytest.raises(ValueError, match=rf"a\.yaml.* {message}"):
        structured.parse_yaml(text, "a.yaml", top=dict)


def test_yaml_is_read_as_plain_types(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1, 2.5, x]\nb: {c: null}\n")
    assert structured.read_yaml(tmp_path / "a.yaml", top=dict) == {"a": [1, 2.5, "x"], "b": {"c": None}}


def test_arrays_are_read_as_numpy_does(tmp_path):
    arrays = {
        "x": np.arange(6).reshape(2, 3), "y": np.asfortranarray(np.random.default_rng(0).random((3, 4))),
        "z": np.array("text"), "e": np.zeros((0, 4), np.float32), "b": np.array([True, False]),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = structured.read_npz(tmp_path / "a.npz")
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
            assert found[name].flags.writeable


def test_arrays_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}], object))
    with pytest.raises(ValueError, match=r"a\.npz: 'x\.npy' must hold numbers or text, got Python objects"):
        structured.read_npz(path)
    np.savez_compressed(path, x=np.zeros(100_000))
    with pytest.raises(ValueError, match=r"a\.npz: the size of its arrays in bytes must be at most 1000"):
        structured.read_npz(path, bounds=Limits(array_bytes=1000))
    for content in (b"", b"PK\x05\x06", path.read_bytes()[:-40], path.read_bytes()[:90]):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"b\.npz"):
            structured.read_npz(tmp_path / "b.npz")


def test_an_array_that_claims_to_be_larger_than_its_file_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000,)}".ljust(117) + b"\n"
    for shape in (header, header.replace(b"(100000000,)", b"(-1,)       "), b"{" * 117 + b"\n"):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr(
                "x.npy", b"\x93NUMPY\x01\x00" + len(shape).to_bytes(2, "little") + shape + bytes(80)
            )
        with pytest.raises(ValueError, match=r"a\.npz: "):
            structured.read_npz(tmp_path / "a.npz")


def test_metadata_of_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"x": np.zeros(3)}, path, metadata={"oaks": "{}"})
    assert structured.safetensors_metadata(path) == {"oaks": "{}"}
    assert structured.safetensors_metadata("x", path.read_bytes()) == {"oaks": "{}"}
    for content in (
        b"",
        b"\xff" * 20,
        (100).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.safetensors"):
            structured.safetensors_metadata(path)


def test_fields_are_required_by_name():
    structured.require({"a": 1, "b": 2.0}, {"a": int, "b": (int, float)}, "a.json")
    for content, message in (({}, "the field 'a' is missing"), ({"a": True}, "a must be int, got bool")):
        with pytest.raises(ValueError, match=rf"a\.json: {message}"):
            structured.require(content, {"a": int}, "a.json")


def test_long_values_of_yaml_must_be_quoted():
    """A number in base 60 takes the square of its length to read."""
    for text in ("1:" * 3000 + "1", "9" * 5000, "a: " + "x" * 5000):
        with pytest.raises(ValueError, match=r"a\.yaml: YAML texts beyond 3000 characters must be quoted"):
            structured.parse_yaml(text, "a.yaml")
    assert structured.parse_yaml('"' + "x" * 5000 + '"', "a.yaml") == "x" * 5000


def test_yaml_has_a_limit_of_its_own(tmp_path):
    (tmp_path / "a.yaml").write_text("a: b")
    with pytest.raises(
        ValueError, match=r"a\.yaml: its size in bytes must be at most 3, .*OAKS_LIMIT_YAML_BYTES"
    ):
        structured.read_yaml(tmp_path / "a.yaml", bounds=Limits(yaml_bytes=3))


def test_a_field_that_occurs_twice_among_very_many_is_found_at_once():
    text = "{" + ",".join(f'"{n}": 0' for n in range(100_000)) + ', "7": 1}'
    with pytest.raises(ValueError, match="field '7' occurs twice"):
        structured.parse_json(text.encode(), "a.json")


def test_the_arrays_of_a_file_are_counted_together(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **{f"a{n}": np.zeros(1000) for n in range(10)})
    bounds = Limits(array_bytes=50_000)
    with pytest.raises(
        ValueError, match=r"a\.npz: the size of its arrays in bytes must be at most 50000, got 8"
    ):
        structured.read_npz(tmp_path / "a.npz", bounds=bounds)
    assert len(structured.read_npz(tmp_path / "a.npz")) == 10


def test_arrays_of_no_size_and_of_no_bytes(tmp_path):
    arrays = {"none": np.zeros((0, 5)), "scalar": np.float32(3), "columns": np.asfortranarray(np.eye(3))}
    np.savez(tmp_path / "a.npz", **arrays)
    for name, found in structured.read_npz(tmp_path / "a.npz").items():
        np.testing.assert_array_equal(found, arrays[name])
        assert found.shape == arrays[name].shape
        assert found.flags.writeable
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000,)}".ljust(117) + b"\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="must hold numbers or text"):
        structured.read_npz(tmp_path / "b.npz")


def test_a_file_that_is_being_written_is_read_again(tmp_path, monkeypatch):
    path, sizes = tmp_path / "a.json", [1, 2, 3]
    path.write_text("[")
    real = os.fstat

    def growing(handle):
        if sizes:
            path.write_text("[" * sizes.pop() + "]")
        return real(handle)

    monkeypatch.setattr(structured.os, "fstat", growing)
    assert structured.read_bytes(path, "json_bytes") == b"[]"
    assert sizes == []


DOCUMENTS = [
    b'{"images": [{"id": 1, "name": "\xc3\xa4 \\" ] } \\\\"}, {"id": 2}], "n": [12.5e-3 , -7, 0]}',
    b'{"a": {"b": [[1, {"c": null}]]}}', b'\xef\xbb\xbf [ 1, 22, {"a": true}, [], {}, "x" ] \n', b'[]', b'{}',
    b'"text"', b'123', b'-Infinity', b'[[],[[]]]', b'{"a": 1, "a": 2}', b'{"a": [1, 2,]}', b'{"a": 1,}',
    b'{"a" 1}', b'{1: 2}', b'{"a": [1 2]}', b'{"a": [1}', b'[1] 2', b'', b'  ', b'{"a": "x', b'[1, nul]',
    b'\xff', b'{"a": [{"b": 1, "b": 2}]}', b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", b'["[[", "]]"]',
    b"[" * 64 + b"]" * 64, b"[" * 65 + b"]" * 65, b'{"a": 1]', b'[1, 2}', b'["a\\', b'{,}', b'[,]',
    b'{"a": 1} x', b'["' + b"[" * 99 + b'"]', b'[1,\n 2,\n\n  3 4]',
    b'{"a":\n["\xc3\xa4",\n"b' + b"b" * 200, b"[" + b"12, " * 99 + b"\n?]",
]  # fmt: skip


@pytest.mark.parametrize("part", [1, 3, 1 << 20])
@pytest.mark.parametrize("content", DOCUMENTS)
def test_a_file_that_is_read_in_parts_gives_the_same(tmp_path, monkeypatch, content, part):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    monkeypatch.setattr(structured, "_PART", part)

    def outcome(**settings):
        try:
            return json.dumps(structured.read_json(path, strict=False, **settings))
        except ArgumentError as error:
            assert "a.json" in str(error)  # noqa: PT017 - both ways of reading are compared
            return re.findall(r"line \d+ column \d+ \(char \d+\)", str(error))

    assert outcome(kept=lambda entry: entry) == outcome()


def test_each_object_is_reduced_once_where_a_part_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(structured, "_PART", 1)
    (tmp_path / "a.json").write_text(json.dumps({"a": [{"n": n, "text": "x" * n} for n in range(40)]}))
    seen = []
    structured.read_json(tmp_path / "a.json", strict=False, kept=lambda entry: seen.append(entry.get("n")))
    assert seen == [*range(40), None]
