"""Flat surfaces around a pixel, and their areas."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from g2vlm.errors import InputError
from g2vlm.scene.view import View

_SEED_REACH = 3
_TOLERANCE = 0.015
_MOST_TOLERANCE = 0.05
_FEWEST = 12
_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class PlanePatch:
    """The flat surface that a pixel shows, as far as its view shows it."""

    mask: Bool[np.ndarray, "height width"]
    """Its pixels."""
    normal: Float64[np.ndarray, "3"]
    """Unit normal in camera axes, towards the camera."""
    offset: float
    """`normal . point + offset` is the distance of a point in camera axes, in the unit of the scene."""
    residual: float
    """Median distance of its points from it."""
    area: float
    """In square units of the scene."""
    edge_area: float
    """Area of the pixels at its border, whose halves may or may not belong to it."""
    distance: float
    """Of the camera from the plane."""


def plane_around(view: View, row: int, column: int) -> PlanePatch:
    """Grow a plane from a pixel: connected pixels whose points lie on it, fitted again as it grows.

    A point lies on it within 1.5 % of its depth, or three times the deviation of the patch it grew from, up
    to 5 %. The area is exact for the plane: that of the pixels' outlines, cut out of it by their rays, so
    noise of single points does not add to it.

    Args:
        view: the view.
        row: of a valid pixel.
        column: of it.

    Raises:
        InputError: the surroundings of the pixel are not flat, or too few points are valid there.
    """
    from scipy import ndimage

    points = np.where(view.valid[..., None], view.points_camera, np.nan).astype(np.float64)
    window = np.zeros(view.valid.shape, dtype=bool)
    reach = _SEED_REACH
    window[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = True
    mask = window & view.valid
    if mask.sum() < _FEWEST:
        raise InputError(
            f"Expected a pixel amid valid points, got {int(mask.sum())} around row {row}, column {column} of "
            "view "
            f"{view.name!r}: choose another one."
        )
    normal, offset = _fit(points[mask])
    deviation = 1.4826 * np.median(np.abs(points[mask] @ normal + offset) / view.depth[mask])
    tolerance = float(np.clip(3 * deviation, _TOLERANCE, _MOST_TOLERANCE))
    for _ in range(_ROUNDS):
        with np.errstate(invalid="ignore"):
            near = np.abs(points @ normal + offset) < tolerance * view.depth
        labels, _ = ndimage.label(near & view.valid)
        if labels[row, column] == 0:
            raise InputError(
                f"Expected a flat surface at row {row}, column {column} of view {view.name!r}, but the "
                "points around "
                "it lie on no plane: choose another pixel."
            )
        grown = labels == labels[row, column]
        if (grown == mask).all():
            break
        mask = grown
        normal, offset = _fit(points[mask])
    area, edge = _area(view, mask, normal, offset)
    residual = float(np.median(np.abs(points[mask] @ normal + offset)))
    return PlanePatch(mask, normal, offset, residual, area, edge, abs(offset))


def _fit(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares, weighted by inverse depth, since errors grow with depth; normal towards the camera."""
    weights = 1 / np.maximum(points[:, 2:], 1e-9) ** 2
    centre = (weights * points).sum(axis=0) / weights.sum()
    spread = (weights * (points - centre)).T @ (points - centre)
    normal = np.linalg.svd(spread)[2][2]
    normal = normal if normal @ centre < 0 else -normal
    return normal, -float(normal @ centre)


def _area(view: View, mask: np.ndarray, normal: np.ndarray, offset: float) -> tuple[float, float]:
    """Area on the plane that the pixels of a mask cut out, and that of its border pixels."""
    from scipy import ndimage

    K = view.K.astype(np.float64)
    v, u = np.mgrid[: view.height + 1, : view.width + 1].astype(np.float64) - 0.5
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1)
    facing = rays @ normal
    # Rays that miss the plane belong to no pixel of it but for rounding at grazing angles.
    depth = np.where(facing < -1e-3, -offset / np.minimum(facing, -1e-3), np.nan)
    corners = rays * depth[..., None]
    diagonal = corners[1:, 1:] - corners[:-1, :-1]
    other = corners[1:, :-1] - corners[:-1, 1:]
    areas = np.nan_to_num(np.linalg.norm(np.cross(diagonal, other), axis=-1) / 2)
    border = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return float(areas[mask].sum()), float(areas[border].sum())
