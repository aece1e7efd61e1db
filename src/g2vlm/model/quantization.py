"""Weight-only int8 for the matrices that decoding reads once for every token.

Writing one token is bound by reading the semantic expert and the language head from memory; one byte a
weight instead of two nearly doubles the speed. Encoders, the geometric expert and the geometry heads are not
touched: they are bound by arithmetic.
"""

from enum import Enum

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST = 127
FINE = 2 * LARGEST
"""A remainder after rounding is at most half a step, so its own step is smaller by twice the largest code."""
FEWEST_ROWS = 4
"""oneDNN's int8 product is several times slower on long rows when it has fewer rows than this."""


class Quantization(Enum):
    """How the language side stores its matrices."""

    NONE = "none"
    """In the precision of the towers."""
    INT8 = "int8"
    """One signed byte a weight, one scale for each output channel."""


class Int8Linear(nn.Module):
    """A linear layer whose weight is stored as int8 with one scale for each output channel.

    On a CPU the activations are not rounded to eight bits: each row is split into a coarse and a fine int8
    row, which together hold it to fifteen bits, and both pass one integer product. Reading the weight is what
    takes the time, so the second row is free. Elsewhere the weight is widened before the product.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        codes, scale = quantize_rows(linear.weight.detach())
        self.out_features, self.in_features = codes.shape
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        self.register_buffer("scale", scale)
        self.integer_product = codes.device.type == "cpu" and integer_product_available()
        if self.integer_product:
            # oneDNN keeps its own blocked layout; not a buffer, because it can be neither moved nor saved.
            self._packed = torch.ops.onednn.qlinear_prepack(codes, [FEWEST_ROWS, self.in_features])
            self._zeros = torch.zeros(self.out_features, dtype=torch.int64)
        else:
            self.register_buffer("weight", codes)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply; the result has the type of `x`."""
        rows = x.reshape(-1, self.in_features)
        out = self._integer(rows) if self.integer_product else self._widened(rows)
        out = out if self.bias is None else out + self.bias
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _widened(self, rows: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        return F.linear(rows, self.weight.to(rows.dtype)) * self.scale.to(rows.dtype)

    def _integer(self, rows: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        count, values = rows.shape[0], rows.float()
        step = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / LARGEST
        coarse = (values / step).round_()
        fine = (values - coarse * step).mul_(FINE / step).round_()
        missing = max(FEWEST_ROWS - 2 * count, 0)
        codes = F.pad(torch.cat([coarse, fine]), (0, 0, 0, missing)).to(torch.int8)
        product = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, 0, self._packed, self.scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product[:count] * step + product[count : 2 * count] * (step / FINE)


def quantize_rows(
    weight: Float[Tensor, "out in"],
) -> tuple[Int8[Tensor, "out in"], Float[Tensor, " out"]]:
    """Nearest int8 codes of each row under its own scale, and the scales (float32)."""
    scale = weight.abs().amax(dim=1).float().clamp(min=1e-30) / LARGEST
    # Some rows at a time: a float32 copy of the language head alone would take a gigabyte.
    parts = zip(weight.split(4096), scale.split(4096), strict=True)
    codes = [(rows.float() / step[:, None]).round_().to(torch.int8) for rows, step in parts]
    return torch.cat(codes), scale


def integer_product_available() -> bool:
    """Whether this build of torch has oneDNN's int8 product."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")


def quantize_language_(network: nn.Module, quantization: Quantization) -> None:
    """Replace, in place, the linear layers of the semantic expert and the language head.

    Layers that are already replaced stay, so that parts loaded later can be treated by a second call.
    """
    if quantization is Quantization.NONE:
        return
    for name, module in list(network.named_modules()):
        is_language = name == "language_head" or (name.startswith("mixture.layers.") and ".semantic." in name)
        if is_language and isinstance(module, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, Int8Linear(module))
