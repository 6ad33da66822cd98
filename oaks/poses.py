"""Poses: the results of an Engine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from oaks import ops
from oaks.arguments import check_iterable, is_integer
from oaks.boxes import to_xywh
from oaks.errors import ArgumentError, BackendUnavailable
from oaks.files import replacing
from oaks.names import number_of
from oaks.skeleton import COCO17, Skeleton
from oaks.structured import parse_json, read_npz

if TYPE_CHECKING:
    import pandas
    import supervision

PRESENT = 0.5
"""A keypoint whose visibility is below this counts as absent (section 4.1 of the paper)."""

NO_TRACK = -1
"""The track id of a pose that belongs to no track, as in MOT files."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Pose:
    """The pose of one person: one row of Poses; see there for the attributes."""

    keypoints: np.ndarray
    visibility: np.ndarray
    similarity: np.ndarray
    keypoint_scores: np.ndarray
    heat: np.ndarray
    oaks_score: float
    conventional_score: float
    score: float
    box: np.ndarray
    box_score: float
    frame_index: int
    track_id: int | None


@dataclass(frozen=True, eq=False, repr=False)
class Poses:
    """N poses of K keypoints each.

    Attributes:
        keypoints: (N, K, 2) float32, x and y in image pixels; the center of the top-left pixel is (0, 0).
            NaN where the network's map held no finite value; never zeroed to say "not seen".
        visibility: (N, K) float32, the probability that an annotator would have placed the keypoint;
            below .5 it counts as absent. NaN from a bundle without visibility.
        similarity: (N, K) float32, the predicted keypoint similarity, 0 to 1. NaN without a KS network.
        heat: (N, K) float32, raw heatmap maxima.
        oaks_scores: (N,) float32, the OAKS score, 0 to 1 (equation 10 of the paper). NaN from a bundle that
            lacks visibility or the KS network.
        conventional_scores: (N,) float32, the mean heat (equation 3).
        scores: (N,) float32, the OAKS score times a power of the box score (the bundle's box_score_power), or the
            conventional score times the box score if there is no OAKS score or the bundle chooses it; see `score_kind`.
        boxes: (N, 4) float32, x1, y1, x2, y2 as given.
        box_scores: (N,) float32, 1 if none was given.
        frame_index: (N,) int64, index of the frame among those given.
        track_ids: (N,) int64, NO_TRACK (-1) for a pose of no track; None without tracking.
        skeleton: the keypoints' names and properties.
        score_kind: "oaks" or "conventional".
        frame_count: number of frames given, those without a pose included; None if unknown.
    """

    keypoints: np.ndarray
    visibility: np.ndarray
    similarity: np.ndarray
    heat: np.ndarray
    oaks_scores: np.ndarray
    conventional_scores: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    frame_index: np.ndarray
    track_ids: np.ndarray | None = None
    skeleton: Skeleton = COCO17
    score_kind: str = "oaks"
    frame_count: int | None = None

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is None and name == "track_ids":
                continue
            array = np.asarray(value, _INTEGERS.get(name, np.float32))
            expected = _shape(name, len(self.keypoints), self.skeleton.count)
            if array.shape != expected:
                raise ArgumentError(f"{name} must have shape {expected}, got {array.shape}")
            if array is not value:
                object.__setattr__(self, name, array)
        if self.score_kind not in ("oaks", "conventional"):
            raise ArgumentError(f"score_kind must be 'oaks' or 'conventional', got {self.score_kind!r}")

    @classmethod
    def empty(
        cls, skeleton: Skeleton = COCO17, score_kind: str = "oaks", frame_count: int | None = None
    ) -> Poses:
        """No poses: arrays with a first dimension of 0."""
        arrays: dict[str, Any] = {
            name: np.zeros(_shape(name, 0, skeleton.count), _INTEGERS.get(name, np.float32))
            for name in _ARRAYS
            if name != "track_ids"
        }
        return cls(**arrays, skeleton=skeleton, score_kind=score_kind, frame_count=frame_count)

    @classmethod
    def concatenate(cls, parts: Sequence[Poses]) -> Poses:
        """Return the poses of all parts, in order; frame_index stays as it is.

        Raises:
            ArgumentError: no parts, or parts that differ in skeleton, kind of score, or in having track_ids.
        """
        parts = list(check_iterable("parts", parts))
        if not parts or not all(isinstance(part, Poses) for part in parts):
            raise ArgumentError(f"parts must be at least one Poses, got {parts!r}")
        first = parts[0]
        for part in parts[1:]:
            if part.skeleton != first.skeleton or part.score_kind != first.score_kind:
                raise ArgumentError("parts must all have the same skeleton and score_kind, got several")
            if (part.track_ids is None) != (first.track_ids is None):
                raise ArgumentError("parts must all have track_ids, or none, got some of each")
        arrays: dict[str, Any] = {
            name: None
            if getattr(first, name) is None
            else np.concatenate([getattr(part, name) for part in parts])
            for name in _ARRAYS
        }
        counts = [part.frame_count for part in parts]
        count = None if None in counts else max(c for c in counts if c is not None)
        return cls(**arrays, skeleton=first.skeleton, score_kind=first.score_kind, frame_count=count)

    @property
    def keypoint_scores(self) -> np.ndarray:
        """(N, K) float32: similarity times visibility, or the heat where score_kind is "conventional"."""
        return self.heat if self.score_kind == "conventional" else self.similarity * self.visibility

    @property
    def present(self) -> np.ndarray:
        """(N, K) bool: has a position, and is not predicted absent."""
        return np.isfinite(self.keypoints).all(axis=2) & ~(self.visibility < PRESENT)

    def __len__(self) -> int:
        return len(self.keypoints)

    @overload
    def __getitem__(self, index: int) -> Pose: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> Poses: ...
    def __getitem__(self, index: Any) -> Pose | Poses:
        """Return a Pose for an integer; Poses for a slice, a mask or a sequence of indices."""
        if is_integer(index):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index must be below {len(self)}, got {index}")
            return Pose(
                keypoints=self.keypoints[index],
                visibility=self.visibility[index],
                similarity=self.similarity[index],
                keypoint_scores=self.keypoint_scores[index],
                heat=self.heat[index],
                oaks_score=float(self.oaks_scores[index]),
                conventional_score=float(self.conventional_scores[index]),
                score=float(self.scores[index]),
                box=self.boxes[index],
                box_score=float(self.box_scores[index]),
                frame_index=int(self.frame_index[index]),
                track_id=None if self.track_ids is None else int(self.track_ids[index]),
            )
        if not isinstance(index, slice):
            try:
                index = np.asarray(index)
            except (TypeError, ValueError) as error:
                raise ArgumentError(
                    f"index must be a number, slice, mask or list of indices, got {type(index).__name__}: {error}"
                ) from error
            if index.size == 0 and index.dtype != bool:
                index = index.astype(np.int64)
            if index.ndim != 1 or index.dtype.kind not in "biu":
                raise ArgumentError(
                    f"index must be a number, slice, mask or list of indices, got {index.dtype} {index.shape}"
                )
        arrays: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[index] for name in _ARRAYS
        }
        return Poses(
            **arrays, skeleton=self.skeleton, score_kind=self.score_kind, frame_count=self.frame_count
        )

    def __iter__(self) -> Iterator[Pose]:
        return (self[i] for i in range(len(self)))

    def without_duplicates(self, threshold: float = ops.OKS_THRESHOLD) -> Poses:
        """Return the poses without those whose OKS with a better pose of the same frame exceeds `threshold`.

        The area of a pose is that of its box. A score of NaN ranks last.
        """
        kept = ops.oks_nms(
            self.keypoints,
            np.nan_to_num(self.scores, nan=-np.inf),
            areas=to_xywh(self.boxes)[:, 2:].prod(axis=1),
            sigmas=self.skeleton.sigmas,
            threshold=threshold,
            frame_index=self.frame_index,
        )
        return self[np.sort(kept)]

    def __repr__(self) -> str:
        parts = [number_of(len(self), "person", "people"), number_of(self.skeleton.count, "keypoint")]
        frames = len(np.unique(self.frame_index)) if self.frame_count is None else self.frame_count
        if frames > 1:
            parts.append(f"{frames} frames")
        finite = self.scores[np.isfinite(self.scores)]
        if len(finite):
            low, high = f"{finite.min():.2f}", f"{finite.max():.2f}"
            parts.append(f"{self.score_kind} scores {low}" + ("" if low == high else f" to {high}"))
        if self.track_ids is not None:
            tracks = len(np.unique(self.track_ids[self.track_ids != NO_TRACK]))
            parts.append(number_of(tracks, "track"))
        return f"Poses({', '.join(parts)})"

    def _repr_png_(self) -> bytes | None:
        """Return the picture that notebooks show: the frames' poses side by side on gray, without their images."""
        from oaks.draw import thumbnail

        return thumbnail(self)

    def by_frame(self) -> list[Poses]:
        """Return one Poses per given frame, in order; empty Poses for a frame without people.

        frame_index stays as it is. Without frame_count (poses assembled by hand) the list ends with the last frame
        that has a pose.
        """
        count = max(self.frame_count or 0, int(self.frame_index.max(initial=-1)) + 1)
        order = np.argsort(self.frame_index, kind="stable")
        places = np.searchsorted(self.frame_index[order], np.arange(count + 1))
        return [self[order[a:b]] for a, b in itertools.pairwise(places)]

    def draw(
        self,
        image: Any,
        *,
        absent: str = "hide",
        scores: bool = True,
        boxes: bool = False,
        threshold: float = 0.0,
    ) -> np.ndarray:
        """Return a copy of a picture with the poses in it: (H, W, 3) uint8 BGR.

        Args:
            image: (H, W, 3) uint8 BGR, a path or a PIL image.
            absent, scores, boxes, threshold: how they are drawn (oaks.draw.draw).

        Raises:
            ArgumentError: an argument is wrong, or the poses are of several frames.
            FileNotFoundError: there is no such picture.
        """
        from oaks.draw import draw

        if len(np.unique(self.frame_index)) > 1:
            raise ArgumentError(f"poses must be of one frame, got {self!r}; draw each of by_frame()")
        return draw(image, self, absent=absent, scores=scores, boxes=boxes, threshold=threshold)

    def to_coco(
        self,
        image_ids: Sequence[int] | int | None = None,
        category_id: int = 1,
        *,
        file_names: Sequence[str] | np.ndarray | str | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of a COCO results file, as oaks.coco_results.write_results takes them.

        Args:
            image_ids: the image id of each frame, or of all poses; None: the frame's number.
            category_id: COCO's for a person.
            file_names: the file name of each frame, or of all poses; None leaves file_name out.

        Returns:
            One dict per pose: image_id, file_name if given, category_id, keypoints [x, y, keypoint score] * K, score,
            box [x, y, width, height], box_score, oaks_score, conventional_score, visibility, similarity,
            heat, and track_id if there is one. What the bundle cannot give is None. A keypoint without a position is
            placed at the box's center with a score of 0, since COCO's format has no missing keypoints.

        Raises:
            ArgumentError: image_ids are not integers, or they or file_names are fewer than there are frames.
        """
        frames = int(self.frame_index.max(initial=-1)) + 1
        if image_ids is None:
            ids = self.frame_index
        else:
            try:
                ids = np.asarray(image_ids)
            except (TypeError, ValueError):  # lists of different lengths
                ids = np.array([None])
            if (ids.size and ids.dtype.kind not in "iu") or ids.ndim > 1 or (ids.ndim and len(ids) < frames):
                raise ArgumentError(
                    f"image_ids must be an integer, or one for each of the {frames} frames, got {image_ids!r}"
                )
            ids = ids[self.frame_index] if ids.ndim else np.full(len(self), ids)
        names = file_names if file_names is None else _file_names(file_names, self.frame_index, frames)
        if not is_integer(category_id):
            raise ArgumentError(f"category_id must be an integer, got {category_id!r}")
        lost = np.logical_not(np.isfinite(self.keypoints).all(axis=2))
        centers = (self.boxes[:, None, :2] + self.boxes[:, None, 2:]) / 2 - 0.5
        points = np.where(lost[..., None], centers, self.keypoints).astype(np.float64)
        scores = np.where(lost, 0, _or_zero(self.keypoint_scores))
        triplets = np.concatenate([points.round(3), scores[..., None].astype(np.float64).round(7)], axis=2)
        columns: dict[str, Any] = {"image_id": ids.tolist()}
        if names is not None:
            columns["file_name"] = names
        columns |= {
            "category_id": [int(category_id)] * len(self),
            "keypoints": triplets.reshape(len(self), 3 * self.skeleton.count).tolist(),
            "score": _rounded(_or_zero(self.scores)),
            "box": _rounded(to_xywh(self.boxes), 3),
            "box_score": _rounded(self.box_scores),
            "oaks_score": _rounded(self.oaks_scores),
            "conventional_score": _rounded(self.conventional_scores),
            "visibility": _rounded(self.visibility),
            "similarity": _rounded(self.similarity),
            "heat": _rounded(self.heat),
        }
        if self.track_ids is not None:
            columns["track_id"] = self.track_ids.tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas DataFrame, one row per pose.

        Its columns: frame; track_id if there is one; score, oaks_score, conventional_score; box_x1, box_y1, box_x2,
        box_y2, box_score; and of each keypoint NAME_x, NAME_y, NAME_score, NAME_visibility, NAME_similarity and
        NAME_heat. NaN stands for what the bundle cannot give.

        Raises:
            BackendUnavailable: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise BackendUnavailable(f"to_pandas needs pandas: {error}; `pip install pandas`") from error
        columns: dict[str, np.ndarray] = {"frame": self.frame_index}
        if self.track_ids is not None:
            columns["track_id"] = self.track_ids
        columns |= {
            "score": self.scores, "oaks_score": self.oaks_scores, "conventional_score": self.conventional_scores,
            **{f"box_{name}": self.boxes[:, place] for place, name in enumerate(("x1", "y1", "x2", "y2"))},
            "box_score": self.box_scores,
        }  # fmt: skip
        for place, name in enumerate(self.skeleton.keypoints):
            of_keypoint = {
                "x": self.keypoints[:, place, 0], "y": self.keypoints[:, place, 1],
                "score": self.keypoint_scores[:, place], "visibility": self.visibility[:, place],
                "similarity": self.similarity[:, place], "heat": self.heat[:, place],
            }  # fmt: skip
            columns |= {f"{name}_{what}": values for what, values in of_keypoint.items()}
        return pandas.DataFrame({name: np.array(values) for name, values in columns.items()})

    def to_supervision(self) -> supervision.KeyPoints:
        """As supervision's KeyPoints: scores as confidences, `present` as visible, the rest as data.

        Its data hold visibility, similarity, box, frame_index, and track_id if there is one.

        Raises:
            BackendUnavailable: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise BackendUnavailable(
                f"to_supervision needs supervision: {error}; `pip install 'supervision>=0.29'`"
            ) from error
        data: dict[str, Any] = {
            "visibility": self.visibility,
            "similarity": self.similarity,
            "box": self.boxes,
            "frame_index": self.frame_index,
        }
        if self.track_ids is not None:
            data["track_id"] = self.track_ids
        return supervision.KeyPoints(
            xy=self.keypoints,
            class_id=np.zeros(len(self), np.int64),
            keypoint_confidence=self.keypoint_scores,
            detection_confidence=self.scores,
            visible=self.present,
            data=data,
        )

    def save(self, path: str | Path) -> None:
        """Write everything to one NumPy .npz file, atomically."""
        about = {
            "format": FORMAT, "skeleton": self.skeleton.to_dict(), "score_kind": self.score_kind,
            "frame_count": self.frame_count,
        }  # fmt: skip
        arrays = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        with replacing(path) as file:
            np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Poses:
        """Read a file that `save` wrote.

        Raises:
            ArgumentError: the file was not written by `save`, or by a newer version; the message names it.
        """
        try:
            content = read_npz(path)
            about = parse_json(str(content["about"]).encode(), "about", top=dict)
            if about["format"] > FORMAT:
                raise ArgumentError(f"format {about['format']} is newer than {FORMAT}: upgrade oaks")
            arrays = {name: content[name] for name in _ARRAYS if name in content}
            skeleton = Skeleton.from_dict(about["skeleton"])
            count = about.get("frame_count")
            if not (count is None or (type(count) is int and count >= 0)):
                raise ArgumentError(f"frame_count must be an integer of at least 0, got {count!r}")
            return cls(**arrays, skeleton=skeleton, score_kind=about["score_kind"], frame_count=count)
        except (KeyError, TypeError, ValueError) as error:
            raise ArgumentError(f"{path}: not a file of Poses: {error}") from error


_ARRAYS = tuple(
    entry.name for entry in fields(Poses) if entry.name not in ("skeleton", "score_kind", "frame_count")
)


_INTEGERS = {"frame_index": np.int64, "track_ids": np.int64}


def _shape(name: str, count: int, keypoints: int) -> tuple[int, ...]:
    """Return the shape of an attribute for `count` poses."""
    if name in ("visibility", "similarity", "heat"):
        return count, keypoints
    return {"keypoints": (count, keypoints, 2), "boxes": (count, 4)}.get(name, (count,))


def _file_names(given: Any, frame_index: np.ndarray, frames: int) -> list[str]:
    """Return the file name of each pose, of one name or one for each frame."""
    if isinstance(given, str):
        return [given] * len(frame_index)
    try:
        count = len(given)
        names = [given[frame] for frame in frame_index.tolist()] if count >= frames else None
    except (TypeError, LookupError):
        count, names = None, None
    if names is None or not all(isinstance(name, str | Path) for name in names):
        got = repr(given) if count is None or names is not None else count
        raise ArgumentError(f"file_names must be a name, or one for each of the {frames} frames, got {got}")
    return [str(name) for name in names]


def _or_zero(scores: np.ndarray) -> np.ndarray:
    """Scores, with 0 for those that are not finite."""
    return np.where(np.isfinite(scores), scores, np.float32(0))


def _rounded(values: np.ndarray, decimals: int = 7) -> list[Any]:
    """Return plain numbers for JSON: NaN and infinities become None, and a row of them a single None. Seven decimals keep
    a float32 below 1 exactly.
    """
    exact = values.astype(np.float64).round(decimals)
    missing = ~np.isfinite(exact)
    if not missing.any():
        return exact.tolist()
    rows: Any = np.where(missing, None, exact)
    gone = missing.all(axis=tuple(range(1, exact.ndim)))
    return [None if none else row for none, row in zip(gone.tolist(), rows.tolist(), strict=True)]


__all__ = ["NO_TRACK", "PRESENT", "Pose", "Poses"]
