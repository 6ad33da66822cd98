"""Figures with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.arguments import check_seed, is_integer
from oaks.errors import ArgumentError

CONFIDENCE = 0.95
MOST_RESAMPLES = 100_000


@dataclass(frozen=True)
class Interval:
    """A figure and the middle 95 % of its resamples; NaN if no resample has the figure."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Interval:
        """Return the interval of (1+B,) values: the figure, then its B resamples. Values that are not finite are ignored."""
        tail = (1 - CONFIDENCE) / 2
        rest = values[1:][np.isfinite(values[1:])]
        low, high = np.quantile(rest, [tail, 1 - tail]) if len(rest) else (np.nan, np.nan)
        return cls(float(values[0]), float(low), float(high))


def check_resamples(resamples: int, seed: int) -> None:
    """Check the number of resamples and the seed of a bootstrap.

    Raises:
        ArgumentError: one of them does not fit.
    """
    if not is_integer(resamples) or not 1 <= resamples <= MOST_RESAMPLES:
        raise ArgumentError(f"resamples must be an integer from 1 to {MOST_RESAMPLES}, got {resamples!r}")
    check_seed(seed)


def resample_images(images: int, resamples: int, seed: int | np.random.Generator) -> np.ndarray:
    """Return (1+resamples, images) how often each image counts: once, then as in draws of all images with replacement."""
    if not isinstance(seed, np.random.Generator):
        check_resamples(resamples, seed)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.concatenate([np.ones((1, images), np.uint16), draws.astype(np.uint16)])


__all__ = ["CONFIDENCE", "MOST_RESAMPLES", "Interval", "check_resamples", "resample_images"]
