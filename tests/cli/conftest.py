"""A bundle with COCO's skeleton, small enough for every test of the command line."""

from __future__ import annotations

import bundles
import pytest

import oaks


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> oaks.Bundle:
    return bundles.write(tmp_path_factory.mktemp("bundles") / "tiny", skeleton=oaks.COCO17)
