"""Person boxes from a bundle's detector, or from one that was exported to ONNX elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks import executors, limits, onnx_file
from oaks.addresses import redacted
from oaks.arguments import SetOnce, check_choice, check_count, check_share, is_integer, parse_settings
from oaks.boxes import numbers
from oaks.bundle import PRECISIONS, Bundle, DetectorPart
from oaks.bundle_parts import DEFAULT_OVERLAP, DEFAULT_THRESHOLD
from oaks.detector_formats import (
    Found,
    NotFiniteError,
    Preprocessing,
    decode_centers,
    person_class,
    recognize,
    stated_color,
    stated_size,
)
from oaks.errors import ArgumentError, BackendUnavailable, BundleError
from oaks.forks import outlives_forks
from oaks.images import as_frame, fitted_size
from oaks.runtimes import load_onnxruntime
from oaks.turns import Turn

log = logging.getLogger("oaks")

_GRAY = 114
_SMALLEST, _LARGEST = 1e-6, 1e6
"""Bounds on a mean or standard deviation, on the 0-255 scale."""
_LARGEST_SIDE = 4096
_SIZE = (640, 640)
"""(width, height) of an input that accepts any, if neither the caller nor the file states one."""
_PIXELS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_MOST_CLASSES = 1 << 16
_SETTINGS: Mapping[str, Any] = {
    "color": str, "mean": (float, 3), "std": (float, 3), "size": (int, 2), "overlap": (float, 1),
}  # fmt: skip
"""Settings of the command line, as parse_settings takes them."""
_OUTPUTS = {"centers": 1, "sizes": 2, "offsets": 2}
"""Outputs of a detector of kind "centers", with their channels."""


class Detector(SetOnce):
    """Finds people in pictures.

    The picture is scaled to fit the network's input; its aspect is kept and the rest is gray. A bundle states the
    preprocessing of its detector. For an ONNX file, the shapes of the outputs tell the family and with it the
    preprocessing:

    - (1, A, 5 + classes), where A is the number of cells of the strides 8, 16, 32 (and 64): YOLOX, before or after its
      grid is decoded (Ge et al., 2021); BGR, 0 to 255, picture at the top left. Decoded exports of other families look the
      same (YOLOv6 takes RGB, 0 to 1), so they cause a warning without `color`, `mean` and `std`;
    - (1, 4 + classes, A), (1, 3 A, 5 + classes), the two with their last axes exchanged, or (1, 300, 6): exports of
      Ultralytics YOLO; RGB, 0 to 1, picture in the middle. (1, A, C) has the objectness of YOLOX unless C is 5 (one class),
      C is 84 (the 80 classes of COCO), or the file names C - 4 classes;
    - boxes (N, 4), scores (N,) and labels (N,); or boxes with their scores (N, 5) and labels (N,); or rows of
      x1, y1, x2, y2, score, label (N, 6); with or without a batch axis of 1, in any order, after suppression. The
      preprocessing of these is unknown: without `color`, `mean` and `std`, YOLOX's is assumed, with a warning.

    Metadata of the file take precedence: the names of the classes, and the channel order. Boxes must be in pixels.

    An ONNX file runs on ONNX Runtime's CPU provider. It runs once on a gray input when it is loaded, so that a network
    with other outputs is refused at once.

    Args:
        source: an ONNX file, or a bundle with a detector: its folder, zip file, shipped name, or a Bundle.
        threshold: minimum score of a box; None: the bundle's, .3 for an ONNX file.
        overlap: intersection over union above which the worse of two boxes is dropped; None: the bundle's, .65 for an
            ONNX file. Networks that include NMS ignore it.
        person: class index of a person: 1 in exports with a background class; None: that of the class named person, 0
            if the file names no classes.
        color: channel order that the network takes; None: the family's.
        mean, std: in that order, on the 0-255 scale; None: the family's.
        size: (width, height) of the input, for a file that accepts any; None: the one for which it was exported, else
            (640, 640).
        threads: CPU threads; None: all cores.
        backend, precision, device: of a bundle's detector, as for an Engine; left out for an ONNX file.

    Attributes:
        threshold, overlap, size: as above; read-only.
        description: for the header of results.

    Raises:
        FileNotFoundError: there is no such file or bundle.
        ArgumentError: the file is damaged, the network has other outputs than those above, the bundle has no detector,
            or an argument does not fit.
        BackendUnavailable: the runtime is not installed.
    """

    threshold: float
    overlap: float
    size: tuple[int, int]
    description: str
    _turn: Turn

    def __init__(
        self,
        source: str | Path | Bundle,
        *,
        threshold: float | None = None,
        overlap: float | None = None,
        person: int | None = None,
        color: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: tuple[int, int] | None = None,
        threads: int | None = None,
        backend: str = "auto",
        precision: str = "auto",
        device: str | None = None,
    ) -> None:
        for name, value in (("threshold", threshold), ("overlap", overlap)):
            if value is not None:
                check_share(name, value)
        if person is not None and not (is_integer(person) and 0 <= person <= _MOST_CLASSES):
            raise ArgumentError(f"person must be an integer from 0 to {_MOST_CLASSES}, got {person!r}")
        if threads is not None:
            check_count("threads", threads)
            limits.check("threads", "threads", int(threads))
        check_choice("precision", precision, ("auto", "bf16", *PRECISIONS))
        check_choice("color", color, (None, "bgr", "rgb"))
        for name, values, count in (("mean", mean, 3), ("std", std, 3), ("size", size, 2)):
            if values is None:
                continue
            given_values = numbers(name, values, f"{count} numbers")
            fits = given_values.shape == (count,) and bool((np.abs(given_values) <= _LARGEST).all())
            if not fits or (name != "mean" and given_values.min() < _SMALLEST):
                kind = "finite numbers" if name == "mean" else "positive numbers"
                raise ArgumentError(f"{name} must be {count} {kind}, got {values!r}")
        if size is not None and not (all(map(is_integer, size)) and max(size) <= _LARGEST_SIDE):
            raise ArgumentError(f"size must be two integers of at most {_LARGEST_SIDE}, got {size!r}")
        source = as_source(source)
        if isinstance(source, Bundle):
            _leave_out("a bundle, which says it itself", color=color, mean=mean, std=std, person=person)
            self._model: _CentersModel | _OnnxModel = _CentersModel(
                source, threshold, overlap, backend, precision, device, threads
            )
        else:
            _leave_out(
                "an ONNX file, which runs on ONNX Runtime's CPU provider",
                backend=None if isinstance(backend, str) and backend == "auto" else backend,
                precision=None if precision == "auto" else precision,
                device=device,
            )
            given = Preprocessing(color or "", _plain_tuple(mean), _plain_tuple(std))
            self._model = _OnnxModel(
                source,
                DEFAULT_THRESHOLD if threshold is None else threshold,
                DEFAULT_OVERLAP if overlap is None else overlap,
                person,
                given,
                None if size is None else (int(size[0]), int(size[1])),
                threads,
            )
        self._turn = Turn("Detector")
        outlives_forks(self._model)
        self.threshold, self.overlap = self._model.threshold, self._model.overlap
        self.size, self.description = self._model.size, self._model.description

    def detect(self, image: Any, *, color: str = "bgr") -> tuple[np.ndarray, np.ndarray]:
        """Detect the people in a picture.

        Args:
            image: (H, W, 3) uint8, a path or a PIL image.
            color: an array's channel order, "bgr" or "rgb".

        Returns:
            boxes (N, 4) float32 x1, y1, x2, y2 within the picture, and scores (N,) float32, best first.

        Raises:
            ArgumentError: the image does not fit, the network does not run, or its outputs have an unknown form.
            FileNotFoundError: a path does not exist.
            StateError: the Detector was made before a fork, or is at work in the same thread.
        """
        self._turn.check_process()
        check_choice("color", color, ("bgr", "rgb"))
        image = as_frame("image", image, color, on_device=False)
        preprocessing = self._model.preprocessing
        pixels, scale, shift = letterbox(
            image,
            self.size,
            swap=color != preprocessing.color,
            centered=preprocessing.centered,
            fill=preprocessing.fill,
        )
        with self._turn:
            boxes, scores = self._model.find(pixels)
        height, width = image.shape[:2]
        boxes = (boxes - np.tile(shift, 2)) / np.tile(scale, 2)
        boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
        kept = (scores >= self.threshold) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.argsort(-scores[kept], kind="stable")
        return boxes[kept][order], scores[kept][order].astype(np.float32)

    def close(self) -> None:
        """Free the network's memory. Does nothing in a fork."""
        if self._turn.is_here:
            self._model.close()


