"""Arguments of other types than a call takes are refused by the package's own error, whatever call and argument."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import bundles
import numpy as np
import pytest
from fuzz.calls import make_calls
from fuzz.run import is_refusal
from fuzz.targets import _annotations, _results

from oaks import ArgumentError
from oaks.arguments import (
    as_path,
    check_choice,
    check_count,
    check_flags,
    check_iterable,
    check_share,
    check_threshold,
    is_integer,
    is_number,
    parse_settings,
)

STRANGE = (
    None, True, -1, 3.5, float("nan"), float("-inf"), 2**63, 10**400, 1 + 2j, "", "a", "\0", "\udfff", "a" * 300, b"abc",
    [], (), {}, {1: 2}, set(), object(), np.float32(2), np.datetime64("2020-01-01"), datetime(2020, 1, 1), np.array(5),
    np.array([]), np.array(["a"]), np.array([None]), np.full((2, 3), np.nan), [None], [[1, 2, 3, 4], [1, 2]],
    [[1, 2, 3, "4"]], np.ma.array([[1, 2, 3, 4]], mask=[[0, 1, 0, 0]]), iter([1]), len,
)  # fmt: skip


def test_calls_raise_only_the_packages_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = bundles.write(tmp_path / "bundle").path
    raw, refused = [], 0
    for name, made in make_calls(tmp_path, bundle, _annotations(), _results()).items():
        for argument in made.right:
            for value in STRANGE:
                try:
                    made.run(**{**made.right, argument: value})
                except Exception as error:
                    if is_refusal(error) or (isinstance(error, IndexError) and name == "Poses[]"):
                        refused += 1
                    else:
                        raw.append((name, argument, repr(value)[:40], repr(error)[:120]))
    assert raw == []
    assert refused > 1000


def test_paths():
    assert as_path("path", "a/b") == as_path("path", Path("a/b")) == Path("a/b")
    assert as_path("path", "a\udcff") == Path("a\udcff"), "a byte of a name that is no text"
    for value in (None, 3, b"a", ["a"]):
        with pytest.raises(ArgumentError, match="path must be a path, got"):
            as_path("path", value)
    for value in ("a\0", "\ud800"):
        with pytest.raises(ArgumentError, match="path must be a path without NUL"):
            as_path("path", value)


@pytest.mark.parametrize(
    ("value", "number", "finite", "integer"),
    [
        (1, True, True, True), (np.int8(1), True, True, True), (0.5, True, True, False), (np.float32(1), True, True, False),
        (float("inf"), True, False, False), (float("nan"), False, False, False), (True, False, False, False),
        (np.bool_(True), False, False, False), ("1", False, False, False), (1j, False, False, False),
        (np.array(1), False, False, False), (None, False, False, False), (np.datetime64("NaT"), False, False, False),
        (10**400, False, False, True),
    ],
)  # fmt: skip
def test_numbers(value, number, finite, integer):
    assert (is_number(value, finite=False), is_number(value), is_integer(value)) == (number, finite, integer)


def test_flags_choices_and_sequences():
    check_flags(a=True, b=np.bool_(False))
    for value in (1, "no", None, np.array([True])):
        with pytest.raises(ArgumentError, match="a must be True or False, got"):
            check_flags(a=value)
    check_choice("color", None, (None, "bgr"))
    for value in ("rgb", ["bgr"], np.array(["bgr"])):
        with pytest.raises(ArgumentError, match="color must be one of None, 'bgr', got"):
            check_choice("color", value, (None, "bgr"))
    check_iterable("a", iter([]))
    for value in (3, np.array(3), None):
        with pytest.raises(ArgumentError, match="a must be a sequence, got"):
            check_iterable("a", value)
    for value in (0, -1, 1.5, True, "1", None):
        with pytest.raises(ArgumentError, match="a must be an integer of at least 1, got"):
            check_count("a", value)
    check_count("a", 0, 0)
    with pytest.raises(ArgumentError, match="a must be an integer of at least 2, got 1"):
        check_count("a", 1, 2)
    for value in (0, 1, 0.5, np.float32(1)):
        check_share("a", value)
    for value in (-0.1, 1.1, float("nan"), True, "1", None):
        with pytest.raises(ArgumentError, match="a must be a number from 0 to 1, got"):
            check_share("a", value)
    for value in (0, 1.1, float("nan"), True, "1", None):
        with pytest.raises(ArgumentError, match="a must be above 0 and at most 1, got"):
            check_threshold("a", value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mean",
            "--set must be NAME=VALUE with NAME one of color, mean, size, padding, weighted, got 'mean'",
        ),
        ("width=3", "--set must be NAME=VALUE .*, got 'width=3'"),
        ("mean=1,2", "--set mean must be 3 finite numbers separated by commas, got '1,2'"),
        ("mean=1,2,nan", "--set mean must be 3 finite numbers"),
        ("size=3", "--set size must be 2 integers of at least 1 separated by commas, got '3'"),
        ("size=3,2.5", "--set size must be 2 integers"),
        ("size=0,64", "--set size must be 2 integers"),
        ("padding=wide", "--set padding must be 1 finite number"),
        ("padding=", "--set padding must be 1 finite number"),
        ("weighted=1", "--set weighted must be true or false, got '1'"),
    ],
)
def test_settings_are_parsed(text, message):
    kinds = {"color": str, "mean": (float, 3), "size": (int, 2), "padding": (float, 1), "weighted": bool}
    with pytest.raises(ArgumentError, match=message):
        parse_settings("--set", [text], kinds)
