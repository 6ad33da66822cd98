"""Compare ways to combine the score of a pose with that of its box, on people that no network has seen.

    python benchmarks/found_boxes.py BUNDLE --people NAME ANNOTATIONS IMAGES ... --fold 0 --folds 8 --store DIR

The annotation files hold the people that the pose network holds out (python -m oaks.training.data.held_out); NAME is
the source's name in the recipes. Trees are fitted to these people in their ground-truth boxes, out of fold by image.
The table ranks, by several scores, the poses in the boxes that the bundle's detector finds in the images that it holds
out (--fold of --folds). Each row has its own non-maximum suppression, as in `oaks val run`. The last columns compare the
score with the true OKS, which is 0 for a pose that fits no person; poses of people without labeled keypoints, whose OKS is
unknown, are left out there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from oaks import Detector, ops
from oaks.boxes import to_xywh
from oaks.bundle import Bundle
from oaks.coco import AREA_OF_BOX
from oaks.files import write_json
from oaks.fit import boosting
from oaks.fit.boosting import CHOSEN, Examples
from oaks.fit.heatmaps import described_people
from oaks.fit.people import People, joined_id, load_truth
from oaks.images import read_image
from oaks.progress import progress
from oaks.structured import read_json
from oaks.training.data.people import fold_of
from oaks.val.bootstrap import Contender, compare_rankings
from oaks.val.calibration import measure_calibration
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import pairs
from oaks.val.report.document import Cell, Column, Table
from oaks.val.report.writer import print_tables
from oaks.val.scores import ScoredDetections

Source = tuple[str, Path, Path]
"""Name in the recipes, annotations, folder of the images."""

WAYS = {
    "conventional × box score": ("conventional", 1.0),
    "conventional": ("conventional", 0.0),
    "OAKS × box score": ("oaks", 1.0),
    "OAKS × box score^1/2": ("oaks", 0.5),
    "OAKS × box score^1/4": ("oaks", 0.25),
    "OAKS": ("oaks", 0.0),
}
"""Score of a pose, and the power of the box score that it is multiplied by."""


def find(bundle: Bundle, source: Source, folds: int, fold: int, least: float, out: Path) -> tuple[Path, Path]:
    """Write the held-out images of a source twice: with their people, and with the boxes that the detector finds.

    Found boxes are written as people with made-up keypoints, so that described_people runs the pose network on them.
    """
    name, annotations, images = source
    paths = out / f"{name}.people.json", out / f"{name}.found.json"
    if all(path.is_file() for path in paths):
        return paths
    out.mkdir(parents=True, exist_ok=True)
    content = read_json(annotations, top=dict)
    ids = np.array([image["id"] for image in content["images"]])
    kept = set(ids[fold_of(name, ids, folds) == fold].tolist())
    chosen = [image for image in content["images"] if image["id"] in kept]
    people = [row for row in content["annotations"] if row["image_id"] in kept]
    detector, rows = Detector(bundle, backend="onnxruntime", threshold=least), []
    with progress(f"People in {name}", len(chosen)) as advance:
        for image in chosen:
            boxes, scores = detector.detect(read_image(images / image["file_name"]))
            for box, score in zip(to_xywh(boxes.astype(float)).tolist(), scores.tolist(), strict=True):
                x, y, width, height = box
                points = [[x + width * k / 17, y + height / 2, 2] for k in range(17)]
                rows.append({
                    "id": len(rows) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": 0, "bbox": box,
                    "area": AREA_OF_BOX * width * height, "num_keypoints": 17, "keypoints": np.ravel(points).tolist(),
                    "box_score": score,
                })  # fmt: skip
            advance()
    for path, annotated in zip(paths, (people, rows), strict=True):
        write_json(path, {**content, "images": chosen, "annotations": annotated})
    return paths


def predicted(known: People, features: np.ndarray, found: People, of_found: np.ndarray) -> np.ndarray:
    """Return the OAKS (N,) of the found poses, by trees that were fitted to the people of other images."""
    examples = Examples(
        np.ascontiguousarray(features, np.float32), known.similarity, known.labeled, known.images, known.known
    )
    images = np.unique(np.concatenate([known.images, found.images]))
    fold = dict(zip(images.tolist(), boosting.folds_of(images, CHOSEN.folds, CHOSEN.seed), strict=True))
    of_known, of_rows = (np.array([fold[i] for i in side.images.tolist()]) for side in (known, found))
    oaks = np.zeros(len(of_rows))
    for number in range(CHOSEN.folds):
        forests = boosting.fit_forests(examples, CHOSEN, of_known != number)
        rows = np.flatnonzero(of_rows == number)
        told = np.ascontiguousarray(of_found[rows], np.float32)
        oaks[rows] = ops.score(*(ops.forest(told, forest) for forest in forests))
    return oaks


def ranked(truth: GroundTruth, found: People, rows: np.ndarray, scores: np.ndarray) -> ScoredDetections:
    """Return the poses `rows` with the ground truth, after non-maximum suppression by their scores (N,)."""
    boxes, points = found.boxes, found.points.astype(np.float32)
    assert boxes is not None
    position = {int(image): n for n, image in enumerate(truth.image_ids)}
    image = np.array([position[i] for i in found.images.tolist()])
    kept = rows[ops.oks_nms(
        points[rows], scores[rows].astype(np.float32), areas=np.prod(boxes[rows, 2:] - boxes[rows, :2], axis=1),
        sigmas=truth.skeleton.sigmas, threshold=ops.OKS_THRESHOLD, frame_index=image[rows].astype(np.int32),
    )]  # fmt: skip
    described = [
        {
            "image_id": int(found.images[n]),
            "category_id": truth.category_id,
            "keypoints": np.c_[found.points[n], np.ones(found.points.shape[1])].ravel().tolist(),
            "score": float(scores[n]),
        }
        for n in np.sort(kept)
    ]
    return ScoredDetections.of(truth, Detections.from_rows(described, truth, box_source="detected"))


def expected_oks(measured: ScoredDetections) -> tuple[np.ndarray, np.ndarray]:
    """Return the OKS (N,) with the most similar labeled person, 0 for none, and whether it is known (N,)."""
    truth, detections = measured.truth, measured.detections
    found = pairs(truth, detections.keypoints, detections.image)
    counted = truth.counted[found.person]
    best = []
    for chosen in (counted, ~counted):
        most = np.zeros(detections.count)
        np.maximum.at(most, found.detection[chosen], found.oks[chosen])
        best.append(most)
    return best[0], ~((best[1] > best[0]) & (best[1] > 0.5))


def table_of(
    title: str,
    truth: GroundTruth,
    found: People,
    rows: np.ndarray,
    scores: dict[str, np.ndarray],
    resamples: int,
) -> Table:
    """Return a table of the AP by each score, its difference from the first, and the score's relation to the true OKS."""
    contenders = []
    for name, score in scores.items():
        measured = ranked(truth, found, rows, score)
        contenders.append(Contender(name, measured, measured.detections.scores))
    compared = {c.figure: c for c in compare_rankings(contenders, resamples=resamples)}
    lines: list[tuple[Cell, ...]] = []
    for n, contender in enumerate(contenders):
        oks, known = expected_oks(contender.measured)
        relation = measure_calibration(contender.ranks[known], oks[known])
        values = [compared[figure].values[n].value for figure in ("AP", "AP50", "AP75")]
        gain: Any = compared["AP"].differences[n - 1] if n else None
        lines.append((contender.name, *values, gain, relation.pearson, relation.ece))
    columns = (Column("Score", "text"), Column("AP"), Column("AP50"), Column("AP75"), Column("AP gain", "points"),
               Column("Pearson", "number"), Column("ECE", "number"))  # fmt: skip
    return Table("found-boxes", title, columns, tuple(lines))


