"""Recipes: YAML files with all settings of a training. Every field is checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.skeleton import COCO17, Skeleton
from oaks.structured import parse_yaml, read_yaml

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class StrictModel(BaseModel):
    """Base of all parts of a recipe: refuses unknown fields, and numbers that JSON and YAML cannot write."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


class PeopleSource(StrictModel):
    """Fields of every source of people.

    Attributes:
        name: name in folds and metrics cards, and of the folder of packed people.
        weight: how often its people are drawn, relative to other sources; default: its number of people.
        limit: largest number of people, taken from the start.
        hold_out: whether its people in the held-out fold are used for validation. They are never trained on.
    """

    identity: ClassVar[set[str]]
    """The fields that determine who the people are."""
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    weight: Positive | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    hold_out: bool = True

    def content(self) -> str:
        """Return a text that is equal for two sources of the same people, whatever their names."""
        return json.dumps(self.model_dump(mode="json", include=self.identity), sort_keys=True)


class CocoFile(PeopleSource):
    """A COCO annotation file and the folder of its images."""

    identity = {"annotations"}
    kind: Literal["coco"]
    annotations: Path
    images: Path


class CocoSource(CocoFile):
    """A COCO keypoints file and its images; see `oaks.training.data.people.read_coco`."""

    boxes: Path | None = None
    never_labeled: list[str] = []
    trust_absence: bool = True
    min_keypoints: Annotated[int, Field(ge=1)] = 1
    category: str | int | None = None


class ShardSource(PeopleSource):
    """A folder of packed people; see `oaks.training.data.shards`."""

    identity = {"folder"}
    kind: Literal["shards"]
    folder: Path


class RenderedSource(PeopleSource):
    """Rendered people; see `oaks.training.render`. Images of one seed and its settings differ only in number.

    Attributes:
        count: number of images.
        seed: random seed of the images.
        settings: further arguments of the renderer.
        stored: whether the images are rendered once, before training, and kept beside the run; otherwise an image is
            rendered whenever it is drawn.
    """

    identity = {"seed", "settings"}
    kind: Literal["rendered"]
    count: Annotated[int, Field(ge=1)]
    seed: int = 0
    settings: dict[str, Any] = {}
    stored: bool = False


class DetectionSource(CocoFile):
    """A COCO file of person boxes and its images; see `oaks.training.data.detection.read_detection`.

    Attributes:
        background: weight, 0 to 1, of the background of incompletely annotated images.
    """

    background: Probability = 0


AnySource = Annotated[CocoSource | ShardSource | RenderedSource, Field(discriminator="kind")]


class Folds(StrictModel):
    """Split of images by a hash of source name and image id, so that it does not depend on how they are read.

    Attributes:
        count: number of folds. With a multiple of it, each fold is divided further: folds 1, 5, 9 and 13 of 16 are
            fold 1 of 4.
        held_out: the fold that is not trained on; None: all are trained on.
        trained: the folds that are trained on; default: all but `held_out`. With it, a KS-net learns only from people
            that its pose network has not seen.
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
        """Whether `folds`, of `count`, are all parts of the fold that is held out here."""
        return count % self.count == 0 and all(fold % self.count == self.held_out for fold in folds)


class Data(StrictModel):
    """Sources of training and validation. The held-out fold of `train` is used for validation too."""

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
            if other != source.name:  # names identify sources in folds and in the list of trained sources
                raise ArgumentError(
                    f"data: {other!r} and {source.name!r} are the same people: {source.content()}"
                )
        return self


class ImageAugmentation(StrictModel):
    """Augmentation of crops and of whole images.

    Attributes:
        scale: smallest and largest factor.
        flip: probability of mirroring.
        color: strength of changes in contrast, brightness, white balance and saturation.
        gray: probability of removing the color.
        blur: probability of blur, motion blur or a lower resolution.
        noise: probability of noise.
    """

    scale: tuple[Positive, Positive] = (1, 1)
    flip: Probability = 0
    color: Annotated[float, Field(ge=0, le=2)] = 0
    gray: Probability = 0
    blur: Probability = 0
    noise: Probability = 0

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ArgumentError(f"scale must be (smallest, largest), got {scale}")
        return scale


class Augmentation(ImageAugmentation):
    """Augmentation of crops. The defaults change nothing. `scale` is the size of the window, uniform.

    Attributes:
        rotation: largest angle in degrees, in both directions, uniform.
        rotation_probability: probability of a rotation.
        shift: largest shift of the window, relative to its size, in all directions.
        half_body: probability of showing only the upper or the lower body.
        occluders: probability of pasting patches over the crop.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 0
    rotation_probability: Probability = 1
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0
    half_body: Probability = 0
    occluders: Probability = 0


class DetectionAugmentation(ImageAugmentation):
    """Augmentation of a detector's images. The defaults change nothing.

    `scale` is the zoom into the image, uniform in its logarithm; 1 shows the whole image.

    Attributes:
        stretch: largest ratio between the zooms of the two axes.
    """

    stretch: Annotated[float, Field(ge=1, le=2)] = 1


