"""The documentation site: complete, strict, and without outside resources."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys

import pytest
import yaml

import oaks
import oaks.fit
import oaks.ops
import oaks.video

from .pages import ROOT

API = sorted((ROOT / "docs" / "api").glob("*.md"))
DOCUMENTED = [name for page in API for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)]
DATA = {
    "oaks.__version__",
    "oaks.bundle", "oaks.draw", "oaks.fit", "oaks.ops",
    "oaks.ops.FLIP_FEATURES", "oaks.ops.JOINT_FEATURES", "oaks.ops.MAP_FEATURES", "oaks.ops.OKS_THRESHOLD",
    "oaks.ops.POSE_FEATURES", "oaks.ops.SECOND_FEATURES", "oaks.video.ONCE",
}  # fmt: skip
"""Modules, which are pages of their own, and constants, which need no entry."""


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolve(name):
    """What a dotted name leads to."""
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            value = getattr(value, part)
        return value
    raise AssertionError(name)


@pytest.mark.parametrize("module", [oaks, oaks.ops, oaks.fit, oaks.video], ids=lambda module: module.__name__)
def test_everything_public_is_in_the_reference(module):
    """By name, or under the module that it comes from, as box sources are."""
    documented = {id(resolve(name)) for name in DOCUMENTED}
    missing = [
        f"{module.__name__}.{name}"
        for name in module.__all__
        if id(getattr(module, name)) not in documented and f"{module.__name__}.{name}" not in DATA
    ]
    assert not missing


def test_every_entry_of_the_reference_exists_and_stands_once():
    assert len(DOCUMENTED) == len(set(DOCUMENTED)) > 80
    undescribed = [
        name for name in DOCUMENTED if callable(resolve(name)) and not (resolve(name).__doc__ or "").strip()
    ]
    assert not undescribed


def leaves(nav):
    for entry in nav:
        for value in entry.values():
            yield from leaves(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation(pages):
    listed = set(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    own = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed == own | set(pages.PAGES.values())


def test_links_lead_to_pages_and_copies(pages):
    docs, root = ROOT / "docs", ROOT
    text = "[a](docs/video.md#boxes) [b](ARCHITECTURE.md) [c](oaks/bundle.schema.json) [d](#here) [e](https://x.y/z)"
    assert pages.relative_to_docs(text, root) == (
        "[a](video.md#boxes) [b](architecture.md) [c](oaks/bundle.schema.json) [d](#here) [e](https://x.y/z)"
    )
    assert pages.relative_to_docs("[a](../README.md#video) [b](../oaks/py.typed)", docs) == (
        "[a](index.md#video) [b](oaks/py.typed)"
    )
    assert pages.linked_files("[a](../oaks/py.typed) [b](video.md) [c](../README.md)", docs) == {
        "oaks/py.typed"
    }


def test_options_in_the_text_are_not_split(pages):
    html = "<p><code>oaks track --every 5</code> -- <code>a--b</code></p><pre><code>--every</code></pre><code>--x-y=1</code>"
    option = '<span class="option">{}</span>'
    assert pages.on_page_content(html) == html.replace("--every 5", option.format("--every") + " 5").replace(
        "--x-y", option.format("--x-y")
    )


def test_attributes_with_one_description_stand_together(pages):
    entry = '<b><code><autoref id="x.heat,">{},</autoref></code></b>\n (<code>{}</code>)\n – <p>maps</p>'
    shown = '<b><code><autoref id="x.heat,">{}</autoref></code></b>\n – <p>maps</p>'
    assert pages.on_page_content(entry.format("heat", "(boxes, areas)")) == shown.format("heat, boxes, areas")
    assert pages.on_page_content(entry.format("heat", "<a>boxes</a>")) == shown.format("heat, boxes")
    alone = entry.format("heat", "ndarray").replace(",</autoref>", "</autoref>")
    assert pages.on_page_content(alone) == alone


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_outside_resources(tmp_path):
    pytest.importorskip("mkdocs")
    # The proxy does not exist, so a download would fail.
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT, env={**os.environ, **offline, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(?:https?:)?//', text), page
        assert not re.findall(
            r'<link[^>]*rel="(?:stylesheet|preconnect|preload)"[^>]*href="(?:https?:)?//', text
        ), page
    assert 'id="oaks.Engine.infer"' in (tmp_path / "api" / "engine.html").read_text("utf-8")
    for copy in ("examples/other_estimators.py", "oaks/bundle.schema.json", "figures/flags.svg"):
        assert (tmp_path / copy).is_file()


def test_the_page_on_the_architecture_names_what_exists():
    """Its files exist, and every folder of the package is named in it, with or without the folders above."""
    text = re.sub(r"```.*?```", "", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), flags=re.S)
    words = set(re.findall(r"`([^`\s]+)`", text))
    folders = ("oaks", "engines", "training", "csrc", "tests", "benchmarks", "examples", "docs")
    paths = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".cpp", ".h")
    ]
    known = {ROOT / name for name in ("setup.py", "pyproject.toml")} | set(paths)
    missing = [
        word
        for word in words
        if re.search(r"\.(py|cpp|h)$", word)
        and not any(f"/{path.as_posix()}".endswith(f"/{word}") for path in known)
    ]
    assert not missing
    held = {path.parent.relative_to(ROOT).as_posix() for path in paths if path.name == "__init__.py"}
    packages = {folder for folder in held if folder.split("/")[0] in ("oaks", "engines", "training")}
    packages -= {folder for folder in packages if folder.startswith(("oaks/engines", "oaks/training"))}
    unnamed = [
        folder
        for folder in sorted(packages)
        if not re.search(rf"\b{folder.rpartition('/')[2]}\b", " ".join(words))
    ]
    assert not unnamed
