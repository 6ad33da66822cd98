"""Results in the caller's memory (out), and CPU threads."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from oaks import COCO17, ops

from .cases import REFINEMENTS, maps, rng

PAIRS = COCO17.pairs
SIGMAS = np.float32(COCO17.sigmas)
FILL = -77


def filled(shape, dtype=np.float32):
    return np.full(shape, FILL, dtype)


def decode_inputs(count=3, dtype=np.float32):
    shape = (count, 17, 16, 12)
    return maps("holes", shape, 1, dtype), maps("noise", shape, 2, dtype)


def crop_inputs():
    draw = rng(3)
    frames = [draw.integers(0, 256, (40, 50, 3), np.uint8), draw.integers(0, 256, (31, 17, 3), np.uint8)]
    boxes = np.float32([[3, 3, 30, 35], [-5, 2, 12, 40], [1, 1, 16, 30], [20, 10, 20, 10]])
    arguments = {
        "size": (24, 32),
        "frame_index": np.array([0, 0, 1, 0]),
        "mean": (120, 110, 100),
        "std": (58, 57, 56),
    }
    return frames, boxes, arguments


def pose_inputs(count=9):
    """Every third pose is close to the one before it."""
    draw = rng(4)
    points = draw.uniform(0, 30, (count, 17, 2)).astype(np.float32)
    points[2::3] = points[1::3] + np.float32(0.5)
    return (
        points,
        draw.uniform(size=count).astype(np.float32),
        draw.uniform(500, 900, count).astype(np.float32),
    )


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_crop_writes_to_out(mirrored, dtype):
    frames, boxes, arguments = crop_inputs()
    fresh = ops.crop(frames, boxes, mirrored=mirrored, dtype=dtype, **arguments)
    pixels, transforms = filled(fresh.pixels.shape, dtype), filled(fresh.transforms.shape)
    crops = ops.crop(frames, boxes, mirrored=mirrored, dtype=dtype, out=(pixels, transforms), **arguments)
    assert crops.pixels is pixels
    assert crops.transforms is transforms
    np.testing.assert_array_equal(pixels, fresh.pixels)
    np.testing.assert_array_equal(transforms, fresh.transforms)


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_decode_writes_to_out(refine, dtype):
    heatmaps, mirrored = decode_inputs(dtype=dtype)
    arguments = {"flip_pairs": PAIRS, "refine": refine}
    fresh = ops.decode(heatmaps, mirrored, average=True, **arguments)
    points, heat, averaged = filled((3, 17, 2)), filled((3, 17)), filled(heatmaps.shape, dtype)
    decoded = ops.decode(heatmaps, mirrored, average=True, out=(points, heat, averaged), **arguments)
    assert decoded.points is points
    assert decoded.heat is heat
    assert decoded.heatmaps is averaged
    for left, right in zip(decoded, fresh, strict=True):
        np.testing.assert_array_equal(left, right)
    points, heat = filled((3, 17, 2)), filled((3, 17))
    decoded = ops.decode(heatmaps, mirrored, out=(points, heat, None), **arguments)
    assert decoded.points is points
    assert decoded.heatmaps is None
    np.testing.assert_array_equal(heat, fresh.heat)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("width", [12, 37, 72])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_average_does_not_depend_on_the_alignment_of_its_memory(width, dtype):
    """Non-temporal stores are used only at some alignments; memory around the average is not written."""
    shape = (2, 3, 5, width)
    heatmaps, mirrored = maps("noise", shape, 1, dtype), maps("noise", shape, 2, dtype)
    expected = ops.decode(heatmaps, mirrored, flip_pairs=(), average=True)
    size = heatmaps.size
    for offset in range(17):
        store = filled((size + 32,), dtype)
        averaged = store[offset : offset + size].reshape(shape)
        decoded = ops.decode(heatmaps, mirrored, flip_pairs=(), out=(None, None, averaged))
        for left, right in zip(decoded, expected, strict=True):
            np.testing.assert_array_equal(left, right)
        assert (store[:offset] == FILL).all()
        assert (store[offset + size :] == FILL).all()


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("alignment", ["half_pixel", "hrnet"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_average_may_be_written_in_place(refine, alignment, dtype):
    heatmaps, mirrored = decode_inputs(dtype=dtype)
    arguments = {"flip_pairs": PAIRS, "refine": refine, "alignment": alignment, "average": True}
    fresh = ops.decode(heatmaps, mirrored, **arguments)
    kept = mirrored.copy()
    decoded = ops.decode(heatmaps, mirrored, out=(filled((3, 17, 2)), filled((3, 17)), heatmaps), **arguments)
    assert decoded.heatmaps is heatmaps
    for left, right in zip(decoded, fresh, strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(mirrored, kept)


def test_scores_and_oks_write_to_out():
    points, scores, areas = pose_inputs()
    similarity, visibility = rng(5).uniform(size=(2, 9, 17)).astype(np.float32)
    for operation, inputs, keywords in (
        (ops.score, (similarity, visibility, scores), {}),
        (ops.conventional_score, (similarity, scores), {}),
        (ops.oks, (points, points), {"areas": areas, "sigmas": SIGMAS}),
    ):
        fresh = operation(*inputs, **keywords)
        out = filled(fresh.shape)
        assert operation(*inputs, out=out, **keywords) is out
        np.testing.assert_array_equal(out, fresh)


def test_kept_indices_come_first_in_out():
    points, scores, areas = pose_inputs()
    fresh = ops.oks_nms(points, scores, areas=areas, sigmas=SIGMAS, threshold=0.2)
    assert 0 < len(fresh) < 9
    out = filled(9, np.int64)
    kept = ops.oks_nms(points, scores, areas=areas, sigmas=SIGMAS, threshold=0.2, out=out)
    assert np.shares_memory(kept, out)
    np.testing.assert_array_equal(kept, fresh)
    np.testing.assert_array_equal(out, [*fresh, *[-1] * (9 - len(fresh))])


def test_an_output_may_be_left_out():
    heatmaps, _ = decode_inputs()
    points = filled((3, 17, 2))
    decoded = ops.decode(heatmaps, out=(points, None, None))
    assert decoded.points is points
    np.testing.assert_array_equal(decoded.heat, ops.decode(heatmaps).heat)


def test_out_avoids_allocations():
    """Allocations of Python and NumPy during crop and decode are much smaller than the results."""
    frames, boxes, arguments = crop_inputs()
    arguments |= {"size": (192, 256), "mirrored": True}
    crops = ops.crop(frames, boxes, **arguments)
    heatmaps, mirrored = decode_inputs(16)
    out = (filled((16, 17, 2)), filled((16, 17)), heatmaps)
    calls = (
        lambda: ops.crop(frames, boxes, out=(crops.pixels, crops.transforms), **arguments),
        lambda: ops.decode(heatmaps, mirrored, flip_pairs=PAIRS, average=True, out=out),
    )
    for call, written in zip(calls, (crops.pixels.nbytes, heatmaps.nbytes), strict=True):
        call()
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < written / 20


@pytest.mark.usefixtures("threads", "instruction_set")
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_results_do_not_depend_on_the_number_of_threads(count):
    def everything():
        frames, boxes, arguments = crop_inputs()
        yield from ops.crop(frames, boxes, mirrored=True, **arguments)
        for dtype in (np.float32, np.float16):
            heatmaps, mirrored = decode_inputs(13, dtype)
            for refine in REFINEMENTS:
                yield from ops.decode(heatmaps, mirrored, flip_pairs=PAIRS, refine=refine, average=True)
        points, scores, areas = pose_inputs(150)
        yield ops.oks(points, points, areas=areas, sigmas=SIGMAS)
        yield ops.oks_nms(points, scores, areas=areas, sigmas=SIGMAS, threshold=0.2)
        yield ops.score(points[..., 0], points[..., 1], scores)
        yield ops.conventional_score(points[..., 0], scores)

    ops.set_threads(1)
    expected = [result.tobytes() for result in everything()]
    ops.set_threads(count)
    assert ops.get_threads() == count
    assert [result.tobytes() for result in everything()] == expected


@pytest.mark.usefixtures("threads")
def test_calls_from_several_threads_do_not_interfere():
    """Four Python threads decode and crop at the same time."""
    ops.set_threads(3)
    frames, boxes, arguments = crop_inputs()
    heatmaps, mirrored = decode_inputs(8)

    def work(number):
        maps, back = heatmaps + number, mirrored + number
        results = []
        for _ in range(15):
            results.append(ops.decode(maps, back, flip_pairs=PAIRS, refine="dark").points.tobytes())
            results.append(ops.crop(frames, boxes + number, **arguments).pixels.tobytes())
        return results

    alone = [work(number) for number in range(4)]
    assert len({results[0] for results in alone}) == 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_operations_work_after_a_fork():
    """The parent has used its threads before, as with the workers of a data loader."""
    program = """
