"""Batches of the synthetic world, drawn by a curriculum."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from g2vlm.data.splits import Split
from g2vlm.data.synthetic import ViewShape
from g2vlm.data.world.config import World
from g2vlm.data.world.places import make_place
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.semantic import SemanticPreparation, prepare_semantic, processed_size
from g2vlm.model.config import ViewAttention
from g2vlm.training.losses import GeometryTarget
from g2vlm.training.recipes.recipe import Recipe, SyntheticData
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.sources.augmentation import augmented
from g2vlm.training.sources.batches import GeometryComparison, TrainingBatch
from g2vlm.training.sources.framing import reframed
from g2vlm.training.sources.pictures import Pictures, PictureStore, render_pictures
from g2vlm.training.sources.sequences import Opening, QuestionAnswer, SequenceBuilder, ViewSet
from g2vlm.training.sources.synthetic_questions import Asked, Grids, ask_about

_SIGHT = 1
"""Number of the random stream that leaves geometric images out."""


@dataclass(frozen=True)
class Draw:
    """The choices of one batch."""

    world: World
    seeds: tuple[int, ...]
    views: tuple[int, ...]
    """Which of the rendered views, in order."""
    shape: ViewShape
    """What is rendered."""
    view_attention: ViewAttention
    opening: Opening
    has_geometric: bool
    """Whether the geometric expert takes part."""
    returns: bool
    """Whether the rooms come back, so that keeping their pictures is worth the disk."""


class SyntheticSource:
    """Batch k of a recipe: a function of the recipe, its seed and k.

    Args:
        recipe: one with synthetic data.
        builder: lays samples out as sequences.
        preparation: of the semantic images.
        store: where pictures of rooms that return are kept; None renders them again and again.
        split: which rooms are visited.
    """

    def __init__(
        self,
        recipe: Recipe,
        builder: SequenceBuilder,
        preparation: SemanticPreparation,
        store: Path | None = None,
        split: Split = Split.TRAIN,
    ) -> None:
        assert isinstance(recipe.data, SyntheticData)
        self.recipe, self.data = recipe, recipe.data
        self.builder, self.preparation, self.split = builder, preparation, split
        returning = recipe.data.num_rooms or any(phase.num_rooms for phase in recipe.data.phases)
        self.store = PictureStore(store) if store is not None and returning else None

    def __getitem__(self, index: int) -> TrainingBatch:
        """Render (or read) and lay out one micro-batch."""
        rng = np.random.default_rng((self.recipe.seed, index))
        draw = self.draw(index, rng)
        pictures = reframed(self._pictures(draw), self.data.augmentation.zoom, rng)
        images = augmented(pictures.images, self.data.augmentation, rng)
        views = ViewSet(images)
        dialogues: tuple[tuple[QuestionAnswer, ...], ...] = ()
        if self.recipe.stage.has_language:
            views, dialogues = self._asked(draw, pictures, images, rng)
        built = self.builder.build(views, draw.opening, draw.view_attention, dialogues)
        geometry = None
        if self.recipe.stage.has_geometry and draw.has_geometric:
            geometry = GeometryTarget(pictures.points_world, pictures.valid, pictures.T_world_camera)
        phase = self.data.phase_at(index // self.recipe.batching.accumulate)
        comparison = GeometryComparison(phase.weights, phase.stride)
        return TrainingBatch(built.inputs, geometry, built.answers, built.pointing, comparison)

    def _asked(
        self, draw: Draw, pictures: Pictures, images: Tensor, rng: np.random.Generator
    ) -> tuple[ViewSet, tuple[tuple[QuestionAnswer, ...], ...]]:
        """Markers on the pictures, semantic images and questions."""
        config = draw.world.config
        rooms = [make_place(seed, config) for seed in draw.seeds]
        data = self.data
        asked = Asked(data.questions_per_sample, data.reasoning_share, data.everyday_share, data.free_share)
        grids = self._grids(draw.shape) if self.recipe.pointing is not None else None
        result = ask_about(pictures, images, rooms, asked, rng, grids)
        semantic = tuple(prepare_semantic(_photos(sample), self.preparation) for sample in result.marked)
        # People hand over one set of photos: the geometric images mostly carry the markers too.
        seen = result.marked if rng.random() < self.data.marked_geometry else images
        return ViewSet(seen, semantic, draw.has_geometric), result.dialogues

    def _grids(self, shape: ViewShape) -> Grids:
        """How both experts cut a picture into tokens."""
        patch, preparation = self.builder.config.geometric_encoder.patch_size, self.preparation
        height, width = processed_size(preparation.side, preparation.side, preparation)
        token = preparation.patch * preparation.merge
        return Grids((shape.height // patch, shape.width // patch), (height // token, width // token))

    def draw(self, index: int, rng: np.random.Generator) -> Draw:
        """The choices of batch `index`."""
        recipe, data = self.recipe, self.data
        phase = data.phase_at(index // recipe.batching.accumulate)
        views = int(rng.choice(phase.views))
        patch = self.builder.config.geometric_encoder.patch_size
        width = int(rng.choice(phase.widths or data.widths))
        height = max(1, round(width * float(rng.choice(phase.aspects or data.aspects)) / patch)) * patch
        tokens = phase.tokens or recipe.batching.tokens
        size = max(1, tokens // (views * (height // patch) * (width // patch)))
        num_rooms = phase.num_rooms or data.num_rooms
        rendered = views if num_rooms is None else max(views, data.rendered_views)
        one_block = rng.random() < recipe.batching.global_share
        opening = Opening.CHAT
        if recipe.stage.has_language and rng.random() < data.request_share:
            opening = Opening.CHAT_WITH_REQUEST
        if recipe.stage is Stage.GEOMETRY and rng.random() >= data.language_prompts:
            opening = Opening.RECONSTRUCTION
        return Draw(
            phase.worlds[int(rng.integers(len(phase.worlds)))],
            self._seeds(size, num_rooms, rng),
            tuple(map(int, rng.permutation(rendered)[:views])),
            ViewShape(rendered, height, width),
            ViewAttention.GLOBAL if one_block else ViewAttention.CAUSAL,
            opening,
            self._has_geometric(index // recipe.batching.accumulate),
            num_rooms is not None,
        )

    def _has_geometric(self, step: int) -> bool:
        """The same for all micro-batches of a step: processes that share weights must run the same layers."""
        share = self.data.semantic_only_share
        if not share or not self.recipe.stage.has_language:
            return True
        return bool(np.random.default_rng((self.recipe.seed, _SIGHT, step)).random() >= share)

    def _seeds(self, size: int, num_rooms: int | None, rng: np.random.Generator) -> tuple[int, ...]:
        first, end = self.split.value
        if num_rooms is not None:
            end = first + num_rooms
        return tuple(map(int, rng.integers(first, end, size=size)))

    def _pictures(self, draw: Draw) -> Pictures:
        load = self.store.load if self.store is not None and draw.returns else render_pictures
        return load(draw.world, draw.seeds, draw.shape).views(draw.views)


def _photos(images: Tensor) -> list[Photo]:
    """Pictures of one sample, (views, 3, height, width) in [0, 1], as photos."""
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return [Photo(Image.fromarray(view), f"view {i}") for i, view in enumerate(pixels)]
