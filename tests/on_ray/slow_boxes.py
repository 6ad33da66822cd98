"""Sources of boxes for tests: they take their time, leave a trace of every picture, and can end their process."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from oaks.boxes import BoxSource, whole_image


@dataclass(frozen=True)
class SlowBoxes:
    """WorkerSettings.boxes: each picture is one person, after some seconds.

    Attributes:
        traces: folder that gets a file for each picture looked at: "NAME.PID.RANDOM".
        seconds: per picture.
        deadly: name of a picture at which the process dies.
    """

    traces: str
    seconds: float = 0.0
    deadly: str = ""
    description: str = "slow"

    def __call__(self, _engine: object) -> BoxSource:
        whole = whole_image()

        def find(image):
            name = Path(image.name).stem
            (Path(self.traces) / f"{name}.{os.getpid()}.{uuid.uuid4().hex}").touch()
            time.sleep(self.seconds)
            if name == self.deadly:
                os._exit(9)
            return whole.find(image)

        return BoxSource(self.description, find)


def seen(traces: Path) -> list[tuple[str, int]]:
    """(picture, process) of every look."""
    return [(name, int(pid)) for name, pid, _ in (path.name.split(".") for path in traces.iterdir())]
