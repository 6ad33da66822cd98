"""Tests that need a real device: memory, streams, graphs, and large workloads."""

from __future__ import annotations

import numpy as np
import pytest
from ops.cases import maps, rng
from ops.test_forest import trees

from oaks import COCO17, ops

pytestmark = pytest.mark.needs_cuda

REFINEMENTS = ["second_peak", "gradient", "dark", "none"]
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


@pytest.fixture
def torch(cuda_ops):
    """The module torch, if there is a device."""
    import torch

    return torch


@pytest.fixture
def cuda():
    """The native module's CUDA functions."""
    from oaks import _native

    return _native.cuda


def decode_inputs(torch, shape=(3, 17, 96, 72), dtype=np.float32):
    heatmaps, mirrored = maps("noise", shape, 1, dtype), maps("noise", shape, 2, dtype)
    return heatmaps, mirrored, torch.from_numpy(heatmaps).cuda(), torch.from_numpy(mirrored).cuda()


def outputs(torch, shape, dtype=None):
    """Points, heat and maps, filled with NaN."""
    return (
        torch.full((*shape[:2], 2), torch.nan, device="cuda"),
        torch.full(shape[:2], torch.nan, device="cuda"),
        torch.full(shape, torch.nan, device="cuda", dtype=dtype),
    )


