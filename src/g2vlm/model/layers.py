"""Norms, MLPs and scales shared by the towers.

Precision rule of the whole network: the residual stream is float32; a norm computes in float32 and returns
the precision of its weight, so that every matrix product runs in the precision of the weights (or of an
enclosing autocast) and every sum in float32.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

TOKENS_PER_CHUNK = 1024
"""Tokens that pass an MLP at a time on a CPU without gradients, so that its hidden layer stays small."""

LARGER_ON_GPU = 8
"""How many times as much a GPU takes at a time: what fills the cache of a CPU leaves most of it idle."""


def chunk_factor(device: torch.device) -> int:
    """By how much the sizes of chunks, which are made for a CPU, are multiplied on a device."""
    return 1 if device.type in ("cpu", "mps") else LARGER_ON_GPU


def per_token_chunks(
    transform: Callable[[Tensor], Tensor], x: Float[Tensor, "*batch channels"]
) -> Float[Tensor, "*batch out"]:
    """Apply `transform` to some tokens at a time where no gradient is recorded."""
    num_tokens, step = x.numel() // max(x.shape[-1], 1), TOKENS_PER_CHUNK * chunk_factor(x.device)
    if torch.is_grad_enabled() or num_tokens <= step:
        return transform(x)
    flat = x.reshape(-1, x.shape[-1])
    first = transform(flat[:step])
    out = first.new_empty(flat.shape[0], first.shape[-1])
    out[:step] = first
    for start in range(step, flat.shape[0], step):
        out[start : start + step] = transform(flat[start : start + step])
    return out.view(*x.shape[:-1], -1)


def accumulate(
    x: Float[Tensor, "*batch channels"], update: Float[Tensor, "*batch channels"]
) -> Float[Tensor, "*batch channels"]:
    """Add to a residual stream that nobody else holds: in place where no gradient is recorded."""
    return x + update if torch.is_grad_enabled() else x.add_(update)


class Linear(nn.Linear):
    """A linear layer that reads its weight at full memory speed when a CPU multiplies a single token."""

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply."""
        single = x.numel() == self.in_features and x.dtype == self.weight.dtype
        if not single or x.device.type != "cpu" or torch.is_grad_enabled():
            return F.linear(x, self.weight, self.bias)
        # The matrix-vector kernel streams a bfloat16 weight 1.4 times as fast as the general product.
        row = torch.mv(self.weight, x.reshape(-1))
        return (row if self.bias is None else row + self.bias).view(*x.shape[:-1], -1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis; float32 inside, the weight's precision outside."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Normalise."""
        normed = F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps)
        return normed.to(self.weight.dtype)


class LayerNorm(nn.Module):
    """Layer norm over the last axis; float32 inside, the weight's precision outside."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Normalise."""
        normed = F.layer_norm(x.float(), (x.shape[-1],), self.weight.float(), self.bias.float(), self.eps)
        return normed.to(self.weight.dtype)


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))
        self.initial = initial

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Multiply."""
        return x * self.gamma


class GatedMLP(nn.Module):
    """SwiGLU without biases; gate and up projections are one matrix, gate rows first."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * mlp_width, bias=False)
        self.down = Linear(mlp_width, width, bias=False)

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Transform each token."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        if not torch.is_grad_enabled():
            return self.down(F.silu(gate).mul_(up))
        return self.down(F.silu(gate) * up)


def quick_gelu(x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
    """Multiply by sigmoid(1.702 x): the approximation of GELU that the semantic encoder was trained with."""
    return x * torch.sigmoid(1.702 * x)


class MLP(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, mlp_width: int, *, quick: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(width, mlp_width)
        self.down = nn.Linear(mlp_width, width)
        self.activation = quick_gelu if quick else F.gelu

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Transform each token."""
        return self.down(self.activation(self.up(x)))
