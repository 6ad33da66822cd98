"""A bundle over a data set: results for pycocotools; stopped runs are resumed."""

from __future__ import annotations

import json

import bundles
import numpy as np
import pytest

from oaks import COCO17
from oaks.coco import check_annotations
from oaks.coco_results import read_results
from oaks.files import write_json
from oaks.val import resumable
from oaks.val.detect import detect
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.synthetic_boxes import detector_like

from . import synthetic
from .stopping import interrupt_after


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(content, GroundTruth, folder of images): pictures of noise, of the size that the annotations state."""
    content = synthetic.annotations(9, images=7, reduced=True)
    folder = synthetic.write_images(content, tmp_path_factory.mktemp("images"))
    write_json(folder / "truth.json", content)
    return content, GroundTruth.load(folder / "truth.json"), folder


def test_every_person_with_keypoints_gets_the_pose_of_the_engine(engine, data, tmp_path):
    content, truth, folder = data
    path = detect(engine, truth, folder, tmp_path / "r.json")
    rows, header = read_results(path)
    people = {p["id"]: p for p in content["annotations"]}
    counted = {i for i, p in people.items() if p["num_keypoints"] and not p["iscrowd"]}
    assert {row["annotation_id"] for row in rows} == counted
    assert len(rows) == len(counted)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for row in rows[::5]:
        person = people[row["annotation_id"]]
        x, y, w, h = person["bbox"]
        pose = engine.infer(folder / names[person["image_id"]], boxes=np.array([[x, y, x + w, y + h]]))[0]
        assert np.array(row["keypoints"]).reshape(17, 3)[:, :2] == pytest.approx(pose.keypoints, abs=2e-3)
        assert row["score"] == pytest.approx(pose.oaks_score, abs=1e-5)
        assert row["similarity"] == pytest.approx(pose.similarity, abs=1e-5)
    assert header["box_source"] == "annotated: truth.json"
    assert header["flip"] is True
    assert {"bundle", "bundle_sha256", "decoder", "precision", "backend", "nms", "versions", "date"} <= set(
        header
    )
    assert not list(tmp_path.glob("*.partial"))
    found = Detections.load(path, truth)
    assert found.box_source == "ground truth"
    assert np.array_equal(np.sort(truth.ids[found.own]), np.sort(list(counted)))


def test_poses_in_detected_boxes_pass_nms_and_keep_box_scores(engine, data, tmp_path):
    content, truth, folder = data
    boxes = detector_like(check_annotations(content, skeleton=COCO17), seed=1)
    write_json(tmp_path / "boxes.json", boxes + boxes[:5])

    def detected(name, **settings):
        out = detect(engine, truth, folder, tmp_path / name, boxes=tmp_path / "boxes.json", **settings)
        return read_results(out)

    kept, every = detected("a.json"), detected("b.json", nms=None)
    assert len(every[0]) == len(boxes) + 5
    assert len(boxes) - 3 <= len(kept[0]) <= len(boxes)
    assert kept[1]["nms"] == 0.9
    assert every[1]["nms"] is None
    assert sorted(row["box_score"] for row in every[0]) == pytest.approx(
        sorted(row["score"] for row in boxes + boxes[:5]), abs=1e-6
    )
    for row in every[0]:
        oaks = np.average(row["similarity"], weights=row["visibility"])
        assert row["score"] == pytest.approx(oaks * row["box_score"], abs=1e-5)
        assert "annotation_id" not in row
    high, _ = detected("c.json", nms=None, min_box_score=0.5)
    assert len(high) == sum(row["score"] >= 0.5 for row in boxes + boxes[:5])


def test_a_resumed_run_equals_an_uninterrupted_one(engine, data, tmp_path, monkeypatch):
    truth, folder = data[1:]
    whole = read_results(detect(engine, truth, folder, tmp_path / "whole.json"))[0]
    monkeypatch.setattr(resumable, "PEOPLE_AT_ONCE", 3)
    infer = engine.infer
    calls = interrupt_after(monkeypatch, engine, 2)
    out = tmp_path / "stopped.json"
    with pytest.raises(KeyboardInterrupt):
        detect(engine, truth, folder, out)
    assert not out.exists()
    partial = tmp_path / "stopped.json.partial"
    done = len(partial.read_text().splitlines()) - 1
    assert done == sum(len(frames) for frames in calls)
    # An incomplete last line is dropped.
    with partial.open("a") as file:
        file.write('{"image": 5, "rows": [{"image_')

    seen = []
    monkeypatch.setattr(engine, "infer", lambda frames, **k: (seen.extend(frames), infer(frames, **k))[1])
    detect(engine, truth, folder, out)
    assert len(seen) == len(np.unique(truth.image[truth.counted])) - done
    resumed = read_results(out)[0]
    for a, b in zip(resumed, whole, strict=True):
        assert a["annotation_id"] == b["annotation_id"]
        assert a["keypoints"] == pytest.approx(b["keypoints"], abs=1e-3)
    assert not partial.exists()

    seen.clear()
    assert detect(engine, truth, folder, out) == out
    assert seen == []


def test_results_made_with_other_settings_are_refused(engine, data, tmp_path):
    content, truth, folder = data
    write_json(tmp_path / "boxes.json", detector_like(check_annotations(content, skeleton=COCO17)))
    out = detect(engine, truth, folder, tmp_path / "r.json", boxes=tmp_path / "boxes.json", nms=0.9)
    with pytest.raises(ValueError, match=r"nms 0\.9, now it is 0\.8"):
        detect(engine, truth, folder, out, boxes=tmp_path / "boxes.json", nms=0.8)
    (tmp_path / "p.json.partial").write_text(json.dumps({"header": {"flip": False}}) + "\n")
    with pytest.raises(ValueError, match=r"p\.json\.partial: made with"):
        detect(engine, truth, folder, tmp_path / "p.json")
    (tmp_path / "q.json.partial").write_text("nothing of ours\n")
    with pytest.raises(ValueError, match=r"q\.json\.partial is not the progress of a stopped run"):
        detect(engine, truth, folder, tmp_path / "q.json")


def test_wrong_inputs_are_refused_before_the_run(engine, data, tmp_path):
    content, truth, folder = data
    with pytest.raises(FileNotFoundError, match=content["images"][0]["file_name"]):
        detect(engine, truth, tmp_path, tmp_path / "r.json")
    unknown = {"image_id": 999, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}
    write_json(tmp_path / "boxes.json", [unknown])
    with pytest.raises(ValueError, match="no image 999"):
        detect(engine, truth, folder, tmp_path / "r.json", boxes=tmp_path / "boxes.json")
    other = GroundTruth.from_coco(synthetic.annotations(1, skeleton=bundles.RGB), skeleton=bundles.RGB)
    with pytest.raises(ValueError, match="17 keypoints"):
        detect(engine, other, folder, tmp_path / "r.json")
