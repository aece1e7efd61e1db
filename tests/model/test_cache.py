"""The key/value cache: capacity, growth, truncation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from g2vlm.model.cache import CacheShape, KeyValueCache
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


def test_a_growing_cache_doubles_and_keeps_what_it_holds() -> None:
    cache = KeyValueCache(SHAPE, 2, growing=True)
    kept = append(cache, 2)
    append(cache, 1, start=9.0)
    assert cache.capacity == 4
    cache.reserve(20)
    assert cache.capacity == 23
    assert torch.equal(cache.read(0, 0)[0][:, :, :2], kept)


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
