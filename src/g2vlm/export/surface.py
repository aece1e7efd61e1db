"""Surfaces from point maps: neighbouring pixels become triangles, except across depth edges."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from g2vlm.errors import OutputError
from g2vlm.export.conventions import original_pixels
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """Triangles with a colour at each corner, in the world of a scene."""

    points: Float32[np.ndarray, "points 3"]
    """Corners."""
    colors: UInt8[np.ndarray, "points 3"]
    """sRGB."""
    faces: Int32[np.ndarray, "faces 3"]
    """Corners of each triangle, counter-clockwise as seen from the side that cameras saw."""
    uv: Float32[np.ndarray, "points 2"] | None = None
    """Place in the picture of the view, 0 to 1 from its left and its top border; None without a picture."""


def view_mesh(view: View, max_edge: int | float) -> TriangleMesh:
    """The surface that one view sees.

    Each square of four neighbouring pixels gives up to two triangles, split along the diagonal with the
    smaller step in depth.

    Args:
        view: its valid pixels are used.
        max_edge: leave out triangles whose corners differ by more than this fraction of their smallest depth.

    Returns:
        A mesh, possibly without triangles; every point belongs to one.
    """
    depth = np.where(view.valid, view.depth, np.nan).astype(np.float64)
    index = np.arange(depth.size, dtype=np.int64).reshape(depth.shape)
    near, below = index[:-1, :-1], index[1:, :-1]
    right, far = index[:-1, 1:], index[1:, 1:]
    flat = depth.ravel()
    # The diagonal with the smaller step follows creases and edges better. Where a corner is missing, the
    # other diagonal still leaves a triangle: a step to NaN compares as larger.
    falling = np.abs(flat[near] - flat[far])
    rising = np.abs(flat[below] - flat[right])
    use_falling = np.where(np.isnan(rising), True, falling <= rising)
    triangles = np.concatenate(
        [
            np.stack(corners, axis=-1)[chosen]
            for chosen, corners in (
                (use_falling, (near, below, far)),
                (use_falling, (near, far, right)),
                (~use_falling, (near, below, right)),
                (~use_falling, (below, far, right)),
            )
        ]
    )
    kept = triangles[_on_one_surface(flat[triangles], max_edge)]
    used, faces = np.unique(kept, return_inverse=True)
    pixels = original_pixels(view).reshape(-1, 2)[used]
    return TriangleMesh(
        points=np.ascontiguousarray(view.points_world.reshape(-1, 3)[used]),
        colors=np.ascontiguousarray(view.rgb.reshape(-1, 3)[used]),
        faces=faces.reshape(-1, 3).astype(np.int32),
        uv=((pixels + 0.5) / view.original_size).astype(np.float32),
    )


def _on_one_surface(depth: np.ndarray, max_edge: int | float) -> Bool[np.ndarray, " faces"]:
    """Whether the three depths of each triangle are known, positive and near each other."""
    with np.errstate(invalid="ignore"):
        low, high = depth.min(axis=1), depth.max(axis=1)
        return np.asarray((low > 0) & (high - low <= max_edge * low))  # False with any NaN


def scene_mesh(scene: Scene, max_edge: int | float) -> TriangleMesh:
    """The surfaces of all views in one mesh; where views overlap, so do their surfaces.

    Raises:
        OutputError: not one triangle.
    """
    meshes = [view_mesh(view, max_edge) for view in scene.views]
    require_faces(sum(len(mesh.faces) for mesh in meshes))
    starts = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    return TriangleMesh(
        points=np.concatenate([mesh.points for mesh in meshes]),
        colors=np.concatenate([mesh.colors for mesh in meshes]),
        faces=np.concatenate(
            [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
        ).astype(np.int32),
    )


def require_faces(count: int) -> None:
    """Refuse a mesh without triangles.

    Raises:
        OutputError: `count` is 0.
    """
    if count == 0:
        raise OutputError(
            "Expected neighbouring pixels on one surface to make a mesh of, got none: filter less, or raise "
            "mesh_edge."
        )
