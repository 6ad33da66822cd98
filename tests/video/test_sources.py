"""Frames of sources: times, orientation, numbers, and reports of missing frames."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
import traceback
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from oaks.errors import ArgumentError
from oaks.video.frames import Frame
from oaks.video.sources import FrameIterable, ImageFiles, Video, open_source

from .clips import SIZE, number_of, numbered, packets, restamp, spoil, turn, write_clip


def numbers(frames) -> list[int]:
    return [number_of(frame.image) for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_every_frame_of_a_file_comes_once_and_in_order(tmp_path, suffix):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    source = open_source(write_clip(tmp_path / f"clip.{suffix}", 40, codec=codec))
    frames = list(source)
    assert numbers(frames) == [frame.index for frame in frames] == list(range(40))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(40) / 30, atol=1e-3)
    assert (source.read, source.damaged, source.cut_short, source.problems) == (40, 0, False, [])
    assert not source.live
    assert abs(source.expected - 40) <= 1
    assert frames[0].image.shape == (SIZE[1], SIZE[0], 3)
    assert frames[0].image.dtype == np.uint8
    red = frames[0].image[SIZE[1] // 4, 3 * SIZE[0] // 4].astype(int)
    assert red[2] > 200 > 60 > red[:2].max(), "BGR"
    assert list(source) == [], "frames come once"


def test_uneven_times_are_exact(tmp_path):
    pts = [7000, 7512, 8024, 11000, 11001, 22360]
    clip = write_clip(tmp_path / "uneven.mp4", 6, pts=pts, time_base=Fraction(1, 15360))
    frames = list(open_source(clip))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(p - 7000, 15360) for p in pts]
    assert frames[3].time == pytest.approx(4000 / 15360)


@pytest.mark.parametrize(("degrees", "turned"), [(90, -1), (180, 2), (270, 1)])
def test_a_video_is_rotated_by_its_metadata(tmp_path, degrees, turned):
    """np.rot90 turns counterclockwise."""
    clip = write_clip(tmp_path / "clip.mp4", 3)
    expected = [np.rot90(frame.image, turned) for frame in open_source(clip)]
    for frame, picture in zip(open_source(turn(clip, degrees)), expected, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
        assert frame.image.flags.c_contiguous


def test_times_continue_after_a_change_of_size(tmp_path):
    """Two joined transport streams: the second has larger frames, and its clock restarts."""
    small = write_clip(tmp_path / "small.ts", 6)
    large = write_clip(tmp_path / "large.ts", 6, size=(192, 128), first=6)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames = list(open_source(both))
    assert numbers(frames) == list(range(12))
    assert [frame.image.shape[1] for frame in frames] == [96] * 6 + [192] * 6
    steps = np.diff([frame.time for frame in frames])
    assert (steps > 0).all()
    np.testing.assert_allclose(np.delete(steps, 5), 1 / 30, atol=1e-3)


def test_missing_times_are_one_frame_apart(tmp_path):
    """A raw H.264 stream has no timestamps."""
    frames = list(open_source(write_clip(tmp_path / "bare.h264", 8)))
    steps = np.diff([frame.time for frame in frames])
    assert len(frames) == 8
    assert (steps > 0).all()
    np.testing.assert_allclose(steps, steps[0])


def test_a_damaged_packet_is_counted_and_later_frames_keep_their_numbers(tmp_path):
    """Every frame is a key frame, so that only the damaged one is lost."""
    clip = spoil(write_clip(tmp_path / "clip.mp4", 12, gop=1), 5)
    source = open_source(clip)
    frames = list(source)
    assert source.damaged == 1
    assert [frame.index for frame in frames] == numbers(frames) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert not source.cut_short


@pytest.mark.parametrize(("suffix", "flags"), [("mkv", ""), ("mp4", "faststart")])
def test_a_truncated_file_is_reported(tmp_path, suffix, flags):
    clip = write_clip(tmp_path / f"clip.{suffix}", 90, flags=flags)
    at, _ = packets(clip)[30]
    clip.write_bytes(clip.read_bytes()[:at])
    source = open_source(clip)
    frames = list(source)
    assert numbers(frames) == list(range(30))
    assert source.cut_short
    assert any("of 3.0" in problem for problem in source.problems)


def test_frames_before_one_that_is_refused_are_kept(tmp_path, monkeypatch):
    source = open_source(write_clip(tmp_path / "clip.mp4", 12))
    sizes = iter([64] * 5)

    def check(width: int, height: int) -> None:
        if next(sizes, None) is None:
            raise ArgumentError("too large")

    monkeypatch.setattr(source, "_check_size", check)
    frames: list[Frame] = []
    with pytest.raises(ArgumentError, match="too large"):
        frames.extend(source)
    assert numbers(frames) == [0, 1, 2, 3, 4]


def test_a_reading_error_is_told_after_the_last_frame(tmp_path):
    """The time in the message is the end of the last frame that was read."""
    source = open_source(write_clip(tmp_path / "clip.mkv", 12))
    container = source._container
    container.streams.video[0].thread_type = "SLICE"  # frame threads would hold frames back

    def demux(stream):
        for n, packet in enumerate(container.demux(stream)):
            if n == 6:
                raise av.error.InvalidDataError(1, "spoiled")
            yield packet

    source._container = SimpleNamespace(streams=container.streams, demux=demux, close=container.close)
    frames = list(source)
    assert numbers(frames) == [0, 1, 2, 3, 4, 5]
    assert source.cut_short
    assert "reading failed after 0.20 s: spoiled" in source.problems[0]


def test_files_that_are_no_video_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="source not found: .*gone.mp4; pass a video"):
        open_source(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="must be a video that FFmpeg reads"):
        open_source(tmp_path / "text.mp4")
    cut = write_clip(tmp_path / "cut.mp4", 5)
    content = cut.read_bytes()
    cut.write_bytes(content[: content.index(b"moov") - 4])  # an MP4 file needs its index
    with pytest.raises(ValueError, match="must be a video that FFmpeg reads"):
        open_source(cut)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(ValueError, match="sound.wav, which holds none"):
        open_source(tmp_path / "sound.wav")
    with pytest.raises(ConnectionError, match="cannot be opened"):
        open_source("tcp://127.0.0.1:1", timeout=2.0)
    with pytest.raises(ValueError, match="rate must be 0.001 to 100000 frames per second, got 0"):
        open_source(tmp_path, rate=0)


def test_folders_globs_and_lists_of_pictures_are_sources(tmp_path):
    for n in range(4):
        assert cv2.imwrite(str(tmp_path / f"{n}.png"), numbered(n))
    named = [tmp_path / "2.png", tmp_path / "0.png"]
    for source, expected in ((tmp_path, [0, 1, 2, 3]), (str(tmp_path / "[12].png"), [1, 2]), (named, [2, 0])):
        opened = open_source(source, rate=24)
        assert isinstance(opened, ImageFiles)
        frames = list(opened)
        assert numbers(frames) == expected
        assert [os.path.basename(frame.name) for frame in frames] == [f"{n}.png" for n in expected]
        assert [frame.time for frame in frames] == pytest.approx([n / 24 for n in range(len(expected))])
    with pytest.raises(ValueError, match="must be a list of pictures, got a.mp4 in it"):
        open_source([tmp_path / "0.png", "a.mp4"])
    with pytest.raises(FileNotFoundError, match="images not found"):
        open_source(tmp_path / "*.gif")


def test_a_damaged_picture_is_named_and_leaves_a_gap(tmp_path):
    for n in range(3):
        assert cv2.imwrite(str(tmp_path / f"{n}.png"), numbered(n))
    (tmp_path / "1.png").write_bytes(b"no picture")
    source = open_source(tmp_path)
    assert [(frame.index, frame.pts) for frame in source] == [(0, 0), (2, 2)]
    assert source.damaged == 1
    assert "1.png" in source.problems[0]


def test_arrays_and_frames_are_sources():
    arrays = [numbered(n) for n in range(3)]
    for given in (arrays, iter(arrays)):
        frames = list(open_source(given, rate=10))
        assert numbers(frames) == [0, 1, 2]
        assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2])
    own = Frame(arrays[0], 7, 3, Fraction(1, 4))
    assert next(iter(FrameIterable([own], 30))) is own


def test_frames_on_a_device_are_passed_on():
    interface = {"shape": (4, 6, 3), "typestr": "|u1", "data": (4096, False), "version": 3}
    own = SimpleNamespace(shape=(4, 6, 3), __cuda_array_interface__=interface)
    assert [frame.image for frame in FrameIterable([own, own], 30)] == [own, own]


def test_addresses_and_cameras_are_live_by_default(monkeypatch):
    opened = []

    def note(self, address, **settings):
        opened.append((address, settings["live"], settings.get("container_format")))

    monkeypatch.setattr(Video, "__init__", note)
    monkeypatch.setattr("sys.platform", "linux")
    for name, asked, *expected in (
        ("0", None, "/dev/video0", True, "v4l2"), ("/dev/video2", None, "/dev/video2", True, "v4l2"),
        ("rtsp://camera/1", None, "rtsp://camera/1", True, None), ("street.mp4", None, "street.mp4", False, None),
        ("http://host/a.mp4", None, "http://host/a.mp4", False, None),
        ("http://host/live.m3u8", True, "http://host/live.m3u8", True, None),
        ("udp://:5000", False, "udp://:5000", False, None),
    ):  # fmt: skip
        open_source(name, live=asked)
        assert opened.pop() == tuple(expected)


class Camera:
    """A server that runs a script for each connection: bytes to send, and events to wait for."""

    def __init__(self, *connections: list) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._connections = connections
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._server:
            for script in self._connections:
                connection, _ = self._server.accept()
                with connection:
                    for step in script:
                        if isinstance(step, bytes):
                            connection.sendall(step)
                        else:
                            step.wait(20)

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


def halves(clip, at: int) -> list[bytes]:
    """Split a transport stream before a packet, at a multiple of 188 bytes."""
    content = clip.read_bytes()
    where = packets(clip)[at][0] // 188 * 188
    return [content[:where], content[where:]]


def test_a_stalled_stream_continues(tmp_path):
    """The connection stays open; data pause until the first frames have been read."""
    clip = write_clip(tmp_path / "clip.ts", 200, size=(320, 240))
    first, second = halves(clip, 150)
    seen = threading.Event()
    with Camera([first, seen, second]) as camera:
        source = open_source(camera.address, retry=0.0)
        frames = []
        for frame in source:
            frames.append(frame)
            if len(frames) == 20:
                seen.set()
    assert numbers(frames) == list(range(200))
    assert (np.diff([frame.time for frame in frames]) > 0).all()


def test_a_broken_stream_is_reopened_and_its_times_continue(tmp_path):
    first = write_clip(tmp_path / "first.ts", 60)
    second = write_clip(tmp_path / "second.ts", 60, first=100)
    with Camera([first.read_bytes()], [second.read_bytes()]) as camera:
        source = open_source(camera.address, retry=1.5)
        frames = list(source)
    assert numbers(frames) == [*range(60), *range(100, 160)]
    assert [frame.index for frame in frames] == list(range(120))
    steps = np.diff([frame.time for frame in frames])
    assert steps[59] >= 0.4, "the gap lasts as long as it took to open it again"
    np.testing.assert_allclose(np.delete(steps, 59), 1 / 30, atol=1e-3)
    assert source.cut_short, "the camera is gone for good after its second connection"
    assert any("opened again" in problem for problem in source.problems)
    assert "did not return within 1.5 s" in source.problems[-1]


def test_a_silent_stream_counts_as_stalled(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", 200, size=(320, 240))
    first, _ = halves(clip, 150)
    over = threading.Event()
    with Camera([first, over]) as camera:
        source = open_source(camera.address, timeout=1.0, retry=0.0)
        frames = list(source)
        over.set()
    assert numbers(frames)[:100] == list(range(100))
    assert source.cut_short


def test_a_file_opened_as_live_is_not_reopened(tmp_path):
    source = open_source(write_clip(tmp_path / "clip.mp4", 5), live=True, retry=1e9)
    assert source.live
    assert numbers(source) == [0, 1, 2, 3, 4]
    assert not source.cut_short


def test_closing_ends_the_attempts_to_reopen_a_stream(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", 60)
    with Camera([clip.read_bytes()]) as camera:
        source = open_source(camera.address, retry=1e9)
        frames = iter(source)
        assert number_of(next(frames).image) == 0
        threading.Timer(0.2, source.close).start()
        rest = list(frames)
    assert len(rest) <= 59


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts", "webm", "avi", "flv"])
def test_a_long_last_frame_is_not_reported_as_truncation(tmp_path, suffix):
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(suffix, "libx264")
    clip = write_clip(tmp_path / f"clip.{suffix}", 6, codec=codec)
    if suffix in ("mp4", "mov"):  # write the duration of the last frame into the headers
        content = bytearray(clip.read_bytes())
        for box, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
            place = content.index(box) + at
            longer = 10 * int.from_bytes(content[place : place + 4], "big")
            content[place : place + 4] = longer.to_bytes(4, "big")
        clip.write_bytes(content)
    elif suffix == "flv":
        content = bytearray(clip.read_bytes())
        place = content.index(b"duration\0") + 9
        content[place : place + 8] = np.array(12.0, ">f8").tobytes()
        clip.write_bytes(content)
    elif suffix in ("mkv", "webm"):
        content = bytearray(clip.read_bytes())
        place = content.index(b"\x44\x89\x88") + 3  # Duration, a float of 8 bytes, in milliseconds
        content[place : place + 8] = np.array(12_000.0, ">f8").tobytes()
        clip.write_bytes(content)
    source = open_source(clip)
    assert numbers(source) == [0, 1, 2, 3, 4, 5]
    assert not source.cut_short
    assert source.problems == []


def test_the_last_frame_has_its_own_duration(tmp_path):
    frames = list(open_source(write_clip(tmp_path / "clip.mp4", 4, pts=[0, 1, 2, 63])))
    assert float(frames[2].duration * frames[2].time_base) == pytest.approx(61 / 30)
    assert frames[-1].duration * frames[-1].time_base == Fraction(1, 30)


@pytest.mark.parametrize("start", [0.5, 120, 90_000])
@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_a_segment_with_the_clock_of_its_recording_is_complete(tmp_path, start, suffix):
    pts = [round(start * 30) + n for n in range(60)]
    source = open_source(write_clip(tmp_path / f"part.{suffix}", 60, pts=pts))
    frames = list(source)
    assert frames[0].time == 0
    assert frames[-1].time == pytest.approx(59 / 30, abs=2e-3)
    assert (len(frames), source.cut_short, source.problems) == (60, False, [])


@pytest.mark.parametrize("wrong", [[30], [10, 40, 41]])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_frames_with_timestamps_hours_ahead_join_the_line(tmp_path, wrong, suffix):
    clip = write_clip(tmp_path / f"clip.{suffix}", 60)
    with av.open(str(clip)) as container:
        hours = round(20 * 3600 / container.streams.video[0].time_base)
    spiked = restamp(clip, tmp_path / f"spiked.{suffix}", lambda n, pts: pts + hours * (n in wrong))
    source = open_source(spiked)
    frames = list(source)
    assert sorted(numbers(frames)) == list(range(60))
    times = [frame.time for frame in frames]
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(59 / 30, abs=0.05)
    assert not source.cut_short
    assert any("timestamps jumped" in problem for problem in source.problems)


@pytest.mark.parametrize("wrong", [[30], range(5, 60, 10)])
@pytest.mark.parametrize("suffix", ["mkv", "ts", "flv"])
def test_single_frames_with_timestamps_some_seconds_ahead_join_the_line(tmp_path, wrong, suffix):
    clip = write_clip(tmp_path / f"clip.{suffix}", 60)
    with av.open(str(clip)) as container:
        ahead = round(5 / container.streams.video[0].time_base)
    spiked = restamp(clip, tmp_path / f"spiked.{suffix}", lambda n, pts: pts + ahead * (n in wrong))
    source = open_source(spiked)
    frames = list(source)
    assert numbers(frames) == list(range(60))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(60) / 30, atol=2e-3)
    assert not source.cut_short


def test_a_wrong_timestamp_does_not_hide_a_truncation(tmp_path):
    """An FLV file that states its length, but not its size."""
    clip = write_clip(tmp_path / "clip.flv", 90)
    spiked = restamp(clip, tmp_path / "spiked.flv", lambda n, pts: pts + 1000 * (n == 10))
    content = spiked.read_bytes().replace(b"filesize\0", b"filesiz_\0")
    spiked.write_bytes(content)
    assert numbers(whole := open_source(spiked)) == list(range(90))
    assert (whole.cut_short, whole.problems) == (False, [])
    spiked.write_bytes(content[: packets(spiked)[60][0]])
    cut = open_source(spiked)
    assert numbers(cut) == list(range(60))
    assert cut.cut_short
    assert "of 3.00 s; the file is incomplete" in cut.problems[0]


@pytest.mark.parametrize(("wrong", "ahead"), [(10, 5000), (86, 2000)])
def test_a_length_that_follows_from_a_wrong_timestamp_is_no_truncation(tmp_path, wrong, ahead):
    clip = write_clip(tmp_path / "clip.flv", 90)
    spiked = restamp(clip, tmp_path / "spiked.flv", lambda n, pts: pts + ahead * (n == wrong))
    spiked.write_bytes(spiked.read_bytes().replace(b"filesize\0", b"filesiz_\0"))
    source = open_source(spiked)
    assert numbers(source) == list(range(90))
    assert (source.cut_short, source.problems) == (False, [])


class Pictures(http.server.BaseHTTPRequestHandler):
    """Sends JPEG pictures as cameras do: as multipart content, or concatenated."""

    seconds, count = 0.08, 30

    def do_GET(self) -> None:
        parts = self.path != "/bare"
        self.send_response(200)
        kind = "multipart/x-mixed-replace; boundary=frame" if parts else "video/x-motion-jpeg"
        self.send_header("Content-Type", kind)
        if self.path == "/stated":  # some cameras state a length all the same
            self.send_header("Content-Length", str(2**31 - 1))
        self.end_headers()
        for n in range(self.count):
            _, encoded = cv2.imencode(".jpg", numbered(n, (640, 480)), [cv2.IMWRITE_JPEG_QUALITY, 100])
            content = encoded.tobytes()
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(content)
            self.wfile.write(head + content + b"\r\n" if parts else content)
            self.wfile.flush()
            time.sleep(self.seconds)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("path", ["parts", "bare", "stated"])
def test_a_stream_without_timestamps_uses_arrival_times(path):
    """FFmpeg would make up 25 frames per second."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            source = open_source(f"http://me:secret@127.0.0.1:{server.server_port}/{path}")
            frames = list(source)
        finally:
            server.shutdown()
    times = [frame.time for frame in frames]
    assert len(frames) >= 29
    assert numbers(frames) == list(range(len(frames)))
    assert (np.diff(times) > 0).all()
    assert times[-1] >= 0.9 * Pictures.seconds * (len(frames) - 1), "a sleep may last longer, and not less"
    assert times[0] == 0
    assert not source.cut_short
    assert "secret" not in repr([source.name, source.problems])


