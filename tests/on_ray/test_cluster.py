"""How many Engines fit into a cluster."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from oaks.errors import ArgumentError
from oaks.ray.cluster import Pool, fit_pool

CPUS = [{"CPU": 10.0}, {"CPU": 3.0}]
GPUS = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}]


@pytest.mark.parametrize(
    ("machines", "given", "pool"),
    [
        (CPUS, (None, None, None), Pool(2, 4, 0)),
        (CPUS, (None, 1, None), Pool(13, 1, 0)),
        (CPUS, (5, 2, "cpu"), Pool(5, 2, 0)),
        ([{"CPU": 2.0}], (None, None, None), Pool(1, 2, 0)),
        (GPUS, (None, None, None), Pool(4, 4, 1)),
        (GPUS, (None, None, "cpu"), Pool(20, 4, 0)),
        (GPUS, (2, 8, "cuda"), Pool(2, 8, 1)),
    ],
)
def test_engines_fill_the_cluster(machines, given, pool):
    assert fit_pool(machines, *given) == pool


@pytest.mark.parametrize(
    ("machines", "given", "text"),
    [
        (CPUS, (None, 11, None), "threads must be at most 10"),
        (GPUS, (None, 17, None), "threads must be at most 16"),
        ([{"GPU": 1.0}], (None, None, None), "threads must be at most 0"),
        (CPUS, (None, None, "cuda"), "device must be 'cpu' in a cluster without a GPU"),
        (CPUS, (None, None, "cuda:1"), "Ray, which chooses the GPU"),
        (CPUS, (0, None, None), "workers must be an integer of at least 1"),
    ],
)
def test_pools_that_do_not_fit_are_refused(machines, given, text):
    with pytest.raises(ArgumentError, match=text):
        fit_pool(machines, *given)


def test_ray_is_loaded_when_it_is_used_and_reports_nothing():
    script = (
        "import os, sys, oaks, oaks.ray, oaks.cli.main; assert not {'ray', 'starlette', 'pyarrow'} & set(sys.modules); "
        "from oaks.ray.cluster import import_ray; import_ray(); print(os.environ['RAY_USAGE_STATS_ENABLED']); "
        "from ray._common.usage import usage_lib; print(usage_lib.usage_stats_enabled())"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=clean, capture_output=True, text=True
    )
    assert found.stdout.split() == ["0", "False"], found.stderr
