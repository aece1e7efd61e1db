"""MatrixCity: streets and roofs of a city of the Unreal engine.

Source: https://city-super.github.io/matrixcity (Li et al., ICCV 2023); licence: CC BY-NC 4.0.
Layout: small_city/aerial/train/block_1/transforms.json with `camera_angle_x` and frames of `frame_index` and
`rot_mat`, camera-to-world in OpenGL axes with metres and a rotation that is a hundredth of one; pictures
images/0000.png (or rgb/0000.png), depth depth/0000.exr in centimetres, 65,000 and more in the sky.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.posed_frame import picture_size
from g2vlm.data.prepare.files import GL_TO_CV, exr_depth, intrinsics
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError

_FAR_M = 650.0


class MatrixCity(Layout):
    """Blocks with pictures."""

    name, title = "matrixcity", "MatrixCity"
    licence = "CC BY-NC 4.0"
    source = "https://city-super.github.io/matrixcity"
    expects = "small_city/aerial/train/block_1/transforms.json, images or rgb, depth"
    far_m = _FAR_M - 1

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with cameras, at any depth."""
        yield from deep_folders_with(root, "transforms.json")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of the file."""
        folder = root / scene
        try:
            content = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))
            angle, frames = float(content["camera_angle_x"]), content["frames"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"Expected camera_angle_x and frames in {folder}: {error!r}.") from error
        pictures = folder / "rgb" if (folder / "rgb").is_dir() else folder / "images"
        for about in frames:
            name = f"{int(about['frame_index']):04d}"
            picture = pictures / f"{name}.png"
            if not picture.is_file():
                drop("its picture is missing", f"{scene}/{name}")
                continue
            width, height = picture_size(picture.read_bytes())
            focal = 0.5 * width / math.tan(0.5 * angle)
            pose = np.array(about["rot_mat"], dtype=np.float64)
            pose[3] = (0, 0, 0, 1)
            pose[:3, :3] /= max(np.cbrt(abs(np.linalg.det(pose[:3, :3]))), 1e-12)
            yield ListedFrame(
                name,
                picture,
                intrinsics(focal, focal, width / 2 - 0.5, height / 2 - 0.5),
                pose @ GL_TO_CV,
                depth=exr_depth(folder / "depth" / f"{name}.exr", 0.01),
            )
