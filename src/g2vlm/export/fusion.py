"""One surface from all views: the zero level of a truncated signed distance (Curless and Levoy 1996).

Every voxel averages, over the views that see it, how far it lies in front of their surface; noise of single
views averages out, and where views overlap one surface is left.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from g2vlm.errors import MissingExtraError, OutputError
from g2vlm.export.clouds import require_points
from g2vlm.export.conventions import world_to_camera
from g2vlm.export.surface import TriangleMesh
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

_MOST_VOXELS = 24_000_000
_TRUNCATION_VOXELS = 3.0
_SUPPORT_VOXELS = 1.5
_REACH_VOXELS = 4.0
_SMOOTH_RANGE = 0.1
_OUTLIERS_PERCENT = 0.5
_LEAST_WEIGHT = 0.05
_SLAB_VOXELS = 2_000_000


@dataclass(frozen=True, eq=False)
class _Volume:
    """A grid over the world; index (i, j, k) is at origin + voxel * (i, j, k)."""

    origin: Float64[np.ndarray, "3"]
    voxel: float
    distance: Float32[np.ndarray, "x y z"]
    """Weighted sum of distances in front of the surfaces, in truncation lengths, -1 to 1."""
    weight: Float32[np.ndarray, "x y z"]
    color: Float32[np.ndarray, "x y z 3"]
    """Weighted sum of colours."""


def fused_mesh(scene: Scene, voxel: float | None = None, on_progress: Progress = no_progress) -> TriangleMesh:
    """Fuse all views into one surface.

    Args:
        scene: its valid points; half a percent at each end of each axis does not extend the volume.
        voxel: side of the voxels, in the unit of the scene. If None, what a pixel covers at the median depth.
            More than 24 million voxels are not made: a given side is then refused, the default enlarged.
        on_progress: told about every view.

    Raises:
        OutputError: no valid points, too many voxels, or no surface.
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtraError("Fusing views into one mesh", "mesh") from error
    require_points(scene)
    volume = _empty_volume(scene, voxel)
    for done, view in enumerate(scene.views, start=1):
        _integrate(volume, view)
        on_progress(done, len(scene))
    seen = volume.weight > _LEAST_WEIGHT
    distance = np.where(seen, volume.distance / np.where(seen, volume.weight, 1), 1.0)
    if not (seen & (distance < 0)).any():
        raise OutputError("Expected surfaces to fuse, got none: filter less, or use smaller voxels.")
    points, faces, _, _ = marching_cubes(distance, level=0.0, mask=seen, gradient_direction="descent")
    world = volume.origin + volume.voxel * points
    points, faces, world = _supported(points, faces, world, scene, volume.voxel)
    if len(faces) == 0:
        raise OutputError("Expected surfaces to fuse, got none: filter less, or use smaller voxels.")
    nearest = tuple(np.rint(points).astype(int).T)
    weight = np.maximum(volume.weight[nearest], _LEAST_WEIGHT)
    colors = volume.color[nearest] / weight[:, None]
    return TriangleMesh(
        points=world.astype(np.float32),
        colors=np.clip(np.rint(colors), 0, 255).astype(np.uint8),
        faces=faces.astype(np.int32),
    )


def _empty_volume(scene: Scene, voxel: float | None) -> _Volume:
    """A grid that holds the points of the scene and a margin."""
    points = np.concatenate([view.points_world[view.valid] for view in scene.views])
    low, high = np.percentile(points, [_OUTLIERS_PERCENT, 100 - _OUTLIERS_PERCENT], axis=0)
    side = pixel_at_median_depth(scene) if voxel is None else voxel
    margin = _TRUNCATION_VOXELS + 1

    def shape_of(side: float) -> tuple[int, ...]:
        return tuple(math.ceil(extent / side + 2 * margin) + 1 for extent in high - low)

    if voxel is not None and math.prod(shape_of(voxel)) > _MOST_VOXELS:
        raise OutputError(
            f"Expected at most {_MOST_VOXELS:,} voxels, got {math.prod(shape_of(voxel)):,}: raise voxel."
        )
    while math.prod(shape_of(side)) > _MOST_VOXELS:
        side *= 1.02
    shape = shape_of(side)
    return _Volume(
        origin=low - margin * side,
        voxel=side,
        distance=np.zeros(shape, np.float32),
        weight=np.zeros(shape, np.float32),
        color=np.zeros((*shape, 3), np.float32),
    )


