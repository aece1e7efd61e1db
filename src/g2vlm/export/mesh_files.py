"""Meshes with a colour at each corner as `.ply` and `.obj`, and the writer for each ending of a mesh."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from g2vlm.export.fusion import fused_mesh
from g2vlm.export.glb import write_colored_mesh_glb, write_mesh_glb
from g2vlm.export.ply import ply_header, scene_comments
from g2vlm.export.surface import TriangleMesh, scene_mesh
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.writing import atomic_path

_VERTEX = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z")] + [(name, "|u1") for name in ("red", "green", "blue")]
)
_FACE = np.dtype([("vertex_indices", [("count", "|u1"), ("items", "<i4", (3,))])])
_ROWS_AT_ONCE = 100_000

MESH_ENDINGS = (".obj", ".ply", ".glb")
"""Files that meshes can be written to."""


def write_grid_mesh(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write the surface that each view sees, cut at depth edges; in `.glb` covered with the photos.

    Args:
        scene: with valid points.
        path: ends in .obj, .ply or .glb.
        options: `mesh_edge`; for `.glb` also `frusta`, `photos`.
        on_progress: told about every view of a `.glb`.

    Raises:
        OutputError: not one triangle, or a place that cannot be written.
    """
    if Path(path).suffix.lower() == ".glb":
        write_mesh_glb(scene, path, options, on_progress)
    else:
        _write(scene, scene_mesh(scene, options.mesh_edge), path)


def write_fused_mesh(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write one surface fused from all views (`fusion.fused_mesh`).

    Args:
        scene: with valid points.
        path: ends in .obj, .ply or .glb.
        options: `voxel`.
        on_progress: told about every view.

    Raises:
        OutputError: no surface, or a place that cannot be written.
        MissingExtraError: scikit-image is not installed.
    """
    _write(scene, fused_mesh(scene, options.voxel, on_progress), path)


def _write(scene: Scene, mesh: TriangleMesh, path: str | os.PathLike[str]) -> None:
    writers: dict[str, Callable[[Scene, TriangleMesh, str | os.PathLike[str]], None]] = {
        ".obj": write_mesh_obj,
        ".ply": write_mesh_ply,
        ".glb": write_colored_mesh_glb,
    }
    writers[Path(path).suffix.lower()](scene, mesh, path)


def write_mesh_ply(scene: Scene, mesh: TriangleMesh, path: str | os.PathLike[str]) -> None:
    """Write a mesh as binary `.ply` with sRGB colours.

    Raises:
        OutputError: a place that cannot be written.
    """
    corners = np.empty(len(mesh.points), dtype=_VERTEX)
    for axis, (place, color) in enumerate(zip("xyz", ("red", "green", "blue"), strict=True)):
        corners[place] = mesh.points[:, axis]
        corners[color] = mesh.colors[:, axis]
    faces = np.empty(len(mesh.faces), dtype=_FACE)
    faces["vertex_indices"]["count"] = 3
    faces["vertex_indices"]["items"] = mesh.faces
    elements = {"vertex": (len(corners), _VERTEX), "face": (len(faces), _FACE)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(ply_header(elements, scene_comments(scene)))
        file.write(corners.tobytes())
        file.write(faces.tobytes())


def write_mesh_obj(scene: Scene, mesh: TriangleMesh, path: str | os.PathLike[str]) -> None:
    """Write a mesh as `.obj` with sRGB colours after the coordinates, 0 to 1, as most readers take them.

    Raises:
        OutputError: a place that cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"# {' '.join(comment.split())}\n" for comment in scene_comments(scene))
        for start in range(0, len(mesh.points), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            rows = np.concatenate([mesh.points[piece], mesh.colors[piece] / np.float32(255)], axis=1)
            file.write(_lines("v %.9g %.9g %.9g %.4f %.4f %.4f", rows))
        for start in range(0, len(mesh.faces), _ROWS_AT_ONCE):
            file.write(_lines("f %d %d %d", mesh.faces[start : start + _ROWS_AT_ONCE] + 1))


def _lines(pattern: str, rows: np.ndarray) -> str:
    text = io.StringIO()
    np.savetxt(text, rows, fmt=pattern)
    return text.getvalue()
