"""RealEstate10K: clips of house tours, cameras by SLAM, no depth.

Source: https://google.github.io/realestate10k (Zhou et al., SIGGRAPH 2018); licence of the camera files: CC
BY 4.0; the videos are YouTube's, and their frames have to be fetched by oneself.
Layout: train/ID.txt: the video's address, then rows `stamp_us fx fy cx cy k1 k2` and a 3x4 world-to-camera
matrix, intrinsics as shares of the picture; frames in frames/train/ID/STAMP.png (or .jpg). Lengths have a
unit of their own in each clip.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.posed_frame import picture_size
from g2vlm.data.prepare.files import intrinsics, inverse, square
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind


class RealEstate10k(Layout):
    """Clips whose frames are there."""

    name, title = "realestate10k", "RealEstate10K"
    licence = "CC BY 4.0 (cameras); YouTube's terms (videos)"
    source = "https://google.github.io/realestate10k"
    expects = "train/*.txt or test/*.txt, and frames/train/ID/STAMP.png or .jpg"
    scale = ScaleKind.RELATIVE
    scenes_per_shard = 32

    def scenes(self, root: Path) -> Iterator[str]:
        """Clips with a folder of frames."""
        for path in sorted(root.glob("*/*.txt")):
            if (root / "frames" / path.parent.name / path.stem).is_dir():
                yield f"{path.parent.name}/{path.stem}"

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of time."""
        path, folder = root / f"{scene}.txt", root / "frames" / scene
        try:
            rows = np.loadtxt(path, skiprows=1, ndmin=2)
        except (OSError, ValueError) as error:
            raise InputError(f"Expected rows of cameras in {path}: {error}.") from error
        if rows.shape[1] != 19:
            raise InputError(f"Expected 19 numbers a row in {path}, got {rows.shape[1]}.")
        for row in rows:
            name = str(int(row[0]))
            picture = next((p for e in (".png", ".jpg") if (p := folder / f"{name}{e}").is_file()), None)
            if picture is None:
                drop("its picture is missing", f"{scene}/{name}")
                continue
            width, height = picture_size(picture.read_bytes())
            K = intrinsics(row[1] * width, row[2] * height, row[3] * width - 0.5, row[4] * height - 0.5)
            yield ListedFrame(name, picture, K, inverse(square(row[7:])))
