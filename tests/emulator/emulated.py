"""oaks.ops on emulated blocks: NumPy in and NumPy out, and in between the whole path of device arrays."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import numpy as np

from oaks import ops

MARK = -77
"""What outputs hold before an operation, so that what it does not write is seen."""


class OnDevice:
    """A host array that says of itself that it lies on a device."""

    def __init__(self, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, not self.array.flags.writeable),
            "version": 3,
        }


def put(value: Any, dtype: Any = None) -> OnDevice | None:
    """A copy in memory of exactly its size."""
    return None if value is None else OnDevice(np.array(value, dtype, order="C", copy=True))


def marked(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An output that nothing has been written to."""
    return np.full(shape, MARK, dtype)


class EmulatedOps:
    """The operations by their names in oaks.ops. Each call takes the next order of threads, and must leave no report.

    Attributes:
        native: the emulated native module.
        orders: (order, seed) for call after call.
    """

    def __init__(self, native: ModuleType) -> None:
        self.native = native
        order = native.Order
        self.orders = itertools.cycle(
            [(order.ascending, 0), (order.shuffled, 1), (order.descending, 0), (order.shuffled, 2)]
        )

    def call(self, operation: Any, *arguments: Any, **keywords: Any) -> Any:
        """One operation on arrays that are OnDevice."""
        settings = self.native.settings()
        settings.order, settings.seed = next(self.orders)
        result = operation(*arguments, **keywords)
        reports = self.native.take_reports()
        assert not reports, "\n".join(reports)
        return result

    def crop(self, frames: Any, boxes: Any, *, size: Any, mirrored: bool = False, dtype: Any = "float32",
             out: Any = None, frame_index: Any = None, **keywords: Any) -> ops.Crops:  # fmt: skip
        """As ops.crop."""
        frames = [put(f) for f in frames] if isinstance(frames, list | tuple) else put(frames)
        boxes = put(boxes, np.float32)
        count = len(boxes.array)
        shape = (2 * count if mirrored else count, 3, size[1], size[0])
        if out is None:
            out = marked(shape, dtype), marked((count, 2, 3), np.float32)
        self.call(ops.crop, frames, boxes, size=size, mirrored=mirrored, dtype=out[0].dtype,
                  frame_index=put(frame_index, np.int32), out=tuple(map(OnDevice, out)), **keywords)  # fmt: skip
        return ops.Crops(*out)

    def decode(self, heatmaps: Any, mirrored: Any = None, *, transforms: Any = None, average: bool = False,
               out: Any = None, **keywords: Any) -> ops.Decoded:  # fmt: skip
        """As ops.decode."""
        in_place = out is not None and out[2] is heatmaps
        maps = put(heatmaps)
        shape = maps.array.shape
        points, heat, averaged = out or (None, None, None)
        points = marked((*shape[:2], 2), np.float32) if points is None else points
        heat = marked(shape[:2], np.float32) if heat is None else heat
        if averaged is None and average:
            averaged = marked(shape, maps.array.dtype)
        target = maps if in_place else averaged if averaged is None else OnDevice(averaged)
        self.call(ops.decode, maps, put(mirrored), transforms=put(transforms, np.float32),
                  average=average, out=(OnDevice(points), OnDevice(heat), target), **keywords)  # fmt: skip
        if in_place:
            heatmaps[...] = maps.array
        return ops.Decoded(points, heat, averaged)

    def score(self, similarity: Any, visibility: Any, box_scores: Any = None, *, out: Any = None) -> Any:
        """As ops.score."""
        return self._score(ops.score, out, similarity, visibility, box_scores)

    def conventional_score(self, heat: Any, box_scores: Any = None, *, out: Any = None) -> Any:
        """As ops.conventional_score."""
        return self._score(ops.conventional_score, out, heat, box_scores)

    def _score(self, operation: Any, out: Any, *arrays: Any) -> Any:
        out = marked((len(arrays[0]),), np.float32) if out is None else out
        self.call(operation, *[put(array, np.float32) for array in arrays], out=OnDevice(out))
        return out

    def oks(self, a: Any, b: Any, *, areas: Any, sigmas: Any, visible: Any = None, out: Any = None) -> Any:
        """As ops.oks."""
        out = marked((len(a), len(b)), np.float32) if out is None else out
        seen = None if visible is None else np.asarray(visible) != 0
        self.call(ops.oks, put(a, np.float32), put(b, np.float32), areas=put(areas, np.float32), sigmas=sigmas,
                  visible=put(seen), out=OnDevice(out))  # fmt: skip
        return out

    def nms(self, points: Any, scores: Any, *, areas: Any, frame_index: Any = None, out: Any = None,
            **keywords: Any) -> Any:  # fmt: skip
        """As ops.nms: only the kept poses come back, and the rest of the output is -1."""
        out = marked((len(points),), np.int64) if out is None else out
        self.call(ops.nms, put(points, np.float32), put(scores, np.float32), areas=put(areas, np.float32),
                  frame_index=put(frame_index, np.int32), out=OnDevice(out), **keywords)  # fmt: skip
        kept = int((out >= 0).sum())
        assert (out[kept:] == -1).all()
        return out[:kept]
