"""pose_features and map_features against the naive reference, and cases on their decision edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import COCO17, ops
from oaks.ops import MAP_FEATURES, feature_names

from . import reference
from .cases import ALIGNMENTS, DRAWN, gaussians, maps, rng, seeds, strided, swap_pairs

FINITE_KINDS = ("noise", "few_levels", "constant", "negative", "bumps", "extreme")


def place(count, keypoints, seed):
    """Random points, boxes and frame sizes; some points and boxes are outside the frame."""
    draw = rng(seed)
    corners = draw.uniform(-20, 300, (count, 2))
    boxes = np.concatenate([corners, corners + draw.choice([0.0, 0.5, 30, 200], size=(count, 2))], axis=1)
    return {
        "points": draw.uniform(-50, 500, (count, keypoints, 2)).astype(np.float32),
        "boxes": boxes.astype(np.float32),
        "frame_sizes": draw.integers(1, 640, (count, 2)).astype(np.float32),
    }


def check(features, expected, names):
    """Compare with the reference: counts and copied values to 1e-6, others to 3e-5."""
    expected = reference.feature_array(expected, names)
    features = features.reshape(-1, len(names))
    expected = expected.reshape(-1, len(names))
    assert features.dtype == np.float32
    copied = (
        "joint",
        "heat",
        "second_",
        "peaks",
        "half_area",
        "pair_at",
        "at_pair",
        "others_at",
        "flip_heat",
    )
    for i, name in enumerate(names):
        size = max(1, abs(expected[:, i]).max(initial=0))
        if name.startswith("heat_"):
            size = abs(expected[:, names.index("heat")]).max(initial=0)
        exact = name.startswith(copied) and name != "heat_mean"
        tolerance = {"rtol": 1e-6, "atol": 1e-6 * size} if exact else {"rtol": 3e-5, "atol": 3e-6 * size}
        np.testing.assert_allclose(features[:, i], expected[:, i], err_msg=name, **tolerance)


@settings(DRAWN, max_examples=30)
@given(count=st.integers(0, 4), keypoints=st.sampled_from([1, 2, 5, 17]), seed=seeds)
def test_random_poses_match_the_reference(count, keypoints, seed):
    draw, pairs = rng(seed), swap_pairs(rng(seed), keypoints)
    heat = draw.normal(size=(count, keypoints)).astype(np.float32)
    arguments = place(count, keypoints, seed)
    points = arguments.pop("points")
    features = ops.pose_features(points, heat, flip_pairs=pairs, **arguments)
    names = feature_names(keypoints, maps=False)
    assert features.shape == (count, keypoints, len(names))
    if count:
        check(features, reference.pose_features(points, heat, flip_pairs=pairs, **arguments), names)


@settings(DRAWN, max_examples=60)
@given(
    count=st.integers(0, 3),
    keypoints=st.sampled_from([1, 2, 3, 5, 17]),
    height=st.integers(1, 14),
    width=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 33]),
    kind=st.sampled_from(FINITE_KINDS),
    half=st.booleans(),
    mirror=st.booleans(),
    alignment=st.sampled_from(ALIGNMENTS),
    seed=seeds,
)
def test_random_maps_match_the_reference(
    count, keypoints, height, width, kind, half, mirror, alignment, seed
):
    shape, dtype = (count, keypoints, height, width), np.float16 if half else np.float32
    heatmaps = maps(kind, shape, seed, dtype)
    mirrored = maps(kind, shape, seed + 1, dtype) if mirror else None
    arguments = {
        "flip_pairs": swap_pairs(rng(seed), keypoints),
        "alignment": alignment,
        **place(count, keypoints, seed),
    }
    features = ops.map_features(heatmaps, mirrored, **arguments)
    names = feature_names(keypoints, mirrored=mirror)
    assert features.shape == (count, keypoints, len(names))
    if count:
        check(features, reference.map_features(heatmaps, mirrored, **arguments), names)


def features_of(heatmap, mirrored=None, **changes):
    """Features of one map of one keypoint, by name."""
    arguments = {
        "points": np.zeros((1, 1, 2), np.float32),
        "boxes": np.float32([[0, 0, 10, 10]]),
        "frame_sizes": np.float32([[20, 20]]),
        "flip_pairs": (),
        **changes,
    }
    mirrored = None if mirrored is None else mirrored[None, None]
    row = ops.map_features(heatmap[None, None], mirrored, **arguments)[0, 0]
    return dict(zip(feature_names(1, mirrored=mirrored is not None), row.tolist(), strict=True))


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, 9e-31])
def test_a_map_without_a_positive_peak_is_empty(value):
    features = features_of(np.full((7, 9), value, np.float32))
    assert features["heat"] == pytest.approx(value)
    assert all(features[name] == 0 for name in MAP_FEATURES)


def test_a_constant_map():
    """The only local peak is the first cell."""
    features = features_of(np.full((5, 7), 0.25, np.float32))
    assert (features["peaks"], features["second_heat"], features["half_area"]) == (1, 0, 35)
    assert features["mass"] == pytest.approx(35)
    assert (features["center_x"], features["center_y"]) == pytest.approx((3, 2))
    assert features["entropy"] == pytest.approx(np.log(35))
    assert features["mass_near"] == pytest.approx(9 / 35)


def test_a_single_cell():
    heatmap = np.zeros((9, 9), np.float32)
    heatmap[4, 5] = 3
    features = features_of(heatmap)
    assert (features["heat"], features["mass"], features["mass_near"]) == (3, 1, 1)
    assert (features["spread"], features["entropy"], features["ring"]) == (0, 0, 0)
    assert (features["peaks"], features["half_area"]) == (1, 1)


def test_a_second_peak_counts_from_a_quarter_of_the_heat():
    heatmap = np.zeros((8, 12), np.float32)
    heatmap[1, 2] = 1
    for value, peaks in ((0.25, 2), (np.nextafter(np.float32(0.25), np.float32(0)), 1)):
        heatmap[5, 9] = value
        features = features_of(heatmap)
        assert features["peaks"] == peaks
        assert features["second_heat"] == pytest.approx(value)
        assert (features["second_x"], features["second_y"], features["second_distance"]) == (
            7,
            4,
            np.float32(65**0.5),
        )


def test_neighbors_of_a_peak_are_not_peaks():
    """Descending cells in a row have one peak; of two equal neighbors the first is the peak."""
    heatmap = np.zeros((6, 10), np.float32)
    heatmap[2, 2:7] = (5, 4, 3, 2, 1)
    assert features_of(heatmap)["peaks"] == 1
    heatmap[:] = 0
    heatmap[2, 2:4] = 1
    assert features_of(heatmap)["peaks"] == 1
    heatmap[2, 3], heatmap[2, 4] = 0, 1
    assert features_of(heatmap)["peaks"] == 2


def test_half_area_includes_cells_of_exactly_half_the_heat():
    heatmap = np.zeros((6, 10), np.float32)
    heatmap[2, 2:5] = (0.5, 1, np.nextafter(np.float32(0.5), np.float32(0)))
    assert features_of(heatmap)["half_area"] == 2


def test_a_gaussian():
    """The mean squared distance from the center is twice the variance."""
    heatmap = gaussians(np.array([[[24.0, 32.0]]]), (48, 64), 2.0)[0, 0].astype(np.float32)
    features = features_of(heatmap)
    assert features["spread"] == pytest.approx(2 * 2**0.5, rel=1e-3)
    assert features["mass"] == pytest.approx(2 * np.pi * 4, rel=1e-3)
    assert features["entropy"] == pytest.approx(np.log(4 * np.pi * 4), rel=1e-3)


def test_the_mirrored_person_has_the_same_features():
    """In the mirror image of a person, left and right keypoints exchange their features."""
    draw = rng(6)
    shape = (2, 17, 16, 12)
    heatmaps = maps("bumps", shape, 5)
    boxes = np.float32([[10, 20, 60, 110], [100, 5, 180, 125]])
    sizes = np.float32([[200, 150], [300, 130]])
    points = draw.uniform(0, 120, (2, 17, 2)).astype(np.float32)
    order = reference.mirror_pairs(COCO17.pairs, 17)[0]
    back = boxes.copy()
    back[:, [0, 2]] = sizes[:, :1] - boxes[:, [2, 0]]
    mirrored_points = points[:, order].copy()
    mirrored_points[..., 0] = sizes[:, :1] - 1 - mirrored_points[..., 0]
    arguments = {"frame_sizes": sizes, "flip_pairs": COCO17.pairs}
    features = ops.map_features(heatmaps, points=points, boxes=boxes, **arguments)
    again = ops.map_features(
        np.ascontiguousarray(heatmaps[:, order, :, ::-1]), points=mirrored_points, boxes=back, **arguments
    )
    paired = [k for k in range(17) if order[k] != k]
    np.testing.assert_allclose(again[:, order][:, paired], features[:, paired], rtol=1e-4, atol=1e-4)
    assert np.abs(again[:, 0] - features[:, 0]).max() > 0.1, "the nose has no counterpart"


def test_flip_features():
    """The mirrored output's peak lies mirrored: columns 3 and 8 of twelve are the same place."""
    heatmap, mirrored = np.zeros((2, 8, 12), np.float32)
    heatmap[2, 3], mirrored[2, 8] = 0.9, 0.5
    features = features_of(heatmap, mirrored)
    assert features["heat"] == pytest.approx(0.7)
    assert (features["flip_distance"], features["flip_heat"]) == (0, 0.5)
    assert features["flip_difference"] == pytest.approx(0.4)
    mirrored[2, 8], mirrored[6, 5] = 0, 0.5
    features = features_of(heatmap, mirrored)
    assert features["flip_distance"] == 5
    assert features["flip_difference"] == pytest.approx(0.9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_non_finite_maps_are_refused(value, dtype):
    """One non-finite cell is enough."""
    for cell in (0, 5, 47):
        heatmaps = maps("noise", (3, 2, 6, 8), 1, dtype)
        heatmaps[1, 1].flat[cell] = value
        arguments = {**place(3, 2, 1), "flip_pairs": [(0, 1)]}
        names = feature_names(2)
        out = np.zeros((3, 2, len(names)), np.float32)
        with pytest.raises(ValueError, match=r"heatmaps must be finite, got others for person 1"):
            ops.map_features(heatmaps, out=out, **arguments)
        assert np.isnan(out[1]).all()
        assert np.isfinite(out[[0, 2]]).all()


def test_feature_names_are_unique():
    for keypoints in (1, 17, 133):
        for arguments in ({"maps": False}, {}, {"mirrored": True}):
            names = feature_names(keypoints, **arguments)
            assert len(set(names)) == len(names)
    assert len(feature_names(17, mirrored=True)) == 17 + 3 * 17 + 18 + 3


@pytest.mark.usefixtures("threads")
def test_threads_do_not_change_results():
    heatmaps, mirrored = maps("bumps", (9, 17, 16, 12), 1), maps("bumps", (9, 17, 16, 12), 2)
    arguments = {**place(9, 17, 1), "flip_pairs": COCO17.pairs}
    ops.set_threads(1)
    alone = ops.map_features(heatmaps, mirrored, **arguments)
    for threads in (2, 5):
        ops.set_threads(threads)
        np.testing.assert_array_equal(ops.map_features(heatmaps, mirrored, **arguments), alone)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("width", [1, 7, 8, 15, 16, 17, 33, 48])
def test_instruction_sets_match_the_reference(width):
    heatmaps, mirrored = maps("noise", (2, 3, 9, width), 1), maps("noise", (2, 3, 9, width), 2)
    arguments = {**place(2, 3, 1), "flip_pairs": [(0, 2)]}
    features = ops.map_features(heatmaps, mirrored, **arguments)
    check(features, reference.map_features(heatmaps, mirrored, **arguments), feature_names(3, mirrored=True))


def test_strided_and_read_only_maps():
    heatmaps = maps("noise", (2, 3, 6, 8), 1)
    arguments = {**place(2, 3, 1), "flip_pairs": ()}
    plain = ops.map_features(heatmaps, **arguments)
    arguments = {name: strided(value) if name != "flip_pairs" else () for name, value in arguments.items()}
    np.testing.assert_array_equal(ops.map_features(strided(heatmaps), **arguments), plain)
