"""A very small random model for tests of the service, and pictures for it."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import numpy as np

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.inputs.photos import PhotoSet, load_photos


def small_model(folder: Path) -> g2vlm.Model:
    """A random network of very small size, in float32, with all its parts."""
    model = g2vlm.load(random_checkpoint(folder), device="cpu", dtype="float32", compiled=False)
    model.load_parts(model.config.parts)
    return model


def pictures(count: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Noise, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def photos(model: g2vlm.Model, count: int, seed: int = 0) -> PhotoSet:
    """Noise as the service reads it."""
    return load_photos(pictures(count, seed), keep=model.reduction(asking=True))


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that another thread does."""
    end = monotonic() + seconds
    while not happened():
        assert monotonic() < end, "it did not happen"
        sleep(0.002)
