"""Crops for comparison and calibration, from COCO files, folders and arrays."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from oaks.engines.export.samples import load_crops, split

DESCRIPTION = {
    "input": {"size": [6, 8], "mean": [10.0, 20.0, 30.0], "std": [2.0, 4.0, 5.0], "color": "bgr"},
    "padding": 1.0,
}
GRAY = (50.0, 60.0, 70.0)
"""Red, green and blue of a plain picture."""


def normalized(red: float, green: float, blue: float) -> np.ndarray:
    return np.float32([(red - 10) / 2, (green - 20) / 4, (blue - 30) / 5])


def picture(width: int, height: int, rgb=GRAY) -> np.ndarray:
    return np.full((height, width, 3), rgb[::-1], np.uint8)


def constant(crops: np.ndarray) -> np.ndarray:
    """Return the colors (N, 3) of crops whose centers have one color each."""
    middle = crops[:, :, 3:5, 2:4]
    assert np.ptp(middle, axis=(2, 3)).max() < 1e-4
    return middle[..., 0, 0]


@pytest.fixture
def coco(tmp_path):
    """Write a picture with a dark left and a light right half, a person in each, and a crowd."""
    image = np.concatenate([picture(60, 80, (10, 20, 30)), picture(60, 80, (100, 120, 140))], axis=1)
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 120, "height": 80}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 60, 80], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [60, 0, 60, 80], "iscrowd": 0},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 120, 80], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "person"}],
    }

    def write(annotations: str, images: str):
        (tmp_path / images).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / images / "a.png"), image)
        (tmp_path / annotations).write_text(json.dumps(content))
        return tmp_path / annotations

    return write


@pytest.mark.parametrize("images", [".", "images", "people"])
def test_people_of_a_coco_file_are_cut_from_the_images_in_its_folders(coco, images):
    crops = load_crops(coco("people.json", images), DESCRIPTION, count=10)
    assert crops.shape == (2, 3, 8, 6)
    assert crops.dtype == np.float32
    np.testing.assert_allclose(
        constant(crops), [normalized(10, 20, 30), normalized(100, 120, 140)], atol=1e-4
    )


def test_a_folder_with_annotations_is_a_coco_file(coco, tmp_path):
    coco("annotations.json", "images")
    assert load_crops(tmp_path, DESCRIPTION, count=10).shape == (2, 3, 8, 6)


def test_pictures_that_cannot_be_read_are_skipped(coco, tmp_path, caplog):
    annotations = coco("people.json", "images")
    content = json.loads(annotations.read_text())
    for number, name in enumerate(("gone.png", "cut.png"), start=8):
        content["images"].append({"id": number, "file_name": name, "width": 120, "height": 80})
        content["annotations"].append({**content["annotations"][0], "id": number, "image_id": number})
    annotations.write_text(json.dumps(content))
    (tmp_path / "images" / "cut.png").write_bytes((tmp_path / "images" / "a.png").read_bytes()[:60])
    assert len(load_crops(annotations, DESCRIPTION, count=10)) == 2
    assert len(load_crops(tmp_path / "images", DESCRIPTION, count=10)) == 1
    assert "skipped gone.png: image not found" in caplog.text
    assert caplog.text.count("cut.png: damaged") == 2


def test_padding_is_that_of_the_network(coco):
    padded = load_crops(coco("people.json", "images"), {**DESCRIPTION, "padding": 2.0}, count=1)
    assert (padded[0, :, 0, 0] == normalized(0, 0, 0)).all()  # black outside the picture


def test_images_of_a_folder_are_whole_crops(tmp_path):
    for number, gray in enumerate((30, 90, 200)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(30, 40, (gray, gray, gray)))
    (tmp_path / "notes.txt").write_text("not an image")
    crops = load_crops(tmp_path, DESCRIPTION, count=2)
    np.testing.assert_allclose(
        constant(crops), [normalized(30, 30, 30), normalized(200, 200, 200)], atol=1e-4
    )


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_arrays_are_in_the_networks_color_order(tmp_path, color):
    bgr = np.stack([picture(12, 16)] * 2)
    array = bgr if color == "bgr" else np.ascontiguousarray(bgr[..., ::-1])
    description = {**DESCRIPTION, "input": {**DESCRIPTION["input"], "color": color}}
    np.savez(tmp_path / "crops.npz", crops=array)
    for source in (array, tmp_path / "crops.npz"):
        np.testing.assert_allclose(
            constant(load_crops(source, description, count=5)), [normalized(*GRAY)] * 2
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"a": np.zeros((1, 4, 4, 3), np.uint8), "b": np.zeros(1)},
            r"must hold one array, got \['a', 'b'\]",
        ),
        ({"a": np.zeros((1, 4, 4, 3), np.float32)}, r"must be \(N, H, W, 3\) uint8.*float32"),
        ({"a": np.zeros((0, 4, 4, 3), np.uint8)}, r"N >= 1, got \(0, 4, 4, 3\)"),
        ({"a": np.zeros((4, 4, 3), np.uint8)}, r"got \(4, 4, 3\)"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, message):
    np.savez(tmp_path / "crops.npz", **content)
    with pytest.raises(ValueError, match=message):
        load_crops(tmp_path / "crops.npz", DESCRIPTION, count=5)


def test_missing_sources_are_named(tmp_path, coco):
    with pytest.raises(FileNotFoundError, match=r"crops not found: .*nowhere"):
        load_crops(tmp_path / "nowhere", DESCRIPTION, count=5)
    with pytest.raises(
        ValueError, match=r"must be a folder with annotations.json or images, got .*: images not found"
    ):
        load_crops(tmp_path, DESCRIPTION, count=5)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match=r"COCO .json or an .npz, got '.*x.txt'"):
        load_crops(tmp_path / "x.txt", DESCRIPTION, count=5)
    people = coco("people.json", "images")
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"crops must have pictures that can be read, got .*people.json"):
        load_crops(people, DESCRIPTION, count=5)


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(1, 5, 1), (2, 5, 1), (3, 5, 2), (40, 8, 8), (9, 4, 4)]
)
def test_split_divides_all_samples(total, count, expected):
    compared, calibrated = split(np.arange(total), count)
    assert len(compared) == expected
    assert sorted([*compared, *calibrated]) == list(range(total))
    assert compared[0] == 0
    assert expected == 1 or compared[-1] == total - 1  # spread evenly
