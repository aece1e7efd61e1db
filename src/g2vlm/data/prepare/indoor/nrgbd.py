"""Neural RGB-D: ten rendered rooms with a simulated depth sensor.

Source: https://dazinovic.github.io/neural-rgbd-surface-reconstruction (Azinovic et al., CVPR 2022); licence:
as the artists' of the rooms, in the archive.
Layout: SCENE/images/img0.png, depth/depth0.png (millimetres), focal.txt, and poses.txt: four rows of four
numbers for each frame, camera-to-world in OpenGL axes, `nan` where tracking was lost.
"""

from collections.abc import Iterator
from pathlib import Path

from g2vlm.data.posed_frame import picture_size
from g2vlm.data.prepare.files import GL_TO_CV, intrinsics, png_depth, read_matrix, read_rows
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, folders_with
from g2vlm.errors import InputError


class NeuralRgbd(Layout):
    """All rooms."""

    name, title = "nrgbd", "Neural RGB-D"
    licence = "as in the archive"
    source = "https://dazinovic.github.io/neural-rgbd-surface-reconstruction"
    expects = "SCENE/images, depth, focal.txt, poses.txt"

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with a focal length and poses."""
        yield from folders_with(root, "focal.txt", "poses.txt")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers."""
        folder = root / scene
        focal = float(read_matrix(folder / "focal.txt").ravel()[0])
        poses = read_rows(folder / "poses.txt", columns=4).reshape(-1, 4, 4)
        pictures = {int(path.stem.removeprefix("img")): path for path in (folder / "images").glob("img*.png")}
        if not pictures:
            raise InputError(f"Expected pictures images/img*.png in {folder}, found none.")
        for number in sorted(pictures):
            if number >= len(poses):
                drop("there are fewer poses than pictures", f"{scene}/{number}")
                continue
            # Rays are published as ((i - width / 2) / focal, ...) of integer pixels.
            width, height = picture_size(pictures[number].read_bytes())
            K = intrinsics(focal, focal, width / 2, height / 2)
            depth = png_depth(folder / "depth" / f"depth{number}.png", 0.001)
            yield ListedFrame(str(number), pictures[number], K, poses[number] @ GL_TO_CV, depth=depth)
