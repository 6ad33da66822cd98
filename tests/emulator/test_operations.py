"""Device-specific behavior of the operations: thread orders, alignment, and more work than one pass of a block."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ops import reference
from ops.cases import maps, rng
from ops.test_forest import trees

from oaks import ops
from oaks.ops import Forest, feature_names

from .device_ops import marked
from .emulated import EmulatedOps, OnDevice


def put(value, dtype=None):
    return OnDevice(np.array(value, dtype, order="C"))


REFINEMENTS = ["second_peak", "gradient", "dark", "none"]
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def near(refine):
    """Tolerance of points: CPU and device differ only in their exponential and logarithm."""
    return {"rtol": 0, "atol": 2e-4 if refine == "dark" else 0}


def same_decode(emulated, heatmaps, mirrored, **arguments):
    """Compare with the CPU: maps and heat bit by bit."""
    expected = ops.decode(heatmaps, mirrored, average=True, **arguments)
    decoded = emulated.decode(heatmaps, mirrored, average=True, **arguments)
    np.testing.assert_array_equal(decoded.heatmaps, expected.heatmaps)
    np.testing.assert_array_equal(decoded.heat, expected.heat)
    np.testing.assert_allclose(decoded.points, expected.points, **near(arguments.get("refine")))
    return expected


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("alignment", ["half_pixel", "hrnet"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("limit", [48 * 1024, 1100])
def test_the_average_in_place(emulated: EmulatedOps, refine, alignment, dtype, limit):
    """With and without maps in shared memory, several warps, and loads of 16 bytes or of single values."""
    emulated.native.settings().shared_limit = limit
    for width in (24, 30, 33):
        heatmaps, mirrored = (
            maps("holes", (2, 3, 16, width), 1, dtype),
            maps("noise", (2, 3, 16, width), 2, dtype),
        )
        arguments = {"flip_pairs": [(0, 2)], "refine": refine, "alignment": alignment}
        expected = same_decode(emulated, heatmaps, mirrored, **arguments)
        work = heatmaps.copy()
        out = marked((2, 3, 2), np.float32), marked((2, 3), np.float32), work
        decoded = emulated.decode(work, mirrored, out=out, **arguments)
        np.testing.assert_array_equal(work, expected.heatmaps)
        np.testing.assert_array_equal(decoded.heat, expected.heat)
        np.testing.assert_allclose(decoded.points, expected.points, **near(refine))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("height", "width"), [(96, 72), (64, 48), (65, 63), (130, 128)])
def test_maps_larger_than_one_pass_of_a_block(emulated: EmulatedOps, height, width, dtype):
    heatmaps, mirrored = (maps(kind, (1, 2, height, width), 1, dtype) for kind in ("noise", "few_levels"))
    for refine in ("second_peak", "dark"):
        same_decode(emulated, heatmaps, mirrored, flip_pairs=[(0, 1)], refine=refine, alignment="hrnet")
        same_decode(emulated, heatmaps, None, refine=refine)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("unaligned", ["heatmaps", "mirrored", "averaged"])
def test_unaligned_arrays(emulated: EmulatedOps, unaligned, dtype):
    """An array that is not aligned to 16 bytes is read value by value, with the same result."""
    shape = (2, 3, 8, 16)
    heatmaps, mirrored = maps("noise", shape, 1, dtype), maps("noise", shape, 2, dtype)
    expected = ops.decode(heatmaps, mirrored, flip_pairs=(), average=True)
    arrays = {"heatmaps": heatmaps, "mirrored": mirrored, "averaged": marked(shape, dtype)}
    for name, array in arrays.items():
        arrays[name] = place(array, 1 if name == unaligned else 0)
        assert (arrays[name].ctypes.data % 16 != 0) == (name == unaligned)
    points, heat = marked((2, 3, 2), np.float32), marked((2, 3), np.float32)
    emulated.call(
        ops.decode, OnDevice(arrays["heatmaps"]), OnDevice(arrays["mirrored"]), flip_pairs=(), average=True,
        out=(OnDevice(points), OnDevice(heat), OnDevice(arrays["averaged"])),
    )  # fmt: skip
    np.testing.assert_array_equal(points, expected.points)
    np.testing.assert_array_equal(heat, expected.heat)
    np.testing.assert_array_equal(arrays["averaged"], expected.heatmaps)


def place(array, offset):
    """A copy that starts `offset` values after a 64-byte boundary and ends at the end of its memory."""
    size = array.itemsize
    store = np.empty(array.nbytes + 64 + offset * size, np.uint8)
    skipped = -store.ctypes.data % 64 + offset * size
    copy = store[skipped : skipped + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_decode_is_bit_identical_in_every_thread_order(emulated: EmulatedOps, refine):
    heatmaps, mirrored = maps("few_levels", (2, 4, 20, 24), 1), maps("few_levels", (2, 4, 20, 24), 2)
    order = emulated.native.Order
    results = []
    for orders in (
        [(order.ascending, 0)],
        [(order.descending, 0)],
        [(order.shuffled, 5)],
        [(order.shuffled, 6)],
    ):
        once = EmulatedOps(emulated.native)
        once.orders = iter(orders)
        decoded = once.decode(heatmaps, mirrored, flip_pairs=[(0, 3)], refine=refine, average=True)
        results.append([array.tobytes() for array in decoded])
    assert all(result == results[0] for result in results)


def crop_inputs(count, frame_count=3):
    draw = rng(7)
    frames = [
        draw.integers(0, 256, (draw.integers(1, 30), draw.integers(1, 30), 3), np.uint8)
        for _ in range(frame_count)
    ]
    corners = draw.uniform(-10, 25, (count, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(0, 30, (count, 2))], axis=1).astype(np.float32)
    return frames, boxes, draw.integers(0, frame_count, count).astype(np.int32)


def same_crop(emulated, frames, boxes, **arguments):
    """Compare with the CPU to rounding error: its baseline instruction set has no fused multiply-add."""
    arguments = {"mean": MEAN, "std": STD, "mirrored": True, **arguments}
    expected = ops.crop(frames, boxes, **arguments)
    crops = emulated.crop(frames, boxes, **arguments)
    tolerance = 1e-5 if expected.pixels.dtype == np.float32 else 2e-3
    np.testing.assert_allclose(crops.pixels, expected.pixels, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(crops.transforms, expected.transforms)
    np.testing.assert_array_equal(crops.pixels[len(boxes) :], crops.pixels[: len(boxes), ..., ::-1])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (2, 300), (64, 9), (530, 3), (601, 2), (37, 41)])
def test_crops_larger_than_one_pass_of_a_block(emulated: EmulatedOps, size, dtype):
    frames, boxes, index = crop_inputs(2)
    same_crop(emulated, frames, boxes, frame_index=index, size=size, dtype=dtype)


def test_bands_of_the_maximum_height(emulated: EmulatedOps):
    """A device of one multiprocessor with many rows: blocks process bands of the maximum height."""
    emulated.native.settings().multiprocessors = 1
    frames, boxes, index = crop_inputs(70)
    same_crop(emulated, frames, boxes, frame_index=index, size=(8, 130), dtype="float16")


def test_more_frames_than_one_launch_takes(emulated: EmulatedOps):
    frames, boxes, index = crop_inputs(200, 150)
    assert len(set(index // 64)) == 3
    same_crop(emulated, frames, boxes, frame_index=index, size=(6, 5))


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_unaligned_frames_and_crops(emulated: EmulatedOps, offset):
    frame = rng(3).integers(0, 256, (21, 19, 3), np.uint8)
    boxes = np.float32([[0, 0, 19, 21], [-5, -5, 12, 30]])
    arguments = {"size": (18, 20), "mean": MEAN, "std": STD}
    expected = ops.crop(frame, boxes, **arguments)
    pixels, transforms = (
        place(marked(expected.pixels.shape, np.float32), offset),
        marked((2, 2, 3), np.float32),
    )
    emulated.call(ops.crop, OnDevice(place(frame, offset)), put(boxes), out=(OnDevice(pixels), OnDevice(transforms)),
                  **arguments)  # fmt: skip
    np.testing.assert_allclose(pixels, expected.pixels, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("edge", range(4))
def test_a_non_finite_box_gives_a_black_crop_and_a_nan_transform(emulated: EmulatedOps, value, edge):
    """Values on a device are not checked; other crops are unaffected."""
    frames, boxes, index = crop_inputs(3)
    arguments = {"frame_index": index, "size": (9, 7), "mean": MEAN, "std": STD, "mirrored": True}
    expected = ops.crop(frames, boxes, **arguments)
    boxes[1, edge] = value
    crops = emulated.crop(frames, boxes, **arguments)
    black = np.broadcast_to((-MEAN / STD)[:, None, None], (3, 7, 9))
    for n in (1, 4):
        np.testing.assert_allclose(crops.pixels[n], black, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(crops.transforms[1]), [[True, False, True], [False, True, True]])
    for n in (0, 2, 3, 5):
        np.testing.assert_allclose(crops.pixels[n], expected.pixels[n], rtol=0, atol=1e-5)


@pytest.mark.parametrize("which", [-1, 3, 64, 2**31 - 1, -(2**31)])
def test_a_frame_index_out_of_range_gives_a_black_crop(emulated: EmulatedOps, which):
    frames, boxes, index = crop_inputs(3)
    arguments = {"size": (8, 6), "mean": MEAN, "std": STD}
    expected = ops.crop(frames, boxes, frame_index=index, **arguments)
    index[1] = which
    crops = emulated.crop(frames, boxes, frame_index=index, **arguments)
    np.testing.assert_allclose(
        crops.pixels[1], np.broadcast_to((-MEAN / STD)[:, None, None], (3, 6, 8)), rtol=1e-6
    )
    np.testing.assert_array_equal(crops.transforms, expected.transforms)
    np.testing.assert_allclose(crops.pixels[[0, 2]], expected.pixels[[0, 2]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 300])
@pytest.mark.parametrize("frames", [1, 5])
def test_oks_nms_candidate_counts(emulated: EmulatedOps, count, frames):
    draw = rng(count)
    points = draw.uniform(0, 40 * count**0.5, (count, 1, 2)).astype(np.float32)
    scores = draw.choice(np.linspace(0, 1, 1 + count // 2), count).astype(np.float32)
    arguments = {"areas": np.full(count, 40000, np.float32), "sigmas": [0.1], "threshold": 0.5}
    arguments["frame_index"] = draw.integers(0, frames, count)
    kept = emulated.oks_nms(points, scores, **arguments)
    expected = ops.oks_nms(points, scores, **arguments)
    np.testing.assert_array_equal(kept, expected)
    assert count < 31 or 1 < len(kept) < count


def test_nan_scores_come_last(emulated: EmulatedOps):
    """The CPU refuses them; a device cannot look before it starts."""
    points = np.float32([[[x, 0]] for x in range(0, 500, 100)])
    scores = np.float32([np.nan, 0.5, np.nan, -np.inf, 0.7])
    kept = emulated.oks_nms(points, scores, areas=np.full(5, 100, np.float32), sigmas=[0.05])
    np.testing.assert_array_equal(kept, [4, 1, 3, 0, 2])


@pytest.mark.parametrize("count", [1, 33, 300])
def test_box_nms_candidate_counts(emulated: EmulatedOps, count):
    draw = rng(count)
    corners = draw.uniform(0, 15 * count**0.5, (count, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(5, 40, (count, 2))], axis=1).astype(np.float32)
    scores = draw.choice(np.linspace(0, 1, 1 + count // 2), count).astype(np.float32)
    arguments = {"threshold": 0.3, "frame_index": draw.integers(0, 3, count)}
    kept = emulated.box_nms(boxes, scores, **arguments)
    np.testing.assert_array_equal(kept, ops.box_nms(boxes, scores, **arguments))
    assert count < 33 or 1 < len(kept) < count


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_boxes_and_scores_come_last(emulated: EmulatedOps, value):
    """The CPU refuses them; values on a device are not checked. They suppress nothing."""
    boxes = np.float32([[0, 0, 4, 4]] * 5)
    boxes[1, 3] = boxes[3, 0] = value
    scores = np.float32([0.5, 0.9, np.nan, 0.8, 0.7])
    kept = emulated.box_nms(boxes, scores, threshold=0.5)
    np.testing.assert_array_equal(kept, [4, 1, 3])


def people_and_maps(count, keypoints, height, width, dtype=np.float32):
    draw = rng(height)
    corners = draw.uniform(0, 90, (count, 2))
    arguments = {
        "points": draw.uniform(0, 200, (count, keypoints, 2)).astype(np.float32),
        "boxes": np.concatenate([corners, corners + 50], axis=1).astype(np.float32),
        "frame_sizes": draw.integers(100, 300, (count, 2)).astype(np.float32),
        "flip_pairs": [(0, keypoints - 1)],
    }
    shape = count, keypoints, height, width
    return maps("bumps", shape, 1, dtype), maps("noise", shape, 2, dtype), arguments


@pytest.mark.parametrize("limit", [48 * 1024, 1100])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_map_features_with_and_without_shared_memory(emulated: EmulatedOps, limit, dtype):
    emulated.native.settings().shared_limit = limit
    heatmaps, mirrored, arguments = people_and_maps(2, 3, 30, 29, dtype)
    for opposite in (None, mirrored):
        features = emulated.map_features(heatmaps, opposite, **arguments)
        expected = ops.map_features(heatmaps, opposite, **arguments)
        np.testing.assert_allclose(features, expected, rtol=2e-5, atol=1e-5)


def test_map_features_of_many_keypoints(emulated: EmulatedOps):
    """More keypoints than a block has threads."""
    heatmaps, _, arguments = people_and_maps(1, 300, 4, 3)
    features = emulated.map_features(heatmaps, **arguments)
    np.testing.assert_allclose(features, ops.map_features(heatmaps, **arguments), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_people_with_non_finite_inputs_get_nan_features(emulated: EmulatedOps, value):
    """The CPU refuses them; values on a device are not checked. Other people's features are unaffected."""
    heatmaps, mirrored, arguments = people_and_maps(3, 4, 6, 8)
    expected = ops.map_features(heatmaps, mirrored, **arguments)
    poses = {**arguments, "heat": heatmaps.max(axis=(2, 3))}
    expected_poses = ops.pose_features(poses.pop("points"), poses.pop("heat"), **poses)
    spoiled = {"heatmaps": heatmaps, "mirrored": mirrored, **arguments, "heat": heatmaps.max(axis=(2, 3))}
    for name in ("heatmaps", "mirrored", "points", "boxes", "frame_sizes", "heat"):
        changed = {key: array.copy() if hasattr(array, "copy") else array for key, array in spoiled.items()}
        changed[name][1].flat[-1] = value
        heat = changed.pop("heat")
        if name not in ("heatmaps", "mirrored"):
            poses = {key: array for key, array in changed.items() if key not in ("heatmaps", "mirrored")}
            features = emulated.pose_features(poses.pop("points"), heat, **poses)
            assert np.isnan(features[1]).all()
            np.testing.assert_allclose(features[[0, 2]], expected_poses[[0, 2]], rtol=1e-5)
        if name != "heat":
            features = emulated.map_features(changed.pop("heatmaps"), changed.pop("mirrored"), **changed)
            assert np.isnan(features[1]).all()
            np.testing.assert_allclose(features[[0, 2]], expected[[0, 2]], rtol=2e-5, atol=1e-5)


