"""Sizes of network that can be measured on random weights, and the photos to measure them on."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image

from g2vlm.model.config import G2VLMConfig, few_layer_2b, g2vlm_2b, g2vlm_test


class Preset(Enum):
    """A size of network."""

    TINY = "tiny"
    """A few hundred thousand parameters: checks the benchmark, says nothing about speed."""
    FEW_LAYER_2B = "few-layer-2b"
    """The width of the released model with four layers in each tower: 1.03 billion parameters."""
    FULL_2B = "2b"
    """The released size: 4.54 billion parameters."""


@dataclass(frozen=True)
class Sizes:
    """What a preset stands for."""

    config: G2VLMConfig
    """The network."""
    photo_size: tuple[int, int]
    """(width, height) of the photos in pixels; already what the geometric encoder works at."""
    new_tokens: int
    """Tokens of an answer."""
    stream_bytes: int
    """Weights read to measure the memory bandwidth: more than any cache holds, where speed matters."""


def sizes_of(preset: Preset) -> Sizes:
    """Look a preset up."""
    if preset is Preset.TINY:
        return Sizes(g2vlm_test(), (112, 84), new_tokens=6, stream_bytes=2**22)
    config = few_layer_2b() if preset is Preset.FEW_LAYER_2B else g2vlm_2b()
    return Sizes(config, (518, 392), new_tokens=32, stream_bytes=2**30)


def synthetic_photos(count: int, size: tuple[int, int], seed: int = 0) -> list[Image.Image]:
    """Smooth random photos: speed does not depend on what they show.

    Args:
        count: photos.
        size: (width, height) in pixels.
        seed: another seed gives other photos.
    """
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return [Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC) for colours in coarse]
