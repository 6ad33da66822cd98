"""The z-buffer against a rasterizer that tests every pixel of every triangle."""

from __future__ import annotations

import numpy as np

from oaks.training.render.scene import raster


def naive(points, nearness, triangles, size):
    """Return the nearest triangle's number (H, W) (-1: none), its nearness, and whether rounding cannot change it."""
    width, height = size
    best = np.full((height, width), -1)
    depth = np.zeros((height, width))
    margin = np.full((height, width), np.inf)
    second = np.zeros((height, width))
    points = points.astype(np.float64)
    for number, (a, b, c) in enumerate(triangles):
        matrix = np.array([[*points[i], 1.0] for i in (a, b, c)]).T
        area = np.linalg.det(matrix)
        if area >= 0:
            continue
        inverse = np.linalg.inv(matrix)
        for y in range(height):
            for x in range(width):
                weights = inverse @ [x, y, 1.0]
                margin[y, x] = min(margin[y, x], abs(weights.min()) * np.sqrt(abs(area)))
                if weights.min() < 0:
                    continue
                value = weights @ nearness[[a, b, c]]
                if value > depth[y, x]:
                    second[y, x] = depth[y, x]
                    best[y, x], depth[y, x] = number, value
                else:
                    second[y, x] = max(second[y, x], value)
    return best, depth, (margin > 0.02) & (depth - second > 1e-4)


def soup(seed, count=40, size=(24, 18)):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-4, 28, (count, 1, 2)) * [1.0, 0.8]
    points = (centers + rng.normal(0, 5, (count, 3, 2))).reshape(-1, 2).astype(np.float32)
    nearness = rng.uniform(0.1, 1.0, 3 * count).astype(np.float32)
    return points, nearness, np.arange(3 * count).reshape(-1, 3), size


def test_nearest_triangles_are_kept():
    compared = 0
    for seed in range(6):
        points, nearness, triangles, size = soup(seed)
        best, depth, certain = naive(points, nearness, triangles, size)
        surface = raster.rasterize(points, nearness, triangles, size)
        found = np.full(size[0] * size[1], -1)
        found[surface.pixels] = surface.triangles
        near = np.zeros(size[0] * size[1])
        near[surface.pixels] = surface.nearness
        found, near = found.reshape(best.shape), near.reshape(best.shape)
        assert (found[certain] == best[certain]).all()
        np.testing.assert_allclose(near[certain], depth[certain], atol=2e-5)
        compared += int((certain & (best >= 0)).sum())
    assert compared > 500


def test_a_closed_surface_has_no_holes():
    # A fan of thin triangles around a point: every pixel well inside is covered.
    angle = np.linspace(0, 2 * np.pi, 97)[:-1]
    rim = np.stack([20 + 15 * np.cos(angle), 20 + 15 * np.sin(angle)], 1)
    points = np.concatenate([[[20.2, 20.3]], rim]).astype(np.float32)
    triangles = np.stack([np.zeros(96, int), 1 + (np.arange(96) + 1) % 96, 1 + np.arange(96)], 1)
    surface = raster.rasterize(points, np.full(97, 0.5, np.float32), triangles, (41, 41))
    mask = np.zeros(41 * 41, bool)
    mask[surface.pixels] = True
    y, x = np.mgrid[:41, :41]
    distance = np.hypot(x - 20, y - 20)
    assert mask.reshape(41, 41)[distance < 14.5].all()
    assert not mask.reshape(41, 41)[distance > 15.1].any()


def test_interpolation_reproduces_linear_fields():
    points, nearness, triangles, size = soup(9)
    field = np.stack([0.3 * points[:, 0] - 0.2 * points[:, 1] + 4, points[:, 1]], 1).astype(np.float32)
    surface = raster.rasterize(points, nearness, triangles, size)
    values = raster.interpolate(surface, points, triangles, field)
    y, x = np.divmod(surface.pixels, size[0])
    np.testing.assert_allclose(values[:, 0], 0.3 * x - 0.2 * y + 4, atol=2e-3)
    np.testing.assert_allclose(values[:, 1], y, atol=2e-3)


def test_triangles_outside_the_buffer_cover_no_pixel():
    points = np.array([[50, 50], [60, 50], [50, 60]], np.float32)
    surface = raster.rasterize(points, np.ones(3, np.float32), np.array([[0, 2, 1], [0, 1, 2]]), (20, 20))
    assert len(surface.pixels) == len(surface.triangles) == 0
