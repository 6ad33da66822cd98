"""Scorers from results: fitting, writing, and refused inputs."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

import oaks
from oaks.errors import ArgumentError
from oaks.fit import fit_results
from oaks.fit.people import IDS_PER_FILE, load_people
from oaks.skeleton import COCO17, Skeleton
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.rescore import rescore_results
from oaks.val.scores import ScoredDetections

from . import frozen
from .frozen import QUICK

pytest.importorskip("lightgbm")
pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return frozen.write(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def fitted(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("scorer") / "scorer"
    return fit_results(*files, out=out, estimator="made-up", decoder="argmax", settings=QUICK, resamples=20)


def arrays(files):
    people = load_people([files[0]], [files[1]], skeleton=COCO17)
    return people.points, people.heat, people.boxes


def test_the_scorer_on_disk_is_the_one_that_was_fitted(fitted, files):
    points, heat, boxes = arrays(files)
    loaded = oaks.Scorer(fitted.path.parent)
    before, after = fitted.scorer(points, heat, boxes), loaded(points, heat, boxes)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.card == fitted.scorer.card
    assert loaded.sha256 == fitted.scorer.sha256
    assert fitted.path.stat().st_size < 5 << 20


def test_scores_are_equation_10(fitted, files):
    scored = fitted.scorer(*arrays(files))
    expected = (scored.similarity * scored.visibility).sum(1) / scored.visibility.sum(1)
    np.testing.assert_allclose(scored.oaks_scores, expected, rtol=1e-5)
    assert scored.similarity.min() >= 0
    assert scored.visibility.max() <= 1
    assert np.ptp(scored.oaks_scores) > 0.05


def test_fitted_scores_beat_conventional_scores(fitted):
    """Out of fold: the made-up estimator's heat is a poor guide to its similarity, and visibility is known by it."""
    figures = fitted.scorer.card.out_of_fold
    assert figures["oaks"]["Pearson"] > figures["conventional"]["Pearson"]
    assert figures["oaks"]["ECE"] < figures["conventional"]["ECE"]
    assert fitted.scorer.card.fitted_on["people"] == figures["people"]


def test_fitted_twice_is_the_same_file(fitted, files, tmp_path):
    again = fit_results(
        *files,
        out=tmp_path / "again.json",
        estimator="made-up",
        decoder="argmax",
        settings=QUICK,
        resamples=20,
    )
    assert again.path.read_bytes() == fitted.path.read_bytes()


def test_a_mirrored_person_gets_the_same_scores(fitted, files):
    points, heat, boxes = arrays(files)
    mirror, width = COCO17.mirror, 512
    turned = points[:, mirror] * [-1, 1] + [width - 1, 0]
    corners = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    straight = fitted.scorer(points, heat, boxes)
    other = fitted.scorer(turned, heat[:, mirror], corners)
    # The nose and others in the middle have no mirrored model: their features may differ.
    paired = [k for pair in COCO17.pairs for k in pair]
    difference = np.abs(straight.similarity - other.similarity[:, mirror])[:, paired]
    assert np.median(difference) < 1e-6


def test_several_files_may_share_ids(files, tmp_path):
    second = frozen.write(tmp_path, seed=9, images=20)
    people = load_people([files[0], second[0]], [files[1], second[1]], skeleton=COCO17)
    alone = [load_people([r], [a], skeleton=COCO17) for r, a in (files, second)]
    assert len(people.heat) == sum(len(one.heat) for one in alone)
    np.testing.assert_array_equal(people.similarity, np.concatenate([one.similarity for one in alone]))
    np.testing.assert_array_equal(people.boxes, np.concatenate([one.boxes for one in alone]))
    assert len(np.unique(people.images)) == sum(len(np.unique(one.images)) for one in alone)


