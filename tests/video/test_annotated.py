"""The annotated video: frames keep their times, and the file is playable even if writing stops midway."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from oaks.video import AnnotatedVideo, Frame, open_source
from oaks.video.trails import Trails

from .clips import decode, number_of, numbered
from .scenes import people

TICK = Fraction(1, 15360)


def frame(index: int, pts: int, image: np.ndarray | None = None, time_base: Fraction = TICK) -> Frame:
    return Frame(numbered(index) if image is None else image, index, pts, time_base)


def nobody():
    return people([], track_ids=[])


def played(path: Path, frames: Iterable[Frame]) -> list[tuple[float, np.ndarray]]:
    """Write a video of frames without people, and return times and pictures that a player shows."""
    video = AnnotatedVideo(path)
    for each in frames:
        video.write(each, nobody())
    video.close()
    return decode(path)


@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (TICK, [0, 512, 1024, 4000, 4001, 15360]),
        (Fraction(1, 1000), [0, 33, 67, 100, 500]),
        (Fraction(1, 1000000), [0, 33366, 66733, 2000000]),
        (Fraction(1001, 30000), [0, 1, 2, 3]),
        (Fraction(1, 90000), [0, 3003, 6006, 324000000]),
    ],
)
def test_frames_keep_the_times_of_the_source(tmp_path, time_base, pts):
    shown = played(tmp_path / "a.mp4", (frame(n, at, time_base=time_base) for n, at in enumerate(pts)))
    assert [number_of(image) for _, image in shown] == list(range(len(pts)))
    np.testing.assert_allclose([time for time, _ in shown], [float(at * time_base) for at in pts], atol=1e-4)


def test_the_last_frame_keeps_its_duration(tmp_path):
    durations = (40, 40, 5000)
    ms = Fraction(1, 1000)
    frames = (Frame(numbered(n), n, 40 * n, ms, duration=length) for n, length in enumerate(durations))
    played(tmp_path / "a.mp4", frames)
    *_, last = open_source(tmp_path / "a.mp4")
    assert float(last.duration * last.time_base) == pytest.approx(5, abs=1e-3)


@pytest.mark.parametrize("size", [(96, 64), (95, 63), (97, 64)])
def test_odd_sizes_are_made_even(tmp_path, size):
    frames = (frame(n, 512 * n, numbered(n, size)) for n in range(3))
    for n, (_, image) in enumerate(played(tmp_path / "a.mp4", frames)):
        assert image.shape[:2] == (size[1] + size[1] % 2, size[0] + size[0] % 2)
        assert np.abs(image[: size[1], : size[0]].astype(int) - numbered(n, size)).mean() < 12


def test_frames_of_another_size_are_fitted_in_with_bars(tmp_path):
    sizes = ((96, 64), (192, 128), (32, 64), (9, 3))
    white = [np.full((height, width, 3), 255, np.uint8) for width, height in sizes]
    frames = (frame(n, 512 * n, image) for n, image in enumerate(white))
    same, half, tall, wide = (image for _, image in played(tmp_path / "a.mp4", frames))
    assert min(same.min(), half.min()) > 240
    assert tall[:, 34:62].min() > 200
    assert max(tall[:, :30].max(), tall[:, 66:].max()) < 60
    assert wide[18:46].min() > 200
    assert max(wide[:14].max(), wide[50:].max()) < 60


def test_only_tracked_people_are_drawn(tmp_path):
    gray = np.full((240, 320, 3), 128, np.uint8)
    poses = people([(80, 120), (240, 120)], track_ids=[1, -1])
    video = AnnotatedVideo(tmp_path / "a.mp4")
    video.write(frame(0, 0, gray), poses)
    video.close()
    ((_, image),) = decode(tmp_path / "a.mp4")
    drawn = np.abs(image.astype(int) - 128).max(axis=2) > 40
    assert drawn[:, :160].sum() > 500
    assert drawn[:, 160:].sum() == 0
    assert (gray == 128).all(), "the frame stays as it was"


def test_frames_with_equal_times_are_kept(tmp_path):
    frames = (frame(n, at) for n, at in enumerate((0, 512, 512, 513)))
    times = [time for time, _ in played(tmp_path / "a.mp4", frames)]
    assert len(times) == 4
    assert (np.diff(times) > 0).all()


def test_a_truncated_video_plays_up_to_its_end(tmp_path):
    """As after a power cut: without its end, and cut within a frame."""
    video = AnnotatedVideo(tmp_path / "a.mp4")
    for n in range(100):
        video.write(frame(n, 512 * n), nobody())
    cut = tmp_path / "cut.mp4"
    cut.write_bytes((tmp_path / "a.mp4").read_bytes())
    whole = [number_of(image) for _, image in decode(cut)]
    assert whole == list(range(len(whole)))
    assert len(whole) >= 60
    video.close()
    content = (tmp_path / "a.mp4").read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    seen = []
    with av.open(str(cut)) as container:
        for picture in container.decode(video=0):
            seen.append(number_of(picture.to_ndarray(format="bgr24")))
            if len(seen) == 30:
                break
    assert seen == list(range(30))


def test_a_full_disk_is_reported():
    video = AnnotatedVideo("/dev/full")
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(40)]

    def write_all() -> None:
        for n, image in enumerate(noise):
            video.write(frame(n, 512 * n, image), nobody())

    with pytest.raises(OSError, match="No space left on device"):
        write_all()
    with pytest.raises(OSError, match="No space left on device"):
        video.close()
    video.close()


def test_a_video_of_no_frames_can_be_closed(tmp_path):
    AnnotatedVideo(tmp_path / "a.mp4").close()


def test_a_trail_follows_the_person_and_fades_with_time():
    trails, gray = Trails(1.0), np.full((200, 400, 3), 128, np.uint8)
    for n in range(31):
        picture = trails.draw(gray, people([(50 + 10 * n, 100)], track_ids=[4]), n / 10)
    middle = 100 + people([(0, 0)]).keypoints[0, :, 1].mean()
    changed = (picture != 128).any(axis=2)
    columns = np.flatnonzero(changed[round(middle) - 2 : round(middle) + 3].any(axis=0))
    assert 245 < columns.min() < 255, "ten frames back is a second"
    assert 345 < columns.max() < 355
    assert changed.sum(axis=0)[300:350].mean() > changed.sum(axis=0)[250:280].mean()
    assert (gray == 128).all()
    for time in (4.0, 4.1):
        assert (trails.draw(gray, people([], track_ids=[]), time) == 128).all()
    assert trails._ways == {}


def test_no_trails_are_drawn_for_zero_seconds():
    gray, trails = np.full((100, 100, 3), 128, np.uint8), Trails(0)
    for n in range(3):
        assert trails.draw(gray, people([(20 * n, 50)], track_ids=[1]), n / 10) is gray
    with pytest.raises(ValueError, match="trails must be 0 seconds or more, got -1"):
        Trails(-1)
