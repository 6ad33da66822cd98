"""Inputs for the operations: random ones, and ones on decision edges."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

DRAWN = settings(derandomize=True, database=None, deadline=None, max_examples=40, print_blob=False)
"""Hypothesis draws the same examples on every run and every machine."""

REFINEMENTS = ("second_peak", "gradient", "dark", "none")
ALIGNMENTS = ("half_pixel", "hrnet", "udp")
MAP_KINDS = ("noise", "few_levels", "constant", "negative", "holes", "bumps", "extreme")


def rng(seed=0):
    """A seeded random generator."""
    return np.random.default_rng(seed)


def maps(kind, shape, seed, dtype=np.float32):
    """(N,K,h,w) maps of one of MAP_KINDS; few_levels has many ties, holes has NaN and infinities."""
    draw = rng(seed)
    if kind == "constant":
        values = np.full(shape, draw.choice([0.0, -0.0, 1.0, -3.5]))
    elif kind == "few_levels":
        values = draw.choice([-1.0, -0.0, 0.0, 0.5, 1.0], size=shape)
    elif kind == "bumps":
        height, width = shape[2:]
        centers = draw.uniform(0, 1, (*shape[:2], 2)) * (width - 1, height - 1)
        values = gaussians(centers, (width, height), 1.5) + draw.uniform(0, 1e-3, shape)
    elif kind == "extreme":
        values = draw.choice([3e-45, -3e-45, 1e-38, 6e4, -6e4, 0.0, 1e-7], size=shape)
    else:
        values = draw.normal(size=shape)
        if kind == "negative":
            values = -1 - np.abs(values)
        if kind == "holes":
            holes = draw.choice([np.nan, np.inf, -np.inf], size=shape)
            values = np.where(draw.uniform(size=shape) < draw.choice([0.1, 0.5, 0.98]), holes, values)
    return values.astype(dtype)


def gaussians(centers, map_size, sigma):
    """(N,K,h,w) float64 targets around centers (N,K,2) in heatmap pixels; map_size is (width, height)."""
    width, height = map_size
    far_x = np.arange(width)[None, None, None, :] - centers[..., 0][:, :, None, None]
    far_y = np.arange(height)[None, None, :, None] - centers[..., 1][:, :, None, None]
    return np.exp(-(far_x**2 + far_y**2) / (2 * sigma**2))


def with_two_peaks(height, width):
    """(P,1,h,w) float32 maps, one per ordered pair of cells, and flat indices (P,2) of their two largest values."""
    cells = height * width
    first, second = (index.ravel() for index in np.mgrid[:cells, :cells])
    first, second = first[first != second], second[first != second]
    values = np.zeros((len(first), cells), np.float32)
    values[np.arange(len(first)), first] = 2
    values[np.arange(len(first)), second] = 1
    return values.reshape(-1, 1, height, width), np.stack([first, second], axis=1)


def swap_pairs(draw, keypoints):
    """Random pairs of different keypoints, none in two pairs."""
    order = draw.permutation(keypoints)
    pairs = draw.integers(0, keypoints // 2 + 1)
    return [(int(order[2 * i]), int(order[2 * i + 1])) for i in range(pairs)]


def gap(values):
    """(N,K): the smaller of the gaps below the largest and below the second-largest value of each map."""
    flat = np.sort(values.reshape(*values.shape[:2], -1).astype(np.float64), axis=-1)
    return np.diff(flat[..., -3:], axis=-1).min(axis=-1)


def strided(array):
    """A read-only copy that is not contiguous along any axis."""
    wide = np.zeros([2 * length + 1 for length in array.shape], array.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    view.flags.writeable = False
    return view


seeds = st.integers(0, 2**32 - 1)


@st.composite
def map_cases(draw, refinements=REFINEMENTS, kinds=MAP_KINDS):
    """Arguments of decode: heatmaps, mirrored, and keyword arguments."""
    shape = (
        draw(st.integers(0, 4)),
        draw(st.sampled_from([1, 2, 3, 5, 17, 17, 17, 133])),
        draw(st.integers(1, 14)),
        draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 18, 31, 33])),
    )
    dtype = draw(st.sampled_from([np.float32, np.float16]))
    kind, seed = draw(st.sampled_from(kinds)), draw(seeds)
    heatmaps = maps(kind, shape, seed, dtype)
    mirrored = maps(kind, shape, seed + 1, dtype) if draw(st.booleans()) else None
    arguments = {
        "refine": draw(st.sampled_from(refinements)),
        "alignment": draw(st.sampled_from(ALIGNMENTS)),
    }
    if mirrored is not None:
        arguments["flip_pairs"] = swap_pairs(rng(seed), shape[1])
    if draw(st.booleans()):
        arguments["crop_size"] = (4 * shape[3], 4 * shape[2])
        if draw(st.booleans()):
            arguments["transforms"] = rng(seed).normal(size=(shape[0], 2, 3)).astype(np.float32)
    return heatmaps, mirrored, arguments
