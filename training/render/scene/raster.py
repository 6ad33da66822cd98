"""A z-buffer for many small triangles, vectorized over all of them.

Triangles are cut into the spans of pixel rows that they cover, spans into pixels, and the nearest triangle
of each pixel is kept. No Python loop runs over triangles, so that thousands of a few pixels each take
milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TRIANGLE_BITS = np.uint64(32)
_TRIANGLE_MASK = np.uint64(0xFFFFFFFF)
# Twice the area, in pixels, below which a triangle is left out: interpolation over thinner ones is unstable.
_SLIVER = 2e-3
_FAR = np.float32(1e9)


@dataclass(frozen=True)
class Surface:
    """The covered pixels of a z-buffer.

    Attributes:
        size: (width, height) of the buffer in pixels.
        pixels: (P,) int64: flat indices of the covered pixels, ascending.
        triangles: (P,) int64: the triangle nearest to the camera there.
        nearness: (P,) float32: one over its distance, in 1/meters.
    """

    size: tuple[int, int]
    pixels: np.ndarray
    triangles: np.ndarray
    nearness: np.ndarray


def rasterize(
    points: np.ndarray, nearness: np.ndarray, triangles: np.ndarray, size: tuple[int, int]
) -> Surface:
    """Find the triangle nearest to the camera at every pixel center.

    Triangles whose corners run clockwise in the image (y down) face away and are left out.

    Args:
        points: (V, 2) float32: the vertices in pixels; the center of the top-left pixel is (0, 0).
        nearness: (V,) float32, positive: one over the vertices' distances from the camera plane, which
            perspective keeps linear in the image.
        triangles: (T, 3) int: indices of vertices.
        size: (width, height) of the buffer.
    """
    width, height = size
    numbers = np.ascontiguousarray(triangles.T)
    x0, x1, x2 = np.take(np.ascontiguousarray(points[:, 0]), numbers)
    y0, y1, y2 = np.take(np.ascontiguousarray(points[:, 1]), numbers)
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    first = np.maximum(np.ceil(np.minimum(np.minimum(y0, y1), y2)), 0)
    rows = np.minimum(np.floor(np.maximum(np.maximum(y0, y1), y2)), height - 1) - first + 1
    kept = (area < -_SLIVER) & (rows > 0)
    kept &= (np.maximum(np.maximum(x0, x1), x2) >= 0) & (np.minimum(np.minimum(x0, x1), x2) <= width - 1)
    kept = np.flatnonzero(kept)
    if len(kept) == 0:
        return Surface(size, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    corners = np.take(points, triangles[kept], axis=0)
    first, rows = first[kept], rows[kept].astype(np.int64)
    owner, row, start, end = _spans(corners, first, rows)
    start = np.maximum(np.ceil(start - 1e-3), 0)
    count = (np.minimum(np.floor(end + 1e-3), width - 1) - start).astype(np.int64) + 1
    used = np.flatnonzero(count > 0)
    owner, row, start, count = (np.take(array, used) for array in (owner, row, start, count))

    # The plane of each triangle's nearness, measured from the start of its first row to keep float32 exact.
    slope_x, slope_y, base = planes(corners, np.take(nearness, triangles[kept])[..., None])
    slope_x, base = slope_x[:, 0], base[:, 0] + slope_y[:, 0] * (first - corners[:, 0, 1])
    slope = np.take(slope_x, owner)
    near = np.take(base, owner) + slope * (start - np.take(corners[:, 0, 0], owner))
    near += np.take(slope_y[:, 0], owner) * row

    total = int(count.sum())
    step = np.arange(total, dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    y = row + np.take(first - first.min(), owner)
    pixel = np.repeat((y * width + start).astype(np.int32), count) + step
    depth = np.repeat(slope, count)
    depth *= step
    depth += np.repeat(near, count)
    np.maximum(depth, np.float32(1e-9), out=depth)
    # The bits of positive floats sort as the floats do, so one maximum keeps the nearest triangle's number too.
    key = depth.view(np.uint32).astype(np.uint64) << _TRIANGLE_BITS
    key |= np.repeat(np.take(kept, owner).astype(np.uint64), count)
    top, bottom = int(first.min()), int((first + rows).max())
    buffer = np.zeros(width * (bottom - top), np.uint64)
    np.maximum.at(buffer, pixel, key)
    covered = np.flatnonzero(buffer)
    key = np.take(buffer, covered)
    return Surface(
        size,
        covered + top * width,
        (key & _TRIANGLE_MASK).astype(np.int64),
        (key >> _TRIANGLE_BITS).astype(np.uint32).view(np.float32),
    )


def planes(corners: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Describe values that are linear over each triangle: their change per pixel in x and in y, and their value at corner 0.

    Args:
        corners: (T, 3, 2) in pixels, of triangles with an area.
        values: (T, 3, A) at the corners.

    Returns:
        three arrays (T, A) float32.
    """
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    change_a, change_b = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    inverse = 1 / (edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0])
    edge_a, edge_b = edge_a * inverse[:, None], edge_b * inverse[:, None]
    in_x = change_a * edge_b[:, 1:2] - change_b * edge_a[:, 1:2]
    in_y = change_b * edge_a[:, 0:1] - change_a * edge_b[:, 0:1]
    return in_x.astype(np.float32), in_y.astype(np.float32), values[:, 0].astype(np.float32)


