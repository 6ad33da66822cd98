"""Recipes: everything that decides what a training does, in one YAML file whose every field is checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.skeleton import COCO17, Skeleton
from oaks.structured import parse_yaml, read_yaml

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class StrictModel(BaseModel):
    """Unknown fields are refused, and so are values that JSON and YAML cannot write."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


class PeopleSource(StrictModel):
    """What every source of people has.

    Attributes:
        name: what folds and metrics cards call it. Packed people are looked up by it.
        weight: how often its people are drawn, relative to other sources; by default its number of people.
        limit: the first so many people alone.
        hold_out: whether its people in the held-out fold are validated on; they are never trained on.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    weight: Positive | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    hold_out: bool = True


class CocoSource(PeopleSource):
    """A COCO keypoints file and its images; see `oaks.training.data.people.read_coco`."""

    kind: Literal["coco"]
    annotations: Path
    images: Path
    boxes: Path | None = None
    never_labeled: list[str] = []
    trust_absence: bool = True
    min_keypoints: Annotated[int, Field(ge=1)] = 1
    category: str | int | None = None

    def content(self) -> str:
        """The same for two sources of the same people, whatever they are called."""
        return f"annotations {self.annotations}"


class ShardSource(PeopleSource):
    """A folder of packed people; see `oaks.training.data.shards`."""

    kind: Literal["shards"]
    folder: Path

    def content(self) -> str:
        """The same for two sources of the same people, whatever they are called."""
        return f"folder {self.folder}"


class RenderedSource(PeopleSource):
    """Rendered people; see `oaks.training.render`.

    Attributes:
        count: number of images.
        seed: of the images.
        settings: further arguments of the renderer.
        stored: render once before training and keep the crops beside the run, instead of at every draw.
    """

    kind: Literal["rendered"]
    count: Annotated[int, Field(ge=1)]
    seed: int = 0
    settings: dict[str, Any] = {}
    stored: bool = False

    def content(self) -> str:
        """The same for two sources of the same people, whatever they are called: pictures differ by the seed alone."""
        return f"pictures of seed {self.seed} with settings {sorted(self.settings.items())}"


class DetectionSource(PeopleSource):
    """A COCO file with everybody's boxes and its images; see `oaks.training.data.detection.read_detection`.

    Attributes:
        background: weight, 0 to 1, of the background of images whose annotations are not complete.
    """

    kind: Literal["coco"]
    annotations: Path
    images: Path
    background: Probability = 0

    def content(self) -> str:
        """The same for two sources of the same images, whatever they are called."""
        return f"annotations {self.annotations}"


AnySource = Annotated[CocoSource | ShardSource | RenderedSource, Field(discriminator="kind")]


class Folds(StrictModel):
    """Images split by a hash of source and image id: the same split wherever and however they are read.

    Attributes:
        count: number of folds. Folds of a multiple of it are parts of its folds: of 16, numbers 1, 5, 9 and 13
            are what number 1 of 4 is.
        held_out: the fold that is not trained on; None trains on all.
        trained: the folds that are trained on; by default all others. A KS-net is so kept to people that its
            pose network has not seen.
    """

    count: Annotated[int, Field(ge=2)]
    held_out: Annotated[int, Field(ge=0)] | None = 0
    trained: list[Annotated[int, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _held_out_exists(self) -> Folds:
        if self.held_out is not None and self.held_out >= self.count:
            raise ArgumentError(f"held_out must be below count = {self.count}, got {self.held_out}")
        if self.trained is not None and (
            not self.trained or max(self.trained) >= self.count or self.held_out in self.trained
        ):
            raise ArgumentError(
                f"trained must be folds below count = {self.count} without held_out, got {self.trained}"
            )
        return self

    def holds_out(self, folds: Iterable[int], count: int) -> bool:
        """Whether all people in `folds`, of `count`, lie in the fold that is held out here."""
        return count % self.count == 0 and all(fold % self.count == self.held_out for fold in folds)


class Data(StrictModel):
    """What is trained on, and what is validated on: `validation`, and the held-out fold of `train`."""

    train: Annotated[list[AnySource], Field(min_length=1)]
    validation: list[AnySource] = []
    folds: Folds | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> Data:
        for part in ("train", "validation"):
            names = [source.name for source in getattr(self, part)]
            if len(set(names)) != len(names):
                raise ArgumentError(f"{part}: sources must have different names, got {names}")
        named: dict[str, str] = {}
        for source in (*self.train, *self.validation):
            other = named.setdefault(source.content(), source.name)
            if other != source.name:  # folds, and who is trained on, are told by the name
                raise ArgumentError(
                    f"data: {other!r} and {source.name!r} are the same people: {source.content()}"
                )
        return self


class Augmentation(StrictModel):
    """How samples are varied. All zeros, and scale [1, 1], leave the plain crop.

    Attributes:
        rotation: degrees, to either side, evenly.
        rotation_probability: how often a crop is rotated at all.
        scale: smallest and largest factor on the window, evenly.
        shift: of the window, as a part of its extent, to either side.
        flip: how often a crop is mirrored.
        half_body: how often a crop shows the upper or lower body alone.
        occluders: how often patches are pasted over a crop.
        color: strength of contrast, brightness, white balance and saturation changes.
        gray: how often a crop loses its color.
        blur: how often a crop is blurred, smeared or reduced in resolution.
        noise: how often a crop gets noise.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 0
    rotation_probability: Probability = 1
    scale: tuple[Positive, Positive] = (1, 1)
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0
    flip: Probability = 0
    half_body: Probability = 0
    occluders: Probability = 0
    color: Annotated[float, Field(ge=0, le=2)] = 0
    gray: Probability = 0
    blur: Probability = 0
    noise: Probability = 0

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ArgumentError(f"scale must be smallest, largest; got {scale}")
        return scale


