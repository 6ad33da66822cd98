"""Comparison of tracks with annotated people: misses and switches (CLEAR MOT, IDF1), jitter and lag of keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from oaks.arguments import check_count, check_threshold
from oaks.coco_fields import indices_by, integers
from oaks.coco_results import read_results
from oaks.errors import ArgumentError
from oaks.poses import NO_TRACK
from oaks.skeleton import COCO17, Skeleton
from oaks.structured import read_json
from oaks.val.calibration import mean
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import pairs

MATCH = 0.5
"""Minimum similarity of a matched pose and person."""


@dataclass(frozen=True)
class TrackedFrame:
    """One frame: its people, its poses, and their similarity.

    Attributes:
        people: (n,) int, the people's ids, each once.
        tracks: (m,) int, the poses' track ids, each once.
        similarity: (n, m), 0 to 1: OKS, or the intersection over union of boxes.
        counted: (n,) bool, people to find; a pose that matches only other people is ignored.
    """

    people: np.ndarray
    tracks: np.ndarray
    similarity: np.ndarray
    counted: np.ndarray


@dataclass(frozen=True)
class TrackScores:
    """Agreement of tracks with people over a number of frames.

    Attributes:
        people: annotated people, summed over frames; poses: likewise, without ignored poses.
        matches: (P, 3) int: frame, row of the person, column of the pose.
        similarities: (P,) similarity of these pairs.
        switches: (S, 3) int: frame and row of a person whose track differs from the one of its last match, and the
            frame of that match.
        same: number of matches under the best one-to-one assignment of tracks to people over the whole sequence.
    """

    people: int
    poses: int
    matches: np.ndarray
    similarities: np.ndarray
    switches: np.ndarray
    same: int

    @property
    def misses(self) -> int:
        """People without a pose, summed over frames."""
        return self.people - len(self.matches)

    @property
    def false_positives(self) -> int:
        """Poses without a person, summed over frames."""
        return self.poses - len(self.matches)

    @property
    def recall(self) -> float:
        """Share of people, summed over frames, that have a pose."""
        return len(self.matches) / self.people if self.people else float("nan")

    @property
    def mota(self) -> float:
        """1 - (misses + false positives + switches) / people; at most 1, can be negative. NaN without people."""
        errors = self.misses + self.false_positives + len(self.switches)
        return 1 - errors / self.people if self.people else float("nan")

    @property
    def motp(self) -> float:
        """Mean similarity of the pairs; NaN without pairs."""
        return mean(self.similarities)

    @property
    def idf1(self) -> float:
        """IDF1: share of people and poses that are matched under the assignment of `same`; NaN without either."""
        both = self.people + self.poses
        return 2 * self.same / both if both else float("nan")

    @classmethod
    def together(cls, parts: Sequence[TrackScores]) -> TrackScores:
        """Combine the scores of several videos; rows and frames stay those of each video."""
        values: dict[str, list[Any]] = {
            entry.name: [getattr(part, entry.name) for part in parts] for entry in fields(cls)
        }
        joined: dict[str, Any] = {
            name: np.concatenate(value) if isinstance(value[0], np.ndarray) else sum(value)
            for name, value in values.items()
        }
        return cls(**joined)


def score_tracks(frames: Sequence[TrackedFrame], threshold: float = MATCH) -> TrackScores:
    """Compare tracks with people, frame by frame.

    A pair of the previous frame stays a pair while its similarity reaches the threshold; the others are paired with the
    largest sum of similarities (CLEAR MOT, Bernardin and Stiefelhagen 2008). A switch is counted against the person's
    last track, however long ago, as in MOTChallenge. IDF1 is that of Ristani et al., 2016.

    Args:
        frames: the frames in order; ids are the same in all frames.
        threshold: minimum similarity of a pair.
    """
    owner: dict[int, tuple[int, int]] = {}  # person -> track and frame of the last match
    people = poses = 0
    matches, similarities, switches = [], [], []
    for number, frame in enumerate(frames):
        rows, columns = _pair(frame, owner, number, threshold)
        left = np.setdiff1d(np.arange(len(frame.tracks)), columns)
        fits = (frame.similarity[~frame.counted][:, left] >= threshold).any(axis=0)
        people += int(frame.counted.sum())
        poses += len(frame.tracks) - int(fits.sum())
        for row, column in zip(rows, columns, strict=True):
            person, track = int(frame.people[row]), int(frame.tracks[column])
            if person in owner and owner[person][0] != track:
                switches.append((number, row, owner[person][1]))
            owner[person] = track, number
            matches.append((number, row, column))
            similarities.append(frame.similarity[row, column])
    return TrackScores(
        people=people,
        poses=poses,
        matches=np.array(matches, int).reshape(-1, 3),
        similarities=np.array(similarities, float),
        switches=np.array(switches, int).reshape(-1, 3),
        same=_same(frames, threshold),
    )


def _pair(
    frame: TrackedFrame, owner: dict[int, tuple[int, int]], number: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pairs of a frame, among the people to find."""
    rows = np.flatnonzero(frame.counted)
    similarity = frame.similarity[rows]
    value = np.where(similarity >= threshold, similarity, 0.0)
    for place, person in enumerate(frame.people[rows].tolist()):
        track, last = owner.get(person, (-1, -2))
        if last == number - 1:
            stays = (frame.tracks == track) & (similarity[place] >= threshold)
            value[place, stays] += similarity.size + 1  # outweighs all other pairs together
    chosen, columns = linear_sum_assignment(value, maximize=True)
    paired = similarity[chosen, columns] >= threshold
    return rows[chosen[paired]], columns[paired]


