"""Batches of prepared real frames."""

import hashlib
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from g2vlm.data.shards.choosing import choose_views
from g2vlm.data.shards.framing import FramedView, Framing, framed
from g2vlm.data.shards.reading import PreparedData, SceneIndex
from g2vlm.errors import InputError
from g2vlm.geometry.cameras import unproject
from g2vlm.geometry.poses import transform_points
from g2vlm.model.config import ViewAttention
from g2vlm.training.losses import GeometryTarget
from g2vlm.training.recipes.recipe import Recipe, ShardData
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.sources.augmentation import augmented
from g2vlm.training.sources.batches import GeometryComparison, TrainingBatch
from g2vlm.training.sources.sequences import Opening, SequenceBuilder, ViewSet

_TRIES = 10
"""Scenes tried in place of one whose frames cannot be read."""
_LEAST_KNOWN = 0.02
"""Share of pixels with depth that a sample needs: with less there is nothing to compare with."""


@dataclass(frozen=True)
class _Draw:
    views: int
    size: tuple[int, int]
    samples: int
    stride: int


class ShardSource:
    """Batch k of a prepared data set: a function of the recipe, its seed and k.

    Frames are read by their place in the shards, so that a run that resumes, or has other processes or
    workers, sees the same batches; nothing is buffered.

    Args:
        recipe: one with prepared data.
        builder: lays samples out as sequences.
        data: the frames.
        held_out: visit the scenes for validation instead of those that are learned.

    Raises:
        InputError: no scene has depth and at least two frames.
    """

    def __init__(
        self, recipe: Recipe, builder: SequenceBuilder, data: PreparedData, *, held_out: bool = False
    ) -> None:
        assert isinstance(recipe.data, ShardData)
        self.recipe, self.part, self.builder, self.data = recipe, recipe.data, builder, data
        usable = _with_depth(data)
        if not usable:
            raise InputError(
                f"Expected scenes with depth and at least two frames in {data.place}, found none: poses "
                "alone do not teach geometry."
            )
        learned, kept = split_scenes(usable, self.part.held_out)
        self.scenes = kept if held_out else learned
        self._most = max((len(scene) for scene in self.scenes), default=0)

    def __getitem__(self, index: int) -> TrainingBatch:
        """Read and lay out one micro-batch."""
        recipe, like = self.recipe, self.part.like
        rng = np.random.default_rng((recipe.seed, index, _number(self.part.path)))
        draw = self._draw(index, rng)
        samples = [self._sample(draw, rng) for _ in range(draw.samples)]
        stacked = [
            [torch.from_numpy(np.stack(x)) for x in zip(*map(_arrays, s), strict=True)] for s in samples
        ]
        rgb, depth, valid, K, T = (torch.stack(x) for x in zip(*stacked, strict=True))
        images = augmented(rgb.permute(0, 1, 4, 2, 3).float() / 255, like.augmentation, rng)
        one_block = rng.random() < recipe.batching.global_share
        opening = Opening.CHAT
        if recipe.stage is Stage.GEOMETRY and rng.random() >= like.language_prompts:
            opening = Opening.RECONSTRUCTION
        built = self.builder.build(
            ViewSet(images), opening, ViewAttention.GLOBAL if one_block else ViewAttention.CAUSAL
        )
        phase = like.phase_at(index // recipe.batching.accumulate)
        comparison = GeometryComparison(phase.weights, phase.stride)
        geometry = GeometryTarget(_points(depth, K, T), valid, T)
        return TrainingBatch(built.inputs, geometry, None, None, comparison)

    def _draw(self, index: int, rng: np.random.Generator) -> _Draw:
        """Views, size and number of samples, as the recipe draws them for its rooms."""
        like, batching = self.part.like, self.recipe.batching
        phase = like.phase_at(index // batching.accumulate)
        views = min(int(rng.choice(phase.views)), self._most)
        patch = self.builder.config.geometric_encoder.patch_size
        width = int(rng.choice(phase.widths or like.widths))
        height = max(1, round(width * float(rng.choice(phase.aspects or like.aspects)) / patch)) * patch
        tokens = phase.tokens or batching.tokens
        samples = max(1, tokens // (views * (height // patch) * (width // patch)))
        return _Draw(views, (width, height), samples, phase.stride)

    def _sample(self, draw: _Draw, rng: np.random.Generator) -> list[FramedView]:
        """Views of one scene; where they cannot be read, that is told and another scene is taken."""
        large = [scene for scene in self.scenes if len(scene) >= draw.views]
        for attempt in range(_TRIES):
            scene = large[int(rng.integers(len(large)))]
            chosen = choose_views(self.part.choice, self.data.overlap(scene), draw.views, rng)
            framing = self._framing(rng)
            try:
                views = [framed(self.data[scene.first + k], draw.size, framing) for k in chosen]
            except InputError as error:
                if attempt == _TRIES - 1:
                    raise
                print(f"left out a sample of {scene.name}: {error}", file=sys.stderr, flush=True)
                continue
            if np.mean([view.valid.mean() for view in views]) >= _LEAST_KNOWN:
                return views
        raise InputError(f"Expected depth in {self.data.place}, but {_TRIES} samples had hardly any.")

    def _framing(self, rng: np.random.Generator) -> Framing:
        """The same part of all views of a sample: one camera took them."""
        zoom = float(rng.uniform(1.0, max(1.0, self.part.like.augmentation.zoom)))
        across, down = (float(x) for x in rng.random(2))
        if self.part.like.augmentation.zoom <= 1.0:
            across = down = 0.5
        return Framing(zoom, across, down)


def split_scenes(
    scenes: tuple[SceneIndex, ...], held_out: float
) -> tuple[tuple[SceneIndex, ...], tuple[SceneIndex, ...]]:
    """Scenes that are learned, and those that are held out: by their names, so that new scenes move none.

    A data set with fewer than two scenes holds none out; with more, at least one is held out.
    """
    if len(scenes) < 2 or not held_out:
        return scenes, ()
    order = sorted(scenes, key=lambda scene: _number(scene.name))
    limit = held_out * 2**32
    kept = {scene.name for scene in order if _number(scene.name) < limit} or {order[0].name}
    if len(kept) == len(scenes):
        kept = {order[0].name}
    learned = tuple(scene for scene in scenes if scene.name not in kept)
    return learned, tuple(scene for scene in scenes if scene.name in kept)


def learned_scenes(part: ShardData) -> list[str]:
    """Names of the scenes of prepared data that a run learns from, as evaluations look for them."""
    data = PreparedData(part.path)
    return [scene.name for scene in split_scenes(_with_depth(data), part.held_out)[0]]


def _with_depth(data: PreparedData) -> tuple[SceneIndex, ...]:
    far = data.frames.column("far").to_numpy()
    return tuple(
        scene
        for scene in data.scenes
        if len(scene) >= 2 and (far[scene.first : scene.first + scene.count] > 0).any()
    )


def _number(name: str) -> int:
    """32 bits of a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def _arrays(view: FramedView) -> tuple[np.ndarray, ...]:
    T, K = view.T_world_camera.astype(np.float32), view.K.astype(np.float32)
    return view.rgb, view.depth, view.valid, K, T


def _points(depth: Tensor, K: Tensor, T_world_camera: Tensor) -> Tensor:
    return transform_points(T_world_camera, unproject(depth, K))
