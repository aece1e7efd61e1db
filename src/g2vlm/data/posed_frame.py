"""One picture whose camera is known, with its depth where that was measured."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """A picture, its camera and its depth, as all prepared data sets hold them."""

    scene: str
    """Which place it shows; frames of one scene share their world."""
    frame: str
    """Its name inside the scene, as the data set calls it."""
    rgb: bytes
    """The encoded picture (JPEG, PNG, WebP), unchanged where the data set's own file could be kept."""
    K: Float64[np.ndarray, "3 3"]
    """Intrinsics in pixels of the picture, integer pixel centres, positive focal lengths."""
    T_world_camera: Float64[np.ndarray, "4 4"]
    """Camera-to-world, OpenCV axes (x right, y down, z forward); metres where `scale` is metric."""
    scale: ScaleKind
    """Whether lengths are metres."""
    depth_m: Float32[np.ndarray, "depth_height depth_width"] | None = None
    """z-depth in the unit of the poses, 0 where it is not known; None where nothing was measured. It covers
    the same field of view as the picture but may have fewer pixels: `K_depth` are its intrinsics."""
    valid: Bool[np.ndarray, "depth_height depth_width"] | None = None
    """Pixels whose depth can be trusted, where fewer than all that have one."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels, read from its header."""
        return picture_size(self.rgb)

    @property
    def known(self) -> Bool[np.ndarray, "depth_height depth_width"] | None:
        """Pixels with a trusted depth; None where there is no depth."""
        if self.depth_m is None:
            return None
        has_depth = self.depth_m > 0
        return has_depth if self.valid is None else has_depth & self.valid

    @property
    def K_depth(self) -> Float64[np.ndarray, "3 3"]:  # noqa: N802
        """Intrinsics in pixels of the depth map."""
        if self.depth_m is None:
            return self.K
        height, width = self.depth_m.shape
        return resized_intrinsics(self.K, self.size, (width, height))

    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The decoded picture.

        Raises:
            InputError: it cannot be decoded.
        """
        try:
            with Image.open(io.BytesIO(self.rgb)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"Expected a whole picture in {self.scene}/{self.frame}, got one that cannot be decoded "
                f"({error}): prepare the data set again."
            ) from error


def picture_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of an encoded picture, without decoding it."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.size


def resized_intrinsics(
    K: Float64[np.ndarray, "3 3"], source_wh: tuple[int, int], target_wh: tuple[int, int]
) -> Float64[np.ndarray, "3 3"]:
    """Intrinsics after resizing: borders map to borders, so that u' = (u + 0.5) s - 0.5."""
    moved = K.copy()
    for axis, (source, target) in enumerate(zip(source_wh, target_wh, strict=True)):
        factor = target / source
        moved[axis, axis] *= factor
        moved[axis, 2] = (K[axis, 2] + 0.5) * factor - 0.5
    return moved
