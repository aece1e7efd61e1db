"""Products in C against torch, in every format that the library reads, with and without fast instructions."""

import pytest
import torch
from torch import nn

from g2vlm.model.int4 import Int4Linear
from g2vlm.model.integer import Int8Linear
from g2vlm.model.native.linear import FEW_ROWS, WIDENED_ROWS, NativeLinear
from g2vlm.model.native.matrix import StoredMatrix

SIZES = [(1536, 70), (224, 33), (160, 16), (32, 5)]
"""Input channels in whole blocks of 128 and with rests, of two sizes of groups; odd numbers of outputs."""


def layer(inputs: int, outputs: int, dtype: torch.dtype, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).to(dtype)


def weights(small: Int8Linear | Int4Linear) -> torch.Tensor:
    """The numbers that codes stand for, in float64."""
    if isinstance(small, Int8Linear):
        return small.weight.double() * small.scale.double()[:, None]
    codes = torch.stack([small.pairs & 15, small.pairs >> 4], dim=-1).flatten(1).double()
    groups = codes.unflatten(1, (-1, small.group_size)) * small.scale.double()[..., None]
    return (groups + small.offset.double()[..., None]).flatten(1)


def stored(small: Int8Linear | Int4Linear) -> StoredMatrix:
    return NativeLinear(small).matrix


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@torch.inference_mode()
def test_products_are_those_of_torch(inputs, outputs, dtype, plain):
    linear = layer(inputs, outputs, dtype)
    x = torch.randn(3, inputs).to(dtype)
    bias = linear.bias.double()
    formats = {
        StoredMatrix.of_floats(linear.weight, linear.bias): (linear.weight.double(), 1e-6),
        stored(Int8Linear(linear)): (weights(Int8Linear(linear)), 1e-4),
        stored(Int4Linear(linear)): (weights(Int4Linear(linear)), 1e-4),
    }
    for matrix, (weight, tolerance) in formats.items():
        found, exact = matrix.multiply(x, plain=plain), x.double() @ weight.T + bias
        assert (found - exact).norm() <= tolerance * exact.norm()


@torch.inference_mode()
def test_numbers_of_any_size_keep_fifteen_bits():
    small = Int8Linear(layer(256, 40, torch.float32, bias=False))
    for size in (1e-20, 1.0, 1e20):
        x = torch.randn(1, 256) * size
        exact = x.double() @ weights(small).T
        assert (stored(small).multiply(x) - exact).norm() <= 1e-4 * exact.norm()
    assert not stored(small).multiply(torch.zeros(1, 256)).any()


@torch.inference_mode()
def test_few_and_many_rows_give_the_same():
    for kind in (Int8Linear, Int4Linear):
        native = NativeLinear(kind(layer(192, WIDENED_ROWS + 7, torch.bfloat16)))
        x = torch.randn(2, FEW_ROWS, 192).bfloat16()
        few = torch.stack([native(rows) for rows in x])
        assert few.dtype == torch.bfloat16
        assert (native(x).float() - few.float()).norm() <= 8e-3 * few.float().norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_widened_rows_are_the_weights(dtype):
    for kind in (Int8Linear, Int4Linear):
        small = kind(layer(224, 30, torch.float32))
        found = stored(small).widened(7, 19, dtype)
        torch.testing.assert_close(found, weights(small)[7:19].to(dtype), rtol=1e-2, atol=1e-5)
