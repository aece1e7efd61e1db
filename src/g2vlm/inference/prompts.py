"""Prompts of the released model, turned into the inputs of one pass of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from g2vlm.inputs import spans as words
from g2vlm.inputs.semantic import SemanticImages
from g2vlm.inputs.spans import AttentionRule, Expert, ImageTokens, Span, SpanBuilder
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.config import G2VLMConfig, ViewAttention
from g2vlm.model.layout import Block, Layout
from g2vlm.model.network import ModelInputs, Photographs, SemanticPatches

NEXT_TURN = f"\n{words.TURN_START}user\n"
"""What opens a further question after an answer, as in the system prompt."""


class Reasoning(Enum):
    """Whether an answer should say what was measured before it concludes."""

    AUTO = "auto"
    """As the model decides: the question stays as it is."""
    ON = "on"
    """Asked for."""
    OFF = "off"
    """Only the answer is wanted."""

    def asked(self, question: str) -> str:
        """The question with this wish, in words that the bundled models were trained with."""
        return question + {"auto": "", "on": " Think step by step.", "off": " Just the answer."}[self.value]


@dataclass(frozen=True)
class Prompt:
    """The inputs of one pass and the first position after it."""

    inputs: ModelInputs
    next_position: int


def layout_of(spans: Sequence[Span]) -> Layout:
    """Group spans into attention blocks and split their positions by expert."""
    blocks: list[Block] = []
    for number in dict.fromkeys(span.block for span in spans):
        members = [span for span in spans if span.block == number]
        count = {
            expert: sum(span.num_tokens for span in members if span.expert is expert) for expert in Expert
        }
        causal = any(span.rule is AttentionRule.CAUSAL for span in members)
        blocks.append(Block(count[Expert.SEMANTIC], count[Expert.GEOMETRIC], causal))
    return Layout(tuple(blocks), _positions(spans, Expert.SEMANTIC), _positions(spans, Expert.GEOMETRIC))


def _positions(spans: Sequence[Span], expert: Expert) -> torch.Tensor:
    own = [span.positions for span in spans if span.expert is expert]
    return torch.cat(own, dim=1) if own else torch.empty(3, 0, dtype=torch.long)


def text_of(spans: Sequence[Span]) -> tuple[torch.Tensor, torch.Tensor]:
    """Text ids in order, shape (text,), and their slots in the semantic stream, shape (text,)."""
    ids: list[int] = []
    slots: list[torch.Tensor] = []
    start = 0
    for span in spans:
        if span.expert is Expert.GEOMETRIC:
            continue
        if span.token_ids is not None:
            ids.extend(span.token_ids)
            slots.append(torch.arange(start, start + span.num_tokens))
        start += span.num_tokens
    return torch.tensor(ids, dtype=torch.long), torch.cat(slots)


class PromptBuilder:
    """Builds the prompts of reconstruction and chat for one tokenizer, network and device."""

    def __init__(self, tokenizer: TextTokenizer, config: G2VLMConfig, device: torch.device) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.device = device
        self.frame = ImageTokens(tokenizer.token_id(words.IMAGE_START), tokenizer.token_id(words.IMAGE_END))
        self.end_token = tokenizer.token_id(words.TURN_END)

    def reconstruction(self, images: torch.Tensor, view_attention: ViewAttention) -> Prompt:
        """The released reconstruction prompt: a request, then all geometric images.

        Args:
            images: RGB in [0, 1], shape (views, 3, height, width).
            view_attention: whether views see all views or only earlier ones.
        """
        builder = SpanBuilder(self.frame)
        builder.text(self._encode(words.TURN_START + words.RECONSTRUCTION_REQUEST))
        self._add_geometric(builder, images, view_attention)
        return self._prompt(builder, images, None)

    def reconstruction_request(self) -> Prompt:
        """The released reconstruction prompt up to the images, which follow one by one."""
        ids = self._encode(words.TURN_START + words.RECONSTRUCTION_REQUEST)
        return self._prompt(SpanBuilder(self.frame).text(ids), None, None)

    def next_view(self, image: torch.Tensor, position: int) -> Prompt:
        """One more geometric image, a block of its own.

        Args:
            image: RGB in [0, 1], shape (1, 3, height, width).
            position: the first free one.
        """
        builder = SpanBuilder(self.frame, position)
        self._add_geometric(builder, image, ViewAttention.CAUSAL)
        return self._prompt(builder, image, None)

    def chat_beginning(
        self, images: torch.Tensor, patches: SemanticImages, view_attention: ViewAttention
    ) -> Prompt:
        """The released chat prompt up to the question: system text, geometric images, semantic images."""
        builder = SpanBuilder(self.frame)
        builder.text(self._encode(words.SYSTEM_PROMPT))
        self._add_geometric(builder, images, view_attention)
        merge = self.config.semantic_encoder.merge_size
        builder.semantic_views(patches.patches.shape[0], patches.rows // merge, patches.cols // merge)
        return self._prompt(builder, images, patches)

    def chat_photos(self, images: torch.Tensor, view_attention: ViewAttention) -> Prompt:
        """The beginning of `chat_beginning`, up to the semantic images, which `semantic_views` continue."""
        builder = SpanBuilder(self.frame).text(self._encode(words.SYSTEM_PROMPT))
        self._add_geometric(builder, images, view_attention)
        return self._prompt(builder, images, None)

    def semantic_views(self, patches: SemanticImages, position: int) -> Prompt:
        """More semantic images from a position, each a block of its own."""
        builder = SpanBuilder(self.frame, position)
        merge = self.config.semantic_encoder.merge_size
        builder.semantic_views(patches.patches.shape[0], patches.rows // merge, patches.cols // merge)
        return self._prompt(builder, None, patches)

    def question_ids(self, question: str, *, follows_answer: bool = False) -> list[int]:
        """Tokens of a question up to the one that the answer continues from.

        Args:
            question: in natural language; special tokens written in it are plain text, and end no turn.
            follows_answer: whether an answer stands before it in memory, which must be closed first.

        Raises:
            InputError: the question holds half a character.
        """
        before = self._encode(words.TURN_END + NEXT_TURN) if follows_answer else []
        asked = self.tokenizer.encode_plain(question) + self._encode(words.QUESTION_END)
        return before + asked + self._encode(words.ANSWER_START)

    def answer_ids(self, answer: str) -> list[int]:
        """Tokens of an answer that was given before; special tokens written in it are plain text.

        Raises:
            InputError: the answer holds half a character.
        """
        return self.tokenizer.encode_plain(answer)

    def text(self, token_ids: list[int], position: int) -> Prompt:
        """A causal run of text at a position."""
        return self._prompt(SpanBuilder(self.frame, position).text(token_ids), None, None)

    def texts(self, rows: Sequence[Sequence[int]], positions: Sequence[int]) -> ModelInputs:
        """Several causal runs side by side, padded at their ends to one length.

        Args:
            rows: tokens of each.
            positions: of the first token of each.
        """
        length = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[self.end_token] * (length - len(row))] for row in rows])
        place = torch.tensor(positions)[:, None] + torch.arange(length)
        layout = Layout(
            (Block(length, 0, causal=True),),
            place[:, None].expand(-1, 3, -1).to(self.device),
            torch.empty(len(rows), 3, 0, dtype=torch.long, device=self.device),
        )
        return ModelInputs(layout, ids.to(self.device), torch.arange(length, device=self.device))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def _add_geometric(
        self, builder: SpanBuilder, images: torch.Tensor, view_attention: ViewAttention
    ) -> None:
        patch = self.config.geometric_encoder.patch_size
        views, rows, columns = images.shape[0], images.shape[-2] // patch, images.shape[-1] // patch
        builder.geometric_views(views, rows, columns, one_block=view_attention is ViewAttention.GLOBAL)

    def _prompt(
        self, builder: SpanBuilder, images: torch.Tensor | None, patches: SemanticImages | None
    ) -> Prompt:
        layout = layout_of(builder.spans)
        ids, slots = text_of(builder.spans)
        to = self.device
        inputs = ModelInputs(
            Layout(layout.blocks, layout.semantic_positions.to(to), layout.geometric_positions.to(to)),
            ids[None].to(to),
            slots.to(to),
            None if images is None else Photographs(images[None].to(to)),
            None
            if patches is None
            else SemanticPatches(patches.patches[None].to(to), patches.rows, patches.cols),
        )
        return Prompt(inputs, builder.position)
