"""forest against the naive reference and LightGBM, and invalid trees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops
from oaks.ops import Forest

from . import reference
from .cases import DRAWN, rng, seeds, strided

VALUES = np.float32([-1, -0.5, 0, 0.25, 0.5, 1])


def trees(seed, count, most_leaves, features):
    """Random trees as arguments of ops.Forest; many values in VALUES equal a threshold."""
    draw = rng(seed)
    model = {name: [] for name in ("roots", "feature", "threshold", "left", "right", "nan_left", "leaves")}

    def grow(leaves):
        if leaves == 1:
            model["leaves"].append(draw.normal())
            return -len(model["leaves"])
        split, on_the_left = len(model["feature"]), int(draw.integers(1, leaves))
        model["feature"].append(int(draw.integers(features)))
        model["threshold"].append(draw.choice(VALUES))
        model["nan_left"].append(bool(draw.integers(2)))
        for side in ("left", "right"):
            model[side].append(None)
        model["left"][split], model["right"][split] = grow(on_the_left), grow(leaves - on_the_left)
        return split

    for _ in range(count):
        model["roots"].append(grow(int(draw.integers(1, most_leaves + 1))))
    kinds = {"threshold": np.float32, "leaves": np.float32, "nan_left": bool}
    return {name: np.array(values, kinds.get(name, np.int32)) for name, values in model.items()}


@settings(DRAWN, max_examples=60)
@given(
    people=st.integers(0, 5),
    keypoints=st.sampled_from([1, 3, 17]),
    features=st.sampled_from([1, 2, 7, 40]),
    count=st.sampled_from([1, 2, 5, 40]),
    leaves=st.sampled_from([1, 2, 5, 24, 32]),
    holes=st.booleans(),
    seed=seeds,
)
def test_random_trees_match_the_reference(people, keypoints, features, count, leaves, holes, seed):
    model = trees(seed, count, leaves, features)
    rows = rng(seed).choice(VALUES, (people, keypoints, features))
    if holes:
        odd = rng(seed + 1).choice(np.float32([np.nan, np.inf, -np.inf]), rows.shape)
        rows = np.where(rng(seed + 2).uniform(size=rows.shape) < 0.3, odd, rows)
    values = ops.forest(rows, Forest(features, **model))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, reference.forest(rows, model), rtol=1e-6, atol=0)


def stump(threshold=0.5, nan_left=False, **changes):
    """One split on the second of two features: leaf -1 on the left, leaf 2 on the right."""
    arrays = {
        "roots": [0],
        "feature": [1],
        "threshold": [threshold],
        "left": [-1],
        "right": [-2],
        "leaves": [-1.0, 2.0],
        "nan_left": [nan_left],
        **changes,
    }
    return Forest(2, **arrays)


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def test_the_threshold_itself_goes_left():
    above = np.nextafter(np.float32(0.5), np.float32(1))
    rows = np.float32([[[9, 0.5], [9, above], [9, -np.inf], [9, np.inf], [-9, 0.25]]])
    np.testing.assert_allclose(ops.forest(rows, stump()), sigmoid(np.array([[-1, 2, -1, 2, -1]])), rtol=1e-6)


@pytest.mark.parametrize("nan_left", [False, True])
def test_nan_goes_to_the_side_that_nan_left_selects(nan_left):
    rows = np.float32([[[0, np.nan]]])
    expected = sigmoid(-1.0 if nan_left else 2.0)
    assert ops.forest(rows, stump(nan_left=nan_left)) == pytest.approx(expected)


def test_trees_of_one_leaf_add_their_values():
    model = Forest(3, roots=[-2, -1], feature=[], threshold=[], left=[], right=[], leaves=[0.5, 0.25])
    np.testing.assert_allclose(ops.forest(np.zeros((2, 1, 3), np.float32), model), sigmoid(0.75), rtol=1e-6)


def test_large_sums_saturate_the_sigmoid():
    for leaf, expected in ((1e4, 1.0), (-1e4, 0.0)):
        model = Forest(1, roots=[-1], feature=[], threshold=[], left=[], right=[], leaves=[leaf])
        assert ops.forest(np.zeros((1, 1, 1), np.float32), model) == expected


def chain(leaves, to_the_left=False):
    """A tree in which every split has a leaf on the same side."""
    splits = leaves - 1
    deeper = np.array([*range(1, splits), -leaves], np.int32)
    ends = -1 - np.arange(splits, dtype=np.int32)
    sides = (deeper, ends) if to_the_left else (ends, deeper)
    return {
        "roots": [0],
        "feature": np.zeros(splits, np.int32),
        "threshold": np.arange(splits) * (-1.0 if to_the_left else 1.0),
        "left": sides[0],
        "right": sides[1],
        "leaves": np.arange(leaves) / 10,
        "nan_left": np.zeros(splits, bool),
    }


@pytest.mark.parametrize("to_the_left", [False, True])
def test_trees_have_at_most_32_leaves(to_the_left):
    model = chain(32, to_the_left)
    rows = np.arange(-40, 40, dtype=np.float32)[:, None, None]
    values = ops.forest(rows, Forest(1, **model))
    assert len(np.unique(values)) == 32
    np.testing.assert_allclose(values, reference.forest(rows, model), rtol=1e-6)
    with pytest.raises(ValueError, match=r"trees must have at most 32 leaves, got 33 in tree 0"):
        Forest(1, **chain(33, to_the_left))


def test_predictions_match_lightgbm():
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is not installed")
    draw = rng(1)
    rows = draw.normal(size=(1500, 6)).astype(np.float32)
    targets = sigmoid(rows[:, 0] * rows[:, 1] + rows[:, 2])
    rows[draw.uniform(size=rows.shape) < 0.1] = np.nan
    parameters = {
        "objective": "cross_entropy",
        "num_leaves": 24,
        "num_threads": 1,
        "seed": 1,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, targets), 40)
    model = from_lightgbm(booster.dump_model(), 6)
    assert model.nan_left.any()
    assert not model.nan_left.all()
    values = ops.forest(rows.reshape(500, 3, 6), model)
    expected = booster.predict(rows).reshape(500, 3)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def from_lightgbm(dump, features):
    """LightGBM's trees of numeric features; thresholds are rounded down to float32."""
    arrays = {name: [] for name in ("roots", "feature", "threshold", "left", "right", "nan_left", "leaves")}

    def add(node):
        if "leaf_value" in node:
            arrays["leaves"].append(node["leaf_value"])
            return -len(arrays["leaves"])
        assert node["decision_type"] == "<="
        split = len(arrays["feature"])
        nearest = np.float32(node["threshold"])
        below = np.nextafter(nearest, np.float32(-np.inf))
        arrays["feature"].append(node["split_feature"])
        arrays["threshold"].append(below if nearest > node["threshold"] else nearest)
        # If the training had no missing values, LightGBM treats NaN as 0.
        nan_left = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0
        arrays["nan_left"].append(nan_left)
        for side in ("left", "right"):
            arrays[side].append(None)
        arrays["left"][split], arrays["right"][split] = add(node["left_child"]), add(node["right_child"])
        return split

    for tree in dump["tree_info"]:
        arrays["roots"].append(add(tree["tree_structure"]))
    return Forest(features, **arrays)


