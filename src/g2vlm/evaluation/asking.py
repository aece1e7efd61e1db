"""Putting questions to a model, with all of its sight or with parts of it taken away."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from PIL import Image

from g2vlm.checkpoints.loading import CHAT_PARTS
from g2vlm.inference.decoding import Decoder
from g2vlm.inference.generation import Continuation, Generator
from g2vlm.inference.prompts import Prompt, PromptBuilder, layout_of, text_of
from g2vlm.inference.sampling import Sampling
from g2vlm.inference.timing import Stopwatch
from g2vlm.inputs import spans as words
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import SemanticImages, SemanticPreparation, prepare_semantic
from g2vlm.inputs.spans import SpanBuilder
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.layout import Layout
from g2vlm.model.network import ModelInputs, SemanticPatches, Wants
from g2vlm.pipeline import Model

GREY = (128, 128, 128)
"""Colour of the pictures that show nothing."""
PREPARATION_FILE = "preprocessor_config.json"


class Sight(Enum):
    """What the model is shown with a question."""

    FULL = "full"
    """The photos, through both encoders: the normal way."""
    NO_GEOMETRY = "no_geometry"
    """The photos through the semantic encoder only: the geometric expert's tokens are left out."""
    GREY = "grey"
    """The normal way, but every photo is replaced by plain grey: blind, with the prompt it was trained on."""
    TEXT_ONLY = "text_only"
    """The photos are left out: blind, with a shorter prompt than it was trained on."""


BLIND = (Sight.GREY, Sight.TEXT_ONLY)
"""Sights that see nothing."""


@dataclass(frozen=True)
class Examiner:
    """Asks one model."""

    model: Model
    max_new_tokens: int
    """Limit on the passes of an answer."""

    def ask(self, photos: Sequence[Image.Image], questions: Sequence[str], sight: Sight) -> tuple[str, ...]:
        """Answers of the model, greedy, each question by itself.

        Args:
            photos: the views the questions are about, in their order.
            questions: whole texts, with choices and markers named.
            sight: what is shown.
        """
        if sight in (Sight.FULL, Sight.GREY):
            shown = list(photos) if sight is Sight.FULL else [_grey(photo) for photo in photos]
            perception = self.model.perceive(shown)
            answers = perception.ask_many(questions, max_new_tokens=self.max_new_tokens)
            return tuple(answer.text for answer in answers)
        return self._ask_without_geometry(list(photos) if sight is Sight.NO_GEOMETRY else [], questions)

    @torch.inference_mode()
    def _ask_without_geometry(self, photos: list[Image.Image], questions: Sequence[str]) -> tuple[str, ...]:
        model, placement = self.model, self.model.placement
        model.load_parts(CHAT_PARTS)
        prompts = PromptBuilder(model.tokenizer, model.config, placement.device)
        beginning = self._beginning(photos, prompts)
        rows = [prompts.question_ids(question) for question in questions]
        prompt, padding = prompts.texts(rows, beginning.next_position)
        tokens = beginning.inputs.layout.num_tokens + prompt.inputs.layout.num_tokens + self.max_new_tokens
        cache = KeyValueCache(
            CacheShape.of(model.config.mixture),
            tokens,
            dtype=placement.precision.dtype,
            device=placement.device,
            growing=True,
        )
        model.network(beginning.inputs, Wants(), cache)
        branch = cache.branch(len(rows), prompt.inputs.layout.num_tokens + self.max_new_tokens, padding)
        positions = torch.tensor([beginning.next_position + len(row) for row in rows])
        return self._write(prompts, Continuation(prompt, branch, positions), len(rows))

    def _write(self, prompts: PromptBuilder, start: Continuation, count: int) -> tuple[str, ...]:
        tokens: list[list[int]] = [[] for _ in range(count)]
        generator = Generator(Decoder(self.model.network), Sampling(), prompts.end_token)
        watch = Stopwatch(self.model.placement.device, exact=False)
        for look in generator.run(start, self.max_new_tokens, watch):
            for choices in look:
                for row, token in zip(tokens, choices, strict=True):
                    if not row or row[-1] != prompts.end_token:
                        row.append(token)
        # As in `Perception`: the last choice is the end token, or at the limit no part of the answer.
        return tuple(self.model.tokenizer.decode(row[:-1]) for row in tokens)

    def _beginning(self, photos: list[Image.Image], prompts: PromptBuilder) -> Prompt:
        """The chat prompt up to the question, without its geometric images."""
        builder = SpanBuilder(prompts.frame)
        builder.text(prompts.tokenizer.encode(words.SYSTEM_PROMPT))
        patches = self._semantic(photos) if photos else None
        if patches is not None:
            merge = self.model.config.semantic_encoder.merge_size
            builder.semantic_views(len(photos), patches.rows // merge, patches.cols // merge)
        layout, (ids, slots), to = layout_of(builder.spans), text_of(builder.spans), prompts.device
        inputs = ModelInputs(
            Layout(layout.blocks, layout.semantic_positions.to(to), layout.geometric_positions.to(to)),
            ids[None].to(to),
            slots.to(to),
            patches=None
            if patches is None
            else SemanticPatches(patches.patches[None].to(to), patches.rows, patches.cols),
        )
        return Prompt(inputs, builder.position)

    def _semantic(self, photos: list[Image.Image]) -> SemanticImages:
        side = self.model.config.semantic_encoder.image_side
        preparation = SemanticPreparation.from_file(self.model.folder / PREPARATION_FILE, side=side)
        return prepare_semantic(load_photos(photos).photos, preparation)


def _grey(photo: Image.Image) -> Image.Image:
    return Image.new("RGB", photo.size, GREY)
