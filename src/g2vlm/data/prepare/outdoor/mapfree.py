"""Map-free relocalisation: phone videos of 655 places, two walks of each, metric poses, no depth.

Source: https://research.nianticlabs.com/mapfree-reloc-benchmark (Arnold et al., ECCV 2022); licence:
Niantic's, non-commercial.
Layout: train/s00000/seq0/frame_00000.jpg and seq1/, intrinsics.txt (`seq0/frame_00000.jpg fx fy cx cy width
height`) and poses.txt (`seq0/frame_00000.jpg qw qx qy qz tx ty tz`, world-to-camera in OpenCV axes).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import intrinsics, inverse, pose_of
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError


class MapFree(Layout):
    """Places with both walks."""

    name, title = "mapfree", "Map-free relocalisation"
    licence = "Niantic's, non-commercial"
    source = "https://research.nianticlabs.com/mapfree-reloc-benchmark"
    expects = "train/s00000/intrinsics.txt, poses.txt, seq0, seq1"
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with poses, at any depth."""
        yield from deep_folders_with(root, "poses.txt")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Both walks, in the order of the poses."""
        folder = root / scene
        cameras = dict(_rows(folder / "intrinsics.txt", 6))
        for name, numbers in _rows(folder / "poses.txt", 7):
            if name not in cameras:
                drop("its intrinsics are missing", f"{scene}/{name}")
                continue
            fx, fy, cx, cy, width, height = cameras[name]
            T_camera_world = pose_of(numbers[4:], np.roll(numbers[:4], -1))
            yield ListedFrame(
                name.removesuffix(".jpg"),
                folder / name,
                intrinsics(fx, fy, cx, cy),
                inverse(T_camera_world),
                K_size=(int(width), int(height)),
            )


def _rows(path: Path, count: int) -> Iterator[tuple[str, np.ndarray]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            words = line.split()
            if words and not line.startswith("#"):
                yield words[0], np.array(words[1 : 1 + count], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a name and {count} numbers a line in {path}: {error}.") from error
