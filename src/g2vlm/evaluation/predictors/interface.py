"""What a method must offer to be evaluated: one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from PIL import Image

from g2vlm.evaluation.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Views:
    """Photos of one scene to reconstruct."""

    scene: str
    """Name of the scene in its benchmark."""
    photos: tuple[Image.Image, ...]
    K: Float[np.ndarray, "views 3 3"] | None = None
    """True intrinsics in pixels of the photos, for methods that need calibrated cameras (classical ones);
    whoever uses them says so in its name or description."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each photo."""
        return tuple(photo.size for photo in self.photos)


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions about the same photos."""

    scene: str
    """Name of the scene in its benchmark."""
    photos: tuple[Image.Image, ...]
    """In the order in which the questions count them; none for questions that are asked blind."""
    texts: tuple[str, ...]
    """Whole questions, with choices and instructions."""


@runtime_checkable
class Reconstructor(Protocol):
    """A method that says something about geometry."""

    def reconstruct(self, views: Views) -> Prediction:
        """Depth, points, poses, intrinsics: whatever the method knows.

        Raises:
            InputError: nothing can be said about these photos; the scene counts as failed.
        """
        ...


@runtime_checkable
class Answerer(Protocol):
    """A method that answers questions about photos."""

    def answer(self, asked: Questions) -> Sequence[str]:
        """One answer to each question, each asked by itself."""
        ...
