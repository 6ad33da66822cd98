"""Workflows, citation file and hooks, each checked against its schema without a network."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from .tree import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def check(schema: str, *paths) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_workflows_are_what_github_takes():
    assert {path.stem for path in WORKFLOWS} == {"checks", "wheels"}
    check("vendor.github-workflows", *WORKFLOWS)


def test_the_schema_refuses_what_is_wrong(tmp_path):
    spoiled = (ROOT / ".github" / "workflows" / "checks.yml").read_text().replace("runs-on:", "runs_on:")
    (tmp_path / "spoiled.yml").write_text(spoiled)
    with pytest.raises(AssertionError, match="spoiled.yml"):
        check("vendor.github-workflows", tmp_path / "spoiled.yml")


def test_workflows_only_call_make_targets():
    called = []
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            called += [step["run"] for step in job["steps"] if "run" in step]
    assert all(re.fullmatch(r"make [a-z-]+", command) for command in called)
    assert {command.removeprefix("make ") for command in called} == {"lint", "test", "wheels"} <= targets()


def test_checks_run_on_every_python_with_and_without_a_cuda_compiler():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())
    matrix = workflow["jobs"]["checks"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]
    assert project()["project"]["requires-python"] == f">={matrix['python'][0]}"
    plain, cuda = matrix["image"]
    assert plain == ""
    assert "-devel-" in cuda, "the image with nvcc"
    built = project()["tool"]["cibuildwheel"]["build"]
    assert built == [f"cp{version.replace('.', '')}-*" for version in matrix["python"]]


def test_the_citation_is_valid_and_of_this_version():
    check("vendor.citation-file-format", ROOT / "CITATION.cff")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project()["project"]["version"]
    assert citation["license"] == project()["project"]["license"]
    assert [reference["type"] for reference in citation["references"]] == ["article"]


def test_hooks_run_the_versions_that_lint_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    pinned = dict(
        r.split("==")
        for r in project()["project"]["optional-dependencies"]["test"]
        if "==" in r and ";" not in r
    )
    revisions = {repo["repo"].rpartition("/")[2]: repo["rev"].removeprefix("v") for repo in config["repos"]}
    assert revisions["ruff-pre-commit"] == pinned["ruff"]
    assert revisions["mirrors-clang-format"] == pinned["clang-format"]


def test_contributing_names_commands_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", text))
    assert {"lint", "test", "test-all", "coverage", "wheels"} <= named <= targets()