def _same(frames: Sequence[TrackedFrame], threshold: float) -> int:
    people = np.unique(np.concatenate([frame.people for frame in frames])) if frames else np.zeros(0, int)
    tracks = np.unique(np.concatenate([frame.tracks for frame in frames])) if frames else np.zeros(0, int)
    together = np.zeros((len(people), len(tracks)), int)
    for frame in frames:
        fits = (frame.similarity >= threshold) & frame.counted[:, None]
        together[np.ix_(np.searchsorted(people, frame.people), np.searchsorted(tracks, frame.tracks))] += fits
    return int(together[linear_sum_assignment(together, maximize=True)].sum())


def person_ids(truth: GroundTruth, content: dict[str, Any]) -> np.ndarray:
    """Return the `track_id` (G,) int of each person of a GroundTruth, from the COCO content that it was read from.

    Raises:
        ArgumentError: an annotation has none.
    """
    ids = {
        entry.get("id", n): entry.get("track_id") for n, entry in enumerate(content["annotations"], start=1)
    }
    found = [ids[int(number)] for number in truth.ids]
    if None in found:
        number = truth.ids[found.index(None)]
        raise ArgumentError(
            f"{truth.path}: every annotation must have a track_id, got none in annotation {number}"
        )
    return integers(found, lambda n: f"{truth.path}: annotation {truth.ids[n]}: track_id", least=NO_TRACK)


def frames_by_oks(
    truth: GroundTruth,
    people: np.ndarray,
    keypoints: np.ndarray,
    image: np.ndarray,
    tracks: np.ndarray,
    fewest: int = 1,
) -> list[TrackedFrame]:
    """Return the frames of one video, with people and poses compared by OKS.

    Args:
        truth: the people; its images are the frames, in order.
        people: (G,) ids of the people.
        keypoints: (N, K, 2) poses; image: (N,) index of each pose's frame, ascending.
        tracks: (N,) track ids; each once in a frame.
        fewest: minimum number of labeled keypoints of a person to find; OKS over one or two hardly distinguishes
            people who overlap.

    Raises:
        ArgumentError: the poses' frames are not ascending, or a frame has two poses of one track.
    """
    if (np.diff(image) < 0).any():
        raise ArgumentError(f"image must hold ascending frame indices, got {image.tolist()}")
    if len(np.unique(np.stack([image, tracks]), axis=1).T) < len(image):
        raise ArgumentError("tracks must hold each track at most once per frame, got one twice")
    found = pairs(truth, keypoints, image)
    ends = np.searchsorted(found.detection, np.searchsorted(image, np.arange(len(truth.image_ids) + 1)))
    counted = truth.counted & (truth.labeled >= fewest)
    frames = []
    by_image, poses, nobody = indices_by(truth.image), indices_by(image), np.zeros(0, int)
    for number in range(len(truth.image_ids)):
        members, own = by_image.get(number, nobody), poses.get(number, nobody)
        oks = found.oks[ends[number] : ends[number + 1]].reshape(len(own), len(members))
        frames.append(TrackedFrame(people[members], tracks[own], oks.T, counted[members]))
    return frames


@dataclass(frozen=True)
class Steadiness:
    """Jitter and lag of keypoints that follow people.

    Attributes:
        jitter: mean length of the keypoints' second difference, in pixels per frame squared.
        relative_jitter: the same, each divided by the square root of the person's area.
        shake: as `relative_jitter`, of the error against the true keypoints: the jitter without the motion itself.
        lag: frames by which the keypoints trail the truth; negative if they lead.
        error: mean distance from the truth, divided by the square root of the person's area.
        count: number of second differences in these means.
    """

    jitter: float
    relative_jitter: float
    shake: float
    lag: float
    error: float
    count: int


