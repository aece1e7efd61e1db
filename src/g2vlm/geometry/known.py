"""What people know about a scene before it is reconstructed: cameras, positions, depth.

Plain records, filled by readers of files and used by whatever aligns a scene. Camera axes are OpenCV's, pixel
centres lie at integers, lengths are metres unless a record says that its unit is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from g2vlm.errors import InputError

_RIGID_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class KnownPose:
    """Where one camera was.

    Raises:
        InputError: on construction, a matrix that is not rigid.
    """

    T_world_camera: Float64[np.ndarray, "4 4"]
    """Camera-to-world pose."""
    name: str | None = None
    """File name of its photo, where the file says it."""
    time_s: float | None = None
    """Time stamp, where the file says it."""

    def __post_init__(self) -> None:
        """Check that the pose is rigid."""
        R = self.T_world_camera[:3, :3]
        rigid = (
            np.isfinite(self.T_world_camera).all() and np.abs(R @ R.T - np.eye(3)).max() < _RIGID_TOLERANCE
        )
        if not rigid or np.linalg.det(R) < 0:
            raise InputError(
                f"Expected rigid camera poses, but that of {self.name or self.time_s or 'a camera'} is not: "
                "its rotation is not orthonormal, or has NaN."
            )


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Camera poses from one file."""

    poses: tuple[KnownPose, ...]
    """In the order of the file."""
    source: str
    """The file, for messages."""
    is_metric: bool
    """Whether its unit is known to be the metre."""


@dataclass(frozen=True, eq=False)
class KnownCamera:
    """Intrinsics of one camera.

    Raises:
        InputError: on construction, focal lengths that are not positive, or an empty image.
    """

    K: Float64[np.ndarray, "3 3"]
    """Intrinsics in pixels of the upright photo, centres at integers."""
    size: tuple[int, int] | None = None
    """Width and height that `K` belongs to; the photo's own if None."""
    name: str | None = None
    """File name of the photo it belongs to; every photo if None."""
    distortion_px: float = 0.0
    """How far lens distortion, which is not modelled here, moves a pixel at most."""

    def __post_init__(self) -> None:
        """Check the focal lengths and the size."""
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"Expected a camera of at least 1x1 pixel, got {self.size[0]}x{self.size[1]}.")
        if not (np.isfinite(self.K).all() and self.K[0, 0] > 0 and self.K[1, 1] > 0):
            raise InputError(
                f"Expected finite intrinsics with positive focal lengths, got {self.K.tolist()}."
            )


@dataclass(frozen=True, eq=False)
class CameraBook:
    """Intrinsics from one source: one for all photos, or one for each by name."""

    cameras: tuple[KnownCamera, ...]
    source: str
    """The file or option, for messages."""


@dataclass(frozen=True, eq=False)
class KnownDepth:
    """Measured depth of one photo."""

    load: Callable[[], Float[np.ndarray, "height width"]]
    """Reads z-depth in metres; what is not finite or not above 0 is a hole. It covers the whole photo."""
    name: str
    """Name of its file, whose stem is that of the photo."""


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """Measured depth of several photos."""

    maps: tuple[KnownDepth, ...]
    source: str
    """The folder, for messages."""


@dataclass(frozen=True, eq=False)
class KnownPosition:
    """Where one camera was, without its orientation."""

    position_m: Float64[np.ndarray, "3"]
    """East, north, up in metres from the first."""
    name: str
    """File name of the photo."""


@dataclass(frozen=True, eq=False)
class PositionTrack:
    """Positions of cameras, such as those of GPS."""

    positions: tuple[KnownPosition, ...]
    source: str
    """Where they come from, for messages."""
