"""The floor of a scene: the lowest large plane below the cameras, found robustly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from g2vlm.scene.view import View

_MOST_POINTS = 20_000
_REACH = 3
_MOST_TILT = np.cos(np.radians(50))
_MOST_TURN = np.cos(np.radians(25))
_TRIALS = 400
_TOLERANCE = 0.015
_MOST_BELOW = 0.03
_LEAST_SUPPORT = 0.03
_ROUNDS = 5


@dataclass(frozen=True, eq=False)
class Floor:
    """A plane to stand on, in the world of its scene."""

    up: Float64[np.ndarray, "3"]
    """Unit normal towards the cameras."""
    offset: float
    """`up . point + offset` is the height of a point, in the unit of the scene."""
    support: float
    """Share of the scene's points that lie on it."""
    residual: float
    """Median distance of these points from it."""
    level_error: float | None
    """Standard deviation of its level, from how much the views differ; None where one view alone shows it."""

    def height(self, point: Float64[np.ndarray, "3"]) -> float:
        """Height of a point in world coordinates; negative below the floor."""
        return float(self.up @ point + self.offset)


def find_floor(views: Sequence[View]) -> Floor | None:
    """Find the floor, where there is one.

    Cameras are taken to be held upright to within 50 degrees in their mean. Planes through three points whose
    normals point up are tried (always the same draws); one counts if all cameras are above it, hardly any
    point lies below it, and at least 3 % of all points are on it, to within 1.5 % of the median depth. The
    one with the most points wins, refined by least squares. A table without a floor in view passes as one.

    Args:
        views: of a scene.

    Returns:
        The floor, or None.
    """
    points, normals, owner = _points_and_normals(views)
    if len(points) < 100:
        return None
    centres = np.stack([view.T_world_camera[:3, 3] for view in views]).astype(np.float64)
    up = -np.mean([view.T_world_camera[:3, 1] for view in views], axis=0).astype(np.float64)
    up /= max(float(np.linalg.norm(up)), 1e-9)
    depth = np.linalg.norm(points - centres[owner], axis=-1)
    tolerance = _TOLERANCE * float(np.median(depth))

    flat = np.flatnonzero(normals @ up > _MOST_TILT)
    if len(flat) < max(3, _LEAST_SUPPORT * len(points) / 2):
        return None
    best = _best_plane(points, normals, flat, centres, up, tolerance)
    if best is None:
        return None
    normal, offset = best
    narrow = tolerance
    for _ in range(_ROUNDS):
        on = (np.abs(points @ normal + offset) < narrow) & (normals @ normal > _MOST_TURN)
        normal, offset = _least_squares(points[on], normal)
        # The feet of walls lie within the tolerance too: it narrows to what the floor's own noise needs.
        deviation = 1.4826 * float(np.median(np.abs(points[on] @ normal + offset))) if on.any() else 0.0
        narrow = float(np.clip(3 * deviation, 1e-3 * tolerance, tolerance))
    on = (np.abs(points @ normal + offset) < tolerance) & (normals @ normal > _MOST_TURN)
    if on.mean() < _LEAST_SUPPORT:
        return None
    heights = points[on] @ normal + offset
    return Floor(
        normal, offset, float(on.mean()), float(np.median(np.abs(heights))), _level_error(heights, owner[on])
    )


def _points_and_normals(views: Sequence[View]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sample of points with normals towards their cameras, and the numbers of their views."""
    per_view = max(200, _MOST_POINTS // len(views))
    points, normals, owner = [], [], []
    for index, view in enumerate(views):
        reach = _REACH
        if min(view.height, view.width) <= 2 * reach:
            continue
        R, t = view.T_world_camera[:3, :3].astype(np.float64), view.T_world_camera[:3, 3].astype(np.float64)
        camera = np.where(view.valid[..., None], view.points_camera, np.nan).astype(np.float64)
        # Over several pixels, since neighbours differ by their noise.
        east = camera[reach:-reach, 2 * reach :] - camera[reach:-reach, : -2 * reach]
        south = camera[2 * reach :, reach:-reach] - camera[: -2 * reach, reach:-reach]
        normal = np.cross(south, east)
        middle = camera[reach:-reach, reach:-reach]
        sound = np.isfinite(normal).all(axis=-1) & np.isfinite(middle).all(axis=-1)
        sound &= np.linalg.norm(np.nan_to_num(normal), axis=-1) > 0
        places = np.flatnonzero(sound)
        places = places[np.linspace(0, len(places) - 1, min(per_view, len(places))).round().astype(int)]
        chosen = normal.reshape(-1, 3)[places]
        points.append(middle.reshape(-1, 3)[places] @ R.T + t)
        normals.append(chosen / np.linalg.norm(chosen, axis=-1, keepdims=True) @ R.T)
        owner.append(np.full(len(places), index))
    if not points:
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, dtype=int)
    return np.concatenate(points), np.concatenate(normals), np.concatenate(owner)


def _best_plane(
    points: np.ndarray,
    normals: np.ndarray,
    flat: np.ndarray,
    centres: np.ndarray,
    up: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, float] | None:
    """The plane with the most points on it, of those that may be a floor."""
    rng = np.random.default_rng(0)
    best, most = None, 0
    for corners in rng.choice(flat, (_TRIALS, 3)):
        a, b, c = points[corners]
        normal = np.cross(b - a, c - a)
        length = float(np.linalg.norm(normal))
        if length < tolerance**2:
            continue
        normal = normal / length
        normal = normal if normal @ up > 0 else -normal
        offset = -float(normal @ a)
        if normal @ up < _MOST_TILT or (centres @ normal + offset <= tolerance).any():
            continue
        heights = points @ normal + offset
        if (heights < -3 * tolerance).mean() > _MOST_BELOW:
            continue
        on = int(((np.abs(heights[flat]) < tolerance) & (normals[flat] @ normal > _MOST_TURN)).sum())
        if on > most:
            best, most = (normal, offset), on
    return best


def _least_squares(points: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, float]:
    if len(points) < 3:
        return normal, 0.0
    centre = points.mean(axis=0)
    axis = np.linalg.svd((points - centre).T @ (points - centre))[2][2]
    axis = axis if axis @ normal > 0 else -axis
    return axis, -float(axis @ centre)


def _level_error(heights: np.ndarray, owner: np.ndarray) -> float | None:
    """Each view gives the plane a level of its own; their mean is as good as these differ."""
    levels = [
        float(np.median(heights[owner == index]))
        for index in np.unique(owner)
        if (owner == index).sum() >= 20
    ]
    return float(np.std(levels, ddof=1) / np.sqrt(len(levels))) if len(levels) > 1 else None
