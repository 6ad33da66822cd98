"""The shapes of trunk, limbs, skirt and bag, as lofts; lengths are shares of the stature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from oaks.training.render.body.anatomy import Proportions
from oaks.training.render.body.outfit import Outfit
from oaks.training.render.body.parts import ANGLE, COLUMNS, Loft, Part, Ring

SKIRT_RINGS = 8


def lofts(body: Proportions, outfit: Outfit) -> list[Loft]:
    """Return trunk, neck, arms, legs and feet, then skirt and bag if the outfit has them."""
    result = [_trunk(body, outfit), _neck(body)]
    for side in ("left", "right"):
        result += [_arm(body, outfit, side), _leg(body, outfit, side), _foot(body, side)]
    if outfit.skirt is not None:
        result.append(_skirt())
    if outfit.bag:
        result.append(_bag(body))
    return result


def _trunk(body: Proportions, outfit: Outfit) -> Loft:
    woman, child, build = body.female * (1 - body.child), body.child, body.build
    girth = body.stature * build**0.8
    waist = 1 - 0.13 * woman + 0.05 * child + 0.25 * max(build - 1, 0)
    hips = 1 + 0.05 * woman
    bust = 0.012 * woman * build
    belly = 0.03 * max(build - 1, 0) + 0.006 * child
    top = body.shoulder / girth
    table = (
        # share of the spine, side, front, back, power
        (-0.24, 0.012, 0.010, 0.012, 1.0),
        (-0.205, 0.076, 0.046, 0.054, 0.9),
        (-0.13, 0.097 * hips, 0.060, 0.070, 0.85),
        (-0.02, 0.100 * hips, 0.060 + belly * 0.5, 0.068 + 0.004 * woman, 0.85),
        (0.12, 0.092 * (hips + waist) / 2, 0.060 + belly, 0.056, 0.85),
        (0.28, 0.083 * waist, 0.058 + belly, 0.048, 0.85),
        (0.44, 0.086 * (0.4 + 0.6 * waist), 0.060 + belly * 0.6 + bust * 0.4, 0.052, 0.85),
        (0.58, 0.093, 0.064 + bust, 0.057, 0.85),
        (0.70, 0.098, 0.064 + bust * 0.9, 0.060, 0.85),
        (0.80, 0.100, 0.058 + bust * 0.2, 0.060, 0.85),
        (0.88, max(top * 0.93, 0.07), 0.050, 0.055, 0.9),
        (0.945, max(top * 0.78, 0.06), 0.042, 0.048, 0.9),
        (0.985, top * 0.52, 0.035, 0.042, 1.0),
        (1.03, 0.036, 0.028, 0.036, 1.0),
    )
    rings, swell = [], np.ones((len(table), COLUMNS))
    for index, (share, side, front, back, power) in enumerate(table):
        size = girth * (1 + 0.3 * outfit.loose * (share < 0.9))
        part = Part.PELVIS if share < 0.13 else Part.CHEST
        mix = float(np.clip((share - 0.05) / 0.5, 0, 1))
        rings.append(
            Ring(
                "pelvis", "neck", share, size * side, size * front, size * back, part, (1.03 - share) / 1.27,
                way="down", frame="pelvis", next_frame="chest", mix=mix, power=power,
            )
        )  # fmt: skip
        if 0.5 < share < 0.75:
            swell[index] += 0.16 * woman * np.exp(-(((np.abs(ANGLE) - 0.55) / 0.3) ** 2))
    return Loft("trunk", rings, swell)


def _neck(body: Proportions) -> Loft:
    width = body.stature * body.build**0.8 * (0.0355 - 0.004 * body.female - 0.004 * body.child)
    return Loft("skin", [
        Ring("neck_low", "head", share, width * size, width * size, width * size, Part.NECK, 0.9 - 0.8 * share,
             way="down", next_way="head_down", turn=share, frame="chest", next_frame="head", mix=min(share, 1.0))
        for share, size in ((0.1, 1.25), (0.45, 1.02), (0.8, 0.97), (1.15, 1.0))
    ], step=2)  # fmt: skip


def _arm(body: Proportions, outfit: Outfit, side: str) -> Loft:
    girth = body.stature * body.build**0.7 * (1 - 0.09 * body.female)
    names = [f"{side}_{name}" for name in ("shoulder", "elbow", "wrist", "fingers")]
    ways = [f"{side}_{name}" for name in ("upper_arm", "forearm", "hand")]
    parts = [Part[way.upper()] for way in ways]
    lengths = np.array([body.upper_arm, body.forearm, body.hand])
    starts = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()
    table = (
        # bone, share, turn to the bone from the one before (of the first: to the next), side, front
        (0, -0.10, 0, 0.008, 0.010), (0, -0.08, 0, 0.021, 0.024), (0, -0.02, 0, 0.029, 0.032),
        (0, 0.07, 0, 0.032, 0.035), (0, 0.22, 0, 0.030, 0.033), (0, 0.5, 0, 0.026, 0.029),
        (0, 0.8, 0.1, 0.023, 0.024), (1, 0.0, 0.5, 0.0225, 0.023), (1, 0.15, 0.9, 0.0245, 0.024),
        (1, 0.35, 1, 0.025, 0.024), (1, 0.7, 1, 0.0195, 0.019), (1, 0.95, 1, 0.0155, 0.0165),
        (2, 0.18, 1, 0.0125, 0.021), (2, 0.42, 1, 0.0125, 0.026), (2, 0.75, 1, 0.011, 0.024),
        (2, 0.94, 1, 0.008, 0.019), (2, 1.0, 1, 0.003, 0.008), (2, 1.01, 1, 0.001, 0.002),
    )  # fmt: skip
    rings = []
    for bone, share, turn, across, ahead in table:
        v = float(starts[bone] + share * (starts[bone + 1] - starts[bone]))
        size = girth * (1 + 1.4 * outfit.loose * (0 <= v <= outfit.sleeve))
        first = max(bone - 1, 0)
        rings.append(
            Ring(
                names[bone], names[bone + 1], share, size * across, size * ahead, size * ahead, parts[bone],
                max(v, 0.0), way=ways[first], next_way=ways[max(bone, 1)], turn=turn, frame="chest",
            )
        )  # fmt: skip
    return Loft(f"{side}_arm", rings, step=2)


def _leg(body: Proportions, outfit: Outfit, side: str) -> Loft:
    girth = body.stature * body.build**0.75
    full = 1 + 0.06 * body.female
    table = (
        # bone, share, turn towards the shin, side, front, back
        (0, -0.12, 0, 0.012, 0.015, 0.02), (0, -0.04, 0, 0.034, 0.038, 0.048),
        (0, 0.08, 0, 0.042 * full, 0.046, 0.055),
        (0, 0.25, 0, 0.047 * full, 0.049, 0.05), (0, 0.5, 0, 0.042 * full, 0.045, 0.043),
        (0, 0.8, 0.1, 0.034, 0.036, 0.034),
        (1, 0.0, 0.5, 0.031, 0.034, 0.030), (1, 0.15, 0.9, 0.0295, 0.029, 0.033),
        (1, 0.33, 1, 0.032, 0.026, 0.040),
        (1, 0.6, 1, 0.026, 0.022, 0.031), (1, 0.9, 1, 0.0195, 0.021, 0.022), (1, 1.0, 1, 0.021, 0.022, 0.025),
        (1, 1.08, 1, 0.018, 0.02, 0.02),
    )  # fmt: skip
    rings = []
    for bone, share, turn, across, front, back in table:
        v = (bone + share) / 2
        cloth = outfit.skirt is None and 0 <= v <= outfit.leg
        size = girth * (1 + outfit.loose * (0.3 + 2.2 * v) * cloth)
        rings.append(
            Ring(
                f"{side}_{('hip', 'knee')[bone]}", f"{side}_{('knee', 'ankle')[bone]}", share,
                size * across, size * front, size * back, Part[f"{side}_{('thigh', 'shin')[bone]}".upper()],
                float(np.clip(v, 0, 1)), way=f"{side}_thigh", next_way=f"{side}_shin", turn=turn,
                frame="pelvis",
            )
        )  # fmt: skip
    return Loft(f"{side}_leg", rings)


def _foot(body: Proportions, side: str) -> Loft:
    girth = body.stature * body.build**0.5
    return Loft(f"{side}_foot", [
        Ring(f"{side}_heel", f"{side}_toes", share, girth * width, girth * upper, girth * lower,
             Part[f"{side}_foot".upper()], max(share, 0.0), way=f"{side}_toes", frame=f"{side}_foot",
             power=0.8)
        for share, width, upper, lower in (
            (-0.06, 0.003, 0.004, 0.003), (-0.03, 0.018, 0.022, 0.015), (0.15, 0.021, 0.036, 0.017),
            (0.35, 0.021, 0.033, 0.016), (0.55, 0.024, 0.02, 0.015), (0.75, 0.0275, 0.013, 0.014),
            (0.93, 0.022, 0.008, 0.012), (1.0, 0.004, 0.002, 0.004),
        )
    ], step=2)  # fmt: skip


def _skirt() -> Loft:
    """Return a skirt's rings; Body puts them around both legs in each pose."""
    ring = Ring("pelvis", "neck", 0, 1, 1, 1, Part.SKIRT, 0, way="down", frame="pelvis")
    rings = [replace(ring, v=index / (SKIRT_RINGS - 1)) for index in range(SKIRT_RINGS)]
    return Loft("skirt", rings, 1 + np.linspace(0, 0.1, SKIRT_RINGS)[:, None] * np.cos(6 * ANGLE)[None])


def _bag(body: Proportions) -> Loft:
    s = body.stature
    return Loft("bag", [
        Ring("pelvis", "neck", share, s * side, s * depth, s * depth, Part.BAG, (0.97 - share) / 0.75,
             way="down", frame="chest", forward=-0.095 * s, power=0.5)
        for share, side, depth in ((0.97, 0.01, 0.01), (0.95, 0.055, 0.03), (0.85, 0.075, 0.042), (0.5, 0.08, 0.05),
                                   (0.28, 0.075, 0.045), (0.24, 0.01, 0.01))
    ])  # fmt: skip
