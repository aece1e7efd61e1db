"""Camera files of MVSNet, in which several multi-view sets are handed on."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from g2vlm.data.prepare.files import inverse
from g2vlm.errors import InputError


def read_mvsnet_camera(
    path: Path,
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"]]:
    """K and the camera-to-world pose of a `*_cam.txt`: `extrinsic`, 16 numbers, `intrinsic`, 9 numbers.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        words = path.read_text(encoding="utf-8").split()
        first, second = words.index("extrinsic") + 1, words.index("intrinsic") + 1
        T_camera_world = np.array(words[first : first + 16], dtype=np.float64).reshape(4, 4)
        K = np.array(words[second : second + 9], dtype=np.float64).reshape(3, 3)
    except (OSError, ValueError) as error:
        raise InputError(f"Expected extrinsic and intrinsic in {path}: {error}.") from error
    return K, inverse(T_camera_world)
