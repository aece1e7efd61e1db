"""Coloured point clouds: what is left of views when their pixel order is dropped."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64, UInt8

from g2vlm.errors import InputError

_VOXEL_PRECISION = 1.01


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in the world frame of a scene with what their pixels knew."""

    points: Float32[np.ndarray, "points 3"]
    """World coordinates, in the unit of the scene."""
    colors: UInt8[np.ndarray, "points 3"]
    """RGB."""
    confidence: Float32[np.ndarray, " points"]
    """0 to 1."""
    view_index: Int32[np.ndarray, " points"]
    """Which view each point comes from."""
    normals: Float32[np.ndarray, "points 3"] | None = None
    """Unit normals facing their camera, zero where undefined; None if not asked for."""

    def __len__(self) -> int:
        return len(self.points)

    def taken(self, index: Int[np.ndarray, " kept"]) -> "PointCloud":
        """The points of some numbers, in the order of these."""
        return replace(
            self,
            points=self.points[index],
            colors=self.colors[index],
            confidence=self.confidence[index],
            view_index=self.view_index[index],
            normals=None if self.normals is None else self.normals[index],
        )

    def thinned(self, voxel: int | float) -> "PointCloud":
        """At most one point in every cube of a regular grid: the most confident, the first among equals.

        Points keep their positions and their order; nothing is averaged.

        Args:
            voxel: side of the cubes, in the unit of the scene.

        Raises:
            InputError: `voxel` is not a positive number.
        """
        if not (np.isfinite(voxel) and voxel > 0):
            raise InputError(f"Expected a voxel side above 0, got {voxel}.")
        if len(self) == 0:
            return self
        return self.taken(self._most_confident(voxel))

    def spread(self, max_points: int) -> "PointCloud":
        """At most `max_points` points, evenly spread: `thinned` by the smallest voxel that leaves so few.

        The side is found to within one percent; a cloud that is small enough stays as it is.

        Raises:
            InputError: `max_points` is below 1.
        """
        return self.taken(self.spread_index(max_points))

    def spread_index(self, max_points: int) -> Int64[np.ndarray, " kept"]:
        """Which points `spread` keeps, ascending."""
        if max_points < 1:
            raise InputError(f"Expected max_points of at least 1, got {max_points}.")
        if len(self) <= max_points:
            return np.arange(len(self))
        extent = float((self.points.max(axis=0) - self.points.min(axis=0)).max())
        # One voxel of twice the extent at the corner of the grid can still cut a cloud in eight.
        if extent == 0:
            return np.array([int(self.confidence.argmax())])
        low, high = extent / len(self), 4 * extent
        while high > low * _VOXEL_PRECISION:
            middle = math.sqrt(low * high)
            if len(np.unique(_cell_numbers(self.points, middle))) > max_points:
                low = middle
            else:
                high = middle
        kept = self._most_confident(high)
        return kept[:max_points]

    def _most_confident(self, voxel: int | float) -> Int64[np.ndarray, " kept"]:
        """The most confident point of every voxel, the first among equals, ascending."""
        cell = _cell_numbers(self.points, voxel)
        order = np.argsort(cell)
        ordered = cell[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        confidence = self.confidence[order]
        best = np.maximum.reduceat(confidence, starts)
        is_best = confidence == np.repeat(best, np.diff(starts, append=len(order)))
        first_best = np.minimum.reduceat(np.where(is_best, order, len(order)), starts)
        return np.sort(first_best)

    def moved(self, T_new_world: Float[np.ndarray, "4 4"]) -> "PointCloud":
        """The same points in another frame.

        Args:
            T_new_world: a rotation, or a reflection of the axes, and a shift.
        """
        R, t = T_new_world[:3, :3], T_new_world[:3, 3]
        normals = None if self.normals is None else (self.normals @ R.T).astype(np.float32)
        return replace(self, points=(self.points @ R.T + t).astype(np.float32), normals=normals)

    def limited(self, max_points: int, seed: int = 0) -> "PointCloud":
        """A random subset of at most `max_points` points, in their order; always the same for the same seed.

        Raises:
            InputError: `max_points` is below 1.
        """
        if max_points < 1:
            raise InputError(f"Expected max_points of at least 1, got {max_points}.")
        if len(self) <= max_points:
            return self
        chosen = np.random.default_rng(seed).choice(len(self), max_points, replace=False, shuffle=False)
        return self.taken(np.sort(chosen))


def _cell_numbers(points: np.ndarray, voxel: int | float) -> np.ndarray:
    """One integer per point, equal exactly for points of one grid cell."""
    # In float64: a large scene over a small voxel exceeds the 24 bits of float32. Axis by axis, because numpy
    # is several times faster on contiguous columns.
    columns = [np.floor(points[:, axis].astype(np.float64) / voxel) for axis in range(3)]
    lows = [column.min() for column in columns]
    spans = [float(column.max() - low + 1) for column, low in zip(columns, lows, strict=True)]
    numbers = np.zeros(len(points), dtype=np.int64)
    if math.prod(spans) < 2.0**62:
        for column, low, span in zip(columns, lows, spans, strict=True):
            numbers = numbers * int(span) + (column - low).astype(np.int64)
        return numbers
    # A far outlier stretches the grid beyond 64 bits. Ranks instead of coordinates keep every intermediate
    # number below the square of the count, whatever the extent.
    for column in columns:
        distinct, rank = np.unique(column, return_inverse=True)
        numbers = np.unique(numbers * len(distinct) + rank, return_inverse=True)[1].astype(np.int64)
    return numbers
