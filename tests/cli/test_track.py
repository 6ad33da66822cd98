"""oaks track: files, output, and the exit code for each way it can end."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from video.clips import decode, numbered, packets, spoil, write_clip
from video.test_sources import Camera

import oaks
from oaks.box_files import read_mot
from oaks.cli.main import app, main
from oaks.coco_results import read_results
from oaks.detector import Detector
from oaks.files import held
from oaks.video import Tracker, open_source


@pytest.fixture(name="tiny")
def path_of_the_bundle(tiny):
    """The path of the bundle, whose scores are never below .3."""
    return tiny.path


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", 24)


@pytest.fixture
def boxes(tmp_path):
    """Two people in each of 120 frames."""
    lines = [f"{n},-1,{x},4,30,50,0.9" for n in range(1, 121) for x in (4, 60)]
    path = tmp_path / "boxes.txt"
    path.write_text("\n".join(lines))
    return path


def arguments(*given: object) -> list[str]:
    return ["track", *map(str, given), "--backend", "onnxruntime", "--gate", "0"]


def run(*given: object) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, arguments(*given))
    return result.exit_code, result.output.splitlines()


def lines_of(out) -> list[dict]:
    return [json.loads(line) for line in (out / "poses.jsonl").read_text().splitlines()]


def header_of(out) -> dict:
    return json.loads((out / "results.header.json").read_text())


def test_a_folder_that_another_run_writes_is_refused_before_any_file_changes(tiny, clip, boxes, tmp_path):
    out = tmp_path / "out"
    given = [clip, "--bundle", tiny, "--boxes", boxes, "--out", out, "--frames", "3"]
    assert run(*given)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with held(out):
        code, said = run(*given)
    assert code == 2
    assert said[-1] == f"oaks: {out}: another run is writing it; wait until it has ended, or write elsewhere"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_all_output_files_agree(tiny, clip, boxes, tmp_path):
    out = tmp_path / "out"
    code, said = run(clip, "--bundle", tiny, "--boxes", boxes, "--out", out)
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "annotated.mp4", "poses.jsonl", "results.header.json", "results.json", "tracks.txt",
    ]  # fmt: skip
    lines, (rows, header) = lines_of(out), read_results(out / "results.json")
    assert [line["frame"] for line in lines] == list(range(24))
    assert [row for line in lines for row in line["poses"]] == rows
    assert len(rows) == 48
    assert {row["track_id"] for row in rows[:2]} == {1, 2}
    known = read_mot(out / "tracks.txt")
    tracked = [row for row in rows if row["track_id"] > 0]
    assert sum(len(of) for of in known.boxes.values()) == len(tracked)
    played, source = decode(out / "annotated.mp4"), decode(clip)
    np.testing.assert_allclose([time for time, _ in played], [time for time, _ in source], atol=1e-4)
    assert played[0][1].shape == source[0][1].shape
    assert header["complete"] is True
    assert (header["box_source"], header["smoothed"], header["gated_by"]) == ("MOT: boxes.txt", True, "oaks")
    assert any(line.startswith("24 frames, 0 dropped, 0 damaged, 0 failed; 48 poses of ") for line in said)
    assert any(line.startswith("ms per frame") and "engine pose" in line and "draw" in line for line in said)


def test_outputs_can_be_switched_off(tiny, clip, boxes, tmp_path):
    out = tmp_path / "out"
    code, _ = run(
        clip, "--bundle", tiny, "--boxes", boxes, "--out", out, "--no-video", "--no-smooth", "--frames", 10,
        "--gate-by", "conventional", "--every", 5,
    )  # fmt: skip
    assert code == 0
    assert not (out / "annotated.mp4").exists()
    assert len(lines_of(out)) == 10
    header = header_of(out)
    assert (header["smoothed"], header["gated_by"], header["complete"]) == (False, "conventional", True)


def test_pictures_are_tracked_from_first_boxes_in_natural_order(tiny, tmp_path):
    pictures = []
    for n in range(6):
        pictures.append(tmp_path / f"{n + 7}.png")
        assert cv2.imwrite(str(pictures[-1]), numbered(n))
    out = tmp_path / "out"
    people = "4,4,34,54 60,4,90,54"
    as_shells_do = sorted(pictures)  # 10.png comes first
    code, _ = run(*as_shells_do, "--bundle", tiny, "--first-boxes", people, "--out", out, "--rate", 10)
    lines = lines_of(out)
    assert code == 0
    assert [line["name"] for line in lines] == [path.name for path in pictures]
    assert [line["time"] for line in lines] == pytest.approx([n / 10 for n in range(6)])
    assert [row["box"] for row in lines[0]["poses"]] == [[4, 4, 30, 50], [60, 4, 30, 50]]


def test_boxes_of_other_frames_are_told(tiny, tmp_path):
    (tmp_path / "boxes.txt").write_text("1001,-1,4,4,30,50\n")
    assert cv2.imwrite(str(tmp_path / "a.png"), numbered(0))
    out = tmp_path / "out"
    code, said = run(
        tmp_path / "a.png", "--bundle", tiny, "--boxes", tmp_path / "boxes.txt", "--out", out, "--no-video"
    )
    assert code == 1
    assert any(
        "boxes.txt: none of its boxes belong to the frames" in line and "1001" in line for line in said
    )
    header = header_of(out)
    assert header["complete"] is False
    assert any(
        "boxes.txt: none of its boxes belong to the frames" in problem for problem in header["problems"]
    )


def test_a_run_that_stops_before_the_first_frame_with_boxes_is_complete(tiny, clip, tmp_path):
    (tmp_path / "boxes.txt").write_text("101,-1,4,4,30,50\n")
    out = tmp_path / "out"
    given = [clip, "--bundle", tiny, "--boxes", tmp_path / "boxes.txt", "--out", out, "--no-video"]
    code, said = run(*given, "--frames", 5)
    assert code == 0
    assert not any("none of its boxes" in line for line in said)
    header = header_of(out)
    assert (len(lines_of(out)), header["complete"], header["problems"]) == (5, True, [])


def test_animations_are_sources_of_their_own(tiny, tmp_path):
    """Several animations on the command line are separate sources; one in a folder of pictures is skipped by name."""
    stills = [Image.fromarray(numbered(n)[..., ::-1]) for n in range(3)]
    for name in ("a.png", "b.gif"):
        stills[0].save(tmp_path / name, save_all=True, append_images=stills[1:], duration=100)
    boxes = ("--bundle", tiny, "--first-boxes", "4,4,34,54", "--no-video")
    out = tmp_path / "out"
    code, _ = run(tmp_path / "a.png", tmp_path / "b.gif", *boxes, "--out", out)
    assert code == 0
    assert [len(lines_of(folder)) for folder in sorted(out.iterdir())] == [3, 3]
    stills[0].save(tmp_path / "c.png")
    code, said = run(tmp_path, *boxes, "--out", tmp_path / "folder")
    assert code == 1
    assert [line["name"] for line in lines_of(tmp_path / "folder")] == ["c.png"]
    assert "\n".join(said).count("an animation among pictures; open it by itself") == 2


def test_a_detector_finds_people_at_every_nth_frame(tiny, clip, tmp_path):
    from test_detector import ENDS, write

    detector = write(tmp_path / "detector.onnx", ENDS["three"])
    out = tmp_path / "out"
    told = ("--detector-set", "color=rgb", "--detector-set", "std=2,2,2")
    code, _ = run(clip, "--bundle", tiny, "--detector", detector, *told, "--every", 4, "--out", out)
    assert code == 0
    detected, _ = Detector(detector).detect(decode(clip)[4][1])
    expected = np.concatenate([detected[:, :2], detected[:, 2:] - detected[:, :2]], axis=1)
    np.testing.assert_allclose([row["box"] for row in lines_of(out)[4]["poses"]], expected, atol=1e-2)
    header = header_of(out)
    said = (
        "detector: detector.onnx, boxes after NMS, threshold 0.3, overlap 0.65, class 0, 64x64, rgb with mean 0, 0, 0 "
        "and std 2, 2, 2"
    )
    assert (header["box_source"], header["every"]) == (said, 4)


def test_several_sources_have_a_folder_each(tiny, clip, boxes, tmp_path):
    other = write_clip(tmp_path / "other.mkv", 8)
    out = tmp_path / "out"
    code, said = run(clip, other, "--bundle", tiny, "--boxes", boxes, "--boxes", boxes, "--out", out)
    assert code == 0
    assert [len(lines_of(out / name)) for name in ("1_clip", "2_other")] == [24, 8]
    assert [len(decode(out / name / "annotated.mp4")) for name in ("1_clip", "2_other")] == [24, 8]
    assert any(line.startswith("32 frames") for line in said)


def test_a_damaged_source_is_tracked_and_exits_with_1(tiny, boxes, tmp_path):
    damaged = spoil(write_clip(tmp_path / "damaged.mp4", 12, gop=1), 5)
    code, said = run(damaged, "--bundle", tiny, "--boxes", boxes, "--out", tmp_path / "a")
    assert code == 1
    assert [line["frame"] for line in lines_of(tmp_path / "a")] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert len(decode(tmp_path / "a" / "annotated.mp4")) == 11
    assert (header_of(tmp_path / "a")["damaged"], header_of(tmp_path / "a")["complete"]) == (1, False)
    assert any("1 damaged" in line for line in said)

    short = write_clip(tmp_path / "short.mkv", 90)
    short.write_bytes(short.read_bytes()[: packets(short)[30][0]])
    code, said = run(short, "--bundle", tiny, "--boxes", boxes, "--out", tmp_path / "b")
    assert code == 1
    assert len(lines_of(tmp_path / "b")) == len(decode(tmp_path / "b" / "annotated.mp4")) == 30
    assert any("of 3.0" in problem for problem in header_of(tmp_path / "b")["problems"])


def test_frames_of_changing_size_are_all_written(tiny, boxes, tmp_path):
    small = write_clip(tmp_path / "small.ts", 6)
    large = write_clip(tmp_path / "large.ts", 6, size=(192, 128), first=6)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    run(both, "--bundle", tiny, "--boxes", boxes, "--out", tmp_path / "out")
    played = decode(tmp_path / "out" / "annotated.mp4")
    assert len(lines_of(tmp_path / "out")) == len(played) == 12
    assert {image.shape for _, image in played} == {(64, 96, 3)}


def test_a_wrong_argument_is_one_line_and_exits_with_2(tiny, clip, boxes, tmp_path, capsys):
    given, sources = ["--bundle", str(tiny), "--boxes", str(boxes)], "--boxes, --detector, --first-boxes"
    for wrong, message in (
        (
            [clip, "--bundle", tiny],
            f"oaks: boxes must be given, as bundle 'tiny' has no detector, got None; pass exactly one of {sources}",
        ),
        ([clip, *given, "--first-boxes", "1,2,3,4"], f"oaks: pass at most one of {sources}"),
        ([tmp_path / "gone.mp4", *given], "oaks: source not found"),
        (["tcp://127.0.0.1:1", *given], "oaks: source tcp://127.0.0.1:1 cannot be opened"),
        ([tiny / "bundle.json", *given], "oaks: source must be a video"),
        ([clip, clip, *given], "oaks: --boxes must be given once for each of the 2 sources, got 1"),
        (
            [clip, "--bundle", tiny, "--first-boxes", "1,2,x"],
            "oaks: --first-boxes must be x1,y1,x2,y2 with spaces",
        ),
        ([clip, *given, "--trails", "-1"], "oaks: trails must be "),
        ([clip, *given, "--absent", "gray"], "oaks: absent must be "),
        ([clip, *given, "--gate", "2"], "oaks: gate must be "),
    ):
        with pytest.raises(SystemExit) as caught:
            main([*arguments(), *map(str, wrong), "--out", str(tmp_path / "x")])
        assert caught.value.code == 2, message
        error = capsys.readouterr().err.strip()
        assert message in error
        assert error.count("\n") == 0


def start(*given: object, **settings) -> subprocess.Popen:
    command = [sys.executable, "-m", "oaks", *arguments(*given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def test_ctrl_c_exits_with_130_and_leaves_readable_files(tiny, boxes, tmp_path):
    """A camera has sent 60 frames and is silent."""
    recorded = write_clip(tmp_path / "clip.ts", 60)
    over, out = threading.Event(), tmp_path / "out"
    with Camera([recorded.read_bytes(), over]) as camera:
        process = start(
            camera.address, "--no-live", "--bundle", tiny, "--boxes", boxes, "--out", out,
            # A shell that starts the tests in the background makes them ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        lines = out / "poses.jsonl"
        while not (lines.exists() and lines.read_bytes().count(b"\n") >= 8) and process.poll() is None:
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        over.set()
    assert process.returncode == 130, said
    assert "interrupted" in said
    frames = [line["frame"] for line in lines_of(out)]
    assert frames == list(range(len(frames)))
    assert len(frames) >= 8
    assert len(decode(out / "annotated.mp4")) == len(frames)
    assert len(read_results(out / "results.json")[0]) == 2 * len(frames)
    assert header_of(out)["complete"] is False


def test_a_full_disk_exits_with_3_and_leaves_readable_files(tiny, boxes, tmp_path):
    """The system limits files to 40 kB, with the same error as a full disk."""
    clip = write_clip(tmp_path / "clip.mp4", 120, size=(320, 240))
    room, out = 40_000, tmp_path / "out"
    process = start(
        clip, "--bundle", tiny, "--boxes", boxes, "--out", out,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "a file could not be written" in said
    assert max(path.stat().st_size for path in out.iterdir()) <= room
    lines, (rows, header) = lines_of(out), read_results(out / "results.json")
    assert 5 < len(lines) < 120
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert len(rows) in (2 * len(lines), 2 * len(lines) - 2), "the lines are written first"
    assert header["complete"] is False


@pytest.mark.real_people
def test_the_real_clip_is_tracked_and_its_video_plays(tiny, real_data, tmp_path):
    clip, out = real_data / "clip" / "five_frames.mp4", tmp_path / "out"
    people = "300,100,600,700 700,100,900,700"
    code, _ = run(clip, "--bundle", tiny, "--first-boxes", people, "--out", out, "--show-boxes")
    assert code == 0
    played, source = decode(out / "annotated.mp4"), decode(clip)
    assert len(played) == len(source) == len(lines_of(out)) == 5
    np.testing.assert_allclose([time for time, _ in played], [time for time, _ in source], atol=1e-4)
    for (_, drawn), (_, image) in zip(played, source, strict=True):
        assert drawn.shape == image.shape == (720, 1280, 3)
        # Except for the drawing, the picture equals the source.
        assert np.median(np.abs(drawn.astype(int) - image)) < 6
    first = np.abs(played[0][1].astype(int) - source[0][1]).max(axis=2)
    assert (first > 100).sum() > 1000, "something is drawn"


def test_the_help_lists_the_options():
    said = CliRunner().invoke(app, ["track", "--help"]).output
    for word in ("first-boxes", "gate", "trails", "Exit codes", "130"):
        assert word in said


def test_missing_packages_are_reported_when_needed(clip, monkeypatch):
    """Importing oaks.video loads neither PyAV nor SciPy."""
    check = "import sys, oaks.video; sys.exit(bool({'av', 'scipy', 'cv2', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    for missing, use in (("av", lambda: open_source(clip)), ("scipy.optimize", lambda: Tracker(oaks.COCO17))):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(oaks.BackendUnavailable, match=r"pip install 'oaks\[video\]'"):
            use()
