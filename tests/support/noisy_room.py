"""A scene of exact geometry at any unit, and the same with known errors in its points."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

WIDTH, HEIGHT, FOCAL = 80, 60, 70.0


def box_room(num_views: int = 4, unit: float = 1.0, half_px: float = 0.0) -> Scene:
    """Cameras in a box of 6 x 3 x 8 metres, on a curve 1.5 m above its floor; `unit` units are a metre.

    World axes: x right, y down, z forward; the floor is the plane y = 1.5.
    """
    views = []
    for i in range(num_views):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("yx", [0.12 * (i - num_views / 2), -0.25]).as_matrix()
        T[:3, 3] = [0.4 * i - 0.8, 0.1 * i - 0.1, -2.5 + 0.15 * i * i]
        views.append(_view(i, T, unit))
    return Scene(tuple(views), Scale(ScaleKind.RELATIVE, "test"))


def _view(index: int, T: np.ndarray, unit: float) -> View:
    K = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    rays = np.stack([(u - K[0, 2]) / FOCAL, (v - K[1, 2]) / FOCAL, np.ones_like(u)], axis=-1)
    world = rays @ T[:3, :3].T
    low, high = np.array([-3, -1.5, -4]), np.array([3, 1.5, 4])
    with np.errstate(divide="ignore"):
        hits = np.where(world > 0, (high - T[:3, 3]) / world, (low - T[:3, 3]) / world)
    depth = hits.min(axis=-1)
    pose = T.copy()
    pose[:3, 3] *= unit
    affine = np.array([[0.25, 0, -0.375], [0, 0.25, -0.375], [0, 0, 1]])
    texture = np.floor(world * depth[..., None] * 2).sum(axis=-1) % 2
    return View(
        name=f"frame_{index}.png",
        rgb=(80 + 100 * texture[..., None] * np.ones(3)).astype(np.uint8),
        points_camera=(rays * depth[..., None] * unit).astype(np.float32),
        T_world_camera=pose.astype(np.float32),
        K=K.astype(np.float32),
        confidence=np.full((HEIGHT, WIDTH), 0.8, dtype=np.float32),
        valid=np.ones((HEIGHT, WIDTH), dtype=bool),
        original_size=(4 * WIDTH, 4 * HEIGHT),
        T_model_original=affine,
    )


def with_errors(scene: Scene, rng: np.random.Generator, local: float = 0.0, common: float = 0.0) -> Scene:
    """Points moved along their rays: independently, and by a factor for each view."""
    views = []
    for view in scene.views:
        factor = 1 + common * rng.standard_normal() + local * rng.standard_normal((HEIGHT, WIDTH, 1))
        views.append(replace(view, points_camera=(view.points_camera * factor).astype(np.float32)))
    return replace(scene, views=tuple(views))