class DetectionAugmentation(StrictModel):
    """How a detector's images are varied. All zeros, scale [1, 1] and stretch 1 leave the whole image.

    Attributes:
        scale: smallest and largest zoom into the image, evenly in its logarithm; 1 shows all of it.
        stretch: largest factor between the two axes' zoom.
        flip: how often an image is mirrored.
        color, gray, blur, noise: as for crops of people.
    """

    scale: tuple[Positive, Positive] = (1, 1)
    stretch: Annotated[float, Field(ge=1, le=2)] = 1
    flip: Probability = 0
    color: Annotated[float, Field(ge=0, le=2)] = 0
    gray: Probability = 0
    blur: Probability = 0
    noise: Probability = 0

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ArgumentError(f"scale must be smallest, largest; got {scale}")
        return scale


class StepSchedule(StrictModel):
    """The learning rate times `factor` at each of `epochs`."""

    kind: Literal["step"]
    epochs: list[Positive]
    factor: Positive = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class CosineSchedule(StrictModel):
    """The learning rate along half a cosine, from the full one to `final` times it."""

    kind: Literal["cosine"]
    final: Annotated[float, Field(ge=0, le=1)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class Training(StrictModel):
    """The loop.

    Attributes:
        epochs: how often every person is drawn on average.
        batch: people per step, over all processes together.
        optimizer: "adam" or "adamw".
        learning_rate: at its highest.
        weight_decay: of "adamw", decoupled; of "adam", L2.
        schedule: of the learning rate.
        clip_gradient: largest norm of the gradient, if any.
        average: decay of an exponential average of the weights, which is then what is validated and saved.
        precision: "fp32", "bf16" or "fp16" (both mixed).
        seed: of the weights, the order of the people and their augmentation.
        workers: processes that load people, for each training process.
        checkpoint_minutes: how often a checkpoint is written at least.
        validate_every: epochs between validations.
        log_every: steps between log entries.
    """

    epochs: Positive
    batch: Annotated[int, Field(ge=1)] = 32
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0
    schedule: Annotated[StepSchedule | CosineSchedule, Field(discriminator="kind")]
    clip_gradient: Positive | None = None
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    workers: Annotated[int, Field(ge=0)] = 1
    checkpoint_minutes: Positive = 5
    validate_every: Positive = 1
    log_every: Annotated[int, Field(ge=1)] = 20


class InitialWeights(StrictModel):
    """Weights to start from; see `oaks.training.pretrained`.

    Attributes:
        path: a network saved here, or a state dict of torchvision, Simple Baselines or HRNet.
        allow_missing: patterns of parameters that may keep their fresh values.
        allow_unexpected: patterns of entries of the file that may be left unused.
        freeze: patterns of the network's parameters that keep their initial values.
    """

    path: Path
    allow_missing: list[str] = []
    allow_unexpected: list[str] = []
    freeze: list[str] = []


class Recipe(StrictModel):
    """What both kinds of recipe have.

    Attributes:
        title: one line on what this recipe is.
        network: `name` and arguments for `oaks.training.networks.build`, without `keypoints` and `input`.
        skeleton: "coco17", or a JSON file of a skeleton.
        license: of the trained weights, as written into their description.
    """

    title: str
    network: dict[str, Any]
    data: Data
    training: Training
    augmentation: Augmentation = Augmentation()
    initial: InitialWeights | None = None
    skeleton: str = "coco17"
    license: str = "unspecified"

    def load_skeleton(self) -> Skeleton:
        """The skeleton that is named."""
        return COCO17 if self.skeleton == COCO17.name else Skeleton.from_json(self.skeleton)

    def architecture(self) -> dict[str, Any]:
        """What `oaks.training.networks.build` takes."""
        return {**self.network, "keypoints": self.load_skeleton().count}


class PoseRecipe(Recipe):
    """OA-HPE (or HPE) from people.

    Attributes:
        input: (width, height) of crops: multiples of 4, with HRNet and deconvolutions of 32; at least 32.
        padding: of boxes.
        mean, std: of the input, RGB, on the 0-255 scale.
        heatmap_sigma: of target heatmaps, in heatmap pixels (the paper: 1).
        heatmap_loss: "squared" (the paper's), or "cross_entropy" for networks that give logits.
        visibility_weight: of the visibility loss relative to the heatmap loss (the paper: 1).
        refine: the decoder that the network is to be used with.
    """

    kind: Literal["pose"]
    input: tuple[int, int]
    padding: Positive = 1.25
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    heatmap_sigma: Positive
    heatmap_loss: Literal["squared", "cross_entropy"] = "squared"
    visibility_weight: Annotated[float, Field(ge=0)] = 1
    refine: Literal["second_peak", "gradient", "dark", "none"] = "second_peak"

    @field_validator("input")
    @classmethod
    def _fits(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 32 or size[0] % 4 or size[1] % 4:
            raise ArgumentError(f"input must be (width, height), multiples of 4 and at least 32, got {size}")
        return size

    @model_validator(mode="after")
    def _network_fits(self) -> PoseRecipe:
        _try_to_build(self, ("oa_hpe", "mobile_oa_hpe", "hrnet"))
        if self.heatmap_loss == "cross_entropy" and self.network["name"] != "mobile_oa_hpe":
            raise ArgumentError(
                f"heatmap_loss must be squared for {self.network['name']}, got cross_entropy; mobile_oa_hpe gives logits"
            )
        strict = self.network["name"] == "hrnet" or self.network.get("head") == "deconv"
        if strict and (self.input[0] % 32 or self.input[1] % 32):
            raise ArgumentError(f"input must be multiples of 32 for this network, got {self.input}")
        return self

    def architecture(self) -> dict[str, Any]:
        """What `oaks.training.networks.build` takes."""
        own = super().architecture()
        return {**own, "input": list(self.input)} if own.get("name") in ("oa_hpe", "mobile_oa_hpe") else own


class KSRecipe(Recipe):
    """KS-net from the heatmaps of trained pose networks.

    Attributes:
        pose: the trained pose network, or for cross-fitting one per fold: the one at place i was trained
            without fold i, and makes the heatmaps of fold i alone.
        heatmaps: "stored" runs the pose network once over all people (and their `views`) before training and
            keeps float16 heatmaps beside the run; "live" runs it in every step.
        views: how many times each person is stored: once plainly, then varied by the augmentation.
        store: folder of the stored heatmaps, for several trainings to share; beside the run by default.
        loss: "absolute" (the paper's equation 9), or "cross_entropy"; see `oaks.training.losses.similarity_loss`.
        calibrate: fit the scale and bias of predicted visibility and KS on the people that are validated on, and
            save them with the network. Not with the people that results are to be reported on.
    """

    kind: Literal["ks"]
    pose: Annotated[list[Path], Field(min_length=1)]
    heatmaps: Literal["stored", "live"] = "stored"
    views: Annotated[int, Field(ge=1)] = 1
    store: Path | None = None
    loss: Literal["absolute", "cross_entropy"] = "absolute"
    calibrate: bool = False

    @model_validator(mode="after")
    def _network_fits(self) -> KSRecipe:
        _try_to_build(self, ("ks_net",))
        if self.network.get("visibility"):
            raise ArgumentError(
                "network.visibility must be left out of a recipe, whose pose network gives visibility, got True; "
                "`oaks fit --scorer ks-net` trains a KS-net with both"
            )
        folds, varied = self.data.folds, self.augmentation
        if varied.rotation or varied.half_body:
            raise ArgumentError(
                "augmentation.rotation and half_body must be 0 for a KS-net, got others; they are for pose networks"
            )
        if self.views > 1 and self.heatmaps == "live":
            raise ArgumentError(
                "views must be 1 with live heatmaps, which are varied anew in every step, got more"
            )
        if self.calibrate and not self.data.validation and (folds is None or folds.held_out is None):
            raise ArgumentError(
                "calibrate must have people to validate on, got none; set data.validation, or folds with one held out"
            )
        if len(self.pose) > 1 and (folds is None or len(self.pose) != folds.count):
            raise ArgumentError(
                f"data.folds must be as many as the {len(self.pose)} pose networks, got {folds}"
            )
        return self


class DetectionData(StrictModel):
    """Images that a detector is trained on; those of the held-out fold are validated on."""

    train: Annotated[list[DetectionSource], Field(min_length=1)]
    folds: Folds | None = None


class DetectorRecipe(Recipe):
    """A person detector from whole images.

    Attributes:
        input: (width, height) of the input, multiples of 32.
        mean, std: of the input, RGB, on the 0-255 scale.
        box_weight: of the box loss relative to that of centers.
        overlap: IoU above which the worse of two boxes is dropped.
    """

    kind: Literal["detector"]
    data: DetectionData  # type: ignore[assignment]  # in place of Recipe's, not compatible with it
    augmentation: DetectionAugmentation = DetectionAugmentation()  # type: ignore[assignment]  # as data
    input: tuple[int, int]
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[Positive, Positive, Positive] = (127.5, 127.5, 127.5)
    box_weight: Positive = 1
    overlap: Probability = 0.6

    @field_validator("input")
    @classmethod
    def _fits(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 32 or size[0] % 32 or size[1] % 32:
            raise ArgumentError(f"input must be (width, height), multiples of 32, got {size}")
        return size

    @model_validator(mode="after")
    def _network_fits(self) -> DetectorRecipe:
        _try_to_build(self, ("person_detector",))
        return self

    def architecture(self) -> dict[str, Any]:
        """What `oaks.training.networks.build` takes."""
        return dict(self.network)


AnyRecipe = PoseRecipe | KSRecipe | DetectorRecipe


def _try_to_build(recipe: Recipe, names: tuple[str, ...]) -> None:
    import torch

    from oaks.training.networks import build

    if given := {"keypoints", "input"} & set(recipe.network):
        raise ArgumentError(
            f"network: {sorted(given)} come from the recipe's skeleton and input, leave them out"
        )
    architecture = recipe.architecture()
    check_choice("network: name", architecture.get("name"), names)
    try:
        with torch.device("meta"):
            build(architecture)
    except ArgumentError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(f"network: {error}") from error


def parse_recipe(content: Any, where: str) -> AnyRecipe:
    """A recipe from plain data.

    Raises:
        ArgumentError: a field is unknown, missing or wrong; the message names `where` and every such field.
    """
    kinds: dict[Any, type[PoseRecipe | KSRecipe | DetectorRecipe]] = {
        "pose": PoseRecipe, "ks": KSRecipe, "detector": DetectorRecipe
    }  # fmt: skip
    kind = content.get("kind") if isinstance(content, dict) else None
    check_choice(f"{where}: kind", kind, kinds)
    try:
        return kinds[kind].model_validate(content)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}, got {e['input']!r}"[:300]
            for e in error.errors()
        ]
        raise ArgumentError("\n".join([f"{where}: not a valid recipe", *lines])) from error


def read_recipe(path: str | Path, changes: list[str] | None = None) -> AnyRecipe:
    """The recipe in a YAML file, or the built-in one of that name.

    With `extends: NAME` (a built-in recipe, or a path relative to the file's folder) the file states only what differs
    from that recipe: mappings are merged, everything else is replaced. In place of a list, a mapping changes single
    items, by number: `train: {0: {weight: 3}}`.

    Args:
        path: a file, or the name of one of the recipes that come with oaks (without .yaml).
        changes: "field.subfield=value" with values in YAML; list items by number: "data.train.0.limit=10".

    Raises:
        FileNotFoundError: no such file, and no such built-in recipe.
        ArgumentError: the file or a change does not make a valid recipe.
    """
    file = _find(str(path), Path())
    content = _read_extended(file, [])
    for change in changes or []:
        _apply(content, change)
    return parse_recipe(content, str(file))


def _find(name: str, folder: Path) -> Path:
    """The file of that path in a folder, or the built-in recipe of that name."""
    built_in = Path(__file__).parent / "recipes"
    for file in (folder / name, built_in / f"{name}.yaml"):
        if os.path.isfile(file):  # unlike Path.is_file, False for names that no file can have
            return file
    names = ", ".join(sorted(found.stem for found in built_in.glob("*.yaml")))
    raise FileNotFoundError(f"recipe not found: {name}; built in are {names}")


def _read_extended(file: Path, extending: list[Path]) -> Any:
    """The content of `file`, which the files in `extending` extend, merged into the recipe that it extends itself."""
    content = read_yaml(file)
    if not isinstance(content, dict) or "extends" not in content:
        return content
    name = content.pop("extends")
    if not isinstance(name, str):
        raise ArgumentError(f"{file}: extends must be the name or the path of a recipe, got {name!r}")
    base = _find(name, file.parent)
    extending = [*extending, file.resolve()]
    if base.resolve() in extending:
        raise ArgumentError(f"{file}: extends must be another recipe, got {name!r}, which extends this one")
    return _merged(_read_extended(base, extending), content, str(file))


def _merged(base: Any, changes: Any, where: str) -> Any:
    """A recipe's content, or a part of it, with changes; `where` names the file in messages."""
    if not isinstance(changes, dict) or not isinstance(base, dict | list):
        return changes
    merged = base.copy()
    for key, value in changes.items():
        if isinstance(base, dict):
            merged[key] = _merged(base[key], value, where) if key in base else value
        elif type(key) is int and 0 <= key < len(base):
            merged[key] = _merged(base[key], value, where)
        else:
            raise ArgumentError(f"{where}: numbers of list items must be below {len(base)}, got {key!r}")
    return merged


def _apply(content: Any, change: str) -> None:
    field, separator, value = change.partition("=")
    if not separator:
        raise ArgumentError(f"set must be field=value, got {change!r}")
    path: list[Any] = [int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in field.split(".")]
    *parents, last = path
    place = content
    try:
        for parent in parents:
            place = place[parent] if isinstance(place, list) else place.setdefault(parent, {})
        place[last] = parse_yaml(value, f"set: {field}")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ArgumentError(f"set must name a field of the recipe, got {field!r}") from error


__all__ = [
    "AnyRecipe", "AnySource", "Augmentation", "CocoSource", "CosineSchedule", "Data", "DetectionAugmentation",
    "DetectionData", "DetectionSource", "DetectorRecipe", "Folds", "InitialWeights", "KSRecipe", "PoseRecipe", "Recipe",
    "RenderedSource", "ShardSource", "StepSchedule", "Training", "parse_recipe", "read_recipe",
]  # fmt: skip
