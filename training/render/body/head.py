"""The shapes of the head, hair and hats, as lofts; lengths are shares of the head's height."""

from __future__ import annotations

import itertools

import numpy as np

from oaks.training.render.body.anatomy import Proportions
from oaks.training.render.body.outfit import Outfit
from oaks.training.render.body.parts import COLUMNS, Loft, Part, Ring

EYE_HEIGHT, EYE_TURN = 0.49, 0.067
"""Place of the eyes: share of the head's height above the chin, and share of its circumference from the front."""


def lofts(body: Proportions, outfit: Outfit) -> list[Loft]:
    """Return skull, nose, ears, then hair and hat."""
    skull = skull_table(body)
    result = [Loft("head", [_ring(body, *row, Part.HEAD) for row in skull])]
    result.append(Loft("skin", [
        _ring(body, share, side, front, 0.01, Part.NOSE, v=0.5, forward=0.375)
        for share, side, front in ((0.55, 0.012, 0.01), (0.50, 0.025, 0.04), (0.42, 0.035, 0.085),
                                   (0.365, 0.055, 0.125), (0.33, 0.05, 0.09), (0.315, 0.01, 0.01))
    ], step=2))  # fmt: skip
    for sign, part in ((1, Part.LEFT_EAR), (-1, Part.RIGHT_EAR)):
        result.append(Loft("skin", [
            _ring(body, share, side, 0.05 + (share - 0.45) * 0.1, back, part, v=0.5,
                  forward=-0.02 - (share - 0.45) * 0.1, sideways=sign * (0.335 + (share - 0.45) * 0.1))
            for share, side, back in ((0.60, 0.005, 0.01), (0.58, 0.028, 0.05), (0.5, 0.036, 0.075),
                                      (0.4, 0.03, 0.05), (0.33, 0.02, 0.02), (0.31, 0.003, 0.005))
        ], step=2))  # fmt: skip
    return result + _hair(body, outfit, skull) + _hat(body, outfit, skull)


def skull_table(body: Proportions) -> list[tuple[float, float, float, float]]:
    """Return share of the height, side, front and back of the skull's rings, from the top down."""
    slim = 1 - 0.05 * body.female * (1 - body.child) + 0.05 * body.child
    return [
        (1.0, 0.005, 0.005, 0.005), (0.99, 0.08, 0.10, 0.13), (0.95, 0.17, 0.20, 0.26), (0.89, 0.25, 0.29, 0.36),
        (0.80, 0.305, 0.36, 0.425), (0.70, 0.33, 0.395, 0.45), (0.58, 0.335, 0.40, 0.445), (0.48, 0.325, 0.375, 0.42),
        (0.38, 0.31, 0.395, 0.38), (0.27, 0.29 * slim, 0.395, 0.33), (0.17, 0.265 * slim, 0.385, 0.26),
        (0.07, 0.21 * slim, 0.385, 0.10), (0.0, 0.12 * slim, 0.36, -0.02), (-0.04, 0.03 * slim, 0.30, -0.20),
    ]  # fmt: skip


def _ring(
    body: Proportions, share: float, side: float, front: float, back: float, part: int,
    v: float | None = None, forward: float = 0.0, sideways: float = 0.0,
) -> Ring:  # fmt: skip
    h = body.head
    return Ring(
        "head", "head_top", share, h * side, h * front, h * back, part, 1 - share if v is None else v,
        way="head_down", frame="head", forward=h * forward, sideways=h * sideways,
    )  # fmt: skip


def _cap(
    body: Proportions,
    skull: list[tuple[float, float, float, float]],
    line: np.ndarray,
    out: float,
    part: int,
    patch: str,
) -> Loft:
    """Return a shell over the skull that is outside it where the height is above `line` (one per column), inside
    below."""
    dense = [skull[0]]
    for upper, lower in itertools.pairwise(skull):
        dense += [tuple((np.array(upper) + np.array(lower)) / 2), lower]
    rings, swell = [], []
    for share, side, front, back in dense:
        if share < line.min() - 0.12:
            break
        rings.append(
            _ring(body, 0.5 + (share - 0.5) * (1 + out * 0.8), side, front, max(back, 0.05), part, 1 - share)
        )
        swell.append(np.where(share >= line, 1 + out, 0.93))
    return Loft(patch, rings, np.array(swell))


def _hair(body: Proportions, outfit: Outfit, skull: list[tuple[float, float, float, float]]) -> list[Loft]:
    if outfit.hair == "none":
        return []
    line = outfit.hairline(np.arange(COLUMNS) / (COLUMNS - 1))
    result = [_cap(body, skull, line, 0.07 if outfit.hair == "short" else 0.10, Part.HAIR, "hair")]
    table: tuple[tuple[float, float, float, float, float], ...]
    if outfit.hair == "long":
        table = ((0.6, 0.34, 0.02, 0.38, 0.08), (0.3, 0.37, 0.05, 0.42, 0.08), (0.0, 0.37, 0.02, 0.40, 0.08),
                 (-0.3, 0.36, -0.08, 0.36, 0.08), (-0.55, 0.30, -0.12, 0.33, 0.08),
                 (-0.62, 0.05, -0.2, 0.25, 0.08))  # fmt: skip
    elif outfit.hair == "tail":
        table = tuple((share, width, width, width, back) for share, width, back in (
            (0.82, 0.02, 0.42), (0.80, 0.08, 0.52), (0.6, 0.09, 0.60), (0.3, 0.09, 0.60), (0.0, 0.07, 0.56),
            (-0.2, 0.02, 0.52)))  # fmt: skip
    elif outfit.hair == "bun":
        table = tuple((share, width, width, width, 0.4) for share, width in (
            (1.06, 0.01), (1.03, 0.1), (0.93, 0.15), (0.83, 0.1), (0.8, 0.01)))  # fmt: skip
    else:
        return result
    rings = [_ring(body, *row[:4], Part.HAIR, forward=-row[4]) for row in table]
    return [*result, Loft("hair", rings)]


def _hat(body: Proportions, outfit: Outfit, skull: list[tuple[float, float, float, float]]) -> list[Loft]:
    if outfit.hat == "none":
        return []
    rim = 0.66
    line = np.full(COLUMNS, rim - 0.03 * (outfit.hat == "beanie"))
    result = [_cap(body, skull, line, 0.16, Part.HAT, "hat")]
    if outfit.hat == "beanie":
        return result
    side, front, back = (0.37, 0.72, 0.47) if outfit.hat == "cap" else (0.62, 0.68, 0.70)
    brim = [
        (rim + 0.05, 0.30, 0.36, 0.40, 0.7), (rim + 0.03, side, front, back, 0.95),
        (rim, side * 0.98, front * 0.98, back * 0.98, 1.0), (rim + 0.01, 0.30, 0.36, 0.40, 0.9),
    ]  # fmt: skip
    return [*result, Loft("hat", [_ring(body, *row[:4], Part.HAT, v=row[4]) for row in brim])]
