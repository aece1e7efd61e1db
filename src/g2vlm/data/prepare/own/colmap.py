"""COLMAP models with their pictures, and the depth of a dense reconstruction where there is one.

Layout: https://colmap.github.io/format.html: sparse/0/cameras.bin and images.bin (or .txt), images/NAME, and
of `image_undistorter` with `patch_match_stereo` also stereo/depth_maps/NAME.geometric.bin. Bent pictures are
straightened. Lengths have COLMAP's own unit.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.colmap_files import find_model, read_cameras, read_images
from g2vlm.data.prepare.distortion import straightened
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind


class Colmap(Layout):
    """A folder with a model, or folders of them."""

    name, title = "colmap", "COLMAP model"
    licence = "the user's own"
    source = "https://colmap.github.io/format.html"
    expects = "sparse/0/cameras, images (.bin or .txt) and images/, or folders that hold them"
    scale = ScaleKind.RELATIVE
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """The folder itself, or those directly below it."""
        if not root.is_dir():
            raise InputError(f"Expected a folder with a COLMAP model, got {root}, which is none.")
        if find_model(root) is not None:
            yield "."
            return
        for path in sorted(root.iterdir()):
            if path.is_dir() and find_model(path) is not None:
                yield path.name

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Sorted by the names of their files."""
        folder = root / scene
        model = find_model(folder)
        if model is None:
            raise InputError(f"Expected a COLMAP model in {folder}, found none.")
        cameras = read_cameras(model)
        pictures = folder / "images" if (folder / "images").is_dir() else folder
        for image in read_images(model):
            camera = cameras[image.camera]
            dense = folder / "stereo" / "depth_maps" / f"{image.name}.geometric.bin"
            yield ListedFrame(
                image.name,
                straightened(pictures / image.name, camera.K, camera.size, camera.lens),
                camera.K,
                image.T_world_camera,
                K_size=camera.size,
                depth=dense_depth(dense) if dense.is_file() else None,
            )


def dense_depth(path: Path) -> Callable[[], np.ndarray]:
    """Reader of COLMAP's own depth maps: `width&height&channels&`, then float32 column by column."""

    def read() -> np.ndarray:
        content = path.read_bytes()
        width, height, channels, numbers = content.split(b"&", 3)
        shape = (int(width), int(height), int(channels))
        values = np.frombuffer(numbers, dtype="<f4").reshape(shape, order="F")
        return values[..., 0].T.astype(np.float64)

    return read
