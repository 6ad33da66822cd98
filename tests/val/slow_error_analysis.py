"""A naive implementation of the error analysis, keypoint by keypoint, with pycocotools' matching."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZES = [32**2, 1e5**2]


def curves(content, rows, skeleton, *, keep, threshold=0.75, landing="definition"):
    """Precision (101,) of the eight stages in order, and the number of keypoints of each kind."""
    sigma = skeleton.sigmas
    mirror = list(skeleton.mirror)
    people = {person["id"]: person for person in content["annotations"]}
    dets = []
    for row in rows:
        points = [tuple(row["keypoints"][3 * k : 3 * k + 2]) for k in range(len(sigma))]
        dets.append(
            {"id": len(dets) + 1, "image_id": row["image_id"], "points": points, "score": row["score"]}
        )
        dets[-1]["area"] = extent(dets[-1])

    def evaluate(oks):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                **content,
                "annotations": [
                    p | {"num_keypoints": p["num_keypoints"] if keep(p["num_keypoints"]) else 0}
                    for p in content["annotations"]
                ],
            }
            truth.createIndex()
            given = [{"image_id": d["image_id"], "category_id": 1, "score": d["score"]} for d in dets]
            for row, det in zip(given, dets, strict=True):
                row["keypoints"] = [v for point in det["points"] for v in (*point, 1)]
            found = truth.loadRes(given)
            for det in dets:
                found.anns[det["id"]]["area"] = det["area"]
            evaluation = COCOeval(truth, found, "keypoints")
            evaluation.params.kpt_oks_sigmas = np.array(sigma)
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [SIZES], ["all"]
            evaluation.params.iouThrs = np.array([oks])
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation

    def precision(evaluation):
        return evaluation.eval["precision"][0, :, 0, 0, 0]

    def ks(point, person, k, at):
        """Similarity of a point, as keypoint k, to keypoint `at` of a person; -1 if that is not labeled."""
        x, y, flag = person["keypoints"][3 * at : 3 * at + 3]
        if flag == 0:
            return -1.0
        squared = (point[0] - x) ** 2 + (point[1] - y) ** 2
        return math.exp(-squared / (2 * person["area"] * (2 * sigma[k]) ** 2))

    def oks_with(det, person):
        values = [ks(det["points"][k], person, k, k) for k in range(len(sigma))]
        return sum(v for v in values if v >= 0) / sum(v >= 0 for v in values)

    stages = [precision(evaluate(threshold))]
    kinds = dict.fromkeys(("good", "jitter", "inversion", "swap", "miss"), 0)
    corrections = []
    for entry in filter(None, evaluate(0.1).evalImgs):
        for det_id, person_id, ignored in zip(
            entry["dtIds"], entry["dtMatches"][0], entry["dtIgnore"][0], strict=True
        ):
            if person_id == 0 or people[int(person_id)]["num_keypoints"] == 0:
                continue
            own, det = people[int(person_id)], dets[det_id - 1]
            others = [
                p for p in content["annotations"] if p["image_id"] == own["image_id"] and p["id"] != own["id"]
            ]
            for k in range(len(sigma)):
                if own["keypoints"][3 * k + 2] == 0:
                    continue
                point = det["points"][k]
                candidates = [("own", ks(point, own, k, k)), ("inversion", ks(point, own, k, mirror[k]))]
                for other in others:
                    for at in (k, mirror[k]):
                        candidates.append(("swap", ks(point, other, k, at)))
                kind, m = max(candidates, key=lambda candidate: candidate[1])
                if m < 0.5:
                    kind, target = "miss", 0.5
                elif kind == "own":
                    kind, target = ("jitter", 0.85) if m < 0.85 else ("good", None)
                else:
                    target = m
                kinds[kind] += not ignored
                if kind != "good":
                    width = sigma[k] * (2 if landing == "definition" else 1)
                    distance = math.sqrt(-2 * math.log(min(target, 1.0)) * own["area"] * width**2)
                    x, y = own["keypoints"][3 * k : 3 * k + 2]
                    corrections.append((kind, det, k, (x + distance, y)))
    for stage in ("miss", "swap", "inversion", "jitter"):
        for kind, det, k, place in corrections:
            if kind == stage:
                det["points"][k] = place
        stages.append(precision(evaluate(threshold)))

    expected = [
        p
        for p in content["annotations"]
        if p["num_keypoints"] and keep(p["num_keypoints"]) and not p["iscrowd"] and p["area"] >= SIZES[0]
    ]
    for det in dets:
        near = [oks_with(det, p) for p in expected if p["image_id"] == det["image_id"]]
        det["score"] = max(near, default=0.0)
    for image in content["images"]:
        suppress([d for d in dets if d["image_id"] == image["id"]], sigma)
    last = evaluate(threshold)
    stages.append(precision(last))
    for entry in filter(None, last.evalImgs):
        entry["dtIgnore"] = np.logical_or(entry["dtIgnore"], entry["dtMatches"] == 0)
    with contextlib.redirect_stdout(io.StringIO()):
        last.accumulate()
    stages.append(precision(last))
    for entry in filter(None, last.evalImgs):
        unmatched = [g not in entry["dtMatches"][0] for g in entry["gtIds"]]
        entry["gtIgnore"] = np.logical_or(entry["gtIgnore"], unmatched)
    with contextlib.redirect_stdout(io.StringIO()):
        last.accumulate()
    stages.append(precision(last))
    return stages, kinds


def suppress(dets, sigma):
    """Soft suppression: in descending order, each detection lowers the scores of its duplicates."""
    waiting = list(dets)
    while waiting:
        best = max(waiting, key=lambda d: d["score"])
        waiting.remove(best)
        for other in waiting:
            area = (extent(best) + extent(other)) / 2 + np.spacing(1)
            values = [
                math.exp(-((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (2 * area * (2 * s) ** 2))
                for a, b, s in zip(best["points"], other["points"], sigma, strict=True)
            ]
            other["score"] *= math.exp(-((sum(values) / len(values)) ** 2) / 0.5)


def extent(det):
    xs, ys = zip(*det["points"], strict=True)
    return (max(xs) - min(xs)) * (max(ys) - min(ys))
