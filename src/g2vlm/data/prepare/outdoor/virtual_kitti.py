"""Virtual KITTI 2: five drives of KITTI rebuilt in Unity, in ten weathers.

Source: https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2 (Cabon et al., 2020); licence: CC BY-NC-SA
3.0.
Layout: Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg, frames/depth/Camera_0/depth_00000.png (centimetres,
the sky at 655.35 m), intrinsic.txt (frame cameraID fx fy cx cy) and extrinsic.txt (frame cameraID and 16
numbers, world-to-camera in OpenCV axes), each with a line of names.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import intrinsics, inverse, png_depth, square
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError


class VirtualKitti(Layout):
    """One scene for each drive, weather and camera."""

    name, title = "vkitti2", "Virtual KITTI 2"
    licence = "CC BY-NC-SA 3.0"
    source = "https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2"
    expects = "Scene01/clone/frames/rgb/Camera_0, frames/depth/Camera_0, intrinsic.txt, extrinsic.txt"
    far_m = 80.0
    scenes_per_shard = 2

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with cameras, once for each camera that has pictures."""
        for folder in deep_folders_with(root, "extrinsic.txt"):
            for camera in (0, 1):
                if (root / folder / "frames" / "rgb" / f"Camera_{camera}").is_dir():
                    yield f"{folder}/Camera_{camera}"

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers."""
        place, camera = scene.rsplit("/Camera_", 1)
        folder = root / place
        try:
            inner, outer = (
                np.loadtxt(folder / f"{kind}.txt", skiprows=1, ndmin=2) for kind in ("intrinsic", "extrinsic")
            )
        except (OSError, ValueError) as error:
            raise InputError(f"Expected intrinsic.txt and extrinsic.txt in {folder}: {error}.") from error
        cameras = {int(row[0]): intrinsics(*row[2:6]) for row in inner if int(row[1]) == int(camera)}
        for row in outer:
            number = int(row[0])
            if int(row[1]) != int(camera):
                continue
            if number not in cameras:
                drop("its intrinsics are missing", f"{scene}/{number}")
                continue
            frames = folder / "frames"
            picture = frames / "rgb" / f"Camera_{camera}" / f"rgb_{number:05d}.jpg"
            depth = png_depth(frames / "depth" / f"Camera_{camera}" / f"depth_{number:05d}.png", 0.01)
            yield ListedFrame(
                f"{number:05d}", picture, cameras[number], inverse(square(row[2:])), depth=depth
            )
