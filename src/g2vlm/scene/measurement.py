"""Lengths read off a scene: the depth at a pixel, the distance between pixels, the size of a region."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from g2vlm.errors import InputError
from g2vlm.scene.measuring.errors import DepthErrors
from g2vlm.scene.measuring.propagation import End, length_error, with_scale_error, world_point
from g2vlm.scene.scale import Scale
from g2vlm.scene.view import Pixel, PixelBox, PixelSpace, View


@dataclass(frozen=True)
class Measurement:
    """A length with its unit and how far to trust it."""

    value: float
    """In metres if the scene is metric, else in its own unit."""
    scale: Scale
    """The unit and where it comes from."""
    confidence: float
    """The lowest confidence of the points involved, 0 to 1."""
    uncertainty: float | None = None
    """Standard deviation, from how much the views disagree (`measuring.errors`) and, in a metric scene, from
    the error of the metre; None where a single view sees it, so that nothing tells."""

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        spread = "" if self.uncertainty is None else f" +- {self.uncertainty:.2g}"
        return f"{self.value:.4g}{spread} {self.scale.unit}"


@dataclass(frozen=True)
class RegionSize:
    """Extents of the points seen in an image region, along the axes of that view's camera."""

    width: float
    """To the right, in the unit of the scale."""
    height: float
    """Downwards."""
    depth: float
    """Forwards."""
    scale: Scale
    """The unit and where it comes from."""
    confidence: float
    """The median confidence of the points, 0 to 1."""
    num_points: int
    """How many valid points the region holds."""

    def __str__(self) -> str:
        return f"{self.width:.4g} x {self.height:.4g} x {self.depth:.4g} {self.scale.unit}"


def locate_pixel(view: View, pixel: Pixel, space: PixelSpace) -> tuple[int, int]:
    """Row and column of the point map for a pixel (u, v); the nearest point-map pixel.

    Args:
        view: the view the pixel is in.
        pixel: (u, v), may be fractional; the image covers -0.5 to width - 0.5 and -0.5 to height - 0.5.
        space: which image `pixel` counts in.

    Raises:
        InputError: the pixel lies outside of that image, or it holds no valid point.
    """
    u, v = _to_model(view, pixel, space)
    row, column = (int(np.clip(np.rint(x), 0, n - 1)) for x, n in ((v, view.height), (u, view.width)))
    if not view.valid[row, column]:
        raise InputError(
            f"Expected a pixel with a valid point, but {_show(pixel)} of view {view.name!r} is padding or "
            "was filtered out: choose another pixel, or measure in the unfiltered scene."
        )
    return row, column


def _to_model(view: View, pixel: Pixel, space: PixelSpace) -> tuple[float, float]:
    u, v = (float(x) for x in pixel)
    width, height = view.original_size if space is PixelSpace.ORIGINAL else (view.width, view.height)
    if not (-0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5):
        raise InputError(
            f"Expected a pixel (u, v) inside the {space.value} image of view {view.name!r}, {width} pixels "
            f"wide and {height} high, got {_show(pixel)}: u counts from the left, v from the top, from 0."
        )
    if space is PixelSpace.ORIGINAL:
        u, v = (float(x) for x in (view.T_model_original @ [u, v, 1.0])[:2])
    return u, v


def _show(pixel: Pixel) -> str:
    return f"({float(pixel[0]):g}, {float(pixel[1]):g})"


def measure_depth(
    views: Sequence[View], index: int, pixel: Pixel, space: PixelSpace, scale: Scale
) -> Measurement:
    """Z-depth of a pixel: its distance from the camera along the viewing axis. See `locate_pixel`."""
    view = views[index]
    row, column = locate_pixel(view, pixel, space)
    axis = view.T_world_camera[:3, 2].astype(np.float64)
    depth = float(view.depth[row, column])
    # Across the line of sight nothing is rounded: the depth is that of the pixel.
    error = length_error(
        views, DepthErrors(views, scale.point_error), [End(index, row, column)], axis, is_pixel_chosen=False
    )
    return Measurement(
        depth, scale, float(view.confidence[row, column]), with_scale_error(depth, error, scale)
    )


