"""The Engine: estimates scored poses of the people in frames, in given or detected boxes."""

from __future__ import annotations

import itertools
import math
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks import executors, limits, ops
from oaks.arguments import SetOnce, check_choice, check_count, check_flags, check_iterable
from oaks.boxes import as_box_scores, as_boxes, missing_boxes
from oaks.bundle import PRECISIONS, Bundle, Calibration, Network
from oaks.errors import ArgumentError, BackendUnavailable, BundleError, StateError
from oaks.images import as_frame, is_single, per_frame
from oaks.pipeline import Call, Pipeline, Results
from oaks.poses import Poses
from oaks.scorer import uninformative
from oaks.timings import Timings
from oaks.turns import Turn

if TYPE_CHECKING:
    from oaks.detector import Detector

_HOST_BATCH, _DEVICE_BATCH = 8, 64
NOTHING_WORKS = (BackendUnavailable, BundleError, StateError)
"""Errors that end a long run, because no further picture can be inferred; others concern one picture."""
WHOLE = "whole"
"""Value of `boxes`: each picture is a crop of one person."""


class Engine(SetOnce):
    """A loaded pose model. Thread-safe; it cannot be used after a fork, so a forked child must make a new Engine.

    Args:
        bundle: a folder, a zip file, the name of a shipped bundle, or a Bundle.
        backend: "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime" (with device="cuda": its CUDA provider),
            "onnxruntime_tensorrt", "onnxruntime_tensorrt_rtx"; or "auto": the first available of tensorrt, torch on
            CUDA, openvino, onnxruntime. An explicitly chosen backend never falls back.
        flip: whether to average the heatmaps of each crop and its mirror image, as the paper does; doubles the work.
        precision: "fp32", "fp16", "bf16", "int8", or "auto": fp16 on a GPU and fp32 on a CPU when the bundle provides
            it, otherwise a precision it has.
        device: "cpu", "cuda", "cuda:1", ...; None: the backend's default.
        threads: CPU threads for the networks (with torch: of the process); None: all cores.
        max_batch: maximum people per pass; None: 8 on a CPU, 64 on a GPU. More are split into several passes.
        color: channel order of arrays, "bgr" or "rgb"; None: "bgr". Paths and PIL images need no setting.
        refine: another decoder than the bundle's: "second_peak", "gradient", "dark" or "none".
        detector: finds people where no boxes are given: a Detector; an ONNX file that oaks.Detector accepts, or another
            bundle with a detector; or None for the bundle's own. It is loaded on first use, with the Engine's threads; a
            bundle's also with its backend and device, and its precision or, where the detector lacks that, fp32.

    Attributes:
        bundle: the Bundle.
        backend, device, precision, flip, refine: the values in use.
        threads: CPU threads; None: all cores.
        gives_oaks: whether poses have an OAKS score, that is, the bundle predicts both visibility and similarity.
        score_kind: which score Poses.scores holds, "oaks" or "conventional". The bundle's choice; without one, OAKS if
            `gives_oaks`, otherwise conventional.
        color: the channel order of arrays.
        timings: seconds per stage (oaks.timings.Timings).
        staged: the only attribute that may be set: True makes a device wait after every stage, so that `timings` separates
            them; slower.

    Raises:
        ArgumentError: an argument is invalid, or the bundle has no pose network or lacks the precision.
        FileNotFoundError: the bundle does not exist.
        BundleError: the bundle is damaged, has another or a newer format, or lacks a network that its score needs.
        BackendUnavailable: the backend or the device is not available; the message says what to install.
    """

    bundle: Bundle
    backend: str
    device: str
    precision: str
    flip: bool
    color: str
    refine: str
    threads: int | None
    score_kind: str
    gives_oaks: bool
    timings: Timings
    staged: bool = False

    def __init__(
        self,
        bundle: str | Path | Bundle,
        backend: str = "auto",
        flip: bool = True,
        *,
        precision: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        max_batch: int | None = None,
        color: str | None = None,
        refine: str | None = None,
        detector: Detector | str | Path | Bundle | None = None,
    ) -> None:
        for name, number, limit in (("threads", threads, "threads"), ("max_batch", max_batch, "batch")):
            if number is not None:
                check_count(name, number)
                limits.check(name, limit, int(number))
        check_flags(flip=flip)
        check_choice("precision", precision, ("auto", "bf16", *PRECISIONS))
        check_choice("color", color, (None, "bgr", "rgb"))
        check_choice("refine", refine, (None, "second_peak", "gradient", "dark", "none"))
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if refine is not None and self.bundle.pose.kind == "simcc":
            raise ArgumentError(
                f"refine must be None with a SimCC network, which has no heatmaps, got {refine!r}"
            )
        self.refine = refine or self.bundle.pose.refine
        self.backend, self.device, self._skipped = executors.choose_backend(
            backend, device, _lacking(self.bundle, precision)
        )
        self.flip = bool(flip)
        _check_scorer(self.bundle, self.flip, self.refine)
        self.color = color or "bgr"
        on_device = self.device != "cpu"
        self.precision, networks = choose_networks(self.bundle, self.backend, precision, on_device)
        self._pipeline: Pipeline | None = Pipeline(
            self.bundle,
            self.backend,
            self.device,
            networks=networks,
            batches=batch_sizes(max_batch, on_device),
            flip=self.flip,
            color=self.color,
            refine=self.refine,
            threads=threads,
            second=_second_network(self.bundle, self.backend, self.precision),
        )
        self.score_kind, self.gives_oaks = self._pipeline.score_kind, self._pipeline.gives_oaks
        self._mirror = self.bundle.skeleton.mirror
        pose = self.bundle.pose
        self._cells = math.prod(pose.heatmap_size) if pose.kind == "heatmaps" else 0
        self._visibility = _half(self.bundle.visibility, self._pipeline.copies)
        self._ks_visibility = _half(self.bundle.visibility, 1)
        self._similarity = _half(self.bundle.similarity, 1)
        self.timings = Timings()
        self._detector = detector
        self.threads = threads
        self._turn = Turn("Engine")
        # Free the memory with the last reference: PyCUDA cannot free it later from another thread.
        self._dropped = weakref.finalize(self, _close_dropped, self._pipeline, os.getpid())
        self._dropped.atexit = False

    def infer(self, frames: Any, boxes: Any = None, *, box_scores: Any = None) -> Poses:
        """Estimate the poses of the people in boxes, or of everyone the detector finds.

        Args:
            frames: one picture or several: (H, W, 3) uint8 arrays in the order `color`, a (F, H, W, 3) array,
                paths, PIL images, or arrays on the Engine's own device. They may differ in size.
            boxes: (N, 4) x1, y1, x2, y2 for one picture, a sequence of such for several. None: the detector finds
                the people. "whole": each picture is one person, cut out already.
            box_scores: (N,) for one picture, a sequence of such for several; None: 1. With "whole", a number stands
                for (1,). Must be None without boxes: the detector gives its own.

        Returns:
            Poses in the order of the boxes, frame by frame; of the detector's boxes the best come first.

        Raises:
            ArgumentError: an argument is invalid, or there are neither boxes nor a detector; the message names the
                argument and its value.
            FileNotFoundError: a path does not exist.
            StateError: the Engine is closed, was made before a fork, or is at work in the same thread.
        """
        return self._end(self._begin(frames, boxes, box_scores))

    __call__ = infer

    def infer_stream(
        self, frames: Iterable[Any], boxes: Any = None, *, box_scores: Iterable[Any] | None = None
    ) -> Generator[Poses, None, None]:
        """Call `infer` on each element of `frames` and yield the poses. On a GPU the calls overlap.

        On a GPU, the next element is read, uploaded and cropped while the networks run for one, so poses are yielded
        one element later. On a CPU nothing is read ahead: each element is finished before the next one is read.
        Results and their order are those of `infer`.

        Args:
            frames: each element is what `infer` takes: a picture, or several that share a call. An array on the
                GPU must not be changed until its poses have been yielded.
            boxes: an element for each of `frames`, as `infer` takes them; or None or "whole" for all.
            box_scores: an element for each of `frames`; or None.

        Yields:
            Poses for each element of `frames`.

        Raises:
            ArgumentError, FileNotFoundError, StateError: as `infer`, once the poses of the previous elements were yielded.
        """
        calls = _calls(frames, boxes, box_scores)
        ahead = 0 if self._check_alive().memory.stream is None else 1
        begun: deque[_Begun] = deque()
        failure: Exception | None = None
        try:
            while failure is None:
                try:
                    call = next(calls, None)
                    if call is None:
                        break
                    begun.append(self._begin(*call))
                except Exception as error:  # raised when the poses before it have come
                    failure = error
                    break
                if len(begun) > ahead:
                    yield self._end(begun.popleft())
            while begun:
                yield self._end(begun.popleft())
            if failure is not None:
                raise failure
        finally:
            for left in begun:
                with suppress(Exception):
                    self._end(left)

    def _begin(self, frames: Any, boxes: Any, box_scores: Any) -> _Begun:
        """Read the pictures, find the people unless boxes are given, and start the networks."""
        start = time.perf_counter()
        pictures, single = self._read(frames)
        whole = isinstance(boxes, str)
        if whole and boxes != WHOLE:
            raise ArgumentError(f"boxes must be (N, 4) x1, y1, x2, y2, {WHOLE!r} or None, got {boxes!r}")
        if boxes is None:
            if box_scores is not None:
                raise ArgumentError("box_scores must come with boxes, got them alone")
            found = [self._find(picture) for picture in pictures]
            listed, scores = [own for own, _ in found], [own for _, own in found]
            corners, frame_index, given = _persons(pictures, listed, scores, single=False)
        else:
            corners, frame_index, given = _persons(
                pictures, None if whole else boxes, box_scores, single=single
            )
        reading = time.perf_counter() - start
        with self._turn:
            pipeline = self._check_alive()
            start = time.perf_counter()
            call = None
            if len(corners):
                call = pipeline.start(
                    pictures,
                    corners,
                    frame_index,
                    padding=1.0 if whole else self.bundle.pose.padding,
                    timings=self.timings,
                    staged=self.staged,
                )
            working = time.perf_counter() - start
        on_device = pipeline.memory.stream is not None  # their memory must live until it is read
        kept = pictures if on_device else []
        return _Begun(pipeline, call, corners, given, frame_index, len(pictures), kept, reading, working)

    def _end(self, begun: _Begun) -> Poses:
        """Wait for what `_begin` began."""
        with self._turn:
            if self._check_alive() is not begun.pipeline:
                raise StateError("this Engine was closed while a call was under way")
            start = time.perf_counter()
            if begun.call is None:
                poses = Poses.empty(self.bundle.skeleton, self.score_kind, begun.frame_count)
            else:
                passes = begun.pipeline.finish(begun.call, self.timings)
                with self.timings.stage("score"):
                    poses = self._finish(
                        passes, begun.corners, begun.box_scores, begun.frame_index, begun.frame_count
                    )
            working = begun.working + time.perf_counter() - start
            self.timings.finish(begun.reading, working, len(poses))
        return poses

    def detect(self, frames: Any) -> Any:
        """Detect the people in one picture or several, without estimating poses.

        Args:
            frames: as for `infer`.

        Returns:
            boxes (N, 4) float32 x1, y1, x2, y2 within the picture, and scores (N,) float32, best first; a list of
            such pairs for several pictures.

        Raises:
            ArgumentError: a picture is invalid, or the Engine has no detector.
            FileNotFoundError: a path does not exist.
            StateError: the Engine is closed, was made before a fork, or is at work in the same thread.
        """
        pictures, single = self._read(frames)
        found = [self._find(picture) for picture in pictures]
        return found[0] if single else found

    def _read(self, frames: Any) -> tuple[list[Any], bool]:
        """Pictures in the channel order `color`, and whether a single one was given."""
        on_device = self._check_alive().memory.stream is not None
        single = is_single(frames)
        listed = [frames] if single else list(frames)
        names = ["frames"] if single else [f"frames[{i}]" for i in range(len(listed))]
        return [
            as_frame(name, frame, self.color, on_device=on_device)
            for name, frame in zip(names, listed, strict=True)
        ], single

    @property
    def has_detector(self) -> bool:
        """Whether the Engine can find people where no boxes are given."""
        return self._detector is not None or self.bundle.has("detector")

    @property
    def detector(self) -> Detector:
        """The detector that finds people where no boxes are given; loaded on first use.

        Raises:
            ArgumentError: neither the Engine nor its bundle was given one.
        """
        from oaks.detector import Detector

        self._check_alive()
        if isinstance(self._detector, Detector):
            return self._detector
        with self._turn:
            if not self.has_detector:
                instead = f"boxes, boxes={WHOLE!r} for pictures of one person each, or Engine(detector=...)"
                raise missing_boxes(self.bundle.name, instead)
            if not isinstance(self._detector, Detector):
                self._detector = detector_beside(
                    self.bundle if self._detector is None else self._detector,
                    backend=self.backend,
                    device=self.device,
                    precision=self.precision,
                    threads=self.threads,
                )
            return self._detector

    def _find(self, picture: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes and scores of the people in a picture in the order `color`."""
        detector = self.detector
        with self._turn, self.timings.stage("detect"):
            if isinstance(picture, np.ndarray):
                return detector.detect(picture, color=self.color)
            pixels, scale = self._check_alive().reduced(picture, detector.size)
            boxes, scores = detector.detect(pixels, color="rgb")
            return (boxes / scale).astype(np.float32), scores

    def _finish(
        self,
        passes: Sequence[tuple[int, Results]],
        boxes: np.ndarray,
        box_scores: np.ndarray,
        frame_index: np.ndarray,
        frame_count: int,
    ) -> Poses:
        """Logits to probabilities (bundle.json's calibration), and both scores."""
        parts = [self._probabilities(persons, results) for persons, results in passes]
        points, heat, visibility, similarity = (
            # Always copies: the next call overwrites the buffer of the results.
            np.concatenate(columns)
            for columns in zip(*parts, strict=True)
        )
        conventional = ops.conventional_score(heat)
        if self.gives_oaks:
            oaks_scores = ops.score(similarity, visibility)
        else:
            oaks_scores = np.full(len(boxes), np.nan, np.float32)
        if self.score_kind == "oaks":
            scores = oaks_scores * box_scores ** np.float32(self.bundle.box_score_power)
        else:
            scores = conventional * box_scores
        return Poses(
            keypoints=points,
            visibility=visibility,
            similarity=similarity,
            heat=heat,
            oaks_scores=oaks_scores,
            conventional_scores=conventional,
            scores=scores,
            boxes=boxes,
            box_scores=box_scores,
            frame_index=frame_index,
            skeleton=self.bundle.skeleton,
            score_kind=self.score_kind,
            frame_count=frame_count,
        )

    def _probabilities(
        self, persons: int, results: Results
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Points, heat, visibility and similarity of a pass; NaN for what the bundle cannot give."""
        heat = results.heat[:persons]
        visibility = similarity = None
        if results.visibility is not None and results.ks_visibility is None:
            logits = results.visibility[:persons].astype(np.float32)
            if self.flip:
                half = len(results.visibility) // 2
                logits += results.visibility[half : half + persons].take(self._mirror, axis=1)
            visibility = _probability(logits, *self._visibility)
        if results.similarity is not None:
            similarity = _probability(results.similarity[:persons].astype(np.float32), *self._similarity)
        if results.ks_visibility is not None:  # it takes precedence over the pose network's
            visibility = _probability(
                results.ks_visibility[:persons].astype(np.float32), *self._ks_visibility
            )
        if results.scored_similarity is not None:
            features = results.features[:persons]
            nothing = uninformative(features, self._cells)
            # A person with a map that is not finite has features of NaN, and no score.
            instead = np.where(np.isnan(features[..., 0]), np.float32(np.nan), np.float32(0))
            similarity = np.where(nothing, instead, results.scored_similarity[:persons])
            visibility = np.where(nothing, instead, results.scored_visibility[:persons])
        if visibility is None or similarity is None:
            unknown = np.full_like(heat, np.nan)
            visibility = unknown if visibility is None else visibility
            similarity = unknown if similarity is None else similarity
        return results.points[:persons], heat, visibility, similarity

    def warmup(self) -> None:
        """Run every batch size once, so that no later call waits for plans, graphs or first allocations."""
        self._check_alive()
        with self._turn:
            pipeline = self._check_alive()
            width, height = self.bundle.pose.size
            black = np.zeros((height, width, 3), np.uint8)
            timings = Timings()
            for batch in pipeline.batches:
                boxes = np.tile(np.array([0, 0, width, height], np.float32), (batch, 1))
                index = np.zeros(batch, np.int32)
                call = pipeline.start([black], boxes, index, padding=1.0, timings=timings, staged=self.staged)
                pipeline.finish(call, timings)

    def describe(self) -> dict[str, Any]:
        """Return how poses are made, for headers of results and for reports, ready for JSON."""
        pipeline, pose = self._check_alive(), self.bundle.pose
        decoder = {"decoder": self.refine, "alignment": pose.alignment}
        detector = (
            None if isinstance(self._detector, Bundle) else getattr(self._detector, "description", None)
        )
        return {
            "bundle": self.bundle.name,
            "bundle_sha256": self.bundle.sha256,
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "flip": self.flip,
            **({"decoder": "simcc", "split": pose.split} if pose.kind == "simcc" else decoder),
            "padding": pose.padding,
            "score": self.score_kind,
            "box_score_power": self.bundle.box_score_power,
            "batches": list(pipeline.batches),
            "cuda_graphs": pipeline.memory.graphs,
            "networks": {role: dict(executor.details) for role, executor in pipeline.executors.items()},
            "skipped_backends": self._skipped,
            "detector": detector,
        }

    def close(self) -> None:
        """Free the networks and their memory. Does nothing on a closed Engine or in a fork.

        Raises:
            StateError: called from a signal handler or callback while a call in the same thread is running.
        """
        if not self._turn.is_here:
            return  # locks and destructors may wait for threads that do not run here
        with self._turn:
            pipeline, self._pipeline = self._pipeline, None
            if pipeline is not None:
                self._dropped.detach()
                pipeline.close()

    def __enter__(self) -> Engine:
        self._check_alive()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_alive(self) -> Pipeline:
        self._turn.check_process()
        if self._pipeline is None:
            raise StateError("this Engine is closed; make a new one")
        return self._pipeline


@dataclass
class _Begun:
    """A call of `infer` in progress.

    Attributes:
        pipeline: that it runs on.
        call: what runs there; None without people.
        corners, box_scores, frame_index: of the people.
        frame_count: how many pictures.
        kept: pictures that may still be read.
        reading, working: seconds so far.
    """

    pipeline: Pipeline
    call: Call | None
    corners: np.ndarray
    box_scores: np.ndarray
    frame_index: np.ndarray
    frame_count: int
    kept: Sequence[Any]
    reading: float
    working: float


def _calls(frames: Iterable[Any], boxes: Any, box_scores: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the arguments of `infer`, call by call."""
    frames = check_iterable("frames", frames)
    for_all = boxes is None or isinstance(boxes, str)
    own_boxes: Iterator[Any] = itertools.repeat(boxes) if for_all else check_iterable("boxes", boxes)
    own_scores: Iterator[Any] = (
        itertools.repeat(None) if box_scores is None else check_iterable("box_scores", box_scores)
    )
    nothing = object()
    count = 0
    for count, entry in enumerate(frames, 1):
        call = (entry, next(own_boxes, nothing), next(own_scores, nothing))
        for name, value in (("boxes", call[1]), ("box_scores", call[2])):
            if value is nothing:
                raise ArgumentError(f"{name} must have an element for each of frames, got {count - 1}")
        yield call
    for name, own, endless in (("boxes", own_boxes, for_all), ("box_scores", own_scores, box_scores is None)):
        if not endless and next(own, nothing) is not nothing:
            raise ArgumentError(f"{name} must have an element for each of the {count} frames, got more")


def infer_each(
    engine: Engine,
    pictures: Sequence[Any],
    boxes: Sequence[Any],
    box_scores: Sequence[Any],
    failed: Callable[[int, str], object],
) -> Poses:
    """`Engine.infer` for long runs: a picture that cannot be inferred has no poses; the others are not affected.

    Args:
        pictures, boxes, box_scores: as `Engine.infer` takes them for several pictures.
        failed: called with the index of each picture that cannot be inferred, or has poses without a score, and why.

    Raises:
        BackendUnavailable, BundleError: no picture can be inferred.
        StateError: the Engine is closed, or was made before a fork.
    """
    return begin_each(engine, pictures, boxes, box_scores, failed)()


def begin_each(
    engine: Engine,
    pictures: Sequence[Any],
    boxes: Sequence[Any],
    box_scores: Sequence[Any],
    failed: Callable[[int, str], object],
) -> Callable[[], Poses]:
    """`infer_each` in two steps: begins, and returns the call that waits for the poses. On a CPU, that call begins."""

    def infer() -> Poses:
        return engine.infer(pictures, boxes=boxes, box_scores=box_scores)

    if engine.device == "cpu":
        return lambda: _split_on_failure(infer, engine, pictures, boxes, box_scores, failed)
    try:
        begun = engine._begin(pictures, boxes, box_scores)
    except NOTHING_WORKS:
        raise
    except Exception as raised:  # of a runtime: each has its own
        failure = raised

        def end() -> Poses:
            raise failure
    else:

        def end() -> Poses:
            return engine._end(begun)

    return lambda: _split_on_failure(end, engine, pictures, boxes, box_scores, failed)


def _split_on_failure(
    infer: Callable[[], Poses],
    engine: Engine,
    pictures: Sequence[Any],
    boxes: Sequence[Any],
    box_scores: Sequence[Any],
    failed: Callable[[int, str], object],
) -> Poses:
    """Infer all pictures together; if that fails, one by one."""
    try:
        poses = infer()
    except NOTHING_WORKS:
        raise
    except Exception as error:
        engine._check_alive()
        if len(pictures) == 1:
            failed(0, str(error) or type(error).__name__)
            return Poses.empty(engine.bundle.skeleton, engine.score_kind)
        parts = []
        for number, (picture, own, scores) in enumerate(zip(pictures, boxes, box_scores, strict=True)):

            def tell(_place: int, why: str, number: int = number) -> None:
                failed(number, why)

            part = infer_each(engine, [picture], [own], [scores], tell)
            parts.append(replace(part, frame_index=np.full(len(part), number)))
        return replace(Poses.concatenate(parts), frame_count=len(pictures))
    report_unscored(poses, failed)
    return poses


def report_unscored(poses: Poses, failed: Callable[[int, str], object]) -> None:
    """Call `failed` with the number of each frame that has poses without a finite score, and why."""
    unscored = ~np.isfinite(poses.scores)
    for number in np.unique(poses.frame_index[unscored]):
        own = poses.frame_index == number
        count = int((own & unscored).sum())
        failed(
            int(number),
            f"poses without a finite score: {count} of {int(own.sum())}; the network's values are not finite",
        )


def _persons(
    pictures: Sequence[Any], boxes: Any, box_scores: Any, *, single: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (N, 4), the frame of each (N,) int32, and their scores (N,)."""
    count = len(pictures)
    if boxes is None:
        corners = np.array([(0, 0, p.shape[1], p.shape[0]) for p in pictures], np.float32).reshape(-1, 4)
        # For one box, a bare number is accepted as well as (1,).
        scores = as_box_scores("box_scores", box_scores, count, or_shape=() if single else (count, 1))
        return corners, np.arange(count, dtype=np.int32), scores
    suffixes = [""] if single else [f"[{i}]" for i in range(count)]
    listed = per_frame("boxes", boxes, count, single=single)
    stated: list[Any] = [None] * count
    if box_scores is not None:
        stated = per_frame("box_scores", box_scores, count, single=single)
    checked = [as_boxes(f"boxes{at}", entry) for at, entry in zip(suffixes, listed, strict=True)]
    given = [
        as_box_scores(f"box_scores{at}", entry, len(own))
        for at, entry, own in zip(suffixes, stated, checked, strict=True)
    ]
    index = np.repeat(np.arange(count, dtype=np.int32), [len(own) for own in checked])
    if not checked:
        return np.zeros((0, 4), np.float32), index, np.zeros(0, np.float32)
    return np.concatenate(checked), index, np.concatenate(given)


def _check_scorer(bundle: Bundle, flip: bool, refine: str) -> None:
    """Refuse settings that a scorer of boosted trees was not fitted to: it would rank worse than no scorer."""
    if bundle.scorer is None or bundle.scorer.kind != "forest":
        return
    for name, given, fitted in (("flip", flip, True), ("refine", refine, bundle.pose.refine)):
        if given != fitted:
            raise ArgumentError(
                f"{name} must be {fitted!r} with bundle {bundle.name!r}, whose scorer was fitted so, got {given!r}"
            )


def _second_network(bundle: Bundle, backend: str, precision: str) -> Network | None:
    """Return the pose network of the second opinion."""
    second = bundle.second_opinion()
    if second is None:
        return None
    if backend == "torch":
        return second.torch_network("pose", precision)
    return second.network("pose", _precision_beside(second, "pose", backend, precision))


def detector_beside(
    source: str | Path | Bundle,
    *,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    **settings: Any,
) -> Detector:
    """Load a detector to run beside a pose network: a bundle's on the same backend, an ONNX file's on ONNX Runtime.

    A bundle's detector without torch weights takes the fastest backend beside a pose network on torch.

    Args:
        source: as for `Detector`.
        backend, device, precision, threads: those of the pose network; fp32 if the detector lacks the precision.
        settings: further arguments of `Detector`.

    Raises:
        ArgumentError: as for `Detector`.
    """
    from oaks.detector import Detector, as_source

    source = as_source(source)
    if isinstance(source, Bundle):
        if backend == "torch" and not source.holds_weights(
            "detector"
        ):  # the backend was chosen for the pose network
            backend, precision = "auto", "auto"
        precision = _precision_beside(source, "detector", backend, precision)
        settings |= {"backend": backend, "device": device, "precision": precision}
    return Detector(source, threads=threads, **settings)


def _precision_beside(bundle: Bundle, role: str, backend: str, precision: str) -> str:
    """Return the precision of another network that runs beside the Engine's: the same, or fp32 where it lacks that."""
    # The caller chose the precision of the Engine's own network; others, such as a detector in fp16, may lack int8.
    held = backend == "torch" or precision in ("auto", "bf16") or bundle.holds(role, precision)
    return precision if held else "fp32"


def _lacking(bundle: Bundle, precision: str) -> dict[str, str]:
    """Return, for each backend that cannot run the bundle in a precision, the reason."""
    lacking = {}
    if not bundle.has_weights("pose"):
        lacking["torch"] = "the bundle has no weights for it; `oaks export` writes them"
    if not bundle.precisions("pose"):
        others = (name for name in executors.BACKENDS if name != "torch")
        lacking |= dict.fromkeys(others, "the bundle has no ONNX file of the pose network")
    if precision == "int8":
        lacking["torch"] = "it has no int8"
    return lacking


def choose_networks(
    bundle: Bundle, backend: str, precision: str, on_device: bool
) -> tuple[str, list[Network]]:
    """Return the precision to run in, and the networks in it; a KS network may stay fp32 beside int8."""
    if precision == "auto":
        order = ("fp16", "fp32", "int8") if on_device else ("fp32", "fp16", "int8")
        held = [
            p for p in order if bundle.holds("pose", p) and (not bundle.has("ks") or _ks_precision(bundle, p))
        ]
        if backend == "torch":  # its weights run in either
            held = [p for p in held if p == "fp16" and on_device]
        precision = held[0] if held else "fp32"
    if backend == "torch":
        return precision, bundle.weights(precision)
    networks = [bundle.network("pose", precision)]
    if bundle.has("ks"):
        networks.append(bundle.network("ks", _ks_precision(bundle, precision) or precision))
    return precision, networks


def _ks_precision(bundle: Bundle, precision: str) -> str | None:
    """Precision of the KS network beside a pose network: the same, or fp32 beside int8; None if unavailable."""
    choices = [precision, "fp32"] if precision == "int8" else [precision]
    return next((p for p in choices if bundle.holds("ks", "fp32" if p == "bf16" else p)), None)


def batch_sizes(max_batch: int | None, on_device: bool) -> list[int]:
    """Batch sizes of a pass: powers of two and the largest; on a CPU also every size up to 8. On a CPU, each size
    keeps its own memory once used, and warmup runs each.
    """
    largest = int(max_batch or (_DEVICE_BATCH if on_device else _HOST_BATCH))
    sizes = {min(1 << power, largest) for power in range(largest.bit_length() + 1)}
    if not on_device:
        sizes |= set(range(1, min(largest, _HOST_BATCH) + 1))
    return sorted(sizes)


def _close_dropped(pipeline: Pipeline, process: int) -> None:
    """Close the pipeline of an Engine without references, unless this is a fork of its process."""
    if process == os.getpid():
        pipeline.close()


def _half(calibration: Calibration, summed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias for _probability, which takes the sum of `summed` logits to average."""
    return np.float32(0.5) * calibration.scale / np.float32(summed), np.float32(0.5) * calibration.bias


def _probability(logits: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """sigmoid(2 (scale * logits + bias)) in the logits' place, without overflow."""
    logits *= scale
    logits += bias
    np.tanh(logits, out=logits)
    logits += 1
    logits *= 0.5
    return logits


__all__ = ["Engine", "batch_sizes", "choose_networks", "infer_each", "report_unscored"]
