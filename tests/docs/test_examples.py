"""The scripts and notebooks in examples/, on small inputs."""

from __future__ import annotations

import importlib.util
import json

import bundles
import cv2
import numpy as np
import pytest

import oaks
from oaks.coco_results import read_results

from .pages import ROOT, furnish, furnish_calibration

EXAMPLES = ROOT / "examples"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_photo(folder, capsys):
    """The score that is printed is the Engine's, and the picture has the pose in it."""
    example("photo").main(["photo.jpg", "--whole", "--out", "drawn.png"])
    poses = oaks.Engine("small").infer("photo.jpg", boxes="whole")
    assert capsys.readouterr().out.startswith(f"score {poses.scores[0]:.2f}, conventional ")
    np.testing.assert_array_equal(cv2.imread("drawn.png"), poses.draw("photo.jpg", boxes=True))
    with pytest.raises((SystemExit, cv2.error), match=r"out must be|unsupported|extension"):
        example("photo").main(["photo.jpg", "--whole", "--out", "drawn.nothing"])


def test_webcam(folder, monkeypatch):
    """On a video in the camera's place, until the third frame."""
    shown = []

    class Preview:
        ended = closed = False

        def __init__(self, title):
            assert title == "oaks"

        def write(self, frame, poses):
            shown.append((frame.index, len(poses)))
            self.ended = len(shown) == 3

        def close(self):
            Preview.closed = True

    module = example("webcam")
    monkeypatch.setattr(module, "Preview", Preview)
    module.main(["street.mp4", "--detector", "yolox.onnx", "--every", "2"])
    assert [index for index, _ in shown] == [0, 1, 2]
    assert shown[0][1] == 1
    assert Preview.closed


def test_video_to_coco(folder, capsys):
    example("video_to_coco").main(["street.mp4", "--detector", "yolox.onnx", "--out", "street.json"])
    rows, header = read_results(folder / "street.json")
    assert [row["image_id"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"track_id", "oaks_score", "visibility"} <= rows[0].keys()
    assert header["bundle"] == "tiny"
    assert "6 poses in 6 frames" in capsys.readouterr().out
    example("video_to_coco").main(
        ["street.mp4", "--detector", "yolox.onnx", "--minimum", "1.1", "--out", "none.json"]
    )
    assert read_results(folder / "none.json")[0] == []


def test_own_onnx_model(folder, capsys):
    """A network with the layout of Simple Baselines becomes a bundle that an Engine runs."""
    network = folder / "network.onnx"
    network.write_bytes(bundles.pose_network(17, (192, 256), visibility=False))
    arguments = ["network.onnx", "--preset", "simple-baselines", "--license", "MIT", "--out", "mine"]
    example("own_onnx_model").main([*arguments, "--picture", "photo.jpg"])
    said = capsys.readouterr().out
    assert "crops of (192, 256), decoder gradient, 17 keypoints" in said
    poses = oaks.Engine("mine").infer("photo.jpg", boxes="whole")
    assert f"conventional score {poses.conventional_scores[0]:.2f}" in said
    assert poses.score_kind == "conventional"


def test_supervision_styles(folder):
    """Three pictures side by side, each with something else drawn."""
    example("supervision_styles").main(["photo.jpg", "--whole", "--out", "styles.png"])
    picture, drawn = cv2.imread("photo.jpg"), cv2.imread("styles.png")
    height, width = picture.shape[:2]
    assert drawn.shape == (height, 3 * width, 3)
    parts = [drawn[:, n * width : (n + 1) * width] for n in range(3)]
    changed = [int((part != picture).any(axis=2).sum()) for part in parts]
    assert min(changed) > 200
    assert not np.array_equal(parts[0], parts[1])


def test_supervision_joins_the_skeleton_s_limbs(folder):
    """Its edges count keypoints from 1; the middle of each drawn limb is colored, with all keypoints visible."""
    module = example("supervision_styles")
    points = np.float32([[60 + 40 * (i % 4), 40 + 80 * (i // 4)] for i in range(17)])[None]
    ones = np.ones((1, 17), np.float32)
    poses = oaks.Poses(
        keypoints=points, visibility=ones, similarity=ones, heat=ones, oaks_scores=[1], conventional_scores=[1],
        scores=[1], boxes=[[20, 20, 260, 440]], box_scores=[1], frame_index=[0],
    )  # fmt: skip
    drawn = module.styles(np.zeros((480, 300, 3), np.uint8), poses)[0]
    for start, end in poses.skeleton.limbs:
        x, y = (points[0, start] + points[0, end]) / 2
        assert drawn[round(y), round(x)].any(), (start, end)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rescore(folder, capsys):
    furnish_calibration(folder)
    example("rescore").main(
        ["results.json", "annotations.json", "other_results.json", "--estimator", "theirs"]
    )
    assert oaks.Scorer(folder / "scorer").card.estimator == "theirs"
    rows = read_results(folder / "rescored.json")[0]
    kept = read_results(folder / "other_results.json")[0]
    assert [row["keypoints"] for row in rows] == [row["keypoints"] for row in kept]
    assert [row["score"] for row in rows] != [row["score"] for row in kept]
    assert f"{len(rows)} poses: rescored.json" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_own_labels(folder, capsys):
    """Rendered people stand in for labeled ones."""
    from oaks.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["render", "rendered", "--count", "24", "--seed", "5"])
    assert not ended.value.code
    arguments = ["rendered/annotations.json", "rendered/images", "--epochs", "1", "--out", "mine"]
    example("own_labels").main(arguments)
    said = capsys.readouterr().out
    assert "mine: score " in said
    assert oaks.Bundle.load("mine").name


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["scores.ipynb", "video.ipynb"])
def test_notebooks(folder, name):
    """Every cell runs, and at least one shows a picture."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)


def test_notebooks_are_kept_without_outputs():
    for path in EXAMPLES.glob("*.ipynb"):
        content = json.loads(path.read_text("utf-8"))
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        assert code
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
