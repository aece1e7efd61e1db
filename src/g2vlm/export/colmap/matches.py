"""Corresponding pixels measured in the original photos, guided by a scene.

The scene says roughly where a corner of one photo lies in another. That photo is warped onto the first by the
scene, so that perspective is gone, and optical flow (Lucas and Kanade 1981, pyramidal) measures what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image

from g2vlm.export.colmap.model import Observations
from g2vlm.export.colmap.tracks import Tracks
from g2vlm.export.conventions import camera_pose, original_intrinsics, world_to_camera
from g2vlm.export.upsampling import depth_at_original
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

_WORKING_PX = 1280
_CORNERS = 1500
_CORNER_QUALITY = 0.005
_CORNER_DISTANCE_PX = 8
_NEIGHBOURS = 8
_WINDOW = (21, 21)
_LEVELS = 3
_ROUND_TRIP_PX = 0.5
_FARTHEST_SHARE = 0.05
_SURFACE_TOLERANCE = 0.1
_SMOOTH_RANGE = 0.05
_BLACK_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class _Photo:
    """One photo at working size with its geometry."""

    gray: UInt8[np.ndarray, "height width"]
    rgb: UInt8[np.ndarray, "height width 3"]
    depth: Float32[np.ndarray, "height width"]
    """Zero where unknown."""
    smooth: Bool[np.ndarray, "height width"]
    """Where no depth edge is near."""
    K: Float64[np.ndarray, "3 3"]
    """At working size."""
    scale: float
    """Working pixels of an original one."""


def measured_tracks(
    scene: Scene, photos: Sequence[Image.Image], on_progress: Progress = no_progress
) -> Tracks:
    """Corners of the photos with the places where other photos show them.

    Args:
        scene: with valid points; its geometry guides the search.
        photos: the original picture of each view.
        on_progress: told about every view.

    Returns:
        Tracks of two observations or more; possibly none. Points lie where the first view has them.
    """
    prepared = [_prepare(view, photo) for view, photo in zip(scene.views, photos, strict=True)]
    neighbours = _neighbours(scene)
    xyz, rgb, points, views, pixels = [], [], [], [], []
    count = 0
    for index, (view, photo) in enumerate(zip(scene.views, prepared, strict=True)):
        corners = _corners(photo)
        found = {
            other: _follow(view, photo, corners, scene.views[other], prepared[other])
            for other in neighbours[index]
        }
        matched = [np.isfinite(places).all(axis=1) for places in found.values()]
        useful = np.flatnonzero(np.any(matched, axis=0)) if matched else np.empty(0, dtype=np.int64)
        number = np.arange(count, count + len(useful))
        count += len(useful)
        at = np.rint(corners[useful]).astype(int)
        xyz.append(_world_points(view, photo, corners[useful]))
        rgb.append(photo.rgb[at[:, 1], at[:, 0]])
        for other, places in {index: corners, **found}.items():
            seen = np.isfinite(places[useful]).all(axis=1)
            points.append(number[seen])
            views.append(np.full(int(seen.sum()), other))
            pixels.append(_to_original(places[useful][seen], prepared[other].scale))
        on_progress(index + 1, len(scene))
    seen_all = Observations(np.concatenate(points), np.concatenate(views), np.concatenate(pixels))
    return Tracks(np.concatenate(xyz), np.concatenate(rgb), seen_all)


def _prepare(view: View, photo: Image.Image) -> _Photo:
    import cv2
    import torch

    from g2vlm.geometry.edges import depth_edge_mask

    width, height = view.original_size
    scale = min(1.0, _WORKING_PX / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scale = size[0] / width
    rgb = np.asarray(photo.resize(size, Image.Resampling.LANCZOS) if size != photo.size else photo)
    stretch = np.diag([size[0] / width, size[1] / height, 1.0])
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    K = np.linalg.inv(shift) @ stretch @ shift @ original_intrinsics(view)
    depth = depth_at_original(view)
    depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    valid = torch.from_numpy(depth > 0)
    smooth = valid & ~depth_edge_mask(torch.from_numpy(depth), _SMOOTH_RANGE, kernel=9, valid=valid)
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return _Photo(np.asarray(gray), rgb, depth, smooth.numpy(), K, scale)


def _to_original(pixels: np.ndarray, scale: float) -> Float64[np.ndarray, "points 2"]:
    moved: Float64[np.ndarray, "points 2"] = (pixels + 0.5) / scale - 0.5
    return moved


def _neighbours(scene: Scene) -> list[list[int]]:
    """For each view, the others that contain most of what it sees."""
    import torch

    from g2vlm.geometry.agreement import overlapping_views

    points = torch.from_numpy(np.stack([view.points_world for view in scene.views]))
    poses = torch.from_numpy(np.stack([view.T_world_camera for view in scene.views]))
    K = torch.from_numpy(np.stack([view.K for view in scene.views]))
    valid = torch.from_numpy(np.stack([view.valid for view in scene.views]))
    index, overlap = overlapping_views(points, poses, K, valid, _NEIGHBOURS)
    return [
        [other for other, share in zip(row.tolist(), shares.tolist(), strict=True) if share > 0]
        for row, shares in zip(index, overlap, strict=True)
    ]


def _corners(photo: _Photo) -> Float64[np.ndarray, "corners 2"]:
    """Pixels of strong corners away from depth edges."""
    import cv2

    found = cv2.goodFeaturesToTrack(
        photo.gray, _CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX, mask=photo.smooth.astype(np.uint8)
    )
    if found is None:
        return np.empty((0, 2))
    return np.asarray(found.reshape(-1, 2), dtype=np.float64)


def _world_points(
    view: View, photo: _Photo, pixels: Float64[np.ndarray, "points 2"]
) -> Float64[np.ndarray, "points 3"]:
    at = np.rint(pixels).astype(int)
    depth = photo.depth[at[:, 1], at[:, 0]].astype(np.float64)
    rays = (pixels - photo.K[:2, 2]) / [photo.K[0, 0], photo.K[1, 1]]
    camera = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth[:, None]
    pose = camera_pose(view)
    moved: Float64[np.ndarray, "points 3"] = camera @ pose[:3, :3].T + pose[:3, 3]
    return moved


def _follow(
    view: View,
    photo: _Photo,
    corners: Float64[np.ndarray, "corners 2"],
    other_view: View,
    other: _Photo,
) -> Float64[np.ndarray, "corners 2"]:
    """Where another photo shows the corners of one; NaN where it does not, or not surely."""
    import cv2

    result = np.full(corners.shape, np.nan)
    if len(corners) == 0:
        return result
    place, seen = _correspondence(view, photo, other_view, other)
    warped = cv2.remap(other.gray, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
    start = corners.astype(np.float32)[:, None]
    ahead, went = _flow(photo.gray, np.asarray(warped), start)
    back, came = _flow(np.asarray(warped), photo.gray, ahead)
    ahead, back = ahead[:, 0], back[:, 0]
    moved = np.linalg.norm(ahead - start[:, 0], axis=1)
    good = went & came & (moved < _FARTHEST_SHARE * photo.gray.shape[1])
    good &= np.linalg.norm(back - start[:, 0], axis=1) < _ROUND_TRIP_PX
    # A pixel of the warped photo is a pixel of the other photo: the warp says which.
    height, width = seen.shape
    at = np.rint(ahead).astype(int)
    good &= (at >= 0).all(axis=1) & (at[:, 0] < width) & (at[:, 1] < height)
    at[~good] = 0
    good &= seen[at[:, 1], at[:, 0]]
    mapped = cv2.remap(place, ahead[:, :1], ahead[:, 1:], cv2.INTER_LINEAR)[:, 0]
    result[good] = mapped[good]
    return result


def _flow(first: np.ndarray, second: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels of one image lie in another that nearly equals it, and whether they were found."""
    import cv2

    place, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, start, start.copy(), winSize=_WINDOW, maxLevel=_LEVELS
    )
    return np.asarray(place), np.asarray(found)[:, 0] > 0


