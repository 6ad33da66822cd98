"""Measure how well people keep their track ids, gated by the OAKS score and by the conventional one.

    python benchmarks/tracking.py [--bundle BUNDLE] [--clips 12] [--tuning 8] [--every 1] [--save]

On rendered clips of people who cross, are hidden and reappear. Without a bundle, the poses are simulated
(simulated_poses.py), which measures the tracker, not a network. Both gates are set on clips of another seed, so that
the same share of people has a tracked pose there. Boxes are made from the ground truth, with misses, duplicates and boxes
on the background; with --every 5, they come at every fifth frame, and between these from the tracks. People and poses are
paired by OKS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import measure
import numpy as np
import typer
from recordings import Recording, record
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from simulated_poses import SimulatedPoses

import oaks
from oaks.poses import Poses
from oaks.skeleton import COCO17
from oaks.training.render import RenderedVideos
from oaks.val.calibration import pearson
from oaks.val.oks import pairs
from oaks.val.tracking import Steadiness, TrackedFrame, TrackScores, frames_by_oks, score_tracks, steadiness
from oaks.video.smoothing import OneEuro
from oaks.video.tracking import NO_TRACK, Tracker

KINDS = ("oaks", "conventional")
FEW = 10
"""Most labeled keypoints, of 17, of a person who counts as occluded: largely and almost occluded in the paper."""
FEWEST = 4
"""Fewest labeled keypoints of a person who counts; OKS over fewer hardly distinguishes overlapping people."""
HALVINGS = 8
KEPT = [0.97, 0.9, 0.8]
TUNING_SEED = 1_000_000
# Added to the seed for the clips on which the gates are set.

Find = Callable[[int, np.ndarray, np.ndarray], Poses]


class Case:
    """A recording, and a function that finds poses in its frames: frame number, boxes, box scores -> Poses."""

    def __init__(self, recording: Recording, find: Find) -> None:
        self.recording = recording
        self.find = find
        self._given: dict[int, Poses] = {}

    def given(self, index: int) -> Poses:
        """Return the poses in the given boxes of a frame; they are found once."""
        if index not in self._given:
            recording = self.recording
            self._given[index] = self.find(index, recording.boxes[index], recording.box_scores[index])
        return self._given[index]

    def follow(self, tracker: Tracker, every: int) -> list[Poses]:
        """Return the tracked poses of each frame, with given boxes at every n-th and the tracks' own between these."""
        result = []
        for index in range(self.recording.clip.frames):
            time, due = index / self.recording.rate, index % every == 0
            ids = None
            if due:
                poses = self.given(index)
            else:
                boxes, ids = tracker.boxes(time)
                poses = self.find(index, boxes, tracker.box_scores(ids))
            poses = tracker.update(poses, time, of_tracks=ids)
            result.append(poses[poses.track_ids != NO_TRACK])
        return result


