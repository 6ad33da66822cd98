"""The greedy suppression that box_nms and oks_nms share."""

from __future__ import annotations

import numpy as np
import pytest

from . import test_box_nms, test_oks_nms

# keep(candidates, scores): kept indices. line(*x): candidates at these x; at a distance of `step` they suppress each
# other, at twice that distance they do not.
both = pytest.mark.parametrize(
    ("keep", "line", "step"),
    [(test_box_nms.keep, test_box_nms.shifted, 1), (test_oks_nms.keep, test_oks_nms.row, 5)],
    ids=["box_nms", "oks_nms"],
)


@both
def test_a_suppressed_candidate_does_not_suppress(keep, line, step):
    """A suppresses B and B would suppress C, but A does not: A and C are kept."""
    candidates = line(0, step, 2 * step)
    assert keep(candidates, [0.9, 0.8, 0.7]) == [0, 2]
    assert keep(candidates, [0.7, 0.8, 0.9]) == [2, 0]
    assert keep(candidates, [0.8, 0.9, 0.7]) == [1]


@both
def test_ties_keep_the_lower_index(keep, line, step):
    assert keep(line(0, 0, 50, 0, 50), [0.5] * 5) == [0, 2]
    assert keep(line(0, 100, 200, 300), [0.5, 0.9, 0.5, 0.9]) == [1, 3, 0, 2]
    assert keep(line(0, 0), [-0.0, 0.0]) == [0]


@both
def test_different_frames_are_not_compared(keep, line, step):
    scores = [0.1, 0.2, 0.3, 0.4]
    assert keep(line(0, 0, 0, 0), scores, frame_index=np.array([5, -1, 5, 7])) == [3, 2, 1]
    assert keep(line(0, 0, 0, 0), scores) == [3]


@both
def test_many_candidates(keep, line, step):
    assert keep(line(*[0] * 300), [0.5] * 299 + [0.6]) == [299]
    assert keep(line(*range(0, 30000, 100)), [0.5] * 300) == list(range(300))


@both
def test_infinite_scores_are_ordered(keep, line, step):
    assert keep(line(0, 100, 200), [-np.inf, np.inf, 0]) == [1, 2, 0]
