# Licensed under a 3-clause BSD style license - see LICENSE
"""An objective of no kind that jaisp has: a line fitted to points. What the engine does with it is exact."""

from dataclasses import dataclass
from types import MappingProxyType

import torch

from jaisp.models.pretrained import PretrainedMixin
from jaisp.training.objectives import batch_numbers

NAME = "tests.training.toy:Toy"


@dataclass(frozen=True)
class ToyConfig:
    width: int = 3
    bad_step: int = -1
    gauge: float = 1.0

    def to_dict(self):
        return {"width": self.width, "bad_step": self.bad_step, "gauge": self.gauge}


@dataclass(frozen=True)
class Nothing:
    pass


class ToyModel(PretrainedMixin, torch.nn.Module):
    config_class = ToyConfig
    bundled_name = "toy"

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.line = torch.nn.Linear(config.width, 1)
        self.unused = torch.nn.Linear(2, 2)  # as the predictors before their time


class Toy:
    model_class, data_class, loss_class = ToyModel, Nothing, Nothing
    guards = MappingProxyType({"gauge": 0.5, "val/gauge": 0.5})

    def __init__(self, config, folder, *, rank=0, world_size=1, check=False, progress=None):
        self.config, self.rank, self.world_size = config, rank, world_size
        self.model = ToyModel(config.model)

    def batches(self, first_step, last_step):
        optimizer = self.config.optimizer
        size = optimizer.batch_size
        points = torch.randn(1000, self.model.config.width, generator=torch.Generator().manual_seed(3))
        for n in batch_numbers(optimizer, first_step, last_step, rank=self.rank, world_size=self.world_size):
            yield {"x": points[n * size : (n + 1) * size]}

    def losses(self, batch, step):
        x = batch["x"]
        total = (self.model.line(x)[:, 0] - x.sum(1)).square().mean()
        if step == self.model.config.bad_step:
            total = total * float("nan")
        return total, {"square": total}, {"gauge": self.model.config.gauge, "draw": torch.rand(1)}

    def validate(self, model):
        return {"val/gauge": self.model.config.gauge}
