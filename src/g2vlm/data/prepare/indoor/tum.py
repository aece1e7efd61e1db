"""TUM RGB-D: sequences of an office with a Kinect, cameras by motion capture; also anything in that layout.

Source: https://cvg.cit.tum.de/data/datasets/rgbd-dataset (Sturm et al., IROS 2012); licence: CC BY 4.0.
Layout: rgb.txt and depth.txt (timestamp, file), groundtruth.txt (timestamp tx ty tz qx qy qz qw,
camera-to-world in OpenCV axes, metres); or associations.txt with both stamps and files. Depth is in counts of
1/5000 m. Intrinsics are published on the site by the number of the camera (freiburg1 to 3); a file
intrinsics.txt with `fx fy cx cy` or a 3x3 matrix beside the lists comes first. Distortion is left in.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import intrinsics, png_depth, pose_of, read_matrix, read_rows
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, folders_with
from g2vlm.errors import InputError

_CAMERAS = {
    "1": (517.3, 516.5, 318.6, 255.3),
    "2": (520.9, 521.0, 325.1, 249.7),
    "3": (535.4, 539.2, 320.1, 247.6),
}
_ROS_DEFAULT = (525.0, 525.0, 319.5, 239.5)
_APART_S = 0.02
"""Largest time between what is taken to belong together."""


class TumRgbd(Layout):
    """Sequences in the layout of the benchmark."""

    name, title = "tum", "TUM RGB-D"
    licence = "CC BY 4.0"
    source = "https://cvg.cit.tum.de/data/datasets/rgbd-dataset"
    expects = "rgbd_dataset_*/rgb.txt, depth.txt, groundtruth.txt"
    far_m = 80.0

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with a trajectory, or the folder itself."""
        yield from folders_with(root, "groundtruth.txt")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Colour pictures in the order of time, each with the nearest depth and pose."""
        folder = root / scene
        truth = read_rows(folder / "groundtruth.txt", columns=8)
        truth = truth[np.argsort(truth[:, 0], kind="stable")]
        K = _camera(folder.resolve())
        for stamp, picture, depth in _associated(folder, drop):
            nearest = _nearest(truth[:, 0], stamp)
            if nearest is None:
                drop("no pose was measured within 20 ms", f"{scene}/{picture}")
                continue
            row = truth[nearest]
            yield ListedFrame(
                Path(picture).stem,
                folder / picture,
                K,
                pose_of(row[1:4], row[4:8]),
                depth=None if depth is None else png_depth(folder / depth, 1 / 5000),
            )


def _associated(folder: Path, drop: Drops) -> Iterator[tuple[float, str, str | None]]:
    """Stamp and file of every colour picture, and the file of the depth taken with it."""
    if not (folder / "rgb.txt").is_file():
        for words in _lists(folder / "associations.txt"):
            if len(words) < 4:
                raise InputError(f"Expected four words a line in {folder / 'associations.txt'}.")
            yield float(words[0]), words[1], words[3]
        return
    pictures = [(float(words[0]), words[1]) for words in _lists(folder / "rgb.txt")]
    depths: list[tuple[float, str]] = []
    if (folder / "depth.txt").is_file():
        depths = sorted((float(words[0]), words[1]) for words in _lists(folder / "depth.txt"))
    stamps = np.array([stamp for stamp, _ in depths])
    for stamp, picture in sorted(pictures):
        if not depths:
            yield stamp, picture, None
            continue
        nearest = _nearest(stamps, stamp)
        if nearest is None:
            drop("no depth was taken within 20 ms", f"{folder.name}/{picture}")
            continue
        yield stamp, picture, depths[nearest][1]


def _lists(path: Path) -> Iterator[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"Expected a list of files in {path}: {error.strerror}.") from error
    for line in lines:
        words = line.split()
        if words and not line.startswith("#"):
            yield words


def _nearest(stamps: np.ndarray, stamp: float) -> int | None:
    """Position of the nearest of some ordered stamps; None where it is too far away in time."""
    after = int(np.searchsorted(stamps, stamp))
    near = [k for k in (after - 1, after) if 0 <= k < len(stamps)]
    best = min(near, key=lambda k: abs(stamps[k] - stamp), default=None)
    return best if best is not None and abs(stamps[best] - stamp) <= _APART_S else None


def _camera(folder: Path) -> np.ndarray:
    own = folder / "intrinsics.txt"
    if own.is_file():
        numbers = read_matrix(own).ravel()
        return numbers.reshape(3, 3) if numbers.size == 9 else intrinsics(*numbers[:4])
    found = re.search(r"(?:freiburg|fr)([123])", folder.name)
    return intrinsics(*(_CAMERAS[found[1]] if found else _ROS_DEFAULT))
