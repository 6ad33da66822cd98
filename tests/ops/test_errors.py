"""Wrong arguments: a ValueError that names the argument, and nothing written."""

from __future__ import annotations

import numpy as np
import pytest

from oaks import COCO17, BackendUnavailable, _native, ops

FILL = -77


class OnDevice:
    """Something that says it lies on a CUDA device."""

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
    """Valid arguments of an operation, its outputs full of FILL, and the operation."""

    def __init__(self, operation, inputs, keywords, out):
        self.operation, self.inputs, self.keywords, self.out = operation, inputs, keywords, out

    def run(self, **changes):
        """Runs the operation with some arguments changed; a callable makes the new value from the old one."""
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


def nms_case():
    return Case(
        ops.nms,
        {"points": np.zeros((3, 4, 2), np.float32), "scores": np.ones(3, np.float32)},
        {"areas": np.ones(3, np.float32), "sigmas": np.full(4, 0.1, np.float32)},
        filled(3, np.int64),
    )


CASES = {
    "crop": crop_case,
    "decode": decode_case,
    "score": score_case,
    "conventional_score": conventional_case,
    "oks": oks_case,
    "nms": nms_case,
}


@pytest.mark.parametrize("operation", CASES)
def test_the_arguments_that_the_others_change_are_right(operation):
    case = CASES[operation]()
    case.run()
    assert case.written()


def entry(value, index=(0, 0)):
    """A change: the same array with another value at an index."""

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
    """As large again on the last axis, of which every second value is taken."""
    return np.repeat(array, 2, axis=-1)[..., ::2]


