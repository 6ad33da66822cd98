"""Held-out people as COCO files: exactly those that the training holds out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from oaks.training.data.held_out import write_held_out
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.recipe import read_recipe
from tests.training.conftest import pose_recipe


def recipe_file(folder: Path, folds: dict | None) -> Path:
    content = pose_recipe()
    content["data"]["folds"] = folds
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_files_hold_the_held_out_people(tmp_path: Path, people_folder: Path) -> None:
    path = recipe_file(tmp_path, {"count": 3, "held_out": 1})
    ((annotations, images),) = write_held_out(path, people_folder.parent, tmp_path / "out")
    recipe = read_recipe(path)
    split = open_data(recipe.data, recipe.load_skeleton(), DataFolders(people_folder.parent), lambda _: None)
    written = json.loads(annotations.read_text())
    held_out = {int(i) for people in split.validation for i in people.image_ids}
    assert {image["id"] for image in written["images"]} == held_out
    assert sorted(person["id"] for person in written["annotations"]) == sorted(
        int(i) for people in split.validation for i in people.person_ids
    )
    assert all((images / image["file_name"]).is_file() for image in written["images"])
    assert written["categories"] == json.loads((people_folder / "annotations.json").read_text())["categories"]


def test_files_of_the_people_trained_on_have_all_others(tmp_path: Path, people_folder: Path) -> None:
    path = recipe_file(tmp_path, {"count": 3, "held_out": 1})
    ((held_out, images),) = write_held_out(path, people_folder.parent, tmp_path / "out")
    ((trained, same),) = write_held_out(path, people_folder.parent, tmp_path / "out", trained=True)
    assert same == images
    assert trained.name == f"{held_out.stem}-trained.json"
    recipe = read_recipe(path)
    split = open_data(recipe.data, recipe.load_skeleton(), DataFolders(people_folder.parent), lambda _: None)
    written = {image["id"] for image in json.loads(trained.read_text())["images"]}
    assert written >= {int(i) for people in split.train for i in people.image_ids}
    assert not written & {image["id"] for image in json.loads(held_out.read_text())["images"]}


def test_trainings_without_held_out_people_are_refused(tmp_path: Path, people_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"mine\.yaml must have held-out people .*, got None"):
        write_held_out(recipe_file(tmp_path, None), people_folder.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()
