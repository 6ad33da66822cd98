"""One of several processes that compute the gradient of one step together; run by test_processes.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from oaks.training.data.sampling import AugmentedPeople, PeopleSampler, make_loader
from oaks.training.data.sources import DataFolders, open_data
from oaks.training.pose import PoseTraining
from oaks.training.recipe import parse_recipe
from tests.training.conftest import pose_recipe


class Step(nn.Module):
    """The total loss as a forward pass, which DistributedDataParallel wraps."""

    def __init__(self, module: PoseTraining) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: dict) -> torch.Tensor:
        return sum(self.module.loss(batch))


def gradients(folder: Path, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """Return the gradient of the first step on six people, of which this process gets its share."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    recipe = parse_recipe(pose_recipe(training={"average": None}), "test")
    split = open_data(recipe.data, recipe.load_skeleton(), DataFolders(folder))
    module = PoseTraining(recipe, 1, 1)
    step = Step(module)
    if processes > 1:
        step = DistributedDataParallel(step)
    module.eval()  # so that batch norm does not depend on the other people in the batch
    samples = AugmentedPeople(split.train, recipe.augmentation, size=recipe.input, padding=1.25,
                      skeleton=module.view.skeleton, seed=0)  # fmt: skip
    draws = PeopleSampler([12], [1], batch=6 // processes, steps=1, rank=rank, processes=processes)
    step(next(iter(make_loader(samples, draws, 0)))).backward()
    return {name: parameter.grad.clone() for name, parameter in module.network.named_parameters()}


if __name__ == "__main__":
    people, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.distributed.init_process_group("gloo")
    found = gradients(people, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if os.environ["RANK"] == "0":
        torch.save(found, out)
    torch.distributed.destroy_process_group()