WRONG = [
    ("crop", "boxes", lambda a: a[:, :3]),
    ("crop", "boxes", lambda a: a[0]),
    ("crop", "boxes", retyped(complex)),
    ("crop", "boxes", retyped(str)),
    ("crop", "boxes", entry(np.nan)),
    ("crop", "boxes", entry(np.inf, (1, 3))),
    ("crop", "boxes", entry(-np.inf, (1, 0))),
    ("crop", "boxes", lambda a: None),
    ("crop", "boxes", OnDevice),
    ("crop", "frames", retyped(np.float32)),
    ("crop", "frames", retyped(np.int8)),
    ("crop", "frames", lambda a: a[..., 0]),
    ("crop", "frames", lambda a: a[..., :2]),
    ("crop", "frames", lambda a: a[None, None]),
    ("crop", "frames", lambda a: a[:0]),
    ("crop", "frames", lambda a: a[:, :0]),
    ("crop", "frames", lambda a: []),
    ("crop", "frames", lambda a: [a, a[..., 0]]),
    ("crop", "frames", lambda a: None),
    ("crop", "frame_index", lambda _: np.array([0, 1])),
    ("crop", "frame_index", lambda _: np.array([0, -1])),
    ("crop", "frame_index", lambda _: np.array([0])),
    ("crop", "frame_index", lambda _: np.array([[0, 0]])),
    ("crop", "frame_index", lambda _: np.array([0.0, 0.5])),
    ("crop", "size", lambda _: (8, 0)),
    ("crop", "size", lambda _: (-8, 6)),
    ("crop", "size", lambda _: (8,)),
    ("crop", "size", lambda _: 8),
    ("crop", "size", lambda _: (8.5, 6)),
    ("crop", "padding", lambda _: 0.0),
    ("crop", "padding", lambda _: -1.0),
    ("crop", "padding", lambda _: float("nan")),
    ("crop", "padding", lambda _: float("inf")),
    ("crop", "mean", lambda _: (1.0, 2.0)),
    ("crop", "mean", lambda _: (1.0, 2.0, float("nan"))),
    ("crop", "std", lambda _: (1.0, 2.0, 0.0)),
    ("crop", "std", lambda _: (1.0, 2.0, float("inf"))),
    ("crop", "std", lambda _: (1.0, 2.0, 3.0, 4.0)),
    ("crop", "color", lambda _: "grey"),
    ("crop", "color", lambda _: "BGR"),
    ("crop", "color", lambda _: None),
    ("crop", "dtype", lambda _: "float64"),
    ("crop", "dtype", lambda _: "uint8"),
    ("crop", "out", part(0, lambda a: a[:1])),
    ("crop", "out", part(0, lambda a: a[..., :7])),
    ("crop", "out", part(0, retyped(np.int16))),
    ("crop", "out", part(0, frozen)),
    ("crop", "out", part(0, stretched)),
    ("crop", "out", part(1, lambda a: a[:, :1])),
    ("crop", "out", part(1, retyped(np.float64))),
    ("crop", "out", part(1, frozen)),
    ("crop", "out", lambda outputs: outputs[:1]),
    ("crop", "out", lambda outputs: outputs[0]),
    ("decode", "heatmaps", retyped(np.float64)),
    ("decode", "heatmaps", retyped(np.int32)),
    ("decode", "heatmaps", lambda a: a[0]),
    ("decode", "heatmaps", lambda a: a[None]),
    ("decode", "heatmaps", lambda a: a[..., :0]),
    ("decode", "heatmaps", lambda a: a[:, :0]),
    ("decode", "heatmaps", lambda a: a[:, :, :0]),
    ("decode", "heatmaps", lambda a: a.tolist()),
    ("decode", "heatmaps", lambda a: None),
    ("decode", "mirrored", lambda a: a[:1]),
    ("decode", "mirrored", lambda a: a[:, :3]),
    ("decode", "mirrored", lambda a: a[..., :7]),
    ("decode", "mirrored", retyped(np.float16)),
    ("decode", "mirrored", OnDevice),
    ("decode", "flip_pairs", lambda _: [(1, 4)]),
    ("decode", "flip_pairs", lambda _: [(-1, 2)]),
    ("decode", "flip_pairs", lambda _: [(1, 2), (2, 3)]),
    ("decode", "flip_pairs", lambda _: [(1, 1)]),
    ("decode", "flip_pairs", lambda _: [(1, 2, 3)]),
    ("decode", "flip_pairs", lambda _: [1, 2]),
    ("decode", "flip_pairs", lambda _: [(1.5, 2)]),
    ("decode", "refine", lambda _: "subpixel"),
    ("decode", "refine", lambda _: None),
    ("decode", "alignment", lambda _: "corner"),
    ("decode", "alignment", lambda _: None),
    ("decode", "crop_size", lambda _: (32, 0)),
    ("decode", "crop_size", lambda _: (32,)),
    ("decode", "crop_size", lambda _: 32),
    ("decode", "transforms", lambda _: np.zeros((2, 3, 3), np.float32)),
    ("decode", "transforms", lambda _: np.zeros((1, 2, 3), np.float32)),
    ("decode", "transforms", lambda _: np.zeros((2, 2, 3), complex)),
    ("decode", "transforms", lambda _: OnDevice(np.zeros((2, 2, 3), np.float32))),
    ("decode", "blur_sigma", lambda _: 2.0),
    ("decode", "out", part(0, lambda a: a[:1])),
    ("decode", "out", part(0, retyped(np.float64))),
    ("decode", "out", part(0, frozen)),
    ("decode", "out", part(0, stretched)),
    ("decode", "out", part(1, lambda a: a[:, :3])),
    ("decode", "out", part(1, retyped(np.float16))),
    ("decode", "out", part(1, frozen)),
    ("decode", "out", part(2, lambda a: a[..., :7])),
    ("decode", "out", part(2, retyped(np.float16))),
    ("decode", "out", part(2, frozen)),
    ("decode", "out", part(2, stretched)),
    ("decode", "out", lambda outputs: outputs[:2]),
    ("decode", "out", lambda outputs: outputs[0]),
    ("score", "similarity", retyped(complex)),
    ("score", "similarity", lambda a: a[0]),
    ("score", "similarity", lambda a: a[:, :0]),
    ("score", "visibility", lambda a: a[:2]),
    ("score", "visibility", lambda a: a[:, :3]),
    ("score", "visibility", retyped(str)),
    ("score", "visibility", OnDevice),
    ("score", "box_scores", lambda a: a[:2]),
    ("score", "box_scores", lambda a: a[:, None]),
    ("score", "box_scores", retyped(object)),
    ("score", "out", lambda a: a[:2]),
    ("score", "out", retyped(np.int32)),
    ("score", "out", frozen),
    ("score", "out", stretched),
    ("conventional_score", "heat", lambda a: a[0]),
    ("conventional_score", "heat", retyped(complex)),
    ("conventional_score", "box_scores", lambda a: a[:2]),
    ("conventional_score", "box_scores", OnDevice),
    ("conventional_score", "out", lambda a: a[:2]),
    ("conventional_score", "out", frozen),
    ("oks", "a", lambda a: a[..., 0]),
    ("oks", "b", lambda a: a[:, :3]),
    ("oks", "a", lambda a: a[..., :1]),
    ("oks", "a", retyped(complex)),
    ("oks", "b", lambda a: a[:, :, [0, 1, 1]]),
    ("oks", "b", OnDevice),
    ("oks", "areas", lambda a: a[:2]),
    ("oks", "areas", entry(-1, 1)),
    ("oks", "areas", entry(np.nan, 1)),
    ("oks", "areas", entry(np.inf, 1)),
    ("oks", "sigmas", lambda a: a[:3]),
    ("oks", "sigmas", entry(0, 2)),
    ("oks", "sigmas", entry(-0.1, 2)),
    ("oks", "sigmas", entry(np.nan, 2)),
    ("oks", "visible", lambda a: a[:2]),
    ("oks", "visible", retyped(np.float32)),
    ("oks", "out", lambda a: a.T),
    ("oks", "out", retyped(np.float16)),
    ("oks", "out", frozen),
    ("nms", "points", lambda a: a[0]),
    ("nms", "points", lambda a: a[..., :1]),
    ("nms", "points", retyped(str)),
    ("nms", "scores", lambda a: a[:2]),
    ("nms", "scores", entry(np.nan, 1)),
    ("nms", "scores", OnDevice),
    ("nms", "areas", lambda a: a[:2]),
    ("nms", "areas", entry(-1, 1)),
    ("nms", "areas", entry(np.nan, 1)),
    ("nms", "sigmas", lambda a: a[:3]),
    ("nms", "sigmas", entry(0, 2)),
    ("nms", "threshold", lambda _: float("nan")),
    ("nms", "threshold", lambda _: "high"),
    ("nms", "out", lambda a: a[:2]),
    ("nms", "out", retyped(np.int32)),
    ("nms", "out", frozen),
    ("nms", "frame_index", lambda _: np.array([0, 1])),
    ("nms", "frame_index", lambda _: np.array([0.0, 1.5, 2.0])),
]


