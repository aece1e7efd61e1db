"""What a perception will cost, before it is spent."""

from dataclasses import dataclass

import torch

from g2vlm.errors import InputError
from g2vlm.inputs.semantic import SemanticPreparation, processed_size
from g2vlm.model.cache import CacheShape
from g2vlm.model.config import G2VLMConfig

FRAME_TOKENS = 2
"""Start and end token of an image."""


@dataclass(frozen=True)
class CachePlan:
    """Size of the memory that answers questions about some views."""

    num_views: int
    num_photo_tokens: int
    """Tokens of all images with their start and end tokens, and of the text before them."""
    num_tokens: int
    """The same with a question and its answer."""
    num_bytes: int
    """Keys and values of all those tokens in all layers."""

    def __str__(self) -> str:
        return f"{self.num_views} views, {self.num_tokens} tokens, {self.num_bytes / 1e6:.0f} MB of memory"


def plan_memory(
    config: G2VLMConfig,
    preparation: SemanticPreparation,
    image_size: tuple[int, int, int],
    num_text_tokens: tuple[int, int],
    dtype: torch.dtype,
) -> CachePlan:
    """Count the tokens and bytes of a perception.

    Args:
        config: the network.
        preparation: how semantic images are cut.
        image_size: views, and height and width of the geometric images in pixels.
        num_text_tokens: before the images, and of a question and its answer.
        dtype: type of keys and values.
    """
    views, height, width = image_size
    patch = config.geometric_encoder.patch_size
    geometric = (height // patch) * (width // patch)
    rows, columns = processed_size(preparation.side, preparation.side, preparation)
    semantic = rows * columns // (preparation.patch * preparation.merge) ** 2
    before, asked = num_text_tokens
    photos = views * (geometric + semantic + 2 * FRAME_TOKENS) + before
    num_bytes = CacheShape.of(config.mixture).num_bytes(photos + asked, dtype)
    return CachePlan(views, photos, photos + asked, num_bytes)


def require_memory(plan: CachePlan, limit: int | None) -> None:
    """Refuse a plan that exceeds a limit in bytes.

    Raises:
        InputError: it does.
    """
    if limit is not None and plan.num_bytes > limit:
        per_view = plan.num_bytes // plan.num_views
        raise InputError(
            f"Expected a memory of at most {limit / 1e6:.0f} MB, but this needs {plan}: use at most "
            f"{limit // per_view} views (max_views), or allow more."
        )
