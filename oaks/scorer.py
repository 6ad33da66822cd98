"""Scorers: calibrated scores for a frozen estimator, fitted by oaks.fit to annotated people.

    scorer = oaks.Scorer("scorer/")
    scored = scorer(keypoints, scores, boxes)        # scored.oaks_scores, .similarity, .visibility

A scorer is one JSON file of boosted trees with a card that says which estimator, decoder and skeleton it was
fitted to. It is valid for that estimator only: used on another, it ranks worse than no scorer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oaks import forest_file, ops
from oaks.addresses import redacted
from oaks.arguments import SetOnce, as_path, check_choice
from oaks.bundle import Bundle
from oaks.errors import ArgumentError, BundleError
from oaks.files import write_json
from oaks.ops import Forest
from oaks.results_features import (
    boxes_around,
    check_scores,
    feature_names,
    map_feature_names,
    results_features,
)
from oaks.skeleton import Skeleton
from oaks.structured import parse_json

FILE = "scorer.json"
"""Name of a scorer's file in a folder."""
FORMAT = 1
FEATURES_VERSION = 1
"""Version of the features' definitions; a scorer fitted to another version is refused."""
LARGEST_FILE = 64 << 20
"""Maximum size of a scorer's file, in bytes."""
KINDS = ("results", "heatmaps")
ROWS_AT_ONCE = 2048
EMPTY = 1e-30
"""A map whose largest value is below this is empty, as for oaks.ops.map_features."""


class Scored(NamedTuple):
    """Predictions of a scorer for N poses.

    Attributes:
        similarity: (N, K) float32, predicted keypoint similarity, 0 to 1.
        visibility: (N, K) float32, probability that an annotator would have placed the keypoint.
        oaks_scores: (N,) float32, equation 10 of the paper, without box scores.
    """

    similarity: np.ndarray
    visibility: np.ndarray
    oaks_scores: np.ndarray


@dataclass(frozen=True)
class Card:
    """Description of what a scorer was fitted to.

    Attributes:
        kind: "results": it uses keypoints, their scores and boxes; "heatmaps": features of the maps as well.
        estimator: name of the pose estimator.
        decoder: description of how its keypoints are decoded.
        skeleton: the keypoints.
        boxes: whether boxes are among the features; otherwise boxes around the keypoints are used.
        second_opinion: name of the estimator whose poses are features too, or None.
        features: names of the features, in order.
        fitted_on: people, images and annotation files that it was fitted to.
        out_of_fold: figures on people whom the fit had not seen.
        heat_quantiles: quantiles of each keypoint's scores in the fit, to detect another distribution.
    """

    kind: str
    estimator: str
    decoder: str
    skeleton: Skeleton
    boxes: bool
    second_opinion: str | None
    features: tuple[str, ...]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    out_of_fold: Mapping[str, Any] = field(default_factory=dict)
    heat_quantiles: tuple[float, ...] = ()