@pytest.mark.parametrize(("operation", "name", "change"), WRONG)
def test_a_wrong_argument_is_named_and_nothing_is_written(operation, name, change):
    case = CASES[operation]()
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        case.run(**{name: change})
    assert not case.written()


@pytest.mark.parametrize(
    ("operation", "name", "change", "wanted", "came"),
    [
        ("crop", "frames", retyped(np.float32), "uint8", "float32"),
        ("crop", "boxes", lambda a: a[:, :3], "4", r"\(2, 3\)"),
        ("crop", "color", lambda _: "grey", "bgr", "grey"),
        ("crop", "dtype", lambda _: "float64", "float16", "float64"),
        ("decode", "heatmaps", retyped(np.float64), "float16", "float64"),
        ("decode", "mirrored", lambda a: a[:1], r"\(2, 4, 6, 8\)", r"\(1, 4, 6, 8\)"),
        ("decode", "refine", lambda _: "subpixel", "second_peak", "subpixel"),
        ("decode", "alignment", lambda _: "corner", "half_pixel", "corner"),
        ("score", "visibility", lambda a: a[:2], r"\(3, 4\)", r"\(2, 4\)"),
        ("oks", "sigmas", lambda a: a[:3], "4", "3"),
        ("nms", "scores", lambda a: a[:2], "3", "2"),
    ],
)
def test_the_message_says_what_was_wanted_and_what_came(operation, name, change, wanted, came):
    with pytest.raises(ValueError, match=name) as caught:
        CASES[operation]().run(**{name: change})
    assert caught.match(wanted)
    assert caught.match(came)


def test_transforms_need_the_crops_size():
    case = decode_case()
    with pytest.raises(ValueError, match="crop_size"):
        case.run(transforms=np.zeros((2, 2, 3), np.float32), crop_size=None)
    assert not case.written()


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), "wide"])
def test_the_blur_is_a_positive_number(sigma):
    case = decode_case()
    with pytest.raises(ValueError, match="blur_sigma"):
        case.run(refine="dark", blur_sigma=sigma)
    assert not case.written()


def test_the_mirrored_maps_need_their_pairs():
    """Left out, they would be averaged without exchanging left and right."""
    case = decode_case()
    with pytest.raises(ValueError, match="flip_pairs"):
        case.run(flip_pairs=None)
    assert not case.written()


