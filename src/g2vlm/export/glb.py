"""glTF binary (`.glb`): points or surfaces with their cameras, for browsers, Blender and everything else.

The world is turned from OpenCV axes to glTF's (y up) by diag(1, -1, -1); `extras` of the scene hold that
matrix and the unit. Each camera is a real glTF camera, with a pyramid that shows its picture.
"""

import math
import os
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from g2vlm.export.clouds import capped_cloud, require_points
from g2vlm.export.conventions import FLIP_YZ, camera_pose, original_intrinsics, scale_errors
from g2vlm.export.frusta import EDGES, camera_color, frustum_corners, frustum_depth, thumbnail
from g2vlm.export.gltf import LINES, POINTS, TRIANGLES, GltfDocument, linear_colors
from g2vlm.export.originals import originals
from g2vlm.export.surface import TriangleMesh, require_faces, view_mesh
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

_TEXTURE_PX = 2048
_NEAR_SHARE = 0.1


def write_points_glb(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write points and cameras.

    Args:
        scene: with valid points.
        path: where to.
        options: `max_points`, `frusta`.
        on_progress: not told: it is one step.

    Raises:
        OutputError: no valid points, more than 4 GiB, or a place that cannot be written.
    """
    cloud = capped_cloud(scene, options)
    document = _document(scene)
    material = document.add_material()
    points = document.add_primitive(
        POINTS, _to_gltf(cloud.points), material, COLOR_0=linear_colors(cloud.colors)
    )
    document.add_node("points", mesh=document.add_mesh("points", [points]))
    if options.frusta:
        _add_cameras(document, scene)
    document.write(path)


def write_mesh_glb(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write the surface that each view sees, cut at depth edges and covered with its photo, and cameras.

    Args:
        scene: with valid points.
        path: where to.
        options: `mesh_edge`, `frusta`, `photos`.
        on_progress: told about every view.

    Raises:
        OutputError: not one triangle, more than 4 GiB, or a place that cannot be written.
    """
    require_points(scene)
    document = _document(scene)
    faces = 0
    pictures = originals(scene, options.photos)
    for index, (view, original) in enumerate(zip(scene.views, pictures, strict=True)):
        mesh = view_mesh(view, options.mesh_edge)
        faces += len(mesh.faces)
        if len(mesh.faces) and mesh.uv is not None:
            picture = original.image.copy()
            picture.thumbnail((_TEXTURE_PX, _TEXTURE_PX))
            material = document.add_material(texture=document.add_picture(picture), both_sides=True)
            surface = document.add_primitive(
                TRIANGLES, _to_gltf(mesh.points), material, indices=mesh.faces, TEXCOORD_0=mesh.uv
            )
            document.add_node(f"surface {index}: {view.name}", mesh=document.add_mesh(view.name, [surface]))
        on_progress(index + 1, len(scene))
    require_faces(faces)
    if options.frusta:
        _add_cameras(document, scene)
    document.write(path)


def write_colored_mesh_glb(scene: Scene, mesh: TriangleMesh, path: str | os.PathLike[str]) -> None:
    """Write one mesh with a colour at each corner, in the world of a scene, without cameras.

    Raises:
        OutputError: more than 4 GiB, or a place that cannot be written.
    """
    document = _document(scene)
    surface = document.add_primitive(
        TRIANGLES,
        _to_gltf(mesh.points),
        document.add_material(both_sides=True),
        indices=mesh.faces,
        COLOR_0=linear_colors(mesh.colors),
    )
    document.add_node("surface", mesh=document.add_mesh("surface", [surface]))
    document.write(path)


def _document(scene: Scene) -> GltfDocument:
    return GltfDocument(
        extras={
            "T_gltf_world": FLIP_YZ.tolist(),
            "world_axes": "OpenCV: x right, y down, z forward",
            "scale": scene.scale.kind.value,
            "unit": scene.scale.unit,
            "scale_source": scene.scale.source,
            **scale_errors(scene),
        }
    )


def _to_gltf(points: Float32[np.ndarray, "points 3"]) -> Float32[np.ndarray, "points 3"]:
    return (points * np.array([1, -1, -1], dtype=np.float32)).astype(np.float32)


def _add_cameras(document: GltfDocument, scene: Scene) -> None:
    depth = frustum_depth(scene)
    for index, view in enumerate(scene.views):
        mesh = document.add_mesh(f"frustum {index}", _frustum(document, view, index, depth))
        K, (width, height) = original_intrinsics(view), view.original_size
        lens = document.add_camera(
            view.name,
            yfov_rad=2 * math.atan(height / 2 / K[1, 1]),
            aspect=float(width / K[0, 0] / (height / K[1, 1])),
            znear=_NEAR_SHARE * depth,
        )
        document.add_node(
            f"camera {index}: {view.name}",
            mesh=mesh,
            camera=lens,
            matrix=_gltf_pose(view).T.ravel().tolist(),
            extras={
                "name": view.name,
                "original_size": list(view.original_size),
                "K_original": K.tolist(),
                "T_world_camera": camera_pose(view).tolist(),
            },
        )


def _gltf_pose(view: View) -> Float64[np.ndarray, "4 4"]:
    """Pose of the glTF camera (looks along -z, y up) in glTF's world."""
    return FLIP_YZ @ camera_pose(view) @ FLIP_YZ


def _frustum(document: GltfDocument, view: View, index: int, depth: float) -> list[dict[str, Any]]:
    corners = frustum_corners(view, depth).astype(np.float32)
    red, green, blue = camera_color(index)
    lines = document.add_primitive(
        LINES, corners, document.add_material(color=(red, green, blue)), indices=EDGES
    )
    picture = document.add_picture(thumbnail(view), quality=80)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
    base = document.add_primitive(
        TRIANGLES,
        corners[1:],
        document.add_material(texture=picture, both_sides=True),
        indices=np.array([[0, 3, 1], [1, 3, 2]]),
        TEXCOORD_0=uv,
    )
    return [lines, base]
