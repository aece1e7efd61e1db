"""Axes and pixels of other software, exactly, in float64.

This package: camera axes x right, y down, z forward (OpenCV); pixel centres at integers; poses from camera
to world. COLMAP, nerfstudio: the centre of the first pixel at (0.5, 0.5). OpenGL, glTF, nerfstudio: camera
axes x right, y up, z backward.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64

from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
"""From OpenCV axes to OpenGL axes and back; as a change of world, from y down to y up."""

CORNER_SHIFT_PX = 0.5
"""What to add to a pixel coordinate where pixel centres lie at halves."""


def camera_pose(view: View) -> Float64[np.ndarray, "4 4"]:
    """`T_world_camera` with the rotation made exactly orthonormal."""
    pose = view.T_world_camera.astype(np.float64)
    left, _, right = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = left @ right
    return pose


def world_to_camera(view: View) -> Float64[np.ndarray, "4 4"]:
    """`T_camera_world` of a view."""
    pose = camera_pose(view)
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def original_intrinsics(view: View) -> Float64[np.ndarray, "3 3"]:
    """Intrinsics in pixels of the original photo, centres at integers."""
    return np.linalg.inv(view.T_model_original) @ view.K.astype(np.float64)


def original_pixels(view: View) -> Float64[np.ndarray, "height width 2"]:
    """Where each model pixel's centre lies in the original photo, (u, v), centres at integers."""
    v, u = np.mgrid[: view.height, : view.width].astype(np.float64)
    inverse = np.linalg.inv(view.T_model_original)
    return np.stack([u, v], axis=-1) @ inverse[:2, :2].T + inverse[:2, 2]


def quaternion_wxyz(R: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "4"]:
    """Unit quaternion (w, x, y, z) of a rotation, w >= 0."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(R).as_quat(canonical=True, scalar_first=True), dtype=np.float64)


def project(
    points_world: Float64[np.ndarray, "points 3"],
    T_camera_world: Float64[np.ndarray, "4 4"],
    K: Float64[np.ndarray, "3 3"],
) -> tuple[Float64[np.ndarray, "points 2"], Float64[np.ndarray, " points"]]:
    """Pixels (u, v) and z-depths of world points; pixels mean something only where the depth is positive."""
    camera = points_world @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    z = camera[:, 2]
    safe = np.where(z > 0, z, 1.0)
    pixels = camera[:, :2] / safe[:, None] * [K[0, 0], K[1, 1]] + [K[0, 2], K[1, 2]]
    return pixels, z


def scale_errors(scene: Scene) -> dict[str, float]:
    """What is known of `scale_residual_m`, `scale_relative_error`: how well a scene meets its metre."""
    errors = {
        "scale_residual_m": scene.scale.residual_m,
        "scale_relative_error": scene.scale.relative_error,
        "scale_point_error": scene.scale.point_error,
    }
    return {key: value for key, value in errors.items() if value is not None}


def about(scene: Scene, kind: str, **more: Any) -> dict[str, Any]:
    """What `g2vlm.json` says about an exported folder: its kind and its unit, then `more`."""
    return {
        "kind": kind,
        "scale": scene.scale.kind.value,
        "unit": scene.scale.unit,
        "scale_source": scene.scale.source,
        **scale_errors(scene),
        **more,
    }
