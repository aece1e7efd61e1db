"""Samples as sequences: the prompts of inference, in batches, with many questions after the same photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.checkpoints.random import SPECIAL_TOKENS
from g2vlm.inference.prompts import layout_of, text_of
from g2vlm.inputs import spans as words
from g2vlm.inputs.semantic import SemanticImages
from g2vlm.inputs.spans import ImageTokens, SpanBuilder
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.config import G2VLMConfig, ViewAttention
from g2vlm.model.layout import Block, Layout
from g2vlm.model.network import ModelInputs, Photographs, SemanticPatches
from g2vlm.training.batches import AnswerTargets


class Opening(Enum):
    """The text in front of the geometric images."""

    RECONSTRUCTION = "reconstruction"
    """What `reconstruct` puts there."""
    CHAT = "chat"
    """What `perceive` puts there."""
    CHAT_WITH_REQUEST = "chat_with_request"
    """The chat opening and the request to reconstruct: the released second stage."""


@dataclass(frozen=True)
class QuestionAnswer:
    """One question about the views of a sample, and the answer to learn."""

    question: str
    answer: str


@dataclass(frozen=True)
class ViewSet:
    """The pictures of a batch."""

    images: Float[Tensor, "batch views 3 height width"]
    """RGB in [0, 1]."""
    semantic: tuple[SemanticImages, ...] | None = None
    """One for each sample; None where no question is asked."""
    has_geometric: bool = True
    """Whether the geometric expert reads them too."""


@dataclass(frozen=True)
class _Branches:
    """Questions with answers as padded token runs, as many in every sample."""

    runs: tuple[Int[Tensor, "batch _"], ...]
    """One for each question, from the longest question of every sample to its shortest: little is padded."""
    num_before_answer: Int[Tensor, "batch questions"]
    num_all: Int[Tensor, "batch questions"]


class SequenceBuilder:
    """Builds the inputs of training batches for one tokenizer and network."""

    def __init__(self, tokenizer: TextTokenizer, config: G2VLMConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.frame = ImageTokens(tokenizer.token_id(words.IMAGE_START), tokenizer.token_id(words.IMAGE_END))
        self.padding = tokenizer.token_id(SPECIAL_TOKENS[0])

    def build(
        self,
        views: ViewSet,
        opening: Opening,
        view_attention: ViewAttention,
        dialogues: Sequence[Sequence[QuestionAnswer]] = (),
    ) -> tuple[ModelInputs, AnswerTargets | None]:
        """Lay out one batch.

        Args:
            views: pictures of every sample.
            opening: the text in front.
            view_attention: whether views see all views or only earlier ones.
            dialogues: questions of every sample; each question sees the photos and itself alone, so that one
                pass over the photos serves them all.

        Returns:
            The inputs, and what the language loss compares (None without questions).
        """
        batch, num_views, _, height, width = views.images.shape
        builder = SpanBuilder(self.frame).text(self.tokenizer.encode(_OPENINGS[opening]))
        patch = self.config.geometric_encoder.patch_size
        one_block = view_attention is ViewAttention.GLOBAL
        if views.has_geometric:
            builder.geometric_views(num_views, height // patch, width // patch, one_block=one_block)
        patches = None
        if views.semantic is not None:
            patches = _stacked(views.semantic)
            merge = self.config.semantic_encoder.merge_size
            builder.semantic_views(num_views, patches.rows // merge, patches.columns // merge)
        layout = layout_of(builder.spans)
        ids, slots = text_of(builder.spans)
        token_ids = ids.expand(batch, -1)
        answers = None
        if dialogues:
            branches = self._branches(dialogues)
            first = layout.semantic_positions.shape[-1]
            layout = _with_branches(layout, branches, builder.position)
            token_ids = torch.cat([token_ids, *branches.runs], dim=1)
            slots = torch.cat([slots, torch.arange(first, layout.semantic_positions.shape[-1])])
            answers = _targets(branches, first)
        photographs = Photographs(views.images) if views.has_geometric else None
        return ModelInputs(layout, token_ids, slots, photographs, patches), answers

    def _branches(self, dialogues: Sequence[Sequence[QuestionAnswer]]) -> _Branches:
        encoded = [
            sorted((self._encode(pair) for pair in dialogue), key=lambda pair: -len(pair[0]))
            for dialogue in dialogues
        ]
        most = max(len(dialogue) for dialogue in encoded)
        before, complete = torch.zeros(2, len(encoded), most, dtype=torch.long)
        runs = []
        for j in range(most):
            length = max(len(dialogue[j][0]) for dialogue in encoded if len(dialogue) > j)
            run = torch.full((len(encoded), length), self.padding)
            for i, dialogue in enumerate(encoded):
                if len(dialogue) > j:
                    ids, start = dialogue[j]
                    run[i, : len(ids)] = torch.tensor(ids)
                    before[i, j], complete[i, j] = start, len(ids)
            runs.append(run)
        return _Branches(tuple(runs), before, complete)

    def _encode(self, pair: QuestionAnswer) -> tuple[list[int], int]:
        """Tokens of question and answer as inference splits them, and how many stand before the answer."""
        encode = self.tokenizer.encode
        question = encode(pair.question + words.QUESTION_END) + encode(words.ANSWER_START)
        return [*question, *encode(pair.answer), self.tokenizer.token_id(words.TURN_END)], len(question)


_OPENINGS = {
    Opening.RECONSTRUCTION: words.TURN_START + words.RECONSTRUCTION_REQUEST,
    Opening.CHAT: words.SYSTEM_PROMPT,
    Opening.CHAT_WITH_REQUEST: words.SYSTEM_PROMPT + words.RECONSTRUCTION_REQUEST,
}


def _stacked(images: tuple[SemanticImages, ...]) -> SemanticPatches:
    return SemanticPatches(torch.stack([sample.patches for sample in images]), images[0].rows, images[0].cols)


def _with_branches(layout: Layout, branches: _Branches, position: int) -> Layout:
    """Append one causal block for each question, each hiding those before it."""
    blocks, positions, hidden = list(layout.blocks), [layout.semantic_positions], 0
    for run in branches.runs:
        length = run.shape[1]
        blocks.append(Block(length, 0, causal=True, num_hidden=hidden))
        positions.append(torch.arange(position, position + length).expand(3, -1))
        hidden += length
    return Layout(tuple(blocks), torch.cat(positions, dim=1), layout.geometric_positions)


def _targets(branches: _Branches, first: int) -> AnswerTargets:
    """Every position but the last of a branch predicts the token after it."""
    slots, tokens, is_answer = [], [], []
    for j, run in enumerate(branches.runs):
        place = torch.arange(run.shape[1] - 1)
        follows = place + 1
        wanted = follows >= branches.num_before_answer[:, j, None]
        is_answer.append(wanted & (follows < branches.num_all[:, j, None]))
        slots.append(first + place)
        tokens.append(run[:, 1:])
        first += run.shape[1]
    chosen = torch.cat(is_answer, dim=1)
    # Only places that predict an answer token somewhere in the batch need logits.
    needed = chosen.any(dim=0)
    return AnswerTargets(torch.cat(slots)[needed], torch.cat(tokens, dim=1)[:, needed], chosen[:, needed])
