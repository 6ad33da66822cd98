"""Speed of the CUDA operations beside the device's memory bandwidth and torch operations. One run, one table.

    python benchmarks/gpu_operations.py [--quick] [--save] [--device cuda:0]

Needs an NVIDIA GPU, torch, and oaks built with nvcc on the PATH. Before anything is timed, every result is
compared with that of the CPU operation, in outputs that held other values before. Times come from CUDA events on one
stream. Before each timed call, more memory is read than the caches hold, which also keeps the device busy until the
call has been launched. It is read and not written: written lines would be written back while the kernel is timed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from baselines import KEYPOINTS, ORDER, PAIRS, boxes, heatmaps
from rich.console import Console

import oaks
from oaks import ops

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PEOPLE, HEIGHT, WIDTH = 256, 96, 72
FLUSH_BYTES, BANDWIDTH_BYTES = 2 << 30, 4 << 30
"""Less on a device with less memory."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}

Job = tuple[Callable[[], object], int]
"""What is timed, and the bytes that it must move; 0 where that is not the limit."""


class Bench:
    """Times jobs on a device and collects the table's rows."""

    def __init__(self, device: torch.device, turns: int) -> None:
        self.device, self.turns = device, turns
        self.rows: list[dict[str, Any]] = []
        self.bandwidth: dict[str, float] = {}
        memory = torch.cuda.get_device_properties(device).total_memory
        self.bandwidth_bytes = min(BANDWIDTH_BYTES, memory // 8)
        self.flush = torch.zeros(min(FLUSH_BYTES, memory // 16) // 4, dtype=torch.float32, device=device)
        self.sink = torch.zeros((), device=device)

    def time(self, jobs: dict[str, Job]) -> dict[str, measure.Timing]:
        """Return the seconds of each job, cold; the jobs take turns."""
        callables = {name: job for name, (job, _) in jobs.items()}
        return measure.interleaved(callables, turns=self.turns, warm=3, clock=self.cold_seconds)

    def cold_seconds(self, job: Callable[[], object]) -> float:
        """Return the seconds of a job on the device, after its caches were emptied."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.sum(self.flush, dim=0, out=self.sink)
        start.record()
        job()
        end.record()
        torch.cuda.synchronize(self.device)
        return start.elapsed_time(end) / 1e3

    def run(self, what: str, jobs: dict[str, Job], limit: str) -> None:
        """Add rows for jobs and the bytes that each must move.

        Args:
            what: the operation.
            jobs: by name; the first is ours, which ratios refer to.
            limit: bandwidth that rates are compared with: "copy", "read" or "write".
        """
        timings = self.time(jobs)
        ours = next(iter(timings.values())).median
        for name, timing in timings.items():
            self.add(what, name, timing, jobs[name][1], limit, timing.median / ours)

    def add(
        self, what: str, how: str, timing: measure.Timing, moved: int, limit: str, times_ours: float | None
    ) -> None:
        """Add a row of the table."""
        row = {
            "what": what, "how": how, "microseconds": timing.median * 1e6, "spread": timing.spread, "bytes": moved,
            "gigabytes_per_second": moved / timing.median / 1e9, "limit": limit,
            "of_limit": moved / timing.median / self.bandwidth[limit] if moved else None, "times_ours": times_ours,
        }  # fmt: skip
        self.rows.append(row)

    def measure_bandwidth(self) -> None:
        """Measure copies (bytes read and written), reads and writes of far more than the caches hold."""
        source = torch.randn(self.bandwidth_bytes // 4, device=self.device)
        target = torch.empty_like(source)
        jobs = {
            "copy": (lambda: target.copy_(source), 2 * source.nbytes),
            "read": (source.sum, source.nbytes),
            "write": (lambda: target.fill_(1.5), source.nbytes),
        }
        timings = self.time(jobs)
        self.bandwidth = {name: jobs[name][1] / timing.median for name, timing in timings.items()}
        for name, timing in timings.items():
            self.add("device memory", f"{name}, by torch", timing, jobs[name][1], name, None)


# ---- decode


def steps_towards(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return points (N, K, 2) from the flat indices of the highest and the second-highest cell."""
    x, y = (first % WIDTH).float(), (first // WIDTH).float()
    dx, dy = second % WIDTH - x, second // WIDTH - y
    quarter = 0.25 * torch.rsqrt(dx * dx + dy * dy)
    return torch.stack([x + dx * quarter, y + dy * quarter], dim=2)


def average_torch(maps: torch.Tensor, mirrored: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Return the flip average, in torch operations."""
    return 0.5 * (maps + mirrored[:, order].flip(3))


def decode_topk_torch(maps: torch.Tensor, mirrored: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Decode second_peak in torch operations: average, then topk."""
    flat = average_torch(maps, mirrored, order).flatten(2)
    top = flat.topk(2, dim=2).indices
    return steps_towards(top[..., 0], top[..., 1])


def decode_max_torch(maps: torch.Tensor, mirrored: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Decode second_peak in torch operations: average, argmax, leave that out, argmax."""
    flat = average_torch(maps, mirrored, order).flatten(2)
    first = flat.argmax(dim=2)
    second = flat.scatter(2, first.unsqueeze(2), -torch.inf).argmax(dim=2)
    return steps_towards(first, second)


def check_decode(maps: torch.Tensor, mirrored: torch.Tensor, order: torch.Tensor) -> None:
    """Check that points, heat and average equal the CPU's, and in fp32, where ties do not decide, torch's points too."""
    shape = maps.shape[:2]
    for refine in ("second_peak", "gradient", "dark", "none"):
        expected = ops.decode(
            maps.cpu().numpy(), mirrored.cpu().numpy(), flip_pairs=PAIRS, refine=refine, average=True
        )
        for in_place in (False, True):
            target = maps.clone() if in_place else torch.full_like(maps, torch.nan)
            points = torch.full((*shape, 2), torch.nan, device=maps.device)
            heat = torch.full(shape, torch.nan, device=maps.device)
            ops.decode(
                target if in_place else maps,
                mirrored,
                flip_pairs=PAIRS,
                refine=refine,
                out=(points, heat, target),
            )
            np.testing.assert_array_equal(heat.cpu().numpy(), expected.heat)
            np.testing.assert_array_equal(target.cpu().numpy(), expected.heatmaps)
            tolerance = 1e-3 if refine == "dark" else 0
            np.testing.assert_allclose(points.cpu().numpy(), expected.points, rtol=0, atol=tolerance)
        if refine == "second_peak" and maps.dtype == torch.float32:
            for competitor in (decode_topk_torch, decode_max_torch):
                torch.testing.assert_close(competitor(maps, mirrored, order), points, rtol=0, atol=1e-4)


def bench_decode(bench: Bench, name: str) -> None:
    """Time second_peak without the average, and with it elsewhere and in place; the other refinements; torch."""
    made = heatmaps(PEOPLE, HEIGHT, WIDTH, seed=0)
    maps, mirrored = (torch.from_numpy(array).to(bench.device, DTYPES[name]) for array in made)
    order = torch.from_numpy(np.asarray(ORDER)).to(bench.device)
    check_decode(maps, mirrored, order)
    points = torch.empty((PEOPLE, KEYPOINTS, 2), device=bench.device)
    heat = torch.empty((PEOPLE, KEYPOINTS), device=bench.device)
    elsewhere, in_place = torch.empty_like(maps), maps.clone()
    one = maps.nbytes

    def ours(
        source: torch.Tensor, target: torch.Tensor | None, refine: str = "second_peak"
    ) -> Callable[[], object]:
        return lambda: ops.decode(
            source, mirrored, flip_pairs=PAIRS, refine=refine, out=(points, heat, target)
        )

    jobs = {
        "oaks": (ours(maps, None), 2 * one),
        "oaks, average elsewhere": (ours(maps, elsewhere), 3 * one),
        "oaks, average in place": (ours(in_place, in_place), 3 * one),
        "oaks, gradient": (ours(maps, None, "gradient"), 2 * one),
        "oaks, dark": (ours(maps, None, "dark"), 2 * one),
        "torch, topk": (lambda: decode_topk_torch(maps, mirrored, order), 2 * one),
        "torch, argmax twice": (lambda: decode_max_torch(maps, mirrored, order), 2 * one),
    }
    what = f"decode {name} {PEOPLE}x{KEYPOINTS}x{HEIGHT}x{WIDTH}"
    averaging = {how: job for how, job in jobs.items() if "average" in how}
    # Without the average, nothing large is written, so the rate is compared with that of reading.
    bench.run(what, {how: job for how, job in jobs.items() if how not in averaging}, "read")
    bench.run(f"{what}, averaged maps kept", averaging, "copy")


# ---- crop


def people(count: int, frame_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 1080p frames of noise, boxes 120 to 900 pixels high in them, and the frame of each box."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (frame_count, 1080, 1920, 3), np.uint8)
    found = boxes(random, count, (1920, 1080), (120, 900))
    return frames, found, np.sort(random.integers(0, frame_count, count)).astype(np.int32)


def bench_crop(bench: Bench, name: str, size: tuple[int, int]) -> None:
    """Time crops and mirrored crops of PEOPLE from 16 frames."""
    width, height = size
    frames, given, index = people(PEOPLE, 16)
    arguments = {"size": size, "mean": MEAN, "std": STD, "mirrored": True}
    on_device = [torch.from_numpy(array).to(bench.device) for array in (frames, given, index)]
    pixels = torch.full((2 * PEOPLE, 3, height, width), torch.nan, dtype=DTYPES[name], device=bench.device)
    transforms = torch.full((PEOPLE, 2, 3), torch.nan, device=bench.device)

    def ours() -> object:
        return ops.crop(
            on_device[0], on_device[1], frame_index=on_device[2], out=(pixels, transforms), **arguments
        )

    ours()
    dtype = str(DTYPES[name]).removeprefix("torch.")
    expected = ops.crop(frames, given, frame_index=index, dtype=dtype, **arguments)
    tolerance = 1e-4 if name == "fp32" else 4e-3
    np.testing.assert_array_equal(transforms.cpu().numpy(), expected.transforms)
    for n in range(2 * PEOPLE):
        np.testing.assert_allclose(pixels[n].cpu().numpy(), expected.pixels[n], rtol=0, atol=tolerance)
    assert torch.equal(pixels[PEOPLE:], pixels[:PEOPLE].flip(3))

    jobs = {
        "oaks": (ours, pixels.nbytes),
        "writing as many bytes, by torch": (lambda: pixels.fill_(1.0), pixels.nbytes),
    }
    bench.run(f"crop {name} {PEOPLE} from 1080p, {width}x{height}, and mirrored", jobs, "write")


# ---- what is bound by launches


def bench_small(bench: Bench) -> None:
    """One person, and the operations on a few numbers each: what a launch costs."""
    device = bench.device
    maps, mirrored = heatmaps(1, torch.float32, device)
    points, heat = torch.empty((1, KEYPOINTS, 2), device=device), torch.empty((1, KEYPOINTS), device=device)
    frames, boxes, _ = people(1, 1)
    frame, box = torch.from_numpy(frames[0]).to(device), torch.from_numpy(boxes).to(device)
    pixels, transforms = torch.empty((2, 3, 384, 288), device=device), torch.empty((1, 2, 3), device=device)
    poses = torch.rand((PEOPLE, KEYPOINTS, 2), device=device) * 400
    values, areas = torch.rand((PEOPLE, KEYPOINTS), device=device), torch.full((PEOPLE,), 9e3, device=device)
    scores, similarity = torch.empty(PEOPLE, device=device), torch.empty((PEOPLE, PEOPLE), device=device)
    kept = torch.empty(PEOPLE, dtype=torch.int64, device=device)
    of_frame = torch.arange(PEOPLE, dtype=torch.int32, device=device) // 16
    pair = {"areas": areas, "sigmas": np.float32(oaks.COCO17.sigmas)}
    jobs = {
        "decode, one person": lambda: ops.decode(maps, mirrored, flip_pairs=PAIRS, out=(points, heat, None)),
        "crop, one person": lambda: ops.crop(
            frame, box, size=(288, 384), mean=MEAN, std=STD, mirrored=True, out=(pixels, transforms)
        ),
        f"score, {PEOPLE} people": lambda: ops.score(values, values, out=scores),
        f"oks, {PEOPLE} with {PEOPLE}": lambda: ops.oks(poses, poses, out=similarity, **pair),
        f"nms, {PEOPLE} in one frame": lambda: ops.oks_nms(poses, scores, out=kept, **pair),
        f"nms, {PEOPLE} in 16 frames": lambda: ops.oks_nms(
            poses, scores, frame_index=of_frame, out=kept, **pair
        ),
    }
    for name, job in jobs.items():
        bench.run(name, {"oaks": (job, 0)}, "copy")


def machine(device: torch.device, bench: Bench) -> dict[str, object]:
    """Return the machine and the versions that the figures belong to."""
    from oaks import _native

    info = _native.cuda.device_info(device.index or 0)
    asked = f"nvidia-smi --query-gpu=driver_version --format=csv,noheader -i {device.index or 0}".split()
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        driver = "unknown"
    return {
        "device": info["name"],
        "capability": list(info["capability"]),
        "driver": driver,
        "driver_cuda": _native.cuda.driver_version(),
        "built_with": _native.cuda_version,
        "torch": torch.__version__,
        "oaks": oaks.__version__,
        "gigabytes_per_second": {name: value / 1e9 for name, value in bench.bandwidth.items()},
    }


def show(bench: Bench, about: dict[str, object]) -> None:
    """Print the table."""
    table = measure.operations_table(
        "CUDA operations, cold",
        f"{about['device']}, driver {about['driver']}, nvcc {about['built_with']}, torch {about['torch']}",
        bench.rows,
        {
            "operation": lambda row: row["what"],
            "how": lambda row: row["how"],
            "µs": lambda row: f"{row['microseconds']:.1f}",
            "±": lambda row: f"{row['spread']:.1%}",
            "GB/s": lambda row: f"{row['gigabytes_per_second']:.0f}" if row["bytes"] else "",
            "of bandwidth": lambda row: f"{row['of_limit']:.0%} {row['limit']}" if row["bytes"] else "",
            "time, ours = 1": lambda row: "" if row["times_ours"] is None else f"{row['times_ours']:.2f}",
        },
    )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/gpu_operations.json")
    parser.add_argument("--device", default="cuda:0")
    options = parser.parse_args()
    from oaks import _native

    if not hasattr(_native, "cuda"):
        sys.exit("this build of oaks has no CUDA support; reinstall it with nvcc on the PATH")
    if not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device")
    device = torch.device(options.device)
    torch.cuda.set_device(device)

    bench = Bench(device, turns=9 if options.quick else 31)
    bench.measure_bandwidth()
    for name in DTYPES:
        bench_decode(bench, name)
    for size in ((192, 256), (288, 384)):
        for name in DTYPES:
            bench_crop(bench, name, size)
    bench_small(bench)
    about = machine(device, bench)
    show(bench, about)
    if options.save:
        measure.save(Path(__file__).parent / "results" / "gpu_operations.json", about, bench.rows)


if __name__ == "__main__":
    main()
