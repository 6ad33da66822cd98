"""The native module, as csrc/bindings registers it. Addresses are integers, 0 for none; `run` is threads or a stream."""

from collections.abc import Sequence
from typing import TypedDict

_Frame = tuple[int, int, int, int]  # address, bytes of a row, height, width

class _Operations:
    def crop(
        self, frames: Sequence[_Frame], boxes: int, frame_index: int, pixels: int, transforms: int, count: int,
        height: int, width: int, half: bool, mirrored: bool, bgr: bool, padding: float, scale: Sequence[float],
        bias: Sequence[float], run: int, /,
    ) -> None: ...  # fmt: skip
    def decode(
        self, heatmaps: int, mirrored: int, transforms: int, points: int, heat: int, averaged: int, count: int,
        keypoints: int, height: int, width: int, element: int, refine: int, shift_mirrored: bool, x: Sequence[float],
        y: Sequence[float], blur_sigma: float, pair: Sequence[int], run: int, /,
    ) -> None: ...  # fmt: skip
    def decode_simcc(
        self, x: int, y: int, mirrored_x: int, mirrored_y: int, transforms: int, points: int, heat: int, count: int,
        keypoints: int, x_bins: int, y_bins: int, element: int, bin_size: float, pair: Sequence[int], run: int, /,
    ) -> None: ...  # fmt: skip
    def map_features(
        self, heatmaps: int, mirrored: int, points: int, heat: int, boxes: int, frame_sizes: int, features: int,
        count: int, keypoints: int, height: int, width: int, element: int, shift_mirrored: bool, pair: Sequence[int],
        left: Sequence[int], run: int, /,
    ) -> None: ...  # fmt: skip
    def forest(
        self, features: int, splits: int, trees: int, leaves: int, values: int, count: int, feature_count: int,
        tree_count: int, run: int, /,
    ) -> None: ...  # fmt: skip
    def opinion_features(
        self, features: int, points: int, second_points: int, second_heat: int, boxes: int, out: int, count: int,
        keypoints: int, feature_count: int, sigmas: Sequence[float], left: Sequence[int], run: int, /,
    ) -> None: ...  # fmt: skip
    def score(
        self,
        values: int,
        visibility: int,
        box_scores: int,
        scores: int,
        count: int,
        keypoints: int,
        run: int,
        /,
    ) -> None: ...
    def oks(
        self, a: int, b: int, areas: int, visible: int, similarity: int, a_count: int, b_count: int, keypoints: int,
        sigmas: Sequence[float], run: int, /,
    ) -> None: ...  # fmt: skip
    def oks_nms(
        self, points: int, scores: int, areas: int, frame_index: int, kept: int, count: int, keypoints: int,
        threshold: float, sigmas: Sequence[float], run: int, /,
    ) -> None: ...  # fmt: skip
    def box_nms(
        self, boxes: int, scores: int, frame_index: int, kept: int, count: int, threshold: float, run: int, /
    ) -> None: ...

class _Cpu(_Operations):
    def instruction_set(self) -> str: ...
    def instruction_sets(self) -> list[str]: ...
    def use_instruction_set(self, name: str, /) -> None: ...

class _DeviceInfo(TypedDict):
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    total_bytes: int
    free_bytes: int

class _Graph:
    def __init__(self, stream: int, /) -> None: ...
    def launch(self, stream: int, /) -> None: ...
    @property
    def node_count(self) -> int: ...

class _Cuda(_Operations):
    Graph: type[_Graph]
    def device_count(self) -> int: ...
    def driver_version(self) -> int: ...
    def runtime_version(self) -> int: ...
    def device_info(self, device: int, /) -> _DeviceInfo: ...
    def device_of(self, address: int, /) -> int: ...
    def wait_for(self, stream: int, other: int, address: int, /) -> None: ...
    def begin_capture(self, stream: int, /) -> None: ...
    def abandon_capture(self, stream: int, /) -> None: ...

version: str
max_keypoints: int
max_tree_leaves: int
max_blur_sigma: float
cpu: _Cpu  # a submodule

# Only where the CUDA half was built.
cuda: _Cuda  # a submodule
cuda_version: str
cuda_architectures: str
