"""ARKitScenes: 5,000 scans of rooms with an iPad's camera and LiDAR.

Source: https://github.com/apple/ARKitScenes (Baruch et al., NeurIPS 2021); licence: CC BY-NC-SA 4.0.
Layout: Training/VIDEO/lowres_wide/VIDEO_STAMP.png (256x192), or vga_wide (640x480) where it was fetched,
lowres_depth (millimetres, 256x192), confidence (0 to 2), lowres_wide_intrinsics/VIDEO_STAMP.pincam (width
height fx fy cx cy) or vga_wide_intrinsics, and lowres_wide.traj: rows `stamp rx ry rz tx ty tz`,
world-to-camera, the rotation as axis times angle, in OpenCV axes. Stamps are in seconds; the nearest pose
within 20 ms is taken. Depth of confidence 0 is not trusted.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from g2vlm.data.prepare.files import intrinsics, inverse, png_depth, read_rows
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError

_APART_S = 0.02


class ArkitScenes(Layout):
    """Videos of the raw or the 3DOD part."""

    name, title = "arkitscenes", "ARKitScenes"
    licence = "CC BY-NC-SA 4.0"
    source = "https://github.com/apple/ARKitScenes"
    expects = "VIDEO/lowres_wide.traj, lowres_depth, lowres_wide (or vga_wide) and its _intrinsics"
    far_m = 120.0
    scenes_per_shard = 2

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with a trajectory, at any depth."""
        yield from deep_folders_with(root, "lowres_wide.traj")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of time."""
        folder = root / scene
        kind = "vga_wide" if (folder / "vga_wide").is_dir() else "lowres_wide"
        poses = read_rows(folder / "lowres_wide.traj", columns=7)
        pictures = sorted((folder / kind).glob("*.png"), key=lambda path: _stamp(path.stem))
        if not pictures:
            raise InputError(f"Expected pictures {kind}/*.png in {folder}, found none.")
        for picture in pictures:
            what, stamp = f"{scene}/{picture.stem}", _stamp(picture.stem)
            nearest = int(np.argmin(np.abs(poses[:, 0] - stamp)))
            if abs(poses[nearest, 0] - stamp) > _APART_S:
                drop("no pose was measured within 20 ms", what)
                continue
            camera = folder / f"{kind}_intrinsics" / f"{picture.stem}.pincam"
            if not camera.is_file():
                drop("its intrinsics are missing", what)
                continue
            width, height, *numbers = read_rows(camera, columns=6)[0]
            confidence = folder / "confidence" / picture.name
            yield ListedFrame(
                picture.stem,
                picture,
                intrinsics(*numbers),
                _pose(poses[nearest]),
                K_size=(int(width), int(height)),
                depth=png_depth(folder / "lowres_depth" / picture.name, 0.001),
                valid=_trusted(confidence) if confidence.is_file() else None,
            )


def _stamp(stem: str) -> float:
    """Seconds, from VIDEO_SECONDS."""
    return float(stem.rpartition("_")[2])


def _pose(row: np.ndarray) -> np.ndarray:
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3] = Rotation.from_rotvec(row[1:4]).as_matrix()
    T_camera_world[:3, 3] = row[4:7]
    return inverse(T_camera_world)


def _trusted(path: Path) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image) > 0

    return read