def steadiness(
    keypoints: np.ndarray, true: np.ndarray, known: np.ndarray, sizes: np.ndarray, frame: np.ndarray,
    person: np.ndarray,
) -> Steadiness:  # fmt: skip
    """Compare keypoints with their true positions, over three consecutive frames of a person.

    The lag is the regression of the error on the true velocity (half the way from the previous to the next frame):
    keypoints at the person's position one frame ago have lag 1.

    Args:
        keypoints, true: (N, K, 2) pixels.
        known: (N, K) bool: true keypoints that are known and count.
        sizes: (N,) pixels, square roots of the people's areas.
        frame, person: (N,) int, frame and person of each pose; each pair once.
    """
    order = np.lexsort((frame, person))
    keypoints, true, known, sizes, frame, person = (
        array[order] for array in (keypoints.astype(float), true, known, sizes, frame, person)
    )
    middle = np.arange(1, max(len(frame) - 1, 1))
    runs = (person[middle - 1] == person[middle + 1]) & (frame[middle + 1] - frame[middle - 1] == 2)
    middle = middle[runs]
    usable = known[middle - 1] & known[middle] & known[middle + 1]
    usable &= np.isfinite(keypoints[[middle - 1, middle, middle + 1]]).all(axis=(0, 3))
    size = np.broadcast_to(sizes[middle, None], usable.shape)[usable]

    def second(points: np.ndarray) -> np.ndarray:
        return (points[middle + 1] - 2 * points[middle] + points[middle - 1])[usable]

    off = keypoints - true
    velocity = ((true[middle + 1] - true[middle - 1]) / 2)[usable]
    away = off[middle][usable]
    lengths = [np.linalg.norm(values, axis=1) for values in (second(keypoints), second(off), away)]
    moved = float((velocity**2).sum())
    return Steadiness(
        jitter=mean(lengths[0]),
        relative_jitter=mean(lengths[0] / size),
        shake=mean(lengths[1] / size),
        lag=-float((away * velocity).sum()) / moved if moved else float("nan"),
        error=mean(lengths[2] / size),
        count=int(usable.sum()),
    )


@dataclass(frozen=True)
class TrackEvaluation:
    """Comparison of the tracks of one results file with annotated people.

    Attributes:
        scores: lost and switched ids.
        steadiness: jitter and lag of the keypoints of matched poses.
        untracked: number of poses without a track id, which are ignored.
    """

    scores: TrackScores
    steadiness: Steadiness
    untracked: int

    @property
    def figures(self) -> dict[str, float]:
        """All figures by name; NaN if a figure has no cases."""
        names = ("people", "poses", "recall", "misses", "false_positives", "mota", "motp", "idf1")
        scores = {name: getattr(self.scores, name) for name in names}
        counts = {"untracked": self.untracked, "switches": len(self.scores.switches)}
        return scores | counts | asdict(self.steadiness)


def evaluate_tracks(
    results: str | Path,
    annotations: str | Path,
    *,
    skeleton: Skeleton = COCO17,
    category: str | int | None = None,
    threshold: float = MATCH,
    fewest: int = 1,
) -> TrackEvaluation:
    """Compare the tracks of one video with its annotated people.

    Args:
        results: COCO keypoint results with a `track_id` in every row, as `oaks track` writes them.
        annotations: COCO keypoint annotations of the same frames, with a `track_id` in every annotation.
        skeleton: the skeleton of the keypoints.
        category: name or id of the category of people; None: as oaks.coco.choose_category.
        threshold: minimum OKS of a pair.
        fewest: minimum number of labeled keypoints of a person to find.

    Raises:
        FileNotFoundError: a file does not exist.
        ArgumentError: a file is wrong; the message names it.
    """
    check_threshold("threshold", threshold)
    check_count("fewest", fewest, 0)
    truth = GroundTruth.load(annotations, skeleton=skeleton, category=category)
    people = person_ids(truth, read_json(annotations, top=dict, strict=False))
    rows, _ = read_results(results)
    given = integers(
        [row.get("track_id") for row in rows], lambda n: f"{results}: row {n}: track_id", least=NO_TRACK
    )
    found = Detections.load(results, truth, box_source="detected")
    tracks = given[found.rows]
    kept = tracks != NO_TRACK
    frames = frames_by_oks(truth, people, found.keypoints[kept], found.image[kept], tracks[kept], fewest)
    scores = score_tracks(frames, threshold)
    frame, row, column = scores.matches.T
    person = np.searchsorted(truth.image, frame) + row
    pose = np.searchsorted(found.image[kept], frame) + column
    steady = steadiness(
        found.keypoints[kept][pose], truth.keypoints[person], truth.flags[person] > 0,
        np.sqrt(truth.areas[person]), frame, people[person],
    )  # fmt: skip
    return TrackEvaluation(scores, steady, int((~kept).sum()))


__all__ = [
    "MATCH", "Steadiness", "TrackEvaluation", "TrackScores", "TrackedFrame", "evaluate_tracks", "frames_by_oks",
    "person_ids", "score_tracks", "steadiness",
]  # fmt: skip
