"""Overlapping pieces of a scene made one: views blended across seams, duplicate points thinned."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float, Int64, Shaped

from g2vlm.errors import InputError
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.view import View

_BUCKETS = 256
_BLOCK_SHIFT = 4
_SMALLEST_THINNED = 8192
_SMALLEST_WEIGHT = 1e-3
_PRIMES = (73_856_093, 19_349_663, 83_492_791)
_ROW = np.dtype(
    [("point", "<f4", 3), ("color", "<f4", 3), ("confidence", "<f4"), ("weight", "<f4"), ("view", "<i4")]
)


def blend_views(first: View, second: View, weight: float) -> View:
    """One view from two reconstructions of the same frame in the same world.

    The camera moves along the shortest rotation and the straight line between both; points in camera axes are
    averaged by confidence and weight where both are valid, else taken from the valid one. With a weight that
    grows along the frames of an overlap, one reconstruction passes into the other without a step.

    Args:
        first: gives name, colours and everything that both share.
        second: of the same frame and resolution.
        weight: share of the second, 0 to 1.

    Raises:
        InputError: different resolutions, or a weight out of range.
    """
    if first.rgb.shape != second.rgb.shape:
        raise InputError(f"Expected views of one size, got {first.rgb.shape} and {second.rgb.shape}.")
    if not 0 <= weight <= 1:
        raise InputError(f"Expected a weight from 0 to 1, got {weight}.")
    shares = [
        (1 - weight) * np.where(first.valid, first.confidence + _SMALLEST_WEIGHT, 0),
        weight * np.where(second.valid, second.confidence + _SMALLEST_WEIGHT, 0),
    ]
    total = shares[0] + shares[1]
    valid = total > 0
    share = np.where(valid, shares[1] / np.where(valid, total, 1), 0).astype(np.float32)
    points = _mixed(first.points_camera, second.points_camera, share[..., None])
    return replace(
        first,
        points_camera=points,
        T_world_camera=_blended_pose(first.T_world_camera, second.T_world_camera, weight),
        K=((1 - weight) * first.K + weight * second.K).astype(np.float32),
        confidence=np.clip(_mixed(first.confidence, second.confidence, share), 0, 1),
        valid=valid,
    )


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    # Where one side has no share it may hold anything, NaN included: it must not enter the sum.
    low, high = np.where(share < 1, first, 0), np.where(share > 0, second, 0)
    mixed: np.ndarray = ((1 - share) * low + share * high).astype(np.float32)
    return mixed


def _blended_pose(
    first: Float[np.ndarray, "4 4"], second: Float[np.ndarray, "4 4"], weight: float
) -> Float[np.ndarray, "4 4"]:
    from scipy.spatial.transform import Rotation

    start = Rotation.from_matrix(first[:3, :3].astype(np.float64))
    turn = start.inv() * Rotation.from_matrix(second[:3, :3].astype(np.float64))
    pose = np.eye(4)
    pose[:3, :3] = (start * Rotation.from_rotvec(weight * turn.as_rotvec())).as_matrix()
    pose[:3, 3] = (1 - weight) * first[:3, 3] + weight * second[:3, 3]
    return pose.astype(np.float32)


class VoxelMerger:
    """Merges any number of point clouds into one point per occupied voxel, in constant memory.

    Points are sorted into 256 files by the block of space they lie in, so that all points of a voxel meet in
    one file and only one file is in memory at a time; files are thinned as they grow. A merged point is the
    mean of its voxel's points weighted by confidence; its confidence is their weighted mean, its view that of
    the weightiest.

    Args:
        voxel: side of the cubes, in the unit of the scene.
        folder: where the temporary files go; the system's place for them if None. They take some 80 bytes
            for each voxel in the end and are removed when the `with` block is left.

    Raises:
        InputError: `voxel` is not a positive number.
    """

    def __init__(self, voxel: float, folder: Path | None = None) -> None:
        if not (np.isfinite(voxel) and voxel > 0):
            raise InputError(f"Expected a voxel side above 0, got {voxel}.")
        self.voxel = voxel
        self._parent = folder

    def __enter__(self) -> "VoxelMerger":
        self._folder = Path(tempfile.mkdtemp(prefix="merging-", dir=self._parent))
        self._num_rows = np.zeros(_BUCKETS, dtype=np.int64)
        self._num_thinned = np.zeros(_BUCKETS, dtype=np.int64)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, cloud: PointCloud) -> None:
        """Merge a cloud; its points are thinned among themselves first."""
        if len(cloud) == 0:
            return
        rows = np.empty(len(cloud), dtype=_ROW)
        rows["point"], rows["color"] = cloud.points, cloud.colors
        rows["confidence"], rows["view"] = cloud.confidence, cloud.view_index
        rows["weight"] = cloud.confidence + _SMALLEST_WEIGHT
        rows = self._merged(rows)
        blocks = self._cells(rows) >> _BLOCK_SHIFT
        number = np.zeros(len(rows), dtype=np.int64)
        for axis, prime in enumerate(_PRIMES):
            number ^= blocks[:, axis] * prime
        number %= _BUCKETS
        order = np.argsort(number, kind="stable")
        bounds = np.searchsorted(number[order], np.arange(_BUCKETS + 1))
        for bucket in np.flatnonzero(np.diff(bounds)):
            self._append(int(bucket), rows[order[bounds[bucket] : bounds[bucket + 1]]])

    def _append(self, bucket: int, rows: Shaped[np.ndarray, " points"]) -> None:
        """Add rows to a file; when it has doubled since it was last thinned, thin it again."""
        with self._file(bucket).open("ab") as file:
            file.write(rows.tobytes())
        self._num_rows[bucket] += len(rows)
        if self._num_rows[bucket] > max(2 * self._num_thinned[bucket], _SMALLEST_THINNED):
            thinned = self._merged(np.fromfile(self._file(bucket), dtype=_ROW))
            thinned.tofile(self._file(bucket))
            self._num_rows[bucket] = self._num_thinned[bucket] = len(thinned)

    def clouds(self) -> Iterator[PointCloud]:
        """The merged points, a part of space at a time."""
        for bucket in range(_BUCKETS):
            if not self._file(bucket).exists():
                continue
            rows = self._merged(np.fromfile(self._file(bucket), dtype=_ROW))
            yield PointCloud(
                points=np.ascontiguousarray(rows["point"]),
                colors=np.clip(rows["color"].round(), 0, 255).astype(np.uint8),
                confidence=np.clip(rows["confidence"], 0, 1),
                view_index=np.ascontiguousarray(rows["view"]),
            )

    def _file(self, bucket: int) -> Path:
        return self._folder / f"{bucket:03d}.points"

    def _cells(self, rows: Shaped[np.ndarray, " points"]) -> Int64[np.ndarray, "points 3"]:
        return np.floor(rows["point"].astype(np.float64) / self.voxel).astype(np.int64)

    def _merged(self, rows: Shaped[np.ndarray, " points"]) -> Shaped[np.ndarray, " voxels"]:
        """Weighted means of the rows of each voxel."""
        cells = self._cells(rows)
        order = np.lexsort((-rows["weight"], cells[:, 2], cells[:, 1], cells[:, 0]))
        rows, cells = rows[order], cells[order]
        first = np.ones(len(rows), dtype=bool)
        first[1:] = (cells[1:] != cells[:-1]).any(axis=1)
        starts = np.flatnonzero(first)
        merged = rows[starts]
        weight = rows["weight"].astype(np.float64)
        total = np.add.reduceat(weight, starts)
        # Means relative to the voxel's own corner keep float32 positions exact and inside their voxel.
        corner = cells * self.voxel
        for name, values in (("point", rows["point"] - corner), ("color", rows["color"])):
            sums = np.add.reduceat(weight[:, None] * values, starts, axis=0) / total[:, None]
            merged[name] = sums + corner[starts] if name == "point" else sums
        merged["confidence"] = np.add.reduceat(weight * rows["confidence"], starts) / total
        merged["weight"] = total
        return merged
