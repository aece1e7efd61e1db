"""The geometric encoder's windows, literally: window i holds the tokens i*P to (i+1)*P of all views."""

import pytest
import torch
from random_weights import fill_randomly
from torch import Tensor

from g2vlm.model import layers
from g2vlm.model.config import EncoderWindows, GeometricEncoderConfig
from g2vlm.model.geometric_encoder import EncoderLayer, GeometricEncoder

EXTRA = 5


def config(windows: EncoderWindows) -> GeometricEncoderConfig:
    return GeometricEncoderConfig(
        num_layers=2, width=16, num_heads=2, mlp_width=24, position_grid=3, windows=windows
    )


def literal_attention(layer: EncoderLayer, x: Tensor) -> Tensor:
    """Attention output of every token of one sample, (views, tokens, channels), token by token."""
    views, tokens, width = x.shape
    flat = layer.attention_norm(x).flatten(0, 1)
    q, k, v = (layer.qkv(flat)).chunk(3, dim=-1)
    out = torch.zeros(views * tokens, width)
    patches = tokens - EXTRA
    for view in range(views):
        window = range(view * patches, (view + 1) * patches)
        for head in range(width // layer.head_dim):
            part = slice(head * layer.head_dim, (head + 1) * layer.head_dim)
            for i in window:
                scores = torch.stack([q[i, part] @ k[j, part] for j in window]) / layer.head_dim**0.5
                out[i, part] = sum(w * v[j, part] for w, j in zip(scores.softmax(0), window, strict=True))
    return out.view(views, tokens, width)


@pytest.mark.parametrize(("views", "patches"), [(1, 6), (2, 4), (4, 3)])
def test_released_windows_equal_a_literal_cut(views: int, patches: int) -> None:
    layer = fill_randomly(EncoderLayer(config(EncoderWindows.RELEASED)))
    x = torch.randn(1, views, patches + EXTRA, 16, generator=torch.Generator().manual_seed(0))
    attended = x[0] + layer.attention_scale(layer.out(literal_attention(layer, x[0])))
    expected = attended + layer.mlp_scale(layer.mlp(layer.mlp_norm(attended)))
    torch.testing.assert_close(layer(x, EncoderWindows.RELEASED)[0], expected, atol=1e-5, rtol=0)


def test_the_last_tokens_lie_in_no_window() -> None:
    """Five tokens for each view stay without attention; only the output bias reaches them."""
    layer = fill_randomly(EncoderLayer(config(EncoderWindows.RELEASED)))
    x = torch.randn(1, 2, 9, 16, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[0, 0] += 1.0
    before, after = layer(x, EncoderWindows.RELEASED), layer(changed, EncoderWindows.RELEASED)
    # Two views of nine tokens: windows cover the first eight; of the second view nothing is covered.
    assert torch.equal(before[0, 1], after[0, 1])


def test_windows_do_not_cross_samples() -> None:
    encoder = fill_randomly(GeometricEncoder(config(EncoderWindows.RELEASED)))
    images = torch.rand(2, 3, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    together = encoder(images)
    for i in range(2):
        torch.testing.assert_close(together[i], encoder(images[i : i + 1])[0], atol=1e-5, rtol=0)


def test_per_view_windows_make_views_independent_and_released_ones_do_not() -> None:
    images = torch.rand(1, 3, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    for windows, independent in ((EncoderWindows.PER_VIEW, True), (EncoderWindows.RELEASED, False)):
        encoder = fill_randomly(GeometricEncoder(config(windows)))
        alone = torch.cat([encoder(images[:, i : i + 1]) for i in range(3)], dim=1)
        together = encoder(images)
        assert torch.allclose(together, alone, atol=1e-5) is independent


def test_released_windows_of_one_view_still_differ_from_the_reference_encoder() -> None:
    images = torch.rand(1, 1, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    released, exact = (fill_randomly(GeometricEncoder(config(windows)))(images) for windows in EncoderWindows)
    assert not torch.allclose(released, exact, atol=1e-3)


@pytest.mark.parametrize("windows", list(EncoderWindows))
def test_chunked_mlps_and_checkpointing_change_nothing(
    windows: EncoderWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = fill_randomly(GeometricEncoder(config(windows)))
    images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = encoder(images)
        monkeypatch.setattr(layers, "TOKENS_PER_CHUNK", 7)
        torch.testing.assert_close(encoder(images), whole, atol=1e-5, rtol=0)
    gradients = []
    for checkpointing in (False, True):
        trained = fill_randomly(GeometricEncoder(config(windows))).requires_grad_(True)
        trained.checkpointing = checkpointing
        trained(images).square().sum().backward()
        gradients.append({name: p.grad for name, p in trained.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, plain in gradients[0].items():
        # Only masked pre-training uses the mask token.
        assert (plain is None) is (name == "mask_token"), name
        if plain is not None:
            torch.testing.assert_close(gradients[1][name], plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("windows", list(EncoderWindows))
def test_the_residual_stream_stays_in_float32_in_a_bfloat16_encoder(windows: EncoderWindows) -> None:
    encoder = fill_randomly(GeometricEncoder(config(windows))).bfloat16()
    seen: list[Tensor] = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    out = encoder(torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0)))
    assert out.dtype is torch.bfloat16
    for stream in seen:
        assert stream.dtype is torch.float32
        # A sum that had been rounded on the way would survive another rounding unchanged.
        assert not torch.equal(stream, stream.bfloat16().float())