def measure_distance(
    views: Sequence[View], ends: tuple[tuple[int, Pixel], tuple[int, Pixel]], space: PixelSpace, scale: Scale
) -> Measurement:
    """Straight distance in space between the points of two pixels, of one view or of two.

    Args:
        views: of the scene.
        ends: the two views, as indices, and pixels.
        space: which images the pixels count in.
        scale: unit of the scene.

    Raises:
        InputError: as `locate_pixel`.
    """
    (a, *_), (b, *_) = ends
    places = [locate_pixel(views[index], pixel, space) for index, pixel in ends]
    start, stop = (world_point(views[i], *place) for i, place in zip((a, b), places, strict=True))
    length = float(np.linalg.norm(stop - start))
    trust = min(float(views[i].confidence[place]) for i, place in zip((a, b), places, strict=True))
    if length == 0:
        return Measurement(0.0, scale, trust, None)
    along = (stop - start) / length
    error = length_error(
        views,
        DepthErrors(views, scale.point_error),
        [End(a, *places[0], -1.0), End(b, *places[1], 1.0)],
        along,
    )
    return Measurement(length, scale, trust, with_scale_error(length, error, scale))


def measure_size(
    view: View,
    box: PixelBox,
    space: PixelSpace,
    scale: Scale,
    trim_percent: int | float = 2.0,
) -> RegionSize:
    """Extents of what a rectangle of pixels shows, along the camera's axes.

    Everything valid in the rectangle counts, so draw it tightly: background inside of it adds to the depth,
    and to the width and height as well.

    Args:
        view: the view the rectangle is in.
        box: left, top, right, bottom in pixels, edges included.
        space: which image `box` counts in.
        scale: unit of the scene.
        trim_percent: share of the points ignored at each end of each axis, against stray points; 0 to
            below 50.

    Raises:
        InputError: a rectangle that is empty, outside of the image or without valid points.
    """
    if not 0 <= trim_percent < 50:
        raise InputError(f"Expected trim_percent from 0 to below 50, got {trim_percent}.")
    rows, columns = region_of(view, box, space)
    valid = view.valid[rows, columns]
    points = view.points_camera[rows, columns][valid].astype(np.float64)
    if len(points) == 0:
        raise InputError(
            f"Expected a box with valid points in view {view.name!r}, got none in {box}: enlarge it."
        )
    dropped = min(round(len(points) * trim_percent / 100), (len(points) - 1) // 2)
    ordered = np.sort(points, axis=0)
    width, height, depth = (float(x) for x in ordered[len(points) - 1 - dropped] - ordered[dropped])
    trust = float(np.median(view.confidence[rows, columns][valid]))
    return RegionSize(width, height, depth, scale, trust, len(points))


def region_of(view: View, box: PixelBox, space: PixelSpace) -> tuple[slice, slice]:
    """Rows and columns of the point map that a rectangle of pixels covers.

    Raises:
        InputError: the rectangle is empty, or outside of the image.
    """
    left, top, right, bottom = box
    if not (left <= right and top <= bottom):
        raise InputError(
            f"Expected a box as left, top, right, bottom with left <= right, top <= bottom, got {box}."
        )
    u0, v0 = _to_model(view, (left, top), space)
    u1, v1 = _to_model(view, (right, bottom), space)
    return _covered(v0, v1, view.height), _covered(u0, u1, view.width)


def _covered(start: float, stop: float, size: int) -> slice:
    """Pixels whose centres lie between two coordinates; the nearest pixel if there is none."""
    first, last = int(np.ceil(start)), int(np.floor(stop))
    if first > last:
        first = last = int(np.rint((start + stop) / 2))
    first, last = max(0, min(first, size - 1)), max(0, min(last, size - 1))
    return slice(first, last + 1)
