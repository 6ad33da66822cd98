"""An Engine with COCO's skeleton."""

from __future__ import annotations

from collections.abc import Iterator

import bundles
import pytest

from oaks import COCO17, Engine


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    bundle = bundles.write(tmp_path_factory.mktemp("bundle") / "tiny", skeleton=COCO17)
    with Engine(bundle, "onnxruntime", threads=1) as opened:
        yield opened
