"""Changes of colours and sharpness, which leave the truth about pictures alone."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """How strongly pictures are changed; zero everywhere leaves them alone."""

    brightness: float = 0.2
    """Largest relative change of all views of a sample together."""
    contrast: float = 0.2
    """Largest relative change of the distance to mid-grey."""
    saturation: float = 0.3
    """Largest relative change of the distance to grey."""
    per_view: float = 0.05
    """Largest further relative change of brightness of each view by itself (auto exposure)."""
    noise: float = 0.015
    """Largest standard deviation of added noise."""
    blur_share: float = 0.25
    """Share of samples that are blurred slightly: photos made smaller are smoother than rendered ones."""
    grey_share: float = 0.03
    """Share of samples without colour."""
    zoom: float = 1.0
    """Largest factor by which a part of the pictures is enlarged to the whole frame: longer focal lengths and
    principal points off the middle, the same for all views of a sample. 1 keeps the frame."""


def augmented(
    images: Float[Tensor, "batch views 3 height width"], choices: Augmentation, rng: np.random.Generator
) -> Float[Tensor, "batch views 3 height width"]:
    """Change colours and sharpness at random, the same for all views of a sample but for `per_view`.

    Args:
        images: RGB in [0, 1].
        choices: ranges.
        rng: source of the draws.

    Returns:
        New pictures in [0, 1].
    """
    batch, views = images.shape[:2]

    def factor(limit: float, *shape: int) -> Tensor:
        drawn = 1 + limit * (2 * rng.random(shape, dtype=np.float32) - 1)
        return torch.from_numpy(drawn).to(images.device)[..., None, None, None]

    colour = factor(choices.saturation, batch, 1)
    grey_only = torch.from_numpy(rng.random(batch) < choices.grey_share).to(images.device)
    colour = torch.where(grey_only[:, None, None, None, None], 0.0, colour)
    grey = images.mean(dim=2, keepdim=True)
    images = grey + (images - grey) * colour
    images = 0.5 + (images - 0.5) * factor(choices.contrast, batch, 1)
    images = images * factor(choices.brightness, batch, 1) * factor(choices.per_view, batch, views)
    blurred = torch.from_numpy(np.flatnonzero(rng.random(batch) < choices.blur_share)).to(images.device)
    if len(blurred):
        images = images.index_copy(0, blurred, _blur(images[blurred]))
    seed = int(rng.integers(2**62))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    images = (
        images
        + noise
        * torch.from_numpy(rng.random(batch, dtype=np.float32)).to(images.device)[:, None, None, None, None]
        * choices.noise
    )
    return images.clamp(0.0, 1.0)


def _blur(images: Float[Tensor, "batch views 3 height width"]) -> Tensor:
    """Binomial filter of 3x3 pixels."""
    row = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    kernel = (row[:, None] * row)[None, None]
    flat = F.pad(images.flatten(0, 2)[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(flat, kernel)[:, 0].view(images.shape)
