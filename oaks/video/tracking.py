"""Tracking: poses are matched to tracks by OKS; poses with a low score do not update their track."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from oaks import ops
from oaks.arguments import check_choice, check_share, is_number
from oaks.errors import ArgumentError, BackendUnavailable
from oaks.poses import NO_TRACK, PRESENT, Poses
from oaks.skeleton import Skeleton

_MEMORY = 0.3  # seconds over which a track's velocity is averaged
_GROWTH = 2.0  # relative growth per second of the allowed distance without a pose
_GROWTH_AT_FIRST = 8.0  # the same for a track of one pose, whose velocity is unknown
# Padding from a pose's extent to the box: COCO's median, relative to the root of the extent's area.
_MARGIN = 0.12
_LEAST_INSIDE = 0.35  # part of a person's box that must lie in the picture
_LEAST_IN_VIEW = 1 / 6  # minimum share of keypoints in view for a person at the picture's edge
_LEAST_SHARED = 3  # minimum keypoints visible in both poses; with fewer, all are compared


@dataclass
class _Track:
    """State of a tracked person: the last pose and the velocity of the body.

    Attributes:
        keypoints: (K, 2) float64 at `time`, pixels.
        velocity: (2,) of the whole body, pixels per second. Limbs swing: a wrist's own velocity says little about its
            position half a second later.
        seen: (K,) when each keypoint was last present, seconds.
        started, time: when the first and the last pose supported the track, seconds.
    """

    id: int
    keypoints: np.ndarray
    velocity: np.ndarray
    seen: np.ndarray
    started: float
    time: float
    box_score: float

    def at(self, time: float) -> np.ndarray:
        """(K, 2) predicted pose at a later time."""
        return self.keypoints + self.velocity * (time - self.time)

    def reach(self, time: float) -> float:
        """Factor by which the allowed distance from the prediction has grown since the last pose."""
        growth = _GROWTH_AT_FIRST if self.time == self.started else _GROWTH
        return 1 + growth * (time - self.time)

    def support(self, points: np.ndarray, visibility: np.ndarray, time: float, box_score: float) -> None:
        """Update with a pose's points (K, 2), each weighted by its visibility (K,)."""
        predicted = self.at(time)
        difference = points - predicted
        weights = np.where(np.isfinite(difference).all(axis=1), np.clip(visibility, 1e-3, 1), 0)
        known = weights > 0
        common = np.zeros(2)
        if known.any():
            common = np.average(difference[known], axis=0, weights=weights[known])
        own = np.where(known[:, None], difference - common, 0)
        moved = predicted + common + weights[:, None] * own
        # A keypoint without a position takes the first one.
        self.keypoints = np.where(np.isfinite(predicted), moved, points)
        if time > self.time:
            # The mean velocity since the track began, over the last _MEMORY seconds once it is that old.
            share = min((time - self.time) / min(time - self.started, _MEMORY), 1.0)
            self.velocity = self.velocity + share * common / (time - self.time)
        self.seen = np.where(known & (visibility >= PRESENT), time, self.seen)
        self.time, self.box_score = time, box_score


