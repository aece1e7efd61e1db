"""A small scene with known geometry: cameras that look at a tilted wall."""

from collections.abc import Callable

import numpy as np
import pytest
from tilted_wall import HEIGHT, WIDTH, build_view

from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View


@pytest.fixture
def make_view() -> Callable[..., View]:
    return build_view


@pytest.fixture
def scene() -> Scene:
    """Three views; the second has padding that holds nothing, the third comes from a video."""
    padded_valid = np.ones((HEIGHT, WIDTH), dtype=bool)
    padded_valid[:, :2] = False
    padded_points = build_view(1).points_camera.copy()
    padded_points[:, 0] = np.nan
    padded_points[:, 1] = np.inf
    views = (
        build_view(0),
        build_view(1, valid=padded_valid, points_camera=padded_points, name="küche 1.jpg"),
        build_view(2, time_s=1.25),
    )
    return Scene(views, Scale(ScaleKind.RELATIVE, "the network's own unit"))
