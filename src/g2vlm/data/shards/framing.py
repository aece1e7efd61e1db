"""A frame at the size of the network: a part of its picture, depth and K alike."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image

from g2vlm.data.posed_frame import PosedFrame
from g2vlm.errors import InputError


@dataclass(frozen=True)
class Framing:
    """Which part of a picture is taken: the largest of the wanted shape, made smaller and moved."""

    zoom: float = 1.0
    """How many times smaller than the largest part, at least 1."""
    across: float = 0.5
    """Place of the part: 0 at the left border, 1 at the right one."""
    down: float = 0.5
    """The same from top to bottom."""


@dataclass(frozen=True, eq=False)
class FramedView:
    """A frame at the size of the network."""

    rgb: UInt8[np.ndarray, "height width 3"]
    depth: Float32[np.ndarray, "height width"]
    """z-depth in the unit of the pose, 0 where it is unknown."""
    valid: Bool[np.ndarray, "height width"]
    K: Float64[np.ndarray, "3 3"]
    T_world_camera: Float64[np.ndarray, "4 4"]


def framed(frame: PosedFrame, size: tuple[int, int], framing: Framing | None = None) -> FramedView:
    """A part of a frame at a size.

    Args:
        frame: what is read.
        size: width and height wanted; parts have their shape.
        framing: which part; by default the largest, in the middle.

    Returns:
        Colours by Lanczos' filter, depth of the nearest pixel, K that belongs to them.

    Raises:
        InputError: the picture cannot be decoded.
    """
    framing = framing or Framing()
    whole = frame.size
    scale = max(size[0] / whole[0], size[1] / whole[1]) * framing.zoom
    part = (size[0] / scale, size[1] / scale)
    left, top = (whole[0] - part[0]) * framing.across, (whole[1] - part[1]) * framing.down
    K = frame.K.copy()
    # Borders go to borders: u' = (u + 0.5 - left) scale - 0.5.
    K[:2] *= scale
    K[0, 2] = (frame.K[0, 2] + 0.5 - left) * scale - 0.5
    K[1, 2] = (frame.K[1, 2] + 0.5 - top) * scale - 0.5
    rgb = _part(frame, size, (left, top, left + part[0], top + part[1]))
    depth = np.zeros((size[1], size[0]), dtype=np.float32)
    if frame.depth_m is not None and frame.known is not None:
        rows, columns = frame.depth_m.shape
        u = ((np.arange(size[0]) + 0.5) / scale + left) * columns / whole[0]
        v = ((np.arange(size[1]) + 0.5) / scale + top) * rows / whole[1]
        place = np.ix_(v.astype(int).clip(0, rows - 1), u.astype(int).clip(0, columns - 1))
        depth = np.where(frame.known, frame.depth_m, 0.0)[place].astype(np.float32)
    return FramedView(rgb, depth, depth > 0, K, frame.T_world_camera)


def _part(frame: PosedFrame, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(frame.rgb)) as image:
            whole = image.size
            factor = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
            if factor >= 4:
                # A JPEG decodes at a half or a quarter of its size several times faster.
                image.draft("RGB", (int(whole[0] * 2 / factor), int(whole[1] * 2 / factor)))
            across, down = image.size[0] / whole[0], image.size[1] / whole[1]
            limits = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
            inside = (
                max(0.0, limits[0]),
                max(0.0, limits[1]),
                min(float(image.size[0]), limits[2]),
                min(float(image.size[1]), limits[3]),
            )
            resized = image.convert("RGB").resize(size, Image.Resampling.LANCZOS, box=inside)
            return np.asarray(resized)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"Expected a whole picture in {frame.scene}/{frame.frame}, got one that cannot be decoded "
            f"({error}): prepare the data set again."
        ) from error