def test_several_files_may_number_their_categories_differently(files, tmp_path):
    rows, content = (json.loads(path.read_text()) for path in files)
    for entry in [*rows, *content["annotations"]]:
        entry["category_id"] = 4
    content["categories"] = [{"id": 1, "name": "bicycle"}, {**content["categories"][0], "id": 4}]
    for n, person in enumerate(list(content["annotations"])[:9]):
        content["annotations"].append({
            "id": 900 + n, "image_id": person["image_id"], "category_id": 1, "bbox": [0, 0, 300, 300], "area": 90000,
            "iscrowd": 0,
        })  # fmt: skip
        rows.append({**rows[0], "image_id": person["image_id"], "category_id": 1, "annotation_id": 900 + n})
    results, annotations = frozen.save(tmp_path, rows, content)
    one = load_people([files[0]], [files[1]], skeleton=COCO17)
    both = load_people([files[0], results], [files[1], annotations], skeleton=COCO17)
    count = len(one.points)
    assert len(both.points) == 2 * count
    for half in (slice(0, count), slice(count, None)):
        np.testing.assert_array_equal(both.points[half], one.points)
        np.testing.assert_array_equal(
            both.truth.areas[both.detections.own[half]], one.truth.areas[one.detections.own]
        )


def test_detected_boxes_find_their_people(tmp_path):
    """A pose that fails altogether still belongs to the person whose box overlaps its own."""
    results, annotations = frozen.write(tmp_path, boxes="ground truth")
    rows, content = json.loads(results.read_text()), json.loads(annotations.read_text())
    person = {a["id"]: a for a in content["annotations"]}
    expected = [row.pop("annotation_id") for row in rows]
    for number, (row, own) in enumerate(zip(rows, expected, strict=True)):
        row["bbox"] = person[own]["bbox"]
        if number % 2:
            row["keypoints"] = [v + 500 * (i % 3 < 2) for i, v in enumerate(row["keypoints"])]
    people = load_people(
        list(map(str, frozen.save(tmp_path, rows, content)[:1])), [annotations], skeleton=COCO17
    )
    assert people.detections.box_source == "detected"
    found = people.truth.ids[people.detections.own]
    ordered = np.array(expected)[people.detections.rows]
    alone = [sum(_overlap(person[o]["bbox"], a["bbox"]) > 0.5 for a in content["annotations"]
                 if a["image_id"] == person[o]["image_id"]) == 1 for o in ordered]  # fmt: skip
    assert sum(alone) > 50
    np.testing.assert_array_equal(found[alone], ordered[alone])


def _overlap(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(w, 0) * max(h, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def same_score_everywhere(rows):
    for row in rows:
        row["keypoints"][2::3] = [0.5] * 17


def one_score_per_pose(rows):
    for n, row in enumerate(rows):
        row["keypoints"][2::3] = [0.1 + n % 7 / 10] * 17


def pairs_only(rows):
    for row in rows:
        row["keypoints"] = [row["keypoints"][i] for i in range(51) if i % 3 < 2]


def other_images(rows):
    for row in rows:
        row["image_id"] += 10_000


def not_a_number(rows):
    rows[3]["keypoints"][5] = float("nan")


def thirteen_keypoints(rows):
    for row in rows:
        row["keypoints"] = row["keypoints"][:39]


def few(rows):
    del rows[30:]


def boxed(box):
    def spoil(rows):
        rows[3]["bbox"] = box

    return spoil


def placed(value, at):
    def spoil(rows):
        rows[3]["keypoints"][at] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (same_score_everywhere, "must have scores that differ, got 0.5 for every keypoint"),
        (one_score_per_pose, "one score for all keypoints of each pose"),
        (pairs_only, "17 keypoints of 3 numbers"),
        (other_images, "has no image"),
        (not_a_number, "row 3 .*keypoints must be finite"),
        (thirteen_keypoints, "17 keypoints of 3 numbers each, the row has 13"),
        (lambda rows: rows.clear(), "at least one pose, got an empty list"),
        (boxed([1, 2, 3]), "row 3 .*box must "),
        (boxed("wide"), "row 3 .*box must "),
        (boxed([1, 2, -3, 4]), "row 3 .*box must "),
        (boxed([1, float("nan"), 3, 4]), "row 3 .*box must "),
        (boxed([1, 2, 3, 1e10]), "row 3 .*box must be within 1e\\+09"),
        (placed(1e30, 0), "row 3 .*keypoints must be within 1e\\+09"),
        (placed(1e300, 2), "row 3 .*keypoints must be within 1e\\+09"),
        (few, "at least 6[0-9] poses of annotated people, one for each feature, got 30"),
    ],
)
def test_unusable_results_are_refused(files, tmp_path, spoil, message):
    rows, content = json.loads(files[0].read_text()), json.loads(files[1].read_text())
    spoil(rows)
    results, annotations = frozen.save(tmp_path, rows, content)
    with pytest.raises(ValueError, match=message):
        fit_results(results, annotations, out=tmp_path / "scorer", settings=QUICK)
    assert not (tmp_path / "scorer").exists()