TWO_SPLITS = {
    "roots": [0],
    "feature": [0, 1],
    "threshold": [0.0, 1.0],
    "left": [1, -1],
    "right": [-2, -3],
    "leaves": [0.1, 0.2, 0.3],
}


def test_the_unchanged_arrays_are_valid():
    assert Forest(2, **TWO_SPLITS).left.tolist() == [1, -1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("roots", [1], r"split must have one parent, got 0"),
        ("roots", [2], r"roots must name later splits or leaves of 2 splits and 3 leaves, got 2"),
        ("roots", [-4], r"roots must .*got -4"),
        ("roots", [0, 0], r"split must have one parent, got 2"),
        ("roots", [], r"roots must name at least one tree"),
        ("left", [0, -1], r"left must name later splits .*got 0"),
        ("left", [1, 0], r"left must name later splits .*got 0"),
        ("left", [1, 1], r"left must name later splits .*got 1"),
        ("left", [2, -1], r"left must .*got 2"),
        ("left", [-1, -1], r"one parent"),
        ("right", [-2, -4], r"right must .*got -4"),
        ("right", [-2, -(2**31)], r"right must .*got -2147483648"),
        ("right", [-2, -2], r"leaf must have one parent, got 2 for leaf 1"),
        ("right", [-2], r"right must have shape \(2,\), got \(1,\)"),
        ("right", [-2, -3.5], r"right must be int32, got float64"),
        ("right", [-2, 2**40], r"right must hold integers that fit int32"),
        ("feature", [0, 2], r"feature must be from 0 to 1, got 2"),
        ("feature", [-1, 0], r"feature must be from 0 to 1, got -1"),
        ("feature", [[0, 1]], r"feature must have shape \(any\), got \(1, 2\)"),
        ("feature", ["a", "b"], r"feature must be int32"),
        ("threshold", [0.0, np.nan], r"threshold must be finite, got nan"),
        ("threshold", [0.0, 1e300], r"threshold must be finite"),
        ("leaves", [0.1, 0.2, np.inf], r"leaves must be finite, got inf"),
        ("leaves", [0.1, 0.2, 0.3, 0.4], r"leaf must have one parent, got 0 for leaf 3"),
        ("leaves", [], r"must name later splits or leaves of 2 splits and 0 leaves"),
        ("nan_left", [True], r"nan_left must have shape \(2,\)"),
        ("nan_left", [1, 0], r"nan_left must be bool, got int64"),
        ("features", 0, r"features must be an integer from 1"),
        ("features", 2**17, r"features must be an integer from 1 to 65536"),
        ("features", 2.0, r"features must be an integer"),
    ],
)
def test_invalid_trees_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Forest(**{"features": 2, **TWO_SPLITS, name: value})


def test_too_many_splits_are_refused_before_they_are_read():
    many = np.broadcast_to(np.int32(0), (2**20 + 1,))
    with pytest.raises(ValueError, match="feature must have at most 1048576 entries, got 1048577"):
        Forest(**{"features": 2, **TWO_SPLITS, "feature": many})


def test_a_forest_is_immutable():
    arrays = {name: np.array(values) for name, values in TWO_SPLITS.items()}
    model = Forest(2, **arrays)
    rows = rng(1).normal(size=(4, 2, 2)).astype(np.float32)
    before = ops.forest(rows, model)
    for array in arrays.values():
        array[...] = 0
    np.testing.assert_array_equal(ops.forest(rows, model), before)
    for array in (model.left, model.leaves, model.arrays.splits, model.arrays.trees, model.arrays.leaves):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.usefixtures("threads", "instruction_set")
def test_threads_and_strides_do_not_change_results():
    model = Forest(9, **trees(3, 30, 24, 9))
    rows = rng(4).normal(size=(41, 17, 9)).astype(np.float32)
    ops.set_threads(1)
    alone = ops.forest(rows, model)
    np.testing.assert_allclose(alone, reference.forest(rows, trees(3, 30, 24, 9)), rtol=1e-6)
    for threads in (2, 5):
        ops.set_threads(threads)
        np.testing.assert_array_equal(ops.forest(rows, model), alone)
    np.testing.assert_array_equal(ops.forest(strided(rows), model), alone)