def check(out, expected, refine="second_peak"):
    """Compare maps and heat bit by bit; points of dark differ in the device's exponential and logarithm."""
    points, heat, averaged = (array.cpu().numpy() for array in out)
    np.testing.assert_array_equal(averaged, expected.heatmaps)
    np.testing.assert_array_equal(heat, expected.heat)
    np.testing.assert_allclose(points, expected.points, rtol=0, atol=2e-4 if refine == "dark" else 0)


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("alignment", ["half_pixel", "hrnet"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("size", [(96, 72), (64, 48), (33, 30), (300, 304)])
def test_decode_to_out_and_in_place(torch, size, dtype, alignment, refine):
    """The largest maps exceed the shared memory of a block on every device."""
    shape = (2, 5, *size)
    heatmaps, mirrored, on_device, opposite = decode_inputs(torch, shape, dtype)
    arguments = {"flip_pairs": [(0, 3)], "refine": refine, "alignment": alignment}
    expected = ops.decode(heatmaps, mirrored, average=True, **arguments)
    out = outputs(torch, shape, on_device.dtype)
    ops.decode(on_device, opposite, out=out, **arguments)
    check(out, expected, refine)
    assert torch.equal(on_device.cpu(), torch.from_numpy(heatmaps)), "the input is unchanged"
    in_place = (*outputs(torch, shape)[:2], on_device)
    ops.decode(on_device, opposite, out=in_place, **arguments)
    check(in_place, expected, refine)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("unaligned", ["heatmaps", "mirrored", "averaged"])
def test_unaligned_arrays(torch, unaligned, dtype):
    shape = (2, 5, 64, 48)
    heatmaps, mirrored, *on_device = decode_inputs(torch, shape, dtype)
    expected = ops.decode(heatmaps, mirrored, flip_pairs=(), average=True)
    points, heat, averaged = outputs(torch, shape, on_device[0].dtype)
    arrays = {"heatmaps": on_device[0], "mirrored": on_device[1], "averaged": averaged}
    store = torch.empty(arrays[unaligned].numel() + 1, dtype=averaged.dtype, device="cuda")
    moved = store[1:].view(shape).copy_(arrays[unaligned])
    assert moved.data_ptr() % 16
    arrays[unaligned] = moved
    out = points, heat, arrays["averaged"]
    ops.decode(arrays["heatmaps"], arrays["mirrored"], flip_pairs=(), out=out)
    check(out, expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size", [(192, 256), (288, 384), (191, 255), (1000, 30)])
def test_crop_sizes(cuda_ops, size, dtype):
    """70 frames are more than one launch can take."""
    draw = rng(1)
    frames = [
        draw.integers(0, 256, (draw.integers(1, 700), draw.integers(1, 900), 3), np.uint8) for _ in range(70)
    ]
    corners = draw.uniform(-100, 500, (90, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(0, 600, (90, 2))], axis=1).astype(np.float32)
    index = np.arange(90) % 70
    arguments = {
        "size": size,
        "mean": MEAN,
        "std": STD,
        "mirrored": True,
        "dtype": dtype,
        "frame_index": index,
    }
    expected = ops.crop(frames, boxes, **arguments)
    crops = cuda_ops.crop(frames, boxes, **arguments)
    np.testing.assert_array_equal(crops.transforms, expected.transforms)
    tolerance = 1e-4 if dtype == "float32" else 4e-3
    np.testing.assert_allclose(crops.pixels, expected.pixels, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(crops.pixels[90:], crops.pixels[:90, ..., ::-1])


def test_invalid_boxes_and_frame_indices_give_black_crops(cuda_ops):
    frame = rng(1).integers(0, 256, (50, 60, 3), np.uint8)
    boxes = np.float32([[0, 0, 60, 50], [np.nan, 0, 9, 9], [0, 0, np.inf, 9], [1, 1, 40, 40], [1, 1, 40, 40]])
    index = np.int32([0, 0, 0, 1, -(2**31)])
    crops = cuda_ops.crop([frame], boxes, frame_index=index, size=(24, 32), mean=MEAN, std=STD)
    black = np.broadcast_to((-MEAN / STD)[None, :, None, None], (4, 3, 32, 24))
    np.testing.assert_allclose(crops.pixels[1:], black, rtol=1e-6)
    assert np.isnan(crops.transforms[1:3, [0, 1], [0, 1]]).all()
    assert np.isfinite(crops.transforms[[0, 3, 4]]).all()


def test_operations_run_on_the_given_stream(torch):
    """The stream is still busy when decode is called; the result is complete when the stream is."""
    heatmaps, mirrored, on_device, opposite = decode_inputs(torch)
    expected = ops.decode(heatmaps, mirrored, flip_pairs=COCO17.pairs, average=True)
    late = torch.zeros_like(on_device)
    out = outputs(torch, heatmaps.shape)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(on_device)
    ops.decode(late, opposite, flip_pairs=COCO17.pairs, out=out, stream=stream.cuda_stream)
    stream.synchronize()
    check(out, expected)


def test_tensors_use_torchs_current_stream(torch):
    """Without stream=, operations keep their order with other work on the current stream."""
    heatmaps, mirrored, on_device, opposite = decode_inputs(torch)
    expected = ops.decode(heatmaps, mirrored, flip_pairs=COCO17.pairs, average=True)
    late, out = torch.zeros_like(on_device), outputs(torch, heatmaps.shape)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)
        late.copy_(on_device)
        ops.decode(late, opposite, flip_pairs=COCO17.pairs, out=out)
        copies = [array.clone() for array in out]
        late.zero_()
        torch.cuda.current_stream().synchronize()
    check(copies, expected)


def test_a_stream_waits_for_another(torch, cuda):
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    source, copy = torch.zeros(1000, device="cuda"), torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(first):
        torch.cuda._sleep(50_000_000)
        source.fill_(1)
    cuda.wait_for(second.cuda_stream, first.cuda_stream, source.data_ptr())
    with torch.cuda.stream(second):
        copy.copy_(source)
    second.synchronize()
    assert torch.equal(copy.cpu(), torch.ones(1000))


def test_operations_can_be_captured_as_a_graph(torch, cuda):
    """A captured graph of all operations, launched on new inputs, gives the results of direct calls."""
    draw = rng(3)
    frame = torch.from_numpy(draw.integers(0, 256, (300, 400, 3), np.uint8)).cuda()
    boxes = torch.tensor([[10.0, 20, 200, 280], [100, 50, 380, 260]], device="cuda")
    heatmaps, mirrored, maps_now, opposite = decode_inputs(torch, (2, 17, 64, 48))
    pixels, transforms = torch.empty((4, 3, 256, 192), device="cuda"), torch.empty((2, 2, 3), device="cuda")
    out = outputs(torch, heatmaps.shape)
    scores, kept = torch.zeros(2, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
    similarity, areas = torch.zeros((2, 2), device="cuda"), torch.full((2,), 9e3, device="cuda")
    sigmas = np.float32(COCO17.sigmas)
    kept_boxes, sizes = torch.zeros_like(kept), torch.full((2, 2), 400.0, device="cuda")
    names = ops.feature_names(17, mirrored=True)
    features, values = torch.zeros((2, 17, len(names)), device="cuda"), torch.zeros((2, 17), device="cuda")
    model = ops.Forest(len(names), **trees(1, 40, 24, len(names))).to_device(
        lambda array: torch.from_numpy(array.copy()).cuda()
    )
    vectors = torch.from_numpy(draw.normal(size=(4, 2, 17, 96)).astype(np.float32)).cuda()
    simcc = torch.zeros((2, 17, 2), device="cuda"), torch.zeros((2, 17), device="cuda")
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    run = {"stream": stream.cuda_stream}

    def everything():
        ops.crop(
            frame, boxes, size=(192, 256), mean=MEAN, std=STD, mirrored=True, out=(pixels, transforms), **run
        )
        ops.decode(maps_now, opposite, flip_pairs=COCO17.pairs, crop_size=(192, 256), transforms=transforms,
                   out=out, **run)  # fmt: skip
        ops.score(out[1], out[1], out=scores, **run)
        ops.oks(out[0], out[0], areas=areas, sigmas=sigmas, out=similarity, **run)
        ops.oks_nms(out[0], scores, areas=areas, sigmas=sigmas, out=kept, **run)
        ops.box_nms(boxes, scores, threshold=0.5, out=kept_boxes, **run)
        ops.decode_simcc(vectors[0], vectors[1], mirrored=(vectors[2], vectors[3]), flip_pairs=COCO17.pairs,
                         out=simcc, **run)  # fmt: skip
        ops.map_features(maps_now, opposite, points=out[0], boxes=boxes, frame_sizes=sizes,
                         flip_pairs=COCO17.pairs, out=features, **run)  # fmt: skip
        ops.forest(features, model, out=values, **run)

    everything()
    stream.synchronize()
    cuda.begin_capture(stream.cuda_stream)
    try:
        everything()
    except BaseException:
        cuda.abandon_capture(stream.cuda_stream)
        raise
    graph = cuda.Graph(stream.cuda_stream)
    assert graph.node_count == 12

    maps_now.copy_(maps_now.flip(0))
    boxes.add_(5)
    torch.cuda.synchronize()
    everything()
    stream.synchronize()
    results = [pixels, transforms, *out, scores, similarity, kept, kept_boxes, *simcc, features, values]
    expected = [array.clone() for array in results]
    for array in results:
        array.fill_(-77)
    torch.cuda.synchronize()
    graph.launch(stream.cuda_stream)
    stream.synchronize()
    for result, reference in zip(results, expected, strict=True):
        assert torch.equal(result, reference)
    np.testing.assert_array_equal(out[1].cpu().numpy(), ops.decode(
        heatmaps[::-1], mirrored, flip_pairs=COCO17.pairs).heat)  # fmt: skip


def test_a_stream_is_usable_after_an_abandoned_capture(torch, cuda):
    stream = torch.cuda.Stream()
    cuda.begin_capture(stream.cuda_stream)
    cuda.abandon_capture(stream.cuda_stream)
    values, scores = torch.ones((5, 3), device="cuda"), torch.zeros(5, device="cuda")
    torch.cuda.synchronize()
    ops.conventional_score(values, out=scores, stream=stream.cuda_stream)
    stream.synchronize()
    assert torch.equal(scores.cpu(), torch.ones(5))
    with pytest.raises(RuntimeError, match=r"cudaError\w+ .* while ending the capture of a graph"):
        cuda.Graph(stream.cuda_stream)


def test_host_memory_is_refused(torch, cuda):
    values, scores = np.ones((5, 3), np.float32), np.zeros(5, np.float32)
    with pytest.raises(RuntimeError, match="must be in device memory"):
        cuda.score(values.ctypes.data, 0, 0, scores.ctypes.data, 5, 3, 0)
    assert not scores.any()
    assert cuda.device_of(torch.zeros(3, device="cuda").data_ptr()) == 0


def test_device_info(cuda):
    info = cuda.device_info(0)
    assert info["name"]
    assert info["capability"] >= (7, 5)
    assert 0 < info["free_bytes"] <= info["total_bytes"]
    assert cuda.driver_version() >= 12000
    with pytest.raises(RuntimeError, match="cudaErrorInvalidDevice .* while asking about device 99"):
        cuda.device_info(99)


def test_the_current_device_is_restored(torch, cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    values, scores = torch.ones((5, 3), device="cuda:1"), torch.zeros(5, device="cuda:1")
    torch.cuda.set_device(0)
    ops.conventional_score(values, out=scores)
    assert torch.cuda.current_device() == 0
    assert torch.equal(scores.cpu(), torch.ones(5))


@pytest.mark.parametrize("count", [1, 33, 1000, 3000])
def test_oks_nms_of_many_poses(cuda_ops, count):
    draw = rng(count)
    points = draw.uniform(0, 40 * count**0.5, (count, 1, 2)).astype(np.float32)
    scores = draw.choice(np.linspace(0, 1, 1 + count // 2), count).astype(np.float32)
    arguments = {"areas": np.full(count, 40000, np.float32), "sigmas": [0.1], "threshold": 0.5}
    arguments["frame_index"] = draw.integers(0, 3, count)
    np.testing.assert_array_equal(
        cuda_ops.oks_nms(points, scores, **arguments), ops.oks_nms(points, scores, **arguments)
    )


def test_repeated_large_batches_give_the_same_results(torch):
    """Results that depended on the order of threads or blocks would differ in some of the repetitions."""
    heatmaps, mirrored, on_device, opposite = decode_inputs(torch, (64, 17, 64, 48), np.float16)
    expected = ops.decode(heatmaps, mirrored, flip_pairs=COCO17.pairs, average=True)
    for _ in range(20):
        out = outputs(torch, heatmaps.shape, torch.float16)
        ops.decode(on_device, opposite, flip_pairs=COCO17.pairs, out=out)
        check(out, expected)
