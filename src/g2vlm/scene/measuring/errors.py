"""How far a point map is off, read from how much the views of a scene disagree.

The model: the point of a pixel lies at (1 + e) times its true distance from its own camera, with
e = common + local. `common` is the same for all of a view (its scale), `local` differs from place to place.
Where view i's point is seen by view j, the logarithm of the ratio of its depth there to the depth that view j
measured at that pixel is r = e_i - e_j. So

- the median of r over a pair of views is the difference of two common parts: half of its mean square over
  the pairs among a view and its four best neighbours is the variance of `common`;
- what r differs from that median by is the difference of two local parts: half of its robust variance is
  that of `local`, here the mean of that in the window around the pixel and that of the whole view, since an
  error that is smooth in space looks small in a window as easily as large.

What all views get wrong alike cannot be seen this way, and with two views, one pair tells `common` roughly.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float64

from g2vlm.scene.view import View

_NEIGHBOURS = 4
_SAMPLES = 16
_MOST_PIXELS = 10_000
_REACH = 5
"""Half the side of the window around a pixel."""
_FEWEST = 12
_SLOPE_REACH = 2
_SAME_SURFACE = 0.7
"""Logarithm of a ratio beyond which two depths belong to different surfaces."""
_MIN_OVERLAP = 0.1
_MAD_TO_SIGMA = 1.4826


class DepthErrors:
    """Relative errors of the points of a scene's views, computed where asked for."""

    def __init__(self, views: Sequence[View], least: float | None = None) -> None:
        """Prepare; nothing is computed yet.

        Args:
            views: of a scene.
            least: an error of single points that is known from elsewhere, such as from measured depth: the
                local part is at least that, also where a single view sees something.
        """
        self._views = views
        self._least = least
        self._ratios = cache(self._log_ratios)
        self.neighbours = cache(self._neighbours)

    def common(self, index: int) -> float | None:
        """Standard deviation of a view's own scale; None if no other view sees the same."""
        group = [index, *self.neighbours(index)]
        medians = []
        for a in group:
            for b in group:
                ratios = self._ratios(a, b) if a != b and b in self.neighbours(a) else None
                if ratios is not None and np.isfinite(ratios).sum() >= _FEWEST:
                    medians.append(float(np.nanmedian(ratios)))
        if not medians:
            return None if self._least is None else 0.0
        return float(np.sqrt(np.mean(np.square(medians)) / 2))

    def local(self, index: int, row: int, column: int) -> float | None:
        """Standard deviation of the local part at a pixel; None if no other view sees the same."""
        step = self._step(self._views[index])
        near, whole = [], []
        for other in self.neighbours(index):
            ratios = self._ratios(index, other)
            if np.isfinite(ratios).sum() < _FEWEST:
                continue
            left = ratios - np.nanmedian(ratios)
            whole.append(left[np.isfinite(left)])
            reach = max(_REACH // step, 2)
            r, c = row // step, column // step
            window = left[max(0, r - reach) : r + reach + 1, max(0, c - reach) : c + reach + 1]
            near.append(window[np.isfinite(window)])
        if not whole:
            return self._least
        of_view, of_window = np.concatenate(whole), np.concatenate(near)
        variance = _variance(of_view)
        if len(of_window) >= _FEWEST:
            variance = (variance + _variance(of_window)) / 2
        return max(float(np.sqrt(variance / 2)), self._least or 0.0)

    def _step(self, view: View) -> int:
        return max(1, int(np.ceil(np.sqrt(view.width * view.height / _MOST_PIXELS))))

    def _neighbours(self, index: int) -> tuple[int, ...]:
        """The other views that contain most of what a view sees."""
        view = self._views[index]
        rows = np.linspace(0, view.height - 1, _SAMPLES).round().astype(int)
        columns = np.linspace(0, view.width - 1, _SAMPLES).round().astype(int)
        valid = view.valid[np.ix_(rows, columns)]
        points = _to_world(view, view.points_camera[np.ix_(rows, columns)][valid])
        shares = []
        for place, other in enumerate(self._views):
            if place == index or len(points) == 0:
                continue
            u, v, z = _seen_by(other, points)
            inside = (z > 0) & (u > -0.5) & (u < other.width - 0.5) & (v > -0.5) & (v < other.height - 0.5)
            shares.append((float(inside.mean()), place))
        best = sorted(shares, key=lambda pair: -pair[0])[:_NEIGHBOURS]
        return tuple(place for share, place in best if share >= _MIN_OVERLAP)

    def _log_ratios(self, index: int, other: int) -> Float64[np.ndarray, "rows columns"]:
        """The r of the module's text on a sub-grid of pixels; NaN where the other view cannot tell."""
        view, judge = self._views[index], self._views[other]
        step = self._step(view)
        points = _to_world(view, view.points_camera[::step, ::step])
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            u, v, z = _seen_by(judge, points)
            usable = view.valid[::step, ::step] & (z > 0) & np.isfinite(u) & np.isfinite(v)
            u, v = np.where(usable, u, -9.0).clip(-9, 1e7), np.where(usable, v, -9.0).clip(-9, 1e7)
            column, row = np.rint(u).astype(int), np.rint(v).astype(int)
            edge = _SLOPE_REACH
            usable &= (column >= edge) & (column < judge.width - edge)
            usable &= (row >= edge) & (row < judge.height - edge)
            row, column = np.where(usable, row, edge), np.where(usable, column, edge)
            if min(judge.height, judge.width) <= 2 * edge:
                return np.full(usable.shape, np.nan)
            seen, sound = _depth_between(judge, row, column, u, v)
            ratio = np.log(z / seen)
        usable &= sound & (np.abs(np.nan_to_num(ratio, nan=9.0)) < _SAME_SURFACE)
        return np.where(usable, ratio, np.nan)


def _variance(values: np.ndarray) -> float:
    return float(np.square(_MAD_TO_SIGMA * np.median(np.abs(values))))


def _depth_between(
    view: View, row: np.ndarray, column: np.ndarray, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Depth at fractional pixels: that of the nearest pixel, and the slope around it; and whether all exist.

    Interpolation between neighbours would average their errors away.
    """
    depth, valid, reach = view.depth.astype(np.float64), view.valid, _SLOPE_REACH
    slope_u = (depth[row, column + reach] - depth[row, column - reach]) / (2 * reach)
    slope_v = (depth[row + reach, column] - depth[row - reach, column]) / (2 * reach)
    sound = valid[row, column] & valid[row, column + reach] & valid[row, column - reach]
    sound &= valid[row + reach, column] & valid[row - reach, column]
    seen = depth[row, column] + slope_u * (u - column) + slope_v * (v - row)
    return np.where(sound, seen, np.nan), sound & (seen > 0)


def _to_world(view: View, points: np.ndarray) -> np.ndarray:
    T = view.T_world_camera.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # invalid pixels may hold anything
        return points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]


def _seen_by(view: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and depths of world points in a view."""
    T, K = view.T_world_camera.astype(np.float64), view.K.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        x, y, z = np.moveaxis((points - T[:3, 3]) @ T[:3, :3], -1, 0)
        return K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2], z
