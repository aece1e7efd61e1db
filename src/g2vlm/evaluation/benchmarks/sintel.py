"""MPI Sintel: depth of single images of animated films (Butler et al. 2012).

Protocol of MonST3R and its followers: every frame of the 23 training sequences, final pass, by itself; depths
of 70 m and more are left out and predictions are cut there. Here one median scale per image, and errors at
the model's pixels; published figures resize the prediction to the original resolution first, which changes
them little.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions, SceneTruth
from g2vlm.evaluation.published import G2VLM_PAPER, table
from g2vlm.evaluation.trials import Trial
from g2vlm.inputs.photos import load_photos

VERSION = 1
LAYOUT = (
    "Sintel's folder with training/final/<sequence>/frame_0001.png, training/depth/<sequence>/frame_0001.dpt "
    "and training/camdata_left/<sequence>/frame_0001.cam"
)
MAX_DEPTH_M = 70.0
PUBLISHED = table(
    G2VLM_PAPER,
    ("depth/abs_rel", "depth/delta"),
    {
        "G2VLM": (0.297, 0.589),
        "VGGT": (0.335, 0.599),
        "Pi3": (0.277, 0.614),
        "CUT3R": (0.418, 0.520),
        "Fast3R": (0.544, 0.509),
    },
)
_TAG = 202021.25


@dataclass(frozen=True)
class SintelBenchmark:
    """All frames, each by itself.

    Raises:
        InputError: no frames with depth are there.
    """

    folder: Path
    num_scenes: int | None = None
    """At most so many frames, evenly spread over all; all 1064 if None."""

    def __post_init__(self) -> None:
        if not self.scenes():
            raise InputError(f"Expected {LAYOUT}; found none in {self.folder}.")

    @property
    def task(self) -> str:
        """Name and version."""
        return f"sintel-{VERSION}"

    @property
    def geometry_options(self) -> GeometryOptions:
        """Depth up to 70 m."""
        return GeometryOptions(max_depth=MAX_DEPTH_M)

    @property
    def settings(self) -> dict[str, Any]:
        """Number of frames, and how they are measured."""
        return {"num_images": len(self.scenes()), "geometry_options": self.geometry_options.to_json()}

    def scenes(self) -> Sequence[str]:
        """`sequence/frame`."""
        root = self.folder / "training" / "depth"
        names = [f"{path.parent.name}/{path.stem}" for path in sorted(root.glob("*/*.dpt"))]
        if self.num_scenes is None or len(names) <= self.num_scenes:
            return names
        return [names[k] for k in np.linspace(0, len(names) - 1, self.num_scenes).round().astype(int)]

    def load(self, scene: str) -> Trial:
        """Read one frame."""
        training = self.folder / "training"
        photo = load_photos(training / "final" / f"{scene}.png").photos[0].image
        depth = read_depth(training / "depth" / f"{scene}.dpt")
        K, T_camera_world = read_camera(training / "camdata_left" / f"{scene}.cam")
        true = torch.from_numpy(depth)[None]
        return Trial(
            (photo,),
            SceneTruth(
                depth=true,
                valid=(true > 0) & torch.isfinite(true),
                T_world_camera=torch.linalg.inv(torch.from_numpy(T_camera_world)).float()[None],
                K=torch.from_numpy(K).float()[None],
            ),
        )


def read_depth(path: Path) -> np.ndarray:
    """Depth in metres of a `.dpt` file: a float32 tag, width and height as int32, then float32 rows.

    Raises:
        InputError: the file is missing or is none.
    """
    data = _read_tagged(path)
    width, height = struct.unpack_from("<ii", data)
    if width < 1 or height < 1 or len(data) != 8 + 4 * width * height:
        raise InputError(f"Expected {width}x{height} depths in {path}, got {len(data) - 8} bytes.")
    return np.frombuffer(data, "<f4", offset=8).reshape(height, width).copy()


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3x3) and world-to-camera pose (4x4) of a `.cam` file, float64.

    Raises:
        InputError: the file is missing or is none.
    """
    data = _read_tagged(path)
    if len(data) != 8 * 21:
        raise InputError(f"Expected 9 intrinsics and 12 numbers of a pose in {path}, got {len(data)} bytes.")
    numbers = np.frombuffer(data, "<f8")
    return numbers[:9].reshape(3, 3).copy(), np.vstack([numbers[9:].reshape(3, 4), [0, 0, 0, 1]])


def _read_tagged(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Expected {LAYOUT}; {path}: {error.strerror}.") from error
    if len(data) < 12 or struct.unpack_from("<f", data)[0] != _TAG:
        raise InputError(f"Expected a Sintel file (its tag is {_TAG}), got something else at {path}.")
    return data[4:]
