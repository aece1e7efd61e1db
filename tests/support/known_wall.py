"""A scene of one flat wall in metres, finely sampled: any length on it is known."""

import numpy as np

from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

WIDTH, HEIGHT, FOCAL_PX, DISTANCE_M = 480, 360, 400.0, 3.0


def known_wall() -> Scene:
    """A chequered wall 3 m in front of a camera, left half blue, confidence from 0 on the left to 1."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = (u - (WIDTH - 1) / 2) / FOCAL_PX, (v - (HEIGHT - 1) / 2) / FOCAL_PX
    points = np.stack([x, y, np.ones_like(x)], axis=-1) * np.float32(DISTANCE_M)
    light = np.where(((u // 30 + v // 30) % 2).astype(bool), 220, 120)[..., None]
    tint = np.where((u < WIDTH / 2)[..., None], [0.4, 0.6, 1.0], [1.0, 0.6, 0.3])
    view = View(
        name="wall.png",
        rgb=np.rint(light * tint).astype(np.uint8),
        points_camera=points,
        T_world_camera=np.eye(4, dtype=np.float32),
        K=np.array(
            [[FOCAL_PX, 0, (WIDTH - 1) / 2], [0, FOCAL_PX, (HEIGHT - 1) / 2], [0, 0, 1]], dtype=np.float32
        ),
        confidence=(u / (WIDTH - 1)).astype(np.float32),
        valid=np.ones((HEIGHT, WIDTH), dtype=bool),
        original_size=(WIDTH, HEIGHT),
        T_model_original=np.eye(3),
    )
    return Scene((view,), Scale(ScaleKind.METRIC, "the wall's builder"))
