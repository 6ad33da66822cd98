"""The head of a report: its headline numbers, and what every figure depends on."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from oaks.names import number_of
from oaks.val.calibration import measure_calibration
from oaks.val.ground_truth import GroundTruth
from oaks.val.report.document import Tile
from oaks.val.report.occlusion import SHORT
from oaks.val.report.ranking import BOXES, Ranking, gap_closed
from oaks.val.scores import ScoredDetections

NOT_SHOWN = ("box_source", "skipped_backends", "batches", "cuda_graphs")
"""Header entries that a report leaves out, because they are shown elsewhere or have no effect."""


def headline_tiles(truth: GroundTruth, measured: ScoredDetections, figures: Ranking) -> list[Tile]:
    """Return the headline numbers of the first file."""
    best = measured.best.key
    people = number_of(int(truth.counted.sum()), "person", "people")
    ap = f"{100 * figures[best]['AP']:.1f}"
    made = [Tile(f"AP, {SHORT[best]}", ap, f"{BOXES[measured.detections.box_source]}, {people}")]
    share = gap_closed(figures, best)
    if share is not None and best != "conventional":
        oracle, conventional = figures["oracle"]["AP"], figures["conventional"]["AP"]
        made.append(
            Tile(
                "Gap to the oracle closed",
                f"{100 * share:.0f} %".replace("-", "−"),
                f"conventional {100 * conventional:.1f}, oracle {100 * oracle:.1f}",
                "good" if share > 0 else "bad",
            )
        )
    score = measure_calibration(measured.best.values, measured.own_oks)
    correlation = f"Pearson's r with OKS {score.pearson:.2f}"
    return [*made, Tile("Calibration error (ECE)", f"{score.ece:.3f}", correlation)]


def report_head(
    truth: GroundTruth,
    sources: Sequence[ScoredDetections],
    *,
    judge: str,
    resamples: int,
    seed: int,
    landing: str,
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return groups of (label, value) that state what every figure depends on; see oaks.val.evaluate.Settings."""
    enlarged = "original images (coordinates and areas enlarged from the file's)"
    groups = {
        "Annotations": {
            "File": Path(truth.path).name,
            "SHA-256": _checksum(truth.path),
            "Images": str(len(truth.image_ids)),
            "People": f"{int(truth.counted.sum())} with keypoints, {len(truth.ids)} in all",
            "Skeleton": f"{truth.skeleton.name}, {truth.skeleton.count} keypoints and their sigmas",
            "Scale": enlarged if (truth.scales != 1).any() else "the file's",
        }
    }
    for detections in (measured.detections for measured in sources):
        own = {
            "File": Path(detections.path).name,
            "SHA-256": _checksum(detections.path),
            "Poses": str(detections.count),
            "Box source": str(detections.header.get("box_source", detections.box_source)),
        }
        # A header may have entries of the same names.
        groups[f"Results: {detections.name}"] = {**own, **header_entries(detections.header), **own}
    groups["Evaluation"] = {
        "OKS": ".50 to .95 in steps of .05; at most 20 poses per image",
        "Judge": f"{judge} {version(judge)}",
        "Classes": "1–5, 6–10, 11–15, 16–17 labeled keypoints; areas from 32²",
        "Visible": "predicted visibility above .5",
        "Errors": f"OKS .75; localized from .1; corrected points by {landing}",
        "Intervals": f"95 %, {number_of(resamples, 'resample')} of the images, seed {seed}",
    }
    groups["Software"] = {name: version(name) for name in ("oaks", "numpy", "scipy", "pycocotools")}
    groups["Software"]["Python"] = platform.python_version()
    return [(title, list(entries.items())) for title, entries in groups.items()]


def _checksum(path: str) -> str:
    """Return the SHA-256 of a file; a dash if there is no file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else "–"


def header_entries(header: dict[str, Any]) -> dict[str, str]:
    """Return the entries of a results file's header by label, as text."""
    if not header:
        return {"Header": "none: decoder, flip, precision, NMS and thresholds are not stated"}
    found: dict[str, str] = {}
    for key, value in header.items():
        if key in NOT_SHOWN or value in (None, [], "", {}):
            continue
        if key == "skipped" and isinstance(value, dict):
            shown = ", ".join(f"{name} ({reason})" for name, reason in list(value.items())[:10])
            more = ", ..." if len(value) > 10 else ""
            found["Skipped images"] = f"{len(value)}, their people count as missed: {shown}{more}"
        elif key == "networks":
            found |= {f"{role} network".capitalize(): _in_a_line(entry) for role, entry in value.items()}
        else:
            label = key.replace("_", " ").replace("sha256", "SHA-256").replace("nms", "NMS")
            found[label[:1].upper() + label[1:]] = _in_a_line(value)
    return found


def _in_a_line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_in_a_line(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_a_line, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
