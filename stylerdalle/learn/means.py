"""Running means: of the numbers of a training, by name, and of a model's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn


class RunningMeans:
    """Exponential means of numbers by name, over about the last 50. The first numbers count fully, so they begin unbiased."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.values: dict[str, float] = {}

    def update(self, numbers: Mapping[str, float | None]) -> None:
        """Take in the numbers of one step; None is skipped."""
        for name, value in numbers.items():
            if value is not None:
                self.counts[name] += 1
                mean = self.values.get(name, 0.0)
                self.values[name] = mean + min(1.0, 0.02 + 1 / self.counts[name]) * (value - mean)


@torch.no_grad()
def average_weights(mean_model: nn.Module, model: nn.Module, decay: float) -> None:
    """mean_model <- decay * mean_model + (1 - decay) * model, for weights and running statistics."""
    new = model.state_dict()
    for name, tensor in mean_model.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(new[name], 1 - decay)
        else:
            tensor.copy_(new[name])
