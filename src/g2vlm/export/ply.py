"""PLY: coloured point clouds, binary little endian, in the world frame of the scene with its OpenCV axes.

Vertex properties: x y z (float32), red green blue (uchar), confidence (float32), and nx ny nz (float32)
between position and colour if the cloud has normals.
"""

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from g2vlm.errors import OutputError
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.writing import atomic_path

_CHUNK = 1 << 20
_TYPE_NAMES = {"<f4": "float", "|u1": "uchar", "<i4": "int"}


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
    vertex = vertex_type(cloud.normals is not None)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(ply_header({"vertex": (len(cloud), vertex)}, comments))
        for start in range(0, len(cloud), _CHUNK):
            file.write(vertices(cloud, slice(start, start + _CHUNK), vertex).tobytes())


def vertex_type(has_normals: bool) -> np.dtype:
    """Columns of a vertex."""
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if has_normals else [])]
    fields = [(name, "<f4") for name in names]
    fields += [(name, "|u1") for name in ("red", "green", "blue")]
    return np.dtype([*fields, ("confidence", "<f4")])


def ply_header(elements: dict[str, tuple[int, np.dtype]], comments: Sequence[str]) -> bytes:
    """Header of a binary file.

    Args:
        elements: count and columns of each element, in the order of the file. A column that is itself a
            record of `count` (uchar) and `items` stands for a list.
        comments: one line each; characters beyond ASCII become "?".
    """
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += ["comment " + " ".join(comment.split()) for comment in comments]
    for element, (count, columns) in elements.items():
        lines.append(f"element {element} {count}")
        lines += [f"property {_type_name(columns[name])} {name}" for name in columns.names or ()]
    return "\n".join([*lines, "end_header", ""]).encode("ascii", errors="replace")


def _type_name(column: np.dtype) -> str:
    if column.names is None:
        return _TYPE_NAMES[column.str]
    items = column["items"].base
    return f"list {_TYPE_NAMES[column['count'].str]} {_TYPE_NAMES[items.str]}"


def vertices(cloud: PointCloud, piece: slice, vertex: np.dtype) -> Shaped[np.ndarray, " points"]:
    """Rows of a file for a piece of a cloud."""
    rows = np.empty(len(cloud.points[piece]), dtype=vertex)
    columns = {("x", "y", "z"): cloud.points, ("red", "green", "blue"): cloud.colors}
    if cloud.normals is not None:
        columns[("nx", "ny", "nz")] = cloud.normals
    for names, values in columns.items():
        for axis, name in enumerate(names):
            rows[name] = values[piece, axis]
    rows["confidence"] = cloud.confidence[piece]
    return rows


def scene_comments(scene: Scene) -> tuple[str, ...]:
    """Axes and unit, for a header."""
    return (
        "axes OpenCV: x right, y down, z forward",
        f"scale {scene.scale}",
    )


def write_scene_ply(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write all valid points of a scene, one view at a time; its unit and axes stand in the header.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    if options.max_points is not None and scene.num_points > options.max_points:
        write_ply(scene.point_cloud().spread(options.max_points), path, scene_comments(scene))
        return
    if scene.num_points == 0:
        raise OutputError(f"Expected points to write to {path}, got none: filter less.")
    vertex = vertex_type(has_normals=False)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(ply_header({"vertex": (scene.num_points, vertex)}, scene_comments(scene)))
        for done, view in enumerate(scene.views, start=1):
            cloud = Scene((view,), scene.scale).point_cloud()
            file.write(vertices(cloud, slice(None), vertex).tobytes())
            on_progress(done, len(scene))
