"""Another estimator's poses, scored by a bundle."""

from __future__ import annotations

import bundles
import numpy as np
import pytest

from oaks import COCO17, Engine
from oaks.coco import AREA_OF_BOX
from oaks.coco_results import read_results, write_results
from oaks.val.ground_truth import GroundTruth
from oaks.val.rescore import rescore

from . import synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    content = synthetic.annotations(4, images=5, reduced=True)
    folder = synthetic.write_images(content, tmp_path_factory.mktemp("images"))
    return content, GroundTruth.from_coco(content), folder


def foreign(content):
    """Results as another estimator writes them: poses, a score, and a constant as third number."""
    kept = ("image_id", "category_id", "keypoints", "score", "box")
    rows = [{key: row[key] for key in kept} for row in synthetic.detections(content, 4)]
    for row in rows:
        row["keypoints"][2::3] = [1.0] * 17
    return rows


def test_poses_and_scores_stay_and_predictions_come_from_the_engine(engine, data, tmp_path):
    content, truth, folder = data
    rows = foreign(content)
    # One pose is the engine's own, one is far from it.
    names = {image["id"]: image["file_name"] for image in content["images"]}
    x, y, w, h = rows[0]["box"]
    pose = engine.infer(folder / names[rows[0]["image_id"]], boxes=np.array([[x, y, x + w, y + h]]))[0]
    rows[0]["keypoints"] = np.column_stack([pose.keypoints, np.ones(17)]).astype(float).ravel().tolist()
    rows[1]["keypoints"][::3] = [v + 5000 for v in rows[1]["keypoints"][::3]]
    shift = 0.1 * np.sqrt(AREA_OF_BOX * w * h)
    to_the_right = [v + shift * (k % 3 == 0) for k, v in enumerate(rows[0]["keypoints"])]
    rows.append(rows[0] | {"keypoints": to_the_right})
    write_results(tmp_path / "foreign.json", rows, {"box_source": "detected: theirs.json"})

    out = rescore(engine, truth, tmp_path / "foreign.json", folder, tmp_path / "o.json")
    scored, header = read_results(out)
    assert header["box_source"] == "detected: theirs.json"
    assert header["poses_by"] == "foreign.json"
    assert header["bundle"] == "tiny"
    by_pose = {tuple(row["keypoints"]): row for row in scored}
    assert len(by_pose) == len(rows)
    for row in rows:
        assert {key: by_pose[tuple(row["keypoints"])][key] for key in row} == row
    own, far, shifted = (by_pose[tuple(rows[n]["keypoints"])] for n in (0, 1, -1))
    assert own["visibility"] == pytest.approx(pose.visibility, abs=1e-5)
    assert own["similarity"] == pytest.approx(pose.similarity, abs=1e-5)
    assert far["similarity"] == [0] * 17
    expected = pose.similarity * np.exp(-(0.1**2) / (2 * (2 * np.array(COCO17.sigmas)) ** 2))
    assert shifted["similarity"] == pytest.approx(expected, abs=1e-4)


def test_boxes_are_stated_or_of_the_person_or_around_the_keypoints(engine, data, tmp_path):
    content, truth, folder = data
    rows = synthetic.detections(content, 4)
    found = {}
    for name, without in {"box": (), "person": ("box",), "bare": ("box", "annotation_id")}.items():
        given, out = tmp_path / f"{name}.json", tmp_path / f"o-{name}.json"
        write_results(given, [{k: v for k, v in row.items() if k not in without} for row in rows])
        found[name] = read_results(rescore(engine, truth, given, folder, out, box_source="ground truth"))
    assert found["box"][1]["box_source"] == "annotated: annotations"
    for a, b in zip(found["box"][0], found["person"][0], strict=True):
        assert a["visibility"] == pytest.approx(b["visibility"], abs=1e-3)
    assert all(len(row["visibility"]) == 17 for row in found["bare"][0])


def test_a_bundle_without_a_ks_network_cannot_score(data, tmp_path):
    content, truth, folder = data
    bundle = bundles.write(tmp_path / "plain", skeleton=COCO17, ks=False)
    write_results(tmp_path / "r.json", foreign(content))
    message = "engine must have visibility and a KS network to score by, got bundle 'tiny'"
    with Engine(bundle, "onnxruntime", threads=1) as engine, pytest.raises(ValueError, match=message):
        rescore(engine, truth, tmp_path / "r.json", folder, tmp_path / "o.json")


def test_a_bundle_whose_own_score_is_conventional_can_score(data, tmp_path):
    content, truth, folder = data
    bundle = bundles.write(tmp_path / "told", skeleton=COCO17, score="conventional")
    rows = foreign(content)
    write_results(tmp_path / "r.json", rows, {"box_source": "detected: theirs.json"})
    with Engine(bundle, "onnxruntime", threads=1) as engine:
        scored, _ = read_results(rescore(engine, truth, tmp_path / "r.json", folder, tmp_path / "o.json"))
    assert len(scored) == len(rows)
    assert np.isfinite([row["visibility"] + row["similarity"] for row in scored]).all()
