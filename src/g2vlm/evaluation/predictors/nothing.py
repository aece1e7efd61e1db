"""What knowing nothing scores: the floor that every figure is to be read against."""

from dataclasses import dataclass

import numpy as np

from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.predictors.interface import Views

_MAP = (48, 64)
"""Rows and columns of the constant depth; what counts is sampled at these pixels."""
FOCAL_FACTOR = 1.2
"""Focal length over the longer side of a photo: what COLMAP assumes of cameras that say nothing."""


@dataclass(frozen=True)
class Nothing:
    """Constant depth in front of cameras that never turn, each a step away in a random direction."""

    seed: int = 0

    def reconstruct(self, views: Views) -> Prediction:
        """The same for all photos of a size; directions depend on the scene's name and the seed."""
        draw = np.random.default_rng([self.seed, *views.scene.encode()])
        count = len(views.photos)
        poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
        poses[:, :3, 3] = draw.standard_normal((count, 3))
        rows, columns = _MAP
        affines, K = np.tile(np.eye(3), (count, 1, 1)), np.tile(np.eye(3, dtype=np.float32), (count, 1, 1))
        for k, (width, height) in enumerate(views.sizes):
            sx, sy = columns / width, rows / height
            affines[k] = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
            focal = FOCAL_FACTOR * max(width, height)
            original = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
            K[k] = affines[k] @ original
        return Prediction(
            original_sizes=views.sizes,
            T_model_original=affines,
            T_world_camera=poses,
            K=K,
            depth=np.ones((count, rows, columns), dtype=np.float32),
        )
