"""Which way is up in a scene, and where its floor is: for grids and for cameras that orbit upright."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from g2vlm.scene.scene import Scene

_CONE_COS = 0.87
_ROUNDS = 5
_BINS = 200
_SHARE_OF_PEAK = 0.4
_SAMPLES = 50_000
_MOST_VIEWS = 12


@dataclass(frozen=True)
class Ground:
    """A horizontal plane through the floor: points p with up . p = height."""

    up: Float64[np.ndarray, "3"]
    """Unit vector in the world, against gravity as far as pictures tell."""
    height: float
    """In the unit of the scene."""


def find_ground(scene: Scene) -> Ground:
    """Up from the cameras, corrected by the surfaces that lie flat; the floor where the lowest of them are.

    People hold cameras upright more or less, so that the mean of their up axes is near. Normals within 30
    degrees of it then belong to floors and tables, and their mean is exact. The floor is the lowest height at
    which such points are many.

    Args:
        scene: with valid points; of many views, some evenly spread ones count.
    """
    up = _unit(-np.sum([view.T_world_camera[:3, 1].astype(np.float64) for view in scene.views], axis=0))
    points, normals = _samples(scene)
    flat = normals @ up > _CONE_COS
    if flat.mean() > 0.01:
        for _ in range(_ROUNDS):
            up = _unit(np.median(normals[flat], axis=0))
            flat = normals @ up > _CONE_COS
    heights = points @ up
    if flat.sum() < 10:
        return Ground(up, float(np.percentile(heights, 2)))
    counts, edges = np.histogram(heights[flat], bins=_BINS)
    lowest = int(np.flatnonzero(counts >= _SHARE_OF_PEAK * counts.max())[0])
    return Ground(up, float((edges[lowest] + edges[lowest + 1]) / 2))


def _samples(scene: Scene) -> tuple[Float64[np.ndarray, "points 3"], Float64[np.ndarray, "points 3"]]:
    """Some points with their normals, in the world."""
    seen = [view for view in scene.views if view.valid.any()]
    places = np.linspace(0, len(seen) - 1, min(len(seen), _MOST_VIEWS)).round().astype(int)
    chosen = [seen[index] for index in places]
    cloud = Scene(tuple(chosen), scene.scale).point_cloud(normals=True)
    assert cloud.normals is not None
    step = max(1, len(cloud) // _SAMPLES)
    return cloud.points[::step].astype(np.float64), cloud.normals[::step].astype(np.float64)


def _unit(vector: np.ndarray) -> Float64[np.ndarray, "3"]:
    length = float(np.linalg.norm(vector))
    # Cameras all around the sphere cancel: then the world's own upward axis is as good as any.
    return vector / length if length > 1e-9 else np.array([0.0, -1.0, 0.0])
