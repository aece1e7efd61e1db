"""Pictures of lenses that bend lines, as a pinhole camera with the same K would have taken them."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from g2vlm.data.posed_frame import resized_intrinsics


@dataclass(frozen=True)
class Lens:
    """Distortion coefficients as OpenCV takes them."""

    coefficients: tuple[float, ...] = ()
    """k1, k2, p1, p2 and more; of a fisheye k1 to k4."""
    is_fisheye: bool = False

    @property
    def is_straight(self) -> bool:
        """Whether it bends nothing."""
        return not any(self.coefficients) and not self.is_fisheye


def straightened(
    path: Path, K: Float[np.ndarray, "3 3"], K_size: tuple[int, int] | None, lens: Lens
) -> Path | Callable[[], bytes]:
    """What makes the straightened picture: the file itself where nothing is bent, else a reader.

    Args:
        path: the picture.
        K: its intrinsics, which the straightened one keeps.
        K_size: width and height that K belongs to; the picture's own where not given.
        lens: what took it.
    """
    if lens.is_straight:
        return path

    def read() -> bytes:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        size = (pixels.shape[1], pixels.shape[0])
        own = K if K_size is None else resized_intrinsics(K, K_size, size)
        buffer = io.BytesIO()
        result = _remapped(pixels, own, lens, nearest=False)
        Image.fromarray(result).save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()

    return read


def straightened_depth(
    read: Callable[[], np.ndarray], K: np.ndarray, K_size: tuple[int, int] | None, lens: Lens
) -> Callable[[], np.ndarray]:
    """The same for a depth map, by the nearest pixel."""
    if lens.is_straight:
        return read

    def straight() -> np.ndarray:
        depth = read()
        size = (depth.shape[1], depth.shape[0])
        own = K if K_size is None else resized_intrinsics(K, K_size, size)
        return _remapped(depth.astype(np.float32), own, lens, nearest=True)

    return straight


def _remapped(values: np.ndarray, K: np.ndarray, lens: Lens, nearest: bool) -> np.ndarray:
    import cv2

    size = (values.shape[1], values.shape[0])
    coefficients = np.array(lens.coefficients, dtype=np.float64)
    if lens.is_fisheye:
        maps = cv2.fisheye.initUndistortRectifyMap(K, coefficients[:4], np.eye(3), K, size, cv2.CV_32FC1)
    else:
        maps = cv2.initUndistortRectifyMap(K, coefficients, None, K, size, cv2.CV_32FC1)
    way = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.remap(values, *maps, way, borderMode=cv2.BORDER_CONSTANT, borderValue=0))
