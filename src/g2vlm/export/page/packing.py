"""Points in few bytes: chunks of neighbours, each with a box of its own that 16 bits divide.

The blob holds, one after the other, for all points: x, y, z (uint16 each, shares of the chunk's box), the
view (uint16), red, green, blue, confidence (uint8), the normal (int8 x, y, z and a zero). All little-endian.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from g2vlm.scene.cloud import PointCloud

CHUNK_POINTS = 4096
_LEVELS = 65535
_CODE_BITS = 20


@dataclass(frozen=True)
class PackedPoints:
    """A cloud as the page reads it."""

    blob: bytes
    """See the module."""
    chunk_starts: tuple[int, ...]
    """First point of each chunk, and the number of points behind the last."""
    chunk_boxes: Float32[np.ndarray, "chunks 6"]
    """Lowest corner and size of each chunk, in the unit of the scene."""


def pack_points(cloud: PointCloud) -> PackedPoints:
    """Order a cloud along a curve that fills space, cut it into chunks, and quantize each.

    A chunk of neighbours is small, so that 16 bits are a ten-thousandth of it, wherever far outliers are.

    Args:
        cloud: with normals; not empty; of at most 65,535 views.
    """
    cloud_order = along_curve(cloud.points)
    points = cloud.points[cloud_order].astype(np.float64)
    starts = list(range(0, len(points), CHUNK_POINTS))
    shares = np.empty((len(points), 3), dtype="<u2")
    boxes = np.empty((len(starts), 6), dtype=np.float32)
    for chunk, start in enumerate(starts):
        part = points[start : start + CHUNK_POINTS]
        # Rounded to float32 first: the page adds the corner as it stands in the file.
        low = part.min(axis=0).astype(np.float32).astype(np.float64)
        size = (part - low).max(axis=0).astype(np.float32)
        boxes[chunk] = (*low.astype(np.float32), *size)
        span = np.where(size > 0, size, 1)
        shares[start : start + CHUNK_POINTS] = np.clip(np.rint((part - low) / span * _LEVELS), 0, _LEVELS)
    normals = cloud.normals
    assert normals is not None
    directions = np.zeros((len(points), 4), dtype=np.int8)
    directions[:, :3] = np.rint(normals[cloud_order] * 127)
    colors = np.empty((len(points), 4), dtype=np.uint8)
    colors[:, :3] = cloud.colors[cloud_order]
    colors[:, 3] = np.rint(np.clip(cloud.confidence[cloud_order], 0, 1) * 255)
    views = cloud.view_index[cloud_order].astype("<u2")
    blob = b"".join(part.tobytes() for part in (shares, views, colors, directions))
    return PackedPoints(blob, (*starts, len(points)), boxes)


def along_curve(points: Float32[np.ndarray, "points 3"]) -> Int64[np.ndarray, " points"]:
    """Order in which points follow a Z-shaped curve through space, so that neighbours come close together.

    Args:
        points: finite.
    """
    # Ranks instead of coordinates: an outlier far away must not squeeze all others into one cell.
    code = np.zeros(len(points), dtype=np.uint64)
    for axis in range(3):
        low, high = np.percentile(points[:, axis], (1, 99))
        share = (points[:, axis].astype(np.float64) - low) / max(high - low, 1e-12)
        # The outer percents keep their order beside the box that holds the rest.
        cell = (np.clip(share * 0.5 + 0.25, 0, 1) * ((1 << _CODE_BITS) - 1)).astype(np.uint64)
        for bit in range(_CODE_BITS):
            code |= ((cell >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return np.argsort(code, kind="stable")


def unpack_positions(packed: PackedPoints) -> Float32[np.ndarray, "points 3"]:
    """Positions as the page computes them."""
    count = packed.chunk_starts[-1]
    shares = np.frombuffer(packed.blob, dtype="<u2", count=3 * count).reshape(count, 3)
    chunk = np.searchsorted(packed.chunk_starts, np.arange(count), side="right") - 1
    low, size = packed.chunk_boxes[chunk, :3], packed.chunk_boxes[chunk, 3:]
    return (low + shares.astype(np.float32) / _LEVELS * size).astype(np.float32)


def unpack_colors(packed: PackedPoints) -> UInt8[np.ndarray, "points 4"]:
    """Red, green, blue and confidence of every point, in the order of `unpack_positions`."""
    count = packed.chunk_starts[-1]
    return np.frombuffer(packed.blob, dtype=np.uint8, offset=8 * count, count=4 * count).reshape(count, 4)
