"""Moving average of the weights."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of some weights, in float32.

    The decay grows from nothing to its full value, so that early weights are forgotten soon.

    Args:
        weights: by name; sharded ones keep their shards.
        decay: share of the old average that a step keeps, once many steps are behind.
    """

    def __init__(self, weights: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values = {name: weight.detach().clone().float() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: dict[str, nn.Parameter], step: int) -> None:
        """Take the weights after optimisation step `step` (from 0) into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values = list(self.values.values())
        current = [weights[name].detach().float() for name in self.values]
        torch._foreach_lerp_(values, current, 1 - decay)

    @torch.no_grad()
    def swap(self, weights: dict[str, nn.Parameter]) -> None:
        """Exchange the average with the current weights; called twice, nothing has changed."""
        for name, value in self.values.items():
            current = weights[name].detach().clone()
            weights[name].copy_(value.to(current.dtype))
            value.copy_(current.float())

    def state_dict(self) -> dict[str, Tensor]:
        """The average by name."""
        return dict(self.values)
