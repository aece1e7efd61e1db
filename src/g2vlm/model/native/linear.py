"""A linear layer of int8, int4 or packed weights that the C library multiplies."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from g2vlm.model.int4 import Int4Linear
from g2vlm.model.integer import Int8Linear
from g2vlm.model.native.library import FAST_TILES, load_library
from g2vlm.model.native.matrix import PACKED, StoredMatrix

FEW_ROWS, FEW_PACKED_ROWS, FEW_ROWS_BY_TILES = 12, 16, 144
"""Rows up to which products read the codes of int8 and int4, and packed weights without and with a matrix
unit; for more, weights are widened once for all."""
WIDENED_ROWS = 2048
"""Output channels that are widened at once."""


class NativeLinear(nn.Module):
    """Takes over the numbers of a layer; can be neither moved, copied nor saved.

    Args:
        layer: on the CPU; a plain one, which `fits_packing`, is packed.
    """

    def __init__(self, layer: Int8Linear | Int4Linear | nn.Linear) -> None:
        super().__init__()
        if isinstance(layer, nn.Linear):
            self.matrix = StoredMatrix.of_packed(layer.weight, layer.bias)
        elif isinstance(layer, Int8Linear):
            self.matrix = StoredMatrix.of_int8(layer.weight, layer.scale, layer.bias)
        else:
            self.matrix = StoredMatrix.of_int4(layer.pairs, layer.scale, layer.offset, layer.bias)
        self.bias = layer.bias
        self.out_features, self.in_features = self.matrix.c.rows, self.matrix.c.columns

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply; the result has the type of `x`."""
        rows = x.reshape(-1, self.in_features)
        product = self.matrix.multiply(rows) if len(rows) <= self.few_rows else self._multiply_many(rows)
        return product.to(x.dtype).view(*x.shape[:-1], self.out_features)

    @property
    def few_rows(self) -> int:
        """Rows up to which products read the codes."""
        if self.matrix.c.kind != PACKED:
            return FEW_ROWS
        by_tiles = load_library().g2vlm_features() & FAST_TILES
        return FEW_ROWS_BY_TILES if by_tiles else FEW_PACKED_ROWS

    def _multiply_many(self, rows: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        out = rows.new_empty(len(rows), self.out_features)
        for start in range(0, self.out_features, WIDENED_ROWS):
            end = min(start + WIDENED_ROWS, self.out_features)
            out[:, start:end] = F.linear(rows, self.matrix.widened(start, end, rows.dtype))
        return out if self.bias is None else out.add_(self.bias.to(rows.dtype))
