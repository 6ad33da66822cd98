"""The paper's tables and figures on a bundle, beside the paper's own: the numbers and drawings of docs/paper.md.

    python benchmarks/paper.py DATA --log benchmarks/results/coco-val2017-test.jsonl
    python benchmarks/paper_page.py

DATA holds the annotated photographs as the recipes name them. The first command

1. takes the pose network out of the bundle,
2. trains the paper's KS-net behind it, on people that the pose network has not seen: ten times with other seeds
   (table 4), once with each other backbone (table 5), and once with six numbers about each map beside the smallest,
3. stores the pose network's heatmaps of the people in coco-val2017/test.json, who are for measuring only, and
   measures every KS-net on them,
4. runs the whole bundle over the same people, with annotated boxes and with boxes of its own detector (tables 1 to 3
   and 6 to 8, figures 4 to 6, 11 and 12), and
5. draws figures 9 and 10 with rendered people.

What predicting visibility costs (table 1) is measured on two networks that differ in the occlusion subnet alone:

    oaks train small_pose --data DATA --out runs/small_pose
    oaks train small_pose --data DATA --out runs/hpe --set network.visibility=false
    oaks export runs/small_pose/network.safetensors --out runs/oa-hpe-bundle --detector detector
    oaks export runs/hpe/network.safetensors --out runs/hpe-bundle --detector detector
    python benchmarks/paper.py DATA --log LOG --only subnet --hpe runs/hpe-bundle --oa-hpe runs/oa-hpe-bundle

Everything is kept in --out, and the same command resumes there. A step that --max-minutes has no time for is left out of
benchmarks/results/paper.json, and the page says "not run". The second command writes the tables into the page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from measure import add_to_log
from photographs import check_log

from oaks import Engine
from oaks.box_files import read_boxes
from oaks.bundle import Bundle
from oaks.files import replacing, write_json
from oaks.fit.heatmaps import averaged_people
from oaks.fit.report import measured_with
from oaks.poses import Poses
from oaks.predict import DEMO
from oaks.training import ablations
from oaks.training.checkpoint import load_from_bundle, load_network, save_network
from oaks.training.data.held_out import write_held_out
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.ks import load_pose_networks, open_store
from oaks.training.recipe import KSRecipe, read_recipe
from oaks.training.run import Hardware
from oaks.training.run_folder import RunFolder
from oaks.training.validation import CropDataset
from oaks.val.bootstrap import Contender, compare_rankings
from oaks.val.detect import detect
from oaks.val.detections import Detections
from oaks.val.evaluate import Settings, evaluate_bundle, save_evaluation
from oaks.val.find_people import find_people
from oaks.val.ground_truth import GroundTruth
from oaks.val.report.document import Cell, Figure, Item, Report, Section, Table, columns
from oaks.val.report.ranking import EIGHT, eight_figures
from oaks.val.report.writer import item_to_json, print_tables, slug
from oaks.val.scores import ScoredDetections

RESULTS = Path(__file__).parent / "results" / "paper.json"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
TEST = Path("coco-val2017") / "test.json"
KS_RECIPE, POSE_RECIPE = "small_ablation", "small_pose_longer"
FIRST_TRAINING = "training-0"
"""Has the recipe's own backbone and seed, and so is the row of ResNet-18 in table 5."""
WITH_FIGURES = "conv2_figures"
"""The smallest backbone, whose pooled features the hidden layers see beside six numbers about each map."""
PICTURES = {"figure-9": "people_2.jpg", "figure-10": "people_3.jpg"}
"""Rendered pictures of the package, by figure: a person behind another and one in front, and people cut off by the frame."""
DRAWINGS = {
    "flags-ground-truth-boxes": "flags.svg",
    "heat-against-ks-ground-truth-boxes": "heat-against-ks.svg",
    "ks-against-ks-ground-truth-boxes": "ks-against-ks.svg",
    "histograms-ground-truth-boxes": "histograms.svg",
    "reliability-class-ground-truth-boxes": "reliability-class.svg",
    "gains-ground-truth-boxes": "gains.svg",
    "errors-ground-truth-boxes": "errors.svg",
    "errors-detected-boxes": "errors-detected.svg",
}
"""Figures of the evaluation's report that the documentation shows, and their files there."""


