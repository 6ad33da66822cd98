"""The bootstrap against pycocotools on data sets with repeated images, and the paired t-test."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from oaks.val.bootstrap import Contender, compare_rankings, paired_t_test, resampled
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.interval import Interval, resample_images
from oaks.val.matching import match
from oaks.val.scores import ScoredDetections

from . import synthetic
from .test_average_precision import matches_of, standalone


@pytest.fixture(scope="module")
def scene():
    content = synthetic.annotations(31, images=20)
    rows = synthetic.detections(content, 31, boxes="detected", noise=0.1)
    truth = GroundTruth.from_coco(content)
    return content, rows, ScoredDetections.of(truth, Detections.from_rows(rows, truth))


def drawn(content, rows, draws):
    """Return the data set in which every image occurs as often as it is drawn, each time with a new id."""
    again = {"images": [], "annotations": [], "categories": content["categories"]}
    found = []
    for image, times in zip(sorted(content["images"], key=lambda i: i["id"]), draws, strict=True):
        for _ in range(times):
            new = len(again["images"]) + 1
            again["images"].append(image | {"id": new})
            for person in content["annotations"]:
                if person["image_id"] == image["id"]:
                    number = len(again["annotations"]) + 1
                    again["annotations"].append(copy.deepcopy(person) | {"image_id": new, "id": number})
            found += [row | {"image_id": new} for row in rows if row["image_id"] == image["id"]]
    return again, found


def test_every_image_drawn_once_equals_pycocotools(scene):
    content, rows, measured = scene
    matches = matches_of(measured.truth, measured.detections)
    draws = np.ones((1, 20), dtype=np.uint16)
    precision, recall = resampled(matches, draws, range(10))
    expected = standalone(content, rows)
    assert precision[0] == pytest.approx(expected.eval["precision"][:, :, 0, 0, 0].mean(axis=1), abs=1e-15)
    assert np.array_equal(recall[0], expected.eval["recall"][:, 0, 0, 0])


def test_a_resample_equals_pycocotools_on_the_drawn_images(scene):
    content, rows, measured = scene
    matches = matches_of(measured.truth, measured.detections)
    draws = resample_images(20, 6, seed=4)
    assert draws.max() > 2
    assert (draws[0] == 1).all()
    precision, recall = resampled(matches, draws, [0, 5, 9])
    for b in range(len(draws)):
        expected = standalone(*drawn(content, rows, draws[b]))
        for column, t in enumerate((0, 5, 9)):
            assert precision[b, column] == pytest.approx(expected.eval["precision"][t, :, 0, 0, 0].mean())
            assert recall[b, column] == pytest.approx(expected.eval["recall"][t, 0, 0, 0])


def test_a_resample_without_people_to_find_is_nan(scene):
    measured = scene[2]
    truth, found = measured.truth, measured.detections
    members = truth.image == 3
    matches = match(truth, measured.found, found.image, found.scores, found.areas, among=members)
    draws = np.ones((2, 20), dtype=np.uint16)
    draws[1, 3] = 0
    precision = resampled(matches, draws, [0])[0][:, 0]
    assert np.isfinite(precision[0])
    assert np.isnan(precision[1])


def test_each_resample_draws_as_many_images_and_depends_on_the_seed_alone():
    draws = resample_images(50, 400, seed=1)
    assert draws.shape == (401, 50)
    assert (draws.sum(axis=1) == 50).all()
    assert np.array_equal(draws, resample_images(50, 400, seed=1))
    assert not np.array_equal(draws, resample_images(50, 400, seed=2))
    # How often one image is drawn is nearly Poisson with mean 1.
    assert draws.mean() == 1
    assert draws[1:].var() == pytest.approx(1 - 1 / 50, abs=0.02)


def test_an_interval_holds_the_middle_95_percent_of_finite_resamples():
    interval = Interval.of(np.array([7.0, *range(101), np.nan, np.inf]))
    assert (interval.value, interval.low, interval.high) == pytest.approx((7, 2.5, 97.5))
    alone = Interval.of(np.array([7.0, np.nan]))
    assert alone.value == 7
    assert np.isnan([alone.low, alone.high]).all()


def test_equal_rankings_do_not_differ_and_a_clear_loss_is_found(scene):
    measured = scene[2]
    good = Contender("good", measured, measured.own_oks)
    same = Contender("same", measured, measured.own_oks)
    bad = Contender("bad", measured, -measured.own_oks)
    for comparison in compare_rankings([good, same, bad], resamples=60):
        zero, lost = comparison.differences
        assert (zero.value, zero.low, zero.high) == (0, 0, 0)
        if comparison.figure == "AP":
            assert lost.high < -0.1
            assert lost.value == comparison.values[2].value - comparison.values[0].value
        low, high = comparison.values[0].low, comparison.values[0].high
        assert low < high or comparison.figure == "AR" or low == high


def test_intervals_contain_the_figures_of_pycocotools(scene):
    content, rows, measured = scene
    expected = standalone(content, rows).stats
    found = {
        c.figure: c.values[0]
        for c in compare_rankings([Contender("x", measured, measured.detections.scores)], resamples=40)
    }
    for index, figure in ((0, "AP"), (1, "AP50"), (2, "AP75"), (3, "APM"), (4, "APL"), (5, "AR")):
        assert found[figure].value == pytest.approx(expected[index])
        assert found[figure].low <= found[figure].value <= found[figure].high


def test_no_contenders_and_no_resamples_are_refused(scene):
    with pytest.raises(ValueError, match="contenders"):
        compare_rankings([])
    with pytest.raises(ValueError, match="resamples"):
        compare_rankings([Contender("x", scene[2], scene[2].own_oks)], resamples=0)


def test_the_paired_t_test_equals_a_calculation_by_hand():
    # Differences 1, 2, 3, 4, 5: mean 3, deviation sqrt(2.5): t = 3 / sqrt(2.5 / 5), 4 degrees of freedom.
    test = paired_t_test([10, 20, 30, 40, 50], [11, 22, 33, 44, 55])
    assert test.means == (30, 33)
    assert test.deviations == pytest.approx((np.sqrt(250), np.sqrt(302.5)))
    assert test.p == pytest.approx(0.01324, abs=1e-5)
    assert test.significant
    assert not paired_t_test([1, 2, 3, 4], [1.1, 1.9, 3.1, 3.9]).significant


def test_a_t_test_of_equal_differences_is_undefined():
    assert np.isnan(paired_t_test([0.5], [0.6]).p)
    assert paired_t_test([0.5], [0.6]).deviations == (0, 0)
    assert not paired_t_test([0.5, 0.5], [0.6, 0.6]).significant
    with pytest.raises(ValueError, match="one figure per training"):
        paired_t_test([1, 2], [1])
    with pytest.raises(ValueError, match="one figure per training"):
        paired_t_test([], [])
