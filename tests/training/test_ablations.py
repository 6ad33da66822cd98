"""Variants of KS-net: their trainings, their evaluation with one pose network, and their tables."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from oaks import COCO17
from oaks.files import write_json
from oaks.training import ablations, run
from oaks.training.checkpoint import save_network
from oaks.training.data.sources import DataFolders
from oaks.training.networks import build
from oaks.training.recipe import KSRecipe
from oaks.training.run_folder import RunFolder
from oaks.val.report.ranking import EIGHT, eight_figures
from tests.val import synthetic

POSE = {
    "name": "oa_hpe", "backbone": "resnet18", "width": 0.125, "head": "fpn", "head_channels": 16,
    "head_layers": 1, "visibility_channels": 8, "visibility_hidden": 16, "keypoints": 17, "input": [96, 128],
}  # fmt: skip
KS = {"name": "ks_net", "backbone": "conv2", "width": 0.125, "hidden": 8, "keypoints": 17}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """People on pictures of noise, a pose network and two KS-nets, all untrained."""
    folder = tmp_path_factory.mktemp("ablations")
    content = synthetic.annotations(3, images=6, reduced=True)
    (folder / "images").mkdir()
    for image in content["images"]:
        noise = np.random.default_rng(image["id"]).integers(0, 255, (384, 512, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / image["file_name"]), noise)
    write_json(folder / "people.json", content)
    torch.manual_seed(0)
    seen = {"size": [96, 128], "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4], "color": "bgr"}
    description = {
        "kind": "pose", "architecture": POSE, "skeleton": COCO17.to_dict(), "input": seen, "stride": 4,
        "alignment": "half_pixel", "refine": "second_peak", "padding": 1.25, "recipe": {"title": "t"},
    }  # fmt: skip
    save_network(folder / "pose.safetensors", build(POSE), description)
    for name in ("a", "b"):
        save_network(folder / f"{name}.safetensors", build(KS), {"kind": "ks", "architecture": KS})
    return folder


@pytest.fixture(scope="module")
def measured(folder):
    networks = {name: folder / f"{name}.safetensors" for name in ("a", "b")}
    return ablations.measure(
        folder / "pose.safetensors", networks, folder / "people.json", folder / "images", batch=5
    )


def recipe():
    people = {"kind": "coco", "name": "people", "annotations": "people.json", "images": "images"}
    return KSRecipe.model_validate({
        "kind": "ks", "title": "t", "network": {key: value for key, value in KS.items() if key != "keypoints"},
        "pose": ["pose.safetensors"], "data": {"train": [people]},
        "training": {"epochs": 1, "schedule": {"kind": "cosine"}},
    })  # fmt: skip


def test_poses_are_the_same_and_predicted_similarities_differ(measured):
    a, b = measured["a"], measured["b"]
    assert a.detections.count == a.truth.counted.sum()
    assert np.array_equal(np.sort(a.detections.own), np.flatnonzero(a.truth.counted))
    assert np.array_equal(a.detections.keypoints, b.detections.keypoints)
    assert np.array_equal(a.scores["oracle"].values, b.scores["oracle"].values)
    assert np.abs(a.detections.similarity - b.detections.similarity).max() > 1e-3
    assert {"conventional", "oaks", "heat_true_visibility", "oaks_true_visibility", "oracle"} <= set(a.scores)


def test_poses_are_in_pixels_of_the_original_images(measured):
    """The pictures are reduced to a width of 512; in the ground truth's pixels a pose is near its person's box."""
    found = measured["a"]
    x, y, w, h = found.truth.boxes[found.detections.own].T
    center = found.detections.keypoints.mean(axis=1)
    assert np.all(np.abs(center[:, 0] - x - w / 2) < 1.3 * np.maximum(w, h))
    assert np.all(np.abs(center[:, 1] - y - h / 2) < 1.3 * np.maximum(w, h))


def test_networks_of_another_kind_are_refused(folder):
    pose, ks = folder / "pose.safetensors", folder / "a.safetensors"
    with pytest.raises(ValueError, match=r"a\.safetensors must be a network of kind 'pose'"):
        ablations.measure(ks, {}, folder / "people.json", folder / "images")
    with pytest.raises(ValueError, match=r"pose\.safetensors must be a network of kind 'ks'"):
        ablations.measure(pose, {"x": pose}, folder / "people.json", folder / "images")


def test_every_backbone_of_the_paper_has_a_valid_recipe():
    variants = ablations.backbone_variants(recipe())
    assert list(variants) == ["conv2", "alexnet", "vgg19", "googlenet", "resnet18", "resnet50"]
    for name, variant in variants.items():
        again = KSRecipe.model_validate(variant.model_dump(mode="json"))
        assert again.network["backbone"] == name
        assert again.network["width"] == 0.125
    with pytest.raises(ValueError, match="alexnet"):
        ablations.backbone_variants(recipe(), ["transformer"])


def test_repeated_trainings_differ_only_in_their_seeds():
    variants = ablations.seed_variants(recipe(), 3)
    assert [variant.training.seed for variant in variants.values()] == [0, 1, 2]
    same = {
        variant.model_copy(update={"training": recipe().training}).model_dump_json()
        for variant in variants.values()
    }
    assert same == {recipe().model_dump_json()}
    with pytest.raises(ValueError, match="trainings must be an integer of at least 1, got 0"):
        ablations.seed_variants(recipe(), 0)


def test_complete_variants_stay_started_ones_resume_and_a_stop_ends_the_call(tmp_path, monkeypatch):
    calls = []

    def finish(path, step):
        folder = RunFolder(path)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.settings.write_text("{}")
        folder.network.write_bytes(b"")
        folder.card.write_text(json.dumps({"step": step, "steps": 10}))
        return folder.network if step == 10 else None

    def train(recipe, path, place, machine):
        calls.append(("train", path.name, recipe.store))
        return finish(path, 10)

    def resume(path, machine, *, data, packed):
        calls.append(("resume", path.name, data, packed))
        return finish(path, 10)

    monkeypatch.setattr(run, "train", train)
    monkeypatch.setattr(run, "resume", resume)
    finish(tmp_path / "training-0", 10)
    finish(tmp_path / "training-1", 4)
    networks = ablations.train_variants(
        ablations.seed_variants(recipe(), 3), tmp_path, DataFolders(tmp_path / "data")
    )
    assert calls == [
        ("resume", "training-1", tmp_path / "data", None),
        ("train", "training-2", tmp_path / "heatmaps"),
    ]
    assert networks == {f"training-{n}": tmp_path / f"training-{n}" / "network.safetensors" for n in range(3)}

    def stop(recipe, path, place, machine):
        finish(path, 3)

    monkeypatch.setattr(run, "train", stop)
    assert ablations.train_variants(ablations.seed_variants(recipe(), 5), tmp_path, DataFolders()) is None
    assert not (tmp_path / "training-4").exists()


def test_the_tables(measured):
    by_backbone = {"conv2": measured["a"], "resnet18": measured["b"]}
    table = ablations.backbones_section(by_backbone, beside_paper=True).items[0]
    assert [row[:2] for row in table.rows] == [
        ("2 conv", "here"), ("2 conv", "paper"), ("ResNet-18", "here"), ("ResNet-18", "paper"),
    ]  # fmt: skip
    assert table.rows[3][2:5] == (0.751, 0.925, 0.819)
    assert len(ablations.backbones_section(by_backbone).items[0].rows) == 2

    test, means, each = ablations.trainings_section(measured, beside_paper=True).items
    assert [row[0] for row in test.rows] == list(EIGHT)
    ap = {name: eight_figures(found, "oaks_true_visibility")["AP"] for name, found in measured.items()}
    assert test.rows[0][3] == pytest.approx(np.mean(list(ap.values())))
    assert test.rows[0][2] == 0
    assert [row[1] for row in means.rows] == ["here", "paper"] * 3
    assert means.rows[3][2] == 0.751
    assert [row[0] for row in each.rows] == list(measured)
    assert [row[1] for row in each.rows] == list(ap.values())
