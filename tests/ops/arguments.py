"""Valid arguments for every operation, and functions that make them invalid."""

from __future__ import annotations

import numpy as np

from oaks import ops

FILL = -77


class OnDevice:
    """A host array that claims to be on a CUDA device."""

    def __init__(self, array, **interface):
        self.array, self.interface = array, interface

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, False),
            "strides": None,
            "version": 3,
            **self.interface,
        }


class Case:
    """An operation, valid arguments for it, and outputs filled with FILL."""

    def __init__(self, operation, inputs, keywords, out):
        self.operation, self.inputs, self.keywords, self.out = operation, inputs, keywords, out

    def run(self, **changes):
        """Run the operation with some arguments changed; a callable computes the new value from the old one."""
        arguments = {**self.inputs, **self.keywords, "out": self.out}
        for name, change in changes.items():
            arguments[name] = change(arguments.get(name)) if callable(change) else change
        positional = [arguments.pop(name) for name in self.inputs]
        return self.operation(*positional, **arguments)

    def written(self):
        outputs = self.out if isinstance(self.out, tuple) else (self.out,)
        return any((array != FILL).any() for array in outputs if array is not None)


def filled(shape, dtype=np.float32):
    return np.full(shape, FILL, dtype)


def crop_case():
    return Case(
        ops.crop,
        {"frames": np.zeros((20, 30, 3), np.uint8), "boxes": np.float32([[1, 1, 9, 9], [2, 2, 20, 20]])},
        {"size": (8, 6), "mean": (1.0, 2.0, 3.0), "std": (1.0, 1.0, 1.0)},
        (filled((2, 3, 6, 8)), filled((2, 2, 3))),
    )


def decode_case():
    maps = np.zeros((2, 4, 6, 8), np.float32)
    return Case(
        ops.decode,
        {"heatmaps": maps, "mirrored": maps.copy()},
        {"flip_pairs": [(1, 2)], "crop_size": (32, 24), "average": True},
        (filled((2, 4, 2)), filled((2, 4)), filled((2, 4, 6, 8))),
    )


def score_case():
    ones = np.ones((3, 4), np.float32)
    return Case(
        ops.score,
        {"similarity": ones, "visibility": ones.copy(), "box_scores": np.ones(3, np.float32)},
        {},
        filled(3),
    )


def conventional_case():
    return Case(
        ops.conventional_score,
        {"heat": np.ones((3, 4), np.float32), "box_scores": np.ones(3, np.float32)},
        {},
        filled(3),
    )


def oks_case():
    return Case(
        ops.oks,
        {"a": np.zeros((2, 4, 2), np.float32), "b": np.zeros((3, 4, 2), np.float32)},
        {
            "areas": np.ones(3, np.float32),
            "sigmas": np.full(4, 0.1, np.float32),
            "visible": np.ones((3, 4), bool),
        },
        filled((2, 3)),
    )


def oks_nms_case():
    return Case(
        ops.oks_nms,
        {"points": np.zeros((3, 4, 2), np.float32), "scores": np.ones(3, np.float32)},
        {"areas": np.ones(3, np.float32), "sigmas": np.full(4, 0.1, np.float32)},
        filled(3, np.int64),
    )


def box_nms_case():
    return Case(
        ops.box_nms,
        {"boxes": np.float32([[0, 0, 2, 2]] * 3), "scores": np.ones(3, np.float32)},
        {"threshold": 0.5},
        filled(3, np.int64),
    )


def decode_simcc_case():
    x, y = np.zeros((2, 4, 16), np.float32), np.zeros((2, 4, 12), np.float32)
    return Case(
        ops.decode_simcc,
        {"x": x, "y": y},
        {"mirrored": (x.copy(), y.copy()), "flip_pairs": [(1, 2)]},
        (filled((2, 4, 2)), filled((2, 4))),
    )


def pose_people():
    """Points, boxes and frame sizes of two people of four keypoints."""
    return {
        "boxes": np.float32([[0, 0, 10, 20], [5, 5, 30, 40]]),
        "frame_sizes": np.float32([[40, 50], [40, 50]]),
        "flip_pairs": [(1, 2)],
    }


def pose_features_case():
    points, heat = np.zeros((2, 4, 2), np.float32), np.ones((2, 4), np.float32)
    size = len(ops.feature_names(4, maps=False))
    return Case(ops.pose_features, {"points": points, "heat": heat}, pose_people(), filled((2, 4, size)))


def map_features_case():
    maps = np.zeros((2, 4, 6, 8), np.float32)
    return Case(
        ops.map_features,
        {"heatmaps": maps, "mirrored": maps.copy()},
        {"points": np.zeros((2, 4, 2), np.float32), **pose_people()},
        filled((2, 4, len(ops.feature_names(4, mirrored=True)))),
    )


def opinion_features_case():
    points, heat = np.zeros((2, 4, 2), np.float32), np.ones((2, 4), np.float32)
    inputs = {"features": np.zeros((2, 4, 3), np.float32), "points": points, "second_points": points.copy(),
              "second_heat": heat}  # fmt: skip
    settings = {
        "boxes": pose_people()["boxes"],
        "sigmas": np.full(4, 0.1, np.float32),
        "flip_pairs": [(1, 2)],
    }
    return Case(ops.opinion_features, inputs, settings, filled((2, 4, 8)))


def forest_case():
    model = ops.Forest(3, roots=[0], feature=[1], threshold=[0], left=[-1], right=[-2], leaves=[1, 2])
    features = np.zeros((2, 4, 3), np.float32)
    return Case(ops.forest, {"features": features, "model": model}, {}, filled((2, 4)))


CASES = {
    "crop": crop_case,
    "decode": decode_case,
    "score": score_case,
    "conventional_score": conventional_case,
    "oks": oks_case,
    "oks_nms": oks_nms_case,
    "box_nms": box_nms_case,
    "decode_simcc": decode_simcc_case,
    "pose_features": pose_features_case,
    "map_features": map_features_case,
    "forest": forest_case,
    "opinion_features": opinion_features_case,
}


def entry(value, index=(0, 0)):
    """A change: the same array with `value` at `index`."""

    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def retyped(dtype):
    return lambda array: array.astype(dtype)


def part(position, change):
    """A change of one of several outputs."""

    def changed(outputs):
        outputs = list(outputs)
        outputs[position] = change(outputs[position])
        return tuple(outputs)

    return changed


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def stretched(array):
    """Every second value along the last axis of an array twice as large."""
    return np.repeat(array, 2, axis=-1)[..., ::2]
