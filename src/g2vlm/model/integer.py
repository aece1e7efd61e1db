"""Products through int8 planes: smaller weights for decoding, and fast float32-grade products for the heads.

An integer product on a CPU with AMX or VNNI is many times as fast as one in float32, and exact. A row of
float32 numbers is held by two int8 planes, a coarse one and one for what the coarse one leaves over, to one
part in 32,000 of its largest entry: finer than the TF32 products that GPUs use for float32. So

- *int8 weights*: the weight has one plane, the activations two. Decoding one token is bound by reading the
  semantic expert and the language head from memory, and one byte a weight nearly doubles the speed.
- *fifteen-bit weights*: the weight has two planes as well (three products; fine times fine is negligible).
  The decoders of the geometry heads, which the precision policy keeps in float32, run faster that way.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST = 127
FINE = 2 * LARGEST
"""A remainder after rounding is at most half a step, so its own step is smaller by twice the largest code."""
FEWEST_ROWS = 4
"""oneDNN's int8 product is several times slower on long rows when it has fewer rows than this."""
CACHED_ROWS = 256
"""Rows that pass a product at a time, so that its stages stay in the processor's cache."""
ROWS_AT_A_TIME = 4096
"""Weight rows converted at once: a float32 copy of the language head alone would take a gigabyte."""


def split_planes(
    values: Float[Tensor, "rows channels"],
) -> tuple[Int8[Tensor, "rows channels"], Int8[Tensor, "rows channels"], Float[Tensor, "rows 1"]]:
    """Coarse codes, fine codes and the coarse step of each row: values = step * (coarse + fine / FINE)."""
    values = values.float()
    step = values.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30).div_(LARGEST)
    scaled = values / step
    coarse = scaled.round()
    fine = scaled.sub_(coarse).mul_(FINE).round_()
    return coarse.to(torch.int8), fine.to(torch.int8), step


class PackedPlane:
    """Int8 codes of a weight in oneDNN's blocked layout; can be neither moved nor saved."""

    def __init__(self, codes: Int8[Tensor, "out in"], scale: Float[Tensor, " out"], num_rows: int) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(codes, [num_rows, codes.shape[1]])
        self._scale = scale
        self._zeros = torch.zeros(codes.shape[0], dtype=torch.int64)

    def product(self, codes: Int8[Tensor, "rows in"], step: float = 1.0) -> Float[Tensor, "rows out"]:
        """Integer product with rows of codes, times `step` and each output channel's scale, in float32."""
        given = (codes, step, 0, self._packed, self._scale, self._zeros)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(*given, None, 1.0, 0, torch.float32, "none", [], "")
        return out


class IntegerLinear(nn.Module):
    """A linear layer on a CPU whose weight is held by one int8 plane or two.

    Args:
        linear: the layer to take over.
        fine: keep the second plane of the weight.
        num_rows: rows that a product typically has, a hint for the layout.
    """

    def __init__(self, linear: nn.Linear, *, fine: bool, num_rows: int = FEWEST_ROWS) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        planes = [split_planes(rows) for rows in linear.weight.detach().split(ROWS_AT_A_TIME)]
        scale = torch.cat([step for _, _, step in planes])[:, 0]
        self._coarse = PackedPlane(torch.cat([coarse for coarse, _, _ in planes]), scale, num_rows)
        self._fine = None
        if fine:
            self._fine = PackedPlane(torch.cat([plane for _, plane, _ in planes]), scale / FINE, num_rows)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply; the result has the type of `x`."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) == 1 and self._fine is None:
            return self._one_row(rows[0]).to(x.dtype).view(*x.shape[:-1], self.out_features)
        out = rows.new_empty(rows.shape[0], self.out_features, dtype=torch.float32)
        for part, result in zip(rows.split(CACHED_ROWS), out.split(CACHED_ROWS), strict=True):
            self._multiply(part, result)
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _one_row(self, row: Float[Tensor, " in"]) -> Float[Tensor, " out"]:
        """The product of a single row in as few small operations as possible.

        While one token is written, those take as long as reading the weight does. Codes are cut off rather
        than rounded, which saves three of them and one bit of fifteen.
        """
        low, high = row.aminmax()
        step = max(-float(low), float(high), 1e-30) / LARGEST
        scaled = row.float() * (1 / step)
        # The rows after the two planes only fill up what the product wants; nobody reads their results.
        codes = torch.empty(FEWEST_ROWS, self.in_features, dtype=torch.int8)
        codes[0] = scaled
        codes[1] = scaled.frac_().mul_(LARGEST)
        both = self._coarse.product(codes, step)
        total = torch.add(both[0], both[1], alpha=1 / LARGEST)
        return total if self.bias is None else total.add_(self.bias)

    def _multiply(self, rows: Float[Tensor, "rows in"], out: Float[Tensor, "rows out"]) -> None:
        """Write the product of some rows to `out`."""
        count = rows.shape[0]
        coarse, fine, step = split_planes(rows)
        missing = max(FEWEST_ROWS - 2 * count, 0)
        both = self._coarse.product(F.pad(torch.cat([coarse, fine]), (0, 0, 0, missing)))
        total = both[:count].add_(both[count : 2 * count], alpha=1 / FINE)
        if self._fine is not None:
            total += self._fine.product(coarse)
        if self.bias is None:
            torch.mul(total, step, out=out)
        else:
            torch.addcmul(self.bias.float(), total, step, out=out)


class Int8Linear(nn.Module):
    """A linear layer whose weight is stored as int8 and widened for the product: without oneDNN."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        planes = [split_planes(rows) for rows in linear.weight.detach().split(ROWS_AT_A_TIME)]
        self.out_features, self.in_features = linear.weight.shape
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        self.register_buffer("weight", torch.cat([coarse for coarse, _, _ in planes]))
        self.register_buffer("scale", torch.cat([step for _, _, step in planes])[:, 0])

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply in the precision of `x`."""
        out = F.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
        return out if self.bias is None else out + self.bias
