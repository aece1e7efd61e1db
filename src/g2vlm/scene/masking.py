"""Leaving parts of photos out of a scene that exists already."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from g2vlm.errors import InputError
from g2vlm.scene.view import View

if TYPE_CHECKING:
    from g2vlm.scene.scene import Scene


def mask_views(scene: "Scene", masks: Sequence[Bool[np.ndarray, "height width"] | None]) -> "Scene":
    """The scene without the points that masks leave out; see `Scene.masked`."""
    if len(masks) != len(scene):
        raise InputError(f"Expected a mask or None for each of {len(scene)} views, got {len(masks)}.")
    views = tuple(
        view if mask is None else replace(view, valid=view.valid & _at_model(view, mask))
        for view, mask in zip(scene.views, masks, strict=True)
    )
    if not any(view.valid.any() for view in views):
        raise InputError(
            "Expected masks that leave some points, but they leave out all: black is left out and white "
            "stays, "
            "unless inverted."
        )
    return replace(scene, views=views)


def _at_model(view: View, mask: np.ndarray) -> np.ndarray:
    """The mask at the centres of the point map's pixels; what lies outside of the photo is left out."""
    (full_width, full_height), (height, width) = view.original_size, mask.shape
    v, u = np.mgrid[: view.height, : view.width].astype(np.float64)
    inverse = np.linalg.inv(view.T_model_original)
    # Borders of photo and mask coincide, so centres move by half pixels.
    column = np.floor((inverse[0, 0] * u + inverse[0, 2] + 0.5) * width / full_width).astype(int)
    row = np.floor((inverse[1, 1] * v + inverse[1, 2] + 0.5) * height / full_height).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    kept: np.ndarray = inside & mask[row.clip(0, height - 1), column.clip(0, width - 1)]
    return kept
