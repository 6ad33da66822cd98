"""Killed at any moment, a verb leaves files that can be read, and a rerun gives the bytes of a run that was left alone.

`make kills KILLS=n` kills more often.
"""

from __future__ import annotations

import random
import signal

import pytest

from durability.kills import Fresh, Outcome, kill_once, reference
from durability.verbs import Verb, prepare

NAMES = (
    "predict", "track", "val run", "val detect", "val boxes", "val report", "fit", "export", "render", "render-video",
    "pack", "train",
)  # fmt: skip
LONG = ("val run", "fit", "export")
"""Those that take long to start; `make kills` kills them too."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


@pytest.fixture(scope="module")
def verbs(tmp_path_factory) -> dict[str, Verb]:
    made = prepare(tmp_path_factory.mktemp("durability"))
    assert set(made) == set(NAMES)
    return made


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NAMES]
)
def test_a_killed_run_is_readable_and_its_rerun_the_same(verbs, tmp_path, name):
    whole, found = reference(verbs[name], tmp_path / "out", Fresh), Outcome()
    assert whole.files
    kill_once(verbs[name], tmp_path / "out", whole, random.Random(name), Fresh, found)
    assert found.faults() == []
    assert found.kills + found.late == 1