def as_source(source: str | Path | Bundle) -> Path | Bundle:
    """Return the source of a Detector: the path of an ONNX file, or a bundle, loaded.

    Raises:
        FileNotFoundError, BundleError: there is no such bundle, or it is damaged.
        ArgumentError: it is neither.
    """
    if isinstance(source, Bundle):
        return source
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(f"source must be a path or a Bundle, got {source!r}")
    return Path(source) if Path(source).suffix.lower() == ".onnx" else Bundle.load(source)


def _leave_out(case: str, **settings: Any) -> None:
    """Refuse settings that would have no effect; None stands for one that was not given."""
    for name, value in settings.items():
        if value is not None:
            raise ArgumentError(f"{name} must be left out for {case}, got {value!r}")


def _plain_tuple(values: Sequence[float] | None) -> tuple[float, ...]:
    """Checked numbers, of a list or an array, as a tuple; empty for None."""
    return () if values is None else tuple(float(value) for value in values)


def letterbox(
    image: np.ndarray, size: tuple[int, int], *, swap: bool = False, centered: bool = False, fill: int = _GRAY
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale a picture to fit a detector's input, and fill the rest with gray.

    Args:
        image: (H, W, 3) uint8.
        size: (width, height) of the input.
        swap: whether to exchange the first and last channels.
        centered: whether the picture lies in the middle of the input; else at its top left.
        fill: gray level beside the picture.

    Returns:
        (height, width, 3) uint8; input pixels per image pixel (x, y); and where the picture begins (x, y).
    """
    import cv2

    width, height = size
    inner, ratio = fitted_size(image.shape[1::-1], size)
    # Average all pixels when shrinking: otherwise thin people fall between the samples.
    interpolation = cv2.INTER_AREA if ratio < 0.5 else cv2.INTER_LINEAR
    small = cv2.resize(image, inner, interpolation=interpolation)
    x, y = ((width - inner[0]) // 2, (height - inner[1]) // 2) if centered else (0, 0)
    canvas = np.full((height, width, 3), fill, np.uint8)
    canvas[y : y + inner[1], x : x + inner[0]] = small[..., ::-1] if swap else small
    return canvas, np.array([inner[0] / image.shape[1], inner[1] / image.shape[0]]), np.array([x, y])


def _normalized(pixels: np.ndarray, preprocessing: Preprocessing, out: np.ndarray) -> None:
    """Pixels (H, W, 3) uint8 into a network's input (1, 3, H, W)."""
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    for channel in range(3):
        out[0, channel] = pixels[..., channel] * (1 / std[channel]) - mean[channel] / std[channel]


class _OnnxModel:
    """An exported detector of a known family, on ONNX Runtime."""

    def __init__(
        self,
        path: Path,
        threshold: float,
        overlap: float,
        person: int | None,
        given: Preprocessing,
        size: tuple[int, int] | None,
        threads: int | None,
    ) -> None:
        try:
            onnxruntime = load_onnxruntime()
        except ImportError as error:
            raise BackendUnavailable(
                f"a detector needs ONNX Runtime: {error}; `pip install onnxruntime`"
            ) from error
        if not path.is_file():
            raise FileNotFoundError(
                f"detector not found: {redacted(str(path))}; pass an ONNX file, or a bundle with a detector"
            )
        self.path, self.threshold, self.overlap = path, threshold, overlap
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        try:
            content = onnx_file.read(path)
        except BundleError as error:
            raise ArgumentError(f"detector: {error}") from error
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArgumentError(f"detector: {path}: ONNX Runtime cannot load it: {error}") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._input, self.size, dtype = self._read_input(size or stated_size(metadata) or _SIZE)
        self._pixels: np.ndarray = np.zeros((1, 3, *self.size[::-1]), dtype)
        try:
            self._format = recognize(self._run(), self.size, metadata)
            self._person = person_class(metadata) if person is None else person
            color = given.color or stated_color(metadata)
        except ArgumentError as error:
            raise ArgumentError(f"detector: {self.path}: {error}") from error
        self.preprocessing = self._choose(replace(given, color=color))
        self.find(np.full((*self.size[::-1], 3), _GRAY, np.uint8))
        self.description = self._describe()

    def _read_input(self, size: tuple[int, int]) -> tuple[str, tuple[int, int], type]:
        """Return the input's name, its (width, height) and its type; `size` is for sides that it leaves open."""
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if (
            len(inputs) != 1
            or len(shape) != 4
            or (isinstance(shape[0], int) and shape[0] != 1)
            or shape[1] not in (3, "3")
            or inputs[0].type not in _PIXELS
        ):
            came = [(node.name, node.type, node.shape) for node in inputs]
            raise ArgumentError(
                f"{self.path} must have one float32 or float16 input (1, 3, H, W), got {came}"
            )
        width, height = (
            own if isinstance(own, int) else other for own, other in zip(shape[:1:-1], size, strict=True)
        )
        if not 0 < min(height, width) <= max(height, width) <= _LARGEST_SIDE:
            raise ArgumentError(
                f"detector: {self.path}: sides of its input must be from 1 to {_LARGEST_SIDE}, got {width}x{height}"
            )
        return inputs[0].name, (width, height), _PIXELS[inputs[0].type]

    def _choose(self, given: Preprocessing) -> Preprocessing:
        """Return the caller's preprocessing, otherwise the family's."""
        family = self._format.preprocessing
        if not self._format.certain and not (given.color or given.mean or given.std):
            log.warning(
                "%s gives %s, which do not tell what pixels it takes: BGR from 0 to 255 is assumed; "
                "say otherwise with color, mean and std",
                self.path,
                self._format.name,
            )
        return Preprocessing(
            given.color or family.color, given.mean or family.mean, given.std or family.std, family.centered
        )

    def _describe(self) -> str:
        text = f"detector: {self.path.name}, {self._format.name}, threshold {self.threshold}, overlap {self.overlap}"
        text += f", class {self._person}, {self.size[0]}x{self.size[1]}"
        taken = self.preprocessing
        return f"{text}, {taken.color} with mean {_plain(taken.mean)} and std {_plain(taken.std)}"

    def _run(self) -> list[np.ndarray]:
        try:
            outputs = [np.asarray(value) for value in self._session.run(None, {self._input: self._pixels})]
            return [value.astype(np.float32) if value.dtype == np.float16 else value for value in outputs]
        except Exception as error:
            raise ArgumentError(f"detector: {self.path}: ONNX Runtime cannot run it: {error}") from error

    def find(self, pixels: np.ndarray) -> Found:
        """Return boxes in input pixels, and scores."""
        _normalized(pixels, self.preprocessing, self._pixels)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                boxes, scores = self._format.read(self._run(), self._person, self.threshold, self.overlap)
            if len(scores) and not (scores.min() >= 0 and scores.max() <= 1 + 1e-3):
                raise ArgumentError(
                    f"scores must be from 0 to 1, got {scores.min():g} to {scores.max():g}; export with a sigmoid"
                )
            return boxes, np.minimum(scores, 1)
        except NotFiniteError as error:
            raise NotFiniteError(f"detector: {self.path}: {error}") from error
        except (IndexError, ValueError) as error:
            raise ArgumentError(f"detector: {self.path}: {error}") from error

    def close(self) -> None:
        del self._session


class _CentersModel:
    """A bundle's detector of kind "centers", on any backend: one picture at a time, maps decoded on the host."""

    def __init__(
        self,
        bundle: Bundle,
        threshold: float | None,
        overlap: float | None,
        backend: str,
        precision: str,
        device: str | None,
        threads: int | None,
    ) -> None:
        if not bundle.has("detector"):
            raise ArgumentError(
                f"the bundle must have a detector, got {bundle.name!r} ({bundle.path}) without one"
            )
        part = bundle.detector
        if part.kind != "centers" or part.stride is None:
            raise ArgumentError(
                f"the detector of bundle {bundle.name!r} must be of kind 'centers', got {part.kind!r}; "
                "pass its ONNX file"
            )
        self._part: DetectorPart = part
        self.size = part.size
        self.threshold = part.threshold if threshold is None else threshold
        self.overlap = part.nms if overlap is None else overlap
        self.preprocessing = Preprocessing(part.color, part.mean, part.std, fill=part.fill)
        name, place, _ = executors.choose_backend(backend, device, _lacking(bundle, precision))
        if precision == "auto":
            half = place != "cpu" and (name == "torch" or bundle.holds("detector", "fp16"))
            precision = "fp16" if half else "fp32"
        network = (
            bundle.torch_network("detector", precision)
            if name == "torch"
            else bundle.network("detector", precision)
        )
        module = executors.load_backend(name)
        self._memory = module.open_memory(place)
        with self._memory.active():
            self._executor = module.open_executor(network, memory=self._memory, threads=threads, batches=(1,))
            self._bind(network.label)
        self.description = (
            f"detector: bundle {network.bundle.name}, threshold {self.threshold:g}, overlap {self.overlap:g}, "
            f"{self.size[0]}x{self.size[1]}, {name} {precision}"
        )

    def _bind(self, label: str) -> None:
        inputs, outputs, memory = self._executor.inputs, self._executor.outputs, self._memory
        stride = self._part.stride or 1
        cells = (self.size[1] // stride, self.size[0] // stride)
        taken = {"pixels": (3, *self.size[::-1])}
        maps = {name: (channels, *cells) for name, channels in _OUTPUTS.items()}
        for kind, expected in ((inputs, taken), (outputs, maps)):
            came = {name: tensor.shape for name, tensor in kind.items()}
            if came != expected:
                raise BundleError(f"{label}: a detector must have {expected}, got {came}")
        self._host = memory.staging((1, *taken["pixels"]), inputs["pixels"].dtype)
        self._pixels = memory.empty(self._host.shape, inputs["pixels"].dtype)
        self._maps = {name: memory.empty((1, *shape), outputs[name].dtype) for name, shape in maps.items()}
        self._found = {name: memory.staging((1, *shape), outputs[name].dtype) for name, shape in maps.items()}
        self._call = self._executor.bind({"pixels": self._pixels}, self._maps)

    def find(self, pixels: np.ndarray) -> Found:
        """Return boxes in input pixels, and scores."""
        _normalized(pixels, self.preprocessing, self._host)
        with self._memory.active():
            self._memory.upload(self._host, self._pixels)
            self._call()
            for name, array in self._maps.items():
                self._memory.download(array, self._found[name])
            self._memory.synchronize()
        return decode_centers(
            *(self._found[name][0] for name in _OUTPUTS), stride=self._part.stride or 1,
            threshold=self.threshold, overlap=self.overlap,
        )  # fmt: skip

    def close(self) -> None:
        with self._memory.active():
            self._executor.close()
            del self._call, self._pixels, self._maps
        self._memory.close()


def _lacking(bundle: Bundle, precision: str) -> dict[str, str]:
    """Return, for each backend that cannot run the bundle's detector in a precision, the reason."""
    if precision == "int8":
        return {"torch": "it has no int8"}
    if bundle.holds_weights("detector"):
        return {}
    return {"torch": "the bundle has no weights of its detector"}


def _plain(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Arguments for Detector from texts such as "color=rgb", "mean=123.7,116.3,103.5" or "size=640,640".

    Raises:
        ArgumentError: a text has another form, or another number of values.
    """
    return parse_settings("--detector-set", texts, _SETTINGS)


__all__ = ["Detector", "letterbox", "read_settings"]
