"""Low-rank updates of the experts (LoRA, arXiv 2106.09685): fine-tuning with a hundredth of the optimizer."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from g2vlm.model.network import G2VLM
from g2vlm.training.recipes.recipe import LoraSettings
from g2vlm.training.recipes.stages import Group, group_of

ADAPTED = ("qkv", "out", "mlp.gate_up", "mlp.down")
"""Linear maps of an expert's layer that get an update."""


class LowRankLinear(nn.Module):
    """A frozen linear map plus a trained one of low rank, which starts at zero."""

    def __init__(self, base: nn.Linear, settings: LoraSettings) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = settings.alpha / settings.rank
        device = base.weight.device
        self.down = nn.Parameter(torch.empty(settings.rank, base.in_features, device=device))
        self.up = nn.Parameter(torch.zeros(base.out_features, settings.rank, device=device))

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply both."""
        low = nn.functional.linear(x.to(self.down.dtype), self.down)
        update = nn.functional.linear(low, self.up)
        result: Tensor = self.base(x)
        return result + (update * self.scale).to(result.dtype)

    def merged_weight(self) -> Float[Tensor, "outputs inputs"]:
        """The weight of one plain linear map that does the same."""
        update = (self.up @ self.down) * self.scale
        return (self.base.weight.float() + update).to(self.base.weight.dtype)


def add_lora_(network: G2VLM, trained: frozenset[Group], settings: LoraSettings, seed: int = 0) -> None:
    """Wrap, in place, the matrices of the trained experts.

    Args:
        network: a loaded network.
        trained: groups of weights that may change; only experts are adapted.
        settings: rank and scale.
        seed: of the drawn halves.
    """
    generator = torch.Generator().manual_seed(seed)
    assert network.mixture is not None
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith("mixture.layers.")
        and name.split(".", 4)[-1] in ADAPTED
        and group_of(name) in trained
    ]
    for name in names:
        parent, leaf = network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        wrapped = LowRankLinear(getattr(parent, leaf), settings)
        if wrapped.down.device.type != "meta":
            drawn = torch.randn(wrapped.down.shape, generator=generator)
            wrapped.down.data.copy_(drawn / math.sqrt(wrapped.down.shape[1]))
        setattr(parent, leaf, wrapped)


def freeze_all_but_lora_(network: G2VLM) -> list[tuple[str, nn.Parameter]]:
    """Let gradients flow into low-rank updates only, and return them with their names."""
    network.requires_grad_(False)
    chosen = []
    for name, module in network.named_modules():
        if isinstance(module, LowRankLinear):
            for leaf in ("down", "up"):
                parameter = getattr(module, leaf).requires_grad_(True)
                chosen.append((f"{name}.{leaf}", parameter))
    return chosen


@contextmanager
def merged_lora(network: G2VLM) -> Iterator[None]:
    """Within it, the network has plain linear maps again, with the updates inside their weights."""
    wrapped = [
        (name, module) for name, module in network.named_modules() if isinstance(module, LowRankLinear)
    ]
    kept = [module.base.weight.data for _, module in wrapped]
    try:
        for name, module in wrapped:
            module.base.weight.data = module.merged_weight().detach()
            _place(network, name, module.base)
        yield
    finally:
        for (name, module), weight in zip(wrapped, kept, strict=True):
            module.base.weight.data = weight
            _place(network, name, module)


def _place(network: G2VLM, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
