"""Arguments that contradict each other or that this machine cannot handle: an error, and nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

from oaks import COCO17, BackendUnavailable, _native, ops

from .arguments import CASES, FILL, OnDevice, crop_case, decode_case, filled, score_case


def test_transforms_require_crop_size():
    case = decode_case()
    with pytest.raises(ValueError, match="crop_size"):
        case.run(transforms=np.zeros((2, 2, 3), np.float32), crop_size=None)
    assert not case.written()


@pytest.mark.parametrize("sigma", [0.0, 1e-30, 0.249, -1.0, 64.5, float("nan"), float("inf"), "wide"])
def test_blur_sigma_out_of_range_is_refused(sigma):
    case = decode_case()
    with pytest.raises(ValueError, match="blur_sigma"):
        case.run(refine="dark", blur_sigma=sigma)
    assert not case.written()


def test_the_average_may_not_overwrite_the_mirrored_maps():
    """Their rows are read backwards, so cells would be overwritten before they are read."""
    store = np.zeros((4, 4, 6, 8), np.float32)
    heatmaps = store[:2].copy()
    out = filled((2, 4, 2)), filled((2, 4))
    for mirrored, averaged in ((store[:2], store[:2]), (store[:2], store[1:3])):
        with pytest.raises(ValueError, match="out"):
            ops.decode(heatmaps, mirrored, flip_pairs=(), out=(*out, averaged))
    with pytest.raises(ValueError, match="out"):
        ops.decode(store[:2], store[2:].copy(), flip_pairs=(), out=(*out, store[1:3]))
    assert (store == 0).all()
    assert all((array == FILL).all() for array in out)


def test_outputs_may_not_share_memory():
    """Neither with each other nor with inputs."""
    case = decode_case()
    points, heat, averaged = case.out
    transforms = np.zeros((2, 2, 3), np.float32)
    for out in (
        (points, points.reshape(-1)[:8].reshape(2, 4), averaged),
        (averaged.reshape(-1)[:16].reshape(2, 4, 2), heat, averaged),
        (points, transforms.reshape(-1)[4:].reshape(2, 4), averaged),
    ):
        with pytest.raises(ValueError, match=r"\bout\b must have memory of its own, got that of"):
            case.run(out=out, transforms=transforms)
    assert not case.written()
    assert (transforms == 0).all()
    scores = score_case()
    with pytest.raises(ValueError, match=r"\bout\b must have memory of its own, got that of"):
        scores.run(out=scores.inputs["box_scores"])


def test_read_only_maps_cannot_be_averaged_in_place():
    heatmaps = np.zeros((2, 4, 6, 8), np.float32)
    heatmaps.flags.writeable = False
    with pytest.raises(ValueError, match="out"):
        ops.decode(heatmaps, average=True, out=(filled((2, 4, 2)), filled((2, 4)), heatmaps))


@pytest.mark.parametrize("operation", CASES)
def test_outputs_on_another_device_are_refused(operation):
    case = CASES[operation]()

    def elsewhere(outputs):
        return tuple(map(OnDevice, outputs)) if isinstance(outputs, tuple) else OnDevice(outputs)

    with pytest.raises(ValueError, match="out"):
        case.run(out=elsewhere)


@pytest.mark.parametrize("operation", CASES)
@pytest.mark.parametrize("stream", [-1, 1.5, "default", True])
def test_invalid_streams_are_refused(operation, stream):
    case = CASES[operation]()
    with pytest.raises(ValueError, match="stream"):
        case.run(stream=stream)
    assert not case.written()


def test_the_dtype_of_crops_is_that_of_out():
    """out determines the dtype; if dtype is passed too, it must be the same."""
    case = crop_case()
    half = case.out[0].astype(np.float16), case.out[1]
    assert case.run(out=half).pixels.dtype == np.float16
    case = crop_case()
    with pytest.raises(ValueError, match=r"float32.*float16"):
        case.run(out=half, dtype="float32")
    with pytest.raises(ValueError, match=r"float16.*float32"):
        case.run(dtype="float16")
    assert not case.written()


def test_several_frames_require_frame_index():
    case = crop_case()
    with pytest.raises(ValueError, match="frame_index"):
        case.run(frames=lambda frame: [frame, frame])
    assert not case.written()


@pytest.mark.parametrize("keypoints", [512, 513])
def test_at_most_512_keypoints(keypoints):
    """The largest supported count, and one more."""
    maps, poses = np.zeros((1, keypoints, 1, 2), np.float32), np.zeros((1, keypoints, 2), np.float32)
    areas, sigmas, scores = np.ones(1, np.float32), np.ones(keypoints, np.float32), np.ones(1, np.float32)
    calls = (
        lambda: ops.decode(maps, maps, flip_pairs=[(0, keypoints - 1)]).points,
        lambda: ops.oks(poses, poses, areas=areas, sigmas=sigmas),
        lambda: ops.oks_nms(poses, scores, areas=areas, sigmas=sigmas),
    )
    for call in calls:
        if keypoints == 512:
            assert np.isfinite(call()).all()
        else:
            with pytest.raises(ValueError, match=r"keypoints.*512.*513"):
                call()


@pytest.mark.parametrize("operation", CASES)
def test_device_arrays_require_out_and_no_host_arrays(operation):
    """The first array determines the device; the other inputs and out must be there too."""
    case = CASES[operation]()
    first = next(iter(case.inputs))
    with pytest.raises(ValueError, match=r"\bout\b|device"):
        case.run(**{first: OnDevice, "out": None})
    with pytest.raises(ValueError, match="device"):
        case.run(**{first: OnDevice})
    assert not case.written()


def test_unsupported_device_arrays_are_refused():
    maps = np.zeros((2, 3, 4, 6), np.float32)
    with pytest.raises(ValueError, match=r"heatmaps.*contiguous"):
        ops.decode(OnDevice(maps, strides=(288, 96, 24, 8)))
    with pytest.raises(ValueError, match=r"heatmaps.*mask"):
        ops.decode(OnDevice(maps, mask=OnDevice(maps)))
    with pytest.raises(ValueError, match=r"heatmaps.*float64"):
        ops.decode(OnDevice(maps.astype(np.float64)))


@pytest.mark.skipif(
    hasattr(_native, "cuda") and _native.cuda.device_count() > 0, reason="a CUDA device is available"
)
def test_device_arrays_without_a_device_are_refused():
    """The error says what is missing and what to install; nothing falls back to the CPU."""
    maps = OnDevice(np.zeros((1, 2, 4, 6), np.float32))
    out = tuple(OnDevice(np.zeros(shape, np.float32)) for shape in ((1, 2, 2), (1, 2)))
    with pytest.raises(BackendUnavailable, match=r"CUDA.*install"):
        ops.decode(maps, out=(*out, None))


def test_flip_pairs_of_the_skeleton_are_accepted():
    maps = np.zeros((1, 17, 3, 3), np.float32)
    ops.decode(maps, maps, flip_pairs=COCO17.pairs)
    ops.decode(maps, maps, flip_pairs=np.array(COCO17.pairs))


def everywhere(shape, dtype=np.float32):
    """An array of any size that takes no memory: all entries share one."""
    return np.broadcast_to(np.zeros((), dtype), shape)


@pytest.mark.parametrize(
    ("operation", "changes", "message"),
    [
        (
            "crop",
            {"frames": everywhere((2, 2**24 + 1, 3), np.uint8)},
            r"frames .*at most 16777216 rows and columns",
        ),
        ("crop", {"frames": everywhere((715_827_883, 1, 3), np.uint8)}, r"frames .*at most 16777216"),
        ("crop", {"frames": [everywhere((1, 2**31, 3), np.uint8)]}, r"frames\[0\] .*at most 16777216"),
        (
            "crop",
            {"frames": everywhere((65537, 1, 1, 3), np.uint8)},
            r"frames .*at most 65536 frames, got 65537",
        ),
        ("crop", {"frames": [everywhere((1, 1, 3), np.uint8)] * 65537}, r"frames .*at most 65536 frames"),
        ("crop", {"boxes": everywhere((2**31, 4))}, r"boxes .*at most 2147483647 entries along an axis"),
        ("crop", {"size": (16385, 1)}, r"size .*16384"),
        ("crop", {"size": (2**40, 1)}, r"size .*16384"),
        ("crop", {"size": (2**70, 1)}, r"size .*16384"),
        ("crop", {"padding": 1001}, r"padding .*at most 1000"),
        ("crop", {"padding": 1e300}, r"padding .*at most 1000"),
        ("crop", {"padding": 10**400}, r"padding .*at most 1000"),
        ("decode", {"crop_size": (2**24 + 1, 1)}, r"crop_size .*16777216"),
        ("decode", {"crop_size": (1e300, 1)}, r"crop_size .*16777216"),
        ("decode", {"blur_sigma": 10**400, "refine": "dark"}, r"blur_sigma"),
        ("decode", {"flip_pairs": [(2**70, 0)]}, r"flip_pairs"),
        ("decode_simcc", {"split": 1e-300}, r"split .*0.001 to 1000"),
        ("decode_simcc", {"split": 1e300}, r"split .*0.001 to 1000"),
        ("oks_nms", {"threshold": 10**400}, r"threshold"),
        ("score", {"stream": 2**64}, r"stream"),
    ],
)
def test_sizes_beyond_the_limits_are_refused(operation, changes, message):
    case = CASES[operation]()
    with pytest.raises(ValueError, match=message):
        case.run(**changes)
    assert not case.written()


@pytest.mark.parametrize(
    "shape", [(1, 1, 16385, 1), (1, 1, 1, 16385), (1, 1, 46341, 46341), (1, 1, 2**31, 2)]
)
def test_maps_larger_than_crops_are_refused(shape):
    """46,341 is the smallest number whose square does not fit into 31 bits."""
    people = {
        "points": np.zeros((1, 1, 2)),
        "boxes": [[0, 0, 1, 1]],
        "frame_sizes": [[9, 9]],
        "flip_pairs": (),
    }
    for device in (False, True):
        maps = everywhere(shape, np.float16)
        maps = OnDevice(maps) if device else maps
        for call in (lambda maps=maps: ops.decode(maps), lambda maps=maps: ops.map_features(maps, **people)):
            with pytest.raises(
                ValueError, match=r"heatmaps must have at most (16384 rows|2147483647 entries)"
            ):
                call()


def test_too_many_bins_are_refused():
    with pytest.raises(ValueError, match=r"x must have at most 16777216 bins, got 16777217"):
        ops.decode_simcc(OnDevice(everywhere((1, 1, 2**24 + 1))), None)


@pytest.mark.parametrize("interface", [{"shape": (-1, 3)}, {"data": (-8, False)}, {"data": (2**64, False)}])
def test_invalid_cuda_array_interfaces_are_refused(interface):
    with pytest.raises(ValueError, match=r"heat must (have at most|be at a 64-bit address)"):
        ops.conventional_score(OnDevice(np.zeros((2, 3), np.float32), **interface))


def test_masked_arrays_are_refused():
    """np.asarray would silently drop the mask."""
    with pytest.raises(ValueError, match="heat must be without a mask, got one"):
        ops.conventional_score(np.ma.masked_invalid([[0.5, np.nan]]))
