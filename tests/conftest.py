"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with annotated photographs; OAKS_REQUIRE_DATA=1 makes its absence an error instead of a skip."""
    folder = Path(os.environ.get("OAKS_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "coco-val2017" / "test.json").is_file():
        reason = f"no annotated photographs at {folder}: set OAKS_DATA to the folder that holds coco-val2017"
        if os.environ.get("OAKS_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture
def tell(record_property: Callable[[str, str], None]) -> Callable[[str], None]:
    """Print a text at the end of the run; what a worker of pytest-xdist prints itself is lost."""
    return partial(record_property, "told")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for some in terminalreporter.stats.values() for report in some]
    for report in reports:
        if getattr(report, "when", None) == "call":
            for name, text in report.user_properties:
                if name == "told":
                    terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def _cuda_tests_need_a_device(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("needs_cuda"):
        from oaks import _native

        if not getattr(_native, "cuda", None) or _native.cuda.device_count() == 0:
            pytest.skip("no CUDA device, or a build without the CUDA half")