def main() -> None:
    """Find, fit, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="Bundle with a pose network that gives heatmaps, and a detector.")
    parser.add_argument(
        "--people", nargs=3, action="append", required=True, metavar=("NAME", "ANNOTATIONS", "IMAGES")
    )
    parser.add_argument("--fold", type=int, default=0, help="Fold of the images that the detector holds out.")
    parser.add_argument("--folds", type=int, default=8, help="Number of the detector's folds.")
    parser.add_argument("--least", type=float, default=0.15, help="Smallest box score of the second table.")
    parser.add_argument("--store", type=Path, required=True, help="Folder of the boxes and the heatmaps.")
    parser.add_argument(
        "--known-store",
        type=Path,
        help="Store of an earlier fit to these people. Default: a folder in STORE.",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="Number of bootstrap resamples.")
    args = parser.parse_args()
    sources = [(name, Path(annotations), Path(images)) for name, annotations, images in args.people]
    bundle, images = Bundle.load(args.bundle), [folder for _, _, folder in sources]
    written = [find(bundle, s, args.folds, args.fold, args.least, args.store / "boxes") for s in sources]
    annotations, boxes = [people for people, _ in written], [found for _, found in written]
    known, features = described_people(
        bundle, [path for _, path, _ in sources], images, args.known_store or args.store / "known", None
    )
    found, of_found = described_people(bundle, boxes, images, args.store / "found", None)
    alone = {
        "conventional": found.heat.mean(axis=1),
        "oaks": predicted(known, features, found, of_found),
    }
    content = [read_json(path, top=dict)["annotations"] for path in boxes]
    stated = {joined_id(n, row["id"]): row["box_score"] for n, rows in enumerate(content) for row in rows}
    box = np.array([stated[int(i)] for i in found.truth.ids[found.detections.own]])
    truth = load_truth(annotations, bundle.skeleton)
    scores = {name: alone[score] * box**power for name, (score, power) in WAYS.items()}
    own = Detector(bundle, backend="onnxruntime").threshold
    for least in (own, args.least):
        rows = np.flatnonzero(box >= least)
        title = (f"{bundle.name}: {truth.counted.sum()} held-out people in {len(truth.image_ids)} images, "
                 f"{len(rows)} found boxes of at least {least:g}")  # fmt: skip
        print_tables([table_of(title, truth, found, rows, scores, args.resamples)])


if __name__ == "__main__":
    main()
