"""Arguments that the benchmarks refuse, and the results they save. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import bundles
import pytest
import typer
from typer.testing import CliRunner

import oaks

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


@pytest.fixture
def saved(monkeypatch, script):
    """What a benchmark saves: [(file name, machine, rows)]."""
    kept = []
    measure = script("measure")
    monkeypatch.setattr(measure, "save", lambda path, machine, rows: kept.append((path.name, machine, rows)))
    return kept


@pytest.fixture
def tiny(tmp_path):
    return bundles.write(tmp_path / "tiny", skeleton=oaks.COCO17)


# ---- memory.py


def test_memory_is_compared_after_as_many_calls_as_it_needs(script, capsys):
    with pytest.raises(SystemExit):
        script("memory", "--count", 99).main()
    assert "--count must be at least 100" in capsys.readouterr().err


def test_memory_is_written_down(saved, script, tiny):
    script("memory", "--count", 200, "--bundle", tiny.path, "--backend", "onnxruntime", "--save").main()
    ((name, machine, rows),) = saved
    assert (name, machine["bundle"], machine["backend"]) == ("memory.json", "tiny", "onnxruntime")
    assert [row["inferences"] for row in rows] == [100, 120, 160, 200]
    assert rows[0]["bytes_more_than_after_100"] == 0
    assert json.dumps([machine, rows])


# ---- end_to_end.py


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """An exported bundle."""
    import torch

    from oaks.engines.export.export import export
    from oaks.training.checkpoint import save_network
    from oaks.training.networks import build

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("networks")
    size = (48, 64)
    made = {
        "pose": {
            "name": "oa_hpe", "backbone": "resnet18", "channels": [8, 8, 8, 8], "head": "upsample",
            "head_channels": 8, "visibility_channels": 4, "visibility_hidden": 8, "input": list(size),
        },
        "ks": {"name": "ks_net", "backbone": "conv2", "width": 0.125, "hidden": 8},
    }  # fmt: skip
    for kind, architecture in made.items():
        description = {
            "kind": kind, "architecture": architecture, "skeleton": oaks.COCO17.to_dict(), "stride": 4,
            "input": {"size": list(size), "mean": [0, 0, 0], "std": [255, 255, 255]}, "license": "none",
        }  # fmt: skip
        save_network(folder / f"{kind}.safetensors", build(architecture).eval(), description)
    paths = [folder / "pose.safetensors", folder / "ks.safetensors"]
    return export(*paths, out=folder / "bundle", show=False)


def test_everybody_runs_the_bundles_networks(saved, script, networks, capsys):
    script("end_to_end", networks.path, "--batch", 2, "--turns", 1, "--calls", 1, "--save").main()
    ((_, machine, rows),) = saved
    assert machine["ceiling_persons_per_second"] > 0
    named = {row["name"]: row for row in rows}
    assert named["torch eager fp32, cv2 + NumPy"]["within_half_pixel"] >= 0.97
    ours = named["oaks, onnxruntime fp32"]
    assert ours["outside_networks_aim"] == 0.05
    inside = (ours["milliseconds"]["pose"] + ours["milliseconds"]["ks"]) / sum(ours["milliseconds"].values())
    assert ours["outside_networks"] == pytest.approx(1 - inside)
    said = capsys.readouterr().out
    assert "outside" in said
    assert "<= 5%" in said


def test_without_weights_it_says_what_is_missing(saved, script, tiny, capsys):
    script("end_to_end", tiny.path, "--batch", 1, "--turns", 1, "--calls", 1, "--save").main()
    ((_, _, rows),) = saved
    assert not [row for row in rows if row["name"].startswith("torch")]
    assert "torch eager: the bundle has no weights" in capsys.readouterr().out


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


def test_the_tables_say_whether_goals_are_met(script):
    on_ray = script("on_ray")
    rows = [
        {
            "how": how,
            "pictures_per_second": rate,
            "of_plain_loop": rate / 50,
            "of_one_worker": rate / 46,
            "turns": [rate],
        }
        for how, rate in ((on_ray.PLAIN, 50.0), (on_ray.ONE, 46.0), (on_ray.TWO, 60.0))
    ]
    caption = on_ray.batches_table(rows).caption
    assert "overhead of Ray: 0.080, goal <= 0.1: met" in caption
    assert "two workers against one: 1.304, goal >= 1.7: not met" in caption
    figures = dict.fromkeys(on_ray.FIGURES, 0.9) | {"turns": 2}
    caption = on_ray.service_table(figures).caption
    assert "saturated, of the Engine's rate: 0.900, goal >= 0.85: met" in caption
    assert "503, 95th percentile, seconds: 0.900, goal <= 0.05: not met" in caption


# ---- scorer_times.py


def test_the_cost_of_a_bundles_trees_is_a_ratio_to_the_same_network_without_them(saved, script, capsys):
    script("scorer_times", "--bundle", "tiny", "--people", 1, "--turns", 2, "--threads", 1, "--save").main()
    ((name, machine, rows),) = saved
    assert (name, machine["bundle"]) == ("scorer_times.json", "tiny")
    assert [row["call"] for row in rows] == ["without the scorer", "with the scorer"]
    assert rows[0]["ratio"] == 1
    assert rows[1]["ratio"] == pytest.approx(rows[1]["ms"] / rows[0]["ms"])
    assert "tiny, 1 people" in capsys.readouterr().out


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


def test_the_papers_tables_can_be_taken_from_a_report(script, tmp_path, monkeypatch):
    from oaks.val.report.document import Column, Figure, Report, Section, Table
    from oaks.val.report.writer import save_report

    table = Table("ranking-a b", "t", (Column("Score", "text"), Column("AP")), (("OAKS", 0.5),))
    figure = Figure("flags-a b", "f", '<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    told = [("Bundle", "small"), ("Bundle SHA-256", "0" * 64), ("Backend", "openvino"), ("Precision", "fp32"),
            ("Decoder", "dark"), ("Flip", "yes"), ("Date", "today")]  # fmt: skip
    head = [("Results: a b", told), ("Evaluation", [("Intervals", "95 %")])]
    save_report(
        Report(title="t", head=head, sections=[Section("s", "s", "", (table, figure))]), tmp_path / "report"
    )
    paper = script("paper")
    monkeypatch.setattr(paper, "RESULTS", tmp_path / "paper.json")
    monkeypatch.setattr(paper, "FIGURES", tmp_path)
    paper.take_report(tmp_path / "report")
    kept = json.loads((tmp_path / "paper.json").read_text())["bundle"]
    assert kept["tables"]["ranking-ground-truth-boxes"]["rows"] == [["OAKS", 0.5]]
    assert (kept["about"]["bundle"], kept["about"]["intervals"]) == ("small", "95 %")
    assert (tmp_path / "flags.svg").read_text() == '<svg xmlns="http://www.w3.org/2000/svg"></svg>\n'


def test_saved_results_name_no_folder_of_the_machine(script, tmp_path):
    measure = script("measure", tmp_path / "nets" / "pose.onnx", "runs/tiny", "--save")
    measure.save(tmp_path / "results.json", {}, [])
    assert (
        json.loads((tmp_path / "results.json").read_text())["command"]
        == "python measure.py pose.onnx runs/tiny --save"
    )
