"""Maps of numbers as colours to look at: depth, confidence, normals."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from g2vlm.scene.view import View

_PERCENTILES = (2.0, 98.0)
_SAMPLES = 10_000
UNKNOWN = (24, 24, 24)
"""Colour of pixels without a value."""


def depth_range_of(views: Sequence[View]) -> tuple[float, float]:
    """Depths between which colours run for all of some views: 2 % nearer and 2 % farther ones are cut.

    Returns:
        Near and far, in the unit of the scene; (1, 2) where nothing is valid.
    """
    samples = [view.depth[view.valid & (view.depth > 0)] for view in views]
    known = np.concatenate([depth[:: max(1, len(depth) // _SAMPLES)] for depth in samples])
    if known.size == 0:
        return 1.0, 2.0
    near, far = (float(value) for value in np.percentile(known, _PERCENTILES))
    return near, max(far, near * 1.01)


def color_depth(
    depth: Float32[np.ndarray, "height width"],
    valid: Bool[np.ndarray, "height width"],
    near: float,
    far: float,
) -> UInt8[np.ndarray, "height width 3"]:
    """Depth in the colours of turbo: red near, blue far, even steps of inverse depth.

    Args:
        depth: z-depth.
        valid: the others become dark grey.
        near: depth of the first colour.
        far: depth of the last.
    """
    import cv2

    known = valid & (depth > 0)
    share = (1 / np.where(known, depth, far) - 1 / far) / (1 / near - 1 / far)
    return _colored(share, known, cv2.COLORMAP_TURBO)


def color_confidence(view: View) -> UInt8[np.ndarray, "height width 3"]:
    """Confidence from 0 (dark violet) to 1 (yellow)."""
    import cv2

    return _colored(view.confidence, view.valid, cv2.COLORMAP_VIRIDIS)


def color_normals(view: View) -> UInt8[np.ndarray, "height width 3"]:
    """Normals as colours: red grows to the right, green upwards, blue towards the camera."""
    normals = view_normals(view)
    known = normals.any(axis=-1)
    # Camera axes point down and away; pictures of normals are usually up and towards the viewer.
    colors = np.rint((normals * np.array([1, -1, -1], dtype=np.float32) + 1) * 127.5).astype(np.uint8)
    colors[~known] = UNKNOWN
    return colors


def view_normals(view: View) -> Float32[np.ndarray, "height width 3"]:
    """Unit normals in camera axes (OpenCV), facing the camera; zero where undefined."""
    # Torch is needed only here, so that reading and writing scenes stays light.
    import torch

    from g2vlm.geometry.edges import normals_from_points

    points, valid = torch.from_numpy(view.points_camera.copy()), torch.from_numpy(view.valid.copy())
    normals: Float32[np.ndarray, "height width 3"] = normals_from_points(points, valid).numpy()
    return normals


def map_colors(share: Float[np.ndarray, " points"], colormap: str) -> UInt8[np.ndarray, "points 3"]:
    """Numbers from 0 to 1 as colours of "viridis" or "turbo"; those outside take the colours of the ends."""
    import cv2

    known = np.ones((len(share), 1), dtype=bool)
    return _colored(share[:, None], known, getattr(cv2, f"COLORMAP_{colormap.upper()}"))[:, 0]


def _colored(share: np.ndarray, known: np.ndarray, colormap: int) -> UInt8[np.ndarray, "height width 3"]:
    import cv2

    levels = np.rint(np.clip(np.where(known, share, 0), 0, 1) * 255).astype(np.uint8)
    colors = np.ascontiguousarray(cv2.applyColorMap(levels, colormap)[..., ::-1])
    colors[~known] = UNKNOWN
    return colors
