"""The preview window, on a stand-in for OpenCV's windows."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import bundles
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import oaks
from oaks.cli.main import app
from oaks.draw import draw
from oaks.errors import BackendUnavailable
from oaks.video import Frame, Preview
from oaks.video.sources import load_av

from .clips import write_clip
from .scenes import people

IMAGE = np.full((240, 320, 3), 90, np.uint8)


class Windows:
    """Stand-in for cv2's windows: records open titles, sizes and shown pictures; `keys` are pressed one by one."""

    def __init__(self):
        self.open, self.sizes, self.shown, self.keys, self.fails = [], {}, [], [], False

    def namedWindow(self, title, flags=0):
        if self.fails:
            raise cv2.error("The function is not implemented. Rebuild the library with Windows, GTK+ 2.x")
        if title not in self.open:
            self.open.append(title)

    def resizeWindow(self, title, width, height):
        assert title in self.open
        self.sizes[title] = width, height

    def imshow(self, title, picture):
        assert title in self.open
        self.shown.append((title, picture))

    def waitKey(self, delay):
        assert delay == 1
        return self.keys.pop(0) if self.keys and self.shown else -1

    def getWindowProperty(self, title, which):
        assert which == cv2.WND_PROP_VISIBLE
        if not self.open:
            raise cv2.error("NULL guiReceiver (please create a window) in function 'cvGetPropVisible_QT'")
        return float(title in self.open)

    def destroyWindow(self, title):
        self.open.remove(title)


@pytest.fixture
def windows(monkeypatch):
    stand_in = Windows()
    for name in ("namedWindow", "resizeWindow", "imshow", "waitKey", "getWindowProperty", "destroyWindow"):
        monkeypatch.setattr(cv2, name, getattr(stand_in, name))
    monkeypatch.setenv("DISPLAY", ":0")
    return stand_in


def frame(index, stream=0):
    return Frame(image=IMAGE, index=index, pts=index, time_base=Fraction(1, 30), stream=stream)


def test_frames_are_shown_with_tracked_poses_only(windows):
    preview = Preview("street", trails=0)
    poses = people([(80, 120), (220, 120)], track_ids=[4, -1])
    preview.write(frame(0), poses)
    ((title, shown),) = windows.shown
    assert title == "street"
    np.testing.assert_array_equal(shown, draw(IMAGE, poses[:1]))
    assert (shown != IMAGE).any()
    assert not preview.ended


@pytest.mark.parametrize("key", [ord("q"), 27, ord("q") | 0x100000])
def test_a_key_ends_the_preview(windows, key):
    """Some systems set bits above the lowest eight."""
    windows.keys = [ord("x"), key]
    preview = Preview()
    nobody = people([], track_ids=[])
    preview.write(frame(0), nobody)
    assert not preview.ended
    preview.write(frame(1), nobody)
    assert preview.ended
    preview.write(frame(2), nobody)
    assert len(windows.shown) == 2
    preview.close()
    assert windows.open == []


def test_the_close_button_ends_the_preview(windows):
    preview = Preview()
    preview.write(frame(0), people([], track_ids=[]))
    windows.open.clear()
    preview.write(frame(1), people([], track_ids=[]))
    assert preview.ended
    assert len(windows.shown) == 1
    preview.close()


def test_every_stream_has_a_window(windows):
    preview = Preview("oaks")
    for stream in (0, 1, 0):
        preview.write(frame(0, stream), people([], track_ids=[]))
    assert [title for title, _ in windows.shown] == ["oaks", "oaks 2", "oaks"]
    assert windows.open == ["oaks", "oaks 2"]


@pytest.mark.parametrize(
    ("frame_size", "window"),
    [
        ((320, 240), (640, 480)),
        ((640, 360), (640, 360)),
        ((1920, 1080), (1280, 720)),
        ((480, 1920), (180, 720)),
    ],
)
def test_a_new_window_fits_most_screens_and_keeps_the_aspect(windows, frame_size, window):
    width, height = frame_size
    shown = replace(frame(0), image=np.zeros((height, width, 3), np.uint8))
    preview = Preview()
    preview.write(shown, people([], track_ids=[]))
    assert windows.sizes == {"oaks": window}
    windows.sizes.clear()
    preview.write(shown, people([], track_ids=[]))
    assert windows.sizes == {}  # the user may have changed it


AV = "7f00-7f01 r-xp 0 08:01 1 /env/site-packages/av.libs/libxcb-shape-7716c890.so.0.0.0\n"
QT = "7f02-7f03 r-xp 0 08:01 2 /env/site-packages/cv2/qt/plugins/platforms/libqxcb.so\n"


@pytest.mark.parametrize(
    ("loaded", "plugins", "hangs"),
    [("", True, False), (AV, True, True), (AV + QT, True, False), (AV, False, False)],
)
def test_a_window_that_would_hang_is_refused(windows, monkeypatch, tmp_path, loaded, plugins, hangs):
    """opencv-python's Qt hangs if PyAV's wheel was loaded before its X plugin."""
    if plugins:
        (tmp_path / "qt" / "plugins").mkdir(parents=True)
    monkeypatch.setattr(cv2, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr("oaks.video.preview._loaded_libraries", lambda: loaded)
    monkeypatch.setenv("QT_QPA_FONTDIR", str(tmp_path))
    if hangs:
        with pytest.raises(BackendUnavailable, match="PyAV was imported before the first window was opened"):
            Preview()
        assert windows.open == []
    else:
        Preview()


def test_track_opens_its_window_before_it_imports_av(windows, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("oaks.video.sources.load_av", lambda: opened.append(list(windows.open)) or load_av())
    monkeypatch.setattr("oaks.video.preview._loaded_libraries", str)
    assert run(tmp_path, "--show").exit_code == 0
    assert opened
    assert all(opened)


def test_an_opencv_without_windows_says_what_to_install(windows):
    windows.fails = True
    with pytest.raises(BackendUnavailable, match=r"headless build.*pip install opencv-python`$") as error:
        Preview()
    assert "\n" not in str(error.value)


def test_a_missing_display_is_reported(windows, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(BackendUnavailable, match="display not found: neither DISPLAY nor WAYLAND_DISPLAY"):
        Preview()
    monkeypatch.setattr("sys.platform", "darwin")
    Preview()


def run(tmp_path, *given):
    bundle = bundles.write(tmp_path / "tiny", skeleton=oaks.COCO17).path
    clip = write_clip(tmp_path / "clip.mp4", 6)
    arguments = [
        "track",
        clip,
        "--bundle",
        bundle,
        "--first-boxes",
        "4,4,34,54",
        "--out",
        tmp_path / "out",
        *given,
    ]
    return CliRunner().invoke(app, [*map(str, arguments), "--backend", "onnxruntime", "--gate", "0"])


def test_track_shows_frames_and_ends_with_the_window(windows, tmp_path):
    windows.keys = [-1, -1, ord("q")]
    result = run(tmp_path, "--show")
    assert result.exit_code == 0, result.output
    assert len(windows.shown) == 3
    assert len((tmp_path / "out" / "poses.jsonl").read_text().splitlines()) == 3
    assert windows.open == []


def test_track_without_windows_fails_in_one_line_and_writes_nothing(windows, tmp_path):
    windows.fails = True
    result = run(tmp_path, "--show")
    assert result.exit_code == 2
    assert result.output.strip().splitlines()[-1].endswith("`pip install opencv-python`")
    assert not (tmp_path / "out").exists()
