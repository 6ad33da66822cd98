"""Crop -> pose network -> decode -> KS network on one device, with every buffer allocated once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from oaks import limits, ops
from oaks.bundle import Bundle, Network
from oaks.bundle_files import DESCRIPTION
from oaks.errors import ArgumentError, BundleError
from oaks.executors import load_backend, open_network
from oaks.executors.base import Array, Executor, HostMemory, Memory
from oaks.forks import outlives_forks
from oaks.images import fitted_size
from oaks.names import number_of
from oaks.ops import native
from oaks.scorer import load_forests
from oaks.timings import Timings

_HOST = HostMemory()
_ALIGNED = 256
"""Alignment of arrays on a device, in bytes."""


@dataclass(frozen=True)
class Results:
    """Results of a pass on the host, before calibration.

    Attributes:
        points: (N, K, 2) float32 image pixels.
        heat: (N, K) float32.
        visibility: (N, K) or, with the mirrored crops' last, (2N, K) logits; or None.
        similarity: (N, K) logits; or None.
        ks_visibility: (N, K) logits of a KS network that predicts visibility too; or None.
        features: (N, K, F) float32 features of a scorer's trees; or None.
        scored_similarity, scored_visibility: (N, K) float32, predicted by the trees; or None.
    """

    points: Any
    heat: Any
    visibility: Any
    similarity: Any
    ks_visibility: Any
    features: Any
    scored_similarity: Any
    scored_visibility: Any


@dataclass
class _Inputs:
    """Buffers that the crop fills and the networks read, for the largest batch; smaller batches use the first rows.

    Attributes:
        pixels, transforms: of the crop.
        boxes, frame_sizes: inputs of a scorer's features; None without a scorer.
        filled: event after the crop.
        read: event after the last pass that read them.
    """

    pixels: Array
    transforms: Array
    boxes: Array
    frame_sizes: Array
    filled: Any
    read: Any


@dataclass
class _Pass:
    """The arrays and calls of one batch size on one set of inputs."""

    pixels: Array
    transforms: Array
    results: Array
    layout: _Layout
    steps: dict[str, Callable[[], Any]]
    recorded: Callable[[], None] | None


class _HostBuffers:
    """Host memory of one call in progress, reused by later calls; it grows as needed."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._named: dict[str, np.ndarray] = {}
        self.done = memory.mark()

    def take(self, name: str, size: int) -> np.ndarray:
        """Return `size` bytes of staging memory."""
        if name not in self._named or self._named[name].size < size:
            if name in self._named:
                self._memory.drop_staging(self._named.pop(name))
            self._named[name] = self._memory.staging((_roomy(size),), np.uint8)
        return self._named[name][:size]

    def copied(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return a copy of a float32 array in staging memory of its own."""
        staged = _HOST.view(self.take(name, values.nbytes), 0, values.shape, np.float32)
        np.copyto(staged, values)
        return staged


@dataclass
class Call:
    """A call begun by `Pipeline.start`.

    Attributes:
        passes: (persons, results) for each pass; `Pipeline.finish` returns them when they are ready.
    """

    passes: list[tuple[int, Results]]
    buffers: _HostBuffers


class Pipeline:
    """The networks of a bundle on one backend and device, and the buffers between them.

    Args:
        batches: batch sizes of a pass, ascending.
        flip: whether to run the pose network on the mirrored crops too.
        color: the frames' channel order.
        second: pose network of the scorer's second opinion, from another bundle.
        memory: memory shared by a pipeline within another one; the inner one gives poses only, and closing it keeps
            the memory open.

    Raises:
        BundleError: a network does not load, is not what bundle.json says, or the networks do not give the
            score that it promises.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        device: str,
        *,
        networks: Sequence[Network],
        batches: Sequence[int],
        flip: bool,
        color: str,
        refine: str,
        threads: int | None,
        second: Network | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._bundle, self._name, self.batches = bundle, name, tuple(batches)
        self._flip, self._color, self._refine = flip, color, refine
        self.copies = 2 if flip else 1
        self._passes: dict[tuple[int, int], _Pass] = {}
        self._layouts: dict[int, _Layout] = {}
        self._inputs: list[_Inputs] = []
        self._turn = 0
        self._free: list[_HostBuffers] = []
        self._under_way = 0
        self._arrived: Array | None = None
        self.executors: dict[str, Executor] = {}
        module = load_backend(name)
        outlives_forks(self)
        with ExitStack() as undo:
            self._within, self._second = memory is not None, None
            self.memory: Memory = memory or module.open_memory(device)
            undo.callback(self.close)
            with self.memory.active():
                self._allocated = self.memory.mark()
                self._load_forests()
                if second is not None:
                    self._second = Pipeline(
                        second.bundle, name, device, networks=[second], batches=batches, flip=flip, color=color,
                        refine=second.bundle.pose.refine, threads=threads, memory=self.memory,
                    )  # fmt: skip
                for network in networks:
                    if network.role == "ks" and self.has_forests:
                        continue  # forests need the raw maps, which a KS network would average in place
                    copies = self.copies if network.role == "pose" else 1
                    executor = open_network(
                        name,
                        network,
                        memory=self.memory,
                        threads=threads,
                        batches=[copies * batch for batch in batches],
                    )
                    self.executors[network.role] = executor
                    self._check(network, executor)
                self._choose_score()
                self._allocate()
            undo.pop_all()

    def _check(self, network: Network, executor: Executor) -> None:
        """Check that the network's inputs and outputs are those of bundle.json."""
        bundle = self._bundle
        keypoints, maps = bundle.skeleton.count, self._map_shapes()
        if network.role == "pose":
            required_inputs: dict[str, tuple[int, ...]] = {"crops": (3, *bundle.pose.size[::-1])}
            allowed_outputs = {**maps, "visibility": (keypoints,)}
            needed = set(maps)
        else:
            required_inputs = maps
            allowed_outputs = {"similarity": (keypoints,), "visibility": (keypoints,)}
            needed = {"similarity"}
        inputs = {name: tensor.shape for name, tensor in executor.inputs.items()}
        outputs = {name: tensor.shape for name, tensor in executor.outputs.items()}
        fits = inputs == required_inputs and needed <= set(outputs)
        if not fits or any(allowed_outputs.get(name) != shape for name, shape in outputs.items()):
            raise BundleError(
                f"{network.label}: after the batch, inputs must be {required_inputs} and outputs {allowed_outputs}, "
                f"got {inputs} and {outputs}"
            )
        if network.role == "ks":
            given = self.executors["pose"].outputs["heatmaps"].dtype
            taken = executor.inputs["heatmaps"].dtype
            if given != taken:
                raise BundleError(
                    f"{network.label} must take heatmaps of {given}, as the pose network gives, got {taken}"
                )

    def _map_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the outputs that keypoints are decoded from, and their shapes without the batch axis."""
        pose, keypoints = self._bundle.pose, self._bundle.skeleton.count
        if pose.kind == "simcc":
            width, height = pose.size
            return {"x": (keypoints, round(width * pose.split)), "y": (keypoints, round(height * pose.split))}
        width, height = pose.heatmap_size
        return {"heatmaps": (keypoints, height, width)}

    def _load_forests(self) -> None:
        """Read the scorer's trees and copy them to the device."""
        on_device = self.memory.stream is not None
        self._forests: list[Any] = [
            forest.to_device(self._uploaded) if on_device else forest
            for forest in (() if self._within else load_forests(self._bundle))
        ]
        self.has_forests = bool(self._forests)

    def _uploaded(self, array: np.ndarray) -> Array:
        staged = self.memory.staging(array.shape, array.dtype)
        target = self.memory.empty(array.shape, array.dtype)
        np.copyto(staged, array)
        self.memory.upload(staged, target)
        self.memory.synchronize()
        self.memory.drop_staging(staged)
        return target

    def _choose_score(self) -> None:
        """Determine the networks' outputs and the score that bundle.json chooses."""
        self.has_visibility = "visibility" in self.executors["pose"].outputs
        self.has_similarity = "ks" in self.executors
        self.has_ks_visibility = self.has_similarity and "visibility" in self.executors["ks"].outputs
        knows_visibility = self.has_visibility or self.has_ks_visibility
        self.gives_oaks = self.has_forests or (knows_visibility and self.has_similarity)
        if self._bundle.score == "oaks" and not self.gives_oaks and not self._within:
            lacking = "visibility" if self.has_similarity else "similarity: there is no KS network"
            raise BundleError(
                f"{self._bundle.path}/{DESCRIPTION}: score 'oaks' needs visibility and similarity, and the "
                f"networks of backend {self._name!r} give no {lacking}; say 'conventional', or nothing"
            )
        self.score_kind = self._bundle.score or ("oaks" if self.gives_oaks else "conventional")

    def _allocate(self) -> None:
        """The buffers for the largest batch; smaller ones use their first rows."""
        pose, largest = self.executors["pose"], self.batches[-1]
        crops, maps = pose.inputs["crops"], {name: pose.outputs[name] for name in self._map_shapes()}
        each = [math.prod(t.shape) * t.dtype.itemsize * self.copies for t in (crops, *maps.values())]
        limits.check(
            f"max_batch: the buffers for {number_of(largest, 'person', 'people')}, in bytes,",
            "buffer_bytes",
            largest * sum(each),
        )
        empty = self.memory.empty
        self._inputs.append(self._new_inputs())
        self._maps = {name: empty((largest * self.copies, *t.shape), t.dtype) for name, t in maps.items()}
        self._results = empty((self._layout(largest).size,), np.uint8)
        if self._second is not None:
            columns = self._forests[0].features - len(ops.SECOND_FEATURES)
            self._own_features = empty((largest, self._bundle.skeleton.count, columns), np.float32)

    def _new_inputs(self) -> _Inputs:
        crops, largest = self.executors["pose"].inputs["crops"], self.batches[-1]
        return _Inputs(
            pixels=self._ahead((largest * self.copies, *crops.shape), crops.dtype),
            transforms=self._ahead((largest, 2, 3), np.float32),
            boxes=self._ahead((largest, 4), np.float32) if self.has_forests else None,
            frame_sizes=self._ahead((largest, 2), np.float32) if self.has_forests else None,
            filled=self.memory.mark(),
            read=self.memory.mark(),
        )

    def _ahead(self, shape: Sequence[int], dtype: np.dtype | type) -> Array:
        """Return a new array that the copy stream may write to: torch's allocations are ready on torch's own stream only."""
        made = self.memory.empty(shape, dtype)
        self.memory.set(self._allocated)
        self.memory.ahead.after(self._allocated)
        return made

    def _next_inputs(self) -> int:
        """Index of the inputs that the next pass fills; on a device two sets alternate."""
        turn = self._turn
        for pipeline in (self, self._second):
            if pipeline is not None and turn == len(pipeline._inputs):
                pipeline._inputs.append(pipeline._new_inputs())
        self._turn = 0 if self.memory.stream is None else 1 - turn
        return turn

    def _layout(self, batch: int) -> _Layout:
        """Layout of the results of a batch."""
        if batch not in self._layouts:
            self._layouts[batch] = self._new_layout(batch)
        return self._layouts[batch]

    def _new_layout(self, batch: int) -> _Layout:
        keypoints, layout = self._bundle.skeleton.count, _Layout()
        layout.add("points", (batch, keypoints, 2), np.float32)
        layout.add("heat", (batch, keypoints), np.float32)
        if self.has_visibility:
            dtype = self.executors["pose"].outputs["visibility"].dtype
            layout.add("visibility", (self.copies * batch, keypoints), dtype)
        if self.has_similarity:
            layout.add("similarity", (batch, keypoints), self.executors["ks"].outputs["similarity"].dtype)
        if self.has_ks_visibility:
            layout.add("ks_visibility", (batch, keypoints), self.executors["ks"].outputs["visibility"].dtype)
        if self.has_forests:
            layout.add("features", (batch, keypoints, self._forests[0].features), np.float32)
            layout.add("scored_similarity", (batch, keypoints), np.float32)
            layout.add("scored_visibility", (batch, keypoints), np.float32)
        return layout

    def _pass(self, batch: int, turn: int) -> _Pass:
        """Return the pass of a batch size on a set of inputs, bound on first use."""
        if (batch, turn) not in self._passes:
            inputs = self._inputs[turn]
            layout = self._layout(batch)
            buffer = self._results[: layout.size]
            results = layout.views(self.memory, buffer)
            pixels = inputs.pixels[: batch * self.copies]
            maps = {name: buffer[: batch * self.copies] for name, buffer in self._maps.items()}
            transforms = inputs.transforms[:batch]
            given = {**maps, "visibility": results.visibility}
            outputs = {name: given[name] for name in self.executors["pose"].outputs}
            steps = {"pose": self.executors["pose"].bind({"crops": pixels}, outputs)}
            steps["decode"] = lambda: self._decode(maps, transforms, results)
            if self.has_similarity:
                given = {"similarity": results.similarity, "visibility": results.ks_visibility}
                outputs = {name: given[name] for name in self.executors["ks"].outputs}
                steps["ks"] = self.executors["ks"].bind({"heatmaps": maps["heatmaps"][:batch]}, outputs)
            told: Results | None = None
            if self._second is not None:
                other = self._second._pass(batch, turn)
                told = other.layout.views(self.memory, other.results)
                steps["second"] = other.steps["pose"]
                steps["second decode"] = other.steps["decode"]
            if self.has_forests:
                steps["scorer"] = lambda: self._predict(maps["heatmaps"], inputs, results, told)
            self._passes[batch, turn] = _Pass(pixels, transforms, buffer, layout, steps, None)
        return self._passes[batch, turn]

    def _decode(self, maps: dict[str, Array], transforms: Array, results: Results) -> None:
        batch = transforms.shape[0]
        pairs = self._bundle.skeleton.pairs if self._flip else None
        if self._bundle.pose.kind == "simcc":
            x, y = maps["x"], maps["y"]
            ops.decode_simcc(
                x[:batch],
                y[:batch],
                mirrored=(x[batch:], y[batch:]) if self._flip else None,
                flip_pairs=pairs,
                split=self._bundle.pose.split,
                transforms=transforms,
                out=(results.points, results.heat),
                stream=self.memory.stream,
            )
            return
        heatmaps = maps["heatmaps"]
        average = self._flip and self.has_similarity
        ops.decode(
            heatmaps[:batch],
            heatmaps[batch:] if self._flip else None,
            flip_pairs=pairs,
            refine=self._refine,
            alignment=self._bundle.pose.alignment,
            crop_size=self._bundle.pose.size,
            transforms=transforms,
            blur_sigma=self._bundle.pose.blur_sigma if self._refine == "dark" else None,
            average=average,
            out=(results.points, results.heat, heatmaps[:batch] if average else None),
            stream=self.memory.stream,
        )

    def _predict(self, heatmaps: Array, inputs: _Inputs, results: Results, second: Results | None) -> None:
        """Compute features of the maps and of the second network's poses, and evaluate the scorer's trees."""
        batch, stream = results.points.shape[0], self.memory.stream
        features = results.features if second is None else self._own_features[:batch]
        # A map without a finite value has no point; such a person's features are NaN.
        points = results.points if stream is not None else np.nan_to_num(results.points)
        try:
            ops.map_features(
                heatmaps[:batch],
                heatmaps[batch:],
                points=points,
                boxes=inputs.boxes[:batch],
                frame_sizes=inputs.frame_sizes[:batch],
                flip_pairs=self._bundle.skeleton.pairs,
                alignment=self._bundle.pose.alignment,
                out=features,
                stream=stream,
            )
        except ArgumentError:
            if not np.isnan(features[:, 0, 0]).any():
                raise
        if second is not None:
            ops.opinion_features(
                features,
                points,
                second.points,
                second.heat,
                boxes=inputs.boxes[:batch],
                sigmas=self._bundle.skeleton.sigmas,
                flip_pairs=self._bundle.skeleton.pairs,
                out=results.features,
                stream=stream,
            )
        told = (results.scored_similarity, results.scored_visibility)
        for forest, values in zip(self._forests, told, strict=True):
            ops.forest(results.features, forest, out=values, stream=stream)

    def plan(self, count: int) -> list[tuple[int, int, int]]:
        """Split `count` persons into passes: (first, persons, batch), where batch >= persons is one of `batches`."""
        largest, parts, first = self.batches[-1], [], 0
        while first < count:
            left = count - first
            batch = next((b for b in self.batches if b >= left), largest)
            if 4 * left <= 3 * batch:  # prefer two full passes to one that is mostly padding
                batch = max((b for b in self.batches if b <= left), default=batch)
            parts.append((first, min(left, batch), batch))
            first += batch
        return parts

    def start(
        self,
        frames: Sequence[Any],
        boxes: np.ndarray,
        frame_index: np.ndarray,
        *,
        padding: float,
        timings: Timings,
        staged: bool,
    ) -> Call:
        """Start both networks. On a device, earlier calls may still be running.

        Args:
            frames: (H, W, 3) uint8 each, in host memory or on the device.
            boxes: (N, 4) float32, N >= 1.
            frame_index: (N,) int32, ascending.
            staged: whether to wait after every stage, so that `timings` separates them.

        Returns:
            The argument of `finish`. Frames on the device must be kept until `finish` returns; those in host memory
            need not.
        """
        parts = self.plan(len(boxes))
        boxes, frame_index = _padded(boxes, frame_index, parts[-1][0] + parts[-1][2])
        with self.memory.active():
            if not self._under_way:
                self._turn = 0  # inputs that a graph has been captured for
            buffers = self._free.pop() if self._free else _HostBuffers(self.memory)
            self._under_way += 1
            try:
                call = Call([], buffers)
                self._enqueue(call, frames, boxes, frame_index, parts, padding, timings, staged)
            except BaseException:
                self._under_way -= 1
                with suppress(Exception):  # after a sticky error, waiting fails too
                    self._wait()
                    self._free.append(buffers)
                raise
        return call

    def finish(self, call: Call, timings: Timings) -> list[tuple[int, Results]]:
        """Wait for what `start` began.

        Returns:
            (persons, results) for each pass; the results are the host's, and hold until the next `start`.
        """
        self._under_way -= 1
        if self.memory.stream is not None:
            with self.memory.active(), timings.stage("device"):
                self.memory.reach(call.buffers.done)
        self._free.append(call.buffers)
        return call.passes

    def _enqueue(
        self,
        call: Call,
        frames: Sequence[Any],
        boxes: np.ndarray,
        frame_index: np.ndarray,
        parts: list[tuple[int, int, int]],
        padding: float,
        timings: Timings,
        staged: bool,
    ) -> None:
        """Crops run on the stream ahead, all that follows on the memory's own."""
        ahead, buffers = self.memory.ahead, call.buffers
        wait = self._wait if staged else _HOST.synchronize
        beside: list[np.ndarray] = []  # inputs of the scorer's features
        if self.has_forests:
            sizes = np.array([frames[i].shape[1::-1] for i in frame_index], np.float32)
            beside = [buffers.copied("boxes", boxes), buffers.copied("sizes", sizes)]
        spans = []  # a pass sees its own frames only, numbered from 0
        for first, _, batch in parts:
            own = frame_index[first : first + batch]
            low, high = int(own[0]), int(own[-1])
            own -= low
            spans.append(slice(low, high + 1))
        landing, at = buffers.take("results", sum(self._layout(batch).size for _, _, batch in parts)), 0
        with timings.stage("crop"):
            frames, boxes, frame_index = self._bring(buffers, frames, boxes, frame_index)
            wait()
        for (first, count, batch), span in zip(parts, spans, strict=True):
            turn, rows = self._next_inputs(), slice(first, first + batch)
            inputs, part = self._inputs[turn], self._pass(batch, turn)
            with timings.stage("crop"):
                ahead.after(inputs.read)
                with ahead.current():
                    self._crop(part, frames[span], boxes[rows], frame_index[rows], padding)
                    if self._second is not None:
                        other, wide = self._second._pass(batch, turn), self._second._bundle.pose.padding
                        self._second._crop(other, frames[span], boxes[rows], frame_index[rows], wide)
                for source, target in zip(beside, (inputs.boxes, inputs.frame_sizes), strict=False):
                    ahead.upload(source[rows], target[:batch])
                ahead.set(inputs.filled)
                self.memory.after(inputs.filled)
                wait()
            self._run_networks(part, timings, staged)
            self.memory.set(inputs.read)
            target = landing[at : at + part.layout.size]
            self.memory.download(part.results, target)
            call.passes.append((count, part.layout.views(_HOST, target)))
            at += part.layout.size
        self.memory.set(buffers.done)

    def _run_networks(self, part: _Pass, timings: Timings, staged: bool) -> None:
        if self.memory.stream is not None and not staged:
            with timings.stage("device"):
                self._recorded(part)()
            return
        for name, step in part.steps.items():
            with timings.stage(name):
                step()
                if staged:
                    self._wait()

    def _wait(self) -> None:
        """Wait for both streams."""
        self.memory.ahead.synchronize()
        self.memory.synchronize()

    def _crop(self, part: _Pass, frames: Any, boxes: Array, frame_index: Array, padding: float) -> None:
        pose = self._bundle.pose
        # ops.crop outputs RGB; with the order declared reversed, it outputs BGR.
        other = {"bgr": "rgb", "rgb": "bgr"}[self._color]
        ops.crop(
            frames,
            boxes,
            size=pose.size,
            frame_index=frame_index,
            padding=padding,
            mean=pose.mean,
            std=pose.std,
            color=self._color if pose.color == "rgb" else other,
            mirrored=self._flip,
            out=(part.pixels, part.transforms),
            stream=self.memory.ahead.stream,
        )

    def _recorded(self, part: _Pass) -> Callable[[], None]:
        """Return everything after the crop as one call, which can be captured as a graph. The crop cannot, since
        frames have new addresses each time."""
        if part.recorded is None:
            steps = list(part.steps.values())

            def work() -> None:
                for step in steps:
                    step()

            executors = [*self.executors.values(), *(self._second.executors.values() if self._second else ())]
            recordable = all(getattr(executor, "recordable", True) for executor in executors)
            part.recorded = self.memory.record(work) if recordable else work
        return part.recorded

    def _bring(
        self, buffers: _HostBuffers, frames: Sequence[Any], boxes: np.ndarray, frame_index: np.ndarray
    ) -> tuple[list[Any], Array, Array]:
        """Copy everything in host memory to the device, in one transfer."""
        if self.memory.stream is None:
            return list(frames), boxes, frame_index
        arrays = [boxes, frame_index, *(frame for frame in frames if isinstance(frame, np.ndarray))]
        starts, size = [], 0
        for array in arrays:
            starts.append(size)
            size = _aligned(size + array.nbytes)
        ahead, staging = self.memory.ahead, buffers.take("frames", size)
        for start, array in zip(starts, arrays, strict=True):
            np.copyto(_HOST.view(staging, start, array.shape, array.dtype), array)
        arrived = self._arrived
        if arrived is None or arrived.shape[0] < size:
            ahead.synchronize()  # crops of earlier calls read the memory that is freed here
            arrived = self._arrived = self._ahead((_roomy(size),), np.uint8)
        ahead.upload(staging[:size], arrived[:size])
        there = [
            self.memory.view(arrived, start, array.shape, array.dtype)
            for start, array in zip(starts, arrays, strict=True)
        ]
        brought = iter(there[2:])
        placed = []
        for frame in frames:
            if isinstance(frame, np.ndarray):
                placed.append(next(brought))
            else:
                self._check_device(frame)
                ahead.wait_for(frame)
                placed.append(frame)
        return placed, there[0], there[1]

    def reduced(self, frame: Any, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Fit a frame on the device into (width, height) there and copy it to the host.

        Returns:
            (H, W, 3) uint8 RGB, and its pixels per pixel of the frame (x, y, x, y).
        """
        height, width = (int(side) for side in frame.shape[:2])
        inner, _ = fitted_size((width, height), size)
        corners, ahead = np.array([[0, 0, width, height]], np.float32), self.memory.ahead
        with self.memory.active():
            buffers = self._free.pop() if self._free else _HostBuffers(self.memory)
            shape = (1, 3, *inner[::-1])
            host = _HOST.view(buffers.take("reduced", 4 * math.prod(shape)), 0, shape, np.float32)
            pixels, transforms = self._ahead(host.shape, np.float32), self._ahead((1, 2, 3), np.float32)
            frames, boxes, index = self._bring(buffers, [frame], corners, np.zeros(1, np.int32))
            with ahead.current():
                ops.crop(
                    frames, boxes, size=inner, frame_index=index, padding=1.0, mean=(0, 0, 0), std=(1, 1, 1),
                    color=self._color, out=(pixels, transforms), stream=ahead.stream,
                )  # fmt: skip
            ahead.download(pixels, host)
            ahead.synchronize()
            self._free.append(buffers)
        small = np.clip(np.rint(host[0]), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        return small, np.array([inner[0] / width, inner[1] / height] * 2)

    def _check_device(self, frame: Any) -> None:
        """Refuse a frame on another GPU: reading it would be an illegal access, which ends the whole process."""
        assert native.cuda is not None
        found = f"cuda:{native.cuda.device_of(frame.__cuda_array_interface__['data'][0])}"
        if found != self.memory.device:
            raise ArgumentError(
                f"frames must lie on the Engine's device, {self.memory.device}, got one on {found}; copy it, or "
                f"make an Engine with device={found!r}"
            )

    def close(self) -> None:
        """Free the networks and the buffers."""
        with self.memory.active(), ExitStack() as every:  # try every step, even if others raise
            if not self._within:
                every.callback(self.memory.close)
            if self._second is not None:
                every.callback(self._second.close)
            self._passes.clear()
            for executor in self.executors.values():
                every.callback(executor.close)
            self._inputs.clear()
            self._free.clear()
            for name in ("_maps", "_results", "_own_features", "_forests"):
                setattr(self, name, None)
            self._arrived = None


def _padded(boxes: np.ndarray, frame_index: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return copies with as many rows as the passes have; the last frame's index is repeated."""
    missing = rows - len(boxes)
    if not missing:
        return boxes, frame_index.copy()
    filler = np.tile(np.array([0, 0, 1, 1], np.float32), (missing, 1))
    last = np.full(missing, frame_index[-1], np.int32)
    return np.concatenate([boxes, filler]), np.concatenate([frame_index, last])


def _roomy(size: int) -> int:
    """Round a size up to a power of two, so that a growing buffer is rarely reallocated."""
    return 1 << max(size - 1, 1).bit_length()


class _Layout:
    """Layout of the results of a batch in one block of bytes, so that one copy downloads them."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: dict[str, tuple[int, tuple[int, ...], np.dtype]] = {}

    def add(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self._parts[name] = (self.size, shape, np.dtype(dtype))
        self.size = _aligned(self.size + math.prod(shape) * np.dtype(dtype).itemsize)

    def views(self, memory: Memory, buffer: Array) -> Results:
        """Return the typed arrays in a buffer of `size` bytes."""
        parts = {name: memory.view(buffer, *part) for name, part in self._parts.items()}
        return Results(**{entry.name: parts.get(entry.name) for entry in fields(Results)})


def _aligned(size: int) -> int:
    """Round a size up to a multiple of _ALIGNED."""
    return -(-size // _ALIGNED) * _ALIGNED