class Outcome:
    """Results of tracking some cases in one way.

    Attributes:
        scores: ids and people.
        occluded, away: id switches of people who were occluded since their last match, or outside the picture.
        tracks: number of tracks.
    """

    def __init__(self, cases: list[Case], kind: str, gate: float, every: int) -> None:
        self._cases = cases
        self._frames, self._found = [], []
        self.occluded = self.away = self.tracks = 0
        for case in cases:
            tracker = Tracker(COCO17, gate=gate, score=kind)
            frames = case.follow(tracker, every)
            found = score_tracks(compared(case.recording, frames))
            self._frames.append(frames)
            self._found.append(found)
            self.tracks += tracker.started
            occluded, away = reasons(case.recording, found)
            self.occluded, self.away = self.occluded + occluded, self.away + away
        self.scores = TrackScores.together(self._found)

    def steadiness(self, keypoints: str) -> Steadiness:
        """Measure the keypoints "as found", "smoothed" or "true" of poses that are matched with a person."""
        rows = []
        for number, (case, frames, found) in enumerate(
            zip(self._cases, self._frames, self._found, strict=True)
        ):
            shown = frames
            if keypoints == "smoothed":
                smoother = OneEuro()
                shown = [smoother.update(poses, t / case.recording.rate) for t, poses in enumerate(frames)]
            rows.append(matched(case.recording, found, None if keypoints == "true" else shown, number))
        return steadiness(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def compared(recording: Recording, frames: list[Poses]) -> list[TrackedFrame]:
    """Return the frames of a recording for score_tracks."""
    poses = Poses.concatenate(frames)
    image = np.repeat(np.arange(len(frames)), [len(part) for part in frames])
    return frames_by_oks(recording.truth, recording.people, poses.keypoints, image, poses.track_ids, FEWEST)


def matched(
    recording: Recording, found: TrackScores, frames: list[Poses] | None, number: int
) -> tuple[np.ndarray, ...]:
    """Return the arguments of steadiness for matched poses; frames None: for the true keypoints."""
    truth = recording.truth
    frame, row, column = found.matches.T
    person = np.searchsorted(truth.image, frame) + row
    true = truth.keypoints[person]
    keypoints = true
    if frames is not None:
        keypoints = np.array([frames[t].keypoints[c] for t, c in zip(frame, column, strict=True)])
    who = 1000 * number + recording.people[person]
    return (
        keypoints.reshape(true.shape), true, truth.flags[person] > 0, np.sqrt(truth.areas[person]), frame, who
    )  # fmt: skip


def reasons(recording: Recording, found: TrackScores) -> tuple[int, int]:
    """Count id switches of people who were occluded since their last match, and of people who left the picture since."""
    truth = recording.truth
    labeled = np.zeros(recording.points.shape[:2], int)
    labeled[truth.image, recording.people - 1] = truth.labeled
    low, high = recording.points.min(2), recording.points.max(2)
    out = (high < 0).any(2) | (low > np.array(recording.size) - 1).any(2)
    occluded = away = 0
    for frame, row, last in found.switches:
        since = slice(last, frame + 1), recording.people[np.searchsorted(truth.image, frame) + row] - 1
        left = bool(out[since].any())
        away += left
        occluded += not left and bool((labeled[since] <= FEW).any())
    return occluded, away


def tuned_gate(cases: list[Case], kind: str, recall: float, every: int) -> float:
    """Return the highest gate, to one part in 2 ** HALVINGS, at which this share of people has a tracked pose."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        reached = Outcome(cases, kind, middle, every).scores.recall >= recall
        low, high = (middle, high) if reached else (low, middle)
    return low


def correlation(cases: list[Case], kind: str) -> float:
    """Return Pearson's correlation of a score with the true OKS, over all poses in the given boxes."""
    scores, oks = [], []
    for case in cases:
        for index in range(case.recording.clip.frames):
            poses = case.given(index)
            found = pairs(case.recording.truth, poses.keypoints, np.full(len(poses), index))
            best = np.zeros(len(poses))
            np.maximum.at(best, found.detection, found.oks)
            oks.append(best)
            scores.append(poses.oaks_scores if kind == "oaks" else poses.conventional_scores)
    return pearson(np.concatenate(scores), np.concatenate(oks))


def make_cases(
    videos: RenderedVideos, count: int, engine: oaks.Engine | None, bar: Progress, what: str
) -> list[Case]:
    """Record clips, with simulated poses or an Engine's."""
    cases = []
    for number in bar.track(range(count), description=f"rendering clips for {what}"):
        recording = record(videos.clip(number), videos.rate, videos.size, videos.seed)
        if engine is None:
            find = SimulatedPoses(recording, videos.seed).find
        else:
            find = lambda index, boxes, scores, clip=recording.clip: engine.infer(  # noqa: E731
                clip.frame(index)[0], boxes=boxes, box_scores=scores
            )
        cases.append(Case(recording, find))
    return cases


def id_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of ids and people, a row per gate."""
    table = Table(
        "recall kept", "gate", "at", "recall", "MOTA", "IDF1", "switches", "occluded", "left", "tracks"
    )
    for row in rows:
        table.add_row(
            f"{row['kept']:.0%}", row["gate"], *(f"{row[name]:.3f}" for name in ("at", "recall", "mota", "idf1")),
            *(str(row[name]) for name in ("switches", "occluded", "left", "tracks")),
            end_section=row["gate"] == KINDS[-1],
        )  # fmt: skip
    return table


def keypoint_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of jitter and lag of the keypoints."""
    table = Table("keypoints", "jitter, px/frame²", "of size", "less motion", "lag, frames", "error, of size")
    for row in rows:
        table.add_row(
            row["keypoints"], f"{row['jitter']:.2f}", f"{row['relative_jitter']:.4f}", f"{row['shake']:.4f}",
            f"{row['lag']:+.2f}", f"{row['error']:.4f}",
        )  # fmt: skip
    return table


def id_row(kind: str, gate: float, kept: float, outcome: Outcome) -> dict[str, Any]:
    """Return a row of the first table."""
    scores = outcome.scores
    return {
        "kept": kept, "gate": kind, "at": gate, "recall": scores.recall, "mota": scores.mota,
        "idf1": scores.idf1, "switches": len(scores.switches), "occluded": outcome.occluded,
        "left": outcome.away, "tracks": outcome.tracks,
    }  # fmt: skip


def main(
    bundle: Annotated[str, typer.Option(help="Bundle folder, zip or name. Default: simulated poses.")] = "",
    clips: Annotated[int, typer.Option(help="Number of clips to measure on.")] = 12,
    tuning: Annotated[int, typer.Option(help="Number of clips of another seed, to set the gates on.")] = 8,
    frames: Annotated[int, typer.Option(help="Frames per clip, 25 per second.")] = 300,
    keep: Annotated[
        list[float], typer.Option(help="Share of the ungated recall that a gate must keep. Repeatable.")
    ] = KEPT,
    every: Annotated[int, typer.Option(min=1, help="Given boxes at every n-th frame only.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the clips.")] = 0,
    save: Annotated[bool, typer.Option(help="Also write the figures to benchmarks/results.")] = False,
) -> None:
    """Print the quality of tracks, for both gates, and jitter and lag of keypoints."""
    engine = oaks.Engine(bundle) if bundle else None
    source = (
        f"poses of {bundle}, {engine.backend}" if engine else "SIMULATED poses: nothing is said of a network"
    )
    rows: list[dict[str, Any]] = []
    outcomes: list[Outcome] = []
    with Progress(transient=True) as bar:
        measured, others = (
            make_cases(RenderedVideos(start, frames=frames), count, engine, bar, what)
            for start, count, what in (
                (seed, clips, "the figures"),
                (seed + TUNING_SEED, tuning, "the gates"),
            )
        )
        ungated = Outcome(others, KINDS[0], 0.0, every).scores.recall
        ways = [(kept, kind) for kept in keep for kind in KINDS]
        for kept, kind in bar.track(ways, description="tracking"):
            gate = tuned_gate(others, kind, kept * ungated, every)
            outcome = Outcome(measured, kind, gate, every)
            rows.append(id_row(kind, gate, kept, outcome))
            outcomes.append(outcome)
        steady = [
            {"keypoints": name, **vars(outcomes[0].steadiness(name))}
            for name in ("as found", "smoothed", "true")
        ]
        agreement = {kind: correlation(measured, kind) for kind in KINDS}
    console = Console(width=125)
    console.print(id_table(rows))
    console.print(keypoint_table(steady))
    about = describe(measured, others, source, every, agreement)
    console.print(about)
    if save:
        name = "tracking.json" if engine else "tracking_simulated.json"
        measure.save(Path(__file__).parent / "results" / name, {"about": about}, [*rows, *steady])


def describe(
    measured: list[Case], others: list[Case], source: str, every: int, agreement: dict[str, float]
) -> str:
    """Describe what the tables show."""
    recording = measured[0].recording
    width, height = recording.size
    boxes = "at every frame" if every == 1 else f"at every {every}th frame, else from the tracks"
    scores = ", ".join(f"{kind} {value:.2f}" for kind, value in agreement.items())
    return (
        f"{len(measured)} clips of {recording.clip.frames} frames, {width}x{height}; {source}. Boxes made from the truth "
        f"{boxes}. Scores' correlation with OKS: {scores}. Gates set on {len(others)} other clips, so that this share of "
        f"the recall without a gate is kept. People with fewer than {FEWEST} labeled keypoints do not count. "
        f"'occluded': of the switches, those of people with {FEW} or fewer since their last match; 'left': of people who "
        "left the picture since. Keypoints: of the first row's tracks; 'less motion': second differences of the distance "
        "from the truth, of size."
    )


if __name__ == "__main__":
    typer.run(main)
