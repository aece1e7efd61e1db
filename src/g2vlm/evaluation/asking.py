"""Putting questions to a model, with all of its sight or with parts of it taken away."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from PIL import Image

from g2vlm.checkpoints.loading import CHAT_PARTS
from g2vlm.inference.batch import AnswerBatch, Question
from g2vlm.inference.decoding import Decoder
from g2vlm.inference.prompts import Prompt, PromptBuilder, layout_of, text_of
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
            shown = list(photos) if sight is Sight.FULL else [grey(photo) for photo in photos]
            perception = self.model.perceive(shown)
            answers = perception.ask_many(questions, max_new_tokens=self.max_new_tokens)
            return tuple(answer.text for answer in answers)
        return self._ask_without_geometry(list(photos) if sight is Sight.NO_GEOMETRY else [], questions)

    @torch.inference_mode()
    def _ask_without_geometry(self, photos: list[Image.Image], questions: Sequence[str]) -> tuple[str, ...]:
        model, placement = self.model, self.model.placement
        model.load_parts(CHAT_PARTS)
        prompts = PromptBuilder(model.tokenizer, model.config, placement.device)
        before = self._beginning(photos, prompts)
        cache = KeyValueCache(
            CacheShape.of(model.config.mixture),
            before.inputs.layout.num_tokens,
            dtype=placement.precision.dtype,
            device=placement.device,
        )
        model.network(before.inputs, Wants(), cache)
        beginning, limit = cache.segments(), self.max_new_tokens
        with AnswerBatch(Decoder(model.network), prompts) as batch:
            answers = [
                batch.add(Question(tuple(prompts.question_ids(text)), beginning, before.next_position, limit))
                for text in questions
            ]
            while batch.is_busy:
                batch.step()
        # As in `Perception`: the last choice is the end token, or at the limit no part of the answer.
        return tuple(model.tokenizer.decode(answer.token_ids[:-1]) for answer in answers)

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


def grey(photo: Image.Image) -> Image.Image:
    """A picture of the same size that shows nothing."""
    return Image.new("RGB", photo.size, GREY)
