"""DTU MVS: objects on a table, seen from 49 or 64 places of a robot arm.

Source: https://roboimagedata.compute.dtu.dk (Jensen et al., CVPR 2014); licence: for research.
Layouts, both in the arm's millimetres, which become metres:

- of MVSNet: scan1/images/00000000.jpg, cams/00000000_cam.txt (extrinsic, world-to-camera, and intrinsic) and
  depths/00000000.npy or depth_map/00000000.pfm;
- of IDR and NeuS: dtu_scan65/cameras_sphere.npz with world_mat_K (a projection matrix into pixels) and
  image/000000.png. There is no depth; the object masks are left alone.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import array_depth, inverse, pfm_depth
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.data.prepare.mvsnet import read_mvsnet_camera
from g2vlm.errors import InputError

_METRES = 0.001


class Dtu(Layout):
    """Scans in either layout."""

    name, title = "dtu", "DTU MVS"
    licence = "for research"
    source = "https://roboimagedata.compute.dtu.dk"
    expects = "scan*/cams, images (MVSNet) or dtu_scan*/cameras_sphere.npz, image (IDR)"
    scenes_per_shard = 8

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders in either layout, or the folder itself."""
        for path in [root, *sorted(root.iterdir())] if root.is_dir() else []:
            if (path / "cameras_sphere.npz").is_file() or (path / "cams").is_dir():
                yield "." if path == root else path.name

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers."""
        folder = root / scene
        yield from _projections(folder) if (folder / "cameras_sphere.npz").is_file() else _mvsnet(folder)


def _mvsnet(folder: Path) -> Iterator[ListedFrame]:
    for path in sorted((folder / "cams").glob("*_cam.txt")):
        name = path.name.removesuffix("_cam.txt")
        K, T_world_camera = read_mvsnet_camera(path)
        T_world_camera[:3, 3] *= _METRES
        yield ListedFrame(
            name, folder / "images" / f"{name}.jpg", K, T_world_camera, depth=_depth(folder, name)
        )


def _depth(folder: Path, name: str) -> Callable[[], np.ndarray] | None:
    array, picture = folder / "depths" / f"{name}.npy", folder / "depth_map" / f"{name}.pfm"
    if array.is_file():
        return array_depth(array, _METRES)
    if picture.is_file():
        read = pfm_depth(picture)
        return lambda: read() * _METRES
    return None


def _projections(folder: Path) -> Iterator[ListedFrame]:
    import cv2

    try:
        with np.load(folder / "cameras_sphere.npz") as stored:
            matrices = {name: stored[name] for name in stored.files if name.startswith("world_mat_")}
    except (OSError, ValueError) as error:
        raise InputError(f"Expected cameras in {folder / 'cameras_sphere.npz'}: {error}.") from error
    numbers = {name.removeprefix("world_mat_") for name in matrices} - {""}
    for number in sorted((n for n in numbers if n.isdigit()), key=int):
        picture = folder / "image" / f"{int(number):06d}.png"
        P = matrices[f"world_mat_{number}"][:3, :4]
        # A projection matrix is known up to a factor, of either sign.
        K, R, centre, *_ = cv2.decomposeProjectionMatrix(P * np.sign(np.linalg.det(P[:, :3])))
        T_camera_world = np.eye(4)
        T_camera_world[:3, :3] = R
        T_world_camera = inverse(T_camera_world)
        T_world_camera[:3, 3] = centre[:3, 0] / centre[3, 0] * _METRES
        yield ListedFrame(picture.stem, picture, K / K[2, 2], T_world_camera)
