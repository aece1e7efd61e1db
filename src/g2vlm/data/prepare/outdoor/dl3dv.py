"""DL3DV-10K: walks through ten thousand places, cameras by COLMAP, no depth.

Source: https://dl3dv-10k.github.io (Ling et al., CVPR 2024); licence: DL3DV terms of use, non-commercial.
Layout: 1K/HASH/transforms.json as nerfstudio writes it, for pictures of 3840x2160; the smaller copies that
are handed out lie in images_4 or images_8 (or images_2). Lengths have COLMAP's own unit.
"""

from collections.abc import Iterator
from pathlib import Path

from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.data.prepare.own.nerfstudio import NAME, listed_transforms
from g2vlm.scene.scale import ScaleKind


class Dl3dv(Layout):
    """All places."""

    name, title = "dl3dv", "DL3DV-10K"
    licence = "DL3DV terms of use, non-commercial"
    source = "https://dl3dv-10k.github.io"
    expects = "1K/HASH/transforms.json with images_4, images_8 or images"
    scale = ScaleKind.RELATIVE
    scenes_per_shard = 2

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with cameras, at any depth."""
        yield from deep_folders_with(root, NAME)

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Sorted by the names of their files."""
        yield from listed_transforms(root / scene / NAME, scene, drop)
