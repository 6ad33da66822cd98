"""Write rendered clips, each a folder in MOTChallenge's layout with COCO annotations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from oaks import progress as bars
from oaks.files import write_json, write_text
from oaks.skeleton import COCO17
from oaks.training.render.output.folder import (
    CATEGORIES,
    check_settings,
    claim_folder,
    run_in_parallel,
    write_jpeg,
)
from oaks.training.render.video import RenderedVideos


def write_videos(
    folder: str | Path,
    count: int,
    *,
    workers: int = 2,
    quality: int = 95,
    progress: bool = True,
    **settings: Any,
) -> list[Path]:
    """Render clips 0 to count - 1 into a folder; an earlier call that was stopped is resumed.

    Each gets a folder, 000001 onwards, with img1/000001.jpg onwards, seqinfo.ini, gt/gt.txt (frame from 1, track id,
    left, top, width, height of the box, 1, 1, the share of the 17 keypoints that are seen) and, written last,
    annotations.json: COCO keypoints with a `track_id` for each person, a `frame_index` from 0 and a `time` in
    seconds for each image, and the clip itself under `videos`.

    Args:
        folder: created if missing.
        count: number of clips; a larger number than before extends the data set.
        workers: number of processes.
        quality: of the JPEG files, 1 to 100.
        progress: whether to show a bar.
        settings: arguments of RenderedVideos, including `seed`.

    Returns:
        The clips' folders.

    Raises:
        ArgumentError: an argument is wrong, or the folder holds a data set of other settings.
    """
    check_settings(count, workers, quality)
    folder = Path(folder)
    claim_folder(folder, {**RenderedVideos(**settings).settings, "quality": quality})
    clips = [_home(folder, number) for number in range(count)]
    missing = [number for number, clip in enumerate(clips) if not (clip / "annotations.json").is_file()]
    work = partial(_render_clip, folder, quality)
    done = count - len(missing)
    with bars.progress("rendering clips", count, done=done, shown=progress) as advance:
        for _ in run_in_parallel(missing, work, partial(RenderedVideos, **settings), workers):
            advance()
    return clips


def _home(folder: Path, number: int) -> Path:
    return folder / f"{number + 1:06d}"


def _render_clip(folder: Path, quality: int, generator: RenderedVideos, number: int) -> None:
    """Write a clip's frames, then its text files, so that a clip with annotations is complete."""
    home, clip = _home(folder, number), generator.clip(number)
    for name in ("img1", "gt"):
        (home / name).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    width, height = generator.size
    for index in range(clip.frames):
        image, people = clip.frame(index)
        name = f"{index + 1:06d}.jpg"
        write_jpeg(home / "img1" / name, image, quality)
        images.append({
            "id": index + 1, "file_name": name, "width": width, "height": height, "video_id": number + 1,
            "frame_index": index, "time": index / generator.rate,
        })  # fmt: skip
        for entry in people:
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **entry})
    about = {"id": number + 1, "name": home.name, "frames": clip.frames, "rate": generator.rate,
             "width": width, "height": height}  # fmt: skip
    write_text(home / "gt" / "gt.txt", "".join(_mot_row(entry) for entry in annotations))
    write_text(home / "seqinfo.ini", _sequence(about))
    write_json(home / "annotations.json", {
        "info": {"description": "rendered video", "settings": {**generator.settings, "quality": quality}},
        "videos": [about],
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
    })  # fmt: skip


def _mot_row(entry: dict[str, Any]) -> str:
    box = ",".join(f"{value:.2f}" for value in entry["bbox"])
    seen = entry["keypoints"][2::3].count(2) / COCO17.count
    return f"{entry['image_id']},{entry['track_id']},{box},1,1,{seen:.2f}\n"


def _sequence(about: dict[str, Any]) -> str:
    return (
        f"[Sequence]\nname={about['name']}\nimDir=img1\nframeRate={about['rate']:g}\n"
        f"seqLength={about['frames']}\nimWidth={about['width']}\nimHeight={about['height']}\nimExt=.jpg\n"
    )
