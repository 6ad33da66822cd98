"""Recipes: the built-in ones are valid, and errors name every wrong field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from oaks.errors import ArgumentError
from oaks.training import recipe as module
from oaks.training.recipe import KSRecipe, PoseRecipe, parse_recipe, read_recipe
from tests.training.conftest import TINY, ks_recipe, pose_recipe

BUILT_IN = sorted(path.stem for path in (Path(module.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_recipes_are_valid_and_can_be_written_and_read_back(name: str) -> None:
    recipe = read_recipe(name)
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), name) == recipe


def test_the_papers_recipes_have_the_papers_settings() -> None:
    oa, hpe, ks = (read_recipe(f"paper_{name}") for name in ("oa_hpe", "hpe", "ks_net"))
    assert isinstance(oa, PoseRecipe)
    assert oa.network == {"name": "oa_hpe", "backbone": "resnet101", "head": "fpn"}
    assert hpe.network == {**oa.network, "visibility": False}
    assert hpe.model_dump(exclude={"network", "title", "initial"}) == oa.model_dump(
        exclude={"network", "title", "initial"}
    )
    assert (oa.input, oa.heatmap_sigma, oa.visibility_weight) == ((288, 384), 1, 1)
    assert (oa.augmentation.rotation, oa.augmentation.scale, oa.augmentation.flip) == (45, (0.65, 1.35), 0.5)
    assert isinstance(ks, KSRecipe)
    assert ks.network == {"name": "ks_net", "backbone": "resnet18", "hidden": 1024}
    assert oa.training.batch == 32
    for recipe, epochs, steps in ((oa, 160, [120, 150]), (ks, 60, [30, 50])):
        training = recipe.training
        assert (training.epochs, training.optimizer, training.learning_rate) == (epochs, "adam", 1e-3)
        assert (training.schedule.epochs, training.schedule.factor) == (steps, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "video"}, "kind must be one of 'pose', 'ks', 'detector', got 'video'"),
        ({"color": 1}, "color: Extra inputs are not permitted, got 1"),
        ({"heatmap_sigma": 0}, "heatmap_sigma"),
        ({"input": [50, 64]}, "input must be .width, height., multiples of 4"),
        ({"network": {"name": "oa_hpe", "backbone": "resnet9"}}, "backbone must be one of"),
        ({"network": {"name": "oa_hpe", "width": 0.125, "head": "deconv"}},
         r"input must be .width, height., multiples of 32 and at least 32, got \(48, 64\)"),
        ({"network": {**TINY, "keypoints": 5}}, r"network must be without \['keypoints'\], which come from"),
        ({"network": {"name": "ks_net"}}, "network: name must be one of 'oa_hpe', 'mobile_oa_hpe', 'hrnet'"),
        ({"network": {"name": "oa_hpe", "width": "wide"}}, "network"),
        ({"augmentation": {"flip": 1.5}}, "augmentation.flip"),
        ({"augmentation": {"scale": [1.3, 0.7]}}, r"scale must be \(smallest, largest\), got \(1\.3, 0\.7\)"),
        ({"augmentation": {"tilt": 3}}, "augmentation.tilt: Extra inputs"),
        ({"data": {"train": []}}, "data.train"),
        ({"data": {"train": [{"kind": "tape", "name": "a"}]}}, "data.train.0"),
        ({"data": {"train": [{"kind": "shards", "name": "a", "folder": "a"}] * 2}}, "different names"),
        ({"data": {"train": [{"kind": "rendered", "name": "a", "count": 9}],
                   "validation": [{"kind": "rendered", "name": "b", "count": 3}]}},
         "'a' and 'b' are the same people: {\"seed\": 0, \"settings\": {}}"),
        ({"data": {"train": [{"kind": "shards", "name": "a", "folder": "a"}], "folds": {"count": 3, "held_out": 3}}},
         "held_out must be below"),
        ({"data": {"train": [{"kind": "shards", "name": "a", "folder": "a"}], "folds": {"count": 3, "trained": [1, 0]}}},
         "without held_out, got"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_recipe({**pose_recipe(), **change}, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augmentation": {"rotation": 3}}, "rotation and half_body must be 0 for a KS-net, got 3 and 0"),
        ({"views": 2, "heatmaps": "live"}, "views must be 1 with live heatmaps, .*, got 2"),
        ({"calibrate": True}, "calibrate must have validation people, got none"),
        ({"network": {"name": "ks_net", "backbone": "conv2", "hidden": -1}}, "network: "),
        (
            {"pose": ["a.safetensors", "b.safetensors"]},
            "data.folds.count must be 2, one fold per pose network",
        ),
    ],
)
def test_wrong_fields_of_a_ks_recipe_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe({**ks_recipe(["a.safetensors"]), **change}, "ks.yaml")


def test_single_fields_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(pose_recipe()))
    changes = ["training.epochs=7", "data.train.0.limit=3", "input=[32, 96]", "data.folds.count=4"]
    recipe = read_recipe(path, changes)
    assert (recipe.training.epochs, recipe.data.train[0].limit, recipe.input) == (7, 3, (32, 96))
    assert (recipe.data.folds.count, recipe.data.folds.held_out) == (4, 0)
    for change, message in (("training.epochs", "must be field=value"), ("data.train.5.limit=3", "must name a field"),
                            ("title.text=3", "must name a field"), ("training.epoch=3", "training.epoch")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            read_recipe(path, [change])


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="rendered_oa_hpe"):
        read_recipe("huge_oa_hpe")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match=r"broken\.yaml: not YAML"):
        read_recipe(tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    "change", ["a.²=1", "²=1", "9" * 5000 + "=1", "data.train.٣.limit=1", "network.width=.inf"]
)
def test_changes_with_unsuitable_numbers_are_refused(change):
    with pytest.raises(ArgumentError):
        read_recipe("tiny_pose", [change])


def test_an_extending_recipe_states_only_the_differences(tmp_path: Path) -> None:
    """The reference is the extended recipe with the same fields changed."""
    (tmp_path / "first.yaml").write_text(
        "extends: tiny_pose\ntitle: first\ninput: [64, 96]\ninitial: null\ndata: {train: {1: {weight: 7}}}\n"
    )
    (tmp_path / "second.yaml").write_text(
        "extends: first.yaml\ntraining: {epochs: 2}\naugmentation: {blur: 0}\n"
    )
    changes = ["title=first", "input=[64, 96]", "initial=null", "data.train.1.weight=7", "training.epochs=2"]
    assert read_recipe(tmp_path / "second.yaml") == read_recipe(
        "tiny_pose", [*changes, "augmentation.blur=0"]
    )
    assert read_recipe(tmp_path / "second.yaml", ["title=third"]).title == "third"


def test_extending_recipes_are_written_in_full(tmp_path: Path) -> None:
    recipe = read_recipe("tiny_pose_fine")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert "extends" not in (tmp_path / "recipe.yaml").read_text()
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("extends: 3", ArgumentError, "extends must be the name or the path of a recipe, got 3"),
        ("extends: [tiny_pose]", ArgumentError, r"extends must be the name or the path of a recipe, got \['tiny_pose'\]"),
        ("extends: nothing", FileNotFoundError, "recipe not found: nothing; built in are"),
        (f"extends: {'a' * 500}", FileNotFoundError, "recipe not found: aaa"),
        ('extends: "a\\0b"', FileNotFoundError, "recipe not found: a"),
        ("extends: it.yaml", ArgumentError, "extends must be another recipe, got 'it.yaml', which extends this one"),
        ("extends: back.yaml", ArgumentError, "extends must be another recipe, got 'it.yaml', which extends this one"),
        ("extends: tiny_pose\ndata: {train: {9: {weight: 1}}}", ArgumentError, "list items must be below 6, got 9"),
        ("extends: tiny_pose\ndata: {train: {-1: {weight: 1}}}", ArgumentError, "list items must be below 6, got -1"),
        ("extends: tiny_pose\ndata: {train: {first: 1}}", ArgumentError, "list items must be below 6, got 'first'"),
        ("extends: tiny_pose\nepochs: 3", ArgumentError, "epochs"),
    ],
)  # fmt: skip
def test_wrong_extensions_are_refused(tmp_path: Path, content: str, error: type, message: str) -> None:
    (tmp_path / "it.yaml").write_text(content)
    (tmp_path / "back.yaml").write_text("extends: it.yaml")
    with pytest.raises(error, match=message):
        read_recipe(tmp_path / "it.yaml")
