"""Scorers on heatmaps: stored maps, the bundle, and the Engine that runs it."""

from __future__ import annotations

import copy
import errno
import json
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import bundles
import cv2
import numpy as np
import onnx
import pytest
import scipy.optimize
from typer.testing import CliRunner

import oaks
from oaks.boxes import iou
from oaks.cli.main import app
from oaks.errors import ArgumentError
from oaks.fit import Preset, boosting, fit_heatmaps, heatmap_store
from oaks.fit import heatmaps as fitting
from oaks.fit import ks_net as ks_fitting
from oaks.fit.card import examples_of
from oaks.fit.heatmap_store import stored_heatmaps
from oaks.fit.ks_net import KSNetSettings, fit_ks_net, predicted
from oaks.fit.scored_bundle import BOX_SCORE_POWER, FORESTS, write_bundle
from oaks.images import read_image
from oaks.inference import report_unscored
from oaks.scorer import load_forests, map_feature_names, uninformative
from oaks.skipping import SkippedItems
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import similarity_to_own

from .frozen import QUICK

pytest.importorskip("lightgbm")
pytest.importorskip("pycocotools")

PEOPLE, IMAGES = 4, 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures with colored spots, which the tests' pose network finds, and annotations beside some of them."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    (folder / "images").mkdir()
    pictures, people = [], []
    for image_id in range(1, IMAGES + 1):
        picture = rng.integers(0, 60, (180, 240, 3), np.uint8)
        for n in range(PEOPLE):
            x, y = 15 + 55 * n, int(rng.integers(20, 60))
            points = rng.uniform(8, [40, 80], (3, 2)).round()
            flags = np.where(rng.random(3) < 0.7, 2, 0)
            flags[rng.integers(3)] = 2
            for k, (px, py) in enumerate(points):
                color = np.zeros(3)
                color[2 - k] = 255 * (flags[k] > 0) * rng.uniform(0.4, 1)
                cv2.circle(picture, (int(x + px), int(y + py)), 4, color.tolist(), -1)
            noisy = points + np.array([x, y]) + rng.normal(0, 2, (3, 2))
            labels = np.concatenate([noisy * (flags > 0)[:, None], flags[:, None]], axis=1)
            people.append({"id": len(people) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0,
                           "keypoints": labels.ravel().tolist(), "num_keypoints": int((flags > 0).sum()),
                           "bbox": [x, y, 48, 96], "area": 0.53 * 48 * 96})  # fmt: skip
        cv2.imwrite(str(folder / "images" / f"{image_id}.png"), picture)
        pictures.append({"id": image_id, "width": 240, "height": 180, "file_name": f"{image_id}.png"})
    category = {"id": 1, "name": "person", "keypoints": list(bundles.RGB.keypoints)}
    content = {"images": pictures, "annotations": people, "categories": [category]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("frozen") / "net", visibility=False, ks=False)


@pytest.fixture(scope="module")
def truth(data):
    return GroundTruth.load(data / "annotations.json", skeleton=bundles.RGB)


@pytest.fixture(scope="module")
def fit(data, frozen):
    """`fit_heatmaps` for the frozen network on the people, with a quick fit."""
    return partial(
        fit_heatmaps,
        frozen,
        data / "annotations.json",
        data / "images",
        settings=QUICK,
        resamples=5,
        threads=1,
    )


