"""Cameras as things to look at: pyramids whose base shows the picture."""

import colorsys
import math

import numpy as np
from jaxtyping import Float64
from PIL import Image

from g2vlm.export.conventions import FLIP_YZ, original_intrinsics
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

THUMBNAIL_PX = 256
"""Longer side of the pictures; both sides are powers of two, which every viewer takes as they are."""
_SHARE_OF_DEPTH = 0.06
_SAMPLES = 4096
_GOLDEN = 0.618034

EDGES = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]])
"""Lines of a pyramid: from the tip to the corners, and around the base."""


def frustum_depth(scene: Scene) -> float:
    """Height of the pyramids: a small share of the median depth, in the unit of the scene."""
    depths = [view.depth[view.valid][:: max(1, view.valid.sum() // _SAMPLES)] for view in scene.views]
    known = np.concatenate(depths)
    return _SHARE_OF_DEPTH * float(np.median(known)) if known.size else 1.0


def frustum_corners(view: View, depth: float) -> Float64[np.ndarray, "5 3"]:
    """Tip and base of a pyramid in OpenGL camera axes.

    Args:
        view: whose original picture the base covers, border to border.
        depth: distance of the base.

    Returns:
        The tip, then the corners of the picture: left top, right top, right bottom, left bottom.
    """
    width, height = view.original_size
    borders = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
    K = original_intrinsics(view)
    rays = np.concatenate([(borders - K[:2, 2]) / [K[0, 0], K[1, 1]], np.ones((4, 1))], axis=1)
    return np.concatenate([np.zeros((1, 3)), depth * rays]) @ FLIP_YZ[:3, :3]


def thumbnail(view: View) -> Image.Image:
    """The part of the network's image that shows the photo, small, stretched to powers of two."""
    width, height = view.original_size
    A = view.T_model_original
    left, top = A[:2, :2] @ [-0.5, -0.5] + A[:2, 2] + 0.5
    right, bottom = A[:2, :2] @ [width - 0.5, height - 0.5] + A[:2, 2] + 0.5
    scale = THUMBNAIL_PX / max(width, height)
    size = (_power_of_two(width * scale), _power_of_two(height * scale))
    box = (max(left, 0.0), max(top, 0.0), min(right, view.width), min(bottom, view.height))
    return Image.fromarray(view.rgb).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def _power_of_two(side: float) -> int:
    return 1 << max(0, round(math.log2(side)))


def camera_color(index: int) -> tuple[float, float, float]:
    """A colour that tells neighbouring cameras apart: red, green, blue, 0 to 1."""
    return colorsys.hsv_to_rgb((index * _GOLDEN) % 1.0, 0.75, 0.95)
