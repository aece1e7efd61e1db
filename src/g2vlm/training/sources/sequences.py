"""Samples as sequences: the prompts of inference, in batches, with many questions after the same photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
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
from g2vlm.training.guidance.pointing import Pointer, PointingTargets, Quote, QuoteTargets
from g2vlm.training.sources.batches import AnswerTargets


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
    pointers: tuple[Pointer, ...] = ()
    """What words of both speak of, where that is known."""
    quotes: tuple[Quote, ...] = ()
    """Words of the answer that repeat words before them, where that is known."""


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
    pointers: tuple[tuple[tuple[int, int, Pointer], ...], ...]
    """Of every sample: number of the run, place in it, and where that token should look."""
    quotes: tuple[tuple[tuple[int, int, int, int], ...], ...]
    """Of every sample: number of the run, place in it, and the range of the run to look at."""


@dataclass(frozen=True)
class _Encoded:
    """A question with its answer as tokens."""

    ids: list[int]
    num_before_answer: int
    pointers: list[tuple[int, Pointer]]
    """Tokens that should look somewhere."""
    quotes: list[tuple[int, int, int]]
    """Tokens that should look at a range of tokens before them."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """What the network is fed, and what of it is learned."""

    inputs: ModelInputs
    answers: AnswerTargets | None
    """None where no questions are wanted."""
    pointing: PointingTargets | None
    """None where no question says what it speaks of."""


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
    ) -> "Sequences":
        """Lay out one batch.

        Args:
            views: pictures of every sample.
            opening: the text in front.
            view_attention: whether views see all views or only earlier ones.
            dialogues: questions of every sample; each question sees the photos and itself alone, so that one
                pass over the photos serves them all. Samples may have none, even all of them; without
                dialogues, nothing is learned about answers.
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
        answers = pointing = None
        if any(dialogues):
            branches = self._branches(dialogues)
            first = layout.semantic_positions.shape[-1]
            layout = _with_branches(layout, branches, builder.position)
            token_ids = torch.cat([token_ids, *branches.runs], dim=1)
            slots = torch.cat([slots, torch.arange(first, layout.semantic_positions.shape[-1])])
            answers = _targets(branches, first)
            pointing = _pointing(branches, first, slots, layout.geometric_positions.shape[-1])
        elif dialogues:
            answers = _no_answers(batch, layout.semantic_positions.shape[-1] - 1)
        photographs = Photographs(views.images) if views.has_geometric else None
        return Sequences(ModelInputs(layout, token_ids, slots, photographs, patches), answers, pointing)

    def _branches(self, dialogues: Sequence[Sequence[QuestionAnswer]]) -> _Branches:
        encoded = [
            sorted((self._encode(pair) for pair in dialogue), key=lambda pair: -len(pair.ids))
            for dialogue in dialogues
        ]
        most = max(len(dialogue) for dialogue in encoded)
        before, complete = torch.zeros(2, len(encoded), most, dtype=torch.long)
        runs = []
        for j in range(most):
            length = max(len(dialogue[j].ids) for dialogue in encoded if len(dialogue) > j)
            run = torch.full((len(encoded), length), self.padding)
            for i, dialogue in enumerate(encoded):
                if len(dialogue) > j:
                    ids = dialogue[j].ids
                    run[i, : len(ids)] = torch.tensor(ids)
                    before[i, j], complete[i, j] = dialogue[j].num_before_answer, len(ids)
            runs.append(run)
        pointers = tuple(
            tuple((j, place, pointer) for j, run in enumerate(dialogue) for place, pointer in run.pointers)
            for dialogue in encoded
        )
        quotes = tuple(
            tuple((j, *quote) for j, run in enumerate(dialogue) for quote in run.quotes)
            for dialogue in encoded
        )
        return _Branches(tuple(runs), before, complete, pointers, quotes)

    def _encode(self, pair: QuestionAnswer) -> "_Encoded":
        """Question and answer as inference splits them; markup of the chat template in them is plain text."""
        plain, encode = self.tokenizer.encode_plain, self.tokenizer.encode
        question = plain(pair.question) + encode(words.QUESTION_END) + encode(words.ANSWER_START)
        ids = [*question, *plain(pair.answer), self.tokenizer.token_id(words.TURN_END)]
        looks: list[tuple[int, Pointer]] = []
        quotes: list[tuple[int, int, int]] = []
        if pair.pointers or pair.quotes:
            spans = [self.tokenizer.plain_spans(text) for text in (pair.question, pair.answer)]
            for pointer in pair.pointers:
                start = len(question) if pointer.in_answer else 0
                within = _tokens_within(spans[pointer.in_answer], pointer.start, pointer.end)
                looks += [(start + k, pointer) for k in within]
            for quote in pair.quotes:
                start = len(question) if quote.in_answer else 0
                source = [start + k for k in _tokens_within(spans[quote.in_answer], *quote.source)]
                # A word is chosen by the token before it.
                quotes += [
                    (len(question) + k - 1, source[0], source[-1] + 1)
                    for k in _tokens_within(spans[1], quote.start, quote.end)
                ]
        return _Encoded(ids, len(question), looks, quotes)


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


