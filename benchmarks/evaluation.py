"""Evaluation at the size of COCO val2017: our matching against pycocotools, and the error analysis.

    python benchmarks/evaluation.py [--quick] [--save]

6352 people in 2346 images with 20 detections each, all made up (seeded). The figures of all competitors are
compared before anything is timed. The machine's own ceiling is the time in which it computes as many
exponentials as there are keypoint similarities.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "val"))

import measure
import numpy as np
import synthetic
from rich.console import Console
from rich.table import Table

from oaks.val.bootstrap import resampled
from oaks.val.coco_eval import coco_metrics
from oaks.val.detections import Detections
from oaks.val.error_analysis import ErrorAnalysis, analyze
from oaks.val.ground_truth import LARGE, LARGEST, MEDIUM, OCCLUSION_CLASSES, GroundTruth
from oaks.val.interval import resample_images
from oaks.val.matching import ALL_SIZES, THRESHOLDS, match, precision_recall
from oaks.val.oks import Pairs, pairs

PEOPLE, IMAGES, PER_IMAGE, RESAMPLES = 6352, 2346, 20, 1000


def make_data(people: int, images: int) -> tuple[GroundTruth, Detections]:
    """So many people, some also without keypoints, and PER_IMAGE detections in every image."""
    content = synthetic.annotations(0, images=2 * images)
    keep, counted = set(), 0
    for image in content["images"]:
        if counted >= people or len(keep) == images:
            break
        keep.add(image["id"])
        counted += sum(
            p["image_id"] == image["id"] and p["num_keypoints"] > 0 for p in content["annotations"]
        )
    for key in ("images", "annotations"):
        name = "id" if key == "images" else "image_id"
        content[key] = [entry for entry in content[key] if entry[name] in keep]
    rows: dict[int, list[dict]] = {}
    for seed in range(4 * PER_IMAGE):
        for row in synthetic.detections(content, seed, noise=0.05 if seed == 0 else 0.3):
            rows.setdefault(row["image_id"], []).append(row)
    chosen = [row for found in rows.values() for row in found[:PER_IMAGE]]
    truth = GroundTruth.from_coco(content)
    return truth, Detections.from_rows(chosen, truth, box_source="detected")


def figures(truth: GroundTruth, found: Detections, between: Pairs) -> list[float]:
    """COCO's AP, APM and APL by our matching."""
    return [
        float(
            precision_recall(match(truth, between, found.image, found.scores, found.areas, sizes=sizes))[
                0
            ].mean()
        )
        for sizes in (ALL_SIZES, (MEDIUM, LARGE), (LARGE, LARGEST))
    ]


def all_classes(truth: GroundTruth, found: Detections) -> list[ErrorAnalysis]:
    """The error analysis of the four occlusion classes, from the pairing on."""
    between = pairs(truth, found.keypoints, found.image)
    return [
        analyze(
            truth, found.image, found.keypoints, found.scores, found.areas,
            among=truth.occlusion == c, found=between,
        )
        for c in range(len(OCCLUSION_CLASSES))
    ]  # fmt: skip


def main() -> None:
    """Compares, times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the people, three turns")
    parser.add_argument("--save", action="store_true", help="write results/evaluation.json")
    options = parser.parse_args()
    part = 10 if options.quick else 1
    truth, found = make_data(PEOPLE // part, IMAGES // part)
    between = pairs(truth, found.keypoints, found.image)
    arrays = (truth, found.image, found.keypoints, found.scores)
    theirs = coco_metrics(*arrays)
    ours, faster = figures(truth, found, between), coco_metrics(*arrays, by="faster-coco-eval")
    assert np.allclose([theirs[key] for key in ("AP", "APM", "APL")], ours, rtol=0, atol=1e-12)
    assert np.allclose(list(theirs.values()), list(faster.values()), rtol=0, atol=1e-12)

    matches = match(truth, between, found.image, found.scores, found.areas)
    draws = resample_images(len(truth.image_ids), RESAMPLES, 0)
    exponents = np.random.default_rng(0).random(between.ks.shape)
    timings = measure.interleaved(
        {
            "ten figures, pycocotools": lambda: coco_metrics(*arrays),
            "ten figures, faster-coco-eval": lambda: coco_metrics(*arrays, by="faster-coco-eval"),
            "AP, APM and APL, oaks": lambda: figures(
                truth, found, pairs(truth, found.keypoints, found.image)
            ),
            "error analysis, 4 classes, 8 curves": lambda: all_classes(truth, found),
            f"{RESAMPLES} resamples of AP": lambda: resampled(matches, draws, range(len(THRESHOLDS))),
            "ceiling: the exponentials alone": lambda: np.exp(-exponents),
        },
        turns=3,
        warm=0 if not options.quick else 1,
    )
    reference = timings["ten figures, pycocotools"].median
    table = Table(
        title=f"{int(truth.counted.sum())} people, {len(truth.image_ids)} images, {found.count} detections, "
        f"{between.ks.size / 1e6:.1f} million keypoint similarities; {measure.processor()}, one thread",
        title_justify="left",
    )
    for column in ("what", "seconds", "pycocotools / this"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, timing in timings.items():
        table.add_row(name, f"{timing.median:.2f}", f"{reference / timing.median:.1f}")
    Console(width=130).print(table)
    if options.save:
        machine = {"processor": measure.processor(), "threads": 1, "people": int(truth.counted.sum())}
        rows = [{"what": name, "seconds": round(t.median, 3)} for name, t in timings.items()]
        measure.save(ROOT / "benchmarks" / "results" / "evaluation.json", machine, rows)


if __name__ == "__main__":
    main()
