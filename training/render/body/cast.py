"""The people of a generator: bodies with the cut of their clothes, each made from the seed on first use."""

from __future__ import annotations

import numpy as np

from oaks.training.render.body.anatomy import draw_proportions
from oaks.training.render.body.mesh import Body
from oaks.training.render.body.outfit import draw_outfit

BODIES = 192
"""Number of different people of a generator."""


class Cast:
    """The bodies of one seed.

    Args:
        seed: random seed of all bodies.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bodies: dict[int, Body] = {}

    def body(self, number: int) -> Body:
        """Return the body with a number from 0 to BODIES - 1; always the same."""
        if number not in self._bodies:
            rng = np.random.default_rng([self._seed, 1_000_006, number])
            proportions = draw_proportions(rng)
            outfit = draw_outfit(rng, proportions.female, proportions.child)
            self._bodies[number] = Body(proportions, outfit, number)
        return self._bodies[number]
