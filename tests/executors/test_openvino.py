"""Behavior specific to OpenVINO."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import bundles

from oaks.executors.openvino import OpenVINOExecutor

HANDLES_A_SIGNAL = """
import gc, os, signal, sys, threading
import oaks

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
engines = [oaks.Engine(sys.argv[1], backend="openvino")]

def let_go():
    engines.pop().close()
    gc.collect()

thread = threading.Thread(target=let_go)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_another_thread_let_the_engine_go(tmp_path: Path) -> None:
    """OpenVINO runs handlers on a stack of its own, which must outlive the Engine."""
    bundles.write(tmp_path / "bundle")
    command = [sys.executable, "-c", HANDLES_A_SIGNAL, str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != -signal.SIGSEGV
    assert (done.stdout, done.returncode) == ("handled\n", 0), done.stderr


def test_threads_of_two_processes_share_no_core(tmp_path: Path) -> None:
    """OpenVINO would pin the one thread of each process to the same first core."""
    executor = OpenVINOExecutor(bundles.write(tmp_path / "bundle").network("pose"), threads=1)
    compiled = executor._compile("THROUGHPUT")
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    executor.close()
