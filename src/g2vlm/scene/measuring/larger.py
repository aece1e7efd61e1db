"""Lengths of larger things: between points in space, above the floor, of boxes, of surfaces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from g2vlm.errors import InputError
from g2vlm.scene.measurement import Measurement, locate_pixel, region_of
from g2vlm.scene.measuring.boxes import BoxAxes, BoxSize, box_around
from g2vlm.scene.measuring.errors import DepthErrors
from g2vlm.scene.measuring.floor import find_floor
from g2vlm.scene.measuring.propagation import End, length_error, with_scale_error, world_point
from g2vlm.scene.measuring.surfaces import plane_around
from g2vlm.scene.scale import Scale
from g2vlm.scene.view import Pixel, PixelBox, PixelSpace, View

_NEAR_PX = 2.0
_TRIM_PERCENT = 2.0
_STRAIGHT_EDGES = 1 / (2 * np.sqrt(12))
"""Deviation of an area in units of that of its border pixels, for four straight edges, each off by up to half
a pixel as a whole."""


@dataclass(frozen=True)
class Area:
    """The visible part of a flat surface."""

    value: float
    """In square metres if the scene is metric, else in the square of its unit."""
    scale: Scale
    """The unit and where it comes from."""
    uncertainty: float | None
    """Standard deviation; None where a single view sees it."""
    residual: float
    """Median distance of its points from the plane."""
    num_points: int
    """Pixels that belong to it."""

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        spread = "" if self.uncertainty is None else f" +- {self.uncertainty:.2g}"
        return f"{self.value:.4g}{spread} {self.scale.unit}^2"


def measure_points(
    views: Sequence[View], a: Float64[np.ndarray, "3"], b: Float64[np.ndarray, "3"], scale: Scale
) -> Measurement:
    """Distance between two points in world coordinates, as uncertain as the pixels that show them."""
    length = float(np.linalg.norm(b - a))
    found = [_pixel_at(views, point) for point in (a, b)]
    ends = [end for end in found if end is not None]
    if length == 0 or len(ends) < 2:
        return Measurement(length, scale, 0.0 if len(ends) < 2 else _trust(views, ends), None)
    signed = [End(e.view, e.row, e.column, sign) for e, sign in zip(ends, (-1.0, 1.0), strict=True)]
    error = length_error(
        views, DepthErrors(views, scale.point_error), signed, (b - a) / length, is_pixel_chosen=False
    )
    return Measurement(length, scale, _trust(views, ends), with_scale_error(length, error, scale))


def _trust(views: Sequence[View], ends: Sequence[End]) -> float:
    return min(float(views[end.view].confidence[end.row, end.column]) for end in ends)


def _pixel_at(views: Sequence[View], point: np.ndarray) -> End | None:
    """The pixel whose point lies nearest to a place, within two pixels' footprint; None if there is none."""
    best, nearest = None, np.inf
    for index, view in enumerate(views):
        T, K = view.T_world_camera.astype(np.float64), view.K.astype(np.float64)
        x, y, z = (point - T[:3, 3]) @ T[:3, :3]
        if z <= 0:
            continue
        column, row = round(K[0, 0] * x / z + K[0, 2]), round(K[1, 1] * y / z + K[1, 2])
        if not (0 <= row < view.height and 0 <= column < view.width and view.valid[row, column]):
            continue
        apart = float(np.linalg.norm(world_point(view, row, column) - point)) * K[0, 0] / z
        if apart < min(_NEAR_PX, nearest):
            best, nearest = End(index, row, column), apart
    return best


def measure_height(
    views: Sequence[View], index: int, pixel: Pixel, space: PixelSpace, scale: Scale
) -> Measurement:
    """Height of a pixel's point above the floor.

    Raises:
        InputError: as `locate_pixel`, or the scene shows no floor.
    """
    view = views[index]
    row, column = locate_pixel(view, pixel, space)
    floor = find_floor(views)
    if floor is None:
        raise InputError(
            "Expected a scene that shows its floor to measure heights, but no large plane lies below the "
            "cameras: "
            "measure a distance to a point at the bottom instead."
        )
    height = floor.height(world_point(view, row, column))
    error = length_error(views, DepthErrors(views, scale.point_error), [End(index, row, column)], floor.up)
    if error is not None:
        error = float(np.hypot(error, floor.level_error or 0.0))
    return Measurement(
        height, scale, float(view.confidence[row, column]), with_scale_error(abs(height), error, scale)
    )


def measure_box(
    views: Sequence[View], index: int, box: PixelBox, space: PixelSpace, scale: Scale, axes: BoxAxes
) -> BoxSize:
    """Box around what a rectangle of pixels shows, 2 % of the points left out at each end of each axis.

    Raises:
        InputError: a rectangle that is empty, outside of the image or without valid points.
    """
    view = views[index]
    rows, columns = region_of(view, box, space)
    inside = np.zeros(view.valid.shape, dtype=bool)
    inside[rows, columns] = view.valid[rows, columns]
    pixels = np.nonzero(inside)
    if len(pixels[0]) == 0:
        raise InputError(
            f"Expected a box with valid points in view {view.name!r}, got none in {box}: enlarge it."
        )
    return box_around(views, index, (pixels[0], pixels[1]), scale, axes, _TRIM_PERCENT)


def measure_area(views: Sequence[View], index: int, pixel: Pixel, space: PixelSpace, scale: Scale) -> Area:
    """Area of the flat surface around a pixel, as far as this view shows it.

    Its deviation adds that of the view's own scale (twice, being an area), that of the distance of the plane
    from the noise of its points, and half a pixel along its edges.

    Raises:
        InputError: as `locate_pixel`, or the surroundings of the pixel are not flat.
    """
    row, column = locate_pixel(views[index], pixel, space)
    patch = plane_around(views[index], row, column)
    errors, count = DepthErrors(views, scale.point_error), int(patch.mask.sum())
    common, local = errors.common(index), errors.local(index, row, column)
    error = None
    if common is not None and local is not None:
        of_distance = 2 * patch.area * float(np.hypot(common, local / np.sqrt(count)))
        error = float(np.hypot(of_distance, patch.edge_area * _STRAIGHT_EDGES))
        if scale.relative_error is not None:
            error = float(np.hypot(error, 2 * patch.area * scale.relative_error))
    return Area(patch.area, scale, error, patch.residual, count)