def test_one_file_counts_once(files):
    with pytest.raises(ValueError, match="results must be different files"):
        fit_results([files[0], files[0]], [files[1], files[1]], settings=QUICK)


def test_scarce_classes_and_labels_cause_warnings(files, tmp_path, caplog):
    rows, content = json.loads(files[0].read_text()), json.loads(files[1].read_text())
    crowded = {a["id"] for a in content["annotations"] if a["num_keypoints"] <= 5}
    rows = [row for row in rows if row["annotation_id"] not in crowded]
    for row in rows:
        row["keypoints"][2] = 0.25
    with caplog.at_level(logging.WARNING, "oaks"):
        fitted = fit_results(*frozen.save(tmp_path, rows, content), settings=QUICK, resamples=5)
    assert any("class 'Almost occluded'" in text for text in fitted.warnings)
    assert "keypoint nose has the same score in every pose; its score says nothing" in fitted.warnings
    assert set(fitted.warnings) <= {record.message for record in caplog.records}
    assert fitted.path is None


def test_a_scorer_refuses_what_it_was_not_fitted_to(fitted):
    fitted.scorer.require(estimator="made-up", decoder="argmax", skeleton=COCO17)
    with pytest.raises(ValueError, match="estimator must be 'made-up', .*got 'other'"):
        fitted.scorer.require(estimator="other")
    with pytest.raises(ValueError, match="decoder must be 'argmax', .*got 'dark'"):
        fitted.scorer.require(decoder="dark")
    turned = Skeleton("turned", COCO17.keypoints[::-1], COCO17.sigmas[::-1])
    with pytest.raises(ValueError, match="skeleton must have the scorer's keypoints"):
        fitted.scorer.require(skeleton=turned)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("keypoints", lambda a: a[:, :16], r"keypoints must have shape \(N, 17, 2\), got"),
        ("scores", lambda a: a[1:], r"scores must have shape"),
        ("scores", lambda a: np.where(np.arange(17) == 2, np.nan, a), "scores must be finite, got NaN or infinity in row 0"),
        ("scores", lambda a: np.full_like(a, 0.5), "scores: keypoints must have scores that differ, got 0.5 for every"),
        ("scores", lambda a: a[:, :1].repeat(17, 1), "scores: keypoints must have a score each"),
        ("boxes", lambda a: None, "boxes must be given to this scorer, which was fitted with boxes, got None"),
        ("boxes", lambda a: a[:, :3], r"boxes must have shape"),
    ],
)  # fmt: skip
def test_poses_that_do_not_fit_are_refused(fitted, files, name, change, message):
    given = dict(zip(("keypoints", "scores", "boxes"), arrays(files), strict=True))
    given[name] = change(given[name])
    with pytest.raises(ValueError, match=message):
        fitted.scorer(**given)


def test_one_pose_is_scored_even_if_the_scores_of_its_keypoints_are_equal(fitted, files):
    points, heat, boxes = (array[:1] for array in arrays(files))
    assert np.array_equal(
        fitted.scorer(points, heat, boxes).similarity, fitted.scorer(*arrays(files)).similarity[:1]
    )
    assert 0 <= fitted.scorer(points, 0 * heat, boxes).oaks_scores[0] <= 1
    with pytest.raises(ValueError, match="scores: keypoints must have scores that differ, got 0 for every"):
        fitted.scorer(*(np.repeat(array, 2, axis=0) for array in (points, 0 * heat, boxes)))