class Budget:
    """Whether there is time to begin another step."""

    def __init__(self, minutes: float | None) -> None:
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def left(self) -> float | None:
        """Minutes; None for no limit."""
        return None if self.deadline is None else max(0.0, (self.deadline - time.monotonic()) / 60)

    @property
    def spent(self) -> bool:
        """Whether the time is up."""
        return self.left == 0


def pose_network(bundle: Bundle, recipe: str, out: Path) -> Path:
    """The bundle's pose network as a training takes it.

    Args:
        bundle: exported with torch weights.
        recipe: that the network was trained by, where the bundle does not say: it names the people that were held out.
        out: folder of the file.
    """
    path = out / "pose.safetensors"
    if not path.is_file():
        network, description = load_from_bundle(bundle.weights()[0])
        description.setdefault("recipe", read_recipe(recipe).model_dump(mode="json"))
        save_network(path, network, description)
    return path


def store_heatmaps(bundle: Bundle, recipe: KSRecipe, pose_recipe: str, data: Path, folder: Path) -> None:
    """Store the heatmaps that every training shares, made by the bundle's network as in use.

    Only for one view of each person: others are made by the training itself.

    Args:
        bundle: of the pose network.
        recipe: of the KS-nets.
        pose_recipe: of the pose network: names the people that it holds out.
        data: folder of the annotated photographs.
        folder: the store is `networks/heatmaps` in it.
    """
    if recipe.views > 1:
        return
    pose, _ = load_pose_networks(recipe)
    split = open_data(recipe.data, recipe.load_skeleton(), DataFolders(data))
    crops = CropDataset(split.train, pose.view)
    store = open_store(recipe, folder / "networks" / "heatmaps", split, pose, crops)
    if not store.missing():
        return
    held_out = {
        path.stem: (path, images) for path, images in write_held_out(pose_recipe, data, folder / "held-out")
    }
    columns: list[tuple[np.ndarray, ...]] = []
    for source in split.train:
        path, images = held_out[source.name]
        people, maps = averaged_people(bundle, [path], [images], folder / "held-out-maps" / source.name, 1)
        row = {int(person): n for n, person in enumerate(people.truth.ids[people.detections.own])}
        rows = [row[int(person)] for person in source.person_ids]
        columns.append((maps[rows], people.similarity[rows], people.labeled[rows]))
    store.put(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def variants(recipe: KSRecipe, trainings: int) -> dict[str, KSRecipe]:
    """Ten trainings of table 4, then the backbones of table 5, the quickest first."""
    others = [name for name in ablations.PAPER_BACKBONES if name != recipe.network["backbone"]]
    order = sorted(others, key=("conv2", "alexnet", "googlenet", "resnet50", "vgg19").index)
    figures = {**recipe.network, "backbone": "conv2", "figures": True}
    return {
        **ablations.seed_variants(recipe, trainings),
        WITH_FIGURES: recipe.model_copy(update={"network": figures}),
        **ablations.backbone_variants(recipe, order),
    }


def train_all(every: dict[str, KSRecipe], out: Path, data: Path, budget: Budget) -> dict[str, Path]:
    """Train what is missing as far as the time goes; files of the complete trainings, by variant."""
    for name, recipe in every.items():
        if budget.spent:
            break
        begun = time.monotonic()
        machine = Hardware("cpu", max_minutes=budget.left)
        if ablations.train_variants({name: recipe}, out, DataFolders(data), machine) is not None:
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    folders = {name: RunFolder(out / name) for name in every}
    return {name: folder.network for name, folder in folders.items() if folder.complete()}


@torch.inference_mode()
def measure(
    bundle: Bundle, networks: dict[str, Path], test: tuple[Path, Path], store: Path
) -> dict[str, ScoredDetections]:
    """Every KS-net on the stored heatmaps of the test people."""
    people, maps = averaged_people(bundle, [test[0]], [test[1]], store, 1)
    everywhere = np.ones(people.heat.shape)  # these tables take the true visibility
    found = {}
    for name, path in networks.items():
        network, _ = load_network(path)
        parts = (
            torch.sigmoid(network(torch.from_numpy(maps[first : first + 64].astype(np.float32)))).numpy()
            for first in range(0, len(maps), 64)
        )
        found[name] = measured_with(people.truth, people.detections, np.concatenate(list(parts)), everywhere)
    return found


def ks_sections(found: dict[str, ScoredDetections], backbone: str) -> list[Section]:
    """Tables 4 and 5 of the KS-nets that are trained."""
    seeds = {name: one for name, one in found.items() if name.startswith("training-")}
    others = {name: one for name, one in found.items() if name not in seeds}
    by_backbone = {
        name: {**others, backbone: seeds.get(FIRST_TRAINING)}.get(name)
        for name in (*ablations.PAPER_BACKBONES, WITH_FIGURES)
    }
    known = {name: one for name, one in by_backbone.items() if one is not None}
    sections = [ablations.trainings_section(seeds, beside_paper=True)] if len(seeds) > 1 else []
    return sections + ([ablations.backbones_section(known, beside_paper=True)] if known else [])


def draw_people(engine: Engine, folder: Path) -> None:
    """Figures 9 and 10: the poses of rendered people with every keypoint, beside those with the visible ones alone."""
    boxes = read_boxes(DEMO / "people.json")
    for name, file in PICTURES.items():
        picture = cv2.imread(str(DEMO / file))
        found, scores = boxes.of(boxes.image_id(DEMO / file))
        poses = engine.infer(picture, boxes=found, box_scores=scores)
        sides = [all_visible(poses).draw(picture, scores=False), poses.draw(picture, scores=False)]
        content = cv2.imencode(".jpg", np.hstack(sides), [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        with replacing(folder / f"{name}.jpg") as stream:
            stream.write(content)


def all_visible(poses: Poses) -> Poses:
    """The same poses, with every keypoint predicted visible."""
    return replace(poses, visibility=np.ones_like(poses.visibility))


def items(report: Report) -> Iterator[Item]:
    """Tables, figures and galleries of a report."""
    for section in report.sections:
        yield from section.items


def keep_drawings(report: Report, folder: Path) -> None:
    """Write the drawings that the documentation shows."""
    for item in items(report):
        if isinstance(item, Figure) and slug(item.key) in DRAWINGS:
            with replacing(folder / DRAWINGS[slug(item.key)]) as stream:
                stream.write((item.svg + "\n").encode())


def schedule(recipe: KSRecipe) -> dict[str, Any]:
    """What the page says about the trainings."""
    training = recipe.training.model_dump(
        mode="json", include={"epochs", "batch", "learning_rate", "schedule"}
    )
    return {"network": recipe.network, "loss": recipe.loss, "views": recipe.views, **training}


def logged_figures(tables: list[Table]) -> dict[str, Any]:
    """AP with the true visibility: of heat, of every KS-net, and of the true similarity."""
    chosen = {"ks-trainings-means": (0, 2), "ks-trainings-each": (0, 1), "ks-backbones": (0, 2)}
    found = {
        str(row[name]): round(float(row[ap]), 4)  # type: ignore[arg-type]
        for table in tables if table.key in chosen
        for name, ap in [chosen[table.key]]
        for row in table.rows if row[1] != "paper"
    }  # fmt: skip
    return {"AP with true visibility": found}


def logged_ranking(report: Report) -> dict[str, Any]:
    """AP, AP50, AP75 and AR of the scores, by boxes."""
    kept: dict[str, Any] = {}
    for item in items(report):
        if isinstance(item, Table) and item.key.startswith("ranking-"):
            at = {column.title: n for n, column in enumerate(item.columns)}
            kept[item.key.removeprefix("ranking-")] = {
                str(row[0]): {name: round(float(row[at[name]]), 4) for name in ("AP", "AP50", "AP75", "AR")}  # type: ignore[arg-type]
                for row in item.rows
            }
    return kept


def update_results(part: str, about: dict[str, Any], tables: list[Table]) -> None:
    """Put the tables of a part into the results file; those of other parts stay."""
    content = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    content[part] = {"about": about, "tables": {slug(table.key): item_to_json(table) for table in tables}}
    write_json(RESULTS, content, indent=1)


def run_ks(
    bundle: Bundle, recipe: KSRecipe, folder: Path, data: Path, trainings: int, budget: Budget
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Tables 4 and 5; what the log says of them, by what they were made with and what was found."""
    networks = train_all(variants(recipe, trainings), folder / "networks", data, budget)
    if not networks:
        return None
    test = (data / TEST, (data / TEST).with_suffix(""))
    found = measure(bundle, networks, test, folder / "test-maps")
    sections = ks_sections(found, recipe.network["backbone"])
    tables = [item for section in sections for item in section.items if isinstance(item, Table)]
    print_tables(tables)
    about = {**schedule(recipe), "trained": list(networks)}
    update_results("ks", {**made_with(bundle), **about}, tables)
    return about, logged_figures(tables)


def run_bundle(
    bundle: str, folder: Path, data: Path, resamples: int, ground_truth_only: bool
) -> dict[str, Any]:
    """All other tables and figures; the figures that the log keeps."""
    truth, images = GroundTruth.load(data / TEST), (data / TEST).with_suffix("")
    with Engine(bundle) as engine:
        draw_people(engine, FIGURES)
        settings = Settings(resamples=resamples, beside_paper=True)
        out = folder / f"evaluation-{engine.bundle.sha256[:12]}"
        report = evaluate_bundle(
            engine, truth, images, out, ground_truth_only=ground_truth_only, settings=settings
        )
        print(save_evaluation(report, out))
        keep_drawings(report, FIGURES)
        tables = [item for item in items(report) if isinstance(item, Table)]
        ran = {name: engine.describe()[name] for name in ("backend", "precision", "decoder", "flip")}
        update_results("bundle", {**made_with(engine.bundle), **ran, "resamples": resamples}, tables)
    return {**ran, **logged_ranking(report)}


def measure_network(bundle: str, data: Path, folder: Path) -> dict[str, ScoredDetections]:
    """A bundle's poses of the test people, by where the boxes come from: the annotations, or the bundle's detector."""
    truth, images = GroundTruth.load(data / TEST), (data / TEST).with_suffix("")
    with Engine(bundle) as engine:
        out = folder / f"{engine.bundle.name}-{engine.bundle.sha256[:12]}"
        out.mkdir(parents=True, exist_ok=True)
        boxes = find_people(engine, truth, images, out / "people-boxes.json")
        made = {
            "ground truth": detect(engine, truth, images, out / "ground-truth-boxes.json"),
            "detected": detect(engine, truth, images, out / "detected-boxes.json", boxes=boxes),
        }
    return {
        name: ScoredDetections.of(truth, Detections.load(path, truth, name=name))
        for name, path in made.items()
    }


def subnet_tables(measured: dict[str, dict[str, ScoredDetections]], resamples: int) -> list[Table]:
    """The conventional score of two networks, and what the second adds to the first, by the source of the boxes."""
    rows: list[tuple[Cell, ...]] = []
    differences: list[tuple[Cell, ...]] = []
    for boxes in next(iter(measured.values())):
        found = {network: by_boxes[boxes] for network, by_boxes in measured.items()}
        rows += [(name, boxes, *eight_figures(one, "conventional").values()) for name, one in found.items()]
        contenders = [Contender(name, one, one.scores["conventional"].ranks) for name, one in found.items()]
        for comparison in compare_rankings(contenders, resamples=resamples):
            if comparison.figure in ("AP", "AP75"):
                interval = comparison.differences[0]
                differences.append((boxes, comparison.figure, interval.value, interval.low, interval.high))
    return [
        Table(
            "subnet",
            "Conventional score without and with the occlusion subnet",
            columns(text=["Network", "Boxes"], percent=EIGHT),
            tuple(rows),
        ),
        Table(
            "subnet-differences",
            "OA-HPE less HPE",
            columns(text=["Boxes", "Figure"], points=["Difference", "From", "To"]),
            tuple(differences),
        ),
    ]


def run_subnet(
    bundles: dict[str, str], folder: Path, data: Path, resamples: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Table 1 after the first training; what the log says of it, by what it was made with and what was found."""
    measured = {network: measure_network(bundle, data, folder) for network, bundle in bundles.items()}
    tables = subnet_tables(measured, resamples)
    print_tables(tables)
    about: dict[str, Any] = {
        network.lower(): Bundle.load(bundle).network("pose").sha256 for network, bundle in bundles.items()
    }
    about |= {"annotations": "/".join(TEST.parts), "resamples": resamples}
    update_results("subnet", about, tables)
    kept = {f"{row[0]}, {row[1]}": round(float(row[2]), 4) for row in tables[0].rows}  # type: ignore[arg-type]
    return about, {"AP, conventional score": kept}


def made_with(bundle: Bundle) -> dict[str, str]:
    """The bundle and the people, in the words of the log."""
    return {"bundle": bundle.name, "bundle_sha256": bundle.sha256, "annotations": "/".join(TEST.parts)}


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the annotated photographs.")],
    log: Annotated[Path, typer.Option("--log", help="File of JSON lines to add to.")],
    bundle: Annotated[str, typer.Option(help="Bundle folder, zip or name.")] = "small",
    out: Annotated[Path, typer.Option(help="Folder of everything that is kept.")] = Path("runs/paper"),
    only: Annotated[
        str | None,
        typer.Option(
            help="Part: ks (tables 4 and 5), bundle (other tables) or subnet (HPE of table 1). Default: ks and bundle."
        ),
    ] = None,
    trainings: Annotated[int, typer.Option(min=2, help="Trainings of table 4.")] = 10,
    change: Annotated[
        list[str], typer.Option("--set", help="Changes of the KS-net's recipe: field=value.")
    ] = [],  # noqa: B006
    pose_recipe: Annotated[str, typer.Option(help="Recipe of the pose network.")] = POSE_RECIPE,
    max_minutes: Annotated[float | None, typer.Option(help="Begin no training after so long.")] = None,
    ground_truth_only: Annotated[
        bool, typer.Option("--ground-truth-only", help="Leave the detected boxes out.")
    ] = False,
    hpe: Annotated[
        str | None, typer.Option(help="For subnet: bundle of the network without the occlusion subnet.")
    ] = None,
    oa_hpe: Annotated[
        str | None, typer.Option(help="For subnet: bundle of the network with the occlusion subnet.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 1000,
    note: Annotated[str, typer.Option(help="What the log should say about this run.")] = "",
) -> None:
    """Train, measure, draw and write down."""
    if only not in (None, "ks", "bundle", "subnet"):
        raise typer.BadParameter(f"only must be ks, bundle or subnet, got {only!r}")
    check_log(data / TEST, log, no_log=False)
    if only == "subnet" and hpe and oa_hpe:
        about, kept = run_subnet({"HPE": hpe, "OA-HPE": oa_hpe}, out / "subnet", data, resamples)
        add_to_log(log, script="paper.py", note=note, **about, **kept)
        return
    if only == "subnet" or hpe or oa_hpe:
        raise typer.BadParameter("pass all or none of --only subnet, --hpe, --oa-hpe")
    opened = Bundle.load(bundle)
    folder = out / f"{opened.name}-{opened.network('pose').sha256[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    if only != "bundle":
        pose = pose_network(opened, pose_recipe, folder)
        recipe = read_recipe(KS_RECIPE, [*change, f"pose=[{pose}]"])
        assert isinstance(recipe, KSRecipe)
        store_heatmaps(opened, recipe, pose_recipe, data, folder)
        done = run_ks(opened, recipe, folder, data, trainings, Budget(max_minutes))
        if done is not None:
            add_to_log(log, script="paper.py", note=note, **made_with(opened), **done[0], **done[1])
    if only != "ks":
        kept = run_bundle(bundle, folder, data, resamples, ground_truth_only)
        add_to_log(log, script="paper.py", note=note, **made_with(opened), **kept)


if __name__ == "__main__":
    typer.run(main)
