"""box_nms against the naive reference, and cases on its decision edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops

from . import reference
from .cases import DRAWN, rng, seeds, strided


def crowded(draw, count, groups=3):
    """(count,4) boxes around a few positions, so that many pairs are near the threshold."""
    corners = draw.uniform(0, 300, (groups, 2))[draw.integers(0, groups, count)]
    sizes = draw.uniform(20, 60, (count, 2))
    moved = corners + draw.normal(size=(count, 2)) * draw.choice([0.0, 2.0, 10.0], size=(count, 1))
    return np.concatenate([moved, moved + sizes], axis=1).astype(np.float32)


@settings(DRAWN, max_examples=60)
@given(
    count=st.integers(0, 40),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    frames=st.integers(0, 3),
    seed=seeds,
)
def test_random_boxes_match_the_reference(count, threshold, frames, seed):
    draw = rng(seed)
    boxes = crowded(draw, count)
    scores = draw.choice([0.1, 0.5, 0.5, 0.7, 0.9, -1.0], size=count).astype(np.float32)
    frame_index = draw.integers(0, frames, count) if frames else None
    pairs = [(i, j) for i in range(count) for j in range(i)]
    near = [abs(reference.box_iou(boxes[i], boxes[j]) - threshold) for i, j in pairs]
    assert threshold in (0.0, 1.0) or min(near, default=1) > 1e-6, (
        "an IoU is too close to the threshold for single precision"
    )
    kept = ops.box_nms(boxes, scores, threshold=threshold, frame_index=frame_index)
    assert kept.dtype == np.int64
    expected = reference.box_nms(boxes, scores, threshold=threshold, frame_index=frame_index)
    assert kept.tolist() == expected


def keep(boxes, scores, threshold=0.5, **arguments):
    return ops.box_nms(np.float32(boxes), np.float32(scores), threshold=threshold, **arguments).tolist()


def shifted(*x):
    """4 x 4 boxes at these x: two at a distance d have an IoU of (4 - d) / (4 + d)."""
    return [[value, 0, value + 4, 4] for value in x]


def test_an_iou_of_exactly_the_threshold_does_not_suppress():
    boxes = [[0, 0, 2, 4], [0, 0, 1, 4]]
    assert reference.box_iou(*boxes) == 0.5
    assert keep(boxes, [0.9, 0.8], threshold=0.5) == [0, 1]
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert keep(boxes, [0.9, 0.8], threshold=below) == [0]
    assert keep([boxes[0]] * 2, [0.5, 0.6], threshold=1.0) == [1, 0]


def test_boxes_that_touch_do_not_overlap():
    boxes = [[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]]
    assert keep(boxes, [0.9, 0.8, 0.7, 0.6], threshold=0.0) == [0, 1, 2, 3]


def test_zero_area_boxes_overlap_nothing():
    """Neither an equal box nor a box that contains it."""
    boxes = [[2, 2, 2, 2], [2, 2, 2, 2], [0, 0, 4, 4], [1, 0, 1, 4], [0, 3, 4, 3]]
    assert keep(boxes, [0.9, 0.8, 0.7, 0.6, 0.5], threshold=0.0) == [0, 1, 2, 3, 4]


def test_nested_boxes():
    boxes = [[0, 0, 10, 10], [2, 2, 8, 8]]
    assert reference.box_iou(*boxes) == pytest.approx(0.36)
    assert keep(boxes, [0.5, 0.6], threshold=0.35) == [1]
    assert keep(boxes, [0.5, 0.6], threshold=0.37) == [1, 0]


def test_boxes_whose_area_overflows():
    """Their areas overflow single precision, so their IoU counts as 0."""
    kept = keep([[-3e38, -3e38, 3e38, 3e38]] * 2 + shifted(0, 0), [0.9, 0.8, 0.7, 0.6])
    assert kept == [0, 1, 2]


def test_far_from_the_origin():
    boxes = np.float32(shifted(0, 1, 3)) + np.float32(100000)
    assert keep(boxes, [0.9, 0.8, 0.7]) == [0, 2]


def test_no_boxes():
    kept = ops.box_nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), threshold=0.5)
    assert kept.dtype == np.int64
    assert kept.shape == (0,)


def test_strided_and_read_only_boxes():
    draw = rng(4)
    boxes, scores = crowded(draw, 30), draw.uniform(size=30).astype(np.float32)
    plain = ops.box_nms(boxes, scores, threshold=0.5)
    assert 1 < len(plain) < 30
    np.testing.assert_array_equal(plain, ops.box_nms(strided(boxes), strided(scores), threshold=0.5))
