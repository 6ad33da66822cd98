"""Drawing: what is shown or hidden, for pictures of any size and any coordinates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from oaks import COCO17, Poses, Skeleton
from oaks.draw import draw

PAIR = Skeleton("pair", ("left", "right", "top"), (0.1,) * 3, pairs=((0, 1),), limbs=((0, 2), (1, 2)))
POINTS = {"left": (30, 150), "right": (170, 150), "top": (100, 40)}


def poses(**changes) -> Poses:
    arrays = {
        "keypoints": [list(POINTS.values())],
        "visibility": [[0.9, 0.9, 0.9]],
        "similarity": [[0.9] * 3],
        "heat": [[0.9] * 3],
        "oaks_scores": [0.8],
        "conventional_scores": [0.9],
        "scores": [0.8],
        "boxes": [[10, 20, 190, 180]],
        "box_scores": [1],
        "frame_index": [0],
        "skeleton": PAIR,
    }
    return Poses(**{**arrays, **changes})


GRAY = np.full((200, 200, 3), 128, np.uint8)


def changed(picture: np.ndarray, x: float, y: float) -> bool:
    """Whether anything was drawn within three pixels of a point."""
    around = picture[max(int(y) - 3, 0) : int(y) + 4, max(int(x) - 3, 0) : int(x) + 4]
    return bool((around != 128).any())


def half_way(a: str, b: str) -> tuple[float, float]:
    return (POINTS[a][0] + POINTS[b][0]) / 2, (POINTS[a][1] + POINTS[b][1]) / 2


def test_the_input_picture_is_not_changed():
    picture = GRAY.copy()
    drawn = draw(picture, poses())
    assert (picture == 128).all()
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    assert not np.array_equal(drawn, picture)


def test_limbs_are_colored_by_side():
    drawn = draw(GRAY, poses(), scores=False)
    left, right = (
        drawn[round(y), round(x)].astype(int) for x, y in (half_way("left", "top"), half_way("right", "top"))
    )
    assert left[0] > left[2] + 60, "left limbs are blue"
    assert right[2] > right[0] + 60, "right limbs are orange"


def test_keypoints_predicted_absent_are_not_drawn_nor_their_limbs():
    drawn = draw(GRAY, poses(visibility=[[0.49, 0.9, 0.9]]), scores=False)
    assert not changed(drawn, *POINTS["left"])
    assert not changed(drawn, *half_way("left", "top"))
    assert changed(drawn, *POINTS["right"])
    assert changed(drawn, *half_way("right", "top"))


def test_absent_keypoints_can_be_drawn_hollow():
    shown = draw(GRAY, poses(), scores=False)
    hollow = draw(GRAY, poses(visibility=[[0.49, 0.9, 0.9]]), scores=False, absent="hollow")
    x, y = POINTS["left"]
    assert hollow[y, x].max() < 80, "the middle of an absent keypoint is dark"
    assert shown[y, x].min() > 180, "the middle of a present one is bright"
    x, y = half_way("left", "top")
    band = slice(int(x) - 12, int(x) + 12)
    assert (
        0 < (hollow[int(y), band] != 128).any(axis=1).sum() < (shown[int(y), band] != 128).any(axis=1).sum()
    )


def test_unknown_visibility_counts_as_present():
    drawn = draw(GRAY, poses(visibility=np.full((1, 3), np.nan), score_kind="conventional"), scores=False)
    np.testing.assert_array_equal(drawn, draw(GRAY, poses(), scores=False))


def test_points_without_a_position_are_left_out():
    lost = [[[np.nan, np.nan], POINTS["right"], POINTS["top"]]]
    drawn = draw(GRAY, poses(keypoints=lost), scores=False, absent="hollow")
    assert not changed(drawn, *POINTS["left"])
    assert changed(drawn, *POINTS["right"])


def test_scores_and_boxes_are_drawn_on_request():
    plain = draw(GRAY, poses(), scores=False)
    scored = draw(GRAY, poses(), scores=True)
    boxed = draw(GRAY, poses(), scores=False, boxes=True)
    plate = np.abs(scored.astype(int) - plain).sum(axis=2)
    assert plate[:20, 10:60].any(), "the score stands over the box"
    assert not plate[60:].any()
    assert changed(boxed, 9.5, 100)
    assert not changed(plain, 9.5, 100)
    tracked = draw(GRAY, poses(track_ids=[12]), scores=True)
    assert not np.array_equal(tracked, scored)


def test_poses_below_the_threshold_are_left_out():
    np.testing.assert_array_equal(draw(GRAY, poses(), threshold=0.81), GRAY)
    assert not np.array_equal(draw(GRAY, poses(), threshold=0.79), GRAY)


def test_the_best_score_is_drawn_on_top():
    worse = poses(scores=[0.1], keypoints=[[(30, 150), (170, 150), (100, 41)]], track_ids=[1])
    both = Poses.concatenate([poses(track_ids=[0]), worse])
    np.testing.assert_array_equal(draw(GRAY, both, scores=False), draw(GRAY, both[[1, 0]], scores=False))
    best_last = draw(draw(GRAY, worse, scores=False), poses(), scores=False)
    np.testing.assert_array_equal(draw(GRAY, both, scores=False), best_last)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 30), (480, 640), (2160, 3840)])
def test_pictures_of_any_size_are_drawn(size):
    height, width = size
    scale = np.float32([width / 200, height / 200])
    made = poses(
        keypoints=np.float32([list(POINTS.values())]) * scale,
        boxes=np.float32([[10, 20, 190, 180]]) * np.tile(scale, 2),
    )
    drawn = draw(np.full((height, width, 3), 128, np.uint8), made, boxes=True)
    assert (drawn != 128).any()


def test_lines_grow_with_the_picture():
    shares = []
    for scale in (3, 9):
        made = dataclasses.replace(poses(), keypoints=poses().keypoints * scale, boxes=poses().boxes * scale)
        drawn = draw(np.full((200 * scale, 200 * scale, 3), 128, np.uint8), made, scores=False)
        shares.append((drawn != 128).any(axis=2).mean())
    assert shares[0] == pytest.approx(shares[1], rel=0.2)


def test_distant_coordinates_do_no_harm():
    far = [[(1e9, -1e9), (-1e30, 5), POINTS["top"]]]
    drawn = draw(GRAY, poses(keypoints=far, boxes=[[-1e8, -1e8, 1e8, 1e8]]), boxes=True)
    assert changed(drawn, *POINTS["top"])


def test_no_poses_and_no_limbs():
    np.testing.assert_array_equal(draw(GRAY, Poses.empty(COCO17)), GRAY)
    bare = Skeleton("bare", ("a", "b", "c"), (0.1,) * 3)
    drawn = draw(GRAY, poses(skeleton=bare), scores=False)
    assert changed(drawn, *POINTS["left"])
    assert not changed(drawn, *half_way("left", "top"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": GRAY[..., 0]}, "image must be "),
        ({"image": GRAY.astype(np.float32)}, "image must be "),
        ({"absent": "ghost"}, "absent must be one of 'hide', 'hollow', got 'ghost'"),
    ],
)
def test_a_wrong_argument_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        draw(**{"image": GRAY, "poses": poses(), **settings})
