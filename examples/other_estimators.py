"""Write the poses of rtmlib, Ultralytics or MediaPipe as COCO keypoint results, which oaks.fit takes.

    from other_estimators import from_rtmlib
    rows += from_rtmlib(image_id, *Body()(image))
    oaks.coco_results.write_results("results.json", rows, {"estimator": "rtmpose-m", "decoder": "simcc"})

Each function takes what the library returns for one picture, and gives one row for each person: the keypoints with
the estimator's own score of each, and box and box score where the library gives them. None needs the library itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

PERSON = 1
"""COCO's category of a person."""
MEDIAPIPE = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Which of MediaPipe's 33 landmarks are COCO's 17 keypoints, in COCO's order."""


def rows_of(
    image_id: int, keypoints: Any, scores: Any, boxes: Any = None, box_scores: Any = None
) -> list[dict[str, Any]]:
    """Rows of N people.

    Args:
        image_id: of the picture in the annotations.
        keypoints: (N, K, 2) pixels.
        scores: (N, K) scores of the keypoints.
        boxes: (N, 4) x1, y1, x2, y2, or None.
        box_scores: (N,), or None.
    """
    points, heat = np.asarray(keypoints, float), np.asarray(scores, float)
    rows = []
    for n in range(len(points)):
        flat = np.concatenate([points[n], heat[n, :, None]], axis=1).ravel()
        row = {
            "image_id": image_id,
            "category_id": PERSON,
            "keypoints": flat.tolist(),
            "score": float(heat[n].mean()),
        }
        if boxes is not None:
            x1, y1, x2, y2 = np.asarray(boxes[n], float).tolist()
            row["box"] = [x1, y1, x2 - x1, y2 - y1]
        if box_scores is not None:
            row["box_score"] = float(box_scores[n])
            row["score"] *= row["box_score"]
        rows.append(row)
    return rows


def from_rtmlib(image_id: int, keypoints: Any, scores: Any, boxes: Any = None) -> list[dict[str, Any]]:
    """Rows of what a pose model of rtmlib returns: keypoints (N, K, 2) and scores (N, K).

    `boxes` are those of its detector; pass them if you call detector and pose model yourself.
    """
    return rows_of(image_id, keypoints, scores, boxes)


def from_ultralytics(image_id: int, result: Any) -> list[dict[str, Any]]:
    """Rows of one entry of what a YOLO pose model of Ultralytics returns."""
    data, boxes = _array(result.keypoints.data), result.boxes
    if not len(data):
        return []
    return rows_of(image_id, data[..., :2], data[..., 2], _array(boxes.xyxy), _array(boxes.conf))


def from_mediapipe(image_id: int, poses: Any, width: int, height: int) -> list[dict[str, Any]]:
    """Rows of the pose_landmarks that MediaPipe's PoseLandmarker returns, for a picture of a size in pixels.

    The score of a keypoint is the landmark's visibility. There are no boxes.
    """
    people = [
        [(mark.x * width - 0.5, mark.y * height - 0.5, mark.visibility) for mark in pose] for pose in poses
    ]
    if not people:
        return []
    data = np.array(people, float)[:, list(MEDIAPIPE)]
    return rows_of(image_id, data[..., :2], data[..., 2])


def _array(value: Any) -> np.ndarray:
    """A NumPy array of an array or of a torch tensor on any device."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)
