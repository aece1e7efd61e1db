"""Blocks, placements and streams."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2vlm.model.layout import Block, Layout


def layout_of_blocks(blocks: list[Block]) -> Layout:
    semantic = sum(block.num_semantic for block in blocks)
    geometric = sum(block.num_geometric for block in blocks)
    return Layout(
        tuple(blocks), torch.zeros(3, semantic, dtype=torch.long), torch.zeros(3, geometric, dtype=torch.long)
    )


blocks_strategy = st.lists(
    st.one_of(
        st.builds(Block, st.integers(1, 9), st.just(0), st.just(True)),
        st.builds(Block, st.integers(0, 4), st.integers(0, 9), st.just(False)),
    ),
    max_size=8,
)


@given(blocks_strategy)
def test_placements_cover_both_streams_once_and_in_order(blocks: list[Block]) -> None:
    layout = layout_of_blocks(blocks)
    places = list(layout.placements())
    assert [place.block for place in places] == blocks
    semantic = [i for place in places for i in range(place.semantic.start, place.semantic.stop)]
    geometric = [i for place in places for i in range(place.geometric.start, place.geometric.stop)]
    assert semantic == list(range(layout.semantic_positions.shape[1]))
    assert geometric == list(range(layout.geometric_positions.shape[1]))
    ends = [place.end for place in places]
    assert ends == [sum(block.num_tokens for block in blocks[: i + 1]) for i in range(len(blocks))]
    assert layout.num_tokens == (ends[-1] if ends else 0)


def test_a_causal_block_cannot_hold_geometric_tokens() -> None:
    with pytest.raises(ValueError, match="text run"):
        Block(1, 1, causal=True)


@pytest.mark.parametrize(("semantic", "geometric"), [(2, 4), (3, 3), (0, 0)])
def test_positions_must_fit_the_blocks(semantic: int, geometric: int) -> None:
    with pytest.raises(
        ValueError, match=rf"3 semantic and 4 geometric tokens, got \({semantic}, {geometric}\)"
    ):
        Layout(
            (Block(1, 0, causal=True), Block(2, 4, causal=False)),
            torch.zeros(3, semantic, dtype=torch.long),
            torch.zeros(3, geometric, dtype=torch.long),
        )
