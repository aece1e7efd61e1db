"""Aria Synthetic Environments: 100,000 rendered homes, seen through the glasses of Project Aria.

Source: https://www.projectaria.com/datasets/ase (Avetisyan et al., 2024); licence: its own, non-commercial.
Layout: 0/rgb/vignette0000000.jpg and 0/depth/depth0000000.png (704x704, fisheye; depth in millimetres along
the ray), 0/trajectory.csv (the glasses in the world: tx_world_device, ..., qw_world_device). The camera is
the same for all scenes, with the calibration that projectaria_tools publishes. Pictures and depth are
straightened to a pinhole of 512x512 pixels, 81 degrees wide.
"""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from g2vlm.data.prepare.files import intrinsics, png_depth, pose_of, z_of_distance
from g2vlm.data.prepare.fisheye import fisheye624_pixels
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, folders_with
from g2vlm.errors import InputError

PROJECTION = (
    *(297.6375381033778, 357.6599197217746, 349.1922497127481, 0.3650890375644368, -0.1738082418112771),
    *(-0.7534945484033189, 2.434788882752295, -2.57786220300886, 0.8788483538598834, 0.0008005198595407136),
    *(-0.000294237814554143, 0.0, 0.0, 0.0, 0.0),
)
"""Focal length, cx, cy, k0 to k5, p0, p1, s0 to s3, at 704 pixels."""
T_DEVICE_CAMERA = pose_of(
    [-0.007530096566173914, -0.010908549841580260, -0.003598063315542823],
    [0.326409343828490850, 0.029274992008313648, 0.033361059956531547, 0.9441858687689326],
)
SIDE, FOCAL = 512, 300.0
_COLUMNS = [f"{name}_world_device" for name in ("tx", "ty", "tz", "qx", "qy", "qz", "qw")]


class AriaSynthetic(Layout):
    """All homes."""

    name, title = "ase", "Aria Synthetic Environments"
    licence = "its own, non-commercial"
    source = "https://www.projectaria.com/datasets/ase"
    expects = "0/rgb, 0/depth, 0/trajectory.csv"
    far_m = 80.0

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with a trajectory."""
        yield from folders_with(root, "trajectory.csv", "rgb")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Row k of the trajectory belongs to picture k."""
        folder = root / scene
        try:
            with (folder / "trajectory.csv").open(encoding="utf-8", newline="") as file:
                rows = [[float(row[name]) for name in _COLUMNS] for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"Expected poses in {folder / 'trajectory.csv'}: {error!r}.") from error
        K = intrinsics(FOCAL, FOCAL, (SIDE - 1) / 2, (SIDE - 1) / 2)
        for picture in sorted((folder / "rgb").glob("vignette*.jpg")):
            number = picture.stem.removeprefix("vignette")
            if int(number) >= len(rows):
                drop("there are fewer poses than pictures", f"{scene}/{number}")
                continue
            row = rows[int(number)]
            depth = _straight_depth(png_depth(folder / "depth" / f"depth{number}.png", 0.001), K)
            pose = pose_of(row[:3], row[3:]) @ T_DEVICE_CAMERA
            yield ListedFrame(number, _straight_picture(picture, K), K, pose, depth=depth)


def _places(K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the fisheye picture shows each pixel of the straight one."""
    u, v = np.meshgrid(np.arange(SIDE, dtype=np.float64), np.arange(SIDE, dtype=np.float64))
    return fisheye624_pixels((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], PROJECTION)


def _straight_picture(path: Path, K: np.ndarray) -> Callable[[], bytes]:
    def read() -> bytes:
        import cv2

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        u, v = (place.astype(np.float32) for place in _places(K))
        buffer = io.BytesIO()
        straight = cv2.remap(pixels, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        Image.fromarray(straight).save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()

    return read


def _straight_depth(read: Callable[[], np.ndarray], K: np.ndarray) -> Callable[[], np.ndarray]:
    def straight() -> np.ndarray:
        distance = read()
        column, row = (np.round(place).astype(int) for place in _places(K))
        height, width = distance.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = distance[row.clip(0, height - 1), column.clip(0, width - 1)]
        return z_of_distance(np.where(inside, found, 0.0), K)

    return straight
