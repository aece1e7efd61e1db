"""One writer per file format. Importing this room makes all of them known to `Scene.save`.

A writer is imported when it is first used.
"""

import importlib
import os
from pathlib import Path
from typing import Any

from g2vlm.scene.formats import Format, Progress, Writer, no_progress, register
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene

__all__ = ["save_scene"]


def _later(module: str, function: str) -> Writer:
    """A writer that is imported when it is called."""

    def write(scene: Any, path: Path, options: SaveOptions, on_progress: Progress) -> None:
        writer: Writer = getattr(importlib.import_module(f"g2vlm.export.{module}"), function)
        writer(scene, path, options, on_progress)

    return write


def save_scene(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> Path:
    """`Scene.save`, with every format of this package at hand."""
    return scene.save(path, options, on_progress)


_MESHES = (".obj", ".ply", ".glb")

register(
    Format(
        "ply",
        "coloured points with confidence, for MeshLab, CloudCompare, Blender",
        _later("ply", "write_scene_ply"),
        (".ply",),
        (".ply",),
    ),
    Format(
        "glb",
        "points and cameras, for browsers, Blender, telephones",
        _later("glb", "write_points_glb"),
        (".glb",),
        (".glb",),
    ),
    Format(
        "html",
        "one page that shows points and cameras in any browser, offline",
        _later("page", "write_page"),
        (".html",),
        (".html",),
    ),
    Format(
        "mesh",
        "the surface that each view sees, cut at depth edges; in .glb covered with the photos",
        _later("mesh_files", "write_grid_mesh"),
        _MESHES,
        (".obj",),
    ),
    Format(
        "tsdf",
        "one surface fused from all views",
        _later("mesh_files", "write_fused_mesh"),
        _MESHES,
        module="skimage",
        extra="mesh",
    ),
    Format(
        "gaussians",
        "the start of a Gaussian splatting, in the columns of trainers",
        _later("gaussians", "write_gaussians"),
        (".ply",),
    ),
    Format(
        "colmap",
        "a COLMAP model with the photos, for COLMAP, gsplat, nerfstudio",
        _later("colmap.writer", "write_colmap"),
    ),
    Format(
        "nerfstudio",
        "transforms.json with the photos and a sparse cloud",
        _later("nerfstudio", "write_nerfstudio"),
    ),
    Format(
        "depth",
        "depth of every view at the size of the original photo",
        _later("maps", "write_depth"),
    ),
    Format(
        "normals",
        "normals of every view at the size of the original photo",
        _later("maps", "write_normals"),
    ),
    Format(
        "previews",
        "depth, normals and confidence as colours to look at",
        _later("maps", "write_previews"),
    ),
    Format(
        "tum",
        "camera trajectory of the TUM benchmark",
        _later("trajectories", "write_tum"),
        (".tum", ".txt"),
        (".tum",),
    ),
    Format(
        "kitti",
        "camera trajectory of the KITTI benchmark",
        _later("trajectories", "write_kitti"),
        (".kitti", ".txt"),
        (".kitti",),
    ),
    Format(
        "usd",
        "points and cameras for Omniverse, Houdini, Apple's tools",
        _later("usd", "write_usd"),
        (".usd", ".usdc", ".usda", ".usdz"),
        (".usd", ".usdc", ".usda", ".usdz"),
        module="pxr",
        extra="usd",
    ),
    Format(
        "rerun",
        "a recording for the rerun viewer",
        _later("rerun_log", "write_rerun"),
        (".rrd",),
        (".rrd",),
        module="rerun",
        extra="rerun",
    ),
)
