"""Rendered clips: reproducible, smooth, with track ids that outlast occlusion and labels on the drawn limbs."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from oaks.training.render import RenderedVideos
from oaks.training.render.body.parts import Part
from oaks.training.render.scene.drawing import OVERSAMPLING
from oaks.training.render.scene.labels import PERSON_CODES

RATE = 12.5


@pytest.fixture(scope="module")
def videos():
    return RenderedVideos(6, size=(320, 180), frames=125, rate=RATE, photograph=False)


@pytest.fixture(scope="module")
def clips(videos):
    """Return a few clips with their drawings and track ids."""
    made = [videos.clip(number) for number in range(4)]
    return [(clip, [clip.drawing(index) for index in range(clip.frames)]) for clip in made]


def points(drawing, number):
    person = drawing.scene.people[number]
    return person.figure.keypoints * person.scale + person.shift


def shown(drawings):
    """Return the number of pixels of each track id in each frame, (T, ids)."""
    count = max(max(ids) for _, ids in drawings)
    result = np.zeros((len(drawings), count + 1), int)
    for row, (drawing, ids) in enumerate(drawings):
        for number, track_id in enumerate(ids):
            result[row, track_id] = drawing.mask(number)[0].sum()
    return result


def test_a_frame_follows_from_seed_number_and_index():
    settings = {"size": (160, 96), "frames": 40, "shake": True}
    first, second = RenderedVideos(3, **settings), RenderedVideos(3, **settings)
    forward = {index: first.clip(1).frame(index) for index in (0, 13, 39)}
    second.clip(0).frame(5)
    clip = second.clip(1)
    for index in (39, 0, 13):
        image, annotations = clip.frame(index)
        np.testing.assert_array_equal(image, forward[index][0])
        assert annotations == forward[index][1]
    assert (RenderedVideos(4, **settings).clip(1).frame(0)[0] != forward[0][0]).mean() > 0.5
    assert (first.clip(2).frame(0)[0] != forward[0][0]).mean() > 0.5


def test_seen_keypoints_lie_on_their_own_limbs(clips):
    """By the drawing's codes, which state the part that each pixel shows."""
    limbs = {9: ("LEFT_FOREARM", "LEFT_HAND"), 10: ("RIGHT_FOREARM", "RIGHT_HAND"),
             13: ("LEFT_THIGH", "LEFT_SHIN", "SKIRT"), 14: ("RIGHT_THIGH", "RIGHT_SHIN", "SKIRT"),
             15: ("LEFT_SHIN", "LEFT_FOOT"), 16: ("RIGHT_SHIN", "RIGHT_FOOT")}  # fmt: skip
    checked = 0
    for _, drawings in clips:
        for drawing, _ids in drawings[::9]:
            for number, entry in drawing.annotations():
                keypoints = np.array(entry["keypoints"]).reshape(17, 3)
                for index, parts in limbs.items():
                    if keypoints[index, 2] != 2:
                        continue
                    codes = [number * PERSON_CODES + Part[part] + 1 for part in parts]
                    x, y = np.rint((keypoints[index, :2] + 0.5) * OVERSAMPLING - 0.5).astype(int)
                    near = drawing.codes[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
                    assert np.isin(near, codes).any()
                    checked += 1
    assert checked > 300


def test_keypoints_move_without_jumps(clips):
    """Wrists and ankles are fastest, at a few meters per second."""
    for _, drawings in clips:
        for (before, ids), (after, ids_after) in itertools.pairwise(drawings):
            for number, track_id in enumerate(ids):
                moved = points(after, ids_after.index(track_id)) - points(before, number)
                assert np.linalg.norm(moved, axis=1).max() < 7 / RATE * before.scene.people[number].scale


def test_track_ids_outlast_occlusion_and_leaving(clips):
    """One person is hidden and reappears, one leaves the frame and returns; bodies never change."""
    hidden = left = 0
    for clip, drawings in clips:
        pixels = shown(drawings)
        width, _ = clip.drawing(0)[0].picture().shape[1::-1]
        bodies = {}
        for row, (drawing, ids) in enumerate(drawings):
            assert sorted(ids) == [actor.track_id for actor in clip.actors]
            for number, track_id in enumerate(ids):
                person = drawing.scene.people[number]
                assert bodies.setdefault(track_id, (person.figure.body, person.clothes)) == (
                    person.figure.body, person.clothes,
                )  # fmt: skip
                if pixels[row, track_id] or not (
                    pixels[:row, track_id].any() and pixels[row:, track_id].any()
                ):
                    continue
                x = points(drawing, number)[:, 0]
                hidden += bool((x > 0).all() and (x < width - 1).all())
                left += bool((x < 0).all() or (x > width - 1).all())
    assert hidden >= 3
    assert left >= 10


def test_clothes_do_not_change(clips):
    """The trunk's color changes less over a clip than it differs between people."""
    within, between = [], []
    for _, drawings in clips:
        colors = {}
        for drawing, ids in drawings[::8]:
            for number, track_id in enumerate(ids):
                chest = drawing.codes == number * PERSON_CODES + Part.CHEST + 1
                if chest.sum() > 60:
                    colors.setdefault(track_id, []).append(np.median(drawing.canvas[chest], 0))
        means = {track_id: np.mean(seen, 0) for track_id, seen in colors.items()}
        within += [np.linalg.norm(s - means[t]) for t, seen in colors.items() for s in seen]
        between += [np.linalg.norm(means[a] - means[b]) for a in means for b in means if a < b]
    assert np.median(within) < 0.3 * np.median(between)


def test_objects_hide_only_people_behind_them(videos):
    hides = 0
    for number in range(4):
        clip, bare = videos.clip(number), videos.clip(number)
        bare._props = []
        for index in range(0, clip.frames, 25):
            (with_things, ids), (without, _) = clip.drawing(index), bare.drawing(index)
            for person, track_id in enumerate(ids):
                pixels = with_things.mask(person)[0].sum(), without.mask(person)[0].sum()
                depth = clip.actors[track_id - 1].motion.places[index, 1]
                assert pixels[0] <= pixels[1]
                if all(depth < prop.depth for prop in clip._props):
                    assert pixels[0] == pixels[1]
                hides += pixels[0] < pixels[1]
    assert hides >= 4


def test_people_never_walk_through_one_another(videos):
    for number in range(4):
        actors = videos.clip(number).actors
        depths = np.stack([actor.motion.places[:, 1] for actor in actors])
        assert (np.diff(depths, axis=0) > 0.3).all()
        assert depths.min() > 3  # meters before the camera


def test_the_background_of_a_still_camera_is_constant(videos):
    """Pixels that no person covers are the same in every frame."""
    clip = videos.clip(2)
    drawings = [clip.drawing(index)[0] for index in (0, 60, 124)]
    free = np.logical_and.reduce([drawing.codes == 0 for drawing in drawings])
    free &= np.arange(len(free))[:, None] < 0.3 * len(free)  # above shadows
    assert free.sum() > 1000
    for drawing in drawings[1:]:
        np.testing.assert_array_equal(drawing.canvas[free], drawings[0].canvas[free])


def test_a_moving_camera_moves_everything_alike():
    videos = RenderedVideos(8, size=(320, 180), frames=60, people=(1,), photograph=False, shake=True)
    clip = videos.clip(0)
    corners = clip._corners
    steps = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    assert 0.05 < steps.max() < 3
    first, second = (clip.drawing(index)[0] for index in (0, 59))
    matrix = np.concatenate([np.eye(2), (corners[0] - corners[59])[:, None]], 1)
    moved = cv2.warpAffine(first.picture(), matrix, (320, 180)).astype(int)
    sky = (slice(15, 60), slice(20, 300))  # above people and shadows, within both pictures
    after = second.picture().astype(int)
    assert np.abs(moved[sky] - after[sky]).mean() < 0.3 * np.abs(first.picture()[sky] - after[sky]).mean()
    for index in (0, 30, 59):
        whole = videos.artist.draw(clip._scene(index, clip.actors))
        drawing, _ = clip.drawing(index)
        np.testing.assert_allclose(points(drawing, 0), points(whole, 0) - corners[index])


def test_a_window_of_whole_pixels_is_a_slice():
    videos = RenderedVideos(8, size=(320, 180), frames=2, photograph=False)
    drawing, _ = videos.clip(0).drawing(0)
    window = drawing.window(np.array([20.0, 10.0]), (240, 160))
    for name in ("canvas", "codes", "distances"):
        np.testing.assert_array_equal(getattr(window, name), getattr(drawing, name)[15:255, 30:390])
    np.testing.assert_allclose(points(window, 0), points(drawing, 0) - [20, 10])


def test_photographs_of_a_clip_share_their_flaws_but_not_their_noise():
    videos = RenderedVideos(1, size=(160, 96), frames=5)
    gray = np.full((96, 160, 3), 128, np.uint8)
    noisy = 0
    for number in range(12):
        taken = [videos.photograph(number, index, gray).astype(int) for index in range(3)]
        means = [image.mean() for image in taken]
        assert np.ptp(means) < 2.5
        noisy += (taken[0] != taken[1]).mean() > 0.3
    assert 3 <= noisy <= 11


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"size": (31, 40)}, {"frames": 0}, {"rate": 2}, {"people": (0, 0)}, {"frames": 2.5}],
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RenderedVideos(**{"seed": 0, **wrong})


def test_frames_outside_the_clip_are_refused(videos):
    clip = videos.clip(0)
    for index in (-1, clip.frames):
        with pytest.raises(IndexError, match="frames 0 to 124"):
            clip.frame(index)
