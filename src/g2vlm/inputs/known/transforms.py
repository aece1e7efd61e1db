"""Cameras of nerfstudio's and instant-ngp's `transforms.json`."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from g2vlm.errors import InputError
from g2vlm.geometry.known import KnownCamera, KnownPose
from g2vlm.inputs.decode import printable
from g2vlm.inputs.known.files import json_of
from g2vlm.inputs.known.lenses import CORNER_SHIFT_PX, distortion_px

_FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])


def read_transforms(path: Path) -> tuple[KnownPose, ...]:
    """Poses of all frames, turned from OpenGL's camera axes to OpenCV's, in the world of the file.

    Raises:
        InputError: it cannot be read, or a frame has no 4x4 matrix.
    """
    poses = []
    for frame in _frames(path):
        try:
            matrix = np.array(frame.get("transform_matrix", []), dtype=np.float64)
        except (TypeError, ValueError):  # words, or rows of different lengths
            matrix = np.zeros(0)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise InputError(
                f"Expected a 4x4 transform_matrix of each frame in {printable(str(path))}, but "
                f"{frame.get('file_path')} has none."
            )
        pose = np.eye(4)
        pose[: len(matrix)] = matrix
        poses.append(KnownPose(pose @ _FLIP_YZ, _name(frame)))
    return tuple(poses)


def read_transforms_cameras(path: Path) -> tuple[KnownCamera, ...]:
    """Intrinsics of each frame by name, or one for all where the file has them once.

    Raises:
        InputError: no focal length, or fisheye lenses.
    """
    document = json_of(path, "transforms.json")
    if "FISHEYE" in str(document.get("camera_model", "")).upper():
        raise InputError(
            f"Expected cameras without fisheye lenses in {printable(str(path))}: undistort the photos first."
        )
    own = [frame for frame in _frames(path) if "fl_x" in frame]
    if not own:
        return (_camera(document, None, path),)
    return tuple(_camera({**document, **frame}, _name(frame), path) for frame in own)


def _frames(path: Path) -> list[dict[str, Any]]:
    frames = json_of(path, "transforms.json").get("frames")
    if not (isinstance(frames, list) and frames and all(isinstance(frame, dict) for frame in frames)):
        raise InputError(f"Expected frames in {printable(str(path))}, as nerfstudio writes transforms.json.")
    return frames


def _name(frame: dict[str, Any]) -> str | None:
    path = frame.get("file_path")
    return str(path) if path else None


def _camera(values: dict[str, Any], name: str | None, path: Path) -> KnownCamera:
    try:
        size = (int(values["w"]), int(values["h"])) if "w" in values and "h" in values else None
        focal = float(values["fl_x"]) if "fl_x" in values else _focal_of_angle(values, size)
        focal_y = float(values.get("fl_y", focal))
        if size is None:
            centre = (float(values["cx"]), float(values["cy"]))
        else:
            centre = (float(values.get("cx", size[0] / 2)), float(values.get("cy", size[1] / 2)))
        bent = [float(values.get(key, 0.0)) for key in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")]
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(
            f"Expected fl_x, fl_y, cx, cy, w, h (or camera_angle_x) in {printable(str(path))}: {error} is "
            "missing or no number."
        ) from error
    K = np.array([[focal, 0, centre[0]], [0, focal_y, centre[1]], [0, 0, 1]])
    moved = distortion_px(K, size, bent) if size is not None else 0.0
    K[:2, 2] -= CORNER_SHIFT_PX
    return KnownCamera(K, size, name, moved)


def _focal_of_angle(values: dict[str, Any], size: tuple[int, int] | None) -> float:
    angle = float(values["camera_angle_x"])
    if size is None:
        raise KeyError("w")
    return size[0] / 2 / math.tan(angle / 2)