@pytest.fixture(scope="module")
def fitted(fit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    return fit(store=folder / "maps", out=folder / "bundle")


def plain(bundle):
    """What `oaks.bundle.write` takes of a bundle's description, to be changed."""
    description = copy.deepcopy(dict(bundle.description))
    return {key: value for key, value in description.items() if key not in ("format", "files")}


def engines_features(bundle, data, truth):
    """Poses of the first picture's people by the Engine, and the features of the maps that it computed."""
    boxes = truth.file_boxes(np.arange(PEOPLE))
    with oaks.Engine(bundle, "onnxruntime", threads=1) as engine:
        assert engine.score_kind == "oaks"
        poses = engine.infer(data / "images" / "1.png", boxes=boxes)
        maps = engine._pipeline._maps["heatmaps"][: 2 * PEOPLE].copy()
    features = oaks.ops.map_features(
        maps[:PEOPLE], maps[PEOPLE:], points=poses.keypoints, boxes=boxes, frame_sizes=[[240, 180]] * PEOPLE,
        flip_pairs=(), alignment=bundle.pose.alignment,
    )  # fmt: skip
    return poses, features


def test_the_bundle_scores_in_the_engine_what_the_forests_say(fitted, data, truth):
    bundle = oaks.Bundle.load(fitted.path)
    assert (bundle.score, bundle.box_score_power) == ("oaks", BOX_SCORE_POWER)
    poses, features = engines_features(bundle, data, truth)
    for forest, told in zip(load_forests(bundle), (poses.similarity, poses.visibility), strict=True):
        np.testing.assert_array_equal(told, oaks.ops.forest(features, forest))
    expected = (poses.similarity * poses.visibility).sum(1) / poses.visibility.sum(1)
    np.testing.assert_allclose(poses.oaks_scores, expected, rtol=1e-5)
    assert np.ptp(poses.visibility) > 0.1


def halves(data, tmp_path):
    """The data set as two files: the first half of the pictures, and the second."""
    content = json.loads((data / "annotations.json").read_text())
    for name, chosen in (("one", range(1, IMAGES // 2 + 1)), ("other", range(IMAGES // 2 + 1, IMAGES + 1))):
        part = {**content,
                "images": [image for image in content["images"] if image["id"] in chosen],
                "annotations": [person for person in content["annotations"] if person["image_id"] in chosen]}  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    return tmp_path / "one.json", tmp_path / "other.json"


def test_trees_learn_from_people_that_the_network_was_trained_on_and_are_calibrated_on_the_others(
    data, frozen, tmp_path
):
    one, other = halves(data, tmp_path)
    fitted = fit_heatmaps(
        frozen, one, data / "images", store=tmp_path / "maps", augment=0, trained_annotations=other,
        trained_images=data / "images", settings=QUICK, resamples=2, threads=1,
    )  # fmt: skip
    people, features = fitting.described_people(frozen, [one], [data / "images"], tmp_path / "maps", 1)
    known, their_features = fitting.described_people(
        frozen, [other], [data / "images"], tmp_path / "maps" / "trained", 1
    )
    assert fitted.scorer.card.fitted_on["people"] == len(people.heat)
    assert fitted.scorer.card.fitted_on["people that the network was trained on"] == len(known.heat)
    examples = examples_of([(people, features), (known, their_features)])
    plain = boosting.fit_forests(examples, QUICK)
    fold = boosting.folds_of(examples.images, QUICK.folds, QUICK.seed)[: len(people.heat)]
    told = np.zeros(people.heat.shape)
    for rows, similarity, _ in boosting.out_of_fold(examples, QUICK):
        inside = rows < len(people.heat)
        told[rows[inside]] = similarity[inside]
    logits, labeled = np.log(told / (1 - told)), people.labeled
    scale, bias = platt(logits[labeled], people.similarity[labeled])
    grown = oaks.ops.forest(features, plain[0])
    np.testing.assert_allclose(
        oaks.ops.forest(features, fitted.scorer.similarity),
        1 / (1 + np.exp(-(scale * np.log(grown / (1 - grown)) + bias))),
        atol=2e-3,
    )
    for number in range(QUICK.folds):  # the figures of a fold are calibrated on the other folds
        others = labeled & (fold != number)[:, None]
        scale, bias = platt(logits[others], people.similarity[others])
        rows = fold == number
        np.testing.assert_allclose(
            fitted.measured.detections.similarity[rows],
            1 / (1 + np.exp(-(scale * logits[rows] + bias))),
            atol=2e-3,
        )


def platt(logits, targets):
    """Scale and bias of least cross entropy by SciPy, with the keypoint that favors no change."""
    return scipy.optimize.minimize(
        lambda at: (
            (np.logaddexp(0, at[0] * logits + at[1]) - targets * (at[0] * logits + at[1])).sum()
            + ((at - [1, 0]) ** 2).sum()
        ),
        [1.0, 0.0],
    ).x


def test_people_on_both_sides_and_other_misuse_of_trained_people_are_refused(data, frozen, tmp_path):
    one, other = halves(data, tmp_path)
    call = {"store": tmp_path / "maps", "settings": QUICK, "resamples": 2, "threads": 1}
    with pytest.raises(
        ArgumentError, match=rf"none of the people to fit to, got {PEOPLE * (IMAGES // 2)} of them"
    ):
        fit_heatmaps(
            frozen, data / "annotations.json", data / "images", augment=0, trained_annotations=one,
            trained_images=data / "images", **call,
        )  # fmt: skip
    with pytest.raises(
        ArgumentError, match="trained_images must be one folder for each of trained_annotations, got 0"
    ):
        fit_heatmaps(frozen, one, data / "images", trained_annotations=other, **call)
    with pytest.raises(
        ArgumentError, match="trained_annotations must come with scorer 'trees', got 'ks-net'"
    ):
        fit_heatmaps(
            frozen, one, data / "images", trained_annotations=other, trained_images=data / "images", scorer="ks-net",
            **call,
        )  # fmt: skip


def test_images_that_cannot_be_read_are_skipped_and_named_again_by_the_next_run(
    data, frozen, truth, tmp_path
):
    images = tmp_path / "images"
    shutil.copytree(data / "images", images)
    (images / "2.png").unlink()
    (images / "5.png").write_bytes((images / "5.png").read_bytes()[:2000])
    calls = [
        CliRunner().invoke(app, [
            "fit", str(frozen.path), "--annotations", str(data / "annotations.json"), "--images", str(images),
            "--store", str(tmp_path / "maps"), "--out", str(tmp_path / out), "--resamples", "2", "--threads", "1",
        ])
        for out in ("a", "b")
    ]  # fmt: skip
    for call in calls:
        assert call.exit_code == 1, call.output
        assert "skipped 2: 2.png, 5.png" in call.output
    shards = stored_heatmaps(frozen, truth, images, tmp_path / "maps" / "0")
    kept = np.concatenate([shard.people for shard in shards])
    skipped = [n for n in range(PEOPLE * IMAGES) if n // PEOPLE + 1 in (2, 5)]
    assert sorted({*range(PEOPLE * IMAGES)} - {*kept.tolist()}) == skipped


def test_a_person_whose_heatmaps_are_not_finite_is_skipped(fit, tmp_path, monkeypatch, caplog):
    run = heatmap_store._Runner._run

    def spoiled(self, pixels):
        maps = run(self, pixels)
        if len(pixels) == 2 * heatmap_store.PEOPLE_AT_ONCE:  # the first shard
            maps[2:4, 0, 0, 0] = np.nan, 1e6  # beyond float16
        return maps

    monkeypatch.setattr(heatmap_store._Runner, "_run", spoiled)
    fitted = fit(store=tmp_path / "maps")
    for annotation in (3, 4):
        assert f"skipped annotation {annotation} of 1.png: its heatmaps are not finite" in caplog.text
    assert fitted.measured.detections.count == PEOPLE * IMAGES - 2
    stored = json.loads((tmp_path / "maps" / "0" / "skipped.json").read_text())
    assert set(stored) == {"annotation 3 of 1.png", "annotation 4 of 1.png"}


def test_a_failing_disk_ends_the_run_which_resumes(data, frozen, truth, tmp_path, monkeypatch):
    def failing(path):
        if path.name == "20.png":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read_image(path)

    monkeypatch.setattr("oaks.val.detect.read_image", failing)
    call = (frozen, truth, data / "images", tmp_path / "maps", 1)
    with pytest.raises(OSError, match="Input/output error"):
        list(stored_heatmaps(*call))
    monkeypatch.undo()
    with SkippedItems() as skipped:
        people = np.concatenate([shard.people for shard in stored_heatmaps(*call)])
    assert people.tolist() == list(range(PEOPLE * IMAGES))
    assert not skipped.items


def test_images_of_the_same_name_in_two_data_sets_are_both_named(data, frozen, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        shutil.copytree(data / "images", folder)
        (folder / "2.png").unlink()
    call = (frozen, [data / "annotations.json"] * 2, folders, tmp_path / "maps", 1)
    for _ in range(2):  # the second call reads what is stored
        with SkippedItems() as skipped:
            fitting.described_people(*call)
        assert set(skipped.items) == {str(folder / "2.png") for folder in folders}


@pytest.fixture(scope="module")
def ks_fitted(data, frozen, tmp_path_factory):
    """A bundle with a KS network that gives visibility, trained for a moment; the averaged maps; the settings."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("ks")
    settings = KSNetSettings(network={"backbone": "conv2", "width": 0.125, "hidden": 8}, epochs=2, folds=2)
    people, maps = fitting.averaged_people(
        frozen, [data / "annotations.json"], [data / "images"], folder / "maps", threads=1
    )
    found = fit_ks_net(
        people, maps, fitting.heatmap_card(frozen), folder / "maps", settings=settings, resamples=5
    )
    path = write_bundle(frozen, found, folder / "bundle", "scored")
    return path, people, maps, found, settings


def test_a_ks_network_fitted_to_maps_scores_in_the_engine(ks_fitted, data, truth):
    path, people, maps, found, _ = ks_fitted
    bundle = oaks.Bundle.load(path)
    assert bundle.scorer.kind == "ks_net"
    boxes = truth.file_boxes(np.arange(PEOPLE))
    with oaks.Engine(bundle, "onnxruntime", threads=1) as engine:
        assert engine.score_kind == "oaks"
        poses = engine.infer(data / "images" / "1.png", boxes=boxes)
    from oaks.training.checkpoint import load_from_bundle

    module, _ = load_from_bundle(bundle.torch_network("ks"))
    told = predicted(module, maps[:PEOPLE])
    for name, ours, theirs in zip(
        ("similarity", "visibility"), (poses.similarity, poses.visibility), told, strict=True
    ):
        numbers = found.scorer.calibration[name]
        logits = np.log(theirs) - np.log1p(-theirs)
        expected = 1 / (1 + np.exp(-(numbers["scale"] * logits + numbers["bias"])))
        np.testing.assert_allclose(ours, expected, atol=2e-3)
        assert np.ptp(ours) > 1e-3
    assert len(people.known) == PEOPLE * IMAGES


def test_trainings_of_ks_networks_are_kept(ks_fitted, frozen, monkeypatch):
    path, people, maps, found, settings = ks_fitted
    monkeypatch.setattr(ks_fitting._Training, "train", lambda *_: pytest.fail("trained again"))
    keep = path.parent / "maps"
    again = fit_ks_net(people, maps, fitting.heatmap_card(frozen), keep, settings=settings, resamples=5)
    assert again.scorer == found.scorer
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        fit_ks_net(
            people, maps, fitting.heatmap_card(frozen), keep, settings=replace(settings, seed=1), resamples=5
        )


def test_an_onnx_file_is_imported_fitted_to_and_resumed(frozen, data, tmp_path):
    pose = frozen.pose
    preset = Preset(source="the tests", mean=pose.mean, std=pose.std, color=pose.color, alignment=pose.alignment,
                    refine=pose.refine, padding=pose.padding)  # fmt: skip
    call = {
        "model": frozen.path / "pose.fp32.onnx", "annotations": data / "annotations.json", "images": data / "images",
        "store": tmp_path / "maps", "name": "mine", "skeleton": bundles.RGB, "settings": QUICK, "resamples": 2,
        "threads": 1,
    }  # fmt: skip
    with pytest.raises(
        ValueError, match="preset must be one of simple-baselines, .* with an ONNX file, got None"
    ):
        fit_heatmaps(**call)
    assert not (tmp_path / "maps").exists()
    first = fit_heatmaps(**call, preset=preset, out=tmp_path / "bundle")
    assert oaks.Bundle.load(first.path).name == "mine"
    again = fit_heatmaps(**call, preset=preset)
    np.testing.assert_array_equal(first.scorer.similarity.leaves, again.scorer.similarity.leaves)
    with pytest.raises(
        ValueError, match=r"network must hold .*pose\.fp32\.onnx by preset 'hrnet', got another network"
    ):
        fit_heatmaps(**call, preset="hrnet")


@pytest.fixture
def shipped_other(tmp_path, monkeypatch):
    """A folder of shipped bundles with one of another network, `other`."""
    folder = tmp_path / "shipped"
    made = bundles.write(folder / "other", visibility=False, ks=False)
    graph = onnx.load(folder / "other" / "pose.fp32.onnx")
    for tensor in graph.graph.initializer:  # its maps are larger in places, and its poses differ
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4:
            values = (
                values
                + np.random.default_rng(6).normal(size=values.shape).astype(np.float32) * np.abs(values).max()
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(graph, folder / "other" / "pose.fp32.onnx")
    oaks.bundle.write(folder / "other", {**plain(made), "name": "other"})
    monkeypatch.setattr(oaks.bundle, "SHIPPED", folder)
    return folder


def test_a_second_opinion_is_a_feature_in_the_engine_too(fit, data, truth, shipped_other, tmp_path):
    fitted = fit(store=tmp_path / "maps", out=tmp_path / "bundle", second_opinion="other")
    bundle = oaks.Bundle.load(fitted.path)
    assert bundle.scorer.second.bundle == "other"
    boxes = truth.file_boxes(np.arange(PEOPLE))
    with oaks.Engine("other", "onnxruntime", threads=1) as engine:
        second = engine.infer(data / "images" / "1.png", boxes=boxes)
    poses, features = engines_features(bundle, data, truth)
    assert np.abs(poses.keypoints - second.keypoints).max() > 1
    features = oaks.ops.opinion_features(
        features, poses.keypoints, second.keypoints, second.heat, boxes=boxes, sigmas=bundle.skeleton.sigmas,
        flip_pairs=(),
    )  # fmt: skip
    forests = load_forests(bundle)
    assert max(forest.feature.max() for forest in forests) >= features.shape[2] - 5
    for forest, told in zip(forests, (poses.similarity, poses.visibility), strict=True):
        np.testing.assert_array_equal(told, oaks.ops.forest(features, forest))


def test_a_second_opinion_is_of_the_same_person_where_each_network_lacks_another(
    fit, shipped_other, tmp_path, monkeypatch, caplog
):
    seen = []

    def capture(people, features, *_, **__):
        seen.append((people.truth.ids[people.detections.own].tolist(), features))
        return SimpleNamespace()

    monkeypatch.setattr(fitting, "fit_card", capture)

    fit(store=tmp_path / "whole", second_opinion="other", augment=0)
    run, calls = heatmap_store._Runner._run, []

    def spoiled(self, pixels):
        maps = run(self, pixels)
        calls.append(len(pixels))
        lost = {1: 3, 3: 9}.get(len(calls))  # the first shard of each network
        if lost is not None:
            maps[lost, 0, 0, 0] = np.nan
        return maps

    monkeypatch.setattr(heatmap_store._Runner, "_run", spoiled)
    fit(store=tmp_path / "lacking", second_opinion="other", augment=0)
    assert len(calls) == 4
    (every, whole), (people, features) = seen
    assert people == [person for person in every if person not in (4, 10)]
    np.testing.assert_array_equal(features, whole[[person in people for person in every]])
    assert "left out: annotation 10 of 3.png, annotation 4 of 1.png" in caplog.text


def test_another_second_opinion_than_the_fitted_one_is_refused(fit, shipped_other, tmp_path):
    path = fit(store=tmp_path / "maps", out=tmp_path / "bundle", second_opinion="other").path
    description = json.loads((path / "bundle.json").read_text())
    description["scorer"]["second"]["estimator"]["network"] = "0" * 64
    (path / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(
        oaks.BundleError, match=r"scorer\.second must be fitted to the estimator that it scores"
    ):
        oaks.Engine(path, "onnxruntime")
    description["scorer"]["second"]["bundle"] = "nobody"
    (path / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(
        oaks.BundleError, match=r"scorer\.second\.bundle must be a shipped bundle, \['other'\], got 'nobody'"
    ):
        oaks.Engine(path, "onnxruntime")


def test_further_crops_are_of_the_same_people_in_boxes_nearby(
    fit, truth, shipped_other, tmp_path, monkeypatch
):
    """Each copy differs from the others, and comes out the same again; the second network sees the same boxes."""
    seen = []
    monkeypatch.setattr(
        fitting,
        "fit_card",
        lambda *parts, more, **_: seen.append([parts[:2], *more]) or SimpleNamespace(),
    )
    for store in ("one", "again"):
        fit(store=tmp_path / store, second_opinion="other")
    one, again = seen
    assert len(one) == 1 + fitting.AUGMENT == 3
    for (people, features), (_, same) in zip(one, again, strict=True):
        np.testing.assert_array_equal(features, same)
        own = people.detections.own
        assert sorted(own) == list(range(PEOPLE * IMAGES))
        overlaps = np.diag(iou(people.boxes, truth.file_boxes(own)))
        if people is one[0][0]:
            np.testing.assert_allclose(overlaps, 1, atol=1e-6)
        else:
            assert 0.6 < np.median(overlaps) < 0.95
            assert overlaps.min() > 0.3
        places = similarity_to_own(truth, people.points, own)[0]
        np.testing.assert_allclose(people.similarity[people.labeled], places[people.labeled])
    assert np.abs(one[1][0].boxes - one[2][0].boxes).max() > 1


def test_the_figures_are_of_the_annotated_boxes_alone(fitted):
    card = fitted.scorer.card
    assert card.fitted_on["further crops of each person"] == fitting.AUGMENT
    assert card.fitted_on["people"] == card.out_of_fold["people"] == PEOPLE * IMAGES
    assert len(fitted.measured.detections.keypoints) == PEOPLE * IMAGES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"augment": n}, "augment must be an integer from 0 to 16, got") for n in (-1, 17, 1.5, True, "2")),
        ({"scorer": "ks-net", "augment": 1}, "augment must come with scorer 'trees', got 1 and 'ks-net'"),
        ({"scorer": "forest"}, "scorer must be one of 'trees', 'ks-net', got 'forest'"),
        ({"second_opinion": "nobody"}, "second_opinion must be a shipped bundle"),
        (
            {"second_opinion": "small", "scorer": "ks-net"},
            "second_opinion must come with scorer 'trees', got 'ks-net'",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(fit, tmp_path, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        fit(store=tmp_path / "s", **arguments)
    assert not (tmp_path / "s").exists()


def test_a_ks_network_beside_the_forests_does_not_run(fitted, data, tmp_path):
    """It would average the maps in place before their features are computed."""
    with_ks = bundles.write(tmp_path / "net", visibility=False, ks=True)
    shutil.copytree(fitted.path, tmp_path / "both")
    shutil.copy(with_ks.path / "ks.fp32.onnx", tmp_path / "both")
    description = plain(oaks.Bundle.load(fitted.path))
    description["networks"]["ks"] = with_ks.description["networks"]["ks"]
    both = oaks.bundle.write(tmp_path / "both", description)
    assert both.has("ks")
    with oaks.Engine(both, "onnxruntime", threads=1) as engine:
        assert set(engine.describe()["networks"]) == {"pose"}


def test_a_bundle_holds_the_files_that_its_fields_name_and_no_others(fitted, tmp_path):
    """A KS network that the scorer replaces stays behind, even if a note of the bundle mentions its file."""
    model = bundles.write(tmp_path / "net", visibility=False, extra={"note": "without ks.fp32.onnx"})
    assert "ks.fp32.onnx" in model.files
    path = write_bundle(model, fitted, tmp_path / "bundle", "scored")
    assert {file.name for file in path.iterdir()} == {"bundle.json", *oaks.Bundle.load(path).files}
    assert set(oaks.Bundle.load(path).files) == {"pose.fp32.onnx", *FORESTS.values()}


def test_stored_maps_are_the_engines_in_half_precision(fitted, data, truth):
    bundle = oaks.Bundle.load(fitted.path)
    shard = next(stored_heatmaps(bundle, truth, data / "images", fitted.path.parent / "maps" / "0"))
    with oaks.Engine(bundle, "onnxruntime", threads=1) as engine:
        engine.infer(data / "images" / "2.png", boxes=truth.file_boxes(np.arange(PEOPLE, 2 * PEOPLE)))
        maps = engine._pipeline._maps["heatmaps"][: 2 * PEOPLE].copy()
    stored = shard.maps[PEOPLE : 2 * PEOPLE].swapaxes(0, 1).reshape(maps.shape)
    np.testing.assert_allclose(stored, maps, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(shard.frame_sizes, [[240, 180]] * len(shard.people))


def test_an_interrupted_run_resumes_without_running_again(fitted, data, frozen, truth, tmp_path, monkeypatch):
    store = tmp_path / "maps"
    calls = []
    call = heatmap_store._Runner.__call__

    def counted(self, images, people):
        calls.append(people[0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return call(self, images, people)

    monkeypatch.setattr(heatmap_store._Runner, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        list(stored_heatmaps(frozen, truth, data / "images", store))
    again = list(stored_heatmaps(frozen, truth, data / "images", store))
    assert calls == [0, 64, 64]
    whole = list(stored_heatmaps(frozen, truth, data / "images", fitted.path.parent / "maps" / "0"))
    assert calls == [0, 64, 64]
    for one, other in zip(again, whole, strict=True):
        np.testing.assert_array_equal(one.maps, other.maps)
        np.testing.assert_array_equal(one.transforms, other.transforms)


def test_maps_of_another_network_are_refused(fitted, data, truth, tmp_path):
    other = bundles.write(tmp_path / "net", visibility=False, ks=False, input={"mean": [1, 0, 0]})
    with pytest.raises(ValueError, match="got another mean; name another folder"):
        next(stored_heatmaps(other, truth, data / "images", fitted.path.parent / "maps" / "0"))


def test_a_bundle_that_exists_is_left_alone(fitted, fit, tmp_path):
    with pytest.raises(FileExistsError, match="out must not exist"):
        fit(store=tmp_path, out=fitted.path)
    assert sorted(path.name for path in fitted.path.parent.iterdir()) == ["bundle", "maps"]


@pytest.mark.parametrize("settings", [{"flip": False}, {"refine": "dark"}])
def test_other_settings_than_the_fits_are_refused(fitted, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be .* whose scorer was fitted so"):
        oaks.Engine(fitted.path, "onnxruntime", **settings)


def test_a_scorer_of_another_network_is_refused_by_name(fitted, tmp_path):
    folder = shutil.copytree(fitted.path, tmp_path / "copy")
    (folder / "pose.fp32.onnx").write_bytes(
        bundles.pose_network(3, bundles.SIZE, visibility=False, half=False) + b"\x12\x00"
    )
    with pytest.raises(oaks.BundleError, match="must be fitted to the estimator that it scores"):
        oaks.bundle.write(folder, plain(oaks.Bundle.load(fitted.path)))


def test_a_damaged_forest_is_named(fitted, tmp_path):
    folder = shutil.copytree(fitted.path, tmp_path / "copy")
    forest = json.loads((folder / "similarity.forest.json").read_text())
    forest["left"][0] = -1_000_000
    (folder / "similarity.forest.json").write_text(json.dumps(forest))
    oaks.bundle.write(folder, plain(oaks.Bundle.load(fitted.path)))
    with pytest.raises(oaks.BundleError, match=r"similarity\.forest\.json: left must name"):
        oaks.Engine(folder, "onnxruntime")


def test_uninformative_maps_are_detected():
    rng = np.random.default_rng(0)
    maps = rng.random((4, 3, 16, 12)).astype(np.float32)
    maps[0, 1] = 0
    maps[1, 2] = 0.25
    maps[2, 0] = -1
    features = oaks.ops.map_features(
        maps, maps[..., ::-1].copy(), points=np.zeros((4, 3, 2)), boxes=[[0, 0, 9, 9]] * 4, frame_sizes=[[9, 9]] * 4,
        flip_pairs=(),
    )  # fmt: skip
    features[3] = np.nan
    assert features.shape[2] == len(map_feature_names(3))
    expected = np.zeros((4, 3), bool)
    expected[[0, 1, 2], [1, 2, 0]] = True
    expected[3] = True
    np.testing.assert_array_equal(uninformative(features, 16 * 12), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [np.s_[0], np.s_[0, 1], np.s_[0, 1, 3, 3], np.s_[2, 1, 3, 3]])
def test_a_person_without_finite_maps_has_no_score_and_is_reported(fitted, data, where, value):
    """One crop's maps, one map, one cell, or one cell of the mirrored crop; the others' scores stay as they are."""
    frame, boxes = data / "images" / "1.png", [[15, 30, 63, 126], [70, 30, 118, 126]]
    with oaks.Engine(fitted.path, "onnxruntime", threads=1) as engine:
        before = engine.infer(frame, boxes=boxes)
        step = engine._pipeline._pass(2, 0).steps
        pose = step["pose"]

        def spoilt():
            pose()
            engine._pipeline._maps["heatmaps"][where] = value

        step["pose"] = spoilt
        after = engine.infer(frame, boxes=boxes)
    problems = {}
    report_unscored(after, problems.__setitem__)
    assert "poses without a finite score: 1 of 2" in problems[0]
    assert np.isnan([after.oaks_scores[0], after.scores[0], *after.similarity[0], *after.visibility[0]]).all()
    np.testing.assert_array_equal(after.similarity[1], before.similarity[1])


def test_a_bug_is_not_taken_for_maps_that_are_not_finite(fitted, data, monkeypatch):
    def broken(*_arguments, out, **_settings):
        out[:] = np.nan
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr("oaks.pipeline.ops.map_features", broken)
    with (
        oaks.Engine(fitted.path, "onnxruntime", threads=1) as engine,
        pytest.raises(ValueError, match="operands"),
    ):
        engine.infer(data / "images" / "1.png", boxes="whole")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "annotated people whose picture can be read and whose heatmaps are finite, got none"),
        (np.inf, "annotated people whose picture can be read and whose heatmaps are finite, got none"),
        (0.0, "keypoints must have scores that differ, got 0"),
        (0.25, "keypoints must have scores that differ, got 0.25"),
    ],
)
def test_a_network_whose_maps_say_nothing_is_refused(fit, tmp_path, monkeypatch, value, message):
    run = heatmap_store._Runner._run
    monkeypatch.setattr(
        heatmap_store._Runner, "_run", lambda self, pixels: np.full_like(run(self, pixels), value)
    )
    with pytest.raises(ValueError, match=message):
        fit(store=tmp_path / "maps", out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