def test_map_features_and_forest_are_bit_identical_in_every_thread_order(emulated: EmulatedOps):
    heatmaps, mirrored, arguments = people_and_maps(2, 4, 20, 24)
    model = Forest(len(feature_names(4, mirrored=True)), **trees(5, 300, 24, 40))
    order, results = emulated.native.Order, []
    for setting in ((order.ascending, 0), (order.descending, 0), (order.shuffled, 5), (order.shuffled, 6)):
        once = EmulatedOps(emulated.native)
        once.orders = itertools.repeat(setting)
        features = once.map_features(heatmaps, mirrored, **arguments)
        results.append((features.tobytes(), once.forest(features, model).tobytes()))
    assert all(result == results[0] for result in results)
    np.testing.assert_allclose(once.forest(features, model), ops.forest(features, model), rtol=1e-6)


def test_scores_and_oks_of_more_people_than_a_block_has_threads(emulated: EmulatedOps):
    draw = rng(1)
    similarity, visibility = draw.uniform(size=(2, 300, 5)).astype(np.float32)
    np.testing.assert_array_equal(emulated.score(similarity, visibility), ops.score(similarity, visibility))
    heat = ops.conventional_score(similarity, visibility[:, 0])
    np.testing.assert_array_equal(emulated.conventional_score(similarity, visibility[:, 0]), heat)
    a, b = draw.normal(size=(40, 3, 2)).astype(np.float32), draw.normal(size=(17, 3, 2)).astype(np.float32)
    arguments = {"areas": draw.uniform(1, 9, 17).astype(np.float32), "sigmas": [0.1, 0.2, 0.3]}
    seen = draw.integers(0, 2, (17, 3)) > 0
    similar = emulated.oks(a, b, visible=seen, **arguments)
    np.testing.assert_allclose(similar, ops.oks(a, b, visible=seen, **arguments), atol=1e-6)
    np.testing.assert_allclose(similar, reference.oks(a, b, visible=seen, **arguments), atol=1e-5)
