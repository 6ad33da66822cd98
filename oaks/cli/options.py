"""Options of the command line, each defined once, and groups of options that several verbs share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oaks.errors import ArgumentError
from oaks.ops import OKS_THRESHOLD

if TYPE_CHECKING:
    from oaks import bundle as bundles
    from oaks.box_files import PersonBoxes
    from oaks.boxes import BoxSource as PersonBoxSource
    from oaks.detector import Detector
    from oaks.inference import Engine
    from oaks.skeleton import Skeleton

Bundle = Annotated[str, typer.Option(help="Model bundle: folder, zip file, or name of a shipped one.")]
BundleArgument = Annotated[
    str, typer.Argument(help="Model bundle: folder, zip file, or name of a shipped one.")
]
Annotations = Annotated[Path, typer.Option(help="COCO keypoint annotations.")]
AnnotationsArgument = Annotated[Path, typer.Argument(help="COCO keypoint annotations.")]
Images = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the images. Default: the annotations' path without .json, or images/ beside it."
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="auto (the fastest installed of the first four), tensorrt, torch, openvino, onnxruntime, tensorrt_rtx, "
        "onnxruntime_tensorrt or onnxruntime_tensorrt_rtx."
    ),
]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: the backend's own.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads of the networks. Default: all cores; on Ray 4 per Engine."),
]
Flip = Annotated[bool, typer.Option(help="Average with the mirrored crop, as the paper does.")]
Refine = Annotated[
    str | None, typer.Option(help="second_peak, gradient, dark or none. Default: the bundle's decoder.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")]
Resamples = Annotated[
    int, typer.Option(min=1, max=10**5, help="Bootstrap resamples of the images, for the intervals.")
]
Skeleton_ = Annotated[
    Path | None, typer.Option("--skeleton", help="JSON file of a skeleton. Default: COCO's 17 keypoints.")
]
Category = Annotated[
    str | None,
    typer.Option(
        help="Category of people in COCO files: name or id. Default: the category with keypoints, otherwise 'person'; "
        "in box results, id 1."
    ),
]
BoxSource = Annotated[
    str | None,
    typer.Option(help="'ground truth' or 'detected', for results files without a header. Default: detected."),
]
NMS = OKS_THRESHOLD
"""Default of --nms in every verb. The library takes None where --nms is 0."""
Nms = Annotated[
    float,
    typer.Option(min=0, max=1, help="OKS threshold for NMS of poses in detected boxes; 0 disables NMS."),
]
MinBoxScore = Annotated[float, typer.Option(help="Minimum score of a detected box.")]
Against = Annotated[
    str | None, typer.Option(help="'paper' adds the paper's figures to the tables. Default: ours alone.")
]
Data = Annotated[Path, typer.Option(help="Folder that the recipe's paths are relative to.")]
Packed = Annotated[
    Path | None,
    typer.Option(help="Folder of packed people (oaks pack), read instead of the images. Default: none."),
]
Set = Annotated[
    list[str], typer.Option("--set", help="Change a field of the recipe: training.epochs=10. Repeatable.")
]
MaxMinutes = Annotated[
    float | None, typer.Option(help="Stop with a checkpoint after this many minutes. Default: no limit.")
]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
Estimator = Annotated[
    str | None, typer.Option(help="Name of the estimator. Default: as the results' header says.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Engines on Ray. Default: one per GPU, or without GPUs one per --threads CPUs."),
]
RAY_LOCAL = "local"


def with_ray_address(arguments: list[str]) -> list[str]:
    """Return the arguments, with the value of a --ray without an address filled in."""
    completed = []
    for place, word in enumerate(arguments):
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        bare = word == "--ray" and not re.fullmatch(r"auto|local|(ray://)?[\w.\-\[\]:]+:\d+", following)
        completed.append(f"{word}={RAY_LOCAL}" if bare else word)
    return completed


def skeleton(path: Path | None) -> Skeleton:
    """Return the skeleton of --skeleton.

    Raises:
        FileNotFoundError, ArgumentError: there is no such file, or it is no skeleton.
    """
    from oaks.skeleton import COCO17, Skeleton

    return COCO17 if path is None else Skeleton.from_json(path)


def leave_out(options: Mapping[str, object], case: str) -> None:
    """Refuse options that would have no effect.

    Args:
        options: option -> its value; None, False and an empty list stand for an option that was not given.
        case: when the options have no effect, as messages say it.

    Raises:
        ArgumentError: one of them was given.
    """
    for name, value in options.items():
        if not (value is None or value is False or value == []):
            words = value if isinstance(value, list | tuple) else [value]
            raise ArgumentError(f"{name} must be left out {case}, got {' '.join(map(str, words))}")


@dataclass(frozen=True)
class EngineOptions:
    """Options for running a bundle."""

    backend: Backend = "auto"
    precision: Precision = "auto"
    device: Device = None
    threads: Threads = None
    flip: Flip = True
    refine: Refine = None

    def open(self, bundle: str, detector: Detector | None = None) -> Engine:
        """Open an Engine with these settings and an optional detector."""
        from oaks.inference import Engine

        return Engine(bundle, detector=detector, **vars(self))


@dataclass(frozen=True)
class DetectorOptions:
    """Options of a person detector."""

    detector: Annotated[
        str | None,
        typer.Option(
            help="Person detector: an ONNX file, or a bundle that has one. Default: that of --bundle."
        ),
    ] = None
    detector_threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Minimum score of a detected box. Default: the bundle's; 0.3 for an ONNX file."
        ),
    ] = None
    detector_person: Annotated[
        int | None,
        typer.Option(
            help="The detector's class index of a person. Default: that of the class named person, 0 without names."
        ),
    ] = None
    detector_set: Annotated[
        list[str],
        typer.Option(
            help="Preprocessing and NMS of the detector: color=rgb, mean=A,B,C and std=A,B,C in that "
            "order (0-255), size=W,H, overlap=0.65. Repeatable."
        ),
    ] = ()  # type: ignore[assignment]  # a dataclass takes no list as a default; typer makes one

    @property
    def description(self) -> str:
        """Describe the detector and its settings in one line."""
        settings = f"threshold={self.detector_threshold} person={self.detector_person}"
        return f"detector: {' '.join([self.detector or 'of the bundle', settings, *self.detector_set])}"

    @property
    def given(self) -> bool:
        """Whether a detector, or a threshold for that of the bundle, was given."""
        return self.detector is not None or self.detector_threshold is not None

    def check(self, boxes: object) -> None:
        """Raise ArgumentError for options that would have no effect, beside `boxes` or without a detector."""
        if boxes and self.detector is not None:
            raise ArgumentError("pass at most one of --boxes, --detector")
        if boxes:
            leave_out({"--detector-threshold": self.detector_threshold}, "with --boxes")
        if self.detector is None:
            only = {"--detector-person": self.detector_person, "--detector-set": list(self.detector_set)}
            leave_out(only, "without --detector")

    def check_bundle(self, bundle: str | bundles.Bundle) -> None:
        """Raise ArgumentError if only a threshold was given, and the bundle has no detector that it could be for."""
        from oaks.bundle import Bundle

        if self.detector is not None or self.detector_threshold is None:
            return
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if not loaded.has("detector"):
            raise ArgumentError(
                f"--detector-threshold must be left out for bundle {loaded.name!r}, which has no detector, got "
                f"{self.detector_threshold:g}; or pass --detector"
            )

    def load(self, engine: Engine | EngineOptions, bundle: str | bundles.Bundle) -> Detector | None:
        """Return the detector, or None if neither a detector nor a threshold was given.

        Args:
            engine: gives backend, device, precision and threads.
            bundle: its detector is taken if only a threshold was given.

        Raises:
            ArgumentError: as `check_bundle`, or the detector does not fit.
        """
        from oaks.detector import read_settings
        from oaks.inference import detector_beside

        self.check_bundle(bundle)
        if not self.given:
            return None
        return detector_beside(
            bundle if self.detector is None else self.detector,
            backend=engine.backend, device=engine.device, precision=engine.precision, threads=engine.threads,
            threshold=self.detector_threshold, person=self.detector_person, **read_settings(self.detector_set),
        )  # fmt: skip


@dataclass(frozen=True)
class DrawingOptions:
    """Options for drawing poses."""

    absent: Annotated[str, typer.Option(help="Keypoints predicted absent: hide or hollow.")] = "hide"
    show_boxes: Annotated[bool, typer.Option("--show-boxes", help="Draw the boxes too.")] = False


@dataclass(frozen=True)
class EvaluationOptions:
    """Options for evaluating results."""

    against: Against = None
    resamples: Resamples = 1000
    seed: Seed = 0
    landing: Annotated[
        str,
        typer.Option(
            help="How far from its label the error analysis puts a corrected keypoint: as in its definition, or as in its "
            "released code (released)."
        ),
    ] = "definition"
    judge: Annotated[str, typer.Option(help="Package that computes AP: pycocotools or faster-coco-eval.")] = (
        "pycocotools"
    )

    def settings(self, images: Path | None) -> Any:
        """Return the settings of oaks.val.evaluate."""
        from oaks.val.evaluate import Settings

        given = {name: value for name, value in vars(self).items() if name != "against"}
        return Settings(**given, beside_paper=beside_paper(self.against), images=images)


def beside_paper(against: str | None) -> bool:
    """Return whether the paper's figures were requested.

    Raises:
        ArgumentError: the value is not 'paper'.
    """
    if against not in (None, "paper"):
        raise ArgumentError(f"--against must be 'paper', got {against!r}")
    return against is not None


def about(engine: Engine, boxes: str) -> str:
    """Describe in one line what runs and where its boxes come from."""
    return (
        f"bundle {engine.bundle.name} on {engine.backend} ({engine.device}, {engine.precision}), "
        f"{engine.score_kind} score, boxes: {boxes}"
    )


WHOLE = Path("whole")
"""Value of --boxes: each picture is a crop of one person."""


def box_source(
    boxes: Path | None,
    detector: DetectorOptions,
    engine: Engine,
    category: str | None,
    pictures: Sequence[Path],
) -> PersonBoxSource:
    """Return the box source of pictures: the file of --boxes, --detector, or the bundle's detector.

    Raises:
        ArgumentError: both were given, or neither and the bundle has no detector, or the file has no box of the pictures.
    """
    given = given_boxes(boxes, detector, engine.bundle, category)
    if given is not None:
        if given.people is not None:
            given.people.check_pictures(pictures)
        return given(engine)
    return detected_boxes(detector, engine, "--boxes FILE, --boxes whole, --detector")


def given_boxes(
    boxes: Path | None,
    detector: DetectorOptions,
    bundle: str | bundles.Bundle,
    category: str | None = None,
) -> GivenBoxes | None:
    """Return the source named by --boxes or --detector, or the bundle's detector with --detector-threshold; otherwise None.

    Raises:
        ArgumentError: the options exclude each other, the file is invalid, or the bundle has no detector.
    """
    from oaks.box_files import read_boxes

    detector.check(boxes)
    detector.check_bundle(bundle)
    if boxes is not None:
        return GivenBoxes(str(boxes), None if boxes == WHOLE else read_boxes(boxes, category))
    return GivenBoxes(detector.description, None, detector) if detector.given else None


@dataclass(frozen=True)
class GivenBoxes:
    """Function that makes the box source of the options for an Engine, in this process or another.

    Attributes:
        description: of the options.
        people: boxes of a file.
        detector: a detector to load. Without either, each picture is one person.
    """

    description: str
    people: PersonBoxes | None
    detector: DetectorOptions | None = None

    def __call__(self, engine: Engine) -> PersonBoxSource:
        """Return the box source for an Engine."""
        from oaks.boxes import boxes_from_detector, boxes_of_people, whole_image

        if self.people is not None:
            return boxes_of_people(self.people, sequence=False)
        loaded = None if self.detector is None else self.detector.load(engine, engine.bundle)
        return whole_image() if loaded is None else boxes_from_detector(loaded)


def detected_boxes(
    detector: DetectorOptions, engine: Engine, instead: str, every: int | None = 1
) -> PersonBoxSource:
    """Return boxes from --detector, otherwise from the detector of the Engine's bundle.

    Raises:
        ArgumentError: neither is available; the message says what to pass instead.
    """
    from oaks.boxes import boxes_from_detector, missing_boxes

    if detector.detector is None and not engine.has_detector:
        raise missing_boxes(engine.bundle.name, f"exactly one of {instead}")
    return boxes_from_detector(detector.load(engine, engine.bundle) or engine.detector, every)