def test_no_poses_give_no_scores(fitted):
    scored = fitted.scorer(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)))
    assert scored.oaks_scores.shape == (0,)
    assert scored.similarity.shape == (0, 17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "format must be at most 1, got 2; upgrade oaks"),
        (lambda c: c.pop("estimator"), "field 'estimator' is missing"),
        (lambda c: c["features"].reverse(), "features must be those of this version"),
        (lambda c: c.update(kind="magic"), "kind must be one of"),
        (lambda c: c["similarity"]["left"].__setitem__(0, 0), "later splits"),
        (lambda c: c.clear(), "not a scorer's file"),
    ],
)
def test_damaged_files_are_refused_by_name(fitted, tmp_path, change, message):
    content = json.loads(fitted.path.read_text())
    change(content)
    path = tmp_path / "scorer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        oaks.Scorer(path)
    assert str(path) in str(error.value)


def test_a_missing_scorer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="scorer not found: .*nowhere"):
        oaks.Scorer(tmp_path / "nowhere")


def with_boxes(files, tmp_path):
    rows, content = json.loads(files[0].read_text()), json.loads(files[1].read_text())
    boxes = {a["id"]: a["bbox"] for a in content["annotations"]}
    for n, row in enumerate(rows):
        row["bbox"] = boxes[row["annotation_id"]]
        row["box_score"] = 0.5 + n % 3 / 10
    return frozen.save(tmp_path, rows, content)[0], rows


def test_results_are_rescored_in_place_and_order(fitted, files, tmp_path):
    results, rows = with_boxes(files, tmp_path)
    out = rescore_results(fitted.scorer, results, tmp_path / "better.json", estimator="made-up")
    better = json.loads(out.read_text())
    points = np.array([row["keypoints"] for row in rows]).reshape(-1, 17, 3)
    x, y, w, h = np.array([row["bbox"] for row in rows]).T
    scored = fitted.scorer(points[..., :2], points[..., 2], np.stack([x, y, x + w, y + h], axis=1))
    boxes = np.array([row["box_score"] for row in rows])
    np.testing.assert_allclose([row["score"] for row in better], scored.oaks_scores * boxes, rtol=1e-6)
    assert [row["keypoints"] for row in better] == [row["keypoints"] for row in rows]
    assert [row["annotation_id"] for row in better] == [row["annotation_id"] for row in rows]
    assert all("bbox" not in row for row in better)
    np.testing.assert_allclose([row["similarity"] for row in better], scored.similarity, atol=1e-6)


@pytest.mark.parametrize("power", [0.25, None])
def test_rescored_results_are_ranked_by_the_power_of_the_box_score_that_they_state(
    fitted, files, tmp_path, power
):
    results, rows = with_boxes(files, tmp_path)
    header = {"estimator": "made-up", "box_source": "detected: boxes.json"}
    results.with_suffix(".header.json").write_text(
        json.dumps(header | ({} if power is None else {"box_score_power": power}))
    )
    out = rescore_results(fitted.scorer, results, tmp_path / "better.json")
    truth = GroundTruth.load(tmp_path / "annotations.json")
    found = Detections.load(out, truth)
    assert found.header["box_score_power"] == (power or 1)
    measured = ScoredDetections.of(truth, found)
    assert "own" not in measured.scores  # the file's score is the OAKS score by the stated power
    points = np.array([row["keypoints"] for row in rows]).reshape(-1, 17, 3)
    x, y, w, h = np.array([row["bbox"] for row in rows]).T
    scored = fitted.scorer(points[..., :2], points[..., 2], np.stack([x, y, x + w, y + h], axis=1))
    boxes = np.array([row["box_score"] for row in rows])
    expected = scored.oaks_scores * boxes ** (power or 1)
    np.testing.assert_allclose([row["score"] for row in json.loads(out.read_text())], expected, rtol=1e-6)


def test_a_box_score_that_is_no_number_is_named(fitted, files, tmp_path):
    results, rows = with_boxes(files, tmp_path)
    rows[3]["box_score"] = "high"
    results.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"row 3 .*: box_score must be a finite number from 0 on, got high"):
        rescore_results(fitted.scorer, results, tmp_path / "better.json", estimator="made-up")


