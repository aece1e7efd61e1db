"""BlendedMVS: textured meshes of buildings and objects, rendered and blended with the photos they came from.

Source: https://github.com/YoYo000/BlendedMVS (Yao et al., CVPR 2020); licence: CC BY 4.0.
Layout: SCENE/blended_images/00000000.jpg, cams/00000000_cam.txt (as MVSNet),
rendered_depth_maps/00000000.pfm. Every scene has a unit of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from g2vlm.data.prepare.files import pfm_depth
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, folders_with
from g2vlm.data.prepare.mvsnet import read_mvsnet_camera
from g2vlm.scene.scale import ScaleKind


class BlendedMvs(Layout):
    """All scenes."""

    name, title = "blendedmvs", "BlendedMVS"
    licence = "CC BY 4.0"
    source = "https://github.com/YoYo000/BlendedMVS"
    expects = "SCENE/blended_images, cams, rendered_depth_maps"
    scale = ScaleKind.RELATIVE
    scenes_per_shard = 8

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with pictures and cameras."""
        yield from folders_with(root, "blended_images", "cams")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers; the masked copies of the pictures are left alone."""
        folder = root / scene
        for path in sorted((folder / "cams").glob("*_cam.txt")):
            name = path.name.removesuffix("_cam.txt")
            K, T_world_camera = read_mvsnet_camera(path)
            picture = folder / "blended_images" / f"{name}.jpg"
            depth = pfm_depth(folder / "rendered_depth_maps" / f"{name}.pfm")
            yield ListedFrame(name, picture, K, T_world_camera, depth=depth)
