"""Occluders, textures and clothes."""

from __future__ import annotations

import numpy as np
import pytest

from oaks.training.render.body.anatomy import draw_proportions
from oaks.training.render.body.mesh import Body
from oaks.training.render.body.outfit import draw_outfit
from oaks.training.render.body.parts import ATLAS, PATCHES
from oaks.training.render.look.photo import Camera
from oaks.training.render.look.textures import KINDS, Textures
from oaks.training.render.look.wardrobe import Painter
from oaks.training.render.scene import occluders
from oaks.training.render.scene.backdrop import backdrop


@pytest.mark.parametrize("kind", occluders.KINDS)
def test_occluders_cover_their_rectangle(kind):
    rng = np.random.default_rng(0)
    low, high = np.array([100.0, 120.0]), np.array([170.0, 230.0])
    shares = []
    for _ in range(12):
        polygons, shades = occluders._SHAPES[kind](rng, low, high, (320, 320))
        occluder = occluders.Occluder(kind, tuple(polygons), tuple(shades), 0)
        mask = occluder.mask((320, 320), 1) > 0
        shares.append(mask[125:225, 105:165].mean())
        rows, columns = occluder.bounds((320, 320), 1)
        outside = mask.copy()
        outside[rows, columns] = False
        assert not outside.any()
        y, x = np.mgrid[5:320:40, 5:320:40]
        points = np.stack([x.ravel(), y.ravel()], 1).astype(float)
        agree = occluder.covers(points) == mask[y.ravel(), x.ravel()]
        assert agree.mean() > 0.85
        # The same shape at another scale and from another origin.
        half = occluder.mask((120, 120), 0.5, (20, 30)) > 0
        there = mask[60:300, 40:280].reshape(120, 2, 120, 2).mean((1, 3))
        assert (half == (there > 0.5)).mean() > 0.93
    assert np.mean(shares) > 0.55


def test_textures_follow_from_the_seed():
    for index in range(len(KINDS)):
        tile = Textures(3).tile(index)
        np.testing.assert_array_equal(tile, Textures(3).tile(index))
        assert tile.std() > 1
    assert (Textures(4).tile(0) != Textures(3).tile(0)).any()


def test_backgrounds_vary():
    textures = Textures(0, count=12)
    images = [backdrop(np.random.default_rng(index), textures, (64, 48), 20.0) for index in range(12)]
    assert all(image.shape == (48, 64, 3) and image.dtype == np.uint8 for image in images)
    means = np.array([image.mean((0, 1)) for image in images])
    assert means.std(0).min() > 15


def test_switches_flatten_cloth_and_faces():
    rng = np.random.default_rng(2)
    proportions = draw_proportions(rng)
    body = Body(proportions, draw_outfit(rng, proportions.female, 0.0))

    def colors(painter, name):
        x, y, width, height = PATCHES[name]
        atlas = painter.dress(np.random.default_rng(5), body)
        assert atlas.shape == (ATLAS[1], ATLAS[0], 3)
        return len(np.unique(atlas[y : y + height, x : x + width].reshape(-1, 3), axis=0))

    textures = Textures(0)
    assert colors(Painter(0, textures), "left_arm") > 20
    assert colors(Painter(0, textures, pattern=False), "left_arm") <= 3
    assert colors(Painter(0, textures), "head") > 20
    assert colors(Painter(0, textures, faces=False), "head") == 1


def test_cameras_keep_the_picture():
    camera = Camera(0)
    y, x = np.mgrid[:64, :96]
    image = np.stack([x * 2, y * 3, 128 + 0 * x], 2).astype(np.uint8)
    taken = [camera.photograph(np.random.default_rng(index), image) for index in range(30)]
    assert all(picture.shape == image.shape and picture.dtype == np.uint8 for picture in taken)
    assert any((picture != image).any() for picture in taken)
    correlation = [np.corrcoef(picture[..., 0].ravel(), image[..., 0].ravel())[0, 1] for picture in taken]
    assert np.median(correlation) > 0.9
