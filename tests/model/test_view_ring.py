"""The ring of views: what is kept, replaced and turned on, and what is refused."""

import pytest
import torch

from g2vlm.model.config import g2vlm_test
from g2vlm.model.rotary import multimodal_rotation, rotate_halves
from g2vlm.model.view_ring import RingSize, ViewRing

CONFIG = g2vlm_test().mixture
PROMPT, VIEW = 3, 5


def ring(anchors: int = 1, window: int = 2) -> ViewRing:
    return ViewRing(CONFIG, RingSize(PROMPT, VIEW, anchors, window), torch.float32, "cpu")


def read(one: ViewRing, value: float) -> list[float]:
    """Read the prompt or a view whose values are all `value`; the values that its queries can see."""
    count = PROMPT if one.length == 0 else VIEW
    one.reserve(count)
    shape = (1, CONFIG.num_kv_heads, count, CONFIG.head_dim)
    for layer in range(CONFIG.num_layers):
        one.store(layer, [(torch.zeros(shape), torch.full(shape, value))])
    end = max(one.length, one._start + count)
    seen = one._values[0, 0, 0, :end, 0].tolist()
    one.advance(count)
    return seen


@pytest.mark.parametrize(("anchors", "window"), [(0, 1), (1, 2), (2, 3)])
def test_prompt_anchors_and_the_latest_views_are_seen(anchors: int, window: int) -> None:
    one = ring(anchors, window)
    read(one, -1.0)
    for number in range(12):
        seen = set(read(one, float(number)))
        kept = {float(anchor) for anchor in range(min(anchors, number + 1))}
        latest = {float(view) for view in range(max(0, number - window), number + 1)}
        # Until the anchors are complete, views are anchors.
        oldest = max(anchors, number - window)
        expected = {-1.0} | kept | {view for view in latest if view >= oldest or view < anchors}
        assert seen == expected


def test_size_is_fixed_and_only_whole_views_fit() -> None:
    one = ring()
    capacity = PROMPT + (1 + 2 + 1) * VIEW
    assert one.capacity == capacity == one.size.num_tokens
    with pytest.raises(ValueError, match="Expected 3 tokens next"):
        one.reserve(VIEW)
    for value in range(9):
        read(one, float(value))
        assert one.capacity == capacity
    with pytest.raises(ValueError, match="Expected 5 tokens next"):
        one.reserve(VIEW + 1)


def test_followers_are_the_keys_of_later_positions() -> None:
    def rotated(keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        rotation = multimodal_rotation(positions, CONFIG.rope_sections, CONFIG.rope_theta)
        return rotate_halves(keys, rotation)

    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(0, 30, (3, PROMPT + VIEW), generator=generator)
    plain = torch.randn(1, CONFIG.num_kv_heads, PROMPT + VIEW, CONFIG.head_dim, generator=generator)
    kept = rotated(plain, positions)
    one = ring(anchors=1, window=1)
    for part in (slice(0, PROMPT), slice(PROMPT, PROMPT + VIEW)):
        for layer in range(CONFIG.num_layers):
            one.store(layer, [(kept[:, :, part], kept[:, :, part])])
        one.advance(part.stop - part.start)
    for number in range(3):
        read(one, float(number))
    assert one.num_dropped == 2
    for _ in range(2):  # turning on starts from the original every time: twice is once
        one.follow(view_step=7)
        expected = rotated(plain, positions + 2 * 7)
        torch.testing.assert_close(one._keys[0, :, :, : PROMPT + VIEW], expected, rtol=1e-4, atol=1e-5)
