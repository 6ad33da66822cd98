"""The paper's ablations at small scale on rendered people, from rendering to one report. Takes a night.

    python benchmarks/ablations.py [--out runs/ablations] [--quick]

Renders people, trains a pose network with the occlusion subnet, one without, and a KS-net, exports them, and
runs the evaluation and tables 4, 5 and 9. It runs and prints the commands that a user would type. The same
command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    people: int
    test: int
    epochs: int
    trainings: int
    resamples: int


NIGHT = Scale(people=2500, test=500, epochs=8, trainings=10, resamples=1000)
QUICK = Scale(people=60, test=30, epochs=1, trainings=2, resamples=20)


def oaks(*arguments: object) -> None:
    """Runs one command of the command line, and prints it."""
    words = [str(argument) for argument in arguments]
    print("oaks", *words, flush=True)
    subprocess.run([sys.executable, "-m", "oaks", *words], check=True)


def train(recipe: str, folder: Path, changes: list[str]) -> Path:
    """Train, resume a training, or return a finished one."""
    card = folder / "metrics.json"
    if card.is_file():
        state = json.loads(card.read_text(encoding="utf-8"))
        if state["step"] >= state["steps"]:
            return folder / "network.safetensors"
    if (folder / "run.json").is_file():
        oaks("train", "--resume", folder, "--accelerator", "cpu")
    else:
        oaks("train", recipe, "--out", folder, "--accelerator", "cpu", *_set(changes))
    return folder / "network.safetensors"


def source(folder: Path) -> str:
    """A rendered data set as a recipe names it."""
    at = folder.resolve()
    return f"{{kind: coco, name: {folder.name}, annotations: {at}/annotations.json, images: {at}/images}}"


def _set(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def bundle(pose: Path, ks: Path | None, out: Path) -> Path:
    """Exports networks, unless the bundle is there."""
    if not (out / "bundle.json").is_file():
        from oaks.engines.export.export import export

        export(pose, ks, out=out)
    return out


def main() -> None:
    """Renders, trains, exports, evaluates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder of everything")
    parser.add_argument("--quick", action="store_true", help="a few people and epochs: does it run at all?")
    options = parser.parse_args()
    scale = QUICK if options.quick else NIGHT
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)

    counts = {"pose": scale.people, "ks": scale.people, "held-out": scale.test // 2, "test": scale.test}
    for seed, (name, count) in enumerate(counts.items(), 1001):
        oaks("render", out / name, "--count", count, "--seed", seed)
    loop = [f"training.epochs={scale.epochs}", f"training.validate_every={scale.epochs}"]
    held_out = f"data.validation=[{source(out / 'held-out')}]"
    of_pose = [f"data.train=[{source(out / 'pose')}]", held_out, *loop]
    with_subnet = train("rendered_oa_hpe", out / "oa_hpe", of_pose)
    without = train("rendered_oa_hpe", out / "hpe", [*of_pose, "network.visibility=false", "training.seed=1"])
    of_ks = [f"data.train=[{source(out / 'ks')}]", held_out, *loop, f"pose=[{with_subnet}]"]
    ks = train("rendered_ks_net", out / "ks_net", of_ks)
    ours = bundle(with_subnet, ks, out / "bundle")
    theirs = bundle(without, None, out / "other")

    test, images = out / "test" / "annotations.json", ("--images", out / "test" / "images")
    report, beside = out / "report", ("--against", "paper")
    oaks("val", ours, test, *images, "--out", report, *beside, "--resamples", scale.resamples)
    on = (
        "rendered_ks_net",
        "--annotations",
        test,
        *images,
        *beside,
        "--report",
        report,
        "--accelerator",
        "cpu",
    )
    oaks("val", "ablate", "backbones", *on, "--out", out / "backbones", *_set(of_ks))
    seeds = ("--trainings", scale.trainings)
    oaks("val", "ablate", "trainings", *on, "--out", out / "trainings", *seeds, *_set(of_ks))
    oaks("val", "detect", theirs, test, *images, "--out", out / "other.json")
    scored = ("--annotations", test, *images, "--bundle", ours, "--out", report)
    oaks("val", "others", out / "other.json", *scored, *beside)


if __name__ == "__main__":
    main()
