"""Prompts as spans of tokens: which expert computes them, where they stand, and what they may see.

Layout and positions follow the released model: a text token takes one position on all three axes; an image
block is a start token, patches at (p, p + row, p + column), and an end token, and advances the position by
the larger side of its grid.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Int
from torch import Tensor

SYSTEM_PROMPT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
QUESTION_END = "<|im_end|>\n<|im_start|>assistant"
ANSWER_START = "\n"
RECONSTRUCTION_REQUEST = "Reconstruct the 3D scene."
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
IMAGE_START = "<|vision_start|>"
IMAGE_END = "<|vision_end|>"


class Expert(Enum):
    """Which expert computes a token."""

    SEMANTIC = "semantic"
    GEOMETRIC = "geometric"


class AttentionRule(Enum):
    """What a token sees inside its block; earlier blocks are always visible."""

    CAUSAL = "causal"
    BIDIRECTIONAL = "bidirectional"


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of one kind."""

    expert: Expert
    rule: AttentionRule
    block: int
    """Spans with the same number form one attention block."""
    positions: Int[Tensor, "3 tokens"]
    """(t, h, w) of every token."""
    token_ids: tuple[int, ...] | None
    """Text tokens; None for the tokens of an image."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the span."""
        return self.positions.shape[1]


@dataclass(frozen=True)
class ImageTokens:
    """Ids of the tokens that frame an image."""

    start: int
    end: int


class SpanBuilder:
    """Appends spans while keeping track of the running position.

    Args:
        frame: ids of the image start and end tokens.
        position: first free position, when a prompt continues another.
    """

    def __init__(self, frame: ImageTokens, position: int = 0) -> None:
        self.frame = frame
        self.position = position
        self.spans: list[Span] = []
        self._block = -1

    def text(self, token_ids: list[int]) -> "SpanBuilder":
        """A causal run of text tokens; an empty run adds nothing."""
        if token_ids:
            self._block += 1
            self._add_text(token_ids, AttentionRule.CAUSAL)
        return self

    def geometric_views(self, num_views: int, rows: int, columns: int, *, one_block: bool) -> "SpanBuilder":
        """Geometric images: one block for all views (global) or one for each (causal)."""
        for view in range(num_views):
            if view == 0 or not one_block:
                self._block += 1
            self._add_image(Expert.GEOMETRIC, rows, columns)
        return self

    def semantic_views(self, num_views: int, rows: int, columns: int) -> "SpanBuilder":
        """Semantic images on their merged grid, each its own block."""
        for _ in range(num_views):
            self._block += 1
            self._add_image(Expert.SEMANTIC, rows, columns)
        return self

    def _add_text(self, token_ids: list[int], rule: AttentionRule) -> None:
        run = torch.arange(self.position, self.position + len(token_ids))
        self.spans.append(Span(Expert.SEMANTIC, rule, self._block, run.expand(3, -1), tuple(token_ids)))
        self.position += len(token_ids)

    def _add_image(self, expert: Expert, rows: int, columns: int) -> None:
        self._add_text([self.frame.start], AttentionRule.BIDIRECTIONAL)
        index = torch.arange(rows * columns)
        grid = torch.stack([torch.zeros_like(index), index // columns, index % columns])
        self.spans.append(Span(expert, AttentionRule.BIDIRECTIONAL, self._block, grid + self.position, None))
        self.position += max(rows, columns)
        self._add_text([self.frame.end], AttentionRule.BIDIRECTIONAL)
