"""Nothing uses the network unasked, and nothing is written outside the output and cache folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training.conftest import write_people
from video.clips import write_clip

from oaks import runtimes

from .tree import ROOT, imports

AUDIT = """
import sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        sys.stderr.write(f"NETWORK {event} {arguments!r}\\n")
sys.addaudithook(hook)
"""
"""What Python code does with sockets; strace, where it is installed, tells what native code does too."""

USES = {
    "import": "import oaks, oaks.val, oaks.video, oaks.engines, oaks.training",
    "doctor": "from oaks.cli.main import main; main(['doctor'])",
    "onnxruntime": "from oaks.cli.main import main\nmain(['predict', *sys.argv[1:], '--backend', 'onnxruntime'])",
    "openvino": "from oaks.cli.main import main\nmain(['predict', *sys.argv[1:], '--backend', 'openvino'])",
    "track": "from oaks.cli.main import main\nmain(['track', *sys.argv[1:]])",
    "val": "from oaks.cli.main import main\nmain(['val', 'detect', *sys.argv[1:]])",
    "report": "from oaks.cli.main import main\nmain(['val', 'run', *sys.argv[1:], '--resamples', '2'])",
}


def strace() -> list[str]:
    """The command that traces network calls, if it works here."""
    program = shutil.which("strace")
    if program is None or subprocess.run([program, "-o", os.devnull, "true"], capture_output=True).returncode:
        return []
    calls = "connect,sendto,sendmsg,sendmmsg,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink"
    return [program, "-f", "-qq", "-s", "300", "-e", f"trace={calls}"]


def connections(trace: str) -> list[str]:
    """Lines of a trace that reach for another machine; sockets between processes of this one do not."""
    return [line for line in trace.splitlines() if re.search(r"AF_INET|sin6?_port", line)]


def touched(trace: str) -> set[Path]:
    """Absolute paths that a trace opens for writing, makes or renames; relative ones lie in the working directory."""
    makes = re.compile(r"\b(mkdir|mkdirat|rename\w*|link|linkat|symlink|creat)\(")
    opens = re.compile(r"\bopen(at)?\(.*(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC)")
    calls = [
        line
        for line in trace.splitlines()
        if (makes.search(line) or opens.search(line)) and not re.search(r"= -1 E", line)
    ]
    return {Path(name) for line in calls for name in re.findall(r'"(/[^"]*)"', line)}


def run(use: str, home: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Runs a use with an empty home folder; also gives the trace of its network calls."""
    kept = ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "OMP_NUM_THREADS")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    (home / "tmp").mkdir(parents=True)
    trace = home.parent / "trace"
    command = [*strace(), *(["-o", str(trace)] if strace() else [])]
    done = subprocess.run(
        [*command, sys.executable, "-c", AUDIT + USES[use], *arguments],
        env=environment, cwd=home.parent, capture_output=True, text=True, timeout=480,
    )  # fmt: skip
    return done, trace.read_text() if trace.exists() else ""


def arguments(use: str, folder: Path, picture: Path, out: Path) -> list[str]:
    """What a use is called with."""
    ends = ["--bundle", "tiny", "--out", str(out)]
    if use in ("onnxruntime", "openvino"):
        return [str(picture), "--boxes", "whole", *ends]
    (folder / "inputs").mkdir()
    out.mkdir()
    if use == "track":
        clip = write_clip(folder / "inputs" / "clip.mp4", 3)
        return [str(clip), "--first-boxes", "5,5,60,60", *ends]
    if use in ("val", "report"):
        write_people(folder / "inputs", images=1)
        annotations, images = str(folder / "inputs" / "annotations.json"), str(folder / "inputs" / "images")
        results = out / "results.json" if use == "val" else out
        return ["tiny", annotations, "--images", images, "--out", str(results)]
    return []


@pytest.mark.parametrize("use", USES)
def test_nobody_is_contacted_and_the_home_folder_stays_empty(tmp_path, use):
    home, out = tmp_path / "home", tmp_path / "out"
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((96, 72, 3), np.uint8)).save(picture)
    done, trace = run(use, home, *arguments(use, tmp_path, picture, out))
    assert "NETWORK" not in done.stderr
    assert connections(trace) == []
    assert done.returncode == 0, done.stderr
    written = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert [path for path in written if path.parts[0] != ".cache"] == []  # matplotlib lists its fonts there
    beside = {path.name for path in tmp_path.iterdir()} - {"home", "out", "inputs", "picture.png", "trace"}
    assert beside == set()
    allowed = (home, out, *map(Path, ("/dev", "/proc", "/sys")))
    assert [
        path for path in touched(trace) if not any(path.is_relative_to(folder) for folder in allowed)
    ] == []


def test_a_connection_would_be_seen(tmp_path):
    """What the test above looks at is not blind."""
    USES["connect"] = (
        "import socket\nwith socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.connect(('127.0.0.1', 9))"
    )
    try:
        done, trace = run("connect", tmp_path / "home")
    finally:
        del USES["connect"]
    assert "NETWORK socket.connect" in done.stderr
    assert bool(connections(trace)) == bool(strace())


def test_runtimes_are_imported_where_their_telemetry_is_switched_off():
    strays = {
        statement.importer
        for statement in imports()
        if statement.imported.partition(".")[0] in ("onnxruntime", "openvino", "openvino_telemetry")
    }
    assert strays <= {"oaks.runtimes", "oaks.engines.export.precision"}
    text = (ROOT / "engines" / "export" / "precision.py").read_text(encoding="utf-8")
    assert text.index("load_onnxruntime()\n") < text.index("from onnxruntime")


def test_the_openvino_that_was_loaded_knows_no_telemetry():
    code = (
        "from oaks.runtimes import load_openvino; load_openvino(); import openvino.tools.ovc.telemetry_utils as t; "
        "print(t.tm.__name__); import sys; print('openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"], done.stderr


def test_onnxruntime_is_told_before_it_is_loaded():
    code = (
        "import os, sys, builtins\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from oaks.runtimes import load\n"
        "assert load('onnxruntime') is load('onnxruntime')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1"], done.stderr
    assert runtimes.load("json").__name__ == "json"
