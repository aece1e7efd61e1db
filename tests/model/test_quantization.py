import numpy as np
import pytest
import torch
from torch import nn

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import OutputError
from g2vlm.model.capabilities.deciding import verdict
from g2vlm.model.capabilities.paths import FastPath
from g2vlm.model.int4 import FEW_ROWS, Int4Linear, PackedInt4Linear, fits_int4, four_bit_codes
from g2vlm.model.integer import Int8Linear, IntegerLinear, split_planes
from g2vlm.model.native.linear import NativeLinear

needs_onednn = pytest.mark.skipif(
    not verdict(FastPath.INTEGER_HEADS).right, reason="oneDNN's int8 product is not right here"
)


def layer(inputs: int = 128, outputs: int = 48, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).to(torch.bfloat16)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def exact(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    bias = None if linear.bias is None else linear.bias.double()
    return nn.functional.linear(x.double(), linear.weight.double(), bias)


def test_planes_hold_fifteen_bits():
    values = torch.randn(5, 200) * torch.logspace(-3, 3, 5)[:, None]
    coarse, fine, step = split_planes(values)
    restored = step * (coarse.float() + fine.float() / 254)
    assert ((restored - values).abs() <= values.abs().amax(dim=1, keepdim=True) / 32_000).all()


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 300])
@torch.inference_mode()
def test_int8_layers_are_off_by_the_rounding_of_weights_only(rows, bias):
    linear = layer(bias=bias)
    x = torch.randn(rows, 128)
    rounded, both = IntegerLinear(linear, fine=False), IntegerLinear(linear, fine=True)
    assert error(rounded(x), exact(linear, x)) < 8e-3
    assert error(both(x), exact(linear, x)) < 1e-4
    assert error(Int8Linear(linear)(x), exact(linear, x)) < 8e-3


@needs_onednn
@torch.inference_mode()
def test_a_single_row_gives_what_it_gives_among_others():
    integer = IntegerLinear(layer(), fine=False)
    x = torch.randn(3, 128)
    alone = torch.cat([integer(row[None]) for row in x])
    # Alone, codes are cut off instead of rounded: one bit of fifteen.
    assert error(alone, integer(x)) < 3e-4
    zero = torch.zeros(1, 128)
    assert torch.equal(integer(zero), integer.bias[None].float())


def test_four_bit_codes_are_near_and_exact_where_they_can_be():
    torch.manual_seed(0)
    weight = torch.randn(32, 128)
    codes, scale, offset = four_bit_codes(weight, 64)
    assert 0 <= codes.min() <= codes.max() <= 15
    restored = ((codes - 8).unflatten(1, (-1, 64)) * scale[..., None] + offset[..., None]).flatten(1)
    # The step of sixteen codes over the range of 64 normal numbers, uniformly distributed errors.
    assert error(restored, weight) < 0.11
    grid = torch.randint(0, 16, (16, 64)).float()
    grid[:, 0], grid[:, 1] = 0, 15
    codes, scale, offset = four_bit_codes(grid, 64)
    assert torch.allclose((codes - 8) * scale + offset, grid, atol=1e-4)


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("inputs", [128, 96])
@torch.inference_mode()
def test_both_four_bit_layers_agree(rows, inputs):
    linear = layer(inputs, outputs=5008)
    x = torch.randn(2, rows, inputs, dtype=torch.bfloat16)
    plain, packed = Int4Linear(linear), PackedInt4Linear(linear)
    assert error(plain(x), exact(linear, x)) < 0.12
    assert error(packed(x), plain(x)) < 8e-3
    assert packed(x).shape == (2, rows, 5008)
    assert packed(x).dtype == torch.bfloat16


def test_layers_without_whole_groups_do_not_fit():
    assert fits_int4(layer(64, 32))
    assert not fits_int4(layer(48, 32))
    assert not fits_int4(layer(64, 40))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.needs_compiler)])
@pytest.mark.parametrize(("quantization", "tolerance"), [("int8", 0.05), ("int4", 0.2)])
def test_quantized_model_answers_and_reconstructs_nearly_the_same_scene(
    tmp_path, quantization, tolerance, compiled
):
    folder = random_checkpoint(tmp_path)
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8))
    plain = g2vlm.load(folder, device="cpu", dtype="float32")
    small = g2vlm.load(folder, device="cpu", dtype="float32", quantization=quantization, compiled=compiled)
    scenes = [model.reconstruct(pictures) for model in (plain, small)]
    np.testing.assert_allclose(scenes[1].views[1].depth, scenes[0].views[1].depth, rtol=tolerance)
    assert len(small.perceive(pictures).ask("How far?", max_new_tokens=4).token_ids) > 0
    kinds = {type(module) for module in small.network.modules()}
    by_torch = {PackedInt4Linear, Int4Linear} if quantization == "int4" else {IntegerLinear, Int8Linear}
    assert kinds & ({NativeLinear} if compiled else by_torch)
    with pytest.raises(OutputError, match="without quantization"):
        small.save_pretrained(tmp_path / "saved")
