"""Pictures in which people are dots of color, and a bundle that finds them (tests/bundles.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bundles
import cv2
import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'oaks[ray]'")

CELLS = (bundles.SIZE[0] // bundles.STRIDE, bundles.SIZE[1] // bundles.STRIDE)


def dots(number: int) -> np.ndarray:
    """A picture of its own for each number below 10^6: where its three dots are."""
    cells = np.random.default_rng(number).integers(1, np.array(CELLS) - 1, (3, 2))
    return bundles.picture(
        {name: tuple(cell) for name, cell in zip(("red", "green", "blue"), cells, strict=True)}
    )


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Files 0.png, 1.png, ... of `dots`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        assert cv2.imwrite(str(path), dots(number))
    return paths


def encoded(number: int, suffix: str = ".png") -> bytes:
    """The file of `dots`."""
    return cv2.imencode(suffix, dots(number))[1].tobytes()


def damage(paths: Sequence[Path]) -> None:
    """Leaves half of each file."""
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a detector."""
    return bundles.write(tmp_path_factory.mktemp("bundles") / "tiny").path
