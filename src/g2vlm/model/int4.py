"""Linear layers that store half a byte a weight.

A weight is `scale * code + offset` with a code from -8 to 7; scale and offset belong to a group of input
channels of one output channel. Both are chosen for the smallest squared error over a few ways to clip.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

GROUP_SIZES = (64, 32)
"""Input channels that share a scale: the first that divides the layer is taken."""
CODES = 16
PACKED_ROWS = 16
"""The packed layout wants a multiple of so many output channels."""
ROWS_AT_A_TIME = 4096
"""Output channels whose codes are chosen at once."""
WIDENED_ROWS = 512
"""Output channels that are widened at once for a product."""
FEW_ROWS = 96
"""Rows up to which torch's four-bit product is faster than widening."""
_CLIPPINGS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Shares of a group's range that are tried."""


def fits_int4(linear: nn.Linear) -> bool:
    """Whether the channels of a layer fall into whole groups."""
    return _group_size(linear) is not None and linear.out_features % PACKED_ROWS == 0


def _group_size(linear: nn.Linear) -> int | None:
    return next((size for size in GROUP_SIZES if linear.in_features % size == 0), None)


def four_bit_codes(
    weight: Float[Tensor, "out in"], group_size: int
) -> tuple[Int[Tensor, "out in"], Float[Tensor, "out groups"], Float[Tensor, "out groups"]]:
    """Codes from 0 to 15, scales and offsets: weight = (code - 8) * scale + offset.

    Args:
        weight: any; `group_size` divides its input channels.
        group_size: input channels that share a scale.
    """
    groups = weight.float().unflatten(1, (-1, group_size))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    middle, half = (low + high) / 2, (high - low) / 2
    best_error = torch.full_like(low, torch.inf)
    best_codes, best_scale, best_offset = torch.zeros_like(groups), low, low
    for share in _CLIPPINGS:
        scale = (half * (2 * share / (CODES - 1))).clamp_min(1e-12)
        offset = middle + scale / 2
        codes = ((groups - offset) / scale).round().clamp(-CODES // 2, CODES // 2 - 1)
        error = (codes * scale + offset - groups).square().sum(dim=-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_codes = torch.where(better, codes, best_codes)
        best_scale, best_offset = (
            torch.where(better, scale, best_scale),
            torch.where(better, offset, best_offset),
        )
    codes = (best_codes + CODES // 2).to(torch.int32).flatten(1)
    return codes, best_scale[..., 0], best_offset[..., 0]


class Int4Linear(nn.Module):
    """A linear layer on any device: two codes a byte, widened for each product. It saves memory, not time."""

    pairs: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        size = _group_size(linear)
        assert size is not None
        self.group_size, self.out_features = size, linear.out_features
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        parts = [four_bit_codes(rows, size) for rows in linear.weight.detach().split(ROWS_AT_A_TIME)]
        codes, scale, offset = (torch.cat(kind) for kind in zip(*parts, strict=True))
        self.register_buffer("pairs", (codes[:, ::2] + codes[:, 1::2] * CODES).to(torch.uint8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.register_buffer("offset", (offset - CODES // 2 * scale).to(linear.weight.dtype))

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply in the precision of `x`."""
        rows = x.reshape(-1, x.shape[-1])
        out = rows.new_empty(len(rows), self.out_features)
        # Few output channels at a time, so that widened weights stay in the processor's cache.
        for start in range(0, self.out_features, WIDENED_ROWS):
            part = slice(start, start + WIDENED_ROWS)
            out[:, part] = F.linear(rows, self._widened(part, x.dtype))
        out = out if self.bias is None else out.add_(self.bias.to(x.dtype))
        return out.view(*x.shape[:-1], self.out_features)

    def _widened(self, part: slice, dtype: torch.dtype) -> Float[Tensor, "rows in"]:
        """The weights of some output channels."""
        pairs = self.pairs[part]
        codes = torch.stack([pairs & (CODES - 1), pairs >> 4], dim=-1).to(dtype)
        groups = codes.view(len(pairs), -1, self.group_size)
        scale, offset = self.scale[part].to(dtype), self.offset[part].to(dtype)
        return torch.addcmul(offset[..., None], groups, scale[..., None]).flatten(1)


class PackedInt4Linear(Int4Linear):
    """The same on a CPU, with a second copy of the codes in the layout of torch's four-bit product.

    That product reads half a byte a weight, which makes single tokens fast, but is slow for many.
    """

    packed: Tensor
    factors: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        codes = torch.stack([self.pairs & (CODES - 1), self.pairs >> 4], dim=-1).flatten(1).to(torch.int32)
        middle = self.offset + CODES // 2 * self.scale
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1))
        self.register_buffer("factors", torch.stack([self.scale.T, middle.T], dim=-1).contiguous())

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply in the precision of `x`."""
        if x.numel() > FEW_ROWS * x.shape[-1] or x.dtype != self.factors.dtype:
            return super().forward(x)
        rows = x.reshape(-1, x.shape[-1])
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.packed, self.group_size, self.factors
        )
        out = out if self.bias is None else out.add_(self.bias.to(x.dtype))
        return out.view(*x.shape[:-1], self.out_features)
