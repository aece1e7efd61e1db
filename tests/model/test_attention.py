"""The attention call against a literal softmax, for every kind of mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from g2vlm.model.attention import attend, merge_heads, split_heads


def literal_attention(queries: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Tensor:
    """One query of one head at a time, in float64, over exactly the keys it may see."""
    batch, heads, tokens, channels = queries.shape
    kv_heads, num_keys = keys.shape[1:3]
    out = torch.zeros(batch, heads, tokens, channels, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            source = h // (heads // kv_heads)
            for i in range(tokens):
                last = num_keys - tokens + i if causal else num_keys - 1
                visible = list(range(min(num_keys, last + 1)))
                scores = keys[b, source, visible].double() @ queries[b, h, i].double() / channels**0.5
                out[b, h, i] = scores.softmax(0) @ values[b, source, visible].double()
    return out


def draw(batch: int, heads: tuple[int, int], tokens: int, past: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(num_heads: int, length: int) -> Tensor:
        return torch.randn(batch, num_heads, length, 8, generator=generator)

    return [normal(heads[0], tokens), normal(heads[1], tokens + past), normal(heads[1], tokens + past)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (4, 1)])
def test_every_kind_equals_a_literal_softmax(
    heads: tuple[int, int], tokens: int, past: int, causal: bool, training: bool
) -> None:
    q, k, v = draw(2, heads, tokens, past)
    with torch.set_grad_enabled(training):
        found = attend(q, k, v, causal=causal)
    assert found.shape == q.shape
    torch.testing.assert_close(found.double(), literal_attention(q, k, v, causal), atol=2e-6, rtol=0)


@settings(deadline=None, max_examples=25)
@given(
    groups=st.integers(1, 3),
    kv_heads=st.integers(1, 2),
    tokens=st.integers(1, 6),
    past=st.integers(0, 6),
    causal=st.booleans(),
    training=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_sizes_equal_a_literal_softmax(
    groups: int, kv_heads: int, tokens: int, past: int, causal: bool, training: bool, seed: int
) -> None:
    q, k, v = draw(1, (groups * kv_heads, kv_heads), tokens, past, seed)
    with torch.set_grad_enabled(training):
        found = attend(q, k, v, causal=causal)
    torch.testing.assert_close(found.double(), literal_attention(q, k, v, causal), atol=2e-6, rtol=0)


def test_causal_queries_never_read_keys_after_their_own() -> None:
    """Changing the last key changes the last query's output alone, with and without a past."""
    for past in (0, 3):
        q, k, v = draw(1, (4, 2), 5, past)
        before = attend(q, k, v, causal=True)
        k[:, :, -1] += 1.0
        v[:, :, -1] -= 1.0
        after = attend(q, k, v, causal=True)
        assert torch.equal(before[:, :, :-1], after[:, :, :-1])
        assert not torch.allclose(before[:, :, -1], after[:, :, -1])


def test_attention_is_differentiable_and_its_gradient_is_that_of_the_formula() -> None:
    q, k, v = (x.double().requires_grad_() for x in draw(1, (4, 2), 3, 2))
    assert torch.autograd.gradcheck(lambda *args: attend(*args, causal=True), (q, k, v))
    assert torch.autograd.gradcheck(attend, (q, k, v))


def test_splitting_and_merging_heads_are_inverse() -> None:
    x = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 2, 3, 4)
    assert torch.equal(heads[1, 1, 2], x[1, 2, 4:])
    assert torch.equal(merge_heads(heads), x)
