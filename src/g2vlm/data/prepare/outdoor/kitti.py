"""KITTI odometry: drives with stereo cameras, poses by GPS and inertial sensors, no dense depth.

Source: https://www.cvlibs.net/datasets/kitti/eval_odometry.php (Geiger et al., CVPR 2012); licence: CC
BY-NC-SA 3.0. Layout: sequences/00/image_2/000000.png, sequences/00/calib.txt (`P2:` and 12 numbers, a
projection matrix) and poses/00.txt: rows of 12 numbers, the left grey camera in the first one's world. A
folder with calib.txt (two rows without names: left and right), poses.txt and image_l/ is read too.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import inverse, read_rows, square
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError


class Kitti(Layout):
    """Sequences with poses."""

    name, title = "kitti", "KITTI odometry"
    licence = "CC BY-NC-SA 3.0"
    source = "https://www.cvlibs.net/datasets/kitti/eval_odometry.php"
    expects = "sequences/00/image_2, sequences/00/calib.txt, poses/00.txt"
    scenes_per_shard = 1

    def scenes(self, root: Path) -> Iterator[str]:
        """Sequences whose poses are published, or the folder itself."""
        if (root / "poses.txt").is_file():
            yield "."
        for path in sorted(root.glob("poses/*.txt")):
            if (root / "sequences" / path.stem / "image_2").is_dir():
                yield f"sequences/{path.stem}"

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Row k of the poses belongs to picture k."""
        folder = root / scene
        alone = scene == "."
        poses = read_rows(root / ("poses.txt" if alone else f"poses/{folder.name}.txt"), columns=12)
        P = _projection(folder / "calib.txt", "P0" if alone else "P2")
        K = P[:, :3]
        # P = K [1 | t]: the camera lies beside the one whose poses are given.
        T_camera_left = np.eye(4)
        T_camera_left[:3, 3] = np.linalg.solve(K, P[:, 3])
        for picture in sorted((folder / ("image_l" if alone else "image_2")).glob("[0-9]*.png")):
            number = int(picture.stem)
            if number >= len(poses):
                drop("there are fewer poses than pictures", f"{scene}/{picture.stem}")
                continue
            yield ListedFrame(picture.stem, picture, K, square(poses[number]) @ inverse(T_camera_left))


def _projection(path: Path, name: str) -> np.ndarray:
    """The projection matrix of a camera, (3, 4), by its name, or the first where there are no names."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = {words[0].rstrip(":"): words[1:] for words in lines if words[0].startswith("P")}
        return np.array(rows[name] if rows else lines[0], dtype=np.float64).reshape(3, 4)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"Expected a projection matrix {name} in {path}: {error!r}.") from error
