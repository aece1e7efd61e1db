"""Depth from the resolution of the network to that of the original photo."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from g2vlm.scene.save_options import Upsampling
from g2vlm.scene.view import View

_EDGE_RANGE = 0.03
_REACH = 2
_COLOR_SIGMA = 10.0
_DISTANCE_SIGMA = 1.0
_ROWS_AT_ONCE = 256
_PIXELS_AT_ONCE = 100_000


def depth_at_original(
    view: View,
    upsampling: Upsampling = Upsampling.LINEAR,
    photo: UInt8[np.ndarray, "rows columns 3"] | None = None,
) -> Float32[np.ndarray, "rows columns"]:
    """Z-depth of every pixel of the original photo.

    Args:
        view: depth and the affine from original to model pixels.
        upsampling: how values between model pixels arise. `LINEAR` averages inverse depth, which is linear in
            the pixel on any plane. `EDGES` is `LINEAR` except within two pixels of a step of more than 3 %:
            there it takes the median of the surrounding depths, weighted by how close their colours come to
            that of the original pixel (after joint bilateral upsampling, Kopf et al. 2007; a median, since a
            mean of near and far lies on no surface).
        photo: the upright original; needed for `EDGES` only.

    Returns:
        Depth in the unit of the scene, 0 where the nearest model pixel is invalid or outside.
    """
    width, height = view.original_size
    depth = np.where(view.valid & (view.depth > 0), view.depth, 0).astype(np.float32)
    result = np.empty((height, width), dtype=np.float32)
    for rows in _chunks(height):
        u, v = _model_pixels(view, rows)
        if upsampling is Upsampling.NEAREST:
            result[rows] = _nearest(depth, u, v)
        else:
            result[rows] = _linear(depth, u, v)
    if upsampling is Upsampling.EDGES:
        if photo is None or photo.shape[:2] != (height, width):
            raise ValueError("Expected the original photo to follow its edges.")
        _follow_edges(view, depth, photo, result)
    return result


def nearest_at_original(
    view: View, values: Shaped[np.ndarray, "height width *rest"]
) -> Shaped[np.ndarray, "rows columns *rest"]:
    """The value of the nearest model pixel for every pixel of the original photo; at borders the last."""
    width, height = view.original_size
    result = np.empty((height, width, *values.shape[2:]), dtype=values.dtype)
    for rows in _chunks(height):
        row, column = _nearest_index(values.shape[:2], *_model_pixels(view, rows))
        result[rows] = values[row, column]
    return result


def _chunks(height: int) -> Iterator[slice]:
    for start in range(0, height, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, height))


def _model_pixels(view: View, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Model column and row, fractions, of the original pixels in some rows."""
    A = view.T_model_original
    v = np.arange(rows.start, rows.stop, dtype=np.float64)[:, None]
    u = np.arange(view.original_size[0], dtype=np.float64)
    return A[0, 0] * u + A[0, 1] * v + A[0, 2], A[1, 0] * u + A[1, 1] * v + A[1, 2]


def _nearest_index(shape: tuple[int, ...], u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row = np.clip(np.rint(v), 0, shape[0] - 1).astype(np.int64)
    return row, np.clip(np.rint(u), 0, shape[1] - 1).astype(np.int64)


def _nearest(depth: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    found: np.ndarray = depth[_nearest_index(depth.shape, u, v)]
    return found


def _linear(depth: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Mean of the inverse depths of up to four valid neighbours, zero where the nearest is invalid."""
    height, width = depth.shape
    inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0)
    u, v = np.clip(u, 0, width - 1), np.clip(v, 0, height - 1)
    left, top = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    total, weights = np.zeros(u.shape), np.zeros(u.shape)
    for row, share_v in ((top, 1 - (v - top)), (np.minimum(top + 1, height - 1), v - top)):
        for column, share_u in ((left, 1 - (u - left)), (np.minimum(left + 1, width - 1), u - left)):
            weight = share_u * share_v * (inverse[row, column] > 0)
            total += weight * inverse[row, column]
            weights += weight
    known = (_nearest(depth, u, v) > 0) & (total > 0)
    return np.where(known, weights / np.where(known, total, 1), 0).astype(np.float32)


def _follow_edges(view: View, depth: np.ndarray, photo: np.ndarray, result: np.ndarray) -> None:
    """Replace the depths near steps by those of the side that has their colour."""
    near_step = _near_steps(depth)
    for rows in _chunks(len(result)):
        u, v = _model_pixels(view, rows)
        row, column = _nearest_index(depth.shape, u, v)
        chosen = np.flatnonzero(near_step[row, column] & (depth[row, column] > 0))
        for start in range(0, len(chosen), _PIXELS_AT_ONCE):
            some = chosen[start : start + _PIXELS_AT_ONCE]
            color = photo[rows].reshape(-1, 3)[some].astype(np.float32)
            found = _side_of_color(view.rgb, depth, u.ravel()[some], v.ravel()[some], color)
            result[rows].reshape(-1)[some] = found


def _near_steps(depth: Float32[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Model pixels with a step in depth within reach.

    Inverse depth is linear on a plane, however slanted, so that its second difference tells steps apart.
    """
    from scipy.ndimage import correlate1d, maximum_filter

    inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), np.nan)
    bends = [correlate1d(inverse, [1.0, -2.0, 1.0], axis=axis, mode="mirror") for axis in (0, 1)]
    with np.errstate(invalid="ignore"):
        step = np.abs(bends).max(axis=0) > _EDGE_RANGE * inverse  # False beside invalid pixels
    near: Bool[np.ndarray, "height width"] = np.asarray(maximum_filter(step, size=2 * _REACH - 1))
    return near


def _side_of_color(
    rgb: UInt8[np.ndarray, "height width 3"],
    depth: Float32[np.ndarray, "height width"],
    u: Float64[np.ndarray, " pixels"],
    v: Float64[np.ndarray, " pixels"],
    color: Float32[np.ndarray, "pixels 3"],
) -> Float32[np.ndarray, " pixels"]:
    """Median of the depths around each pixel, weighted by nearness and by likeness of colour."""
    height, width = depth.shape
    reach = np.arange(-_REACH, _REACH + 1)
    down, right = (offsets.ravel() for offsets in np.meshgrid(reach, reach, indexing="ij"))
    row, column = np.rint(v).astype(np.int64)[:, None] + down, np.rint(u).astype(np.int64)[:, None] + right
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row, column = np.where(inside, row, 0), np.where(inside, column, 0)
    around = np.where(inside, depth[row, column], 0)
    apart = (row - v[:, None]) ** 2 + (column - u[:, None]) ** 2
    unlike = ((rgb[row, column].astype(np.float32) - color[:, None]) ** 2).sum(axis=-1)
    exponent = -apart / (2 * _DISTANCE_SIGMA**2) - unlike / (2 * 3 * _COLOR_SIGMA**2)
    exponent = np.where(around > 0, exponent, -np.inf)
    # The largest weight is one, so that a colour unlike all others still finds the nearest of them.
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    order = np.argsort(around, axis=1)
    cumulative = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
    middle = (cumulative < cumulative[:, -1:] / 2).sum(axis=1)
    found: Float32[np.ndarray, " pixels"] = np.take_along_axis(
        around, np.take_along_axis(order, middle[:, None], axis=1), axis=1
    )[:, 0]
    return found
