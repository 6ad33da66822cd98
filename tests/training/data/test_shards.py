"""Packed people: the same crops and labels as from the original pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from oaks.skeleton import COCO17
from oaks.training.data.augmentation import augment
from oaks.training.data.geometry import crop_to_image, window_of
from oaks.training.data.people import DamagedImage, Person
from oaks.training.data.shards import Packing, read_shards, required_packing, stored_crop, write_shards
from oaks.training.recipe import Augmentation, read_recipe
from oaks.training.series import SERIES
from tests.training.conftest import read_people

SIZE = (48, 64)


def smooth(width: int, height: int, seed: int = 0) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), np.uint8)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def someone(box: tuple[float, ...], seed: int = 0) -> Person:
    low, high = np.array(box[:2]), np.array(box[2:])
    keypoints = np.ones((17, 3), np.float32) * 2
    keypoints[:, :2] = np.random.default_rng(seed).uniform(low, high, (17, 2))
    return Person(keypoints, np.array(box, np.float32), float((high - low).prod()), np.ones(17, bool), 3, 4,
                  np.array([1, 1, 0, 0], np.float32))  # fmt: skip


@pytest.mark.parametrize("box", [(100, 80, 220, 260), (-20, -10, 60, 90), (300, 200, 420, 330)])
def test_augmented_stored_crops_are_those_of_the_picture(box: tuple[float, ...]) -> None:
    """For all augmentations that the margin is for, and beyond the picture's edge too."""
    picture, person = smooth(400, 300), someone(box)
    stored, moved = stored_crop(picture, person, size=SIZE, padding=1.25, detail=1.3, reach=1.4)
    assert stored.size < picture.size
    settings = Augmentation(rotation=180, scale=(0.65, 1.35), flip=0.5)
    for seed in range(10):
        whole, packed = (
            augment(
                image, label, np.random.default_rng(seed), settings, size=SIZE, padding=1.25, skeleton=COCO17
            )
            for image, label in ((picture, person), (stored, moved))
        )
        np.testing.assert_allclose(packed.points, whole.points, atol=0.02)
        np.testing.assert_array_equal(packed.visible, whole.visible)
        difference = np.abs(packed.crop.astype(int) - whole.crop)
        assert np.median(difference) <= 2
        # Pixels at the picture's edge are blended with black at another resolution.
        assert np.percentile(difference, 95) <= 40


def test_the_transform_to_the_picture_is_kept() -> None:
    person = someone((100, 80, 320, 280))
    stored, moved = stored_crop(smooth(400, 300), person, size=SIZE, padding=1.25, detail=1.0, reach=1.0)
    assert stored.shape[0] < 150  # reduced
    scale, shift = moved.to_image[:2], moved.to_image[2:]
    np.testing.assert_allclose(moved.keypoints[:, :2] * scale + shift, person.keypoints[:, :2], atol=1e-3)
    corners = (moved.box.reshape(2, 2) - 0.5) * scale + shift + 0.5
    np.testing.assert_allclose(corners.ravel(), person.box, atol=1e-3)
    assert moved.area * scale.prod() == pytest.approx(person.area, rel=1e-5)


def test_small_people_are_not_enlarged() -> None:
    stored, _ = stored_crop(
        smooth(400, 300), someone((100, 80, 110, 95)), size=SIZE, padding=1.25, detail=1.3, reach=1.4
    )
    assert max(stored.shape) < 40


def pack(folder: Path, people_folder: Path, **arguments: object) -> int:
    people = read_people(people_folder)
    return write_shards(
        "people", (people.sample(i) for i in range(len(people))), folder, size=SIZE, **arguments
    )


def test_people_are_read_as_packed(tmp_path: Path, people_folder: Path, people) -> None:
    assert pack(tmp_path / "packed", people_folder, shard_bytes=12_000) == 12
    files = sorted((tmp_path / "packed").glob("people-*.safetensors"))
    assert len(files) > 1
    assert all(path.stat().st_size < 30_000 for path in files)
    packed = read_shards(tmp_path / "packed")
    assert packed.name == "people"
    np.testing.assert_array_equal(packed.person_ids, people.person_ids)
    for index in range(12):
        (image, person), (_, original) = packed.sample(index), people.sample(index)
        back = person.keypoints[:, :2] * person.to_image[:2] + person.to_image[2:]
        labeled = original.keypoints[:, 2] > 0
        np.testing.assert_allclose(back[labeled], original.keypoints[labeled, :2], atol=1e-3)
        assert image.ndim == 3
    few = packed.subset(np.array([5, 2]))
    assert [few.sample(i)[1].person_id for i in range(2)] == [6, 3]


def test_packing_again_removes_the_old_shards(tmp_path: Path, people_folder: Path) -> None:
    pack(tmp_path, people_folder, shard_bytes=12_000)
    many = len(list(tmp_path.glob("people-*.safetensors")))
    pack(tmp_path, people_folder)
    assert many > len(list(tmp_path.glob("people-*.safetensors"))) == 1
    assert len(read_shards(tmp_path)) == 12


