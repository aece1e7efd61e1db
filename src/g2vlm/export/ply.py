"""PLY: coloured point clouds, binary little endian, in the world frame of the scene with its OpenCV axes.

Vertex properties: x y z (float32), red green blue (uchar), confidence (float32), and nx ny nz (float32)
between position and colour if the cloud has normals.
"""

import os
from collections.abc import Sequence

import numpy as np

from g2vlm.errors import OutputError
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.scene import Scene
from g2vlm.scene.writing import atomic_path

_CHUNK = 1 << 20
_TYPE_NAMES = {"<f4": "float", "|u1": "uchar"}


def write_ply(cloud: PointCloud, path: str | os.PathLike[str], comments: Sequence[str] = ()) -> None:
    """Write a point cloud atomically, in pieces of a million points.

    Args:
        cloud: at least one point.
        path: where to.
        comments: lines for the header, ASCII without line breaks (other characters become "?").

    Raises:
        OutputError: a cloud without points, or a place that cannot be written.
    """
    if len(cloud) == 0:
        raise OutputError(f"Expected points to write to {path}, got none: filter less.")
    vertex = _vertex_type(cloud.normals is not None)
    header = _header(len(cloud), vertex, comments)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for start in range(0, len(cloud), _CHUNK):
            file.write(_vertices(cloud, slice(start, start + _CHUNK), vertex).tobytes())


def _vertex_type(has_normals: bool) -> np.dtype:
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if has_normals else [])]
    fields = [(name, "<f4") for name in names]
    fields += [(name, "|u1") for name in ("red", "green", "blue")]
    return np.dtype([*fields, ("confidence", "<f4")])


def _header(count: int, vertex: np.dtype, comments: Sequence[str]) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += ["comment " + " ".join(comment.split()) for comment in comments]
    lines.append(f"element vertex {count}")
    lines += [f"property {_TYPE_NAMES[vertex[name].str]} {name}" for name in vertex.names or ()]
    return "\n".join([*lines, "end_header", ""]).encode("ascii", errors="replace")


def _vertices(cloud: PointCloud, piece: slice, vertex: np.dtype) -> np.ndarray:
    rows = np.empty(len(cloud.points[piece]), dtype=vertex)
    columns = {("x", "y", "z"): cloud.points, ("red", "green", "blue"): cloud.colors}
    if cloud.normals is not None:
        columns[("nx", "ny", "nz")] = cloud.normals
    for names, values in columns.items():
        for axis, name in enumerate(names):
            rows[name] = values[piece, axis]
    rows["confidence"] = cloud.confidence[piece]
    return rows


def write_scene_ply(scene: Scene, path: str | os.PathLike[str]) -> None:
    """Write all valid points of a scene, one view at a time; its unit and axes stand in the header.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    comments = (
        "axes OpenCV: x right, y down, z forward",
        f"scale {scene.scale.kind.value}: {scene.scale.source}",
    )
    if scene.num_points == 0:
        raise OutputError(f"Expected points to write to {path}, got none: filter less.")
    vertex = _vertex_type(has_normals=False)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(scene.num_points, vertex, comments))
        for view in scene.views:
            cloud = Scene((view,), scene.scale).point_cloud()
            file.write(_vertices(cloud, slice(None), vertex).tobytes())
