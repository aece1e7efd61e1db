"""Products in C against torch, in every format that the library reads, with and without fast instructions."""

import pytest
import torch
from torch import nn

from g2vlm.model.int4 import Int4Linear
from g2vlm.model.integer import Int8Linear
from g2vlm.model.native.linear import FEW_ROWS, WIDENED_ROWS, NativeLinear
from g2vlm.model.native.matrix import StoredMatrix, fits_packing

pytestmark = pytest.mark.needs_compiler

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


PACKED_SIZES = [(32, 32), (544, 64), (1536, 32)]
"""Input and output channels: less than a piece of 512, a piece and a bit, three whole ones."""


def trained_like(inputs: int, outputs: int) -> torch.Tensor:
    """Weights of a bell curve, with rows and columns that stand out."""
    generator = torch.Generator().manual_seed(inputs)
    weight = torch.randn(outputs, inputs, generator=generator) * 0.02
    weight[3] *= 1e-20
    weight[:, 7] = 0
    weight[5, ::3] *= 1e10
    return weight.bfloat16()


def any_bits(inputs: int, outputs: int) -> torch.Tensor:
    """Every pattern of bits is as likely as any other: hundreds of exponents, infinities, no numbers."""
    generator = torch.Generator().manual_seed(outputs)
    bits = torch.randint(-(2**15), 2**15, (outputs, inputs), generator=generator, dtype=torch.int16)
    return bits.view(torch.bfloat16)


def one_exponent(inputs: int, outputs: int) -> torch.Tensor:
    return torch.ones(outputs, inputs, dtype=torch.bfloat16)


@pytest.mark.parametrize("plainly_packed", [False, True])
@pytest.mark.parametrize("plainly_unpacked", [False, True])
@pytest.mark.parametrize("made", [trained_like, any_bits, one_exponent])
@pytest.mark.parametrize(("inputs", "outputs"), PACKED_SIZES)
def test_packing_loses_no_bit(inputs, outputs, made, plainly_unpacked, plainly_packed):
    weight = made(inputs, outputs)
    packed = StoredMatrix.of_packed(weight, None, plain=plainly_packed)
    found = packed.widened(0, outputs, torch.bfloat16, plain=plainly_unpacked)
    assert torch.equal(found.view(torch.int16), weight.view(torch.int16))
    part = packed.widened(16, 32, torch.bfloat16, plain=plainly_unpacked)
    assert torch.equal(part.view(torch.int16), weight[16:32].view(torch.int16))


def test_packing_takes_two_thirds():
    torch.manual_seed(0)
    weight = (torch.randn(512, 2048) * 0.02).bfloat16()
    assert 10.5 < 8 * (StoredMatrix.of_packed(weight, None).num_bytes - 8192) / weight.numel() < 11.1


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 16, 17, 40, 48, 51])
@pytest.mark.parametrize(("inputs", "outputs"), PACKED_SIZES)
@torch.inference_mode()
def test_products_with_packed_weights_are_those_of_torch(inputs, outputs, count, plain):
    torch.manual_seed(count)
    weight = trained_like(inputs, outputs)
    bias, x = torch.randn(outputs), torch.randn(count, inputs).bfloat16()
    found = StoredMatrix.of_packed(weight, bias).multiply(x, plain=plain)
    exact = x.double() @ weight.double().T + bias.double()
    # Row by row: rows differ by thirty orders of magnitude.
    assert ((found - exact).norm(dim=0) <= 3e-6 * exact.norm(dim=0)).all()


@pytest.mark.parametrize("count", [2, 130, 200])
@torch.inference_mode()
def test_packed_layers_are_those_they_were(count):
    linear = layer(96, WIDENED_ROWS + 64, torch.bfloat16)
    x = torch.randn(2, count, 96).bfloat16()
    found, expected = NativeLinear(linear)(x), linear(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=1.6e-2, atol=1e-2)


def test_odd_matrices_are_not_packed():
    assert fits_packing(trained_like(64, 32))
    for weight in (
        trained_like(64, 40),
        trained_like(64, 16),
        trained_like(48, 32),
        trained_like(64, 32).float(),
    ):
        assert not fits_packing(weight)