class Scorer(SetOnce):
    """A fitted score: keypoint similarity and visibility of every keypoint, and the pose's OAKS score.

    Args:
        path: a scorer's folder or file, as oaks.fit writes it.

    Attributes:
        card: what it was fitted to (Card).
        similarity, visibility: the trees (oaks.ops.Forest).

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: the file is not a scorer, or a newer one; the message names it.
    """

    card: Card
    similarity: Forest
    visibility: Forest

    def __init__(self, path: str | Path) -> None:
        path = as_path("path", path)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"scorer not found: {redacted(str(path))}; fit one with `oaks fit`")
        if path.stat().st_size > LARGEST_FILE:
            raise ArgumentError(
                f"{path}: a scorer must have at most {LARGEST_FILE} bytes, got {path.stat().st_size}"
            )
        content = path.read_bytes()
        self._set(*_parse(content, str(path)), content)

    @classmethod
    def of(cls, card: Card, similarity: Forest, visibility: Forest) -> Scorer:
        """Make a scorer from its parts."""
        scorer = cls.__new__(cls)
        scorer._set(card, similarity, visibility)
        return scorer

    @classmethod
    def read(cls, content: bytes, label: str) -> Scorer:
        """Return a scorer from a file's content; `label` names it in messages.

        Raises:
            ArgumentError: it is not a scorer.
        """
        scorer = cls.__new__(cls)
        scorer._set(*_parse(content, label), content)
        return scorer

    def _set(self, card: Card, similarity: Forest, visibility: Forest, content: bytes = b"") -> None:
        self.card, self.similarity, self.visibility = card, similarity, visibility
        self._sha256 = hashlib.sha256(content).hexdigest() if content else ""

    @property
    def sha256(self) -> str:
        """That of the file; empty for a scorer that has not been saved."""
        return self._sha256

    def __repr__(self) -> str:
        return f"Scorer({self.card.estimator!r}, {self.card.decoder!r}, {self.card.kind})"

    def __call__(
        self,
        keypoints: Any,
        scores: Any,
        boxes: Any = None,
        *,
        second: tuple[Any, Any] | None = None,
    ) -> Scored:
        """Score N poses of the estimator that the scorer was fitted to.

        Args:
            keypoints: (N, K, 2) pixels of the image that the estimator saw.
            scores: (N, K) scores of the keypoints, as the estimator gives them.
            boxes: (N, 4) x1, y1, x2, y2; required if the scorer was fitted with boxes, otherwise None.
            second: keypoints and scores of the second opinion; required if it was fitted with one, otherwise None.

        Raises:
            ArgumentError: an argument does not fit, or holds numbers that are not finite; of several poses all scores
                are equal, or each has one score for all its keypoints; or the scorer sees heatmaps.
        """
        if self.card.kind != "results":
            raise ArgumentError(
                "scorer must be fitted to results, got one that sees heatmaps; oaks.Engine runs its bundle"
            )
        points, heat, corners, other = self._check(keypoints, scores, boxes, second)
        similarity, visibility = np.empty_like(heat), np.empty_like(heat)
        for start in range(0, len(points), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            opinion = None if other is None else (other[0][rows], other[1][rows])
            features = results_features(self.card.skeleton, points[rows], heat[rows], corners[rows], opinion)
            similarity[rows], visibility[rows] = self.predict(features)
        return Scored(similarity, visibility, ops.score(similarity, visibility))

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict similarity and visibility (N, K) from features (N, K, F) float32 in the card's order."""
        return ops.forest(features, self.similarity), ops.forest(features, self.visibility)

    def require(
        self, *, estimator: str | None = None, decoder: str | None = None, skeleton: Skeleton | None = None
    ) -> None:
        """Check that poses come from the estimator that the scorer was fitted to; None is not checked.

        Raises:
            ArgumentError: the estimator, decoder or skeleton is another one.
        """
        card = self.card
        for name, given, fitted in (
            ("estimator", estimator, card.estimator),
            ("decoder", decoder, card.decoder),
        ):
            if given is not None and given != fitted:
                raise ArgumentError(
                    f"{name} must be {fitted!r}, which the scorer was fitted to, got {given!r}; fit a scorer to it"
                )
        if skeleton is not None and skeleton.keypoints != card.skeleton.keypoints:
            raise ArgumentError(
                f"skeleton must have the scorer's keypoints {list(card.skeleton.keypoints)}, "
                f"got {list(skeleton.keypoints)}"
            )

    def unlike(self, scores: Any) -> float:
        """Distance of keypoint scores (N, K) from those that the scorer was fitted to, from 0 to 1.

        The Kolmogorov-Smirnov statistic: the largest distance between the two distribution functions.
        """
        seen = np.sort(np.asarray(scores, float).ravel())
        marks = np.array(self.card.heat_quantiles)
        steps = len(marks) - 1
        # Equal quantiles are a jump of the fitted distribution, from the first of them to the last.
        after = (np.searchsorted(marks, marks, side="right") - 1) / steps
        before = np.searchsorted(marks, marks, side="left") / steps
        higher = np.searchsorted(seen, marks, side="right") / len(seen) - after
        lower = before - np.searchsorted(seen, marks, side="left") / len(seen)
        return float(max(higher.max(), lower.max(), 0.0))

    def save(self, path: str | Path) -> Path:
        """Write the scorer: into a folder, or under a file name that ends in .json. Returns the file.

        Raises:
            OSError: the place cannot be written to.
        """
        path = Path(path)
        if path.suffix != ".json":
            path.mkdir(parents=True, exist_ok=True)
            path = path / FILE
        write_json(path, self.to_dict())
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return path

    def to_dict(self) -> dict[str, Any]:
        """Return the file's content."""
        return {
            "format": FORMAT,
            **vars(self.card),
            "skeleton": self.card.skeleton.to_dict(),
            "similarity": forest_file.to_dict(self.similarity),
            "visibility": forest_file.to_dict(self.visibility),
        }

    def _check(
        self, keypoints: Any, scores: Any, boxes: Any, second: tuple[Any, Any] | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        card = self.card
        count = card.skeleton.count
        points = _numbers("keypoints", keypoints, (None, count, 2), np.float64)
        heat = _numbers("scores", scores, (len(points), count), np.float32)
        if len(heat) > 1:  # the scores of one pose may be equal by chance, for example all 0
            check_scores(heat, "scores")
        if (boxes is not None) != card.boxes:
            raise ArgumentError(
                "boxes must be given to this scorer, which was fitted with boxes, got None"
                if card.boxes
                else "boxes must be None for this scorer, which was fitted without boxes, got an array"
            )
        corners = (
            boxes_around(points) if boxes is None else _numbers("boxes", boxes, (len(points), 4), np.float64)
        )
        if (second is not None) != (card.second_opinion is not None):
            expected = f"the poses of {card.second_opinion!r}" if card.second_opinion else "None"
            came = "None" if second is None else "poses"
            raise ArgumentError(f"second must be {expected}, as this scorer was fitted, got {came}")
        other = None
        if second is not None:
            other = (
                _numbers("second[0]", second[0], points.shape, np.float64),
                _numbers("second[1]", second[1], heat.shape, np.float32),
            )
        return points, heat, corners, other


def load_forests(bundle: Bundle) -> list[Forest]:
    """Return the trees of a bundle whose scorer sees heatmaps, for similarity and for visibility; none of another bundle.

    Raises:
        BundleError: a file holds no forest, or the forests look at other features than this version computes.
    """
    part = bundle.scorer
    if part is None or part.kind != "forest" or not bundle.has("pose"):
        return []
    known = map_feature_names(bundle.skeleton.count, second_opinion=part.second is not None)
    stated = part.features
    if stated.get("version") != FEATURES_VERSION or tuple(stated.get("names", ())) != known:
        raise BundleError(
            f"{bundle.path}: scorer.features must be those of this version of oaks, got others; fit the scorer again"
        )
    forests = []
    for name in ("similarity", "visibility"):
        file = part.files[name]
        try:
            forests.append(forest_file.read(bundle.read(file), f"{bundle.path}/{file}"))
        except ArgumentError as error:
            raise BundleError(str(error)) from error
        if forests[-1].features != len(known):
            raise BundleError(
                f"{bundle.path}/{file}: features must be {len(known)}, got {forests[-1].features}; fit the scorer again"
            )
    return forests


def uninformative(features: np.ndarray, cells: int) -> np.ndarray:
    """Return (N, K) bool: maps without information (not finite, empty or constant), by their features (N, K, F).

    The trees were not fitted to such maps and would give them a plausible score.

    Args:
        features: as map_feature_names orders them.
        cells: number of cells of a map.
    """
    names = map_feature_names(features.shape[1])
    heat, entropy = features[..., names.index("heat")], features[..., names.index("entropy")]
    # A constant map has the largest possible entropy.
    return ~np.isfinite(heat) | (heat < EMPTY) | (entropy > np.log(cells) - 1e-5)


def _numbers(name: str, value: Any, shape: tuple[int | None, ...], dtype: type) -> np.ndarray:
    try:
        array: np.ndarray = np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{name} must be an array of numbers, got {type(value).__name__}: {error}"
        ) from None
    if array.ndim != len(shape) or any(w not in (None, n) for w, n in zip(shape, array.shape, strict=True)):
        expected = ", ".join("N" if size is None else str(size) for size in shape)
        raise ArgumentError(f"{name} must have shape ({expected}), got {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ArgumentError(f"{name} must be finite, got NaN or infinity in row {row}")
    return array


def _parse(content: bytes, label: str) -> tuple[Card, Forest, Forest]:
    """Check a file's content field by field."""
    stated = parse_json(content, label)
    if (
        not isinstance(stated, dict)
        or not isinstance(stated.get("format"), int)
        or "similarity" not in stated
    ):
        raise ArgumentError(f"{label} is not a scorer's file; `oaks fit` writes one")
    if stated["format"] > FORMAT:
        raise ArgumentError(f"{label}: format must be at most {FORMAT}, got {stated['format']}; upgrade oaks")
    try:
        return _fields(stated)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        detail = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ArgumentError(f"{label}: {detail}") from error


def _fields(stated: dict[str, Any]) -> tuple[Card, Forest, Forest]:
    skeleton = Skeleton.from_dict(stated["skeleton"])
    features, second = tuple(stated["features"]), stated["second_opinion"]
    for name, kind in (
        ("estimator", str),
        ("decoder", str),
        ("boxes", bool),
        ("fitted_on", dict),
        ("out_of_fold", dict),
    ):
        if not isinstance(stated[name], kind):
            raise ArgumentError(f"{name} must be {kind.__name__}, got {stated[name]!r}")
    check_choice("kind", stated["kind"], KINDS)
    if not (second is None or isinstance(second, str)):
        raise ArgumentError(f"second_opinion must be a name or null, got {second!r}")
    if stated["kind"] == "results":
        known = feature_names(skeleton.count, second_opinion=second is not None)
    else:
        known = map_feature_names(skeleton.count, second_opinion=second is not None)
    if features != known:
        raise ArgumentError(
            "features must be those of this version of oaks, got others; fit the scorer again"
        )
    quantiles = np.asarray(stated["heat_quantiles"], float)
    if quantiles.ndim != 1 or len(quantiles) < 2 or not np.isfinite(quantiles).all():
        raise ArgumentError(
            f"heat_quantiles must be at least 2 finite numbers, got {str(stated['heat_quantiles'])[:64]}"
        )
    parsed = {"skeleton": skeleton, "features": features, "heat_quantiles": tuple(quantiles.tolist())}
    card = Card(**{**{entry.name: stated[entry.name] for entry in fields(Card)}, **parsed})
    forests = [forest_file.from_dict(stated[name]) for name in ("similarity", "visibility")]
    for forest in forests:
        if forest.features != len(features):
            raise ArgumentError(f"forests must look at {len(features)} features, got {forest.features}")
    return card, forests[0], forests[1]


__all__ = ["Card", "Scored", "Scorer", "load_forests", "uninformative"]
