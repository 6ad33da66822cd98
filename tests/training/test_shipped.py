"""The networks that ship: trained one after another, gone on with after a stop, and written as one bundle."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from oaks.training import shipped
from oaks.training.recipe import parse_recipe, read_recipe
from oaks.training.run import RunFolder
from tests.training.conftest import ks_recipe, pose_recipe


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Recipes of two tiny trainings under the names "first" and "second"."""
    contents = {
        "first": pose_recipe(),
        "second": ks_recipe([str(tmp_path / "runs" / "first" / "network.safetensors")]),
    }
    monkeypatch.setattr(shipped, "RECIPES", {"tiny": tuple(contents)})
    monkeypatch.setattr(shipped, "PRECISIONS", ("fp32",))
    monkeypatch.setattr(shipped, "read_recipe", lambda name: parse_recipe(contents[name], name))
    return {"runs": tmp_path / "runs", "accelerator": "cpu"}


def test_a_stopped_training_is_gone_on_with_until_the_bundle_is_there(
    people_folder: Path, tiny: dict
) -> None:
    data, runs = people_folder.parent, tiny["runs"]
    assert shipped.ship("tiny", data, max_minutes=1e-9, **tiny) is None
    assert not RunFolder(runs / "first").complete()
    assert not (runs / "second").exists()
    bundle = shipped.ship("tiny", data, **tiny)
    assert bundle is not None
    assert sorted(bundle.files) == ["ks.fp32.onnx", "pose.fp32.onnx"]
    assert all(RunFolder(runs / name).complete() for name in ("first", "second"))
    trained = [(runs / name / "network.safetensors").stat().st_mtime_ns for name in ("first", "second")]
    shipped.ship("tiny", data, **tiny)
    assert trained == [(runs / n / "network.safetensors").stat().st_mtime_ns for n in ("first", "second")]


def test_an_unknown_name_is_said() -> None:
    with pytest.raises(ValueError, match="one of real, small wanted, got 'large'"):
        shipped.ship("large", Path())


@pytest.mark.parametrize("names", shipped.RECIPES.values())
def test_each_recipe_names_the_networks_of_those_before_it(names: tuple[str, ...]) -> None:
    for before, name in itertools.pairwise(names):
        recipe = read_recipe(name)
        named = recipe.pose if recipe.kind == "ks" else [recipe.initial.path]
        assert named == [Path("runs") / before / "network.safetensors"]
    assert recipe.kind == "ks"
