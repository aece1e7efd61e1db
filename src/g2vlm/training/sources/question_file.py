"""Batches from a user's own question file."""

from collections import defaultdict

import numpy as np
import torch
from PIL import Image

from g2vlm.data.question_file import Conversation, read_question_file
from g2vlm.inputs.geometric import canvas_size, prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import SemanticPreparation, prepare_semantic
from g2vlm.model.config import ViewAttention
from g2vlm.training.recipes.recipe import QuestionFileData, Recipe
from g2vlm.training.sources.batches import TrainingBatch
from g2vlm.training.sources.sequences import Opening, QuestionAnswer, SequenceBuilder, ViewSet

_Shape = tuple[int, int, int]


class QuestionFileSource:
    """Micro-batch k of passes over a question file, for ever; each pass in another order.

    Conversations with as many images of the same shape share a batch, up to the token budget. Every turn of a
    conversation is learned as a question of its own.

    Args:
        recipe: one with a question file.
        builder: lays samples out as sequences.
        preparation: of the semantic images.
    """

    def __init__(self, recipe: Recipe, builder: SequenceBuilder, preparation: SemanticPreparation) -> None:
        assert isinstance(recipe.data, QuestionFileData)
        self.recipe, self.data = recipe, recipe.data
        self.builder, self.preparation = builder, preparation
        self.conversations = read_question_file(self.data.path, self.data.image_folder)
        self._shapes = [self._shape(conversation) for conversation in self.conversations]
        self._batches_per_pass = len(self._order(0))

    def __getitem__(self, index: int) -> TrainingBatch:
        """Read and lay out one micro-batch."""
        turn, place = divmod(index, self._batches_per_pass)
        chosen = [self.conversations[i] for i in self._order(turn)[place]]
        rng = np.random.default_rng((self.recipe.seed, index))
        one_block = rng.random() < self.recipe.batching.global_share
        images, semantic = [], []
        for conversation in chosen:
            photos = load_photos(list(conversation.images), max_views=self.data.max_views).photos
            patch = self.builder.config.geometric_encoder.patch_size
            images.append(
                prepare_geometric(photos, width=self.builder.config.image_width, patch=patch).pixels
            )
            semantic.append(prepare_semantic(photos, self.preparation))
        built = self.builder.build(
            ViewSet(torch.stack(images), tuple(semantic)),
            Opening.CHAT,
            ViewAttention.GLOBAL if one_block else ViewAttention.CAUSAL,
            [[QuestionAnswer(turn.question, turn.answer) for turn in c.turns] for c in chosen],
        )
        return TrainingBatch(built.inputs, None, built.answers)

    def _shape(self, conversation: Conversation) -> _Shape:
        """Views, height and width of the geometric images, from the first file's header."""
        with Image.open(conversation.images[0]) as image:
            # EXIF orientations 5 to 8 lie on their side.
            turned = image.getexif().get(0x0112, 1) >= 5
            size = (image.height, image.width) if turned else (image.width, image.height)
        config = self.builder.config
        width, height = canvas_size(size, width=config.image_width, patch=config.geometric_encoder.patch_size)
        return min(len(conversation.images), self.data.max_views), height, width

    def _order(self, turn: int) -> list[list[int]]:
        """Batches of one pass, as indices of conversations."""
        rng = np.random.default_rng((self.recipe.seed, turn, len(self.conversations)))
        buckets: defaultdict[_Shape, list[int]] = defaultdict(list)
        for i in rng.permutation(len(self.conversations)):
            buckets[self._shapes[i]].append(int(i))
        patch = self.builder.config.geometric_encoder.patch_size
        batches = []
        for (views, height, width), members in buckets.items():
            tokens = views * (height // patch) * (width // patch)
            size = max(1, self.recipe.batching.tokens // tokens)
            batches += [members[start : start + size] for start in range(0, len(members), size)]
        return [batches[i] for i in rng.permutation(len(batches))]
