"""The mixture in the mask of training against the public system."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from g2vlm.checkpoints.loading import load_network
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import Part
from g2vlm.model.layout import Block, Layout, Streams
from g2vlm.model.mixture import Mixture
from g2vlm.model.precision import choose_placement

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def expected(parity_data: Path) -> dict[str, Tensor]:
    return load_file(parity_data / "block_causal.safetensors")


@pytest.fixture(scope="module")
def mixture(small_checkpoint: Path) -> Mixture:
    placement = choose_placement("cpu", "float32")
    return load_network(small_checkpoint, placement, parts=frozenset({Part.MIXTURE})).mixture


def blocks_of(case: dict[str, Tensor]) -> tuple[Block, ...]:
    is_geometric = torch.zeros(len(case["inputs_embeds"]), dtype=torch.bool)
    is_geometric[case["geo_index"]] = True
    blocks = []
    for part, full in zip(
        is_geometric.split(case["split_lens"].tolist()), case["split_is_full"].tolist(), strict=True
    ):
        geometric = int(part.sum())
        blocks.append(Block(len(part) - geometric, geometric, not full))
    return tuple(blocks)


def assert_streams_close(found: Streams, case: dict[str, Tensor]) -> None:
    reference = case["last_hidden_state"]
    for stream, index in ((found.semantic, case["und_index"]), (found.geometric, case["geo_index"])):
        error = float((stream[0] - reference[index]).abs().max() / reference.abs().max())
        assert error <= TOLERANCE


def test_one_pass_in_the_training_mask_equals_the_public_system(
    mixture: Mixture, expected: dict[str, Tensor]
) -> None:
    semantic, geometric = expected["und_index"], expected["geo_index"]
    blocks = blocks_of(expected)
    # The case is only worth something if it holds text runs and several views of both kinds of token.
    assert [block.causal for block in blocks].count(False) >= 2
    assert any(block.causal for block in blocks)
    positions = expected["position_ids"]
    layout = Layout(blocks, positions[:, semantic], positions[:, geometric])
    embedded = expected["inputs_embeds"][None]
    with torch.inference_mode():
        found = mixture(Streams(embedded[:, semantic], embedded[:, geometric]), layout)
    assert_streams_close(found, expected)


def test_streaming_block_by_block_equals_the_public_system(
    mixture: Mixture, expected: dict[str, Tensor]
) -> None:
    """Training's mask is what a growing cache streams: each view is fed alone and never computed again."""
    semantic, geometric = expected["und_index"], expected["geo_index"]
    positions, embedded = expected["position_ids"], expected["inputs_embeds"][None]
    blocks = blocks_of(expected)
    cache = KeyValueCache(CacheShape.of(mixture.config), 1, growing=True)
    pieces: list[Streams] = []
    whole = Layout(blocks, positions[:, semantic], positions[:, geometric])
    with torch.inference_mode():
        for place in whole.placements():
            s, g = semantic[place.semantic], geometric[place.geometric]
            layout = Layout((place.block,), positions[:, s], positions[:, g])
            pieces.append(mixture(Streams(embedded[:, s], embedded[:, g]), layout, cache))
    assert cache.length == len(expected["inputs_embeds"])
    found = Streams(
        torch.cat([piece.semantic for piece in pieces], dim=1),
        torch.cat([piece.geometric for piece in pieces], dim=1),
    )
    assert_streams_close(found, expected)


def test_hiding_a_view_or_showing_a_later_one_would_be_noticed(
    mixture: Mixture, expected: dict[str, Tensor]
) -> None:
    """The case distinguishes masks: joining two blocks into one moves the result far beyond the tolerance."""
    semantic, geometric = expected["und_index"], expected["geo_index"]
    positions, embedded = expected["position_ids"], expected["inputs_embeds"][None]
    blocks = list(blocks_of(expected))
    first, second = [i for i, block in enumerate(blocks) if block.num_geometric][:2]
    assert second == first + 1
    joined = Block(
        blocks[first].num_semantic + blocks[second].num_semantic,
        blocks[first].num_geometric + blocks[second].num_geometric,
        causal=False,
    )
    layout = Layout(
        (*blocks[:first], joined, *blocks[second + 1 :]), positions[:, semantic], positions[:, geometric]
    )
    with torch.inference_mode():
        found = mixture(Streams(embedded[:, semantic], embedded[:, geometric]), layout)
    reference = expected["last_hidden_state"]
    error = (found.geometric[0] - reference[geometric]).abs().max() / reference.abs().max()
    assert error > 50 * TOLERANCE
