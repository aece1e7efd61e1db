"""Views of a tilted wall, whose geometry is known."""

import numpy as np
from scipy.spatial.transform import Rotation

from g2vlm.scene.view import View

HEIGHT, WIDTH = 6, 8


def build_view(index: int = 0, **changes) -> View:
    rng = np.random.default_rng(index)
    K = np.array([[10, 0, 3.5], [0, 10, 2.5], [0, 0, 1]], dtype=np.float32)
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    depth = 2 + 0.1 * u + 0.05 * v
    points = np.stack([(u - 3.5) / 10 * depth, (v - 2.5) / 10 * depth, depth], axis=-1)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.1 * index, 0.3, -0.2]).as_matrix()
    pose[:3, 3] = [index, 0.5, -1]
    # The original was four times as wide and three times as high.
    affine = np.array([[0.25, 0, -0.375], [0, 1 / 3, -1 / 3], [0, 0, 1]])
    fields = {
        "name": f"photo{index}.jpg",
        "rgb": rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "points_camera": points.astype(np.float32),
        "T_world_camera": pose.astype(np.float32),
        "K": K,
        "confidence": rng.random((HEIGHT, WIDTH), dtype=np.float32),
        "valid": np.ones((HEIGHT, WIDTH), dtype=bool),
        "original_size": (4 * WIDTH, 3 * HEIGHT),
        "T_model_original": affine,
        "time_s": None,
    }
    return View(**{**fields, **changes})
