"""Which views of a scene see the same surfaces."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from g2vlm.data.posed_frame import PosedFrame, resized_intrinsics

_GRID = (12, 16)
"""Rows and columns of the pixels that stand for a view."""
_TOLERANCE = 0.1
"""Largest relative difference of depth between two views of the same surface: sensors are coarse, and the
grid is too."""
_LEAST = 0.02
_GUESSES = (0.5, 1.0, 2.0, 4.0)
"""Depths where none was measured, in units of the spread of the cameras."""


@dataclass(frozen=True, eq=False)
class Outlook:
    """What stands for a view when overlaps are measured: its camera and a coarse grid of depth."""

    K: Float64[np.ndarray, "3 3"]
    """In pixels of the grid."""
    T_world_camera: Float64[np.ndarray, "4 4"]
    depth: Float64[np.ndarray, "rows columns"] | None
    """0 where it is not known; None where nothing was measured."""

    @property
    def range(self) -> tuple[float, float]:
        """Near and far: the 2nd and 98th percentile of the depth, zeros where there is none."""
        if self.depth is None or not (self.depth > 0).any():
            return 0.0, 0.0
        near, far = np.percentile(self.depth[self.depth > 0], (2, 98))
        return float(near), float(far)

    def frustum(self) -> Float64[np.ndarray, "5 3"]:
        """World position of the camera, then of the corners of its picture at the far end of the depth.

        Corners go from the top left to the right; where there is no depth they lie at distance 1.
        """
        rows, columns = _GRID
        corners = np.array(
            [[-0.5, -0.5], [columns - 0.5, -0.5], [columns - 0.5, rows - 0.5], [-0.5, rows - 0.5]]
        )
        rays = np.linalg.solve(self.K, np.concatenate([corners, np.ones((4, 1))], axis=1).T).T
        points = rays * (self.range[1] or 1.0)
        R, centre = self.T_world_camera[:3, :3], self.T_world_camera[:3, 3]
        return np.concatenate([centre[None], points @ R.T + centre])


def outlook_of(frame: PosedFrame) -> Outlook:
    """The outlook of a frame."""
    rows, columns = _GRID
    depth = None
    if frame.depth_m is not None and frame.known is not None:
        height, width = frame.depth_m.shape
        v = ((np.arange(rows) + 0.5) * height / rows).astype(int)
        u = ((np.arange(columns) + 0.5) * width / columns).astype(int)
        depth = np.where(frame.known, frame.depth_m, 0.0)[np.ix_(v, u)].astype(np.float64)
    return Outlook(resized_intrinsics(frame.K, frame.size, (columns, rows)), frame.T_world_camera, depth)


def overlaps(views: list[Outlook]) -> Float[np.ndarray, "views views"]:
    """For each view (row), the share of what it sees that each other view sees too, 0 to 1.

    A surface counts as seen where it falls into the other picture and the depth there agrees within a tenth.
    Views without depth are taken to see planes at several distances, measured by how far the cameras are
    spread; what hides what is not known then.
    """
    count = len(views)
    result = np.eye(count, dtype=np.float32)
    if count < 2:
        return result
    K = np.stack([view.K for view in views])
    T_camera_world = np.linalg.inv(np.stack([view.T_world_camera for view in views]))
    has_depth = np.array([view.depth is not None for view in views])
    depth = np.stack([np.zeros(_GRID) if view.depth is None else view.depth for view in views])
    centres = np.stack([view.T_world_camera[:3, 3] for view in views])
    spread = float(np.median(np.linalg.norm(centres - np.median(centres, axis=0), axis=1))) or 1.0
    for i, view in enumerate(views):
        points = _points(view, spread)
        if len(points):
            result[i] = _seen(points, K, T_camera_world, depth, has_depth)
    np.fill_diagonal(result, 1.0)
    result[result < _LEAST] = 0.0
    return result


def _points(view: Outlook, spread: float) -> np.ndarray:
    """World points (n, 3) that a view sees."""
    v, u = np.meshgrid(*(np.arange(size, dtype=np.float64) for size in _GRID), indexing="ij")
    rays = np.linalg.solve(view.K, np.stack([u.ravel(), v.ravel(), np.ones(u.size)])).T
    if view.depth is None:
        local = np.concatenate([rays[::3] * guess * spread for guess in _GUESSES])
    else:
        known = view.depth.ravel() > 0
        local = rays[known] * view.depth.ravel()[known, None]
    return local @ view.T_world_camera[:3, :3].T + view.T_world_camera[:3, 3]


def _seen(
    points: np.ndarray, K: np.ndarray, T_camera_world: np.ndarray, depth: np.ndarray, has_depth: np.ndarray
) -> np.ndarray:
    """Share of world points that each view sees, (views,)."""
    rows, columns = _GRID
    local = np.einsum("vij,nj->vni", T_camera_world[:, :3, :3], points) + T_camera_world[:, None, :3, 3]
    z = local[..., 2]
    safe = np.where(z > 1e-9, z, 1.0)
    # K has no skew; the grid's borders lie half a cell outside of its outermost centres.
    u = K[:, 0, 0, None] * local[..., 0] / safe + K[:, 0, 2, None]
    v = K[:, 1, 1, None] * local[..., 1] / safe + K[:, 1, 2, None]
    inside = (z > 1e-9) & (u >= -0.5) & (u < columns - 0.5) & (v >= -0.5) & (v < rows - 0.5)
    column = np.where(inside, np.round(u), 0).astype(int).clip(0, columns - 1)
    row = np.where(inside, np.round(v), 0).astype(int).clip(0, rows - 1)
    view = np.arange(len(K))[:, None]
    there = depth[view, row, column]
    agrees = np.abs(z - there) < _TOLERANCE * np.maximum(z, there)
    return (inside & (agrees | ~has_depth[:, None])).mean(axis=1)
