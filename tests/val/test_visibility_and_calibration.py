"""Visibility figures, correlations, calibration and thresholds against simple calculations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from oaks.val.calibration import BINS, measure_calibration, pearson, spearman, threshold_for
from oaks.val.visibility import area_under_curve, visibility_metrics


def test_visibility_figures_equal_counts():
    #        hits            missed   unlabeled: predicted visible, predicted absent
    said = [0.9, 0.6, 0.51, 0.5, 0.2, 0.7, 0.1, 0.3, 0.4, 0.0]
    flags = [2, 2, 1, 1, 2, 0, 0, 0, 0, 0]
    found = visibility_metrics(np.array(said).reshape(2, 5), np.array(flags).reshape(2, 5))
    assert found.count == 10
    assert found.labeled == pytest.approx(5 / 10)
    assert found.accuracy == pytest.approx(7 / 10)
    assert found.precision == pytest.approx(3 / 4)
    assert found.recall == pytest.approx(3 / 5)
    assert found.recall_seen == pytest.approx(2 / 3)
    assert found.recall_hidden == pytest.approx(1 / 2)
    assert found.specificity == pytest.approx(4 / 5)
    pairs = [
        (v, w)
        for v, f in zip(said, flags, strict=True)
        for w, g in zip(said, flags, strict=True)
        if f and not g
    ]
    assert found.auc == pytest.approx(np.mean([(v > w) + 0.5 * (v == w) for v, w in pairs]))


def test_a_visibility_of_half_counts_as_invisible():
    assert visibility_metrics(np.array([0.5]), np.array([2])).recall == 0
    assert visibility_metrics(np.array([np.nextafter(0.5, 1)]), np.array([2])).recall == 1


def test_figures_without_cases_are_undefined():
    found = visibility_metrics(np.array([0.2, 0.4]), np.array([2, 1]))
    assert math.isnan(found.precision)
    assert math.isnan(found.specificity)
    assert math.isnan(found.auc)
    assert found.recall == 0


def test_equal_values_count_half_in_the_area_under_the_curve():
    rng = np.random.default_rng(0)
    values, positive = rng.integers(0, 5, 60) / 4, rng.random(60) < 0.4
    by_pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(values[positive], values[~positive])]
    assert area_under_curve(values, positive) == pytest.approx(np.mean(by_pairs))


def test_calibration_equals_a_loop():
    rng = np.random.default_rng(3)
    scores, oks = rng.random(100), rng.random(100)
    found = measure_calibration(scores, oks)
    order = sorted(range(100), key=lambda n: scores[n])
    # 100 in 15 bins: ten of 7, five of 6.
    sizes = [7] * 10 + [6] * 5
    error, start = 0.0, 0
    for size, s, o, count in zip(sizes, found.bin_scores, found.bin_oks, found.bin_counts, strict=True):
        members = order[start : start + size]
        start += size
        assert count == size
        assert s == pytest.approx(sum(scores[n] for n in members) / size)
        assert o == pytest.approx(sum(oks[n] for n in members) / size)
        error += size / 100 * abs(s - o)
    assert found.ece == pytest.approx(error)
    assert found.brier == pytest.approx(
        sum((s - (o >= 0.5)) ** 2 for s, o in zip(scores, oks, strict=True)) / 100
    )


def test_a_calibrated_score_has_no_calibration_error():
    oks = np.linspace(0, 1, 300)
    exact = measure_calibration(oks, oks)
    assert exact.ece == pytest.approx(0, abs=1e-12)
    assert exact.pearson == pytest.approx(1)
    assert len(exact.bin_counts) == BINS
    assert set(exact.bin_counts) == {20}
    assert measure_calibration(oks * 0.5, oks).ece == pytest.approx(oks.mean() / 2)
    assert measure_calibration(oks**3, oks).spearman == pytest.approx(1)


def test_an_oks_of_half_counts_as_correct():
    assert measure_calibration(np.array([1.0]), np.array([0.5])).brier == 0
    assert measure_calibration(np.array([1.0]), np.array([0.49999])).brier == 1


def test_calibration_of_few_cases():
    none = measure_calibration(np.array([]), np.array([]))
    assert none.count == 0
    assert all(math.isnan(v) for v in (none.pearson, none.spearman, none.ece, none.brier))
    three = measure_calibration(np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.5, 0.7]))
    assert three.bin_counts.tolist() == [1, 1, 1]
    assert three.ece == pytest.approx((0.1 + 0 + 0.2) / 3)
    with pytest.raises(ValueError, match="the same length"):
        measure_calibration(np.zeros(3), np.zeros(2))


def test_correlations_equal_their_definitions():
    rng = np.random.default_rng(1)
    a, b = rng.random(50), rng.random(50)
    expected = np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std())
    assert pearson(a, b) == pytest.approx(expected)
    ranks = [np.array([np.sum(v < x) for x in v]) for v in (a, b)]
    assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert math.isnan(pearson(a, np.ones(50)))
    assert math.isnan(spearman(a[:1], b[:1]))


def test_the_threshold_is_the_lowest_that_reaches_the_precision():
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 40, 200) / 40
    right = rng.random(200) < scores
    for precision in (0.6, 0.8, 0.9):
        found = threshold_for(scores, right, precision)
        reaching = [t for t in set(scores) if right[scores >= t].mean() >= precision]
        assert found.score == min(reaching)
        assert found.kept == np.mean(scores >= found.score)
        assert found.recall == pytest.approx(right[scores >= found.score].sum() / right.sum())


def test_an_unreachable_precision_has_no_threshold():
    found = threshold_for(np.array([0.9, 0.5]), np.array([False, True]), 0.9)
    assert math.isnan(found.score)
    assert (found.kept, found.recall) == (0, 0)
    assert math.isnan(threshold_for(np.array([]), np.array([], dtype=bool), 0.5).score)
