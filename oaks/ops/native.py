"""The native functions of the CPU and of CUDA, and the number of CPU threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oaks import _native
from oaks.errors import ArgumentError, BackendUnavailable

if TYPE_CHECKING:
    from oaks._native import _Cuda, _Operations

cpu = _native.cpu
cuda: _Cuda | None = getattr(_native, "cuda", None)
max_keypoints = _native.max_keypoints
max_tree_leaves = _native.max_tree_leaves
max_blur_sigma = _native.max_blur_sigma


MAX_THREADS = 1024
"""Maximum threads of CPU operations."""


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_threads = min(_available_cores(), MAX_THREADS)


def set_threads(count: int) -> None:
    """Set the maximum number of threads of CPU operations. Results are bit-identical for any number.

    Raises:
        ArgumentError: count is not an integer from 1 to 1024.
    """
    global _threads
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_THREADS:
        raise ArgumentError(f"count must be an integer from 1 to {MAX_THREADS}, got {count!r}")
    _threads = count


def get_threads() -> int:
    """Return the maximum number of threads of CPU operations; by default, the cores that this process may use."""
    return _threads


def instruction_sets() -> list[str]:
    """Return the compiled instruction sets that this processor supports; the last is the default."""
    return cpu.instruction_sets()


def use_instruction_set(name: str) -> None:
    """Choose the instruction set of CPU operations; for comparisons and tests.

    Raises:
        ArgumentError: this build or this processor does not have it.
    """
    cpu.use_instruction_set(name)


def target(on_device: bool, stream: int) -> tuple[_Operations, int]:
    """Return the native functions for the CPU or the device, and their last argument: a thread count or a stream handle.

    Raises:
        BackendUnavailable: the arrays are on a device, and this build has no CUDA support or there is no device.
    """
    if not on_device:
        return cpu, _threads
    if cuda is None:
        raise BackendUnavailable(
            "these arrays lie on a CUDA device, but this build of oaks has no CUDA support; "
            "reinstall oaks with nvcc on the PATH, or pass NumPy arrays"
        )
    if cuda.device_count() == 0:
        raise BackendUnavailable(
            "these arrays lie on a CUDA device, but no device can be used here; "
            "install NVIDIA's driver, or a newer one (`oaks doctor` shows both versions)"
        )
    return cuda, stream
