"""From errors of points to the error of a length, to first order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from g2vlm.scene.measuring.errors import DepthErrors
from g2vlm.scene.scale import Scale
from g2vlm.scene.view import View

_UNIFORM = 1 / 12
"""Variance of an error that is uniform over one pixel."""


@dataclass(frozen=True, eq=False)
class End:
    """A pixel's point, and how it enters a length: with its `sign` along the direction of that length."""

    view: int
    """Index of the view."""
    row: int
    column: int
    sign: float = 1.0


def world_point(view: View, row: int, column: int) -> Float64[np.ndarray, "3"]:
    """The point of a pixel in the world, in double precision."""
    T = view.T_world_camera.astype(np.float64)
    return T[:3, :3] @ view.points_camera[row, column].astype(np.float64) + T[:3, 3]


def length_error(
    views: Sequence[View],
    errors: DepthErrors,
    ends: Sequence[End],
    direction: Float64[np.ndarray, "3"],
    is_pixel_chosen: bool = True,
) -> float | None:
    """Standard deviation of the sum of `sign * direction . point` over some ends.

    With X - C from the camera to the point, an error e of its view moves a point by e (X - C). What is common
    to a view moves all its ends together; what is local, and half a pixel of rounding across the line of
    sight, moves each by itself.

    Args:
        views: of the scene.
        errors: of its points.
        ends: the points of the length.
        direction: unit vector in the world along which the length is counted.
        is_pixel_chosen: whether each end is one pixel, to which a wanted one was rounded.

    Returns:
        The deviation in the unit of the scene; None where an end is seen by a single view.
    """
    variance = 0.0
    together: dict[int, float] = {}
    for end in ends:
        view = views[end.view]
        local = errors.local(end.view, end.row, end.column)
        if local is None:
            return None
        sight = world_point(view, end.row, end.column) - view.T_world_camera[:3, 3].astype(np.float64)
        along = float(direction @ sight)
        variance += (along * local) ** 2
        together[end.view] = together.get(end.view, 0.0) + end.sign * along
        if is_pixel_chosen:
            distance = float(np.linalg.norm(sight))
            across = max(0.0, 1 - (along / distance) ** 2)
            footprint = float(view.depth[end.row, end.column]) / float(min(view.K[0, 0], view.K[1, 1]))
            variance += across * footprint**2 * _UNIFORM
    for index, along in together.items():
        common = errors.common(index)
        if common is None:
            return None
        variance += (along * common) ** 2
    return float(np.sqrt(variance))


def with_scale_error(value: float, error: float | None, scale: Scale) -> float | None:
    """The error of a length once that of the metre itself is added."""
    if error is None or scale.relative_error is None:
        return error
    return float(np.hypot(error, value * scale.relative_error))