class StepSchedule(StrictModel):
    """Multiplies the learning rate by `factor` at each of `epochs`."""

    kind: Literal["step"]
    epochs: list[Positive]
    factor: Positive = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class CosineSchedule(StrictModel):
    """Decreases the learning rate along half a cosine, to `final` times the full rate."""

    kind: Literal["cosine"]
    final: Annotated[float, Field(ge=0, le=1)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class Training(StrictModel):
    """Settings of the training loop.

    Attributes:
        epochs: how often every person is drawn on average; 0: the initial weights are validated and saved as they are.
        batch: people per step, in all processes together.
        optimizer: "adam" or "adamw".
        learning_rate: highest learning rate.
        weight_decay: decoupled for "adamw", L2 for "adam".
        schedule: schedule of the learning rate.
        clip_gradient: largest norm of the gradient; None: not clipped.
        average: decay of an exponential moving average of the weights; with it, the average is validated and saved.
        precision: "fp32", "bf16" or "fp16" (both mixed).
        seed: random seed of the weights, the order of the people and their augmentation.
        workers: loader workers per training process.
        checkpoint_minutes: largest time between checkpoints.
        validate_every: epochs between validations.
        log_every: steps between log entries.
    """

    epochs: Annotated[float, Field(ge=0)]
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
    """Pretrained weights; see `oaks.training.pretrained`. Patterns are those of file names: `fc.*`.

    Attributes:
        path: a network saved by oaks, or a state dict of torchvision, Simple Baselines or HRNet.
        average_with: further files. Every weight that all files have in the same shape becomes the mean; the others stay
            those of `path`. The mean of networks from one start often generalizes better than each of them (Wortsman et
            al., Model soups, ICML 2022).
        allow_missing: patterns of parameters that the file may lack; they keep their random values.
        allow_unexpected: patterns of entries of the file that may stay unused.
        freeze: patterns of parameters that are not trained.
    """

    path: Path
    average_with: list[Path] = []
    allow_missing: list[str] = []
    allow_unexpected: list[str] = []
    freeze: list[str] = []


class Recipe(StrictModel):
    """Fields of every kind of recipe.

    Attributes:
        title: one line that describes the recipe.
        network: `name` and arguments for `oaks.training.networks.build`, without `keypoints` and `input`.
        skeleton: "coco17", or the JSON file of a skeleton.
        license: license of the trained weights, as written into their description.
    """

    title: str
    network: dict[str, Any]
    data: Data
    training: Training
    augmentation: Augmentation = Augmentation()
    initial: InitialWeights | None = None
    skeleton: str = "coco17"
    license: str = "unspecified"

    @model_validator(mode="after")
    def _has_weights(self) -> Recipe:
        if not self.training.epochs and self.initial is None:
            raise ArgumentError("training.epochs must be above 0 without initial weights, got 0")
        return self

    def load_skeleton(self) -> Skeleton:
        """Return the skeleton that the recipe names."""
        return COCO17 if self.skeleton == COCO17.name else Skeleton.from_json(self.skeleton)

    def architecture(self) -> dict[str, Any]:
        """Return the argument of `oaks.training.networks.build`."""
        return {**self.network, "keypoints": self.load_skeleton().count}


class PoseRecipe(Recipe):
    """Training of OA-HPE, or HPE without visibility.

    Attributes:
        input: (width, height) of crops, at least 32: multiples of 32 for HRNet and deconvolutions, else of 4.
        padding: size of the crop relative to the box.
        mean, std: normalization of the input, RGB, on the 0-255 scale.
        heatmap_sigma: standard deviation of target peaks in heatmap pixels (the paper: 1).
        heatmap_loss: "squared" (the paper), or "cross_entropy" for networks that return logits.
        visibility_weight: weight of the visibility loss relative to the heatmap loss (the paper: 1).
        refine: the decoder to use with the network.
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

    @model_validator(mode="after")
    def _network_fits(self) -> PoseRecipe:
        name = self.network.get("name")
        _check_input(self.input, 32 if name == "hrnet" or self.network.get("head") == "deconv" else 4)
        _try_to_build(self, ("oa_hpe", "mobile_oa_hpe", "hrnet"))
        if self.heatmap_loss == "cross_entropy" and name != "mobile_oa_hpe":
            raise ArgumentError(
                f"heatmap_loss must be squared for {name}, got cross_entropy; only mobile_oa_hpe returns logits"
            )
        return self

    def architecture(self) -> dict[str, Any]:
        """Return the argument of `oaks.training.networks.build`."""
        own = super().architecture()
        return {**own, "input": list(self.input)} if own.get("name") in ("oa_hpe", "mobile_oa_hpe") else own


class KSRecipe(Recipe):
    """Training of a KS-net on the heatmaps of trained pose networks.

    Attributes:
        pose: the trained pose network; or one per fold for cross-fitting: network i was trained without fold i and
            runs only on fold i.
        heatmaps: "stored" runs the pose network once on all people (and their `views`) before training and keeps
            float16 heatmaps beside the run; "live" runs it in every step.
        views: how often each person is stored: once unchanged, then augmented.
        store: folder of the stored heatmaps, which several trainings can share; default: beside the run.
        loss: "absolute" (equation 9 of the paper), or "cross_entropy"; see `oaks.training.losses.similarity_loss`.
        calibrate: whether the scale and bias of predicted visibility and KS are fitted on the validation people and
            saved with the network. Do not report results on these people.
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
                "network.visibility must be left out of a recipe, because the pose network predicts visibility, got "
                "True; `oaks fit --scorer ks-net` trains a KS-net that predicts both"
            )
        folds, varied = self.data.folds, self.augmentation
        if varied.rotation or varied.half_body:
            raise ArgumentError(
                "augmentation.rotation and half_body must be 0 for a KS-net, "
                f"got {varied.rotation:g} and {varied.half_body:g}; they are for pose networks"
            )
        if self.views > 1 and self.heatmaps == "live":
            raise ArgumentError(
                f"views must be 1 with live heatmaps, which are augmented anew in every step, got {self.views}"
            )
        if self.calibrate and not self.data.validation and (folds is None or folds.held_out is None):
            raise ArgumentError(
                "calibrate must have validation people, got none; set data.validation or data.folds.held_out"
            )
        if len(self.pose) > 1 and (folds is None or len(self.pose) != folds.count):
            raise ArgumentError(
                f"data.folds.count must be {len(self.pose)}, one fold per pose network, got {folds}"
            )
        return self