def _no_answers(batch: int, last: int) -> AnswerTargets:
    """What is learned where questions were wanted and no sample gave rise to any: nothing, from one logit.

    Processes that share weights must run the same layers, the language head too.
    """
    tokens = torch.zeros(batch, 1, dtype=torch.long)
    return AnswerTargets(torch.tensor([last]), tokens, torch.zeros(batch, 1, dtype=torch.bool))


def _tokens_within(spans: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Tokens that share a character with a range."""
    return [k for k, (begin, stop) in enumerate(spans) if begin < end and stop > start]


def _quotes(branches: _Branches, starts: Sequence[int]) -> QuoteTargets:
    """At which words of their questions tokens should look; `starts` are the places of the questions."""
    most = max(len(quotes) for quotes in branches.quotes)
    slots, question = np.zeros((2, len(branches.quotes), most), dtype=np.int64)
    source = np.zeros((len(branches.quotes), most, 2), dtype=np.int64)
    for i, quotes in enumerate(branches.quotes):
        for k, (j, place, begin, end) in enumerate(quotes):
            slots[i, k], question[i, k] = starts[j] + place, starts[j]
            source[i, k] = starts[j] + begin, starts[j] + end
    return QuoteTargets(*(torch.from_numpy(array) for array in (slots, question, source)))


def _pointing(
    branches: _Branches, first: int, text_slots: Tensor, num_geometric: int
) -> PointingTargets | None:
    """Where tokens of the questions should look.

    `first` is the place of the first question, `num_geometric` the number of geometric tokens in front of it.
    """
    most = max(len(looks) for looks in branches.pointers)
    if not most and not any(branches.quotes):
        return None
    is_image = torch.ones(first, dtype=torch.bool)
    is_image[text_slots[text_slots < first]] = False
    for looks in branches.pointers:
        # Without geometric images in the batch, nobody asks for these.
        num_geometric = len(looks[0][2].geometric) if looks else num_geometric
    batch, starts = len(branches.pointers), [first]
    for run in branches.runs:
        starts.append(starts[-1] + run.shape[1])
    slots = np.zeros((batch, most), dtype=np.int64)
    geometric = np.zeros((batch, most, num_geometric), dtype=bool)
    semantic = np.zeros((batch, most, int(is_image.sum())), dtype=bool)
    for i, looks in enumerate(branches.pointers):
        for k, (j, place, pointer) in enumerate(looks):
            slots[i, k] = starts[j] + place
            geometric[i, k], semantic[i, k] = pointer.geometric, pointer.semantic
    return PointingTargets(
        torch.from_numpy(slots),
        torch.from_numpy(geometric),
        torch.from_numpy(semantic),
        is_image.nonzero()[:, 0],
        first,
        _quotes(branches, starts),
    )
