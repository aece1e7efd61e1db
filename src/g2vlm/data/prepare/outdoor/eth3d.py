"""ETH3D high-resolution: 13 places with DSLR photos and a laser scanner.

Source: https://www.eth3d.net (Schoeps et al., CVPR 2017); licence: CC BY-NC-SA 4.0.
Layout: SCENE/dslr_calibration_undistorted/cameras.txt and images.txt (COLMAP, PINHOLE), photos in
images/dslr_images_undistorted, and depth in ground_truth_depth/dslr_images/NAME: raw float32 metres, infinite
where nothing was scanned, for the photos as they were taken, whose bent camera
dslr_calibration_jpg/cameras.txt describes (THIN_PRISM_FISHEYE). The depth is carried over to the straight
photos.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.posed_frame import resized_intrinsics
from g2vlm.data.prepare.colmap_files import ColmapCamera, read_cameras, read_images
from g2vlm.data.prepare.files import resized_jpeg
from g2vlm.data.prepare.fisheye import thin_prism_pixels
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, folders_with

_WIDTH = 1552
"""Photos are made as wide as a quarter of the camera's: depth of 24 megapixels would fill disks."""


class Eth3d(Layout):
    """Training scenes."""

    name, title = "eth3d", "ETH3D high-resolution"
    licence = "CC BY-NC-SA 4.0"
    source = "https://www.eth3d.net"
    expects = "SCENE/dslr_calibration_undistorted, dslr_calibration_jpg, images, ground_truth_depth"
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with straightened cameras."""
        yield from folders_with(root, "dslr_calibration_undistorted")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """By name."""
        folder = root / scene
        cameras = read_cameras(folder / "dslr_calibration_undistorted")
        bent_folder, depths = folder / "dslr_calibration_jpg", folder / "ground_truth_depth" / "dslr_images"
        bent: dict[str, ColmapCamera] = {}
        if depths.is_dir() and bent_folder.is_dir():
            originals = read_cameras(bent_folder)
            bent = {Path(i.name).name: originals[i.camera] for i in read_images(bent_folder)}
        for image in read_images(folder / "dslr_calibration_undistorted"):
            name, camera = Path(image.name).name, cameras[image.camera]
            width, height = camera.size
            size = (_WIDTH, round(height * _WIDTH / width)) if width > _WIDTH else camera.size
            depth = None
            if bent:
                if name not in bent or not (depths / name).is_file():
                    drop("its depth is missing", f"{scene}/{name}")
                    continue
                K = resized_intrinsics(camera.K, camera.size, size)
                depth = _carried(depths / name, bent[name], K, size)
            picture = resized_jpeg(folder / "images" / image.name, size)
            yield ListedFrame(name, picture, camera.K, image.T_world_camera, K_size=camera.size, depth=depth)


def _carried(
    path: Path, bent: ColmapCamera, K: np.ndarray, size: tuple[int, int]
) -> Callable[[], np.ndarray]:
    """Reader of depth at the pixels of the straight photo; both cameras stand at the same place."""

    def read() -> np.ndarray:
        width, height = bent.size
        depth = np.fromfile(path, dtype="<f4")
        if depth.size != width * height:
            raise ValueError(f"{width}x{height} numbers expected in {path.name}, got {depth.size}")
        u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
        column, row = (np.round(place).astype(int) for place in thin_prism_pixels(x, y, bent.params))
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = depth.reshape(height, width)[row.clip(0, height - 1), column.clip(0, width - 1)]
        return np.where(inside & np.isfinite(found), found, 0.0).astype(np.float64)

    return read