import os, sys
import numpy as np
from oaks import ops
ops.set_threads(3)
maps = np.random.default_rng(0).normal(size=(6, 17, 16, 12)).astype(np.float32)
before = ops.decode(maps).points.tobytes()
child = os.fork()
same = ops.decode(maps).points.tobytes() == before
if child == 0:
    os._exit(0 if same else 3)
_, status = os.waitpid(child, 0)
sys.exit(0 if same and status == 0 else 4)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space are Linux's")
def test_fewer_threads_are_used_when_the_system_refuses_more():
    """The limit on memory allows the stacks of only some of the 1,024 threads."""
    program = """
import os, resource
import numpy as np
from oaks import ops
maps = np.random.default_rng(0).normal(size=(2048, 2, 4, 4)).astype(np.float32)
ops.set_threads(1)
alone = ops.decode(maps).points
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (400 << 20),) * 2)
ops.set_threads(1024)
assert (ops.decode(maps).points == alone).all()
started = len(os.listdir("/proc/self/task"))
assert 2 < started < 1000, started
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [0, -1, 1.5, "two", True, 1025, 50_000, 2**32, 2**32 + 1, 2**70])
def test_invalid_thread_counts_are_refused(count):
    before = ops.get_threads()
    with pytest.raises((ValueError, TypeError)):
        ops.set_threads(count)
    assert ops.get_threads() == before


def test_unknown_instruction_sets_are_refused():
    assert ops.instruction_sets(), "baseline is always available"
    with pytest.raises(ValueError, match="mmx"):
        ops.use_instruction_set("mmx")
