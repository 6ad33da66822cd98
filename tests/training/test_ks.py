"""KS-net's data and training: similarities of the decoded points, and people that the pose network has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from oaks import ops
from oaks.errors import ArgumentError
from oaks.skeleton import COCO17
from oaks.training import ks_data
from oaks.training import run as run_module
from oaks.training.checkpoint import load_network, save_network
from oaks.training.data.packing import pack
from oaks.training.data.people import fold_of
from oaks.training.data.sampling import Draw
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.ks import KSTraining, load_pose_networks, store_key
from oaks.training.ks_data import HeatmapStore, OnlineCrops, PoseNetworks, StoredHeatmaps, true_similarity
from oaks.training.networks import build
from oaks.training.recipe import Augmentation, parse_recipe
from oaks.training.run import Hardware, resume
from oaks.training.validation import CropDataset, CropSettings, ordered_loader
from tests.training import conftest
from tests.training.conftest import (
    CPU,
    ONE_STEP,
    TINY,
    card_of,
    checkpoint_step,
    ks_recipe,
    losses,
    pose_recipe,
    quiet,
    save,
    source,
)

ARCHITECTURE = {**TINY, "input": [48, 64], "keypoints": 17}
VIEW = CropSettings((48, 64), 1.25, (0, 0, 0), (255, 255, 255), "half_pixel", "second_peak", COCO17)


def pose_network(path: Path, seed: int = 0, folds: dict | None = None, train: dict | None = None) -> Path:
    """Write a pose network with random weights, whose heatmaps differ from pixel to pixel."""
    torch.manual_seed(seed)
    network = build(ARCHITECTURE)
    torch.nn.init.normal_(network.head.final_layer.weight)
    recipe = pose_recipe(data={"train": [train or source()], "folds": folds})
    save_network(path, network, {
        "kind": "pose", "architecture": ARCHITECTURE, "skeleton": COCO17.to_dict(), "stride": 4,
        "input": {"size": [48, 64], "mean": [0, 0, 0], "std": [255, 255, 255], "color": "bgr"},
        "alignment": "half_pixel", "refine": "second_peak", "padding": 1.25, "trained_on": ["people"], "recipe": recipe,
    })  # fmt: skip
    return path


@pytest.fixture
def networks(tmp_path: Path) -> PoseNetworks:
    return PoseNetworks([load_network(pose_network(tmp_path / "pose.safetensors"))[0]], VIEW)


def start(run: Path, folder: Path, pose: list[Path], machine: Hardware = CPU, **fields: object):
    return conftest.start(run, folder, ks_recipe([str(path) for path in pose], **fields), machine)


def stored(folder: Path, people, networks: PoseNetworks, **arguments: object) -> HeatmapStore:
    """Write the heatmaps of all people to a store, or the missing ones."""
    store = HeatmapStore(folder, arguments.pop("key", {}), (12, 17, 16, 12))
    arguments = {
        "device": torch.device("cpu"),
        "batch": 5,
        "workers": 0,
        "advance": lambda _: None,
        **arguments,
    }
    store.write(CropDataset([people], VIEW), ["people"], networks, **arguments)
    return store


def flip_averaged(
    network: torch.nn.Module, image: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the flip-averaged heatmaps of one box, and the crop's transform, as the paper defines them."""
    crop = ops.crop(image, box[None], size=(48, 64), mean=VIEW.mean, std=VIEW.std, mirrored=True)
    with torch.no_grad():
        maps = network(torch.from_numpy(crop.pixels))[0].numpy()
    return (maps[0] + maps[1][COCO17.mirror][:, :, ::-1]) / 2, crop.transforms[0]


