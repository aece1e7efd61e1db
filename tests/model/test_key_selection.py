"""Chosen keys: dense when all are chosen, equal to a masked reference otherwise."""

import pytest
import torch
from random_weights import fill_randomly

from g2vlm.errors import InputError
from g2vlm.inference.prompts import layout_of
from g2vlm.inputs.spans import ImageTokens, SpanBuilder
from g2vlm.model import key_selection
from g2vlm.model.cache import KeyValueCache
from g2vlm.model.config import g2vlm_test
from g2vlm.model.key_selection import KeyChoice, KeySelection, SelectingMemory
from g2vlm.model.layout import Streams
from g2vlm.model.mixture import Mixture

CONFIG = g2vlm_test().mixture
VIEWS, PATCHES, TEXT = 4, 24, 3


def layout(*, one_block: bool = True):
    builder = SpanBuilder(ImageTokens(1, 2)).text([5, 6, 7])
    return layout_of(builder.geometric_views(VIEWS, 4, 6, one_block=one_block).spans)


def streams() -> Streams:
    generator = torch.Generator().manual_seed(0)
    make = [torch.randn(1, n, CONFIG.width, generator=generator) for n in (TEXT + 2 * VIEWS, VIEWS * PATCHES)]
    return Streams(*make)


def hidden(mixture: Mixture, selection: KeySelection | None) -> torch.Tensor:
    memory = None if selection is None else SelectingMemory(layout(), VIEWS, selection)
    with torch.no_grad():
        return mixture(streams(), layout(), memory).geometric


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return fill_randomly(Mixture(CONFIG)).eval()


@pytest.mark.parametrize("choice", KeyChoice)
def test_all_keys_chosen_is_dense_attention(mixture: Mixture, choice: KeyChoice) -> None:
    dense = hidden(mixture, None)
    for count in (PATCHES, 10 * PATCHES):
        torch.testing.assert_close(hidden(mixture, KeySelection(count, choice)), dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("choice", KeyChoice)
def test_more_keys_come_closer_to_dense_attention(mixture: Mixture, choice: KeyChoice) -> None:
    dense = hidden(mixture, None)
    losses = [float((hidden(mixture, KeySelection(n, choice)) - dense).norm()) for n in (1, 6, 20)]
    assert losses[0] > losses[1] > losses[2] > 0


@pytest.mark.parametrize("choice", KeyChoice)
def test_attention_is_that_of_a_mask_over_all_keys(choice: KeyChoice) -> None:
    generator = torch.Generator().manual_seed(1)
    shared = TEXT + 2 * VIEWS
    total = shared + VIEWS * PATCHES
    keys, values = (torch.randn(1, 2, total, 16, generator=generator) for _ in range(2))
    queries = torch.randn(1, 4, total - TEXT, 16, generator=generator)
    memory = SelectingMemory(layout(), VIEWS, KeySelection(5, choice))
    memory.store(0, [(keys[:, :, :50], values[:, :, :50]), (keys[:, :, 50:], values[:, :, 50:])])
    found = memory.attend(0, queries, total, causal=False)

    patches = queries[:, :, 2 * VIEWS :].unflatten(2, (VIEWS, PATCHES))
    chosen = memory._choose(patches, keys[:, :, shared:].unflatten(2, (VIEWS, PATCHES)))
    assert chosen.shape == (1, 2, VIEWS, 5)
    for head in range(4):
        visible = torch.zeros(total - TEXT, total, dtype=torch.bool)
        visible[: 2 * VIEWS] = True
        visible[:, :shared] = True
        for view in range(VIEWS):
            rows = slice(2 * VIEWS + view * PATCHES, 2 * VIEWS + (view + 1) * PATCHES)
            visible[rows, shared + view * PATCHES : shared + (view + 1) * PATCHES] = True
            for other in range(VIEWS):
                visible[rows, shared + other * PATCHES + chosen[0, head // 2, other]] = True
        scores = queries[0, head] @ keys[0, head // 2].T / 4
        weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        torch.testing.assert_close(found[0, head], weights @ values[0, head // 2], rtol=1e-4, atol=1e-5)


def test_mass_finds_the_keys_that_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(1, 4, VIEWS, PATCHES, 16, generator=generator) + 1.0
    keys = 0.1 * torch.randn(1, 2, VIEWS, PATCHES, 16, generator=generator)
    keys[:, :, :, 7] += 1.0
    memory = SelectingMemory(layout(), VIEWS, KeySelection(1))
    assert (memory._choose(queries, keys) == 7).all()
    whole = key_selection._attention_mass(queries, keys)
    monkeypatch.setattr(key_selection, "_SCORES_AT_ONCE", 1)
    torch.testing.assert_close(key_selection._attention_mass(queries, keys), whole)


def test_only_one_block_of_views_can_be_read_selectively() -> None:
    with pytest.raises(InputError, match="global view attention"):
        SelectingMemory(layout(one_block=False), VIEWS, KeySelection(2))
    with pytest.raises(InputError, match="at least 1 key"):
        KeySelection(0)


def test_it_is_no_cache_and_refuses_to_be_used_as_one(mixture: Mixture) -> None:
    """It once passed for a cache without being one: its capacity and size were not there."""
    memory = SelectingMemory(layout(), VIEWS, KeySelection(2))
    assert not isinstance(memory, KeyValueCache)
    with pytest.raises(ValueError, match="one pass over 107 tokens, got 9: key selection keeps nothing"):
        memory.reserve(9)
    with torch.no_grad():
        mixture(streams(), layout(), memory)
        with pytest.raises(ValueError, match="got 107 after it"):
            mixture(streams(), layout(), memory)
