"""How many Engines fit into a cluster."""

from __future__ import annotations

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
def test_what_would_wait_for_ever_is_refused(machines, given, text):
    with pytest.raises(ArgumentError, match=text):
        fit_pool(machines, *given)