def independent(network: torch.nn.Module, people, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the flip-averaged heatmaps and true KS of one person, as the paper defines them."""
    image, person = people.sample(index)
    averaged, transform = flip_averaged(network, image, person.box)
    similarity = np.zeros(17)
    for k in np.flatnonzero(person.keypoints[:, 2]):
        order = np.argsort(-averaged[k].ravel(), kind="stable")
        peak, second = (np.array([o % 12, o // 12], float) for o in order[:2])
        point = peak + 0.25 * (second - peak) / np.linalg.norm(second - peak)
        point = 4 * (point + 0.5) - 0.5
        point = transform[:, :2] @ point + transform[:, 2]
        distance = ((point - person.keypoints[k, :2]) ** 2).sum()
        similarity[k] = np.exp(-distance / (2 * person.area * (2 * COCO17.sigmas[k]) ** 2))
    return averaged, similarity


def test_stored_heatmaps_and_similarities_follow_the_paper(tmp_path: Path, people, networks) -> None:
    done: list[int] = []
    store = stored(tmp_path / "store", people, networks, advance=done.append)
    assert sum(done) == 12
    assert not store.missing()
    similarity, annotated, readable = store.labels()
    assert readable.all()
    np.testing.assert_array_equal(annotated, people.keypoints[..., 2] > 0)
    for index in range(12):
        maps, ks = independent(networks.networks[0], people, index)
        np.testing.assert_allclose(store.heatmaps(index), maps, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(similarity[index], ks, rtol=1e-3, atol=1e-5)
    assert similarity[annotated].std() > 0.05  # the comparison is informative


def test_a_stopped_store_is_resumed(tmp_path: Path, people, networks, monkeypatch) -> None:
    monkeypatch.setattr(ks_data, "PART", 5)
    done: list[int] = []

    def stop_in_second_part(count: int) -> None:
        done.append(count)
        if len(done) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "a", people, networks, key={"networks": ["a"]}, advance=stop_in_second_part)
    assert HeatmapStore(tmp_path / "a", {"networks": ["a"]}, (12, 17, 16, 12)).missing() == [1, 2]
    first = (tmp_path / "a" / "part-00000.heatmaps.npy").stat().st_mtime_ns
    again = stored(tmp_path / "a", people, networks, key={"networks": ["a"]})
    assert (tmp_path / "a" / "part-00000.heatmaps.npy").stat().st_mtime_ns == first
    whole = stored(tmp_path / "b", people, networks)
    for place in range(12):
        np.testing.assert_array_equal(again.heatmaps(place), whole.heatmaps(place))
    np.testing.assert_array_equal(again.labels()[0], whole.labels()[0])
    with pytest.raises(
        ValueError, match="must hold heatmaps of these people, labels, networks and augmentation"
    ):
        stored(tmp_path / "a", people, networks, key={"networks": ["b"]})


def test_the_key_of_stored_heatmaps_covers_all_they_depend_on(tmp_path: Path, people_folder: Path) -> None:
    """Labels, boxes and areas of the people, packing, and the augmentation of the views."""
    pose = [str(pose_network(tmp_path / "pose.safetensors"))]
    content = json.loads((people_folder / "annotations.json").read_text())
    place = DataFolders(people_folder.parent)

    def key(place: DataFolders = place, **fields: object) -> str:
        recipe = parse_recipe(ks_recipe(pose, **fields), "test")
        return json.dumps(store_key(recipe, open_data(recipe.data, COCO17, place).train))

    first = key()
    assert key(training={"epochs": 9}) == first
    keys = [first, key(views=2), key(views=2, augmentation={"color": 0.5})]
    for change in (
        {"bbox": [1, 2, 30, 40]},
        {"area": 77.0},
        {"keypoints": [9, 9, 2] * 17, "num_keypoints": 17},
    ):
        changed = json.loads(json.dumps(content))
        changed["annotations"][3] |= change
        save(people_folder, changed)
        keys.append(key())
    save(people_folder, content)
    assert key() == first
    pack(parse_recipe(pose_recipe(), "test"), tmp_path / "packed", place, console=quiet())
    keys.append(key(place._replace(packed=tmp_path / "packed")))
    for switches in ({}, {"photograph": False}):
        settings = {"size": [96, 96], **switches}
        keys.append(
            key(data={"train": [{"kind": "rendered", "name": "drawn", "count": 3, "settings": settings}]})
        )
    assert len(set(keys)) == len(keys)


def test_people_in_damaged_images_are_skipped_in_a_store_and_counted(
    tmp_path: Path, people_folder: Path, caplog
) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")  # of people 3 and 4: places 2 and 3
    pose = pose_network(tmp_path / "pose.safetensors")
    run, console = tmp_path / "run", quiet()
    conftest.start(run, people_folder, ks_recipe([str(pose)], views=2), console=console)
    card = card_of(run)
    assert card["data"][-1] == "heatmaps: 4 of 24 left out, of damaged images"
    # Each of the 24 views is drawn twice. At place 2 two are skipped, at place 3 one, in both turns of views.
    assert card["damaged images skipped"] == 2 * 2 * (2 + 1)
    assert "heatmaps: 4 of 24 left out" in console.file.getvalue()
    assert "skipped damaged images in training: 12 times; the log names them" in caplog.text
    store = HeatmapStore(run / "heatmaps", json.loads((run / "heatmaps" / "index.json").read_text())["key"],
                         (24, 17, 16, 12))  # fmt: skip
    samples = StoredHeatmaps(store, [0, 24], COCO17, flip=0, seed=0)
    for index, taken in ((1, 1), (2, 4), (3, 4), (4, 4), (15, 16)):
        sample = samples[Draw(0, index, 0)]
        np.testing.assert_array_equal(sample["heatmaps"], store.heatmaps(taken))
        assert sample["damaged"] == taken - index
        assert sample["annotated"].any()


def test_a_store_without_readable_images_is_refused(
    tmp_path: Path, people_folder: Path, people, networks
) -> None:
    for path in (people_folder / "images").iterdir():
        path.write_bytes(b"no picture")
    store = stored(tmp_path / "store", people, networks)
    with pytest.raises(ValueError, match="store must have views of source 0 that could be read, got none"):
        StoredHeatmaps(store, [0, 12], COCO17, flip=0, seed=0)


def test_a_disk_that_is_too_small_is_reported_beforehand(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have space for .* heatmaps: live"):
        HeatmapStore(tmp_path / "store", {}, (10**12, 17, 96, 72))


def test_mirrored_samples_are_those_of_the_mirrored_person(tmp_path: Path, people, networks) -> None:
    """The flip-averaged heatmaps of the mirrored picture are the mirrored heatmaps."""
    store = stored(tmp_path / "store", people, networks)
    plain, mirrored = (
        StoredHeatmaps(store, [0, 12], COCO17, flip=flip, seed=0)[Draw(0, 4, 0)] for flip in (0, 1)
    )
    image, person = people.sample(4)
    width = image.shape[1]
    box = np.array([width - person.box[2], person.box[1], width - person.box[0], person.box[3]])
    averaged, _ = flip_averaged(networks.networks[0], np.ascontiguousarray(image[:, ::-1]), box)
    np.testing.assert_allclose(mirrored["heatmaps"], averaged, rtol=5e-3, atol=5e-3)
    np.testing.assert_array_equal(mirrored["similarity"], plain["similarity"][COCO17.mirror])
    np.testing.assert_array_equal(mirrored["annotated"], plain["annotated"][COCO17.mirror])


def test_in_cross_fitting_each_person_gets_the_network_trained_without_them(tmp_path: Path, people) -> None:
    both = [load_network(pose_network(tmp_path / f"{seed}.safetensors", seed))[0] for seed in (0, 1)]
    networks = PoseNetworks(both, VIEW)
    (batch,) = ordered_loader(CropDataset([people], VIEW), batch=12, workers=0)
    found = networks.estimate(["people"], batch)
    folds = fold_of("people", people.image_ids, 2)
    assert set(folds) == {0, 1}
    for index in range(12):
        maps, ks = independent(both[folds[index]], people, index)
        np.testing.assert_allclose(found.heatmaps[index], maps, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(true_similarity(batch, found, COCO17)[0][index], ks, rtol=1e-3, atol=1e-5)


def load(paths: list[Path], folds: dict | None, train: dict | None = None, **fields: object) -> None:
    """Load the pose networks of a recipe with these folds."""
    data = {"train": [train or source()], "folds": folds}
    load_pose_networks(parse_recipe(ks_recipe([str(path) for path in paths], data=data, **fields), "test"))


def test_cross_fitting_refuses_networks_trained_on_their_fold(tmp_path: Path) -> None:
    good = [pose_network(tmp_path / f"{f}.safetensors", folds={"count": 2, "held_out": f}) for f in (0, 1)]
    folds = {"count": 2, "held_out": None}
    load(good, folds)
    with pytest.raises(
        ValueError, match=r"1\.safetensors must be trained without fold 0 of 2 of \['people'\]"
    ):
        load(good[::-1], folds)
    with pytest.raises(ValueError, match="got data.folds None"):
        load([good[0], pose_network(tmp_path / "all.safetensors")], folds)


@pytest.mark.parametrize(
    ("folds", "calibrate", "refused"),
    [
        ({"count": 6, "held_out": 1, "trained": [3, 5]}, False, None),
        ({"count": 2, "held_out": 0}, False, None),  # as in the paper
        ({"count": 2, "held_out": 1}, True, None),
        ({"count": 6, "held_out": 1, "trained": [3, 4]}, False, "1, 3, 4 of 6"),
        ({"count": 5, "held_out": 1, "trained": [3]}, False, "1, 3 of 5"),
        ({"count": 2, "held_out": 0}, True, "0 of 2"),
        ({"count": 2, "held_out": 0, "trained": [1]}, False, "0, 1 of 2"),
    ],
)
def test_networks_trained_on_people_that_must_be_new_to_them_are_refused(
    tmp_path: Path, folds: dict, calibrate: bool, refused: str | None
) -> None:
    path = pose_network(tmp_path / "pose.safetensors", folds={"count": 2, "held_out": 1})
    if refused is None:
        load([path], folds, calibrate=calibrate)
        return
    with pytest.raises(ValueError, match=rf"must be trained without fold {refused} of \['people'\]"):
        load([path], folds, calibrate=calibrate)


def test_the_same_rendered_people_must_have_the_same_name(tmp_path: Path) -> None:
    folds, rendered = (
        {"count": 2, "held_out": 1},
        {"kind": "rendered", "name": "people", "count": 9, "seed": 3},
    )
    path = pose_network(tmp_path / "rendered.safetensors", folds=folds, train=rendered)
    with pytest.raises(ValueError, match="name must be 'people', as .* calls the same people, got 'others'"):
        load([path], folds, {**rendered, "name": "others"})


def test_live_heatmaps_are_mirrored_too(tmp_path: Path, people_folder: Path, networks: PoseNetworks) -> None:
    """As stored ones, with the recipe's probability."""
    steps = {}
    for flip in (0, 1):
        fields = {"heatmaps": "live", "augmentation": {"flip": flip}}
        recipe = parse_recipe(ks_recipe([str(tmp_path / "pose.safetensors")], **fields), "test")
        split = open_data(recipe.data, COCO17, DataFolders(people_folder.parent))
        module = KSTraining(recipe, networks, split, 1, 1)
        samples = OnlineCrops(split.train, VIEW, recipe.augmentation, seed=0)
        steps[flip] = module._with_heatmaps(default_collate([samples[Draw(0, n, n)] for n in range(3)]))
    for name, value in steps[0].items():
        expected = value[:, COCO17.mirror]
        torch.testing.assert_close(steps[1][name], expected.flip(-1) if name == "heatmaps" else expected)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ks.safetensors"
    architecture = {"name": "ks_net", "backbone": "conv2", "width": 0.125, "hidden": 8}
    save_network(path, build(architecture), {"kind": "ks", "architecture": architecture})
    with pytest.raises(ValueError, match="must be a network of kind 'pose', got 'ks'"):
        load_pose_networks(parse_recipe(ks_recipe([str(path)]), "test"))


def without_deadline(fill_store):
    return lambda *arguments: fill_store(*arguments[:-1], None)


@pytest.mark.parametrize("mode", ["stored", "live"])
def test_a_ks_net_trains_and_resumes_exactly(
    tmp_path: Path, people_folder: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pose = pose_network(tmp_path / "pose.safetensors", folds={"count": 3, "held_out": 1})
    fields = {
        "data": {"train": [source()], "folds": {"count": 3, "held_out": 1}}, "heatmaps": mode,
        "augmentation": {"flip": 0.5, "scale": [0.9, 1.1], "color": 0.5}, "views": 2 if mode == "stored" else 1,
    }  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert start(whole, people_folder, [pose], **fields) == whole / "network.safetensors"
    assert start(stopped, people_folder, [pose], ONE_STEP, **fields) is None
    if mode == "stored":  # stopped before the first heatmaps, then after the first step
        assert not list((stopped / "heatmaps").glob("part-*"))
        with monkeypatch.context() as patched:
            patched.setattr(run_module, "_fill_store", without_deadline(run_module._fill_store))
            assert resume(stopped, ONE_STEP, console=quiet()) is None
    assert checkpoint_step(stopped) == 1
    resume(stopped, CPU, console=quiet())
    assert losses(stopped) == losses(whole)
    assert len(losses(whole)) > 3
    assert {"KS error", "KS Pearson", "OAKS AP", "oracle AP"} <= set(card_of(whole)["metrics"])
    network, description = load_network(whole / "network.safetensors")
    assert (description["kind"], description["architecture"]["keypoints"]) == ("ks", 17)
    assert network(torch.zeros(2, 17, 16, 12)).shape == (2, 17)
    assert (whole / "heatmaps").exists() == (mode == "stored")


def test_a_ks_net_is_calibrated_on_the_held_out_people(tmp_path: Path, people_folder: Path) -> None:
    pose = pose_network(tmp_path / "pose.safetensors", folds={"count": 3, "held_out": 1})
    data = {"train": [source()], "folds": {"count": 3, "held_out": 1}}
    cards = {}
    for calibrate in (True, False):
        run = tmp_path / f"run-{calibrate}"
        start(run, people_folder, [pose], data=data, calibrate=calibrate)
        _, description = load_network(run / "network.safetensors")
        assert set(description["calibration"]) == ({"visibility", "similarity"} if calibrate else set())
        cards[calibrate] = card_of(run)["metrics"]
        assert cards[calibrate] == description["metrics"]
    # The calibration is that of the validation after the last step, not of the last one within the training.
    run = tmp_path / "seldom"
    start(run, people_folder, [pose], data=data, training={"validate_every": 1.5}, calibrate=True)
    _, often = load_network(tmp_path / "run-True" / "network.safetensors")
    assert load_network(run / "network.safetensors")[1]["calibration"] == often["calibration"]
    assert cards[True]["OKS"] == cards[False]["OKS"]
    assert cards[True]["KS error"] != cards[False]["KS error"]


def test_a_ks_net_learns_from_heatmaps(tmp_path: Path) -> None:
    """With maps whose height is the similarity, the error after sixty steps is well below that of a constant."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "store"
    store = HeatmapStore(folder, {}, (200, 17, 16, 12))
    similarity = rng.random((200, 17)).astype(np.float32)
    maps = np.zeros((200, 17, 16, 12), np.float16)
    maps[:, :, 6:10, 4:8] = similarity[..., None, None]
    store._write_part(0, maps, similarity, np.ones((200, 17), bool), np.ones(200, bool))
    torch.manual_seed(0)
    network = build({"name": "ks_net", "backbone": "conv2", "width": 0.25, "hidden": 64})
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    samples = StoredHeatmaps(store, [0, 200], COCO17, flip=0.5, seed=0)
    batch = default_collate([samples[Draw(0, n, n)] for n in range(200)])
    assert batch["heatmaps"].dtype == torch.float16
    for _ in range(60):
        optimizer.zero_grad()
        error = (torch.sigmoid(network(batch["heatmaps"].float())) - batch["similarity"]).abs().mean()
        error.backward()
        optimizer.step()
    assert error.item() < 0.15 < np.abs(similarity - np.median(similarity)).mean()


def test_all_views_but_the_first_are_augmented(people) -> None:
    crops = CropDataset([people], VIEW, views=3, settings=Augmentation(scale=(0.8, 1.2), shift=0.1))
    assert len(crops) == 36
    assert crops.begins.tolist() == [0, 36]
    plain, again = CropDataset([people], VIEW), [crops[place] for place in (4, 16, 28)]
    np.testing.assert_array_equal(again[0]["crop"], plain[4]["crop"])
    assert [item["person_id"] for item in again] == [5, 5, 5]
    assert (again[1]["crop"] != again[0]["crop"]).any()
    assert (again[2]["crop"] != again[1]["crop"]).any()


def test_heatmaps_of_another_runtime_can_be_stored(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("oaks.training.ks_data.PART", 4)
    rng = np.random.default_rng(0)
    maps = rng.random((10, 17, 4, 3)).astype(np.float16)
    similarity, annotated = rng.random((10, 17)).astype(np.float32), rng.random((10, 17)) < 0.5
    store = HeatmapStore(tmp_path / "store", {"key": 1}, maps.shape)
    with pytest.raises(
        ArgumentError, match=r"heatmaps must have shape \(10, 17, 4, 3\), got \(9, 17, 4, 3\)"
    ):
        store.put(maps[:9], similarity[:9], annotated[:9])
    assert store.missing() == [0, 1, 2]
    store.put(maps, similarity, annotated)
    again = HeatmapStore(tmp_path / "store", {"key": 1}, maps.shape)
    assert not again.missing()
    assert all(np.array_equal(again.heatmaps(place), maps[place]) for place in range(10))
    kept = again.labels()
    assert np.array_equal(kept[0], similarity)
    assert np.array_equal(kept[1], annotated)
    assert kept[2].all()
