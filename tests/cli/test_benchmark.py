"""oaks benchmark: the content of its table. Nothing is timed."""

from __future__ import annotations

import json

import bundles
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import oaks
from oaks import benchmark
from oaks.cli.main import app


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch):
    monkeypatch.setattr(benchmark, "_TURN_SECONDS", 0.0)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    return result.exit_code, result.output


def test_every_backend_and_batch_has_a_row(tiny, tmp_path):
    out = tmp_path / "rows.json"
    code, text = run(
        tiny.path, "--backend", "onnxruntime", "--backend", "openvino", "--precision", "fp32",
        "--batch", 1, "--batch", 3, "--turns", 2, "--out", out,
    )  # fmt: skip
    assert code == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert [(row["backend"], row["precision"], row["batch"]) for row in content["rows"]] == [
        (backend, "fp32", batch) for backend in ("onnxruntime", "openvino") for batch in (1, 3)
    ]
    for row in content["rows"]:
        assert row["persons_per_second"] > 0
        assert set(row["milliseconds"]) == {"read", "crop", "pose", "decode", "ks", "score", "rest"}
        assert 0 < row["networks_share"] < 1
        assert row["average_precision"] is None
    assert [made["bundle"] for made in content["made"]] == ["tiny"]
    assert "persons/s" in text
    assert " AP " not in text


def test_configurations_that_cannot_run_are_named(tiny):
    code, text = run(tiny.path, "--backend", "onnxruntime", "--turns", 1)
    assert code == 0
    assert (
        "not run: tiny, onnxruntime bf16: precision must be fp32, fp16 or int8 with backend 'onnxruntime', got 'bf16'"
        in text
    )
    assert "not run: tiny, onnxruntime int8: precision must be one that bundle 'tiny'" in text
    code, text = run(tiny.path, "--backend", "onnxruntime", "--device", "cuda")
    assert code == 3
    assert "not run: onnxruntime: " in text  # no PyCUDA, or no GPU


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--batch", "0"], "--batch"), (["--images", "x"], "images must come with annotations")],
)
def test_wrong_arguments_are_named(tiny, arguments, message):
    code, text = run(tiny.path, *arguments)
    assert code == 2
    assert message in text


def test_bundles_are_timed_beside_each_other(tiny, tmp_path):
    other = bundles.write(tmp_path / "other", skeleton=oaks.COCO17, name="other")
    report = benchmark.benchmark_bundles(
        tiny, other.path, backends=["onnxruntime"], precisions=["fp32", "int8"], batches=[1, 2], turns=1
    )
    assert [(row.bundle, row.batch) for row in report.rows] == [
        ("tiny", 1),
        ("tiny", 2),
        ("other", 1),
        ("other", 2),
    ]
    assert [made["bundle_sha256"] for made in report.headers] == [tiny.sha256, other.sha256]
    assert [reason.partition(":")[0] for reason in report.missing] == [
        "tiny, onnxruntime int8",
        "other, onnxruntime int8",
    ]
    with pytest.raises(oaks.ArgumentError, match="bundles must be one or more"):
        benchmark.benchmark_bundles()


def test_wrong_batches_and_turns_are_refused_by_the_library(tiny):
    for wrong, message in (({"batches": [8, 0]}, "batches must be"), ({"turns": 0}, "turns must be")):
        with pytest.raises(oaks.ArgumentError, match=message):
            benchmark.benchmark_bundles(tiny, **wrong)


def test_missing_annotations_are_named_before_timing(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "benchmark", lambda *_, **__: pytest.fail("it was timed"))
    code, text = run(tiny.path, "--annotations", tmp_path / "gone.json", "--images", tmp_path)
    assert code == 2
    assert "gone.json" in text


def test_annotations_add_the_average_precision(tiny, tmp_path):
    """The annotations are the bundle's own poses, so that its AP is 1 in fp32."""
    (tmp_path / "images").mkdir()
    pictures, boxes = [], [[5, 6, 65, 96], [70, 10, 118, 90]]
    for number in (1, 2):
        picture = np.random.default_rng(number).integers(0, 256, (100, 120, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), picture)
        pictures.append(picture)
    with oaks.Engine(tiny, "onnxruntime") as engine:
        poses = engine.infer(pictures, boxes=[boxes, boxes])
    annotations = [
        {
            "id": i + 1, "image_id": pose.frame_index + 1, "category_id": 1, "iscrowd": 0,
            "num_keypoints": 17,
            "bbox": [*map(float, pose.box[:2]), *map(float, pose.box[2:] - pose.box[:2])], "area": 3000.0,
            "keypoints": np.column_stack([pose.keypoints.astype(float), np.full(17, 2)]).ravel().tolist(),
        }
        for i, pose in enumerate(poses)
    ]  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 100} for i in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(oaks.COCO17.keypoints), "skeleton": []}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    code, text = run(
        tiny.path, "--backend", "onnxruntime", "--precision", "fp32", "--turns", 1, "--batch", 2,
        "--annotations", tmp_path / "truth.json", "--images", tmp_path / "images",
        "--out", tmp_path / "rows.json",
    )  # fmt: skip
    assert code == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["average_precision"] == pytest.approx(1.0)
    assert "100.0" in text
