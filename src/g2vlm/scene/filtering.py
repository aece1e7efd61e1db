"""Which points of a scene to trust: by confidence, and away from depth and normal edges."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from g2vlm.errors import InputError
from g2vlm.scene.view import View


def filter_by_confidence(
    views: Sequence[View], min_confidence: int | float | None, percentile: int | float | None
) -> tuple[View, ...]:
    """Views whose pixels below a confidence are invalid.

    Args:
        views: of one scene.
        min_confidence: points below it go, 0 to 1.
        percentile: 0 to 100; points below this percentile of all valid points of all views go. Points exactly
            at it stay, so a scene of one single confidence keeps everything.

    Raises:
        InputError: a threshold out of range.
    """
    _check_range("min_confidence", min_confidence, 1.0)
    _check_range("percentile", percentile, 100.0)
    threshold = 0.0 if min_confidence is None else min_confidence
    if percentile is not None and percentile > 0:
        trusted = np.concatenate([view.confidence[view.valid] for view in views])
        if trusted.size:
            threshold = max(threshold, float(np.percentile(trusted, percentile)))
    # Compared in float32, the type of the confidence: its own rounding must not drop the points at the limit.
    limit = np.float32(threshold)
    return tuple(replace(view, valid=view.valid & (view.confidence >= limit)) for view in views)


def _check_range(name: str, value: int | float | None, high: float) -> None:
    if value is not None and not 0 <= value <= high:
        raise InputError(f"Expected {name} between 0 and {high:g}, got {value}.")


def away_from_edges(
    view: View, max_depth_edge: int | float | None, max_normal_edge_rad: int | float | None
) -> Bool[np.ndarray, "height width"]:
    """Valid pixels that are on neither kind of edge asked about.

    Args:
        view: its own validity decides which neighbours count.
        max_depth_edge: depth range in the 3x3 window relative to the pixel's depth (0.03 is usual); None: do
            not look at depth edges.
        max_normal_edge_rad: angle to the normals in the 3x3 window, in radians; None: do not look at them.

    Raises:
        InputError: a threshold that is not positive.
    """
    for name, value in (("max_depth_edge", max_depth_edge), ("max_normal_edge_rad", max_normal_edge_rad)):
        if value is not None and not value > 0:
            raise InputError(f"Expected {name} above 0, got {value}.")
    if max_depth_edge is None and max_normal_edge_rad is None:
        return view.valid
    # Torch is needed only here, so that reading and writing scenes stays light.
    import torch

    from g2vlm.geometry.edges import depth_edge_mask, normal_edge_mask, normals_from_points

    valid = torch.from_numpy(view.valid.copy())
    keep = valid.clone()
    if max_depth_edge is not None:
        keep &= ~depth_edge_mask(torch.from_numpy(view.depth.copy()), max_depth_edge, valid=valid)
    if max_normal_edge_rad is not None:
        normals = normals_from_points(torch.from_numpy(view.points_camera.copy()), valid)
        keep &= ~normal_edge_mask(normals, max_normal_edge_rad)
    kept: np.ndarray = keep.numpy()
    return kept
