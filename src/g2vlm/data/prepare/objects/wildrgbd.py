"""WildRGB-D: turns around everyday objects with an iPhone's depth.

Source: https://github.com/wildrgbd/wildrgbd (Xia et al., CVPR 2024); licence: MIT in the repository.
Layout: CATEGORY/scenes/scene_000/rgb/00000.png, depth/00000.png (millimetres), metadata (JSON: w, h and K,
nine numbers column by column) and cam_poses.txt: a frame's number and 16 numbers, camera-to-world in OpenCV
axes.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import png_depth, read_rows, square
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError


class WildRgbd(Layout):
    """Scenes of all categories."""

    name, title = "wildrgbd", "WildRGB-D"
    licence = "MIT"
    source = "https://github.com/wildrgbd/wildrgbd"
    expects = "CATEGORY/scenes/scene_000/rgb, depth, metadata, cam_poses.txt"
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with poses, at any depth."""
        yield from deep_folders_with(root, "cam_poses.txt")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of the poses."""
        folder = root / scene
        try:
            about = json.loads((folder / "metadata").read_text(encoding="utf-8"))
            K = np.array(about["K"], dtype=np.float64).reshape(3, 3).T
            size = (int(about["w"]), int(about["h"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"Expected w, h and K in {folder / 'metadata'}: {error!r}.") from error
        for row in read_rows(folder / "cam_poses.txt", columns=17):
            name = f"{int(row[0]):05d}"
            depth = png_depth(folder / "depth" / f"{name}.png", 0.001)
            yield ListedFrame(
                name, folder / "rgb" / f"{name}.png", K, square(row[1:]), K_size=size, depth=depth
            )
