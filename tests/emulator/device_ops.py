"""oaks.ops on device arrays with a NumPy interface: inputs are uploaded, outputs downloaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from oaks import ops

MARK = -77
"""Value of outputs before an operation; shows which elements it has not written."""


def marked(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An output filled with MARK."""
    return np.full(shape, MARK, dtype)


class DeviceOps(ABC):
    """The operations, named as in oaks.ops, for the device of a subclass."""

    @abstractmethod
    def upload(self, array: np.ndarray) -> Any:
        """Copy to the device, into memory of exactly the array's size."""

    @abstractmethod
    def download(self, array: Any) -> np.ndarray:
        """Wait for all work and copy to the host."""

    def call(self, operation: Any, *arguments: Any, **keywords: Any) -> None:
        """Run an operation on device arrays."""
        operation(*arguments, **keywords)

    def put(self, value: Any, dtype: Any = None) -> Any:
        """Upload; None stays None."""
        return None if value is None else self.upload(np.array(value, dtype, order="C", copy=True))

    def run(self, operation: Any, inputs: tuple, out: tuple[np.ndarray | None, ...], **keywords: Any) -> None:
        """Run an operation and copy its outputs into host arrays; inputs are on the device, also those that are outputs."""
        on_device = [array if array is None else self.upload(array) for array in out]
        single = len(on_device) == 1
        self.call(operation, *inputs, out=on_device[0] if single else tuple(on_device), **keywords)
        for host, device in zip(out, on_device, strict=True):
            if host is not None:
                host[...] = self.download(device)

    def crop(self, frames: Any, boxes: Any, *, size: Any, mirrored: bool = False, dtype: Any = "float32",
             out: Any = None, frame_index: Any = None, **keywords: Any) -> ops.Crops:  # fmt: skip
        """As ops.crop."""
        frames = [self.put(f) for f in frames] if isinstance(frames, list | tuple) else self.put(frames)
        count = len(boxes)
        shape = (2 * count if mirrored else count, 3, size[1], size[0])
        out = out or (marked(shape, dtype), marked((count, 2, 3), np.float32))
        index = self.put(frame_index, np.int32)
        keywords |= {"size": size, "mirrored": mirrored, "dtype": out[0].dtype, "frame_index": index}
        self.run(ops.crop, (frames, self.put(boxes, np.float32)), out, **keywords)
        return ops.Crops(*out)

    def decode(self, heatmaps: Any, mirrored: Any = None, *, transforms: Any = None, average: bool = False,
               out: Any = None, **keywords: Any) -> ops.Decoded:  # fmt: skip
        """As ops.decode."""
        shape, dtype = heatmaps.shape, heatmaps.dtype
        points, heat, averaged = out or (None, None, None)
        points = marked((*shape[:2], 2), np.float32) if points is None else points
        heat = marked(shape[:2], np.float32) if heat is None else heat
        averaged = marked(shape, dtype) if averaged is None and average else averaged
        keywords |= {"transforms": self.put(transforms, np.float32), "average": average}
        inputs = self.put(heatmaps), self.put(mirrored)
        if averaged is heatmaps:
            on_device = self.upload(points), self.upload(heat), inputs[0]
            self.call(ops.decode, *inputs, out=on_device, **keywords)
            for host, device in zip((points, heat, averaged), on_device, strict=True):
                host[...] = self.download(device)
        else:
            self.run(ops.decode, inputs, (points, heat, averaged), **keywords)
        return ops.Decoded(points, heat, averaged)

    def score(self, similarity: Any, visibility: Any, box_scores: Any = None, *, out: Any = None) -> Any:
        """As ops.score."""
        return self._score(ops.score, out, similarity, visibility, box_scores)

    def conventional_score(self, heat: Any, box_scores: Any = None, *, out: Any = None) -> Any:
        """As ops.conventional_score."""
        return self._score(ops.conventional_score, out, heat, box_scores)

    def _score(self, operation: Any, out: Any, *arrays: Any) -> Any:
        out = marked((len(arrays[0]),), np.float32) if out is None else out
        self.run(operation, tuple(self.put(array, np.float32) for array in arrays), (out,))
        return out

    def oks(self, a: Any, b: Any, *, areas: Any, sigmas: Any, visible: Any = None, out: Any = None) -> Any:
        """As ops.oks."""
        out = marked((len(a), len(b)), np.float32) if out is None else out
        seen = None if visible is None else np.asarray(visible) != 0
        keywords = {"areas": self.put(areas, np.float32), "sigmas": sigmas, "visible": self.put(seen)}
        self.run(ops.oks, (self.put(a, np.float32), self.put(b, np.float32)), (out,), **keywords)
        return out

    def oks_nms(self, points: Any, scores: Any, *, areas: Any, frame_index: Any = None, out: Any = None,
            **keywords: Any) -> Any:  # fmt: skip
        """As ops.oks_nms: returns the kept indices; checks that the rest of the output is -1."""
        keywords |= {"areas": self.put(areas, np.float32), "frame_index": frame_index}
        return self._suppress(ops.oks_nms, points, scores, out, **keywords)

    def box_nms(self, boxes: Any, scores: Any, *, out: Any = None, **keywords: Any) -> Any:
        """As ops.box_nms: returns the kept indices; checks that the rest of the output is -1."""
        return self._suppress(ops.box_nms, boxes, scores, out, **keywords)

    def decode_simcc(
        self, x: Any, y: Any, *, mirrored: Any = None, transforms: Any = None, **keywords: Any
    ) -> Any:
        """As ops.decode_simcc."""
        out = marked((*x.shape[:2], 2), np.float32), marked(x.shape[:2], np.float32)
        mirrored = None if mirrored is None else tuple(map(self.put, mirrored))
        keywords |= {"mirrored": mirrored, "transforms": self.put(transforms, np.float32)}
        self.run(ops.decode_simcc, (self.put(x), self.put(y)), out, **keywords)
        return ops.DecodedSimcc(*out)

    def pose_features(self, points: Any, heat: Any, *, boxes: Any, frame_sizes: Any, **keywords: Any) -> Any:
        """As ops.pose_features."""
        names = ops.feature_names(points.shape[1], maps=False)
        inputs = self.put(points, np.float32), self.put(heat, np.float32)
        return self._features(ops.pose_features, inputs, points.shape, names, boxes, frame_sizes, keywords)

    def map_features(self, heatmaps: Any, mirrored: Any = None, *, points: Any, boxes: Any, frame_sizes: Any,
                     **keywords: Any) -> Any:  # fmt: skip
        """As ops.map_features."""
        names = ops.feature_names(points.shape[1], mirrored=mirrored is not None)
        keywords |= {"points": self.put(points, np.float32)}
        inputs = self.put(heatmaps), self.put(mirrored)
        return self._features(ops.map_features, inputs, points.shape, names, boxes, frame_sizes, keywords)

    def _features(self, operation: Any, inputs: Any, shape: Any, names: Any, boxes: Any, frame_sizes: Any,
                  keywords: Any) -> Any:  # fmt: skip
        out = marked((*shape[:2], len(names)), np.float32)
        keywords |= {"boxes": self.put(boxes, np.float32), "frame_sizes": self.put(frame_sizes, np.float32)}
        self.run(operation, inputs, (out,), **keywords)
        return out

    def opinion_features(self, features: Any, points: Any, second_points: Any, second_heat: Any, *, boxes: Any,
                         **keywords: Any) -> Any:  # fmt: skip
        """As ops.opinion_features."""
        width = 0 if features is None else features.shape[2]
        out = marked((*points.shape[:2], width + len(ops.SECOND_FEATURES)), np.float32)
        inputs = tuple(
            self.put(array, np.float32) for array in (features, points, second_points, second_heat)
        )
        self.run(ops.opinion_features, inputs, (out,), boxes=self.put(boxes, np.float32), **keywords)
        return out

    def forest(self, features: Any, model: Any) -> Any:
        """As ops.forest, with the trees on the device."""
        out = marked(features.shape[:2], np.float32)
        self.run(ops.forest, (self.put(features, np.float32), model.to_device(self.put)), (out,))
        return out

    def _suppress(self, operation: Any, candidates: Any, scores: Any, out: Any, *, frame_index: Any = None,
                  **keywords: Any) -> Any:  # fmt: skip
        out = marked((len(candidates),), np.int64) if out is None else out
        inputs = self.put(candidates, np.float32), self.put(scores, np.float32)
        self.run(operation, inputs, (out,), frame_index=self.put(frame_index, np.int32), **keywords)
        kept = int((out >= 0).sum())
        assert (out[kept:] == -1).all()
        return out[:kept]
