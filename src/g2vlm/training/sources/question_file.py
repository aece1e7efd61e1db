"""Batches from a user's own question file."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.data.question_file import Conversation
from g2vlm.errors import G2VLMError
from g2vlm.inputs.geometric import canvas_size, prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import SemanticImages, SemanticPreparation, prepare_semantic
from g2vlm.model.config import G2VLMConfig, ViewAttention
from g2vlm.training.recipes.recipe import QuestionFileData, Recipe
from g2vlm.training.sources.batches import TrainingBatch
from g2vlm.training.sources.question_index import QuestionIndex, Shuffle
from g2vlm.training.sources.sequences import Opening, QuestionAnswer, SequenceBuilder, ViewSet

_TRIES = 10
"""Conversations tried in place of one whose images cannot be read."""


class QuestionFileSource:
    """Micro-batch k of passes over a question file, for ever; each pass in another order.

    Conversations with as many images of the same shape share a batch, up to the token budget. Every turn of a
    conversation is learned as a question of its own.

    Args:
        recipe: one with a question file.
        builder: lays samples out as sequences.
        preparation: of the semantic images.
        index: of the file.
        held_out: visit the part for validation instead of the part that is learned.
    """

    def __init__(
        self,
        recipe: Recipe,
        builder: SequenceBuilder,
        preparation: SemanticPreparation,
        index: QuestionIndex,
        *,
        held_out: bool = False,
    ) -> None:
        assert isinstance(recipe.data, QuestionFileData)
        self.recipe, self.data = recipe, recipe.data
        self.builder, self.preparation, self.index = builder, preparation, index
        self._buckets = [bucket for bucket in index.buckets if bucket.held_out is held_out]
        patch = builder.config.geometric_encoder.patch_size
        tokens = [
            bucket.views * (bucket.height // patch) * (bucket.width // patch) for bucket in self._buckets
        ]
        self._sizes = [max(1, recipe.batching.tokens // count) for count in tokens]
        batches = [-(-b.count // size) for b, size in zip(self._buckets, self._sizes, strict=True)]
        self._ends = np.cumsum(batches, dtype=np.int64)
        self.batches_per_pass = int(self._ends[-1]) if batches else 0

    def __getitem__(self, index: int) -> TrainingBatch:
        """Read and lay out one micro-batch."""
        rng = np.random.default_rng((self.recipe.seed, index))
        one_block = rng.random() < self.recipe.batching.global_share
        read = [self._read(*place) for place in self._members(index)]
        built = self.builder.build(
            ViewSet(torch.stack([images for _, images, _ in read]), tuple(semantic for *_, semantic in read)),
            Opening.CHAT,
            ViewAttention.GLOBAL if one_block else ViewAttention.CAUSAL,
            [[QuestionAnswer(turn.question, turn.answer) for turn in c.turns] for c, *_ in read],
        )
        return TrainingBatch(built.inputs, None, built.answers)

    def _members(self, index: int) -> list[tuple[int, int, Shuffle]]:
        """Of every sample of a batch: its bucket, its place in the order of this pass, and that order."""
        turn, place = divmod(index, self.batches_per_pass)
        batch = Shuffle(self.batches_per_pass, self.recipe.seed, turn)[place]
        number = int(np.searchsorted(self._ends, batch, side="right"))
        bucket, size = self._buckets[number], self._sizes[number]
        first = (batch - int(self._ends[number - 1] if number else 0)) * size
        order = Shuffle(bucket.count, self.recipe.seed, turn, number)
        return [(number, member, order) for member in range(first, min(first + size, bucket.count))]

    def _read(
        self, number: int, member: int, order: Shuffle
    ) -> tuple[Conversation, torch.Tensor, SemanticImages]:
        """A conversation with its images; where they cannot be read, that is told and another is taken."""
        bucket = self._buckets[number]
        for attempt in range(_TRIES):
            conversation = self.index.conversation(bucket.first + order[(member + attempt) % bucket.count])
            try:
                photos = load_photos(list(conversation.images), max_views=self.data.max_views).photos
                patch = self.builder.config.geometric_encoder.patch_size
                images = prepare_geometric(photos, width=self.builder.config.image_width, patch=patch).pixels
                return conversation, images, prepare_semantic(photos, self.preparation)
            except G2VLMError as error:
                if attempt == _TRIES - 1:
                    raise
                print(f"left out {conversation.identifier}: {error}", file=sys.stderr, flush=True)
        raise AssertionError("unreachable")


def shape_of(conversation: Conversation, data: QuestionFileData, config: G2VLMConfig) -> tuple[int, int, int]:
    """Views, height and width of the geometric images, from the first file's header."""
    with Image.open(Path(conversation.images[0])) as image:
        # EXIF orientations 5 to 8 lie on their side.
        turned = image.getexif().get(0x0112, 1) >= 5
        size = (image.height, image.width) if turned else (image.width, image.height)
    width, height = canvas_size(size, width=config.image_width, patch=config.geometric_encoder.patch_size)
    return min(len(conversation.images), data.max_views), height, width
