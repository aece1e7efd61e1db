"""Focal lengths and principal points from a file, from four numbers, or from the photos themselves."""

from pathlib import Path

import numpy as np

from g2vlm.errors import InputError
from g2vlm.geometry.known import CameraBook, KnownCamera
from g2vlm.inputs.decode import printable
from g2vlm.inputs.known.colmap import read_cameras, read_model
from g2vlm.inputs.known.files import numbers_of, text_of
from g2vlm.inputs.known.transforms import read_transforms_cameras

_EXPECTED = (
    "intrinsics as fx,fy,cx,cy in pixels, cameras.txt or a model folder of COLMAP, transforms.json, or a "
    "text "
    "file with a 3x3 matrix K"
)


def read_intrinsics(source: str | Path) -> CameraBook:
    """Read intrinsics.

    Args:
        source: `fx,fy,cx,cy` in pixels of the photo (centres at integers), a COLMAP `cameras.txt`,
            `cameras.bin` or model folder, a `transforms.json`, or a text file of nine numbers (or sixteen,
            the upper left 3x3 of which counts).

    Raises:
        InputError: none of these.
    """
    path = Path(source).expanduser()
    if not path.exists():
        return CameraBook((_of_numbers(str(source)),), f"the option {printable(str(source))}")
    name = printable(path.name or str(path))
    if path.is_dir():
        return CameraBook(read_model(path).cameras, name)
    if path.suffix.lower() == ".json":
        return CameraBook(read_transforms_cameras(path), name)
    if path.name in ("cameras.txt", "cameras.bin"):
        return CameraBook(read_cameras(path), name)
    numbers = numbers_of(text_of(path, _EXPECTED).replace("[", " ").replace("]", " ").replace(";", " "))
    side = {9: 3, 16: 4}.get(len(numbers or ()))
    if numbers is None or side is None:
        raise InputError(f"Expected {_EXPECTED}, but {printable(str(path))} holds something else.")
    K = np.array(numbers).reshape(side, side)[:3, :3]
    if not np.allclose(K[2], [0, 0, 1]) or K[1, 0] != 0:
        raise InputError(
            f"Expected a matrix K with last row 0 0 1 in {printable(str(path))}, got {K.tolist()}."
        )
    return CameraBook((KnownCamera(K),), name)


def _of_numbers(text: str) -> KnownCamera:
    numbers = numbers_of(text)
    if numbers is None or len(numbers) != 4:
        raise InputError(
            f"Expected {_EXPECTED}, got {printable(text)!r}, which is neither there nor four numbers."
        )
    fx, fy, cx, cy = numbers
    return KnownCamera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
