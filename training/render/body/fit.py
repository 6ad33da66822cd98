"""Fit the shipped pose statistics to a file of 2D poses: `python -m oaks.training.render.body.fit LABELS.npz`.

The file holds kpt_xy (N, 17, 2), relative to the image's width and height, and kpt_v (N, 17). The result holds the
mixture and counts of label patterns, and no pose of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console

from oaks.files import replacing
from oaks.names import number_of
from oaks.progress import progress
from oaks.training.render.body import lift
from oaks.training.render.body.anatomy import limit
from oaks.training.render.body.poses import STATISTICS
from oaks.training.render.scene.labels import CLASS_EDGES


def fit(
    labels: Path,
    out: Path = STATISTICS,
    people: int = 30000,
    components: int = 48,
    rank: int = 6,
    patterns: int = 300,
    seed: int = 0,
) -> None:
    """Write the statistics of the poses in LABELS to OUT."""
    with np.load(labels) as content:
        points, visible = content["kpt_xy"].astype(np.float64), content["kpt_v"]
    labeled = visible > 0
    rng = np.random.default_rng(seed)
    whole = np.flatnonzero(labeled[:, 5:].all(1))
    whole = rng.permutation(whole)[:people]
    poses, yaws = lifted(points[whole], labeled[whole])
    content = mixture(poses, yaws, components, rank, rng)
    codes = (labeled * (1 << np.arange(17))).sum(1)
    level = np.digitize(labeled.sum(1), CLASS_EDGES)
    for index in range(4):
        values, counts = np.unique(codes[(level == index) & (codes > 0)], return_counts=True)
        top = np.argsort(-counts, kind="stable")[:patterns]
        content[f"patterns_{index}"] = values[top].astype(np.int32)
        content[f"pattern_counts_{index}"] = counts[top].astype(np.int32)
    arrays: dict[str, Any] = content
    with replacing(out) as file:
        np.savez_compressed(file, **arrays)
    Console().print(
        f"{out}: {number_of(len(poses), 'pose')}, {number_of(components, 'component')}, {out.stat().st_size / 1024:.0f} KiB"
    )


def lifted(points: np.ndarray, labeled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return poses (N, 39) within the limits, facing +z, and yaws (N,), of complete 2D poses."""
    aspects = lift.choose_aspect(points, labeled)
    poses, yaws = [], []
    with progress("lifting", len(points)) as advance:
        for xy, seen, aspect in zip(points, labeled, aspects, strict=True):
            advance()
            pose, known, scale = lift.lift(xy * [aspect, 1.0], seen)
            if scale <= 0:
                continue
            pose, yaw = lift.face_viewer(pose, known)
            poses.append(limit(pose).reshape(39))
            yaws.append(yaw)
    return np.array(poses), np.array(yaws)


def mixture(
    poses: np.ndarray,
    yaws: np.ndarray,
    components: int,
    rank: int,
    rng: np.random.Generator,
    rounds: int = 40,
) -> dict[str, np.ndarray]:
    """Cluster poses by k-means; fit a low-rank Gaussian and a histogram of yaws to each cluster."""
    centers = poses[rng.choice(len(poses), components, replace=False)]
    for _ in range(rounds):
        owner = ((centers**2).sum(1) - 2 * poses @ centers.T).argmin(1)
        centers = np.stack([
            poses[owner == c].mean(0) if (owner == c).any() else poses[rng.integers(len(poses))]
            for c in range(components)
        ])  # fmt: skip
    owner = ((centers**2).sum(1) - 2 * poses @ centers.T).argmin(1)
    means, factors, spreads, facing, weights = [], [], [], [], []
    for c in range(components):
        mine = poses[owner == c]
        if len(mine) < 3 * rank:
            continue
        mean = mine.mean(0)
        _, size, basis = np.linalg.svd(mine - mean, full_matrices=False)
        factor = basis[:rank] * (size[:rank] / np.sqrt(len(mine)))[:, None]
        rest = np.maximum(mine.var(0) - (factor**2).sum(0), 1e-5)
        bins = ((np.degrees(yaws[owner == c]) + 180) // 10).astype(int) % 36
        means.append(mean)
        factors.append(factor)
        spreads.append(np.sqrt(rest))
        facing.append(np.bincount(bins, minlength=36) + 0.02 * len(mine) / 36)
        weights.append(len(mine))
    return {
        "weights": np.array(weights, np.float32), "means": np.array(means, np.float16),
        "factors": np.array(factors, np.float16),
        "spreads": np.array(spreads, np.float16), "facing": np.array(facing, np.float32),
    }  # fmt: skip


if __name__ == "__main__":
    typer.run(fit)
