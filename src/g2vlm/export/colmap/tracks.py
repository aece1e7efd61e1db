"""Which views see which points: by agreement of depths, without matching pictures."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from g2vlm.export.clouds import FEW_POINTS, require_points
from g2vlm.export.colmap.model import Observations
from g2vlm.export.conventions import original_intrinsics, original_pixels, project, world_to_camera
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

AGREEMENT = 0.03
"""Largest difference of two depths, relative to the larger, that counts as one surface."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points with the views that see them."""

    xyz: Float64[np.ndarray, "points 3"]
    """World coordinates."""
    rgb: UInt8[np.ndarray, "points 3"]
    seen: Observations
    """None for points of a single view, else two or more."""


def agreeing_tracks(
    scene: Scene, max_points: int | None = None, on_progress: Progress = no_progress
) -> Tracks:
    """Points of a scene, evenly spread, with every view that agrees about them.

    A point is observed by its own view at the centre of its pixel, and by every other view in whose image it
    falls where the depth differs by at most 3 %; there at its projection. So the observations of other views
    say that they see the point, but hold no measurement of their own: for that, pictures must be matched.
    A point that no other view agrees with has no observation at all: COLMAP's bundle adjustment stops at
    tracks of one.

    Args:
        scene: with valid points.
        max_points: 200,000 if None.
        on_progress: told about every view.

    Raises:
        OutputError: no valid points.
    """
    require_points(scene)
    cloud = scene.point_cloud()
    kept = cloud.spread_index(FEW_POINTS if max_points is None else max_points)
    xyz, owner = cloud.points[kept].astype(np.float64), cloud.view_index[kept]
    own_pixel = np.concatenate([original_pixels(view)[view.valid] for view in scene.views])[kept]
    points, views, pixels = [], [], []
    for index, view in enumerate(scene.views):
        mine = owner == index
        visible, pixel = _seen_by(view, xyz)
        pixel[mine] = own_pixel[mine]
        seen = np.flatnonzero(visible | mine)
        points.append(seen)
        views.append(np.full(len(seen), index))
        pixels.append(pixel[seen])
        on_progress(index + 1, len(scene))
    seen_all = Observations(np.concatenate(points), np.concatenate(views), np.concatenate(pixels))
    return Tracks(xyz, cloud.colors[kept], _confirmed(seen_all, len(xyz)))


def _confirmed(seen: Observations, count: int) -> Observations:
    """Without observations that stand alone."""
    kept = np.bincount(seen.point, minlength=count)[seen.point] > 1
    return Observations(seen.point[kept], seen.view[kept], seen.pixel[kept])


def _seen_by(
    view: View, xyz: Float64[np.ndarray, "points 3"]
) -> tuple[Bool[np.ndarray, " points"], Float64[np.ndarray, "points 2"]]:
    """Whether a view sees each point on its own surface, and where in the original photo."""
    pixel, z = project(xyz, world_to_camera(view), original_intrinsics(view))
    width, height = view.original_size
    inside = (z > 0) & (pixel > -0.5).all(axis=1) & (pixel[:, 0] < width - 0.5) & (pixel[:, 1] < height - 0.5)
    own = nearest_pixel(view, pixel, inside)
    depth = np.where(view.valid, view.depth, 0).ravel()[own].astype(np.float64)
    agrees = inside & (depth > 0) & (np.abs(depth - z) <= AGREEMENT * np.maximum(depth, z))
    return agrees, pixel


def nearest_pixel(
    view: View, original: Float64[np.ndarray, "points 2"], inside: Bool[np.ndarray, " points"]
) -> Int64[np.ndarray, " points"]:
    """Flat index of the model pixel nearest to each pixel of the original photo; 0 where not `inside`."""
    A = view.T_model_original
    model = np.rint(np.where(inside[:, None], original, 0) @ A[:2, :2].T + A[:2, 2])
    column = np.clip(model[:, 0], 0, view.width - 1)
    row = np.clip(model[:, 1], 0, view.height - 1)
    return np.where(inside, row * view.width + column, 0).astype(np.int64)
