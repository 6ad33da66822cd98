"""A shortage of memory is named as such: it is no damage, and drops no data from a measurement or a training."""

from __future__ import annotations

import json
from pathlib import Path

import bundles
import cv2
import numpy as np
import pytest
from PIL import Image

import oaks
from oaks import OutOfMemory, images, predict, structured
from oaks.boxes import whole_image
from oaks.bundle import Bundle
from oaks.cli.main import main
from oaks.val.detect import detect
from oaks.val.ground_truth import GroundTruth
from oaks.video import open_source
from tests.training.conftest import write_people


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with oaks.Engine(
        bundles.write(tmp_path_factory.mktemp("bundle") / "b", skeleton=oaks.COCO17), "onnxruntime"
    ) as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    for number in range(3):
        Image.new("RGB", (60, 80)).save(tmp_path / f"{number}.png")
    return sorted(tmp_path.glob("*.png"))


@pytest.fixture
def short(monkeypatch):
    """Let OpenCV run out of memory at the second picture of a test and at those after it."""
    decode, calls = cv2.imdecode, []

    def decoding(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            error = cv2.error("Failed to allocate 36864000000 bytes")
            error.code = cv2.Error.StsNoMem
            raise error
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", decoding)


def failing(*arguments, **named):
    raise MemoryError


def test_a_real_allocation_that_opencv_cannot_make_is_a_shortage():
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((1, 1, 3), np.uint8), (2**21, 2**21))
    if caught.value.code != cv2.Error.StsNoMem:
        pytest.skip(f"this system names it otherwise: {caught.value}")


def test_pictures(pictures, short, monkeypatch):
    images.read_image(pictures[0])
    with pytest.raises(OutOfMemory, match=r"1\.png: an image of 60×80 does not fit into memory"):
        images.read_image(pictures[1])
    with pytest.raises(OutOfMemory, match="picture: an image of 60×80 does not fit"):
        images.decode_image(pictures[1].read_bytes(), "picture")
    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OutOfMemory, match=r"1\.png: the file does not fit into memory"):
        images.read_image(pictures[1])


def test_headers(pictures, monkeypatch):
    Image.init()
    monkeypatch.setitem(Image.OPEN, "PNG", (failing, Image.OPEN["PNG"][1]))
    with pytest.raises(OutOfMemory, match=r"0\.png: its header does not fit into memory"):
        images.read_size(pictures[0])


def test_files(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "a.yaml").write_text("a: 1")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    monkeypatch.setattr(json, "loads", failing)
    with pytest.raises(OutOfMemory, match=r"a\.json: its content does not fit into memory"):
        structured.read_json(tmp_path / "a.json")
    monkeypatch.setattr(np, "empty", failing)
    with pytest.raises(OutOfMemory, match=r"a\.npz: its arrays do not fit into memory"):
        structured.read_npz(tmp_path / "a.npz")
    import yaml

    monkeypatch.setattr(yaml, "load", failing)
    with pytest.raises(OutOfMemory, match=r"a\.yaml: its content does not fit into memory"):
        structured.read_yaml(tmp_path / "a.yaml")


def test_bundles(tmp_path, monkeypatch):
    bundles.write(tmp_path / "b")
    monkeypatch.setattr("oaks.bundle_files.read_regular", failing)
    with pytest.raises(OutOfMemory, match=r"bundle\.json does not fit into memory"):
        Bundle.load(tmp_path / "b")


def test_predict_skips_the_picture_and_says_why(engine, pictures, short, tmp_path):
    summary = predict.predict(engine, pictures, whole_image(), tmp_path / "out", annotate=False)
    assert [(path.name, why) for path, why in summary.skipped.items()] == [
        (f"{n}.png", "an image of 60×80 does not fit into memory") for n in (1, 2)
    ]
    header = json.loads((tmp_path / "out" / "results.header.json").read_text())
    assert "does not fit into memory" in header["skipped"][str(pictures[1])]


def test_tracks_and_measurements_end(engine, pictures, short, tmp_path):
    with pytest.raises(OutOfMemory, match=r"1\.png"):
        list(open_source(pictures))
    write_people(tmp_path / "people", images=3, people=20)
    truth = GroundTruth.load(tmp_path / "people" / "annotations.json")
    with pytest.raises(OutOfMemory, match=r"1\.jpg: an image of 128×96 does not fit into memory"):
        detect(engine, truth, tmp_path / "people" / "images", tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()


def test_training_data_is_not_dropped(short, tmp_path):
    pytest.importorskip("torch")
    from oaks.training.data import people

    write_people(tmp_path / "people", images=3)
    people.read_image.cache_clear()
    found = people.read_coco(
        "a", tmp_path / "people" / "annotations.json", tmp_path / "people" / "images", oaks.COCO17
    )
    found.sample(0)
    with pytest.raises(OutOfMemory, match=r"2\.jpg"):
        found.sample(2)


def test_the_command_line_says_it_in_one_line(pictures, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("oaks.video.sources.open_image", failing)
    with pytest.raises(SystemExit) as ended:
        main(f"track {tmp_path} --bundle tiny --backend onnxruntime --out {tmp_path / 'out'}".split())
    assert ended.value.code == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("oaks: memory is too short: ")
