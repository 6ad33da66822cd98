"""The order of draws: every person once per turn, sources by weight, and the same order when resumed at any step."""

from __future__ import annotations

from dataclasses import astuple
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from oaks.skeleton import COCO17
from oaks.training.data import sampling
from oaks.training.data.sampling import AugmentedPeople, PeopleSampler, make_loader, sample_readable
from oaks.training.recipe import Augmentation
from tests.training.conftest import read_people, write_people


def flat(draws: PeopleSampler) -> list:
    return list(chain.from_iterable(draws))


def test_every_person_is_drawn_once_per_turn() -> None:
    draws = flat(PeopleSampler([10], [1], batch=5, steps=6, seed=3))
    turns = [sorted(d.index for d in draws[start : start + 10]) for start in (0, 10, 20)]
    assert turns == [list(range(10))] * 3
    assert [d.index for d in draws[:10]] != [d.index for d in draws[10:20]]
    assert [d.number for d in draws] == list(range(30))


@pytest.mark.parametrize("lengths", [[50], [50, 7, 300]])
def test_draws_are_the_same_when_resumed_at_any_step(
    lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "BLOCK", 64)  # so that the steps are in several blocks
    weights = [1.0, 3.0, 2.0][: len(lengths)]
    whole = list(PeopleSampler(lengths, weights, batch=6, steps=60, seed=1))
    for start in (1, 10, 11, 33, 59):
        assert list(PeopleSampler(lengths, weights, batch=6, steps=60, start=start, seed=1)) == whole[start:]


def test_processes_share_each_steps_draws() -> None:
    whole = list(PeopleSampler([40, 9], [1, 1], batch=6, steps=7, seed=1))
    parts = [
        list(PeopleSampler([40, 9], [1, 1], batch=3, steps=7, seed=1, rank=r, processes=2)) for r in (0, 1)
    ]
    for step, (first, second) in enumerate(zip(*parts, strict=True)):
        assert sorted(first + second, key=astuple) == sorted(whole[step], key=astuple)


def test_sources_are_mixed_by_weight() -> None:
    draws = flat(PeopleSampler([10, 1000], [3, 1], batch=100, steps=100, seed=0))
    share = np.mean([d.source == 0 for d in draws])
    assert share == pytest.approx(0.75, abs=0.02)


def samples(folder: Path) -> AugmentedPeople:
    settings = Augmentation(rotation=30, scale=(0.8, 1.2), flip=0.5, occluders=0.5, color=1)
    sources = [read_people(folder)]
    return AugmentedPeople(sources, settings, size=(48, 64), padding=1.25, skeleton=COCO17, seed=0)


def test_batches_do_not_depend_on_the_number_of_loader_workers(people_folder: Path) -> None:
    loaders = [
        make_loader(samples(people_folder), PeopleSampler([12], [1], batch=4, steps=3), workers)
        for workers in (0, 1)
    ]
    for alone, beside in zip(*loaders, strict=True):
        assert alone.keys() == beside.keys()
        for name in alone:
            np.testing.assert_array_equal(alone[name], beside[name])


def test_damaged_images_are_skipped_counted_and_logged_once(
    people_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")
    batches = list(make_loader(samples(people_folder), PeopleSampler([12], [1], batch=6, steps=4), 0))
    assert sum(int(batch["damaged"].sum()) for batch in batches) >= 4  # both people, in both turns
    assert "2.jpg: damaged" in caplog.text
    assert len(caplog.messages) == len(set(caplog.messages)) == 2  # one for each of the two people


def test_many_consecutive_damaged_images_are_skipped(tmp_path: Path) -> None:
    write_people(tmp_path, images=15)
    for number in range(2, 15):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"no picture")
    _, person, damaged = sample_readable(read_people(tmp_path), 2)
    assert (person.person_id, damaged) == (29, 26)


def test_a_data_set_of_damaged_images_is_refused(people_folder: Path) -> None:
    for path in (people_folder / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"got none for 12 samples: .*images/\d\.jpg: damaged"):
        next(iter(make_loader(samples(people_folder), PeopleSampler([12], [1], batch=6, steps=4), 0)))
