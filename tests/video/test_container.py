"""Frames as players show them, and recognition of truncated files."""

from __future__ import annotations

import os
import struct
from fractions import Fraction

import cv2
import numpy as np
import pytest

from oaks.video.container import is_whole, square, transform
from oaks.video.sources import open_source

from .clips import SIZE, number_of, packets, restamp, show_as, write_clip

MATRICES = [
    (a, 0, 0, d) for a in (1, -1) for d in (1, -1)
] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]  # fmt: skip


def reference(image: np.ndarray, matrix) -> np.ndarray:
    """Move every pixel by the matrix, one at a time."""
    a, b, c, d = matrix
    height, width = image.shape[:2]
    moved = {}
    for y in range(height):
        for x in range(width):
            moved[(a * x + c * y, b * x + d * y)] = image[y, x]
    left, top = min(x for x, _ in moved), min(y for _, y in moved)
    right, bottom = max(x for x, _ in moved), max(y for _, y in moved)
    out = np.zeros((bottom - top + 1, right - left + 1, 3), np.uint8)
    for (x, y), value in moved.items():
        out[y - top, x - left] = value
    return out


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_rotations_and_reflections(matrix):
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    shown = transform(image, np.array(matrix, float).reshape(2, 2))
    np.testing.assert_array_equal(shown, reference(image, matrix))
    assert shown.flags.c_contiguous


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("scale", [1, 0.5])
def test_a_video_is_shown_by_its_display_matrix(tmp_path, matrix, scale):
    rng = np.random.default_rng(1)
    picture = cv2.resize(rng.integers(0, 255, (8, 12, 3), np.uint8), SIZE)
    plain = write_clip(tmp_path / "clip.mp4", [picture] * 2)
    stored = next(iter(open_source(plain))).image
    show_as(plain, tuple(scale * value for value in matrix)) if (matrix, scale) != ((1, 0, 0, 1), 1) else None
    shown = next(iter(open_source(plain))).image
    np.testing.assert_array_equal(shown, reference(stored, matrix))


def test_a_matrix_of_any_angle_rotates_without_cropping():
    """30 degrees clockwise: a square stays a square, and nothing is cropped."""
    image = np.zeros((60, 100, 3), np.uint8)
    image[10:14, 80:84] = 255
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    shown = transform(image, np.array([[cosine, sine], [-sine, cosine]]))
    assert shown.shape[1] == pytest.approx(100 * cosine + 60 * sine, abs=1)
    y, x = (axis.mean() for axis in np.nonzero(shown[..., 0] > 127))
    # x' = a x + c y, y' = b x + d y with (a, b, c, d) = (cos, sin, -sin, cos); the lower left corner comes to x' = 0.
    assert (x, y) == pytest.approx((82 * cosine - 12 * sine + 60 * sine, 82 * sine + 12 * cosine), abs=1)


@pytest.mark.parametrize(
    "matrix",
    [None, np.zeros((2, 2)), np.array([[1.0, 0], [0, 0]]), np.full((2, 2), np.nan), np.ones((2, 2)),
     np.array([[1.0, 1], [1, 1.001]]), np.array([[100.0, 3], [0, 0.01]]), np.array([[0.0, 1], [0, 1]])],
)  # fmt: skip
def test_a_singular_matrix_changes_nothing(matrix):
    image = np.ones((4, 6, 3), np.uint8)
    assert transform(image, matrix) is image


