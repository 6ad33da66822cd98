"""A frozen estimator made up for tests: its mistakes follow from its keypoint scores, the annotations and chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from val import synthetic

from oaks.fit.boosting import Settings

QUICK = Settings(trees=12, leaves=8, rate=0.2, folds=3)
"""Few trees: tests look at what is done with them, not at how good they are."""


def write(folder: Path, *, images: int = 60, seed: int = 5, boxes: str = "ground truth") -> tuple[Path, Path]:
    """Results and annotations of about three people an image, as files."""
    content = synthetic.annotations(seed, images=images)
    rows = [plain(row) for row in synthetic.detections(content, seed + 1, boxes=boxes)]
    return save(folder, rows, content)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a foreign estimator writes it: the heat in the keypoints' third numbers, nothing of oaks'."""
    points = np.array(row["keypoints"], float).reshape(-1, 3)
    points[:, 2] = row["heat"]
    kept = {key: row[key] for key in ("image_id", "category_id", "annotation_id", "box_score") if key in row}
    return {**kept, "keypoints": points.ravel().tolist(), "score": float(points[:, 2].mean())}


def save(folder: Path, rows: list[dict[str, Any]], content: dict[str, Any]) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    results, annotations = folder / "estimator.json", folder / "annotations.json"
    results.write_text(json.dumps(rows))
    annotations.write_text(json.dumps(content))
    return results, annotations