def interpolate(
    surface: Surface, points: np.ndarray, triangles: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Interpolate the vertices' values at every covered pixel.

    Args:
        surface: result of rasterize for these points and triangles.
        points: (V, 2) float32.
        triangles: (T, 3) int.
        values: (V, A) float32.

    Returns:
        (P, A) float32.
    """
    seen = np.zeros(len(triangles), bool)
    seen[surface.triangles] = True
    number = np.cumsum(seen) - 1
    seen = np.flatnonzero(seen)
    owner = np.take(number, surface.triangles)
    at_corners = np.take(values, triangles[seen], axis=0)
    corners = np.take(points, triangles[seen], axis=0)
    in_x, in_y, base = planes(corners, at_corners)
    width = surface.size[0]
    y, x = np.divmod(surface.pixels.astype(np.int32), np.int32(width))
    x = x - np.take(corners[:, 0, 0], owner)
    y = y - np.take(corners[:, 0, 1], owner)
    result = np.take(in_x, owner, axis=0)
    result *= x[:, None]
    rise = np.take(in_y, owner, axis=0)
    rise *= y[:, None]
    result += rise
    result += np.take(base, owner, axis=0)
    return result


def _spans(
    corners: np.ndarray, first: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return every triangle's pixel rows: triangle number, row relative to its first, start and end of the row."""
    owner = np.repeat(np.arange(len(rows)), rows)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(rows) - rows, rows)
    step = step.astype(np.float32)
    start = np.full(len(owner), -_FAR)
    end = np.full(len(owner), _FAR)
    for edge in range(3):
        x, y = corners[:, edge, 0], corners[:, edge, 1]
        run, rise = corners[:, edge - 2, 0] - x, corners[:, edge - 2, 1] - y
        level = np.abs(rise) < 1e-6
        slope = run / np.where(level, np.float32(1), rise)
        at_first = x + slope * (first - y)
        # Corners run anticlockwise with y down: falling edges are a triangle's left, rising ones its right.
        falls, rises = ~level & (rise > 0), ~level & (rise < 0)
        for side, bound, best, worst in ((falls, start, np.maximum, -_FAR), (rises, end, np.minimum, _FAR)):
            reach = np.take(np.where(side, slope, 0), owner) * step
            reach += np.take(np.where(side, at_first, worst), owner)
            best(bound, reach, out=bound)
    return owner, step, start, end
