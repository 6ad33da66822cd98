"""Person boxes from a detector exported to ONNX: YOLOX-style raw outputs, or end-to-end exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oaks import onnx_file
from oaks.errors import ArgumentError, BackendUnavailable, BundleError

_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
_GRAY = 114
_SETTINGS = {"color": 1, "mean": 3, "std": 3, "size": 2, "overlap": 1}  # how many values each has


class Detector:
    """Finds people in pictures, on ONNX Runtime's CPU provider.

    The picture is scaled to fit the network's input with its aspect kept, at the top left, grey beyond it.
    Outputs are told apart by their shapes:

    - one output (1, A, 5 + classes), A being the cells of the strides 8, 16, 32 (and 64): YOLOX before its
      grid is decoded (Ge et al., 2021): x, y, width, height, objectness, class probabilities;
    - boxes (N, 4), scores (N,) and labels (N,); or boxes with their scores (N, 5) and labels (N,); or rows of
      x1, y1, x2, y2, score, label (N, 6); with or without a batch axis of 1, in any order, after suppression.

    The network runs once on grey when it is loaded, so that one with other outputs is refused at once.

    Args:
        path: the ONNX file.
        threshold: least score of a box that counts.
        overlap: intersection over union above which the worse of two boxes is suppressed; only for YOLOX's
            raw outputs.
        person: the class index of a person: 0 in YOLOX, 1 in exports that count the background.
        color: channel order that the network takes.
        mean, std: in that order, on the 0-255 scale; YOLOX takes grey levels as they are.
        size: (width, height) of the input, if the file leaves it open.
        threads: CPU threads; None: all cores.

    Attributes:
        path, threshold, overlap, person, size: as above.
        description: for the header of results.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: the file is damaged, the network's outputs are none of those above, or an argument does
            not fit.
        BackendUnavailable: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threshold: float = 0.3,
        overlap: float = 0.65,
        person: int = 0,
        color: str = "bgr",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: tuple[int, int] = (640, 640),
        threads: int | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailable(
                f"a detector needs ONNX Runtime: {error}; `pip install onnxruntime`"
            ) from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"detector: no such file: {path}")
        for name, value in (("threshold", threshold), ("overlap", overlap)):
            if not 0 <= value <= 1:
                raise ArgumentError(f"{name}: a number from 0 to 1 wanted, got {value!r}")
        if color not in ("bgr", "rgb"):
            raise ArgumentError(f"color: 'bgr' or 'rgb' wanted, got {color!r}")
        for name, values, count in (("mean", mean, 3), ("std", std, 3), ("size", size, 2)):
            if np.shape(values) != (count,) or (name != "mean" and min(values) <= 0):
                kind = "numbers" if name == "mean" else "positive numbers"
                raise ArgumentError(f"{name}: {count} {kind} wanted, got {values!r}")
        self.path, self.threshold, self.overlap, self.person = Path(path), threshold, overlap, person
        self._color = color
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        try:
            content = onnx_file.read(path)
        except BundleError as error:
            raise ArgumentError(f"detector: {error}") from error
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArgumentError(f"detector: {path}: ONNX Runtime cannot load it: {error}") from error
        self._input, self.size = self._read_input(size)
        self.description = (
            f"detector: {self.path.name}, threshold {threshold}, overlap {overlap}, class {person}"
        )
        self.description += f", {self.size[0]}x{self.size[1]}"
        if (color, *mean, *std) != ("bgr", 0, 0, 0, 1, 1, 1):
            self.description += f", {color} with mean {_plain(mean)} and std {_plain(std)}"
        self.detect(np.full((*self.size[::-1], 3), _GRAY, np.uint8))

    def _read_input(self, size: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        """The input's name, and its (width, height)."""
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if (
            len(inputs) != 1
            or len(shape) != 4
            or shape[1] not in (3, "3")
            or inputs[0].type != "tensor(float)"
        ):
            came = [(node.name, node.type, node.shape) for node in inputs]
            raise ArgumentError(
                f"detector: {self.path}: one float32 input (1, 3, H, W) wanted, it has {came}"
            )
        height, width = shape[2:]
        known = isinstance(height, int) and isinstance(width, int)
        return inputs[0].name, (width, height) if known else size

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The people in a picture.

        Args:
            image: (H, W, 3) uint8 BGR.

        Returns:
            boxes (N, 4) float32 x1, y1, x2, y2 within the picture, and scores (N,) float32, best first.

        Raises:
            ArgumentError: the image does not fit, the network does not run, or its outputs are none of those known.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ArgumentError(f"image: (H, W, 3) of uint8 wanted, got {image.shape} of {image.dtype}")
        pixels, scale = self._letterbox(image)
        try:
            found = self._session.run(None, {self._input: pixels})
        except Exception as error:
            raise ArgumentError(f"detector: {self.path}: ONNX Runtime cannot run it: {error}") from error
        boxes, scores = self._read_outputs([np.asarray(value) for value in found])
        height, width = image.shape[:2]
        boxes = np.clip(boxes / np.tile(scale, 2), 0, [width, height, width, height]).astype(np.float32)
        kept = (scores >= self.threshold) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.argsort(-scores[kept], kind="stable")
        return boxes[kept][order], scores[kept][order].astype(np.float32)

    def _letterbox(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's input (1, 3, H, W), and input pixels per image pixel (x, y)."""
        import cv2

        width, height = self.size
        ratio = min(width / image.shape[1], height / image.shape[0])
        inner = (max(round(image.shape[1] * ratio), 1), max(round(image.shape[0] * ratio), 1))
        canvas = np.full((height, width, 3), _GRAY, np.uint8)
        canvas[: inner[1], : inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        if self._color == "rgb":
            canvas = canvas[..., ::-1]
        pixels = (canvas.astype(np.float32) - self._mean) / self._std
        scale = np.array([inner[0] / image.shape[1], inner[1] / image.shape[0]])
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), scale

    def _read_outputs(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) x1, y1, x2, y2 in input pixels, and scores (N,), of persons."""
        batched = any(value.ndim == 3 for value in outputs)
        flat = [value[0] if batched and value.shape[0] == 1 else value for value in outputs]
        if len(flat) == 1 and flat[0].ndim == 2:
            rows = flat[0]
            grid = _grid(self.size, len(rows))
            if rows.shape[1] > 5 + self.person and grid is not None:
                return self._decode_yolox(rows, *grid)
            if rows.shape[1] == 6:
                return self._persons(rows[:, :4], rows[:, 4], rows[:, 5])
        tables = [value for value in flat if value.ndim == 2 and value.shape[1] in (4, 5)]
        columns = [value for value in flat if value.ndim == 1]
        labels = [value for value in columns if value.dtype.kind in "iu"]
        scores = [value for value in columns if value.dtype.kind == "f"]
        if len(flat) == 3 and len(tables) == len(labels) == len(scores) == 1 and tables[0].shape[1] == 4:
            return self._persons(tables[0], scores[0], labels[0])
        if len(flat) == 2 and len(tables) == len(labels) == 1 and tables[0].shape[1] == 5:
            return self._persons(tables[0][:, :4], tables[0][:, 4], labels[0])
        shapes = [f"{value.dtype} {value.shape}" for value in outputs]
        raise ArgumentError(
            f"detector: {self.path}: outputs {shapes} are neither YOLOX's raw output nor boxes, scores and "
            "labels"
        )

    def _persons(
        self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        chosen = labels == self.person
        return boxes[chosen], scores[chosen]

    def _decode_yolox(
        self, rows: np.ndarray, cells: np.ndarray, strides: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Grid cells to boxes, and suppression of those that overlap a better one."""
        import cv2

        scores = rows[:, 4] * rows[:, 5 + self.person]
        kept = scores >= max(self.threshold, np.finfo(np.float32).tiny)
        rows, scores, cells, strides = rows[kept], scores[kept], cells[kept], strides[kept, None]
        centers = (rows[:, :2] + cells) * strides
        sizes = np.exp(rows[:, 2:4]) * strides
        corners = np.concatenate([centers - sizes / 2, sizes], axis=1)
        chosen = np.asarray(
            cv2.dnn.NMSBoxes(corners.tolist(), scores.tolist(), self.threshold, self.overlap), int
        ).reshape(-1)
        boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
        return boxes[chosen], scores[chosen]


def decode_centers(
    centers: np.ndarray,
    sizes: np.ndarray,
    offsets: np.ndarray,
    *,
    stride: int,
    threshold: float,
    overlap: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of one input from a detector's maps: peaks of the centers, each with the box beside it, then NMS.

    Args:
        centers: (1, h, w) logits.
        sizes: (2, h, w) width and height in input pixels.
        offsets: (2, h, w) x and y from the middle of the cell to that of the box, in input pixels.
        stride: input pixels per cell.
        threshold: least score.
        overlap: IoU above which the worse of two boxes is dropped.

    Returns:
        boxes (N, 4) float32 xyxy in input pixels, not cut to the input, and scores (N,) float32, best first.
    """
    from oaks import ops

    padded = np.pad(centers[0].astype(np.float32), 1, constant_values=-np.inf)
    middle = padded[1:-1, 1:-1]
    highest = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    highest = np.maximum(np.maximum(highest[:-2], highest[1:-1]), highest[2:])
    scores = 1 / (1 + np.exp(-middle))
    ys, xs = np.nonzero((middle >= highest) & (scores >= threshold))
    extents, scores = sizes[:, ys, xs].T.astype(np.float32), scores[ys, xs]
    middles = (np.stack([xs, ys], axis=1) + np.float32(0.5)) * stride + offsets[:, ys, xs].T
    boxes = np.concatenate([middles - extents / 2, middles + extents / 2], axis=1).astype(np.float32)
    usable = np.isfinite(boxes).all(axis=1)
    boxes, scores = boxes[usable], scores[usable].astype(np.float32)
    kept = ops.box_nms(boxes, scores, threshold=overlap)
    return boxes[kept], scores[kept]


def _plain(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _grid(size: tuple[int, int], rows: int) -> tuple[np.ndarray, np.ndarray] | None:
    """YOLOX's cells (A, 2) x, y and their strides (A,), if an output of that many rows is one."""
    width, height = size
    for strides in _STRIDES:
        if sum((width // stride) * (height // stride) for stride in strides) != rows:
            continue
        cells = [
            np.stack(np.meshgrid(np.arange(width // s), np.arange(height // s)), axis=2).reshape(-1, 2)
            for s in strides
        ]
        return np.concatenate(cells), np.repeat(strides, [len(level) for level in cells]).astype(np.float64)
    return None


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Arguments for Detector from texts such as "color=rgb", "mean=123.7,116.3,103.5" or "size=640,640".

    Raises:
        ArgumentError: a text is none of those, or its values are not as many numbers as are wanted.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in _SETTINGS:
            raise ArgumentError(
                f"detector-set: NAME=VALUE wanted, NAME one of {list(_SETTINGS)}, got {text!r}"
            )
        if name == "color":
            settings[name] = value
            continue
        try:
            numbers = [int(part) if name == "size" else float(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != _SETTINGS[name]:
            kind = "whole numbers" if name == "size" else "numbers"
            raise ArgumentError(
                f"detector-set: {name} takes {_SETTINGS[name]} {kind} with commas between, got {text!r}"
            )
        settings[name] = tuple(numbers) if len(numbers) > 1 else numbers[0]
    return settings


__all__ = ["Detector", "decode_centers", "read_settings"]
