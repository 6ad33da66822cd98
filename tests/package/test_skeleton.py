"""Skeleton: built in, round trips, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from oaks import COCO17, Skeleton

PLAIN = {
    "name": "stick",
    "keypoints": ["head", "left", "right"],
    "sigmas": [0.1, 0.2, 0.2],
    "pairs": [[1, 2]],
}


def test_coco_17_is_cocos():
    from pycocotools.cocoeval import Params

    assert COCO17.count == 17
    np.testing.assert_allclose(COCO17.sigmas, Params(iouType="keypoints").kpt_oks_sigmas)
    for left, right in COCO17.pairs:
        assert COCO17.keypoints[left].replace("left", "right") == COCO17.keypoints[right]
        assert COCO17.sigmas[left] == COCO17.sigmas[right]
        assert (COCO17.side(left), COCO17.side(right)) == ("left", "right")
    assert [name for name in COCO17.keypoints if COCO17.side(COCO17.keypoints.index(name)) == "middle"] == [
        "nose"
    ]


def test_mirroring_twice_changes_nothing():
    assert (COCO17.mirror[COCO17.mirror] == np.arange(17)).all()
    assert (COCO17.mirror != np.arange(17)).sum() == 16
    assert Skeleton("one", ("tip",), (0.1,)).mirror.tolist() == [0]


def test_every_limb_joins_two_keypoints_and_no_keypoint_is_left_out():
    assert len({frozenset(limb) for limb in COCO17.limbs}) == len(COCO17.limbs)
    assert {index for limb in COCO17.limbs for index in limb} == set(range(17))
    mirrored = {frozenset(COCO17.mirror[list(limb)]) for limb in COCO17.limbs}
    assert mirrored == {frozenset(limb) for limb in COCO17.limbs}


def test_a_skeleton_survives_plain_data_and_a_file(tmp_path):
    assert Skeleton.from_dict(COCO17.to_dict()) == COCO17
    path = tmp_path / "skeleton.json"
    path.write_text(json.dumps(COCO17.to_dict()), encoding="utf-8")
    again = Skeleton.from_json(path)
    assert again == COCO17
    assert hash(again) == hash(COCO17)


def test_pairs_and_limbs_may_be_left_out():
    stick = Skeleton.from_dict({"name": "stick", "keypoints": ["a"], "sigmas": [0.1]})
    assert stick.pairs == stick.limbs == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keypoints": ["head", "head", "right"]}, "keypoints"),
        ({"keypoints": []}, "keypoints"),
        ({"sigmas": [0.1, 0.2]}, "sigmas"),
        ({"sigmas": [0.1, 0.2, 0.0]}, "sigmas"),
        ({"sigmas": [0.1, 0.2, 1e-30]}, "sigmas"),
        ({"sigmas": [0.1, 0.2, float("nan")]}, "sigmas"),
        ({"sigmas": [0.1, 0.2, float("inf")]}, "sigmas"),
        ({"pairs": [[1, 3]]}, "pairs"),
        ({"pairs": [[-1, 2]]}, "pairs"),
        ({"pairs": [[1, 1]]}, "pairs"),
        ({"pairs": [[0, 1], [1, 2]]}, "two pairs"),
        ({"limbs": [[0, 3]]}, "limbs"),
        ({"color": "red"}, "color"),
        ({"sigmas": [0.1, 0.2, "0.3"]}, "sigmas"),
        ({"sigmas": [0.1, 0.2, True]}, "sigmas"),
        ({"sigmas": [0.1, 0.2, 10**400]}, "sigmas"),
        ({"sigmas": 0.1}, "sigmas"),
        ({"pairs": [[False, True]]}, "pairs"),
        ({"pairs": [1]}, "pairs"),
        ({"limbs": [[0, 1, 2]]}, "limbs"),
    ],
)
def test_what_does_not_fit_is_named(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        Skeleton.from_dict({**PLAIN, **change})
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**PLAIN, **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"broken\.json.*({says}|is not a JSON number)"):
        Skeleton.from_json(path)


@pytest.mark.parametrize("field", ["name", "keypoints", "sigmas"])
def test_a_missing_field_is_named(field):
    with pytest.raises(ValueError, match=field):
        Skeleton.from_dict({key: value for key, value in PLAIN.items() if key != field})


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 100_000, "\0", "[1, 2]", "null", '"coco17"', '{"name": 1, "keypoints": 3, "sigmas": 4}'],
)
def test_a_file_that_holds_no_skeleton_is_named(content, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.json"):
        Skeleton.from_json(path)
