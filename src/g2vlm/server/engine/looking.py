"""What looking at photos costs, and the look itself."""

import math
from dataclasses import dataclass

from g2vlm.errors import InputError
from g2vlm.inference.perception import Perception
from g2vlm.inputs.geometric import Fit, canvas_size
from g2vlm.inputs.photos import PhotoSet
from g2vlm.model.layers import chunk_factor
from g2vlm.model.network import HEAD_TOKENS_PER_CHUNK, SEMANTIC_VIEWS_PER_CHUNK
from g2vlm.pipeline import Model
from g2vlm.scene.scene import Scene
from g2vlm.server.engine.perceptions import PerceptionKey

SCENE_BYTES_PER_PIXEL = 3 + 12 + 4 + 1
"""Colours, points, confidence and validity of a pixel of a view."""


@dataclass(frozen=True)
class Look:
    """Photos that are to be perceived."""

    key: PerceptionKey
    photos: PhotoSet
    fit: Fit = Fit.STRETCH


@dataclass(frozen=True)
class LookPlan:
    """What a look costs, known before it is spent."""

    num_tokens: int
    """Of photos, with a usual question."""
    num_bytes: int
    """Of the memory and of the scene."""
    num_pieces: int
    """How often it pauses."""


def plan_look(model: Model, photos: PhotoSet) -> LookPlan:
    """Count tokens, bytes and pieces of a look."""
    config, patch = model.config, model.config.geometric_encoder.patch_size
    views = len(photos.photos)
    width, height = canvas_size(photos.photos[0].size, width=config.image_width, patch=patch)
    memory = model.memory_plan(views, height, width)
    num_bytes = memory.num_bytes + views * width * height * SCENE_BYTES_PER_PIXEL
    factor = chunk_factor(model.placement.device)
    head_views = max(1, HEAD_TOKENS_PER_CHUNK * factor // (width // patch * (height // patch)))
    layers = config.geometric_encoder.num_layers + config.mixture.num_layers
    semantic = config.semantic_encoder.num_layers + config.mixture.num_layers
    chunks = math.ceil(views / (SEMANTIC_VIEWS_PER_CHUNK * factor))
    pieces = layers + math.ceil(views / head_views) + chunks * semantic
    return LookPlan(memory.num_tokens, num_bytes, pieces)


def require_room(plan: LookPlan, max_bytes: int, num_views: int) -> None:
    """Refuse photos whose memory no cache of this size could hold.

    Raises:
        InputError: they would take more.
    """
    if plan.num_bytes > max_bytes:
        fitting = max_bytes * num_views // plan.num_bytes
        raise InputError(
            f"Expected photos whose memory fits into {max_bytes / 1e6:.0f} MB, but these {num_views} need "
            f"{plan.num_bytes / 1e6:.0f} MB: send at most {fitting}."
        )


def num_bytes_of(perception: Perception) -> int:
    """Bytes that a perception takes: its memory and its scene."""
    return perception.num_bytes + scene_bytes(perception.scene)


def scene_bytes(scene: Scene) -> int:
    """Bytes of the arrays of a scene."""
    return sum(view.height * view.width for view in scene.views) * SCENE_BYTES_PER_PIXEL
