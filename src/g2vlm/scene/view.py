"""One photo with everything the reconstruction knows about its pixels."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from g2vlm.errors import InputError

Pixel = tuple[int | float, int | float]
"""(u, v): columns from the left and rows from the top, centres at integers from 0."""
PixelBox = tuple[int | float, int | float, int | float, int | float]
"""Left, top, right, bottom of a rectangle of pixels."""

_RIGID_TOLERANCE = 1e-3


class PixelSpace(StrEnum):
    """Which image a pixel coordinate (u to the right, v downwards, centres at integers) refers to."""

    ORIGINAL = "original"
    """The upright original photo, before resizing and padding."""
    MODEL = "model"
    """The image as the network saw it, the resolution of the point map."""


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """One view of a scene: colours, a point map, a camera, confidence.

    The arrays are not copied; treat them as immutable. Point maps, depth and camera positions share the unit
    that the scene's `Scale` names. Camera axes are OpenCV's (x right, y down, z forward).

    Raises:
        InputError: on construction, if shapes, dtypes or values break what the fields promise.
    """

    name: str
    """Where the view came from: file name, or video frame."""
    rgb: UInt8[np.ndarray, "height width 3"]
    """Colours at model resolution."""
    points_camera: Float32[np.ndarray, "height width 3"]
    """Point map in camera axes; finite wherever `valid`, anything elsewhere."""
    T_world_camera: Float32[np.ndarray, "4 4"]
    """Camera-to-world pose, rigid."""
    K: Float32[np.ndarray, "3 3"]
    """Intrinsics in model pixels (integer centres), no skew, positive focal lengths."""
    confidence: Float32[np.ndarray, "height width"]
    """Trust in each point, 0 to 1."""
    valid: Bool[np.ndarray, "height width"]
    """Pixels that hold a point: False on padding, on non-finite predictions and on filtered points."""
    original_size: tuple[int, int]
    """Width and height of the upright original photo, in pixels."""
    T_model_original: Float64[np.ndarray, "3 3"]
    """Pixel affine: model pixel = T_model_original @ (u, v, 1) of the original photo, centres at integers."""
    time_s: int | float | None = None
    """Seconds from the start of the video, None for photos."""
    source_path: str | None = None
    """File that the picture was read from, absolute: a photo or a video; None for pictures from memory."""
    frame_index: int | None = None
    """Number of the frame in the video, from 0; None for photos."""
    focal_measured: bool = True
    """False if too few points, or senseless ones, left the focal length in `K` to a guess."""

    def __post_init__(self) -> None:
        """Check every promise of the fields."""
        height, width = self._check_layout()
        self._check_values()
        if min(self.original_size) < 1:
            raise InputError(f"Expected an original size of at least 1x1 pixel, got {self.original_size}.")
        if height == 0 or width == 0:
            raise InputError(f"Expected a view of at least one pixel, got {width}x{height}.")

    def _check_layout(self) -> tuple[int, int]:
        height, width = self.rgb.shape[:2]
        layout: dict[str, tuple[type, tuple[int, ...]]] = {
            "rgb": (np.uint8, (height, width, 3)),
            "points_camera": (np.float32, (height, width, 3)),
            "T_world_camera": (np.float32, (4, 4)),
            "K": (np.float32, (3, 3)),
            "confidence": (np.float32, (height, width)),
            "valid": (np.bool_, (height, width)),
            "T_model_original": (np.float64, (3, 3)),
        }
        for field, (dtype, shape) in layout.items():
            array: np.ndarray = getattr(self, field)
            if array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"View {self.name!r}: expected {field} of shape {shape} and type {np.dtype(dtype)}, "
                    f"got {array.shape} and {array.dtype}."
                )
        return height, width

    def _check_values(self) -> None:
        R = self.T_world_camera[:3, :3].astype(np.float64)
        focal = np.diag(self.K)[:2]
        finite = np.isfinite(self.points_camera).all(axis=-1)
        promises = {
            "finite points wherever valid (mark the others invalid)": bool((finite | ~self.valid).all()),
            "confidence in 0..1": bool(((self.confidence >= 0) & (self.confidence <= 1)).all()),
            "a finite, rigid T_world_camera": bool(
                np.isfinite(self.T_world_camera).all()
                and np.array_equal(self.T_world_camera[3], [0, 0, 0, 1])
                and np.abs(R @ R.T - np.eye(3)).max() < _RIGID_TOLERANCE
                and np.linalg.det(R) > 0
            ),
            "finite K with positive focal lengths": bool(np.isfinite(self.K).all() and (focal > 0).all()),
            "an invertible affine T_model_original": bool(
                np.isfinite(self.T_model_original).all()
                and np.array_equal(self.T_model_original[2], [0, 0, 1])
                and np.linalg.det(self.T_model_original) > 0
            ),
        }
        broken = [promise for promise, kept in promises.items() if not kept]
        if broken:
            raise InputError(f"View {self.name!r}: expected {'; '.join(broken)}.")

    def __repr__(self) -> str:
        return f"View({self.name!r}, {self.width}x{self.height}, {int(self.valid.sum())} points)"

    @property
    def height(self) -> int:
        """Rows at model resolution."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns at model resolution."""
        return int(self.rgb.shape[1])

    @property
    def depth(self) -> Float32[np.ndarray, "height width"]:
        """Z-depth: the distance along the optical axis, in the unit of the scene."""
        return self.points_camera[..., 2]

    @property
    def points_world(self) -> Float32[np.ndarray, "height width 3"]:
        """The point map in the world frame, computed anew at each access."""
        R, t = self.T_world_camera[:3, :3], self.T_world_camera[:3, 3]
        with np.errstate(invalid="ignore", over="ignore"):  # invalid pixels may hold anything
            return self.points_camera @ R.T + t

    @property
    def K_original(self) -> Float32[np.ndarray, "3 3"]:  # noqa: N802  K is the name in the field
        """Intrinsics in pixels of the original photo."""
        return (np.linalg.inv(self.T_model_original) @ self.K).astype(np.float32)
