"""The command line of oaks plan."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from oaks.cli.main import app
from oaks.engines.plans import ahead


def test_options_reach_the_library_and_plans_are_listed(tmp_path, monkeypatch):
    asked = {}

    def plan_bundle(folder, **settings):
        asked.update(settings, folder=folder)
        return [ahead.MadePlan("pose", "fp16", ("75",), "plans/pose.plan", 1_000_000, 2.0)]

    monkeypatch.setattr(ahead, "plan_bundle", plan_bundle)
    settings = ["--precision", "fp16", "--capability", "75", "--max-batch", "8", "--no-flip"]
    words = ["plan", str(tmp_path), *settings]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "plans/pose.plan" in done.stdout
    assert "1.00 MB" in done.stdout
    assert asked == {
        "folder": tmp_path, "precisions": ["fp16"], "flavor": "tensorrt_rtx", "capabilities": ["75"], "max_batch": 8,
        "flip": False, "device": 0, "show": True,
    }  # fmt: skip
    done = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(done.stdout)["file"] == "plans/pose.plan"


def test_a_folder_without_a_bundle_is_wrong_usage(tmp_path):
    done = CliRunner().invoke(app, ["plan", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr.startswith("oaks: ")
    assert done.stderr.count("\n") == 1
