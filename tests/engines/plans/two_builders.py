"""Run by test_cache.py in a separate process: load a plan with the stand-ins and print what was built.

Arguments: the bundle, the cache folder, and a folder through which two such processes wait for each other.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pycuda_stand_in
import pytest
import tensorrt_listings as listings
import tensorrt_stand_in
from tensorrt_world import World

from oaks.bundle import Bundle
from oaks.engines.plans.cache import load_plan
from oaks.executors import pycuda


def main(bundle: str, cache: str, meeting: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World()
        pycuda_stand_in.install(monkeypatch)
        tensorrt_stand_in.install(monkeypatch, listings.VERSIONS[0], world)

        def steps(monitor: object) -> bool:
            time.sleep(1.0)
            return True

        world.steps = steps
        network = Bundle.load(bundle).network("pose")
        (Path(meeting) / str(os.getpid())).touch()
        while len(list(Path(meeting).iterdir())) < 2:
            time.sleep(0.01)
        plan = load_plan(network, pycuda.device(0), batches=[1, 2], folder=cache, show=False)
        print(world.built, world.deserialized, plan.path.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