@pytest.mark.parametrize(("aspect", "size"), [
    (Fraction(64, 45), (137, 64)), (Fraction(16, 15), (102, 64)), (Fraction(1, 2), (96, 128)), (Fraction(1), SIZE),
    (None, SIZE), (Fraction(1, 1000), SIZE),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_have_square_pixels(tmp_path, aspect, size, suffix):
    clip = write_clip(tmp_path / f"clip.{suffix}", 3, pixel_aspect=aspect)
    frames = list(open_source(clip))
    assert {frame.image.shape for frame in frames} == {(size[1], size[0], 3)}
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2]


def test_the_pixel_aspect_may_change_midway(tmp_path):
    """As in broadcasts, where a film of another aspect may follow; the container states no aspect."""
    parts = [(Fraction(64, 45), 0), (Fraction(8, 9), 6), (None, 12)]
    clips = [
        write_clip(tmp_path / f"{first}.ts", 6, pixel_aspect=aspect, first=first) for aspect, first in parts
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(clip.read_bytes() for clip in clips))
    frames = list(open_source(joined))
    assert [number_of(frame.image) for frame in frames] == list(range(18))
    assert [frame.image.shape[1::-1] for frame in frames] == [(137, 64)] * 6 + [(96, 72)] * 6 + [SIZE] * 6


def test_the_pixel_aspect_of_the_container_takes_precedence(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 2, pixel_aspect=Fraction(64, 45))
    content = clip.read_bytes()
    at = content.index(b"pasp") + 4
    clip.write_bytes(content[:at] + struct.pack(">2I", 2, 1) + content[at + 8 :])
    assert next(iter(open_source(clip))).image.shape[1::-1] == (192, 64)


@pytest.mark.parametrize("matrix", MATRICES)
def test_other_containers_are_shown_by_their_display_matrix(tmp_path, matrix):
    """FFmpeg writes the matrix into MKV as a projection. Pixels are twice as wide as high."""
    clip = write_clip(tmp_path / "clip.mp4", 2, size=(96, 64), pixel_aspect=Fraction(2))
    stored = next(iter(open_source(clip))).image
    if matrix != (1, 0, 0, 1):
        show_as(clip, matrix)
    for suffix in ("mkv", "mov"):
        copied = next(
            iter(open_source(restamp(clip, tmp_path / f"copy.{suffix}", lambda _n, pts: pts)))
        ).image
        np.testing.assert_array_equal(copied, reference(stored, matrix))


def test_pixels_are_made_square_before_the_rotation(tmp_path):
    clip = show_as(write_clip(tmp_path / "clip.mp4", 2, pixel_aspect=Fraction(2)), (0, 1, -1, 0))
    assert next(iter(open_source(clip))).image.shape[:2] == (192, 64)


def test_square_pixels_keep_the_content_in_place():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 255
    wide = square(image, Fraction(3, 2))
    assert wide.shape == (40, 90, 3)
    assert (wide[:, :44] == 0).all()
    assert (wide[:, 46:] == 255).all()


@pytest.mark.parametrize(("suffix", "flags"), [
    ("mp4", ""), ("mp4", "faststart"), ("mp4", "frag_keyframe+empty_moov"), ("mov", ""), ("mkv", ""), ("webm", ""),
    ("avi", ""), ("ts", ""), ("mts", ""), ("flv", ""),
])  # fmt: skip
def test_truncated_files_are_recognized(tmp_path, suffix, flags):
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(suffix, "libx264")
    clip = write_clip(tmp_path / f"clip.{suffix}", 30, codec=codec, flags=flags)
    assert is_whole(clip) is True
    content = clip.read_bytes()
    at, size = packets(clip)[20]
    # A packet of a video may begin with one of the transport stream.
    for end in (at + 1, at + size // 2 + 1, len(content) - 9):
        clip.write_bytes(content[:end])
        assert is_whole(clip) is False, end
    clip.write_bytes(content + bytes(4096))
    assert is_whole(clip) is True, "devices append zeros"


def test_files_that_state_no_size_are_unknown(tmp_path):
    assert is_whole(write_clip(tmp_path / "clip.nut", 5)) is None
    live = write_clip(tmp_path / "clip.flv", 5)
    live.write_bytes(live.read_bytes().replace(b"filesize\0", b"filesome\0"))
    assert is_whole(live) is None
    (tmp_path / "text").write_text("no container")
    assert is_whole(tmp_path / "text") is None
    (tmp_path / "empty").touch()
    assert is_whole(tmp_path / "empty") is None
    # An unfinished recording: the segment's length is unknown.
    clip = write_clip(tmp_path / "clip.mkv", 5)
    content = clip.read_bytes()
    at = content.index(b"\x18\x53\x80\x67") + 4
    clip.write_bytes(content[:at] + b"\x01" + b"\xff" * 7 + content[at + 8 :])
    assert is_whole(clip) is None


def test_boxes_of_64_bit_sizes_and_boxes_up_to_the_end_are_read(tmp_path):
    path = tmp_path / "boxes.mp4"
    start = struct.pack(">I4s8x", 16, b"ftyp")
    path.write_bytes(start + struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4))
    assert is_whole(path) is True
    path.write_bytes(start + struct.pack(">I4sQ", 1, b"mdat", 21) + bytes(4))
    assert is_whole(path) is False
    path.write_bytes(start + struct.pack(">I4s", 0, b"mdat") + bytes(9))
    assert is_whole(path) is True
    assert os.path.getsize(path) == 33


def test_a_frame_that_is_enlarged_stays_within_the_limit(monkeypatch):
    monkeypatch.setenv("OAKS_LIMIT_VIDEO_PIXELS", "100")
    image = np.zeros((8, 8, 3), np.uint8)
    assert square(image, Fraction(3, 2)).shape == (8, 12, 3)
    with pytest.raises(ValueError, match="as it is shown must be at most 100"):
        square(image, Fraction(8))
    with pytest.raises(ValueError, match="as it is shown must be at most 100"):
        transform(image, np.array([[1.0, 1], [-1, 1]]))