def test_results_of_another_estimator_are_not_rescored(fitted, files, tmp_path):
    results, _ = with_boxes(files, tmp_path)
    results.with_suffix(".header.json").write_text(json.dumps({"estimator": "another"}))
    with pytest.raises(ValueError, match="estimator must be 'made-up', .*got 'another'"):
        rescore_results(fitted.scorer, results, tmp_path / "better.json")
    assert not (tmp_path / "better.json").exists()
    with pytest.raises(ValueError, match="box must be x, y, width, height"):
        rescore_results(fitted.scorer, files[0], tmp_path / "better.json")


def of_another_decoder(rows, header):
    header["decoder"] = "dark"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (of_another_decoder, "decoder must be 'argmax', which the scorer was fitted to, got 'dark'"),
        (
            lambda rows, header: thirteen_keypoints(rows),
            "row 0 .*keypoints must be 51 finite numbers, got 39",
        ),
        (lambda rows, header: same_score_everywhere(rows), "scores that differ, got 0.5 for every keypoint"),
        (lambda rows, header: pairs_only(rows), "row 0 .*keypoints must be 51 finite numbers, got 34"),
        (lambda rows, header: not_a_number(rows), "row 3 .*keypoints must be 51 finite numbers"),
        (lambda rows, header: rows.clear(), "at least one pose, got 0 rows"),
        (lambda rows, header: one_score_per_pose(rows), "one score for all keypoints of each pose"),
        (lambda rows, header: boxed([0, 0, -1, 5])(rows), "row 3 .*box must "),
        (lambda rows, header: boxed([0, 0, 1, 1e300])(rows), "row 3 .*box must be within 1e\\+09"),
        (
            lambda rows, header: rows[3].update(box_score=-0.5),
            "row 3 .*box_score must be a finite number from 0 on",
        ),
    ],
)
def test_results_that_a_scorer_does_not_fit_are_not_rescored(fitted, files, tmp_path, spoil, message):
    results, rows = with_boxes(files, tmp_path)
    header = {"estimator": "made-up"}
    spoil(rows, header)
    results.write_text(json.dumps(rows))
    results.with_suffix(".header.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=message):
        rescore_results(fitted.scorer, results, tmp_path / "better.json")
    assert not (tmp_path / "better.json").exists()


def test_a_bug_is_not_blamed_on_the_results(fitted, files, tmp_path, monkeypatch):
    def broken(*_arguments):
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr("oaks.scorer.results_features", broken)
    with pytest.raises(ValueError, match="^operands") as caught:
        rescore_results(fitted.scorer, with_boxes(files, tmp_path)[0], tmp_path / "better.json")
    assert not isinstance(caught.value, oaks.ArgumentError)


def test_other_score_distributions_are_detected(fitted, files, tmp_path, caplog):
    results, rows = with_boxes(files, tmp_path)
    heat = arrays(files)[1]
    assert fitted.scorer.unlike(heat) < 0.05
    assert fitted.scorer.unlike(heat**3) > 0.25
    for row in rows:
        row["keypoints"][2::3] = (np.array(row["keypoints"][2::3]) ** 3).tolist()
    results.write_text(json.dumps(rows))
    with caplog.at_level(logging.WARNING, "oaks"):
        rescore_results(fitted.scorer, results, tmp_path / "better.json")
    assert "unlike those that the scorer was fitted to" in caplog.text


def moved(rows, amount):
    """The same people as another estimator sees them: close where its own keypoints are, or far off."""
    rng = np.random.default_rng(4)
    others = json.loads(json.dumps(rows))
    for row in others:
        points = np.array(row["keypoints"]).reshape(-1, 3)
        points[:, :2] += rng.normal(0, amount, (len(points), 2))
        row["keypoints"] = points.ravel().tolist()
    return others


def test_a_second_opinion_becomes_features(files, tmp_path):
    results, rows = with_boxes(files, tmp_path)
    second = tmp_path / "second.json"
    second.write_text(json.dumps(moved(rows, 3)))
    fitted = fit_results(
        results, tmp_path / "annotations.json", out=tmp_path / "scorer", second=second, second_opinion="another",
        settings=QUICK, resamples=5,
    )  # fmt: skip
    assert fitted.scorer.card.second_opinion == "another"
    assert fitted.scorer.card.features[-5:] == (
        "second_dx", "second_dy", "second_reach", "second_heat_of", "second_heat_over_mean",
    )  # fmt: skip
    out = rescore_results(oaks.Scorer(tmp_path / "scorer"), results, tmp_path / "better.json", second=second)
    assert len(json.loads(out.read_text())) == len(rows)
    with pytest.raises(ValueError, match="second must be the poses of 'another'"):
        rescore_results(oaks.Scorer(tmp_path / "scorer"), results, tmp_path / "better.json")
    others, count = moved(rows, 3), len(rows)
    other_image = {**others[-1], "image_id": others[0]["image_id"]}
    short = {**others[-1], "keypoints": others[-1]["keypoints"][:-1]}
    for damaged, message in (
        (others[1:], f"second must have a row for each of the {count} of results, got {count - 1}"),
        (
            [*others, others[-1]],
            f"second must have a row for each of the {count} of results, got {count + 1}",
        ),
        ([*others[:-1], other_image], "second must have the images of results row by row, got image"),
        ([*others[:-1], short], "keypoints must be 51 finite numbers, got 50"),
    ):
        second.write_text(json.dumps(damaged))
        with pytest.raises(ArgumentError, match=message):
            fit_results(results, tmp_path / "annotations.json", second=second, settings=QUICK)
        with pytest.raises(ArgumentError, match=message):
            rescore_results(oaks.Scorer(tmp_path / "scorer"), results, tmp_path / "no.json", second=second)
    assert not (tmp_path / "no.json").exists()


def test_a_second_opinion_in_images_with_ids_beyond_those_of_joined_files(files, tmp_path):
    results, rows = with_boxes(files, tmp_path)
    content = json.loads(files[1].read_text())
    for entry in (*rows, *content["annotations"]):
        entry["image_id"] += IDS_PER_FILE
    for image in content["images"]:
        image["id"] += IDS_PER_FILE
    results, annotations = frozen.save(tmp_path / "offset", rows, content)
    second = tmp_path / "second.json"
    second.write_text(json.dumps(moved(rows, 3)))
    fitted = fit_results(results, annotations, second=second, settings=QUICK, resamples=2)
    assert fitted.scorer.card.second_opinion == "second estimator"


def test_second_features_are_in_units_of_the_keypoints_deviation():
    from oaks.results_features import with_opinion

    keypoints = np.zeros((1, 17, 2))
    boxes = np.array([[0.0, 0, 100, 100]])
    reach = 2 * np.array(COCO17.sigmas) * np.sqrt(0.53 * 100 * 100)
    other = np.stack([reach, -2 * reach], axis=1)[None]
    found = with_opinion(COCO17, None, keypoints, boxes, (other, np.full((1, 17), 0.5)))
    left = [COCO17.side(k) == "left" for k in range(17)]
    np.testing.assert_allclose(found[0, :, 0], np.where(left, -1, 1), rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 1], -2, rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 2], np.sqrt(5), rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 3:], np.tile([0.5, 0], (17, 1)))


def test_people_of_the_training_set_are_detected(files, tmp_path):
    """The reference is the same estimator with keypoints moved: it does worse there, at equal occlusion and size."""
    rows, content = json.loads(files[0].read_text()), json.loads(files[1].read_text())
    worse = frozen.save(tmp_path / "worse", moved(rows, 25), content)
    same = frozen.write(tmp_path / "same", seed=31)
    noticed = fit_results(*files, reference=worse, settings=QUICK, resamples=2)
    assert any(
        text.startswith("the estimator was probably trained on these people") for text in noticed.warnings
    )
    quiet = fit_results(*files, reference=same, settings=QUICK, resamples=2)
    assert not any("trained on" in text for text in quiet.warnings)
