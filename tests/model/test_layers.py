"""Norms, MLPs and chunking."""

import pytest
import torch
from torch.nn import functional as F

from g2vlm.model import layers
from g2vlm.model.layers import (
    LARGER_ON_GPU,
    MLP,
    TOKENS_PER_CHUNK,
    GatedMLP,
    LayerNorm,
    LayerScale,
    RMSNorm,
    chunk_factor,
    per_token_chunks,
    quick_gelu,
)


@pytest.mark.parametrize("shape", [(11, 4), (2, 6, 4), (1, 3, 4, 4)])
def test_chunks_equal_the_whole(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(shape)
    linear = torch.nn.Linear(4, 7)
    seen: list[int] = []

    def transform(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.numel() // 4)
        return linear(part)

    with torch.no_grad():
        whole = linear(x)
        monkeypatch.setattr(layers, "TOKENS_PER_CHUNK", 5)
        chunked = per_token_chunks(transform, x)
    assert max(seen) <= 5
    assert sum(seen) == x.numel() // 4
    assert chunked.shape == whole.shape
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=0)


def test_chunking_is_not_used_where_gradients_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "TOKENS_PER_CHUNK", 2)
    calls: list[int] = []
    x = torch.randn(7, 3, requires_grad=True)
    per_token_chunks(lambda part: calls.append(len(part)) or part * 2, x).sum().backward()
    assert calls == [7]
    assert torch.equal(x.grad, torch.full_like(x, 2))


def test_chunks_keep_the_type_that_the_transform_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "TOKENS_PER_CHUNK", 2)
    with torch.no_grad():
        assert per_token_chunks(lambda part: part.bfloat16(), torch.ones(5, 2)).dtype is torch.bfloat16


def test_norms_follow_their_formulas() -> None:
    x = torch.randn(3, 6) * 10 + 4
    weight, bias = torch.rand(6) + 0.5, torch.randn(6)
    rms, layer = RMSNorm(6, 1e-3), LayerNorm(6, 1e-3)
    with torch.no_grad():
        rms.weight.copy_(weight)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight
    torch.testing.assert_close(rms(x), expected)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight + bias
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("norm", [RMSNorm(64, 1e-6), LayerNorm(64, 1e-6)])
def test_norms_compute_in_float32_and_return_the_type_of_their_weight(norm: torch.nn.Module) -> None:
    x = torch.randn(5, 64) * 100
    exact = norm.float()(x)
    rounded = norm.bfloat16()(x)
    assert rounded.dtype is torch.bfloat16
    # A norm computed in bfloat16 would be off by several units in the last place.
    assert torch.equal(rounded, exact.bfloat16())


def test_quick_gelu_is_the_sigmoid_approximation() -> None:
    x = torch.linspace(-5, 5, 101)
    torch.testing.assert_close(quick_gelu(x), x / (1 + torch.exp(-1.702 * x)))
    assert (quick_gelu(x) - F.gelu(x)).abs().max() > 0.01


def test_gated_mlp_applies_silu_to_the_first_rows() -> None:
    mlp = GatedMLP(4, 6)
    x = torch.randn(3, 4)
    gate, up = mlp.gate_up.weight[:6], mlp.gate_up.weight[6:]
    expected = (F.silu(x @ gate.T) * (x @ up.T)) @ mlp.down.weight.T
    torch.testing.assert_close(mlp(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected)


def test_mlp_uses_exact_gelu_unless_asked_for_the_quick_one() -> None:
    x = torch.randn(3, 4)
    for quick, activation in ((False, F.gelu), (True, quick_gelu)):
        mlp = MLP(4, 6, quick=quick)
        torch.testing.assert_close(mlp(x), mlp.down(activation(mlp.up(x))))


def test_layer_scale_multiplies_channels() -> None:
    scale = LayerScale(3, 0.25)
    assert torch.equal(scale(torch.ones(2, 3)), torch.full((2, 3), 0.25))


def test_a_gpu_takes_more_at_a_time() -> None:
    sizes: dict[str, list[int]] = {}
    for device in ("cpu", "meta"):
        seen = sizes.setdefault(device, [])
        x = torch.zeros(3 * TOKENS_PER_CHUNK, 2, device=device)
        with torch.no_grad():
            per_token_chunks(lambda part, seen=seen: (seen.append(len(part)), part)[1], x)
    assert sizes == {"cpu": [TOKENS_PER_CHUNK] * 3, "meta": [3 * TOKENS_PER_CHUNK]}
    assert (chunk_factor(torch.device("cpu")), chunk_factor(torch.device("cuda"))) == (1, LARGER_ON_GPU)
