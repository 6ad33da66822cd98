"""Killed at any moment, a verb leaves files that can be read, and a rerun gives the bytes of a run that was left alone.

`make kills KILLS=n` kills more often.
"""

from __future__ import annotations

import random
import signal

import pytest

from durability.kills import ROUND, Fresh, Outcome, kill_once, reference
from durability.verbs import Verb, prepare, verbs_on

LONG = ("val run", "val others", "fit", "rescore", "export", "import", "finetune", "benchmark")
"""Those that take long to start; `make kills` kills them too."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


@pytest.fixture(scope="module")
def verbs(tmp_path_factory) -> dict[str, Verb]:
    return prepare(tmp_path_factory.mktemp("durability"), [name for name in ROUND if name not in LONG])


@pytest.fixture(scope="module")
def long_verbs(tmp_path_factory) -> dict[str, Verb]:
    return prepare(tmp_path_factory.mktemp("durability"), LONG)


def test_every_verb_is_killed_in_a_round(tmp_path):
    assert set(verbs_on(tmp_path)) == set(ROUND)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in ROUND if name not in LONG])
def test_a_killed_run_is_readable_and_its_rerun_the_same(verbs, tmp_path, name):
    kill_and_compare(verbs[name], tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LONG)
def test_so_is_a_killed_run_of_a_verb_that_takes_long(long_verbs, tmp_path, name):
    kill_and_compare(long_verbs[name], tmp_path / "out")


def kill_and_compare(verb, out):
    whole, found = reference(verb, out, Fresh), Outcome()
    assert whole.files
    kill_once(verb, out, whole, random.Random(verb.name), Fresh, found)
    assert found.faults() == []
    assert found.kills + found.late == 1
