"""The paper's ablations of KS-net: backbones (table 5) and repeated trainings (table 4).

Each runs the missing trainings, evaluates on one data set, and returns a section of a report. All variants of a call share
the stored heatmaps. A stopped call resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from oaks import ops
from oaks.arguments import check_count
from oaks.errors import ArgumentError
from oaks.names import number_of
from oaks.progress import progress
from oaks.training.checkpoint import load_network
from oaks.training.data.people import read_coco
from oaks.training.data.sources import DataFolders
from oaks.training.networks.ks_net import BACKBONES
from oaks.training.recipe import AnyRecipe, KSRecipe
from oaks.training.run import Hardware, train_or_resume
from oaks.training.validation import CropDataset, CropSettings, Estimate, estimate, ordered_loader
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.report import paper
from oaks.val.report.comparison import trainings_table
from oaks.val.report.document import Cell, Column, Section, Table
from oaks.val.report.ranking import EIGHT, eight_figures
from oaks.val.scores import TITLES, ScoredDetections

COLUMNS = (Column("Source", "text"), *(Column(figure) for figure in EIGHT))
PAPER_BACKBONES = ("conv2", "alexnet", "vgg19", "googlenet", "resnet18", "resnet50")


def backbone_variants(recipe: KSRecipe, backbones: Sequence[str] = PAPER_BACKBONES) -> dict[str, KSRecipe]:
    """Return the recipe with each backbone, by name.

    Raises:
        ArgumentError: a backbone is not one of `oaks.training.networks.ks_net.BACKBONES`.
    """
    for backbone in backbones:
        if backbone not in BACKBONES:
            raise ArgumentError(f"backbones must be some of {', '.join(BACKBONES)}, got {backbone!r}")
    return {b: recipe.model_copy(update={"network": {**recipe.network, "backbone": b}}) for b in backbones}


def seed_variants(recipe: KSRecipe, trainings: int) -> dict[str, KSRecipe]:
    """Return the recipe with the seeds 0 to `trainings` - 1, by name."""
    check_count("trainings", trainings)
    return {
        f"training-{seed}": recipe.model_copy(
            update={"training": recipe.training.model_copy(update={"seed": seed})}
        )
        for seed in range(trainings)
    }


def train_variants(
    variants: Mapping[str, KSRecipe], out: str | Path, place: DataFolders, machine: Hardware | None = None
) -> dict[str, Path] | None:
    """Train each variant in a folder of its own, or resume it; complete trainings do not change.

    Returns:
        The networks' files by variant; None if the time limit was reached first.
    """
    out = Path(out)
    networks = {}
    for name, recipe in variants.items():
        shared = recipe.model_copy(update={"store": out / "heatmaps"})
        network = train_or_resume(shared, out / name, machine, data=place.data, packed=place.packed)
        if network is None:
            return None
        networks[name] = network
    return networks


@torch.inference_mode()
def measure(
    pose: str | Path,
    networks: Mapping[str, str | Path],
    annotations: str | Path,
    images: str | Path,
    *,
    device: str = "cpu",
    batch: int = 32,
    workers: int = 0,
) -> dict[str, ScoredDetections]:
    """Evaluate one pose network with several KS-nets on annotated people, with ground-truth boxes.

    The pose network runs once, so that the heatmaps and poses are the same for every KS-net.

    Args:
        pose: file of the pose network.
        networks: files of KS-nets, by name.
        annotations, images: COCO keypoint annotations and the folder of their images.
        device: device of the networks.
        batch: people per pass.
        workers: loader workers.

    Raises:
        ArgumentError: a network is of the wrong kind; the message names the file.
    """
    network, description = _load(pose, "pose", device)
    ks_nets = {name: _load(path, "ks", device)[0] for name, path in networks.items()}
    view = CropSettings.of(description)
    truth = GroundTruth.load(annotations, skeleton=view.skeleton)
    people = read_coco(Path(annotations).stem, Path(annotations), Path(images), view.skeleton)
    loader = ordered_loader(CropDataset([people], view), batch=batch, workers=workers)
    rows: dict[str, list[dict]] = {name: [] for name in ks_nets}
    with progress("Evaluating", len(loader)) as advance:
        for content in loader:
            advance()
            if content is None:
                continue
            found = estimate(network, content["crop"].to(device), content["transform"].numpy(), view)
            heatmaps = torch.from_numpy(found.heatmaps).to(device)
            for name, ks in ks_nets.items():
                similarity = torch.sigmoid(ks(heatmaps).float()).cpu().numpy()
                rows[name] += _rows(content, found._replace(similarity=similarity), truth.category_id)
    return {
        name: ScoredDetections.of(
            truth,
            Detections.from_rows(
                found, truth, path=str(networks[name]), name=name, box_source="ground truth"
            ),
        )
        for name, found in rows.items()
    }


def _load(path: str | Path, kind: str, device: str) -> tuple[torch.nn.Module, dict]:
    network, description = load_network(path, kind)
    return network.to(device), description


def _rows(content: Mapping[str, torch.Tensor], found: Estimate, category: int) -> list[dict]:
    """Return the rows of a results file for one batch, with the conventional score."""
    assert found.similarity is not None
    scores = ops.conventional_score(found.heat)
    return [
        {
            "image_id": int(content["image_id"][n]),
            "category_id": category,
            "annotation_id": int(content["person_id"][n]),
            "keypoints": [value for x, y in found.points[n].tolist() for value in (x, y, 1.0)],
            "score": float(scores[n]),
            "heat": found.heat[n].tolist(),
            "similarity": found.similarity[n].tolist(),
            "visibility": None if found.visibility is None else found.visibility[n].tolist(),
        }
        for n in range(len(found.points))
    ]


def backbones_section(measured: Mapping[str, ScoredDetections], *, beside_paper: bool = False) -> Section:
    """Return table 5: one row per backbone, with true visibility."""
    rows: list[tuple[Cell, ...]] = []
    for name, found in measured.items():
        title, published = paper.KS_NET_BACKBONES.get(name, (name, None))
        rows.append((title, "here", *eight_figures(found, "oaks_true_visibility").values()))
        if beside_paper and published:
            rows.append((title, "paper", *(published[figure] for figure in EIGHT)))
    table = Table(
        "ks-backbones",
        "KS-net's backbone (table 5)",
        (Column("Backbone", "text"), *COLUMNS),
        tuple(rows),
        "Predicted keypoint similarity with true visibility; the poses are the same in every row.",
    )
    return Section("ks-backbones", "KS-net's backbone", _on(measured), (table,))


def trainings_section(measured: Mapping[str, ScoredDetections], *, beside_paper: bool = False) -> Section:
    """Return table 4: heat, KS-net over several trainings, and the oracle, with true visibility.

    Args:
        measured: the trainings on the same poses, as `measure` returns them.
        beside_paper: whether to add the paper's figures.
    """
    first = next(iter(measured.values()))
    heat, oracle = (eight_figures(first, key) for key in ("heat_true_visibility", "oracle"))
    found = {name: eight_figures(one, "oaks_true_visibility") for name, one in measured.items()}
    names = (TITLES["heat_true_visibility"], TITLES["oaks_true_visibility"])
    test = trainings_table([heat] * len(found), list(found.values()), names)
    mean = {name: sum(one[name] for one in found.values()) / len(found) for name in EIGHT}
    rows: list[tuple[Cell, ...]] = []
    for key, figures in (("heat_true_visibility", heat), ("oaks_true_visibility", mean), ("oracle", oracle)):
        rows.append((TITLES[key], "here", *figures.values()))
        if beside_paper:
            published = paper.GROUND_TRUTH_BOXES[key]
            rows.append((TITLES[key], "paper", *(published.get(figure) for figure in EIGHT)))
    means = Table(
        "ks-trainings-means",
        "Mean over the trainings, with true visibility",
        (Column("Score", "text"), *COLUMNS),
        tuple(rows),
    )
    each = Table(
        "ks-trainings-each",
        "Every training, with true visibility",
        (Column("Training", "text"), *(Column(figure) for figure in EIGHT)),
        tuple((name, *figures.values()) for name, figures in found.items()),
    )
    return Section("ks-trainings", "KS-net trained several times", _on(measured), (test, means, each))


def _on(measured: Mapping[str, ScoredDetections]) -> str:
    truth = next(iter(measured.values())).truth
    people = number_of(int(truth.counted.sum()), "person", "people")
    return (
        f"On {people} of {Path(truth.path).name}, with ground-truth boxes, flip and "
        "the pose network's own decoder."
    )


def ablate(
    kind: str,
    recipe: AnyRecipe,
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    pose: str | Path | None = None,
    place: DataFolders | None = None,
    machine: Hardware | None = None,
    backbones: Sequence[str] = PAPER_BACKBONES,
    trainings: int = 10,
    device: str = "cpu",
    beside_paper: bool = False,
) -> Section | None:
    """Train variants of KS-net, evaluate them, and return the paper's table of them. A stopped call resumes.

    Args:
        kind: "backbones" (table 5) or "trainings" (table 4).
        recipe: recipe of a KS-net.
        annotations, images: COCO keypoint annotations to evaluate on, and the folder of their images.
        out: folder of the trainings.
        pose: file of the pose network to evaluate with; None: the recipe's first.
        place: folders of the recipe's sources.
        machine: hardware and time limit of the trainings.
        backbones: variants of kind "backbones".
        trainings: number of variants of kind "trainings", with seeds from 0.
        device: device of the evaluation.
        beside_paper: whether to add the paper's figures.

    Returns:
        A section of a report; None if the time limit was reached before all trainings were complete.

    Raises:
        ArgumentError: `kind` is unknown, or the recipe is not of a KS-net.
    """
    if kind not in ("backbones", "trainings"):
        raise ArgumentError(f"kind must be 'backbones' or 'trainings', got {kind!r}")
    if not isinstance(recipe, KSRecipe):
        raise ArgumentError(f"recipe must be of kind ks, got {recipe.title!r}")
    variants = (
        backbone_variants(recipe, backbones) if kind == "backbones" else seed_variants(recipe, trainings)
    )
    networks = train_variants(variants, out, place or DataFolders(), machine)
    if networks is None:
        return None
    measured = measure(pose or recipe.pose[0], networks, annotations, images, device=device)
    make = backbones_section if kind == "backbones" else trainings_section
    return make(measured, beside_paper=beside_paper)


__all__ = [
    "PAPER_BACKBONES", "ablate", "backbone_variants", "backbones_section", "measure",
    "seed_variants", "train_variants", "trainings_section",
]  # fmt: skip