def pixel_at_median_depth(scene: Scene) -> float:
    """What one pixel of the network's image covers at the median depth, in the unit of the scene."""
    sizes = [
        float(np.median(view.depth[view.valid]) / view.K[0, 0]) for view in scene.views if view.valid.any()
    ]
    return float(np.median(sizes))


def _integrate(volume: _Volume, view: View) -> None:
    """Add one view, a slab of the grid at a time."""
    T_camera_world = world_to_camera(view)
    _, ny, nz = volume.distance.shape
    rows = max(1, _SLAB_VOXELS // (ny * nz))
    grid = np.stack(np.meshgrid(np.arange(ny), np.arange(nz), indexing="ij"), axis=-1)
    for start in range(0, len(volume.distance), rows):
        stop = min(start + rows, len(volume.distance))
        index = np.empty((stop - start, ny, nz, 3))
        index[..., 0] = np.arange(start, stop)[:, None, None]
        index[..., 1:] = grid
        world = volume.origin + volume.voxel * index
        _add(volume, slice(start, stop), _in_camera(world, T_camera_world), view)


def _supported(
    points: np.ndarray, faces: np.ndarray, world: np.ndarray, scene: Scene, voxel: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drop the triangles that no view has measured: curtains that hang behind the outlines of objects."""
    measured, tolerance = np.zeros(len(world), dtype=bool), _SUPPORT_VOXELS * voxel
    for view in scene.views:
        camera = _in_camera(world, world_to_camera(view))
        pixel, inside = _pixels(camera, view)
        step = camera - np.where(view.valid[..., None], view.points_camera, 0).reshape(-1, 3)[pixel]
        # On a slanted surface the next pixel is far away along the axis; across the surface it is not.
        normal = _normals(view)[pixel]
        near = (step[:, 2] ** 2 <= tolerance**2) | (
            normal.any(axis=1)
            & ((step * normal).sum(axis=1) ** 2 <= tolerance**2)
            & ((step * step).sum(axis=1) <= (_REACH_VOXELS * voxel) ** 2)
        )
        measured |= inside & view.valid.ravel()[pixel] & near
    kept, faces = np.unique(faces[measured[faces].all(axis=1)], return_inverse=True)
    return points[kept], faces.reshape(-1, 3), world[kept]


def _normals(view: View) -> Float32[np.ndarray, "pixels 3"]:
    """Normals of the surface, camera axes; zero where a depth edge leaves none."""
    import torch

    from g2vlm.geometry.edges import depth_edge_mask, normals_from_points

    valid = torch.from_numpy(view.valid.copy())
    smooth = valid & ~depth_edge_mask(torch.from_numpy(view.depth.copy()), _SMOOTH_RANGE, valid=valid)
    normals = normals_from_points(torch.from_numpy(view.points_camera.copy()), smooth)
    return np.asarray(normals.reshape(-1, 3).numpy())


def _in_camera(world: np.ndarray, T_camera_world: np.ndarray) -> np.ndarray:
    moved: np.ndarray = world @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    return moved


def _pixels(camera: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Flat index of the nearest pixel, and whether there is one."""
    z = camera[..., 2]
    safe = np.where(z > 0, z, 1.0)
    column = np.rint(camera[..., 0] / safe * view.K[0, 0] + view.K[0, 2])
    row = np.rint(camera[..., 1] / safe * view.K[1, 1] + view.K[1, 2])
    inside = (z > 0) & (column >= 0) & (column < view.width) & (row >= 0) & (row < view.height)
    return np.where(inside, row * view.width + column, 0).astype(np.int64), inside


def _add(volume: _Volume, slab: slice, camera: Float64[np.ndarray, "x y z 3"], view: View) -> None:
    pixel, seen = _pixels(camera, view)
    # Distance in front of the surface, along the optical axis, in truncation lengths. Behind the surface by
    # more than one nothing is known; far in front the voxel is empty.
    ahead = (view.depth.ravel()[pixel] - camera[..., 2]) / (_TRUNCATION_VOXELS * volume.voxel)
    seen &= view.valid.ravel()[pixel] & (ahead > -1)
    trust = np.where(seen, np.maximum(view.confidence.ravel()[pixel], _LEAST_WEIGHT), 0).astype(np.float32)
    volume.distance[slab] += trust * np.clip(np.where(seen, ahead, 0), -1, 1).astype(np.float32)
    volume.weight[slab] += trust
    volume.color[slab] += trust[..., None] * view.rgb.reshape(-1, 3)[pixel]