class DetectionData(StrictModel):
    """Sources of a detector's images. The held-out fold is used for validation."""

    train: Annotated[list[DetectionSource], Field(min_length=1)]
    folds: Folds | None = None


class DetectorRecipe(Recipe):
    """Training of a person detector on whole images.

    Attributes:
        input: (width, height) of the input, multiples of 32.
        mean, std: normalization of the input, RGB, on the 0-255 scale.
        box_weight: weight of the box loss relative to the center loss.
        overlap: IoU above which NMS drops the worse of two boxes.
    """

    kind: Literal["detector"]
    data: DetectionData  # type: ignore[assignment]  # replaces Recipe's field by another type
    augmentation: DetectionAugmentation = DetectionAugmentation()  # type: ignore[assignment]  # likewise
    input: tuple[int, int]
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[Positive, Positive, Positive] = (127.5, 127.5, 127.5)
    box_weight: Positive = 1
    overlap: Probability = 0.6

    @model_validator(mode="after")
    def _network_fits(self) -> DetectorRecipe:
        _check_input(self.input, 32)
        _try_to_build(self, ("person_detector",))
        return self

    def architecture(self) -> dict[str, Any]:
        """Return the argument of `oaks.training.networks.build`."""
        return dict(self.network)


AnyRecipe = PoseRecipe | KSRecipe | DetectorRecipe


def _check_input(size: tuple[int, int], step: int) -> None:
    if min(size) < 32 or size[0] % step or size[1] % step:
        raise ArgumentError(f"input must be (width, height), multiples of {step} and at least 32, got {size}")


def _try_to_build(recipe: Recipe, names: tuple[str, ...]) -> None:
    import torch

    from oaks.training.networks import build

    if given := {"keypoints", "input"} & set(recipe.network):
        raise ArgumentError(
            f"network must be without {sorted(given)}, which come from the recipe's skeleton and input, got them"
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
    """Return the recipe that plain data describe.

    Raises:
        ArgumentError: a field is unknown, missing or wrong; the message names `where` and all such fields.
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
    """Return the recipe in a YAML file, or the built-in recipe of that name.

    With `extends: NAME` (a built-in recipe, or a path relative to the file's folder) the file states only the differences
    from that recipe: mappings are merged, everything else is replaced. In place of a list, a mapping changes single
    items, by number: `train: {0: {weight: 3}}`.

    Args:
        path: a file, or the name of a built-in recipe (without .yaml).
        changes: "field.subfield=value" with values in YAML; list items by number: "data.train.0.limit=10".

    Raises:
        FileNotFoundError: there is neither such a file nor such a built-in recipe.
        ArgumentError: the file or a change does not make a valid recipe.
    """
    file = _find(str(path), Path())
    content = _read_extended(file, [])
    for change in changes or []:
        _apply(content, change)
    return parse_recipe(content, str(file))


def _find(name: str, folder: Path) -> Path:
    """Return the file `name` in a folder, or the built-in recipe of that name."""
    built_in = Path(__file__).parent / "recipes"
    for file in (folder / name, built_in / f"{name}.yaml"):
        if os.path.isfile(file):  # unlike Path.is_file, it returns False for names that no file can have
            return file
    names = ", ".join(sorted(found.stem for found in built_in.glob("*.yaml")))
    raise FileNotFoundError(f"recipe not found: {name}; built in are {names}")


def _read_extended(file: Path, extending: list[Path]) -> Any:
    """Return the content of a file, merged into the recipe that it extends; the files in `extending` extend it."""
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
    """Return a recipe's content, or a part of it, with changes; `where` names the file in messages."""
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
