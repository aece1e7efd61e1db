"""7-Scenes: Kinect sequences of seven rooms, and other sets in its layout, such as 3DMatch's.

Source: https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes (Shotton et al., CVPR 2013);
licence: Microsoft research licence, non-commercial.
Layout: SCENE/seq-01/frame-000000.color.png, frame-000000.depth.png, frame-000000.pose.txt (camera-to-world,
OpenCV axes, metres). Depth is in millimetres, 65535 where it is unknown. The published depth belongs to the
depth camera, not to the colour camera: its points are carried over, with the calibration that people use for
this set (focal lengths 585 and 525 pixels, 26 mm between the cameras). Where a frame has a depth.proj.png,
which is registered already, that is taken; and where a camera-intrinsics.txt lies beside the sequences,
depth and colour are taken to share it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import intrinsics, png_depth, read_matrix, square
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.data.prepare.registration import carried_depth
from g2vlm.errors import InputError

_COLOUR = intrinsics(525, 525, 320, 240)
_DEPTH = intrinsics(585, 585, 320, 240)
_T_COLOUR_DEPTH = np.array(
    [
        [0.99996518, 0.00267651, -0.00790410, -0.02555894],
        [-0.00274093, 0.99996303, -0.00815045, 0.00010110],
        [0.00788199, 0.00817183, 0.99993554, 0.00203183],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""Points of a Kinect's depth camera in its colour camera: the calibration of LIRIS
(https://projet.liris.cnrs.fr/voir/activities-dataset/kinect-calibration.html) that is used for this set."""


class SevenScenes(Layout):
    """Sequences of single rooms."""

    name, title = "7scenes", "7-Scenes"
    licence = "Microsoft research licence, non-commercial"
    source = "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes"
    expects = "SCENE/seq-01/frame-000000.color.png, .depth.png, .pose.txt"

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders of sequences, at any depth."""
        for name in deep_folders_with(root, "seq-01"):
            yield from (
                f"{name}/{path.name}" for path in sorted((root / name).glob("seq-*")) if path.is_dir()
            )

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers."""
        folder = root / scene
        own = folder.parent / "camera-intrinsics.txt"
        shared = read_matrix(own) if own.is_file() else None
        pictures = sorted(folder.glob("frame-*.color.png"))
        if not pictures:
            raise InputError(f"Expected pictures frame-*.color.png in {folder}, found none.")
        for picture in pictures:
            stem = picture.name.removesuffix(".color.png")
            pose = folder / f"{stem}.pose.txt"
            if not pose.is_file():
                drop("its pose is missing", f"{scene}/{stem}")
                continue
            K, depth = _camera(folder, stem, shared)
            yield ListedFrame(stem, picture, K, square(read_matrix(pose)), depth=depth)


def _camera(
    folder: Path, stem: str, shared: np.ndarray | None
) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
    """K of the colour picture and the reader of the depth that it sees."""
    registered, own = folder / f"{stem}.depth.proj.png", folder / f"{stem}.depth.png"
    if registered.is_file():
        return _COLOUR, png_depth(registered, 0.001)
    if shared is not None:
        return shared, png_depth(own, 0.001)
    read = png_depth(own, 0.001)
    return _COLOUR, lambda: carried_depth(read(), _DEPTH, _T_COLOUR_DEPTH, _COLOUR)
