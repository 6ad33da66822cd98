"""Fine-tuning: from a shipped bundle and a few people to a new bundle."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import write as write_toy_bundle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

import oaks
from oaks import finetune as finetuning
from oaks.coco import read_annotations
from oaks.finetune import FinetuneSettings, finetune
from oaks.scorer import load_forests
from oaks.skipping import SkippedItems
from oaks.structured import read_json

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("lightgbm")

from oaks.cli.main import app  # noqa: E402
from oaks.engines.export.compare import onnx_outputs, torch_outputs  # noqa: E402
from oaks.engines.export.export import export  # noqa: E402
from oaks.training.checkpoint import load_from_bundle, save_network  # noqa: E402
from oaks.training.networks import build  # noqa: E402
from oaks.training.render.output.dataset import write_dataset  # noqa: E402
from tests.training.conftest import write_people  # noqa: E402

BRIEF = FinetuneSettings(epochs=0.5, batch=4, resamples=5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """A folder with annotations.json and images/: about 30 rendered people."""
    folder = tmp_path_factory.mktemp("rendered")
    write_dataset(folder, 16, seed=4, size=(160, 160))
    return folder


@pytest.fixture(scope="module")
def done(rendered, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "mine"
    return finetune("tiny", rendered / "annotations.json", rendered / "images", out=out, settings=BRIEF, threads=1,
                    accelerator="cpu")  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> oaks.Bundle:
    """A bundle as `oaks export` writes it, of an untrained network with batch norm and without a scorer."""
    folder = tmp_path_factory.mktemp("toy")
    architecture = {"name": "oa_hpe", "backbone": "resnet18", "width": 0.125, "head_channels": 8, "head_layers": 1,
                    "keypoints": 17, "input": [48, 64]}  # fmt: skip
    torch.manual_seed(0)
    description = {
        "kind": "pose", "architecture": architecture, "skeleton": oaks.COCO17.to_dict(),
        "input": {"size": [48, 64], "mean": [123.0, 116.0, 103.0], "std": [58.0, 57.0, 57.0]}, "stride": 4,
        "alignment": "half_pixel", "heatmap_sigma": 1.0, "refine": "second_peak", "padding": 1.25,
        "license": "none",
    }  # fmt: skip
    network = build(architecture).eval()
    save_network(folder / "network.safetensors", network, description)
    return export(folder / "network.safetensors", out=folder / "toy", show=False)


def people(folder: Path, images: int = 12) -> tuple[Path, Path]:
    write_people(folder, images=images)
    return folder / "annotations.json", folder / "images"


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_torch_networks_of_shipped_bundles_give_what_their_onnx_files_give(name):
    onnx = pytest.importorskip("onnx")
    bundle = oaks.Bundle.load(name)
    network, description = load_from_bundle(bundle.torch_network("pose"))
    width, height = description["input"]["size"]
    crops = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    exported = onnx.load_from_string(bundle.network("pose", "fp32").read())
    for ours, theirs in zip(torch_outputs(network, crops), onnx_outputs(exported, crops), strict=True):
        assert np.ptp(theirs) > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.ptp(theirs))


def test_the_bundle_works_in_the_engine_with_its_own_scorer(done, rendered):
    bundle = oaks.Bundle.load(done.path)
    assert bundle.name == "mine"
    assert bundle.description["extra"]["finetuned"]["from"]["name"] == "tiny"
    with oaks.Engine(bundle, "onnxruntime", threads=1) as engine:
        assert engine.score_kind == "oaks"
        poses = engine.infer(next((rendered / "images").iterdir()), boxes=[[20, 10, 120, 150]])
    assert np.isfinite(poses.scores).all()
    assert (poses.visibility > 0).all()


def test_training_starts_from_the_weights_of_the_bundle(done):
    before, after = (
        load_from_bundle(oaks.Bundle.load(bundle).torch_network("pose"))[0].state_dict()
        for bundle in ("tiny", done.path)
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {
        name
        for name in moved
        if name.startswith(("backbone.stem", "backbone.blocks.0", "backbone.blocks.1."))
    }
    assert len(moved) > 0.8 * len(before)
    far = max((before[name] - after[name]).abs().max() for name in before if before[name].is_floating_point())
    assert far < 0.1  # half an epoch from fresh weights would be another network


def test_no_image_is_both_trained_on_and_held_out(done, rendered):
    work = done.path.with_name("mine.finetune")
    whole = read_json(rendered / "annotations.json", top=dict)
    parts = [read_json(work / part / "annotations.json", top=dict) for part in ("train", "held_out")]
    for key in ("images", "annotations"):
        ids = [[entry["id"] for entry in part[key]] for part in parts]
        assert not set(ids[0]) & set(ids[1])
        assert sorted(ids[0] + ids[1]) == sorted(entry["id"] for entry in whole[key])
    share = len(parts[1]["annotations"]) / len(whole["annotations"])
    assert BRIEF.held_out <= share < BRIEF.held_out + 0.2


def test_average_precision_equals_pycocotools(done):
    truth = COCO(str(done.path.with_name("mine.finetune") / "held_out" / "annotations.json"))
    figures = {comparison.figure: comparison for comparison in done.comparisons}
    values = [value.value for value in figures["AP"].values]
    assert len(values) == 4  # two bundles, two scores
    for measured, ours in ((done.before, values[0]), (done.after, values[2])):
        score = measured.scores["conventional"]
        rows = [
            {"image_id": int(measured.truth.image_ids[i]), "category_id": 1, "score": float(s),
             "keypoints": np.concatenate([p, np.ones((17, 1))], axis=1).ravel().tolist()}
            for i, p, s in zip(measured.detections.image, measured.detections.keypoints, score.ranks, strict=True)
        ]  # fmt: skip
        judge = COCOeval(truth, truth.loadRes(rows), "keypoints")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        assert ours == pytest.approx(judge.stats[0], abs=1e-9)


def test_trees_are_recalibrated_with_few_people(done):
    old, new = load_forests(oaks.Bundle.load("tiny")), load_forests(oaks.Bundle.load(done.path))
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(before.threshold, after.threshold)
        ratio = after.leaves[:-1].astype(float) / before.leaves
        assert np.ptp(ratio) < 1e-5
        assert 0.1 < ratio[0] < 3
    fitted_on = oaks.Bundle.load(done.path).description["scorer"]["metrics"]["fitted_on"]
    assert fitted_on["fit"] == "recalibrated trees"


def test_a_stopped_run_resumes_and_keeps_what_is_done(rendered, tmp_path, toy):
    annotations, images = people(tmp_path / "people")
    call = {"out": tmp_path / "mine", "settings": BRIEF, "threads": 1, "accelerator": "cpu"}
    assert finetune(toy, annotations, images, **call, max_minutes=1e-9) is None
    assert not (tmp_path / "mine").exists()
    work = tmp_path / "mine.finetune"
    assert (work / "run" / "last.ckpt").is_file()
    with pytest.raises(ValueError, match=r"got one with another epochs; delete it or name another folder"):
        finetune(toy, annotations, images, **{**call, "settings": replace(BRIEF, epochs=2)})
    done = finetune(toy, annotations, images, **call)
    trained = (work / "run" / "network.safetensors").stat().st_mtime_ns
    assert done.path == tmp_path / "mine"
    with pytest.raises(FileExistsError, match="out must not exist"):
        finetune(toy, annotations, images, **call)
    done.path.rename(tmp_path / "moved")
    again = finetune(toy, annotations, images, **call)
    assert (work / "run" / "network.safetensors").stat().st_mtime_ns == trained
    ours, theirs = (
        json.loads((folder / "bundle.json").read_text()) for folder in (again.path, tmp_path / "moved")
    )
    assert ours["files"] == theirs["files"]


def test_without_a_scorer_and_with_few_people_the_bundle_gives_the_conventional_score(toy, tmp_path, caplog):
    annotations, images = people(tmp_path / "people")
    with caplog.at_level(logging.WARNING, "oaks"):
        done = finetune(
            toy, annotations, images, out=tmp_path / "mine", settings=BRIEF, threads=1, accelerator="cpu"
        )
    assert "too few to fit a scorer to" in caplog.text
    assert any("too few to fit a scorer to" in warning for warning in done.warnings)
    with oaks.Engine(done.path, "onnxruntime", threads=1) as engine:
        assert engine.score_kind == "conventional"


def test_too_few_held_out_images_give_no_scorer(toy, tmp_path, monkeypatch, caplog):
    real = finetuning.described_people

    def of_three_images(*arguments):
        """As if all but three of the held-out images had turned out to be damaged."""
        found, features = real(*arguments)
        rows = np.flatnonzero(np.isin(found.images, np.unique(found.images)[:3]))
        return found.only(rows), features[rows]

    monkeypatch.setattr(finetuning, "described_people", of_three_images)
    done = finetune(
        toy, *people(tmp_path), out=tmp_path / "mine", settings=BRIEF, threads=1, accelerator="cpu"
    )
    assert "only 3 of the held-out images could be read, and a scorer needs 5" in caplog.text
    assert "only 3 of the held-out images" in " ".join(done.warnings)
    assert oaks.Bundle.load(done.path).score != "oaks"


def test_images_that_cannot_be_read_are_skipped_and_named(toy, tmp_path):
    annotations, images = people(tmp_path / "people", images=16)
    content = json.loads(annotations.read_text())
    del content["categories"]  # which counts as COCO's person
    annotations.write_text(json.dumps(content))
    (images / "2.jpg").unlink()
    (images / "3.jpg").write_bytes(b"")
    whole = (images / "5.jpg").read_bytes()
    (images / "5.jpg").write_bytes(whole[: len(whole) * 2 // 3])  # found when its pixels are read
    result = CliRunner().invoke(app, [
        "finetune", str(toy.path), "--annotations", str(annotations), "--images", str(images), "--out",
        str(tmp_path / "mine"), "--epochs", "1", "--batch", "4", "--resamples", "2", "--threads", "1",
        "--accelerator", "cpu",
    ])  # fmt: skip
    assert result.exit_code == 1, result.output
    summary = next(line for line in result.output.splitlines() if re.match(r"skipped \d", line))
    assert "2.jpg, 3.jpg" in summary
    assert "5.jpg" in summary or "damaged images in training" in summary
    assert oaks.Bundle.load(tmp_path / "mine").name == "mine"


def test_missing_images_of_the_same_name_in_two_data_sets_are_both_named(toy, tmp_path):
    sets = [people(tmp_path / name) for name in ("first", "second")]
    for _, images in sets:
        (images / "2.jpg").unlink()
    files, folders = map(list, zip(*sets, strict=True))
    expected = {str(folder / "2.jpg") for folder in folders}
    for _ in range(2):  # the second call reads what the first has written
        with SkippedItems() as skipped:
            finetuning._begin(tmp_path / "mine.finetune", toy, files, folders, BRIEF, None)
        assert set(skipped.items) == expected


@pytest.mark.parametrize(("categories", "category"), [([{"id": 7, "name": "Human"}], "human"), ([], 7)])
def test_a_chosen_category_is_that_of_both_parts(toy, tmp_path, categories, category):
    annotations, images = people(tmp_path / "people")
    content = json.loads(annotations.read_text())
    for row in content["annotations"]:
        row |= {"category_id": 7, "score": float("nan")}  # a field that nothing reads
    for image in content["images"]:
        image["date_captured"] = float("nan")
    content["info"] = {"year": float("nan")}
    annotations.write_text(json.dumps(content | {"categories": categories}))
    (source,) = finetuning._begin(tmp_path / "work", toy, [annotations], [images], BRIEF, category)
    parts = [read_annotations(path, skeleton=oaks.COCO17) for path in (source.train, source.held_out)]
    assert sum(len(part.ids) for part in parts) == len(content["annotations"])


def test_missing_areas_are_estimated_from_the_boxes(toy, tmp_path, caplog):
    annotations, images = people(tmp_path / "people")
    content = json.loads(annotations.read_text())
    first, second = content["annotations"][:2]
    del first["area"]
    second["area"] = None
    annotations.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING, logger="oaks"):
        (source,) = finetuning._begin(tmp_path / "work", toy, [annotations], [images], BRIEF, None)
    assert "annotations without area: 2; 0.53 times the area of the box is used" in caplog.text
    parts = [read_annotations(path, skeleton=oaks.COCO17) for path in (source.train, source.held_out)]
    found = {int(n): area for part in parts for n, area in zip(part.ids, part.areas, strict=True)}
    for row in (first, second):
        assert found[row["id"]] == pytest.approx(0.53 * row["bbox"][2] * row["bbox"][3])


def test_both_bundles_are_measured_on_the_people_of_both(done, rendered, monkeypatch):
    describe = finetuning.described_people

    def lacking(bundle, *arguments):
        found, features = describe(bundle, *arguments)
        index = np.delete(np.arange(len(features)), 0 if bundle.name == "tiny" else -2)
        return found.only(index), features[index]

    monkeypatch.setattr(finetuning, "described_people", lacking)
    work = done.path.with_name("mine.finetune")
    sources = finetuning._sources(work, [rendered / "annotations.json"], [rendered / "images"])
    described = finetuning._held_out_people(
        oaks.Bundle.load("tiny"), oaks.Bundle.load(work / "network"), sources, work, 1
    )
    every = done.before.detections.own.tolist()
    in_both = [*every[1:-2], every[-1]]
    for people_of_bundle, features in described:
        assert people_of_bundle.detections.own.tolist() == in_both
        assert len(features) == len(in_both)


def test_invalid_fine_tunings_are_refused_before_writing(toy, tmp_path):
    annotations, images = people(tmp_path / "people")
    call = {"out": tmp_path / "mine", "settings": BRIEF}
    foreign = write_toy_bundle(tmp_path / "foreign", visibility=False, ks=False)
    with pytest.raises(ValueError, match="model must have torch weights of a pose network"):
        finetune(foreign, annotations, images, **call)
    shutil.copytree(toy.path, tmp_path / "unstated")
    description = json.loads((toy.path / "bundle.json").read_text())
    del description["networks"]["pose"]["heatmap_sigma"]
    (tmp_path / "unstated" / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="model must state heatmap_sigma, got bundle"):
        finetune(tmp_path / "unstated", annotations, images, **call)
    with pytest.raises(ValueError, match=r"images must be one folder for each of annotations, got 2 and 1"):
        finetune(toy, annotations, [images, images], **call)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        finetune(toy, tmp_path / "none.json", images, **call)
    few, _ = people(tmp_path / "few", images=9)
    with pytest.raises(
        ValueError, match="annotations must hold at least 20 people with labeled keypoints, got 18"
    ):
        finetune(toy, few, images, **call)
    crowd = tmp_path / "crowd"
    write_people(crowd, images=9, people=3)
    with pytest.raises(ValueError, match=r"people in at least 10 images, of which 5 are held out, got 9"):
        finetune(toy, crowd / "annotations.json", crowd / "images", **call)
    turned, folder = people(tmp_path / "turned")
    content = json.loads(turned.read_text())
    content["images"][3] |= {"width": 96, "height": 128}
    turned.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"4\.jpg.*(128, 96|128x96|128 x 96|128×96)"):
        finetune(toy, turned, folder, **call)
    with pytest.raises(FileNotFoundError, match=r"image not found: .*1\.jpg"):
        finetune(toy, annotations, tmp_path, **call)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("mine")]


@pytest.mark.parametrize(
    ("field", "value"),
    [("held_out", 0), ("held_out", 0.9), ("epochs", 0), ("learning_rate", float("nan")), ("batch", 0)],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ValueError, match=f"{field} must be above 0"):
        FinetuneSettings(**{field: value})


def test_the_command_prints_before_and_after(toy, tmp_path, monkeypatch):
    annotations, images = people(tmp_path / "people")
    monkeypatch.chdir(tmp_path)
    arguments = ["finetune", toy.path, "--annotations", annotations, "--images", images,
                 "--epochs", 0.5, "--batch", 4, "--resamples", 5, "--threads", 1, "--accelerator", "cpu"]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith(("before", "after"))]
    assert len(lines) == 2
    out = Path("runs/finetune") / f"{toy.path.name}-finetuned"
    assert f"bundle: {out}" in done.stdout
    assert oaks.Bundle.load(out).name == out.name
