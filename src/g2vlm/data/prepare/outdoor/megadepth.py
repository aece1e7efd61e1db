"""MegaDepth: 196 landmarks of tourists' photos, cameras and depth by COLMAP.

Source: https://www.cs.cornell.edu/projects/megadepth (Li and Snavely, CVPR 2018); licence: CC BY 4.0 of the
depth, the photos are Flickr's.
Layout: that of D2-Net and its followers, Undistorted_SfM/0000/sparse-txt/cameras.txt and images.txt with
Undistorted_SfM/0000/images, and depth in phoenix/S6/zl548/MegaDepth_v1/0000/dense0/depths/NAME.h5 (`depth`;
not positive where it is unknown or only ordinal). Lengths have COLMAP's own unit.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.colmap_files import find_model, read_cameras, read_images
from g2vlm.data.prepare.distortion import straightened
from g2vlm.data.prepare.files import hdf5_array
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind

_DEPTHS = "phoenix/S6/zl548/MegaDepth_v1/{scene}/dense{part}/depths"


class MegaDepth(Layout):
    """Landmarks with straightened pictures."""

    name, title = "megadepth", "MegaDepth"
    licence = "CC BY 4.0 (depth); Flickr's terms (photos)"
    source = "https://www.cs.cornell.edu/projects/megadepth"
    expects = "Undistorted_SfM/0000/sparse-txt, images, and phoenix/S6/zl548/MegaDepth_v1/0000/dense0/depths"
    scale = ScaleKind.RELATIVE
    scenes_per_shard = 1

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with a model."""
        for path in sorted((root / "Undistorted_SfM").glob("*")):
            if path.is_dir() and find_model(path) is not None:
                yield path.name

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Photos that have depth, by name."""
        folder = root / "Undistorted_SfM" / scene
        model = find_model(folder)
        if model is None:
            raise InputError(f"Expected a COLMAP model in {folder}, found none.")
        cameras = read_cameras(model)
        for image in read_images(model):
            name = Path(image.name).stem + ".h5"
            places = [root / _DEPTHS.format(scene=scene, part=part) / name for part in range(10)]
            file = next((path for path in places if path.is_file()), None)
            if file is None:
                drop("its depth is missing", f"{scene}/{image.name}")
                continue
            camera = cameras[image.camera]
            picture = straightened(folder / "images" / image.name, camera.K, camera.size, camera.lens)
            yield ListedFrame(
                image.name, picture, camera.K, image.T_world_camera, K_size=camera.size, depth=_depth(file)
            )


def _depth(path: Path) -> Callable[[], np.ndarray]:
    return lambda: hdf5_array(path, "depth").astype(np.float64)
