"""A network that takes one image at a time, run once for each row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oaks.executors.base import Array, Executor


class LoopedExecutor:
    """An executor for batches that runs a network of batch 1 once per row.

    Args:
        one: the network, opened for a batch of 1.
    """

    def __init__(self, one: Executor) -> None:
        self._one = one
        self.inputs, self.outputs = one.inputs, one.outputs
        self.recordable = getattr(one, "recordable", True)
        self.details: Mapping[str, Any] = {**one.details, "batch": "1, in a loop"}

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """Bind the network to every row (base.Executor.bind)."""
        calls = [
            self._one.bind(
                *({name: array[n : n + 1] for name, array in kind.items()} for kind in (inputs, outputs))
            )
            for n in range(int(next(iter(inputs.values())).shape[0]))
        ]

        def run() -> None:
            for call in calls:
                call()

        return run

    def close(self) -> None:
        """Free the network's memory."""
        self._one.close()


__all__ = ["LoopedExecutor"]
