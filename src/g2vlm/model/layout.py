"""What the network must know about a token sequence: who computes each token and what it may see.

Tokens are kept in two streams, one per expert, so that each expert works on one contiguous tensor. A `Layout`
says how the streams interleave: a list of blocks, each taking the next tokens of both streams. A block sees
everything in earlier blocks; inside, it is causal (a text run) or bidirectional (images). Within a
bidirectional block the order of tokens does not matter, which is why its semantic tokens may come first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """The next tokens of each stream that attend together."""

    num_semantic: int
    """Tokens taken from the semantic stream."""
    num_geometric: int
    """Tokens taken from the geometric stream."""
    causal: bool
    """Whether a token sees only itself and what stands before it inside the block."""
    num_hidden: int = 0
    """Tokens directly before this block that it must not see: the other questions that continue the same
    photos when several are trained at once."""

    def __post_init__(self) -> None:
        if self.causal and self.num_geometric:
            raise ValueError("A causal block is a text run and cannot hold geometric tokens.")

    @property
    def num_tokens(self) -> int:
        """Tokens of both streams."""
        return self.num_semantic + self.num_geometric


@dataclass(frozen=True)
class BlockPlacement:
    """Where one block lies in both streams and in the key order."""

    block: Block
    semantic: slice
    """Range in the semantic stream."""
    geometric: slice
    """Range in the geometric stream."""
    end: int
    """Keys up to here are visible (but for hidden ones), counted from the first token of the layout."""

    @property
    def hidden(self) -> slice:
        """Keys that the block must not see, counted from the first token of the layout."""
        start = self.end - self.block.num_tokens
        return slice(start - self.block.num_hidden, start)


@dataclass(frozen=True)
class Layout:
    """Blocks of one sequence (or of a batch of sequences that share them) and the positions of its tokens."""

    blocks: tuple[Block, ...]
    """In the order in which keys are stored."""
    semantic_positions: Int[Tensor, "*batch 3 semantic"]
    """(t, h, w) rotary positions of the semantic stream."""
    geometric_positions: Int[Tensor, "*batch 3 geometric"]
    """(t, h, w) rotary positions of the geometric stream."""

    def __post_init__(self) -> None:
        semantic = sum(block.num_semantic for block in self.blocks)
        geometric = sum(block.num_geometric for block in self.blocks)
        found = (self.semantic_positions.shape[-1], self.geometric_positions.shape[-1])
        if found != (semantic, geometric):
            raise ValueError(
                f"Expected positions for {semantic} semantic and {geometric} geometric tokens, got {found}."
            )

    @property
    def num_tokens(self) -> int:
        """Tokens of both streams."""
        return sum(block.num_tokens for block in self.blocks)

    def placements(self) -> Iterator[BlockPlacement]:
        """Yield the blocks in order with their ranges."""
        semantic = geometric = 0
        for block in self.blocks:
            s_end, g_end = semantic + block.num_semantic, geometric + block.num_geometric
            yield BlockPlacement(block, slice(semantic, s_end), slice(geometric, g_end), s_end + g_end)
            semantic, geometric = s_end, g_end


@dataclass(frozen=True)
class Streams:
    """The tokens of both experts."""

    semantic: Float[Tensor, "batch semantic channels"]
    geometric: Float[Tensor, "batch geometric channels"]
