"""PLY files written piece by piece, for point clouds that do not fit into memory."""

import os
from collections.abc import Iterable, Sequence

import numpy as np

from g2vlm.errors import OutputError
from g2vlm.export.ply import ply_header, vertex_type, vertices
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.writing import atomic_path

_DIGITS = 15


def write_ply_pieces(
    clouds: Iterable[PointCloud], path: str | os.PathLike[str], comments: Sequence[str] = ()
) -> int:
    """Write clouds one after the other into one file, atomically, holding one at a time.

    Args:
        clouds: without normals.
        path: where to.
        comments: lines for the header, ASCII without line breaks.

    Returns:
        The number of points.

    Raises:
        OutputError: no points at all, or a place that cannot be written.
    """
    vertex, count = vertex_type(has_normals=False), 0
    with atomic_path(path) as temporary, temporary.open("r+b") as file:
        file.write(_padded_header(0, vertex, comments))
        for cloud in clouds:
            file.write(vertices(cloud, slice(None), vertex).tobytes())
            count += len(cloud)
        if count == 0:
            raise OutputError(f"Expected points to write to {path}, got none: filter less.")
        file.seek(0)
        file.write(_padded_header(count, vertex, comments))
    return count


def _padded_header(count: int, vertex: np.dtype, comments: Sequence[str]) -> bytes:
    """A header whose length does not depend on the count: a comment makes up for missing digits."""
    padding = "." * (_DIGITS - len(str(count)))
    return ply_header({"vertex": (count, vertex)}, [*comments, f"streamed {padding}"])
