"""Targets, loss and windows of the person detector, compared with results computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from oaks.detector_formats import decode_centers  # noqa: E402
from oaks.skipping import SkippedItems  # noqa: E402
from oaks.training.data.detection import ImageBoxes, read_detection, targets, window  # noqa: E402
from oaks.training.data.people import DamagedImage  # noqa: E402
from oaks.training.losses import detection_loss  # noqa: E402
from oaks.training.networks import build  # noqa: E402
from oaks.training.recipe import DetectionAugmentation, read_recipe  # noqa: E402

SIZE, STRIDE = (64, 96), 8


def _targets(boxes, ignored=(), weight=1.0):
    return targets(
        np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(ignored, np.float32).reshape(-1, 4),
        np.full((12, 8), weight, np.float32), SIZE, STRIDE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("boxes", "cells"),
    [
        ([[0, 0, 16, 24], [30, 40, 64, 96]], [[1, 1], [8, 5]]),  # centers (8, 12) and (47, 68), divided by 8
        ([[63, 95, 65, 97]], [[11, 7]]),  # a center on the far edge belongs to the last cell
    ],
)
def test_each_person_has_one_peak_in_the_cell_of_the_center_and_shares_that_sum_to_one(boxes, cells):
    made = _targets(boxes)
    assert np.argwhere(made.heat >= 1).tolist() == cells
    assert made.share.sum() == pytest.approx(len(boxes))
    assert made.boxes[:, cells[-1][0], cells[-1][1]].tolist() == boxes[-1]


def test_cells_of_two_people_belong_to_the_smaller_one():
    made = _targets([[24, 32, 40, 48], [0, 0, 64, 80]])
    assert made.boxes[:, 5, 4].tolist() == [24, 32, 40, 48]


def test_without_people_only_regions_are_not_background():
    made = _targets([], ignored=[[8, 8, 24, 17]])
    assert made.heat.max() == made.share.max() == 0
    assert np.argwhere(made.weight == 0).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def _perfect_outputs(made):
    logits = torch.from_numpy(np.where(made.heat >= 1, 20.0, -20.0).astype(np.float32))[None, None]
    return logits, torch.from_numpy(made.boxes)[None]


def _loss(made, logits, boxes):
    heat, weight, target, share = (torch.from_numpy(value)[None] for value in made)
    return detection_loss(logits, boxes, heat, weight, target, share)


def test_perfect_outputs_have_no_loss_and_others_that_of_the_formula():
    made = _targets([[8, 8, 40, 56]])
    logits, boxes = _perfect_outputs(made)
    perfect = _loss(made, logits, boxes)
    assert perfect.center.item() == pytest.approx(0, abs=1e-6)
    assert perfect.box.item() == pytest.approx(0, abs=1e-6)
    far = _loss(made, logits, boxes + 1000)  # no overlap: 1 - GIoU = 2 - union / hull
    hull = 1032 * 1048
    assert far.box.item() == pytest.approx(2 - 2 * 32 * 48 / hull, rel=1e-4)
    flat = _loss(made, torch.zeros_like(logits), boxes)
    others = ((1 - made.heat) ** 4).sum()  # every cell predicts one half
    assert flat.center.item() == pytest.approx(0.25 * np.log(2) * (1 + others), rel=1e-4)


def test_regions_have_no_loss():
    made = _targets([], ignored=[[0, 0, 64, 96]])
    assert _loss(made, torch.full((1, 1, 12, 8), 5.0), torch.zeros(1, 4, 12, 8)).center.item() == 0


def test_decoded_targets_are_the_boxes():
    boxes = np.array([[0, 0, 16, 24], [30, 40, 64, 96]], np.float32)
    made = _targets(boxes)
    ys, xs = np.mgrid[:12, :8]
    middles = (np.stack([xs, ys]) + 0.5) * STRIDE
    sizes = made.boxes[2:] - made.boxes[:2]
    offsets = (made.boxes[:2] + made.boxes[2:]) / 2 - middles
    logits = np.where(made.heat >= 1, np.float32(3), np.float32(-9))[None]
    found, scores = decode_centers(logits, sizes, offsets, stride=STRIDE, threshold=0.5, overlap=0.5)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(boxes, axis=0), atol=1e-4)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-3)), rtol=1e-6)


def _box_covers_white_pixels(made):
    (y, x) = np.argwhere(made["heat"] >= 1)[0]
    x1, y1, x2, y2 = made["boxes"][:, y, x].round().astype(int)
    white = made["pixels"].min(axis=2) > 200
    inner = white[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].copy()
    white[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = False
    return inner.all() and not white.any()


@pytest.mark.parametrize("seed", range(6))
def test_boxes_move_with_the_picture(seed):
    image = np.zeros((120, 160, 3), np.uint8)
    image[40:80, 60:90] = 255
    people = ImageBoxes(np.float32([[60, 40, 90, 80]]), np.zeros((0, 4), np.float32), True)
    settings = DetectionAugmentation(scale=(0.7, 1.4), stretch=1.2, flip=0.5)
    made = window(
        image, people, np.random.default_rng(seed), settings, size=(128, 96), stride=8, background=0
    )
    if (made["heat"] >= 1).any():
        assert _box_covers_white_pixels(made)
    else:
        assert (made["pixels"].min(axis=2) > 200).sum() < 0.31 * (made["pixels"].min(axis=2) > 200).size


def test_the_background_of_incomplete_images_has_the_given_weight():
    image = np.zeros((96, 128, 3), np.uint8)
    people = ImageBoxes(np.float32([[16, 16, 48, 80]]), np.zeros((0, 4), np.float32), False)
    made = window(
        image, people, np.random.default_rng(0), DetectionAugmentation(), size=(128, 128), stride=8,
        background=0.25,
    )  # fmt: skip
    assert sorted(np.unique(made["weight"])) == [0.25, 1]
    assert (made["weight"][made["share"] > 0] == 1).all()


def test_files_are_read_with_crowds_and_people_without_keypoints(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 60, 3), np.uint8))
    image = {"id": 3, "file_name": "a.png", "width": 60, "height": 50, "annotations_complete": True,
             "crowd_boxes": [[0, 0, 5, 5]], "people_without_keypoints": [[1, 2, 3, 4]]}  # fmt: skip
    rows = [
        {"id": 1, "image_id": 3, "category_id": 1, "bbox": [50, 40, 20, 20], "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 1, "bbox": [5, 5, 9, 9], "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [5, 5, 9, 9], "iscrowd": 0},
        {"id": 4, "image_id": 3, "category_id": 1, "bbox": [5, 5, 0, 9], "iscrowd": 0},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    content = {"images": [image], "annotations": rows, "categories": categories}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    read = read_detection("a", path, tmp_path)
    assert read.people[0].boxes.tolist() == [[50, 40, 60, 50], [1, 2, 4, 6]]
    assert read.people[0].regions.tolist() == [[5, 5, 14, 14], [0, 0, 5, 5]]
    assert read.people[0].complete


def test_images_of_another_size_than_their_labels_are_damaged_and_missing_ones_are_named(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 60, 3), np.uint8))
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 50, "height": 60},
            {"id": 2, "file_name": "gone.png"},
        ],
        "annotations": [{"id": n, "image_id": n, "bbox": [1, 2, 3, 4]} for n in (1, 2)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    with SkippedItems() as skipped:
        read = read_detection("a", tmp_path / "a.json", tmp_path)
    assert list(skipped.items.values()) == ["1: gone.png"]
    with pytest.raises(DamagedImage, match=r"a\.png: its size must be that of its labels, 50×60, got 60×50"):
        read.subset(np.array([0])).sample(0)


def test_the_recipes_network_has_output_stride_4():
    recipe = read_recipe("person_detector")
    network = build(recipe.architecture()).eval()
    with torch.no_grad():
        centers, sizes, offsets = network(torch.zeros(2, 3, 64, 96))
    assert (centers.shape, sizes.shape, offsets.shape) == ((2, 1, 16, 24), (2, 2, 16, 24), (2, 2, 16, 24))
    assert (sizes > 0).all()
