"""Hypersim: 461 photo-realistic rooms by artists, rendered by V-Ray.

Source: https://github.com/apple/ml-hypersim (Roberts et al., ICCV 2021); licence: CC BY-SA 3.0.
Layout: ai_001_001/_detail/cam_00/camera_keyframe_positions.hdf5 (asset units) and _orientations.hdf5
(camera-to-world, OpenGL axes), ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg and
scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5: metres along the ray, not z-depth. The repository's
metadata_camera_parameters.csv beside the scenes says for each scene how many metres an asset unit has, and
M_cam_from_uv: the ray of a place of the picture (-1 to 1), which lenses that are shifted or tilted make
different from a plain pinhole's. Such a camera equals a pinhole that is turned, into which pose and depth are
brought.
"""

import csv
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.linalg import rq

from g2vlm.data.prepare.files import GL_TO_CV, hdf5_array, z_of_distance
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError

_PARAMETERS = "metadata_camera_parameters.csv"


class Hypersim(Layout):
    """One scene for each camera path."""

    name, title = "hypersim", "Hypersim"
    licence = "CC BY-SA 3.0"
    source = "https://github.com/apple/ml-hypersim"
    expects = f"ai_*_*/_detail/cam_*, images, and {_PARAMETERS}"
    far_m = 120.0
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """SCENE/cam_XX."""
        for path in sorted(root.glob("ai_*/_detail/cam_*")):
            yield f"{path.parts[-3]}/{path.name}"

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers."""
        place, camera = scene.split("/")
        about = _parameters(root / _PARAMETERS).get(place)
        if about is None:
            raise InputError(f"Expected a row of {place} in {root / _PARAMETERS}.")
        metres = float(about["settings_units_info_meters_scale"])
        size = tuple(int(float(about[f"settings_output_img_{side}"])) for side in ("width", "height"))
        K, R_camera_pinhole = pinhole_of(_matrix(about), size[0], size[1])
        detail, images = root / place / "_detail" / camera, root / place / "images"
        positions = hdf5_array(detail / "camera_keyframe_positions.hdf5", "dataset")
        turns = hdf5_array(detail / "camera_keyframe_orientations.hdf5", "dataset")
        for picture in sorted((images / f"scene_{camera}_final_preview").glob("frame.*.tonemap.jpg")):
            number = int(picture.name.split(".")[1])
            if number >= len(positions):
                drop("there are fewer poses than pictures", f"{scene}/{number}")
                continue
            pose = np.eye(4)
            pose[:3, :3] = turns[number] @ GL_TO_CV[:3, :3] @ R_camera_pinhole
            pose[:3, 3] = positions[number] * metres
            file = images / f"scene_{camera}_geometry_hdf5" / f"frame.{number:04d}.depth_meters.hdf5"
            yield ListedFrame(
                f"{number:04d}", picture, K, pose, K_size=(size[0], size[1]), depth=_depth(file, K)
            )


def pinhole_of(M_cam_from_uv: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The pinhole camera that sees what a shifted or tilted one does.

    Args:
        M_cam_from_uv: takes (u, v, 1), -1 to 1 to the right and upwards, to rays in OpenGL axes.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Returns:
        K, integer pixel centres, and the rotation from the pinhole's axes (OpenCV's) to the camera's.

    Raises:
        InputError: its pixels are no rectangles, which no K of ours describes.
    """
    to_uv = np.array([[2 / width, 0, 1 / width - 1], [0, -2 / height, 1 - 1 / height], [0, 0, 1]])
    # Takes rays in OpenCV axes to pixels, up to a factor.
    general = np.linalg.inv(GL_TO_CV[:3, :3] @ M_cam_from_uv @ to_uv)
    K, R = rq(general)
    signs = np.diag(np.sign(np.diag(K)))
    K, R = K @ signs, signs @ R
    if np.linalg.det(R) < 0:  # the factor was negative
        R = -R
    K = K / K[2, 2]
    if abs(K[0, 1]) > 1e-3 * K[0, 0]:
        raise InputError(f"Expected a camera with rectangular pixels, got a skew of {K[0, 1]:.1f}.")
    K[0, 1] = 0.0
    return K, R.T


@lru_cache(maxsize=1)
def _parameters(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["scene_name"]: row for row in csv.DictReader(file)}
    except (OSError, KeyError) as error:
        raise InputError(f"Expected the cameras of all scenes in {path}: {error}.") from error


def _matrix(about: dict[str, str]) -> np.ndarray:
    return np.array([[float(about[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])


def _depth(path: Path, K: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: z_of_distance(hdf5_array(path, "dataset").astype(np.float64), K)