def _correspondence(
    view: View, photo: _Photo, other_view: View, other: _Photo
) -> tuple[Float32[np.ndarray, "height width 2"], Bool[np.ndarray, "height width"]]:
    """For each pixel of one photo its place in another, and where the scene holds that they see the same."""
    height, width = photo.depth.shape
    v, u = np.mgrid[:height, :width].astype(np.float64)
    world = _world_grid(view, photo, np.stack([u, v], axis=-1))
    T = world_to_camera(other_view)
    camera = world @ T[:3, :3].T + T[:3, 3]
    z = camera[..., 2]
    ahead = (z > 0) & photo.smooth
    safe = np.where(ahead, z, 1.0)
    place = camera[..., :2] / safe[..., None] * [other.K[0, 0], other.K[1, 1]] + other.K[:2, 2]
    column, row = np.rint(np.where(ahead[..., None], place, -1)).astype(np.int64).transpose(2, 0, 1)
    inside = (column >= 0) & (row >= 0) & (column < other.depth.shape[1]) & (row < other.depth.shape[0])
    depth = other.depth[np.where(inside, row, 0), np.where(inside, column, 0)]
    seen = inside & (depth > 0) & (np.abs(depth - z) <= _SURFACE_TOLERANCE * np.maximum(depth, z))
    return np.where(ahead[..., None], place, -1).astype(np.float32), seen


def _world_grid(view: View, photo: _Photo, pixels: np.ndarray) -> np.ndarray:
    rays = (pixels - photo.K[:2, 2]) / [photo.K[0, 0], photo.K[1, 1]]
    camera = np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1) * photo.depth[..., None]
    pose = camera_pose(view)
    moved: np.ndarray = camera @ pose[:3, :3].T + pose[:3, 3]
    return moved