def test_passwords_are_in_no_name_message_or_traceback():
    address = "tcp://user:secret@127.0.0.1:1"
    with pytest.raises(ConnectionError, match=r"source tcp://user:\*\*\*@127") as caught:
        open_source(address, timeout=2.0)
    assert "secret" not in "".join(traceback.format_exception(caught.value)).replace(
        repr(address), ""
    ).replace('address = "tcp://user:secret@127.0.0.1:1"', "")
    with pytest.raises(ValueError, match=r"user:\*\*\*@host") as refused:
        open_source(["a.png", "rtsp://user:secret@host/x"])
    assert "secret" not in str(refused.value)


def test_an_iterable_is_iterated_once():
    """A second iteration may open a camera again."""
    asked = []

    class Camera:
        def __iter__(self):
            asked.append(1)
            return iter([np.zeros((4, 4, 3), np.uint8)] * 2)

    source = open_source(Camera())
    assert len(list(source)) == 2
    assert len(asked) == 1
    assert len(list(source)) == 2, "from the start again"


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{file}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {name}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8"])
def test_a_file_cannot_name_another_file(tmp_path, kind, name):
    """A playlist under the name of a video would show frames of any file that this user can read."""
    other = write_clip(tmp_path / "other.mp4", 3)
    (tmp_path / name).write_text(PLAYLISTS[kind].format(file=other, name=other.name))
    told = name.endswith("m3u8")
    message = "playlists in files are not read" if told else "must be a video that FFmpeg reads"
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / name)
