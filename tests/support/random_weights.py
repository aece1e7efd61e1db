"""Weights that exercise every parameter: nothing at zero, at one, or at its initial value."""

import math
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fill_randomly(module: ModuleT, seed: int = 0) -> ModuleT:
    """Fill every parameter so that activations stay of order one and no term vanishes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            leaf = name.rpartition(".")[2]
            if leaf == "gamma":
                values = 0.5 + 0.1 * values
            elif leaf == "weight" and parameter.ndim == 1:
                values = 1 + 0.2 * values
            elif leaf == "bias":
                values = 0.2 * values
            elif leaf == "weight" and not name.endswith("embedding.weight"):
                values = values / math.sqrt(math.prod(parameter.shape[1:]))
            parameter.copy_(values)
    return module.eval().requires_grad_(False)
