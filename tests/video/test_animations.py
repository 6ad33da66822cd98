"""Animated pictures: all frames, with their timing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, features

from oaks.animations import Animation, is_animation
from oaks.errors import ArgumentError
from oaks.images import read_image
from oaks.video.sources import open_source

from .clips import SIZE, number_of, numbered

KINDS = ["gif", "png", "webp"] + (["avif"] if features.check("avif") else [])


def write(path, count: int = 5, durations=None, **settings):
    frames = [Image.fromarray(numbered(n)[..., ::-1]) for n in range(count)]
    if path.suffix == ".webp":
        settings["lossless"] = True
    durations = durations or [100] * count
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, **settings)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_frames_have_their_own_times_and_durations(tmp_path, kind):
    source = open_source(write(tmp_path / f"clip.{kind}", durations=[100, 40, 250, 100, 5000]))
    assert source.expected == 5
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.14, 0.39, 0.49])
    assert frames[-1].duration * frames[-1].time_base == 5
    assert {frame.image.shape for frame in frames} == {(SIZE[1], SIZE[0], 3)}
    red = frames[0].image[SIZE[1] // 4, 3 * SIZE[0] // 4].astype(int)
    assert red[2] > 200 > 60 > red[:2].max(), "BGR"
    assert (source.read, source.damaged, source.cut_short, source.problems) == (5, 0, False, [])


@pytest.mark.parametrize("name", ["clip", "clip.bin", "clip.jpg", "clip.mp4"])
@pytest.mark.parametrize("kind", KINDS)
def test_animations_are_recognized_by_content(tmp_path, name, kind):
    path = write(tmp_path / f"first.{kind}").rename(tmp_path / name)
    assert [number_of(frame.image) for frame in open_source(path)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_an_animation_read_as_a_picture_is_its_first_frame_with_a_warning(tmp_path, kind, caplog):
    path = write(tmp_path / f"clip.{kind}")
    assert is_animation(path)
    assert number_of(read_image(path)) == 0
    assert "only the first of its frames is read" in caplog.text
    caplog.clear()
    still = write(tmp_path / f"still.{kind}", 1)
    assert not is_animation(still)
    read_image(still)
    assert not caplog.text
    assert [frame.time for frame in open_source(still)] == [0]


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
def test_a_truncated_animation_is_reported(tmp_path, kind):
    path = write(tmp_path / f"clip.{kind}", 20)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    source = open_source(path)
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == list(range(len(frames)))
    assert len(frames) < 20
    assert source.cut_short or source.damaged
    assert source.problems


def test_a_gif_without_its_last_byte_is_reported_as_truncated(tmp_path):
    path = write(tmp_path / "clip.gif")
    path.write_bytes(path.read_bytes()[:-1])
    source = open_source(path)
    assert len(list(source)) == 5
    assert source.cut_short
    assert source.problems


def test_stray_bytes_between_blocks_are_no_truncation(tmp_path):
    path = write(tmp_path / "clip.gif")
    content = path.read_bytes()
    at = content.rindex(b"\0!\xf9\x04") + 1  # where the last frame's blocks begin
    path.write_bytes(content[:at] + b"\0\0" + content[at:])
    source = open_source(path)
    assert [number_of(frame.image) for frame in source] == [0, 1, 2, 3, 4]
    assert (source.cut_short, source.problems) == (False, [])
    path.write_bytes(path.read_bytes()[:-1])
    source = open_source(path)
    list(source)
    assert source.cut_short


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
@pytest.mark.parametrize("more", [bytes(600), b"appended by another program" * 9])
def test_bytes_after_the_end_are_no_truncation(tmp_path, kind, more):
    path = write(tmp_path / f"clip.{kind}")
    path.write_bytes(path.read_bytes() + more)
    source = open_source(path)
    assert len(list(source)) == 5
    assert not source.cut_short


def test_a_gif_of_which_one_frame_is_left_is_reported_as_truncated(tmp_path):
    path = write(tmp_path / "clip.gif", 1)
    assert not is_animation(path)
    path.write_bytes(path.read_bytes()[:-1])
    source = open_source(path)
    assert len(list(source)) == 1
    assert source.cut_short
    assert "clip.gif: the file ends before its animation does" in source.problems[0]


def test_the_default_image_of_an_animated_png_is_no_frame(tmp_path):
    path = write(tmp_path / "clip.png", 4, durations=100, default_image=True)
    assert [number_of(frame.image) for frame in open_source(path)] == [1, 2, 3]


def test_frames_without_a_duration_last_as_long_as_in_browsers(tmp_path):
    path = write(tmp_path / "clip.gif", 3, durations=[0, 10, 30])
    assert [round(seconds, 3) for _, seconds in Animation(path)] == [0.1, 0.1, 0.03]


def test_a_tiff_of_several_pages_is_refused_as_a_video(tmp_path, caplog):
    pages = [Image.fromarray(numbered(n)) for n in range(3)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(ArgumentError, match=r"pages.tiff, a TIFF of several pages"):
        open_source(tmp_path / "pages.tiff")
    assert read_image(tmp_path / "pages.tiff").shape == (SIZE[1], SIZE[0], 3)
    assert "only the first of its pages is read" in caplog.text


@pytest.mark.parametrize("start", [b"II*\0", b"II\0*", b"II+\0", b"MM\0*", b"MM*\0"])
def test_every_kind_of_tiff_that_pillow_reads_is_recognized(tmp_path, start):
    """The version may be that of BigTIFF, or in the other byte order."""
    path = tmp_path / "pages.tiff"
    page = Image.new("I;16B" if start.startswith(b"MM") else "RGB", (8, 8))
    page.save(path, save_all=True, append_images=[page], big_tiff=b"+" in start)
    path.write_bytes(start + path.read_bytes()[4:])
    assert is_animation(path)


def test_a_photograph_with_an_embedded_preview_is_no_animation(tmp_path):
    """Phones write such JPEG files (MPO)."""
    picture = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    picture.save(
        tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[picture.resize((16, 16))]
    )
    assert not is_animation(tmp_path / "photo.jpg")
    assert not is_animation(tmp_path / "missing.gif")
