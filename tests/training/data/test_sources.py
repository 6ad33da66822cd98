"""Sources by recipe: packed and rendered people, held-out folds, and the commands that use them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from oaks.cli.main import app
from oaks.skeleton import COCO17, Skeleton
from oaks.training.data import people
from oaks.training.data.packing import pack
from oaks.training.data.rendered import open_rendered
from oaks.training.data.sources import DataFolders, open_data, open_source, split_folds
from oaks.training.recipe import CocoSource, Folds, RenderedSource, parse_recipe
from oaks.training.run import Hardware, train
from tests.training.conftest import pose_recipe, source

RENDERED = {"kind": "rendered", "name": "rendered", "count": 4, "seed": 5, "settings": {"size": [96, 96]}}


def rendered(**fields: object) -> RenderedSource:
    return RenderedSource.model_validate({**RENDERED, **fields})


def test_live_people_are_the_pictures_people() -> None:
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


def test_rendered_people_refuse_what_they_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rendered people have COCO's keypoints, not 'hat'"):
        open_rendered(rendered(), Skeleton("hat", ("hat",), (0.1,)), None)
    with pytest.raises(ValueError, match="rendered: settings: .*hats"):
        open_rendered(rendered(settings={"hats": 3}), COCO17, None)
    with pytest.raises(ValueError, match="need a folder"):
        open_rendered(rendered(stored=True), COCO17, None)


def test_people_are_trained_on_or_held_out(people_folder: Path) -> None:
    lines: list[str] = []
    data = parse_recipe(
        pose_recipe(data={"train": [source()], "folds": {"count": 3, "held_out": 0}}), "a"
    ).data
    split = open_data(data, COCO17, DataFolders(people_folder.parent), lines.append)
    trained, held = (np.concatenate([p.image_ids for p in part]) for part in (split.train, split.validation))
    assert set(trained) | set(held) == set(range(1, 7))
    assert not set(trained) & set(held)
    assert split.weights == [len(trained)]
    assert len(lines) == 1
    everyone = open_source(CocoSource.model_validate(source()), COCO17, DataFolders(people_folder.parent))
    for fold in range(3):
        kept, out = split_folds(everyone, Folds(count=3, held_out=fold))
        assert len(kept) + len(out) == 12
    assert len(split_folds(everyone, Folds(count=3, held_out=None))[1]) == 0


def test_folds_of_a_multiple_are_parts_of_folds(people_folder: Path) -> None:
    everyone = open_source(CocoSource.model_validate(source()), COCO17, DataFolders(people_folder.parent))
    _, held = split_folds(everyone, Folds(count=2, held_out=1))
    kept, out = split_folds(everyone, Folds(count=6, held_out=5, trained=[1, 3]))
    assert len(kept)
    assert len(out)
    assert sorted([*kept, *out]) == held.tolist()


def test_sources_that_are_not_validated_on_are_still_held_out(people_folder: Path) -> None:
    content = pose_recipe(data={"train": [source(hold_out=False, weight=3)], "folds": {"count": 3}})
    split = open_data(parse_recipe(content, "a").data, COCO17, DataFolders(people_folder.parent))
    assert split.validation == []
    assert len(split.train[0]) < 12
    assert split.weights == [3]


def test_packed_sources_take_the_place_of_pictures(tmp_path: Path, people_folder: Path) -> None:
    recipe = parse_recipe(pose_recipe(data={"train": [source()], "validation": [RENDERED]}), "a")
    console = Console(file=io.StringIO())
    counts = pack(recipe, tmp_path / "packed", DataFolders(people_folder.parent), console=console)
    assert counts["people"] == 12
    assert counts["rendered"] > 4  # everyone in the pictures, not one of each
    split = open_data(recipe.data, COCO17, DataFolders(tmp_path / "nowhere", tmp_path / "packed"))
    pictures = open_source(recipe.data.train[0], COCO17, DataFolders(people_folder.parent))
    np.testing.assert_array_equal(split.train[0].person_ids, pictures.person_ids)
    assert len(split.validation[0]) == counts["rendered"]
    assert pack(recipe, tmp_path / "packed", DataFolders(tmp_path / "nowhere"), console=console) == {}
    assert "packed already" in console.file.getvalue()


def test_people_packed_for_less_are_refused_and_packed_again(tmp_path: Path, people_folder: Path) -> None:
    small = parse_recipe(pose_recipe(), "a")
    large = parse_recipe(pose_recipe(input=[96, 128]), "a")
    place, console = DataFolders(people_folder.parent), Console(file=io.StringIO())
    pack(small, tmp_path / "packed", place, console=console)
    packed = place._replace(packed=tmp_path / "packed")
    with pytest.raises(
        ValueError, match=r"packed for at least crops of 96×128.* got crops of 48×64.* again with `oaks pack`"
    ):
        train(large, tmp_path / "run", packed, Hardware("cpu", 1), console=console)
    assert not (tmp_path / "run").exists()
    assert pack(large, tmp_path / "packed", place, console=console) == {"people": 12}
    assert "packing again" in console.file.getvalue()
    assert train(large, tmp_path / "run", packed, Hardware("cpu", 1), console=console) is not None
    assert pack(small, tmp_path / "packed", place, console=console) == {}  # which the larger crops serve too
    with pytest.raises(ValueError, match="detail must be at least 1"):
        pack(small, tmp_path / "packed", place, detail=0.9, console=console)


def test_a_folder_of_packed_people_that_is_not_there_is_said(tmp_path: Path, people_folder: Path) -> None:
    place = DataFolders(people_folder.parent, tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="packed people not found: .*gone"):
        open_source(CocoSource.model_validate(source()), COCO17, place)


def test_a_first_image_that_is_damaged_is_passed_over(people_folder: Path) -> None:
    (people_folder / "images" / "1.jpg").write_bytes(b"no picture")
    content = CocoSource.model_validate(source())
    assert len(open_source(content, COCO17, DataFolders(people_folder.parent))) == 12
    for path in (people_folder / "images").iterdir():
        path.write_bytes(b"no picture")
    people.read_image.cache_clear()
    with pytest.raises(ValueError, match=r"none of 12 people's images can be decoded: .*6\.jpg"):
        open_source(content, COCO17, DataFolders(people_folder.parent))


def test_a_fold_without_a_readable_image_is_refused_at_once(people_folder: Path) -> None:
    data = parse_recipe(pose_recipe(data={"train": [source()], "folds": {"count": 3}}), "a").data
    split = open_data(data, COCO17, DataFolders(people_folder.parent))
    for image in set(split.validation[0].image_ids):
        (people_folder / "images" / f"{image}.jpg").write_bytes(b"no picture")
    people.read_image.cache_clear()
    with pytest.raises(
        ValueError, match=rf"none of {len(split.validation[0])} people's images can be decoded"
    ):
        open_data(data, COCO17, DataFolders(people_folder.parent))


def test_digests_of_rendered_people_follow_the_renderers_switches(tmp_path: Path) -> None:
    plain = {"size": [96, 96]}
    for stored in (False, True):
        found = [
            open_rendered(
                rendered(stored=stored, settings={**plain, **more}), COCO17, tmp_path / str(n)
            ).digest()
            for n, more in enumerate(({}, {}, {"photograph": False}))
        ]
        assert found[0] == found[1] != found[2]


def test_packing_skips_damaged_images_and_says_so(tmp_path: Path, people_folder: Path, caplog) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")
    console = Console(file=io.StringIO(), width=400)
    counts = pack(
        parse_recipe(pose_recipe(), "a"),
        tmp_path / "packed",
        DataFolders(people_folder.parent),
        console=console,
    )
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
