"""Series of trainings that depend on each other: their order, and resuming after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from oaks.training import series
from oaks.training.data.packing import pack
from oaks.training.data.sources import DataFolders
from oaks.training.recipe import parse_recipe, read_recipe
from oaks.training.run_folder import RunFolder
from tests.training.conftest import ks_recipe, pose_recipe, quiet


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Recipes of two tiny trainings named "first" and "second"."""
    contents = {
        "first": pose_recipe(),
        "second": ks_recipe([str(tmp_path / "runs" / "first" / "network.safetensors")]),
    }
    monkeypatch.setattr(series, "SERIES", {"tiny": tuple(contents)})
    monkeypatch.setattr(series, "read_recipe", lambda name: parse_recipe(contents[name], name))
    return {"runs": tmp_path / "runs", "accelerator": "cpu"}


def test_a_stopped_series_resumes_and_trains_nothing_twice(people_folder: Path, tiny: dict) -> None:
    data, runs = people_folder.parent, tiny["runs"]
    assert series.train_series("tiny", data, max_minutes=1e-9, **tiny) is None
    assert not RunFolder(runs / "first").complete()
    assert not (runs / "second").exists()
    trained = series.train_series("tiny", data, **tiny)
    assert trained == [runs / name / "network.safetensors" for name in ("first", "second")]
    assert all(RunFolder(runs / name).complete() for name in ("first", "second"))
    written = [path.stat().st_mtime_ns for path in trained]
    assert series.train_series("tiny", data, **tiny) == trained
    assert [path.stat().st_mtime_ns for path in trained] == written


def test_a_series_resumes_with_moved_data(people_folder: Path, tiny: dict, tmp_path: Path) -> None:
    """After a failed start, within a training, and between trainings."""
    with pytest.raises(FileNotFoundError, match="--data"):
        series.train_series("tiny", tmp_path / "nowhere", **tiny)
    assert series.train_series("tiny", people_folder.parent, max_minutes=1e-9, **tiny) is None
    (tmp_path / "moved").mkdir()
    people_folder.rename(tmp_path / "moved" / "people")
    packed = tmp_path / "packed"
    pack(series.read_recipe("first"), packed, DataFolders(tmp_path / "moved"), console=quiet())
    assert series.train_series("tiny", tmp_path / "moved", packed=packed, **tiny) is not None
    for name in ("first", "second"):
        _, place = RunFolder(tiny["runs"] / name).read()
        assert place[:2] == (tmp_path / "moved", packed)


def test_an_unknown_series_is_refused() -> None:
    with pytest.raises(ValueError, match="which must be one of 'small', 'tiny', .*, got 'large'"):
        series.train_series("large", Path())


@pytest.mark.parametrize("names", series.SERIES.values())
def test_recipes_start_from_networks_of_earlier_recipes_and_use_all_of_them(names: tuple[str, ...]) -> None:
    kinds = {read_recipe(name).kind for name in names[:-1]}
    assert kinds <= {"detector" if names is series.SERIES["detector"] else "pose"}
    files = [Path("runs") / name / "network.safetensors" for name in names]
    used: set[Path] = set()
    for at, name in enumerate(names[1:], 1):
        recipe = read_recipe(name)
        named = recipe.pose if recipe.kind == "ks" else [recipe.initial.path, *recipe.initial.average_with]
        assert named
        assert set(named) <= set(files[:at])
        used |= set(named)
    assert used == set(files[:-1])


def test_a_series_without_ks_net_returns_one_network(
    people_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "SERIES", {"tiny": ("first",)})
    monkeypatch.setattr(series, "read_recipe", lambda name: parse_recipe(pose_recipe(), name))
    trained = series.train_series("tiny", people_folder.parent, runs=tmp_path / "runs", accelerator="cpu")
    assert trained == [tmp_path / "runs" / "first" / "network.safetensors"]
