"""Arguments that the benchmarks refuse, and the results they save. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Loads a benchmark by its name; sets what it is called with."""
    monkeypatch.syspath_prepend(FOLDER)

    def load(name, *arguments):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_script_can_be_loaded(script, monkeypatch, name):
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")  # operations.py sets those that are not set
    assert script(name).__doc__


# ---- measure.py


def test_jobs_take_turns_and_warm_turns_do_not_count(script):
    done = []
    jobs = {name: lambda name=name: done.append(name) for name in "ab"}

    def clock(job):
        job()
        return float(len(done))

    timings = script("measure").interleaved(jobs, turns=3, warm=1, clock=clock)
    assert "".join(done) == "abababab"
    assert (timings["a"].median, timings["b"].median) == (5, 6)
    done.clear()
    timings = script("measure").interleaved(jobs, turns=1, warm=0, calls=2, clock=clock)
    assert "".join(done) == "aaabbb"
    assert (timings["a"].median, timings["b"].median) == (3 / 2, 6 / 2)


def test_a_log_gains_a_line_with_its_commit(script, tmp_path, monkeypatch):
    measure = script("measure")
    monkeypatch.setattr(measure, "commit", lambda: "0123456789ab")
    for figure in (1, 2):
        measure.add_to_log(tmp_path / "log.jsonl", figure=figure)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["commit"], line["figure"]) for line in lines] == [("0123456789ab", 1), ("0123456789ab", 2)]


def test_saved_results_name_no_folder_of_the_machine(script, tmp_path):
    measure = script("measure", tmp_path / "nets" / "pose.onnx", "runs/tiny", "--save")
    measure.save(tmp_path / "results.json", {}, [])
    assert (
        json.loads((tmp_path / "results.json").read_text())["command"]
        == "python measure.py pose.onnx runs/tiny --save"
    )


# ---- detector.py


def test_a_box_of_a_crowd_counts_neither_as_right_nor_as_wrong(script):
    import numpy as np

    from oaks.training.data.detection import ImageBoxes

    people = ImageBoxes(np.float32([[0, 0, 10, 10]]), np.float32([[50, 0, 100, 50]]), True)
    boxes = np.float32([[0, 0, 10, 9], [0, 0, 10, 10], [60, 10, 70, 20], [45, 0, 55, 10], [44, 0, 54, 10]])
    found = boxes, np.float32([0.9, 0.8, 0.7, 0.6, 0.5])
    taken, counted, right = script("detector").matches(found, people, 0.5)
    assert (taken.tolist(), counted, right) == (
        [True],
        3,
        1,
    )  # the second is found already, the last lies outside
    assert script("detector").matches(found, people, 0.95)[1:] == (0, 0)


# ---- photographs.py


@pytest.mark.parametrize("where", ["coco-val2017/test.json", "coco-val2017/people/../test.json"])
def test_people_who_are_for_measuring_only_are_logged(script, tmp_path, where):
    (tmp_path / "coco-val2017" / "people").mkdir(parents=True)
    check = script("photographs").check_log
    with pytest.raises(typer.BadParameter, match="for measuring only"):
        check(tmp_path / where, None, True)
    check(tmp_path / where, tmp_path / "log.jsonl", False)
    check(tmp_path / "coco-val2017" / "fit.json", None, True)


def test_a_run_says_whether_it_is_logged(script, tmp_path):
    app = typer.Typer()
    app.command()(script("photographs").main)
    asked = ["small", str(tmp_path / "people.json"), str(tmp_path)]
    for flags in ([], ["--log", str(tmp_path / "log.jsonl"), "--no-log"]):
        result = CliRunner().invoke(app, [*asked, *flags])
        assert result.exit_code == 2
        assert "pass exactly one of --log, --no-log" in " ".join(result.output.replace("│", " ").split())
    assert isinstance(CliRunner().invoke(app, [*asked, "--no-log"]).exception, FileNotFoundError)
    gone = ["--log", str(tmp_path / "no folder" / "log.jsonl")]
    assert "no folder" in str(CliRunner().invoke(app, [*asked, *gone]).exception)


# ---- on_ray.py


def test_a_rate_leaves_out_the_start(script):
    assert script("on_ray").rate([(100.0, 8), (102.0, 8), (104.0, 4)]) == 3.0


def test_copies_of_the_packages_pictures_have_boxes(script, tmp_path):
    from oaks.box_files import read_boxes

    paths, boxes = script("on_ray").make_pictures(tmp_path, 13)
    people = read_boxes(boxes)
    assert all(path.is_file() for path in paths)
    assert [people.image_id(path) for path in paths] == list(range(1, 14))
    assert all(len(people.of(number)[0]) == 1 for number in range(1, 14))
    assert people.of(1)[0].tolist() == people.of(7)[0].tolist()


def test_turns_end_in_time_but_one_is_made(script, monkeypatch):
    on_ray = script("on_ray")
    now = [0.0]
    monkeypatch.setattr(on_ray.time, "perf_counter", lambda: now[0])

    def made(most, seconds, each):
        done = []
        for turn in on_ray.turns(most, seconds):
            done.append(turn)
            now[0] += each
        return len(done)

    assert made(5, 100, 10) == 5
    assert made(5, 35, 10) == 3
    assert made(5, 5, 10) == 1


# ---- paper.py


def test_the_papers_trainings_are_ten_seeds_and_the_other_backbones(script):
    from oaks.training.recipe import read_recipe

    paper, recipe = script("paper"), read_recipe("small_ablation")
    every = paper.variants(recipe, 10)
    others = ["conv2_figures", "conv2", "alexnet", "googlenet", "resnet50", "vgg19"]
    assert list(every) == [f"training-{seed}" for seed in range(10)] + others
    assert every[paper.FIRST_TRAINING] == recipe
    assert [every[name].network["backbone"] for name in others[1:]] == others[1:]
    assert every["conv2_figures"].network["backbone"] == "conv2"
    assert paper.Budget(0).spent
    assert paper.Budget(None).left is None