def test_the_required_reach_is_that_of_the_strongest_augmentation() -> None:
    """In units of half the window's diagonal, found from the corners of many crops."""
    settings = Augmentation(rotation=25, scale=(0.8, 1.3), shift=0.1)
    center, extent = window_of(np.array([10.0, 20, 40, 90]), SIZE, 1.25)
    furthest = 0.0
    for angle in np.linspace(-25, 25, 101):
        for shift in ((x, y) for x in (-0.1, 0.1) for y in (-0.1, 0.1)):
            affine = crop_to_image(center + np.array(shift) * extent, extent, SIZE, scale=1.3, rotation=angle)
            corners = np.array([(x, y) for x in (-0.5, 47.5) for y in (-0.5, 63.5)])
            image = corners @ affine[:, :2].T + affine[:, 2] + 0.5
            furthest = max(furthest, np.abs(image - center).max())
    required = required_packing(settings, SIZE, 1.25)
    assert required.reach == pytest.approx(furthest / (np.hypot(*extent) / 2), rel=1e-3)
    # Crops without augmentation must be contained too.
    assert required_packing(Augmentation(scale=(0.5, 0.6)), SIZE, 1.25).reach == 0.8


@pytest.mark.parametrize("field", ["size", "padding", "detail", "reach"])
def test_insufficient_packing_is_refused_and_sufficient_packing_is_read(
    tmp_path: Path, people_folder: Path, field: str
) -> None:
    pack(tmp_path, people_folder, padding=1.25, detail=1.3, reach=1.4)
    held = Packing(SIZE, 1.25, 1.0, 1.4)
    smaller = {"size": (36, 48), "padding": 1.1, "detail": 0.9, "reach": 1.2}
    larger = {"size": (72, 96), "padding": 1.5, "detail": 1.5, "reach": 1.6}
    assert len(read_shards(tmp_path, required=held)) == 12
    assert len(read_shards(tmp_path, required=held._replace(**{field: smaller[field]}))) == 12
    with pytest.raises(ValueError, match=r"index\.json must be packed for .*got crops of 48×64.*`oaks pack`"):
        read_shards(tmp_path, required=held._replace(**{field: larger[field]}))


@pytest.mark.parametrize("size", [(64, 64), (32, 64), (48, 48)])
@pytest.mark.parametrize("box", [(0, 0, 10, 90), (0, 0, 45, 60), (0, 0, 90, 20)])
def test_packing_for_another_aspect_ratio_serves_only_if_it_suffices_for_every_box(
    size: tuple[int, int], box: tuple[int, ...]
) -> None:
    (_, stored), (_, needed) = (window_of(np.array(box, float), s, 1.25) for s in (SIZE, size))
    for detail in (1.0, 1.2, 1.4, 1.8):
        for reach in (1.0, 1.3, 1.6, 2.0):
            if Packing(SIZE, 1.25, detail, reach).serves(Packing(size, 1.25, 1.0, 1.0)):
                assert detail * SIZE[0] / stored[0] > 0.999 * size[0] / needed[0]
                pixel = needed[0] / size[0]
                assert reach * np.hypot(*stored) / 2 > np.hypot(*needed) / 2 - 1.01 * pixel
    assert Packing(SIZE, 1.25, 1.8, 2.0).serves(Packing(size, 1.25, 1.0, 1.0))


@pytest.mark.parametrize("name", [*SERIES["small"], *SERIES["tiny"]])
def test_people_packed_for_a_recipe_serve_it(name: str) -> None:
    recipe = read_recipe(name)
    settings = recipe.augmentation
    held = Packing(recipe.input, recipe.padding, 1.3, settings.scale[1] * (1 + 2 * settings.shift))
    required = required_packing(settings, recipe.input, 1.25)
    assert held.serves(required)
    assert not held._replace(size=(recipe.input[0] // 2, recipe.input[1] // 2)).serves(required)


def test_an_interrupted_packing_cannot_be_read(tmp_path: Path, people_folder: Path, people) -> None:
    pack(tmp_path, people_folder)

    def interrupted():
        yield people.sample(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards("people", interrupted(), tmp_path, size=SIZE, shard_bytes=1)
    with pytest.raises(ValueError, match="packing was not finished"):
        read_shards(tmp_path)


def test_different_packings_have_different_digests(tmp_path: Path, people_folder: Path, people) -> None:
    digests = []
    for number, detail in enumerate((1.3, 1.3, 1.0)):
        pack(tmp_path / str(number), people_folder, detail=detail)
        digests.append(read_shards(tmp_path / str(number)).digest())
    assert digests[0] == digests[1]
    assert len({*digests, people.digest()}) == 3


def test_damage_is_reported(tmp_path: Path, people_folder: Path) -> None:
    with pytest.raises(ValueError, match="must have an index.json, got none"):
        read_shards(tmp_path)
    pack(tmp_path, people_folder)
    packed = read_shards(tmp_path)
    packed.bytes[0] = np.zeros_like(packed.bytes[0])
    with pytest.raises(DamagedImage, match="person 2: cannot be decoded"):
        packed.sample(1)
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "people": 13}))
    with pytest.raises(ValueError, match="must hold 13 people, as index.json states, got 12"):
        read_shards(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({**index, "format": 9}))
    with pytest.raises(ValueError, match="must have format 1, got 9"):
        read_shards(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps(index))
    shard = tmp_path / "people-0000.safetensors"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(ValueError, match="people-0000.safetensors must be a complete shard"):
        read_shards(tmp_path)
