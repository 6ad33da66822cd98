"""A simulated pose network: the ground truth with errors that grow with occlusion. It says nothing about a real network.

Its numbers were set by hand to be plausible, and independently of which gate they favor:

- A keypoint's error is normal, in units of the distance at which its similarity falls to exp(-1/2): .35 if it is
  seen, .9 if it is hidden but labeled, 2.5 if it is not labeled. Half of the error's variance is new in
  every frame, half changes slowly; two boxes of one person share nine tenths of it.
- A hidden keypoint may jump to the same keypoint of a person whose box overlaps, with probability .3, for about half a
  second.
- A heatmap's maximum is about .8 for a seen keypoint and for one that jumped, .45 and .2 for hidden ones: the
  conventional score falls as keypoints are hidden, however well they are placed.
- Predicted similarity and visibility are the true ones with noise, so that the OAKS score follows the true
  OKS. The noise of a whole pose's similarity and heat, half of it slow, is such that the scores correlate with OKS
  about as CCNet (ICML 2024) reports for a score that predicts it and for the conventional one: .72 and .64.
- A box shows the person that it overlaps most. On the background there is a random pose, low in heat and similarity.
"""

from __future__ import annotations

import numpy as np
from recordings import Recording
from scipy.stats import norm

from oaks import ops
from oaks.boxes import iou, to_xyxy
from oaks.poses import Poses
from oaks.skeleton import COCO17

_ERROR = np.array([2.5, 0.9, 0.35])  # by COCO's flag: 0 not labeled, 1 hidden, 2 seen
_HEAT = np.array([0.2, 0.45, 0.8])
_VISIBLE = np.array([0.15, 0.88, 0.95])
_ASTRAY = 0.3
_SLOW = 0.92  # what remains of a slow error after a frame
_OWN = 0.1  # share of an error's variance that is a box's own
_SIMILARITY_NOISE, _SIMILARITY_OF_POSE = 1.0, 2.0  # in log odds
_HEAT_NOISE, _HEAT_OF_POSE = 0.1, 0.2
_NOBODY = 0.3  # overlap below which a box shows no person


class SimulatedPoses:
    """Simulates poses in the frames of a recording.

    Args:
        recording: the clip.
        seed: random seed; errors follow from it, the frame and the order of its boxes.
    """

    def __init__(self, recording: Recording, seed: int) -> None:
        self._recording, self._seed = recording, seed
        shape = recording.points.shape
        rng = np.random.default_rng([seed, recording.clip.number])
        self._errors = _half_slowly(rng, shape)
        # Whether a keypoint jumps while it is hidden.
        self._stray = _slowly(rng, shape[:3]) > norm.isf(_ASTRAY)
        self._of_pose = _half_slowly(rng, (*shape[:2], 2))

    def find(self, index: int, boxes: np.ndarray, box_scores: np.ndarray) -> Poses:
        """Return poses in boxes (N, 4) of a frame, with both scores."""
        truth = self._recording.truth
        rng = np.random.default_rng([self._seed, self._recording.clip.number, index])
        members = np.flatnonzero(truth.image == index)
        people = to_xyxy(truth.boxes[members])
        made = []
        for row in range(len(boxes)):
            shared = iou(people, boxes[row][None])[:, 0]
            if shared.max(initial=0) >= _NOBODY:
                own = int(shared.argmax())
                beside = np.flatnonzero(
                    (iou(people, people[own][None])[:, 0] > 0) & (np.arange(len(members)) != own)
                )
                made.append(self._pose(rng, index, members[own], members[beside]))
            else:
                made.append(_shape(rng, boxes[row]))
        keypoints, visibility, similarity, heat = (
            np.array([pose[part] for pose in made], np.float32).reshape(len(boxes), 17, *rest)
            for part, rest in enumerate(((2,), (), (), ()))
        )
        scores = ops.score(similarity, visibility)
        return Poses(
            keypoints=keypoints, visibility=visibility, similarity=similarity, heat=heat, oaks_scores=scores,
            conventional_scores=ops.conventional_score(heat), scores=scores * box_scores, boxes=boxes,
            box_scores=box_scores, frame_index=np.full(len(boxes), index),
        )  # fmt: skip

    def _pose(
        self, rng: np.random.Generator, index: int, person: int, beside: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Return keypoints, visibility, similarity and heat of an annotated person with others beside it."""
        truth, places = self._recording.truth, self._recording.points[index]
        flags, who = truth.flags[person], self._recording.people - 1
        true = places[who[person]]
        # The offset at which the keypoint similarity is exp(-1/2), for each keypoint.
        reach = 2 * np.array(COCO17.sigmas) * np.sqrt(truth.areas[person])
        error = np.sqrt(1 - _OWN) * self._errors[index, who[person]] + np.sqrt(_OWN) * rng.normal(
            size=(17, 2)
        )
        points, heat = true + error * (_ERROR[flags] * reach)[:, None], _HEAT[flags]
        if len(beside):
            nearest = min(beside, key=lambda other: np.abs(places[who[other]] - true).sum())
            astray = (flags < 2) & self._stray[index, who[person]]
            there = places[who[nearest]] + error * (_ERROR[2] * reach)[:, None]
            points, heat = np.where(astray[:, None], there, points), np.where(astray, _HEAT[2], heat)
        similarity = np.clip(np.exp(-((points - true) ** 2).sum(1) / (2 * reach**2)), 0.02, 0.98)
        of_pose = self._of_pose[index, who[person]]
        noise = _SIMILARITY_NOISE * rng.normal(size=17) + _SIMILARITY_OF_POSE * of_pose[0]
        predicted = 1 / (1 + (1 / similarity - 1) * np.exp(-noise))
        visible = np.clip(_VISIBLE[flags] + rng.normal(0, 0.1, 17), 0.02, 0.99)
        heat = heat + _HEAT_NOISE * rng.normal(size=17) + _HEAT_OF_POSE * of_pose[1]
        return points, visible, predicted, np.clip(heat, 0.01, 1)


def _half_slowly(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw normal values, half of whose variance is new at every index of the first axis."""
    return (_slowly(rng, shape) + rng.normal(size=shape)) / np.sqrt(2)


def _slowly(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw normal values that change slowly along the first axis."""
    values = rng.normal(size=shape)
    for index in range(1, len(values)):
        values[index] = _SLOW * values[index - 1] + np.sqrt(1 - _SLOW**2) * values[index]
    return values


def _shape(rng: np.random.Generator, box: np.ndarray) -> tuple[np.ndarray, ...]:
    """Draw the pose of a box without a person: points all over it, and low values."""
    points = box[:2] + rng.random((17, 2)) * (box[2:] - box[:2])
    low = [np.clip(rng.normal(middle, 0.1, 17), 0.02, 0.98) for middle in (0.4, 0.15, 0.2)]
    return points, *low