class Tracker:
    """Assign track ids to the poses of successive frames.

    Poses scoring below `gate` do not update their track: they may belong to somebody else or to nobody. Of duplicate
    poses the best is kept. Poses are assigned to tracks by the largest sum of OKS (Hungarian method, H. W. Kuhn,
    1955), first to tracks updated by the last frame, then to the others, whose allowed distance grows with time. Poses
    below the gate take part in the assignment, so that their track is not given to a neighbor. A track without
    updates moves with its mean velocity and is lost after `patience` seconds.

    Args:
        skeleton: of the poses.
        gate: minimum score of a pose that updates its track.
        score: the score of the gate: "oaks" (a probability) or "conventional".
        match: minimum OKS of a pose with a track's prediction.
        repeat: OKS above which the worse of two poses of one frame is left out.
        patience: seconds that a track survives without a pose; 0: until the next frame.

    Raises:
        ArgumentError: an argument does not fit.
        BackendUnavailable: SciPy is not installed.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        gate: float = 0.3,
        score: str = "oaks",
        match: float = 0.2,
        repeat: float = 0.8,
        patience: float = 1.0,
    ) -> None:
        for name, value in (("gate", gate), ("match", match), ("repeat", repeat)):
            check_share(name, value)
        check_choice("score", score, ("oaks", "conventional"))
        if not is_number(patience, finite=False) or patience < 0:
            raise ArgumentError(f"patience must be 0 seconds or more, got {patience!r}")
        self.skeleton, self.gate, self.score = skeleton, gate, score
        self.match, self.repeat, self.patience = match, repeat, patience
        self.started = 0
        """Number of tracks so far."""
        self._tracks: list[_Track] = []
        self._time = -np.inf
        self._scored = False
        self._assign = _load_assignment()

    def update(
        self,
        poses: Poses,
        time: float,
        *,
        of_tracks: Sequence[int] | np.ndarray | None = None,
        size: tuple[int, int] | None = None,
        unique: bool = False,
    ) -> Poses:
        """Return the poses of the next frame with track ids.

        Args:
            poses: of one frame.
            time: of the frame, in seconds; never before the last.
            of_tracks: track ids of poses in boxes from `boxes`. Such poses start no track: the box may be empty by
                now.
            size: (width, height) of the frame; None: tracks do not end at its edges.
            unique: whether to leave out duplicates of better poses.

        Returns:
            The poses in the same order, track_ids filled; NO_TRACK (-1) for untracked ones.

        Raises:
            ArgumentError: time runs backwards, another skeleton, or poses without the score that gates.
        """
        scores = self._check(poses, time)
        placed = np.any(np.isfinite(poses.keypoints).all(axis=2), axis=1) & np.isfinite(scores)
        chosen = np.flatnonzero(placed)
        left = self._best_of_repeated(poses, scores, chosen)
        repeated = np.setdiff1d(chosen, left)
        live = self._live(time, size, alone=of_tracks is not None)
        fresh = [track for track in live if track.time == self._time]
        waiting = [track for track in live if track.time != self._time]

        ids = np.full(len(poses), NO_TRACK, np.int64)
        visibility = np.nan_to_num(poses.visibility.astype(np.float64), nan=1.0)
        for tracks in (fresh, waiting):
            for i, track in self._matches(poses, left, tracks, time):
                left = left[left != i]
                if scores[i] >= self.gate:
                    track.support(poses.keypoints[i], visibility[i], time, float(poses.box_scores[i]))
                    ids[i] = track.id
        for i in left[scores[left] >= self.gate] if of_tracks is None else ():
            track = self._start(poses, int(i), visibility[i], time)
            live.append(track)
            ids[i] = track.id
        if of_tracks is not None and len(of_tracks) == len(poses):
            # A track whose box shows another track's person has lost its own.
            lost = {int(of_tracks[i]) for i in repeated} - set(ids.tolist())
            live = [track for track in live if track.id not in lost]
        self._tracks, self._time = live, time
        poses = replace(poses, track_ids=ids)
        return poses[np.setdiff1d(np.arange(len(poses)), repeated)] if unique and len(repeated) else poses

    def _has_left(self, track: _Track, time: float, size: tuple[int, int], alone: bool) -> bool:
        """Return whether a track's person has probably left the picture.

        Args:
            alone: whether boxes come from the tracks only, so that no detector could find the person again.
        """
        box = _person_boxes(track.at(time)[None])[0]
        sides = np.minimum(box[2:], size) - np.maximum(box[:2], 0)
        inside = float(np.maximum(sides, 0).prod() / (box[2:] - box[:2]).prod())
        if inside < (_LEAST_INSIDE if alone else 1e-6):
            return True
        # A person at the picture's edge with hardly a keypoint in view counts as gone.
        in_view = np.count_nonzero(track.seen >= track.time)
        cut = inside < 0.999
        return bool(alone and cut and in_view < _LEAST_IN_VIEW * len(track.seen) and track.time == self._time)

    def boxes(self, time: float, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Predict the tracks' boxes at some time: the extents of their poses, padded as COCO's boxes are.

        Args:
            time: in seconds.
            size: (width, height) of the frame: people who have left it get no box; None: all get one.

        Returns:
            boxes (M, 4) float32 x1, y1, x2, y2, and their track ids (M,) int64, of all tracks not lost.
        """
        tracks = self._live(time, size, alone=True)
        if not tracks:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        boxes = _person_boxes(np.stack([track.at(time) for track in tracks]))
        return boxes, np.array([track.id for track in tracks], np.int64)

    def box_scores(self, track_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """(M,) float32: the last box score of each of these tracks."""
        scores = {track.id: track.box_score for track in self._tracks}
        return np.array([scores[int(track_id)] for track_id in track_ids], np.float32)

    def rescale(self, scale: Sequence[float]) -> None:
        """Scale the tracks for pictures of another size: x and y times scale (2,)."""
        for track in self._tracks:
            track.keypoints = track.keypoints * np.asarray(scale)
            track.velocity = track.velocity * np.asarray(scale)

    def _check(self, poses: Poses, time: float) -> np.ndarray:
        if not time >= self._time:
            raise ArgumentError(f"time must be at least the last frame's, {self._time}, got {time}")
        if poses.skeleton != self.skeleton:
            raise ArgumentError(
                f"poses must have the tracker's skeleton {self.skeleton.name!r}, got {poses.skeleton.name!r}"
            )
        scores = poses.oaks_scores if self.score == "oaks" else poses.conventional_scores
        # A network may give NaN for one frame; without the score, all poses are NaN.
        self._scored |= bool(np.isfinite(scores).any())
        if (
            self.score == "oaks"
            and poses.score_kind != "oaks"
            and not self._scored
            and np.isfinite(poses.conventional_scores).any()
        ):
            raise ArgumentError(
                "poses must have the oaks score, which gates, got none; pass score='conventional', or a bundle with "
                "a scorer"
            )
        return scores

    def _live(self, time: float, size: tuple[int, int] | None, *, alone: bool) -> list[_Track]:
        """Return the tracks that are not lost at `time` and whose people are still in a frame of this size.

        Frames may be farther apart than `patience`.
        """
        live = [t for t in self._tracks if t.time == self._time or time - t.time <= self.patience]
        return live if size is None else [t for t in live if not self._has_left(t, time, size, alone)]

    def _best_of_repeated(self, poses: Poses, scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        kept = ops.oks_nms(
            poses.keypoints[chosen],
            scores[chosen],
            areas=_areas(poses.keypoints[chosen]),
            sigmas=self.skeleton.sigmas,
            threshold=self.repeat,
        )
        return chosen[np.sort(kept)]

    def _matches(
        self, poses: Poses, chosen: np.ndarray, tracks: list[_Track], time: float
    ) -> list[tuple[int, _Track]]:
        """Assign the chosen poses to these tracks: (pose, track) pairs."""
        if not len(chosen) or not tracks:
            return []
        predicted = np.stack([track.at(time) for track in tracks])
        areas = _areas(predicted) * np.array([track.reach(time) for track in tracks]) ** 2
        known = np.array([time - track.seen <= max(self.patience, time - track.time) for track in tracks])
        present, similarity = poses.present, np.empty((len(chosen), len(tracks)))
        for row, i in enumerate(chosen):
            shared = known & present[i]
            shared[shared.sum(axis=1) < _LEAST_SHARED] = True
            similarity[row] = ops.oks(
                poses.keypoints[i][None], predicted, areas=areas, sigmas=self.skeleton.sigmas, visible=shared
            )[0]
        # Pairs below the threshold count 0, so that they cannot displace a good pair.
        rows, columns = self._assign(np.where(similarity < self.match, 0, similarity), maximize=True)
        return [
            (int(chosen[row]), tracks[column])
            for row, column in zip(rows, columns, strict=True)
            if similarity[row, column] >= self.match
        ]

    def _start(self, poses: Poses, i: int, visibility: np.ndarray, time: float) -> _Track:
        self.started += 1
        return _Track(
            id=self.started,
            keypoints=poses.keypoints[i].astype(np.float64),
            velocity=np.zeros(2),
            seen=np.where(visibility >= PRESENT, time, -np.inf),
            started=time,
            time=time,
            box_score=float(poses.box_scores[i]),
        )


def _person_boxes(keypoints: np.ndarray) -> np.ndarray:
    """(M, 4) float32 boxes around keypoints (M, K, 2), at least one of each person finite."""
    low, high = np.nanmin(keypoints, axis=1) + 0.5, np.nanmax(keypoints, axis=1) + 0.5  # indices to edges
    sizes = np.maximum(high - low, 1)
    margin = _MARGIN * np.sqrt(sizes.prod(axis=1, keepdims=True))
    centers = (low + high) / 2
    return np.concatenate(
        [centers - sizes / 2 - margin, centers + sizes / 2 + margin], axis=1, dtype=np.float32
    )


def _areas(keypoints: np.ndarray) -> np.ndarray:
    """(M,) square pixels: the extents of poses (M, K, 2), about 1.2 times what COCO calls their area."""
    sizes = np.nanmax(keypoints, axis=1, initial=-np.inf) - np.nanmin(keypoints, axis=1, initial=np.inf)
    return np.maximum(sizes, 1).prod(axis=1)


def _load_assignment() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise BackendUnavailable(f"tracking needs SciPy: {error}; `pip install 'oaks[video]'`") from error
    return linear_sum_assignment


__all__ = ["Tracker"]
