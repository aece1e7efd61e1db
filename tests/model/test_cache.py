"""The key/value cache: capacity, growth, truncation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from g2vlm.model.cache import BLOCK_TOKENS, CacheShape, KeyValueCache, Segment
from g2vlm.model.config import MixtureConfig

SHAPE = CacheShape(num_layers=2, num_kv_heads=2, head_dim=4)


def entries(num_tokens: int, start: float = 0.0) -> tuple[Tensor, Tensor]:
    keys = torch.arange(num_tokens * 8.0).view(1, 2, num_tokens, 4) + start
    return keys, -keys


def append(cache: KeyValueCache, num_tokens: int, start: float = 0.0) -> Tensor:
    keys, values = entries(num_tokens, start)
    cache.reserve(num_tokens)
    for layer in range(SHAPE.num_layers):
        cache.store(layer, [(keys + layer, values + layer)])
    cache.advance(num_tokens)
    return keys


def test_what_is_stored_is_read_back_layer_by_layer() -> None:
    cache = KeyValueCache(SHAPE, 8)
    first, second = append(cache, 3), append(cache, 2, start=100.0)
    for layer in range(2):
        keys, values = cache.read(layer, 0)
        assert torch.equal(keys, torch.cat([first, second], dim=2) + layer)
        assert torch.equal(values, torch.cat([-first, -second], dim=2) + layer)


def test_keys_of_the_running_pass_are_read_before_the_length_moves() -> None:
    cache = KeyValueCache(SHAPE, 8)
    append(cache, 3)
    keys, values = entries(4, 50.0)
    cache.store(0, [(keys[:, :, :1], values[:, :, :1]), (keys[:, :, 1:], values[:, :, 1:])])
    assert cache.length == 3
    assert torch.equal(cache.read(0, 4)[0][:, :, 3:], keys)
    assert torch.equal(cache.read(0, 2)[1][:, :, 3:], values[:, :, :2])


def test_a_static_cache_refuses_to_outgrow_its_capacity() -> None:
    cache = KeyValueCache(SHAPE, 4)
    append(cache, 3)
    with pytest.raises(ValueError, match="holds 4 tokens, 3 are filled, 2 more"):
        cache.reserve(2)
    cache.reserve(1)
    assert (cache.length, cache.capacity) == (3, 4)


def test_a_growing_cache_adds_blocks_and_copies_nothing() -> None:
    """It once doubled, and held everything twice while it did."""
    cache = KeyValueCache(SHAPE, 2, growing=True)
    kept = append(cache, 2)
    (first,) = cache.segments()
    append(cache, 1, start=9.0)
    assert cache.capacity == 2 + BLOCK_TOKENS
    append(cache, BLOCK_TOKENS, start=50.0)
    assert cache.capacity == 2 + 2 * BLOCK_TOKENS
    append(cache, 2 * BLOCK_TOKENS)
    assert cache.capacity == 2 + 4 * BLOCK_TOKENS
    assert cache.num_bytes == SHAPE.num_bytes(cache.capacity, torch.float32)
    assert [one.num_tokens for one in cache.segments()] == [2, 1, BLOCK_TOKENS, 2 * BLOCK_TOKENS]
    assert cache.segments()[0].keys.data_ptr() == first.keys.data_ptr()
    assert torch.equal(cache.read(0, 0)[0][:, :, :2], kept)


def test_what_was_read_elsewhere_fills_blocks_to_the_last_token() -> None:
    cache = KeyValueCache(SHAPE, BLOCK_TOKENS, growing=True)
    count = BLOCK_TOKENS // 2 + 3
    turns = [Segment(*torch.randn(2, 2, 2, count, 4)) for _ in range(3)]
    for turn in turns:
        cache.append(turn)
    assert [one.num_tokens for one in cache.segments()] == [BLOCK_TOKENS, 3 * count - BLOCK_TOKENS]
    for layer in range(2):
        keys, values = cache.read(layer, 0)
        assert torch.equal(keys[0], torch.cat([turn.keys[layer] for turn in turns], dim=1))
        assert torch.equal(values[0], torch.cat([turn.values[layer] for turn in turns], dim=1))


def test_segments_stay_as_they_were_while_the_cache_grows() -> None:
    cache = KeyValueCache(SHAPE, 4, growing=True)
    append(cache, 3)
    (before,) = cache.segments()
    copy = before.keys.clone()
    append(cache, 1, start=7.0)
    append(cache, 5, start=8.0)
    assert before.num_tokens == 3
    assert torch.equal(before.keys, copy)
    with pytest.raises(ValueError, match="one sequence, got 2"):
        KeyValueCache(SHAPE, 4, batch=2).segments()


@pytest.mark.parametrize("causal", [False, True])
def test_attention_over_blocks_is_that_over_one(causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    one, several = KeyValueCache(SHAPE, 5000), KeyValueCache(SHAPE, 2, growing=True)
    with torch.no_grad():
        for count in (2, 3, BLOCK_TOKENS, 7):
            queries = torch.randn(1, 4, count, 4, generator=generator)
            keys, values = torch.randn(2, 1, 2, count, 4, generator=generator)
            found = []
            for cache in (one, several):
                cache.reserve(count)
                cache.store(0, [(keys, values)])
                found.append(cache.attend(0, queries, count, causal=causal))
                cache.advance(count)
            torch.testing.assert_close(found[1], found[0], rtol=0, atol=2e-6)
    assert len(several.segments()) == 4


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(st.integers(1, 6), st.integers(-4, -1)), min_size=1, max_size=12))
def test_appending_and_truncating_equals_a_list(steps: list[int]) -> None:
    """Positive steps append, negative ones truncate; a plain concatenation is the model."""
    cache = KeyValueCache(SHAPE, 1, growing=True)
    expected = torch.empty(1, 2, 0, 4)
    for number, step in enumerate(steps):
        if step > 0:
            expected = torch.cat([expected, append(cache, step, start=1000.0 * number)], dim=2)
        else:
            length = max(0, cache.length + step)
            cache.truncate(length)
            expected = expected[:, :, :length]
        assert cache.length == expected.shape[2]
        assert torch.equal(cache.read(0, 0)[0], expected)


@pytest.mark.parametrize("length", [-1, 4])
def test_truncation_only_goes_back(length: int) -> None:
    cache = KeyValueCache(SHAPE, 8)
    append(cache, 3)
    with pytest.raises(ValueError, match="Cannot truncate a cache of 3 tokens"):
        cache.truncate(length)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_announced_bytes_are_the_bytes_of_the_buffers(dtype: torch.dtype) -> None:
    cache = KeyValueCache(SHAPE, 5, batch=3, dtype=dtype)
    assert cache.batch == 3
    assert SHAPE.num_bytes(5, dtype, batch=3) == cache.num_bytes
    # keys and values x layers x batch x heads x tokens x channels x bytes
    assert cache.num_bytes == 2 * 2 * 3 * 2 * 5 * 4 * dtype.itemsize


def test_the_released_size_takes_28_kibibytes_a_token() -> None:
    assert CacheShape.of(MixtureConfig()).num_bytes(1, torch.bfloat16) == 28 * 1024
