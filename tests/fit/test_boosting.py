"""Forests as plain arrays against the library that fitted them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from oaks import forest_file, ops
from oaks.fit import boosting
from oaks.fit.boosting import Examples, Settings, folds_of, to_forest

lightgbm = pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def booster():
    """A model of rows with few distinct values, so that many rows lie on thresholds' edges."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 5)).round(1).astype(np.float32)
    target = 1 / (1 + np.exp(-(rows[:, 0] * rows[:, 1] + rows[:, 2])))
    parameters = {"objective": "cross_entropy", "num_leaves": 12, "min_data_in_leaf": 4, "verbosity": -1}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, target), 20), rows


def predict(forest, rows):
    return ops.forest(rows[None], forest)[0]


def test_a_forest_predicts_what_the_library_does(booster):
    model, rows = booster
    forest = to_forest(model.dump_model(), 5)
    assert len(forest.roots) == 20
    np.testing.assert_allclose(predict(forest, rows), model.predict(rows), rtol=0, atol=1e-6)


def test_rows_on_a_threshold_go_the_librarys_way(booster):
    """Each threshold as a feature's value, rounded down and up to float32: x <= threshold flips in between."""
    model, rows = booster
    forest = to_forest(model.dump_model(), 5)
    # LightGBM takes what is nearer to 0 than 1e-35 for 0, whatever the threshold.
    usual = np.abs(forest.threshold) > 1e-30
    below, feature = forest.threshold[usual], forest.feature[usual]
    above = np.nextafter(below, np.float32(np.inf))
    edge = np.repeat(rows[:1], 2 * len(below), axis=0)
    edge[np.arange(2 * len(below)), np.tile(feature, 2)] = np.concatenate([below, above])
    told = predict(forest, edge)
    np.testing.assert_allclose(told, model.predict(edge), rtol=0, atol=1e-6)
    halves = told.reshape(2, -1)
    assert (halves[0] != halves[1]).any(), "no row flips between the two sides of a threshold"


def test_a_forest_comes_back_from_json_to_the_last_bit(booster):
    model, rows = booster
    forest = to_forest(model.dump_model(), 5)
    again = forest_file.read(json.dumps(forest_file.to_dict(forest)).encode(), "forest.json")
    for name in ("roots", "feature", "threshold", "left", "right", "leaves"):
        np.testing.assert_array_equal(getattr(again, name), getattr(forest, name))
    np.testing.assert_array_equal(predict(again, rows), predict(forest, rows))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("left", 0, "later splits|one parent"),
        ("left", 10_000, "later splits"),
        ("right", -10_000, "later splits"),
        ("roots", 10_000, "later splits"),
        ("feature", 5, "feature must be from 0 to 4"),
        ("feature", -1, "feature must be from 0 to 4"),
        ("threshold", float("nan"), "list of numbers|finite"),
        ("leaves", "1", "list of numbers"),
        ("leaves", 1e39, "list of numbers"),
    ],
)
def test_a_file_that_leads_out_of_the_arrays_is_refused(booster, field, value, message):
    """Children must come later, so that no walk ends nowhere or goes round in circles."""
    content = forest_file.to_dict(to_forest(booster[0].dump_model(), 5))
    content[field][0] = value
    with pytest.raises(ValueError, match=message):
        forest_file.from_dict(content)


def test_a_fold_holds_whole_images():
    images = np.repeat(np.arange(50), 3)
    fold = folds_of(images, 5, seed=1)
    assert all(len(set(fold[images == image])) == 1 for image in range(50))
    assert np.bincount(fold, minlength=5).tolist() == [30] * 5
    assert (fold != folds_of(images, 5, seed=2)).any()
    with pytest.raises(ValueError, match="at least 5"):
        folds_of(np.arange(4), 5, seed=0)


def test_predictions_are_out_of_fold():
    """Each image has a similarity of its own that only a model fitted to it can know."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 4)
    of_image = rng.choice([0.05, 0.95], 40)
    features = np.zeros((160, 2, 3), np.float32)
    features[..., 0] = images[:, None]
    features[..., 1:] = rng.normal(size=(160, 2, 2))
    similarity = np.repeat(of_image[images][:, None], 2, axis=1)
    examples = Examples(features, similarity, np.ones((160, 2), bool), images, np.ones(160, bool))
    settings = Settings(60, False, leaves=30, rate=0.3, feature_fraction=1.0, least=1, folds=40)
    told = np.zeros((160, 2))
    for rows, ks, _ in boosting.out_of_fold(examples, settings):
        told[rows] = ks
    seen = ops.forest(features, boosting.fit_forests(examples, settings)[0])
    assert np.abs(seen - similarity).mean() < 0.05
    assert np.abs(told - similarity).mean() > 0.2


def test_similarity_has_random_thresholds_and_visibility_the_best():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(200, 3, 6)).astype(np.float32)
    similarity = 1 / (1 + np.exp(-features[..., 0]))
    labeled = rng.random((200, 3)) < 1 / (1 + np.exp(-features[..., 1]))
    examples = Examples(features, similarity, labeled, np.arange(200), np.ones(200, bool))
    plain, random = (
        boosting.fit_forests(examples, Settings(20, thresholds, leaves=8)) for thresholds in (False, True)
    )
    assert len(set(plain[0].threshold) & set(random[0].threshold)) < 0.2 * len(plain[0].threshold)
    np.testing.assert_array_equal(plain[1].threshold, random[1].threshold)
    again = boosting.fit_forests(examples, Settings(20, leaves=8))
    np.testing.assert_array_equal(random[0].threshold, again[0].threshold)
