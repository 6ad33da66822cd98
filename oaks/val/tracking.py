"""Tracks against annotated people: lost and exchanged ids (CLEAR MOT, IDF1), steadiness and lag of keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from oaks.coco import read_results
from oaks.errors import ArgumentError
from oaks.poses import NO_TRACK
from oaks.skeleton import COCO17, Skeleton
from oaks.structured import read_json
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import pairs

MATCH = 0.5
"""Similarity from which a pose counts as a person's."""


@dataclass(frozen=True)
class TrackedFrame:
    """One frame: the people in it, the poses found, and how much they are alike.

    Attributes:
        people: (n,) int, the people's ids, each once.
        tracks: (m,) int, the poses' track ids, each once.
        similarity: (n, m), 0 to 1: OKS, or the intersection over union of boxes.
        counted: (n,) bool, who is to be found; a pose that fits somebody else alone is left out of account.
    """

    people: np.ndarray
    tracks: np.ndarray
    similarity: np.ndarray
    counted: np.ndarray


@dataclass(frozen=True)
class TrackScores:
    """How tracks kept to people over some frames.

    Attributes:
        people: annotated people, summed over frames; poses: likewise, without those left out of account.
        matches: (P, 3) int: frame, row of the person, column of the pose.
        similarities: (P,) of those pairs.
        switches: (S, 3) int: a person's frame and row where its track is not the one that it had when it was
            last matched, and the frame of that.
        same: frames in which people have the track that is best theirs over the whole sequence, each track
            used once.
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
        """The share of people, summed over frames, that have a pose."""
        return len(self.matches) / self.people if self.people else float("nan")

    @property
    def mota(self) -> float:
        """1 - (misses + false positives + switches) / people; at most 1, may be below 0. NaN without people."""
        errors = self.misses + self.false_positives + len(self.switches)
        return 1 - errors / self.people if self.people else float("nan")

    @property
    def motp(self) -> float:
        """The mean similarity of the pairs; NaN without any."""
        return float(self.similarities.mean()) if len(self.similarities) else float("nan")

    @property
    def idf1(self) -> float:
        """The share of people and poses that belong together for good; NaN without either."""
        both = self.people + self.poses
        return 2 * self.same / both if both else float("nan")

    @classmethod
    def together(cls, parts: Sequence[TrackScores]) -> TrackScores:
        """The scores of several videos as those of one; rows and frames stay those of each video."""
        values: dict[str, list[Any]] = {
            entry.name: [getattr(part, entry.name) for part in parts] for entry in fields(cls)
        }
        joined: dict[str, Any] = {
            name: np.concatenate(value) if isinstance(value[0], np.ndarray) else sum(value)
            for name, value in values.items()
        }
        return cls(**joined)


def score_tracks(frames: Sequence[TrackedFrame], threshold: float = MATCH) -> TrackScores:
    """Compares tracks with people, frame after frame.

    A pair of the frame before stays a pair while its similarity reaches the threshold; the others are paired so that
    the similarities sum to the most (CLEAR MOT, Bernardin and Stiefelhagen 2008). A switch is counted against the
    track that the person last had, however long ago, as MOTChallenge does. IDF1 is Ristani and others', 2016.

    Args:
        frames: in order; ids mean the same in all of them.
        threshold: least similarity of a pair.
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
    """Rows and columns of the pairs of a frame, among the people who count."""
    rows = np.flatnonzero(frame.counted)
    similarity = frame.similarity[rows]
    value = np.where(similarity >= threshold, similarity, 0.0)
    for place, person in enumerate(frame.people[rows].tolist()):
        track, last = owner.get(person, (-1, -2))
        if last == number - 1:
            stays = (frame.tracks == track) & (similarity[place] >= threshold)
            value[place, stays] += similarity.size + 1  # more than all others together
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
    """(G,) int: the `track_id` of each person of a GroundTruth, from the COCO content that it was read from.

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
    return np.array(found, int)


def frames_by_oks(
    truth: GroundTruth,
    people: np.ndarray,
    keypoints: np.ndarray,
    image: np.ndarray,
    tracks: np.ndarray,
    fewest: int = 1,
) -> list[TrackedFrame]:
    """The frames of one video, people and poses compared by OKS.

    Args:
        truth: the people; its images are the frames, in order.
        people: (G,) their ids.
        keypoints: (N, K, 2) poses; image: (N,) index of each pose's frame, ascending.
        tracks: (N,) track ids; each once in a frame.
        fewest: labelled keypoints from which a person is to be found; OKS over one or two hardly tells people
            who overlap apart.

    Raises:
        ArgumentError: poses of which the frames do not ascend, or two of one track in a frame.
    """
    if (np.diff(image) < 0).any():
        raise ArgumentError(f"image must hold ascending frame indices, got {image.tolist()}")
    if len(np.unique(np.stack([image, tracks]), axis=1).T) < len(image):
        raise ArgumentError("tracks must hold each track at most once per frame, got one twice")
    found = pairs(truth, keypoints, image)
    ends = np.searchsorted(found.detection, np.searchsorted(image, np.arange(len(truth.image_ids) + 1)))
    counted = truth.counted & (truth.labeled >= fewest)
    frames = []
    for number in range(len(truth.image_ids)):
        members = np.flatnonzero(truth.image == number)
        own = np.flatnonzero(image == number)
        oks = found.oks[ends[number] : ends[number + 1]].reshape(len(own), len(members))
        frames.append(TrackedFrame(people[members], tracks[own], oks.T, counted[members]))
    return frames


@dataclass(frozen=True)
class Steadiness:
    """How calmly and how promptly keypoints follow people.

    Attributes:
        jitter: mean length of the keypoints' second difference, pixels per frame squared.
        relative_jitter: the same, each divided by the root of the person's area.
        shake: as `relative_jitter`, of the distance from where the keypoints truly are: what is left of
            the jitter without the motion itself.
        lag: frames by which the keypoints trail; negative ahead.
        error: mean distance from the truth, divided by the root of the person's area.
        count: second differences that these means are of.
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
    """Measures keypoints against where they truly are, over runs of three frames of one person.

    The lag is the regression of the distance from the truth on the true velocity (half the way from the frame before
    to the frame after): keypoints that are where the person was one frame ago lag by 1.

    Args:
        keypoints, true: (N, K, 2) pixels.
        known: (N, K) bool: which true keypoints are known, and are to count.
        sizes: (N,) pixels, the roots of the people's areas.
        frame: (N,) int; person: (N,) int, whose pose it is; each pair of them once.
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
        jitter=_mean(lengths[0]),
        relative_jitter=_mean(lengths[0] / size),
        shake=_mean(lengths[1] / size),
        lag=-float((away * velocity).sum()) / moved if moved else float("nan"),
        error=_mean(lengths[2] / size),
        count=int(usable.sum()),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


@dataclass(frozen=True)
class TrackEvaluation:
    """Tracks of one results file against annotated people.

    Attributes:
        scores: lost and exchanged ids.
        steadiness: of the keypoints of matched poses.
        untracked: poses without a track id, which are left out.
    """

    scores: TrackScores
    steadiness: Steadiness
    untracked: int


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
        skeleton: what the keypoints are.
        category: name or id of the category of people; None as oaks.coco.choose_category says.
        threshold: minimum OKS of a pair.
        fewest: minimum number of labelled keypoints of a person that is to be found.

    Raises:
        FileNotFoundError: a file is not there.
        ArgumentError: a file does not fit; the message names it.
    """
    if not 0 < threshold <= 1:
        raise ArgumentError(f"threshold must be above 0 and at most 1, got {threshold!r}")
    truth = GroundTruth.load(annotations, skeleton=skeleton, category=category)
    people = person_ids(truth, read_json(annotations, top=dict, strict=False))
    rows, _ = read_results(results)
    if without := [number for number, row in enumerate(rows) if not isinstance(row.get("track_id"), int)]:
        came = str(rows[without[0]].get("track_id"))[:64]
        raise ArgumentError(
            f"{results}: track_id of every row must be an integer, got {came} in row {without[0]}"
        )
    found = Detections.load(results, truth, box_source="detected")
    tracks = np.array([rows[number]["track_id"] for number in found.rows], int)
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
