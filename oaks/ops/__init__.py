"""The native operations on crops, heatmaps, poses, boxes and scores.

NumPy in gives NumPy out, computed on the CPU. Objects with `__cuda_array_interface__` (PyCUDA, torch, CuPy)
are processed on their device and stream and need `out=`, so that memory has one owner; nothing touches the
host.
"""

from __future__ import annotations

from oaks.ops._arguments import array_stream, is_device_array
from oaks.ops._crop import Crops, crop
from oaks.ops._decode import Decoded, decode
from oaks.ops._decode_simcc import DecodedSimcc, decode_simcc
from oaks.ops._forest import Forest, ForestArrays, forest
from oaks.ops._map_features import (
    FLIP_FEATURES,
    JOINT_FEATURES,
    MAP_FEATURES,
    POSE_FEATURES,
    feature_names,
    map_features,
    pose_features,
)
from oaks.ops._nms import OKS_THRESHOLD, box_nms, oks_nms
from oaks.ops._oks import oks
from oaks.ops._opinion_features import SECOND_FEATURES, opinion_features
from oaks.ops._score import conventional_score, score
from oaks.ops.native import get_threads, instruction_sets, set_threads, use_instruction_set

__all__ = [
    "FLIP_FEATURES",
    "JOINT_FEATURES",
    "MAP_FEATURES",
    "OKS_THRESHOLD",
    "POSE_FEATURES",
    "SECOND_FEATURES",
    "Crops",
    "Decoded",
    "DecodedSimcc",
    "Forest",
    "ForestArrays",
    "array_stream",
    "box_nms",
    "conventional_score",
    "crop",
    "decode",
    "decode_simcc",
    "feature_names",
    "forest",
    "get_threads",
    "instruction_sets",
    "is_device_array",
    "map_features",
    "oks",
    "oks_nms",
    "opinion_features",
    "pose_features",
    "score",
    "set_threads",
    "use_instruction_set",
]
