"""oks against equations 1 and 2 in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import COCO17, ops

from . import reference
from .cases import DRAWN, rng, seeds, strided

SIGMAS = np.float32(COCO17.sigmas)


@settings(DRAWN, max_examples=60)
@given(
    count=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    keypoints=st.integers(1, 133),
    spread=st.sampled_from([0.5, 10.0, 100.0]),
    masked=st.booleans(),
    seed=seeds,
)
def test_random_poses_match_the_reference(count, keypoints, spread, masked, seed):
    draw = rng(seed)
    center = draw.uniform(0, 2000, (keypoints, 2))
    a, b = ((center + draw.normal(size=(n, keypoints, 2)) * spread).astype(np.float32) for n in count)
    areas = draw.choice([0.0, 1.0, 400.0, 1e4, 3e5], size=count[1]).astype(np.float32)
    sigmas = draw.uniform(0.02, 0.12, keypoints).astype(np.float32)
    visible = draw.uniform(size=(count[1], keypoints)) < 0.5 if masked else None
    expected = reference.oks(a, b, areas=areas, sigmas=sigmas, visible=visible)
    similarity = ops.oks(a, b, areas=areas, sigmas=sigmas, visible=visible)
    assert similarity.shape == count
    assert similarity.dtype == np.float32
    np.testing.assert_allclose(similarity, expected, rtol=1e-4, atol=1e-6)


def test_hand_computed_similarities():
    """One keypoint with sigma 0.05: at a distance of 2 sigma times the square root of the area it is exp(-1/2)."""
    a = np.float32([[[13, 14]]])
    b = np.float32([[[10, 10]], [[13, 14]], [[13, 1e6]]])
    similarity = ops.oks(a, b, areas=np.float32([2500, 2500, 2500]), sigmas=np.float32([0.05]))
    np.testing.assert_allclose(similarity, [[math.exp(-0.5), 1, 0]], rtol=1e-6, atol=1e-30)


def test_areas_and_visible_belong_to_the_second_poses():
    a = np.zeros((2, 2, 2), np.float32)
    b = np.zeros((2, 2, 2), np.float32)
    b[:, 1, 0] = 5
    sigmas = np.float32([0.05, 0.05])
    visible = np.array([[True, True], [True, False]])
    similarity = ops.oks(a, b, areas=np.float32([2500, 100]), sigmas=sigmas, visible=visible)
    np.testing.assert_allclose(similarity, [[(1 + math.exp(-0.5)) / 2, 1]] * 2, rtol=1e-6)


def test_poses_without_visible_keypoints_have_oks_0():
    a = np.ones((2, 17, 2), np.float32)
    visible = np.ones((2, 17), bool)
    visible[1] = False
    similarity = ops.oks(a, a, areas=np.float32([900, 900]), sigmas=SIGMAS, visible=visible)
    np.testing.assert_array_equal(similarity, [[1, 0], [1, 0]])


def test_with_area_0_only_equal_points_are_similar():
    a = np.zeros((1, 2, 2), np.float32)
    b = a.copy()
    b[0, 1] = 1e-3
    similarity = ops.oks(a, b, areas=np.float32([0]), sigmas=np.float32([0.1, 0.1]))
    np.testing.assert_array_equal(similarity, [[0.5]])


def test_the_epsilon_added_to_the_area_is_cocos():
    """At a distance of 3e-9 pixel the epsilon matters with area 0, but not with area 1e-6."""
    a, b = np.zeros((1, 1, 2), np.float32), np.float32([[[3e-9, 0]], [[3e-9, 0]]])
    arguments = {"areas": np.float32([0, 1e-6]), "sigmas": np.float32([0.1])}
    expected = reference.oks(a, b, **arguments)
    assert 0.3 < expected[0, 0] < 0.7
    assert expected[0, 1] > 0.9999
    np.testing.assert_allclose(ops.oks(a, b, **arguments), expected, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, 1])
def test_non_finite_points_have_similarity_0(value, axis):
    """Even to itself; other keypoints are unaffected."""
    poses = rng(1).uniform(0, 100, (3, 17, 2)).astype(np.float32)
    lost = poses.copy()
    lost[1, 4, axis] = value
    areas = np.full(3, 5000, np.float32)
    for a, b in ((lost, poses), (poses, lost), (lost, lost)):
        similarity = ops.oks(a, b, areas=areas, sigmas=SIGMAS)
        np.testing.assert_allclose(similarity, reference.oks(a, b, areas=areas, sigmas=SIGMAS), atol=1e-6)
        np.testing.assert_allclose(similarity[1, 1], 16 / 17, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_no_people(shape):
    a, b = (np.zeros((n, 17, 2), np.float32) for n in shape)
    similarity = ops.oks(a, b, areas=np.ones(shape[1], np.float32), sigmas=SIGMAS)
    assert similarity.shape == shape


def test_similarities_match_pycocotools():
    """One image with four annotated people and five detections."""
    from pycocotools.cocoeval import COCOeval

    draw = rng(2)
    truth = draw.uniform(0, 300, (4, 17, 2)).astype(np.float32)
    found = (truth[[2, 0, 1, 3, 0]] + draw.normal(size=(5, 17, 2)) * 4).astype(np.float32)
    visible = draw.uniform(size=(4, 17)) < 0.7
    areas = np.float32([900, 4000, 12000, 50])
    evaluation = COCOeval(iouType="keypoints")
    evaluation.params.imgIds, evaluation.params.catIds = [1], [1]
    annotations = np.concatenate([truth, 2 * visible[..., None]], axis=2).reshape(4, -1)
    for keypoints, area in zip(annotations, areas, strict=True):
        box = [0, 0, 300, 300]
        person = {
            "keypoints": keypoints.tolist(),
            "area": float(area),
            "bbox": box,
            "num_keypoints": 17,
            "ignore": 0,
        }
        evaluation._gts[1, 1].append(person)
    for rank, keypoints in enumerate(found):
        detection = {"keypoints": np.insert(keypoints, 2, 1, axis=1).ravel().tolist(), "score": 1 - rank / 10}
        evaluation._dts[1, 1].append(detection)
    expected = evaluation.computeOks(1, 1)
    assert 0.1 < expected.max() < 0.999
    similarity = ops.oks(found, truth, areas=areas, sigmas=SIGMAS, visible=visible)
    np.testing.assert_allclose(similarity, expected, atol=1e-5)


def test_strided_and_read_only_inputs():
    draw = rng(3)
    a, b = draw.uniform(0, 50, (2, 5, 17, 2)).astype(np.float32)
    areas = draw.uniform(100, 1000, 5).astype(np.float32)
    visible = draw.uniform(size=(5, 17)) < 0.5
    plain = ops.oks(a, b, areas=areas, sigmas=SIGMAS, visible=visible)
    again = ops.oks(
        strided(a), strided(b), areas=strided(areas), sigmas=strided(SIGMAS), visible=strided(visible)
    )
    np.testing.assert_array_equal(plain, again)
