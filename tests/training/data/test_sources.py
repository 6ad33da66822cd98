"""Sources of recipes: packed and rendered people, held-out folds, and the commands that use them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from oaks.cli.main import app
from oaks.skeleton import COCO17, Skeleton
from oaks.training.data import people
from oaks.training.data.packing import pack
from oaks.training.data.rendered import open_rendered
from oaks.training.data.sources import DataFolders, open_data, open_source, split_folds
from oaks.training.recipe import CocoSource, Folds, RenderedSource, parse_recipe
from oaks.training.run import train
from tests.training.conftest import CPU, pose_recipe, quiet, source

RENDERED = {"kind": "rendered", "name": "rendered", "count": 4, "seed": 5, "settings": {"size": [96, 96]}}


def rendered(**fields: object) -> RenderedSource:
    return RenderedSource.model_validate({**RENDERED, **fields})


def test_live_people_are_those_of_the_renderer() -> None:
    people = open_rendered(rendered(), COCO17, None)
    assert len(people) == 4
    image, person = people.sample(2, np.random.default_rng(1))
    assert image.shape == (96, 96, 3)
    again, someone = people.sample(2, np.random.default_rng(1))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(person.keypoints, someone.keypoints)
    annotations = [a for a in people.pictures.sample(2)[1] if a["num_keypoints"]]
    assert any(np.allclose(person.keypoints.ravel(), a["keypoints"]) for a in annotations)
    x, y, w, h = next(a["bbox"] for a in annotations if np.allclose(person.keypoints.ravel(), a["keypoints"]))
    np.testing.assert_allclose(person.box, [x, y, x + w, y + h], rtol=1e-6)
    assert people.subset(np.array([3])).sample(0)[1].image_id == 3


def test_stored_people_are_rendered_once(tmp_path: Path) -> None:
    people = open_rendered(rendered(stored=True), COCO17, tmp_path)
    assert len(people) >= 4
    written = (tmp_path / "rendered" / "annotations.json").stat().st_mtime_ns
    first = sorted((tmp_path / "rendered" / "images").iterdir())[0].stat().st_mtime_ns
    again = open_rendered(rendered(stored=True), COCO17, tmp_path)
    assert len(again) == len(people)
    assert sorted((tmp_path / "rendered" / "images").iterdir())[0].stat().st_mtime_ns == first
    assert written


def test_wrong_settings_of_rendered_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="skeleton must be 'coco17' for rendered people .*, got 'hat'"):
        open_rendered(rendered(), Skeleton("hat", ("hat",), (0.1,)), None)
    with pytest.raises(ValueError, match="rendered: settings: .*hats"):
        open_rendered(rendered(settings={"hats": 3}), COCO17, None)
    with pytest.raises(ValueError, match=r"folder must be given for stored people \(rendered\), got None"):
        open_rendered(rendered(stored=True), COCO17, None)


def open_people(people_folder: Path, **fields: object):
    return open_source(CocoSource.model_validate(source(**fields)), COCO17, DataFolders(people_folder.parent))


def test_people_are_trained_on_or_held_out(people_folder: Path) -> None:
    lines: list[str] = []
    folds = {"count": 3, "held_out": 0}
    data = parse_recipe(pose_recipe(data={"train": [source()], "folds": folds}), "a").data
    split = open_data(data, COCO17, DataFolders(people_folder.parent), lines.append)
    trained, held = (np.concatenate([p.image_ids for p in part]) for part in (split.train, split.validation))
    assert set(trained) | set(held) == set(range(1, 7))
    assert not set(trained) & set(held)
    assert split.weights == [len(trained)]
    assert len(lines) == 1
    everyone = open_people(people_folder)
    for fold in range(3):
        kept, out = split_folds(everyone, Folds(count=3, held_out=fold))
        assert len(kept) + len(out) == 12
    assert len(split_folds(everyone, Folds(count=3, held_out=None))[1]) == 0


def test_folds_of_a_multiple_are_parts_of_folds(people_folder: Path) -> None:
    everyone = open_people(people_folder)
    _, held = split_folds(everyone, Folds(count=2, held_out=1))
    kept, out = split_folds(everyone, Folds(count=6, held_out=5, trained=[1, 3]))
    assert len(kept)
    assert len(out)
    assert sorted([*kept, *out]) == held.tolist()


def test_without_hold_out_the_fold_is_not_trained_on_either(people_folder: Path) -> None:
    content = pose_recipe(data={"train": [source(hold_out=False, weight=3)], "folds": {"count": 3}})
    split = open_data(parse_recipe(content, "a").data, COCO17, DataFolders(people_folder.parent))
    assert split.validation == []
    assert len(split.train[0]) < 12
    assert split.weights == [3]


def test_packed_sources_replace_pictures(tmp_path: Path, people_folder: Path) -> None:
    recipe = parse_recipe(pose_recipe(data={"train": [source()], "validation": [RENDERED]}), "a")
    console = quiet()
    counts = pack(recipe, tmp_path / "packed", DataFolders(people_folder.parent), console=console)
    assert counts["people"] == 12
    assert counts["rendered"] > 4  # all people of the pictures, not one of each
    split = open_data(recipe.data, COCO17, DataFolders(tmp_path / "nowhere", tmp_path / "packed"))
    pictures = open_source(recipe.data.train[0], COCO17, DataFolders(people_folder.parent))
    np.testing.assert_array_equal(split.train[0].person_ids, pictures.person_ids)
    assert len(split.validation[0]) == counts["rendered"]
    assert pack(recipe, tmp_path / "packed", DataFolders(tmp_path / "nowhere"), console=console) == {}
    assert "already packed" in console.file.getvalue()


def test_insufficiently_packed_people_are_refused_and_packed_again(
    tmp_path: Path, people_folder: Path
) -> None:
    small = parse_recipe(pose_recipe(), "a")
    large = parse_recipe(pose_recipe(input=[96, 128]), "a")
    place, console = DataFolders(people_folder.parent), quiet()
    pack(small, tmp_path / "packed", place, console=console)
    packed = place._replace(packed=tmp_path / "packed")
    with pytest.raises(
        ValueError, match=r"packed for at least crops of 96×128.* got crops of 48×64.* again with `oaks pack`"
    ):
        train(large, tmp_path / "run", packed, CPU, console=console)
    assert not (tmp_path / "run").exists()
    assert pack(large, tmp_path / "packed", place, console=console) == {"people": 12}
    assert "packing again" in console.file.getvalue()
    assert train(large, tmp_path / "run", packed, CPU, console=console) is not None
    assert pack(small, tmp_path / "packed", place, console=console) == {}  # the larger crops serve it too
    with pytest.raises(ValueError, match="detail must be at least 1"):
        pack(small, tmp_path / "packed", place, detail=0.9, console=console)


def test_a_missing_folder_of_packed_people_is_reported(tmp_path: Path, people_folder: Path) -> None:
    place = DataFolders(people_folder.parent, tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="packed people not found: .*gone"):
        open_source(CocoSource.model_validate(source()), COCO17, place)


def test_a_damaged_first_image_is_skipped(people_folder: Path) -> None:
    (people_folder / "images" / "1.jpg").write_bytes(b"no picture")
    assert len(open_people(people_folder)) == 12
    for path in (people_folder / "images").iterdir():
        path.write_bytes(b"no picture")
    people.read_image.cache_clear()
    with pytest.raises(ValueError, match=r"got none for 12 samples: .*6\.jpg"):
        open_people(people_folder)


def test_a_fold_without_a_readable_image_is_refused_at_the_start(people_folder: Path) -> None:
    data = parse_recipe(pose_recipe(data={"train": [source()], "folds": {"count": 3}}), "a").data
    split = open_data(data, COCO17, DataFolders(people_folder.parent))
    for image in set(split.validation[0].image_ids):
        (people_folder / "images" / f"{image}.jpg").write_bytes(b"no picture")
    people.read_image.cache_clear()
    with pytest.raises(ValueError, match=rf"got none for {len(split.validation[0])} samples"):
        open_data(data, COCO17, DataFolders(people_folder.parent))


def test_digests_of_rendered_people_depend_on_the_renderers_settings(tmp_path: Path) -> None:
    for stored in (False, True):
        found = []
        for number, more in enumerate(({}, {}, {"photograph": False})):
            made = rendered(stored=stored, settings={"size": [96, 96], **more})
            found.append(open_rendered(made, COCO17, tmp_path / str(number)).digest())
        assert found[0] == found[1] != found[2]


def test_packing_skips_damaged_images_and_reports_them(tmp_path: Path, people_folder: Path, caplog) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")
    recipe, console = parse_recipe(pose_recipe(), "a"), quiet()
    counts = pack(recipe, tmp_path / "packed", DataFolders(people_folder.parent), console=console)
    assert counts == {"people": 10}
    assert "skipped person 4 of people: " in caplog.text
    assert "2.jpg: damaged" in caplog.text
    assert "2 people in damaged images" in console.file.getvalue()


def test_commands_pack_train_and_resume(tmp_path: Path, people_folder: Path) -> None:
    path, run = tmp_path / "mine.yaml", CliRunner()
    path.write_text(yaml.safe_dump(pose_recipe()))
    data = ["--data", str(people_folder.parent)]

    def call(*arguments: str, code: int = 0) -> str:
        result = run.invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    assert "parameters" in call("train", str(path), "--summary")
    call("pack", str(path), "--out", str(tmp_path / "packed"), *data)
    out = ["--accelerator", "cpu", "--devices", "1"]
    call("train", str(path), "--packed", str(tmp_path / "packed"), "--out", str(tmp_path / "run"),
         "--max-minutes", "1e-9", *data, *out, code=1)  # fmt: skip
    assert not (tmp_path / "run" / "network.safetensors").exists()
    people_folder.parent.joinpath("moved").mkdir()
    people_folder.rename(people_folder.parent / "moved" / "people")
    (tmp_path / "packed").rename(tmp_path / "elsewhere")
    moved = ["--data", str(people_folder.parent / "moved"), "--packed", str(tmp_path / "elsewhere")]
    call("train", "--resume", str(tmp_path / "run"), *moved, *out)
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (recorded["data"], recorded["packed"]) == (moved[1], moved[3])
    assert (tmp_path / "run" / "network.safetensors").is_file()
    for arguments, message in (
        (["train"], "pass exactly one of a recipe with --out, --resume"),
        (["train", str(path), "--resume", str(tmp_path / "run")], "--resume must be given without a recipe"),
        (
            ["train", "--resume", str(tmp_path / "run"), "--out", "x"],
            "--resume must be given without a recipe",
        ),
        (["train", str(path), "--summary", *data], "--summary must be given with a recipe and --set alone"),
        (
            ["train", str(path), "--summary", "--accelerator", "cpu"],
            "--summary must be given with a recipe and --set alone",
        ),
        (["pack", "paper_ks_net", "--out", "x"], "recipe must be of kind pose"),
    ):
        assert f"oaks: {message}" in call(*arguments, code=2)
