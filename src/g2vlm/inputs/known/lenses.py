"""COLMAP's camera models, as pinholes and how far their distortion moves pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from g2vlm.errors import InputError
from g2vlm.geometry.known import KnownCamera

CORNER_SHIFT_PX = 0.5
"""COLMAP and nerfstudio have the centre of the first pixel at (0.5, 0.5)."""


@dataclass(frozen=True)
class _Model:
    name: str
    num_params: int
    num_focal: int = 2
    is_pinhole: bool = True


MODELS = {
    0: _Model("SIMPLE_PINHOLE", 3, 1),
    1: _Model("PINHOLE", 4),
    2: _Model("SIMPLE_RADIAL", 4, 1),
    3: _Model("RADIAL", 5, 1),
    4: _Model("OPENCV", 8),
    5: _Model("OPENCV_FISHEYE", 8, is_pinhole=False),
    6: _Model("FULL_OPENCV", 12),
    7: _Model("FOV", 5, is_pinhole=False),
    8: _Model("SIMPLE_RADIAL_FISHEYE", 4, 1, is_pinhole=False),
    9: _Model("RADIAL_FISHEYE", 5, 1, is_pinhole=False),
    10: _Model("THIN_PRISM_FISHEYE", 12, is_pinhole=False),
}
"""By number, as binary files have them (https://colmap.github.io/cameras.html)."""


def camera_of(
    model: str, size: tuple[int, int], params: Sequence[float], name: str | None = None
) -> KnownCamera:
    """A camera of COLMAP.

    Args:
        model: its name, such as PINHOLE.
        size: width and height in pixels.
        params: focal lengths, principal point, then distortion, in COLMAP's order.
        name: of the photo.

    Raises:
        InputError: an unknown or a fisheye model, or a wrong number of parameters.
    """
    known = next((each for each in MODELS.values() if each.name == model), None)
    if known is None or not known.is_pinhole:
        raise InputError(
            f"Expected a camera without a fisheye lens (PINHOLE, SIMPLE_RADIAL, OPENCV, ...), got {model}: "
            "undistort the photos first."
        )
    if len(params) != known.num_params:
        raise InputError(f"Expected {known.num_params} parameters of a {model} camera, got {len(params)}.")
    focal = list(params[: known.num_focal]) * (3 - known.num_focal)
    cx, cy, *bent = params[known.num_focal :]
    K = np.array([[focal[0], 0, cx], [0, focal[1], cy], [0, 0, 1]], dtype=np.float64)
    distortion = _opencv_order(bent)
    moved = distortion_px(K, size, distortion)
    K[:2, 2] -= CORNER_SHIFT_PX
    return KnownCamera(K, size, name, moved)


def _opencv_order(bent: Sequence[float]) -> list[float]:
    """k1 k2 p1 p2 k3 k4 k5 k6, zeros where the model has none."""
    return [*bent, *[0.0] * (8 - len(bent))]


def distortion_px(K: np.ndarray, size: tuple[int, int], distortion: Sequence[float]) -> float:
    """How far distortion (k1 k2 p1 p2 k3 k4 k5 k6, OpenCV's) moves the borders of an image at most."""
    if not any(distortion):
        return 0.0
    width, height = size
    border = np.array([(x, y) for x in (0, width / 2, width) for y in (0, height / 2, height)], dtype=float)
    x, y = ((border - K[:2, 2]) / [K[0, 0], K[1, 1]]).T
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    moved_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) - x
    moved_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y - y
    return float(np.hypot(moved_x * K[0, 0], moved_y * K[1, 1]).max())