def test_the_average_may_not_overwrite_the_mirrored_maps():
    """They are read backwards: what is written first would be read later."""
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


def test_the_average_of_maps_that_cannot_be_written_does_not_go_in_place():
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
def test_a_stream_is_a_handle(operation, stream):
    case = CASES[operation]()
    with pytest.raises(ValueError, match="stream"):
        case.run(stream=stream)
    assert not case.written()


def test_the_crops_dtype_is_the_outputs():
    """Where it is not asked for, the output says it; where both are given, they agree."""
    case = crop_case()
    half = case.out[0].astype(np.float16), case.out[1]
    assert case.run(out=half).pixels.dtype == np.float16
    case = crop_case()
    with pytest.raises(ValueError, match=r"float32.*float16"):
        case.run(out=half, dtype="float32")
    with pytest.raises(ValueError, match=r"float16.*float32"):
        case.run(dtype="float16")
    assert not case.written()


def test_several_frames_need_to_know_whose_box_is_whose():
    case = crop_case()
    with pytest.raises(ValueError, match="frame_index"):
        case.run(frames=lambda frame: [frame, frame])
    assert not case.written()


def test_boxes_turned_inside_out_are_refused():
    """An xywh box given as xyxy often has its right edge left of its left one."""
    case = crop_case()
    with pytest.raises(ValueError, match="boxes"):
        case.run(boxes=np.float32([[10, 10, 5, 20], [1, 1, 5, 5]]))
    assert not case.written()


@pytest.mark.parametrize("keypoints", [512, 513])
def test_at_most_512_keypoints(keypoints):
    """The last count that fits, and the first that does not."""
    maps, poses = np.zeros((1, keypoints, 1, 2), np.float32), np.zeros((1, keypoints, 2), np.float32)
    areas, sigmas, scores = np.ones(1, np.float32), np.ones(keypoints, np.float32), np.ones(1, np.float32)
    calls = (
        lambda: ops.decode(maps, maps, flip_pairs=[(0, keypoints - 1)]).points,
        lambda: ops.oks(poses, poses, areas=areas, sigmas=sigmas),
        lambda: ops.nms(poses, scores, areas=areas, sigmas=sigmas),
    )
    for call in calls:
        if keypoints == 512:
            assert np.isfinite(call()).all()
        else:
            with pytest.raises(ValueError, match=r"keypoints.*512.*513"):
                call()


@pytest.mark.parametrize("operation", CASES)
def test_device_arrays_need_outputs_and_company(operation):
    """The first array says where to work: then out= must be there, and the others must be there too."""
    case = CASES[operation]()
    first = next(iter(case.inputs))
    with pytest.raises(ValueError, match=r"\bout\b|device"):
        case.run(**{first: OnDevice, "out": None})
    with pytest.raises(ValueError, match="device"):
        case.run(**{first: OnDevice})
    assert not case.written()


def test_device_arrays_must_be_whole_and_plain():
    maps = np.zeros((2, 3, 4, 6), np.float32)
    with pytest.raises(ValueError, match=r"heatmaps.*contiguous"):
        ops.decode(OnDevice(maps, strides=(288, 96, 24, 8)))
    with pytest.raises(ValueError, match=r"heatmaps.*mask"):
        ops.decode(OnDevice(maps, mask=OnDevice(maps)))
    with pytest.raises(ValueError, match=r"heatmaps.*float64"):
        ops.decode(OnDevice(maps.astype(np.float64)))


@pytest.mark.skipif(hasattr(_native, "cuda"), reason="this build has the CUDA half")
def test_device_arrays_in_a_build_without_cuda():
    """What is missing, and what to do: no number is computed elsewhere instead."""
    maps = OnDevice(np.zeros((1, 2, 4, 6), np.float32))
    out = tuple(OnDevice(np.zeros(shape, np.float32)) for shape in ((1, 2, 2), (1, 2)))
    with pytest.raises(BackendUnavailable, match=r"CUDA.*install"):
        ops.decode(maps, out=(*out, None))


def test_the_skeletons_pairs_fit_as_they_are():
    maps = np.zeros((1, 17, 3, 3), np.float32)
    ops.decode(maps, maps, flip_pairs=COCO17.pairs)
    ops.decode(maps, maps, flip_pairs=np.array(COCO17.pairs))
