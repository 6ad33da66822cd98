"""Hairstyle, hat and the cut of clothes, which change a person's outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outfit:
    """Hair and clothes. Lengths are shares of the limb that is covered.

    Attributes:
        hair: "none", "short", "medium", "long", "tail" or "bun".
        hat: "none", "cap", "brim" or "beanie".
        skirt: None, or its length as a share of the leg.
        sleeve: of the arm down to the fingertips.
        leg: of the leg down to the ankle.
        loose: distance of the cloth from the limb, as a share of its radius.
        bag: whether there is a backpack.
    """

    hair: str = "short"
    hat: str = "none"
    skirt: float | None = None
    sleeve: float = 0.25
    leg: float = 1.0
    loose: float = 0.1
    bag: bool = False

    def hairline(self, u: np.ndarray) -> np.ndarray:
        """Return where hair begins, as a share of the head's height, at shares u of its circumference (0.5: the front)."""
        close = self.hair in ("short", "tail", "bun")
        temple, fringe = (0.5, 0.78) if close else (0.15, 0.74)
        nape = 0.2 if close else 0.0
        line = [fringe, fringe - 0.02, 0.62, temple, nape + 0.08, nape]
        return np.interp(np.abs(2 * np.asarray(u) - 1), [0.0, 0.22, 0.36, 0.5, 0.62, 1.0], line)


def draw_outfit(rng: np.random.Generator, female: float, child: float) -> Outfit:
    """Draw a hairstyle and the cut of clothes for a man, woman or child."""
    if female < 0.5 and rng.random() < 0.92:
        styles = ["none", "short", "short", "short", "short"]
    else:
        styles = ["medium", "medium", "long", "long", "tail", "bun"]
    hair = str(rng.choice(styles))
    hat = str(rng.choice(["none", "cap", "brim", "beanie"], p=[0.77, 0.11, 0.05, 0.07]))
    if hair == "bun" and (hat != "none" or child > 0.8):
        hair = "tail"
    if hair == "none" and child:
        hair = "short"
    return Outfit(
        hair=hair,
        hat=hat,
        skirt=float(rng.uniform(0.22, 0.85)) if female > 0.5 and rng.random() < 0.28 else None,
        sleeve=float(rng.choice([0.0, 0.2, 0.28, 0.5, 0.76, 0.76])),
        leg=float(rng.choice([0.2, 0.42, 0.55, 0.95, 0.95, 0.95, 0.95])),
        loose=float(rng.choice([0.05, 0.12, 0.2, 0.3])),
        bag=bool(rng.random() < 0.08),
    )
