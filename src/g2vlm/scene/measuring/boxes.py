"""Boxes around what a rectangle of pixels shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float64

from g2vlm.scene.measuring.errors import DepthErrors
from g2vlm.scene.measuring.floor import find_floor
from g2vlm.scene.measuring.propagation import End, length_error, with_scale_error
from g2vlm.scene.scale import Scale
from g2vlm.scene.view import View

_ANGLES = np.radians(np.arange(0.0, 90.0, 1.0))


class BoxAxes(StrEnum):
    """Along which axes a box is measured."""

    CAMERA = "camera"
    """Right, down and forward of the view's camera."""
    WORLD = "world"
    """x, y, z of the scene's world."""
    UPRIGHT = "upright"
    """The last axis is the normal of the floor (without a floor: upwards in the photo); the others are turned
    so that the box stands on the smallest area."""


@dataclass(frozen=True, eq=False)
class BoxSize:
    """A box around points."""

    lengths: tuple[float, float, float]
    """Along the three axes; for upright boxes the longer side, the shorter side, the height."""
    uncertainties: tuple[float | None, float | None, float | None]
    """Standard deviation of each; None where a single view sees an end."""
    R_world_box: Float64[np.ndarray, "3 3"]
    """The axes as columns, in the world."""
    centre: Float64[np.ndarray, "3"]
    """In the world."""
    scale: Scale
    """The unit and where it comes from."""
    confidence: float
    """The median confidence of the points, 0 to 1."""
    num_points: int
    """How many valid points were boxed."""

    def __str__(self) -> str:
        parts = [
            f"{length:.4g}" + ("" if error is None else f" +- {error:.2g}")
            for length, error in zip(self.lengths, self.uncertainties, strict=True)
        ]
        return f"{' x '.join(parts)} {self.scale.unit}"


def box_around(
    views: Sequence[View],
    index: int,
    pixels: tuple[np.ndarray, np.ndarray],
    scale: Scale,
    axes: BoxAxes,
    trim_percent: int | float,
) -> BoxSize:
    """The box around the points of some pixels, a share of the points at each end of each axis left out.

    Args:
        views: of the scene.
        index: of the view.
        pixels: rows and columns of valid points, at least one.
        scale: unit of the scene.
        axes: along which it is measured.
        trim_percent: percent of points left out at each end, against stray points.
    """
    view = views[index]
    T = view.T_world_camera.astype(np.float64)
    points = view.points_camera[pixels].astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    dropped = min(round(len(points) * trim_percent / 100), (len(points) - 1) // 2)
    R = _axes(views, T, points, axes, dropped)
    along = points @ R
    order = np.argsort(along, axis=0)
    low, high = order[dropped], order[len(points) - 1 - dropped]
    errors, lengths = DepthErrors(views, scale.point_error), []
    uncertainties: list[float | None] = []
    for axis in range(3):
        length = float(along[high[axis], axis] - along[low[axis], axis])
        ends = [
            End(index, int(pixels[0][place]), int(pixels[1][place]), sign)
            for place, sign in ((low[axis], -1.0), (high[axis], 1.0))
        ]
        error = length_error(views, errors, ends, R[:, axis], is_pixel_chosen=False)
        lengths.append(length)
        uncertainties.append(with_scale_error(length, error, scale))
    middle = [(along[high[k], k] + along[low[k], k]) / 2 for k in range(3)]
    return BoxSize(
        (lengths[0], lengths[1], lengths[2]),
        (uncertainties[0], uncertainties[1], uncertainties[2]),
        R,
        R @ np.array(middle),
        scale,
        float(np.median(view.confidence[pixels])),
        len(points),
    )


def _axes(
    views: Sequence[View], T: np.ndarray, points: np.ndarray, axes: BoxAxes, dropped: int
) -> np.ndarray:
    if axes is BoxAxes.CAMERA:
        return np.array(T[:3, :3])
    if axes is BoxAxes.WORLD:
        return np.eye(3)
    floor = find_floor(views)
    up = -T[:3, 1] if floor is None else floor.up
    first = np.cross(up, T[:3, 2])
    first = first / np.linalg.norm(first) if np.linalg.norm(first) > 1e-6 else T[:3, 0]
    second = np.cross(up, first)

    def turned(angle: float) -> tuple[np.ndarray, np.ndarray]:
        sine, cosine = np.sin(angle), np.cos(angle)
        return cosine * first + sine * second, cosine * second - sine * first

    def sides(angle: float) -> tuple[float, float]:
        ordered = np.sort(points @ np.stack(turned(angle), axis=1), axis=0)
        extent = ordered[len(points) - 1 - dropped] - ordered[dropped]
        return float(extent[0]), float(extent[1])

    angle = min(_ANGLES, key=lambda each: float(np.prod(sides(each))))
    a, b = turned(angle)
    longer, shorter = sides(angle)
    columns = [a, b, up] if longer >= shorter else [b, -a, up]
    return np.stack(columns, axis=1)
