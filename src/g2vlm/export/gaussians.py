"""The start of a 3-D Gaussian splatting: one Gaussian per point, in the columns that trainers read.

It is an initialisation, as Kerbl et al. 2023 make it from a sparse cloud (section 5.1): round Gaussians as
wide as the distance to their neighbours, hardly opaque. Training turns it into a splat.
"""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from g2vlm.export.clouds import FEW_POINTS, capped_cloud
from g2vlm.export.ply import ply_header, scene_comments
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.writing import atomic_path

_SH_DC = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""
_OPACITY = 0.1
_NEIGHBOURS = 3
_HIGHER_COEFFICIENTS = 45
_COLUMNS = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(f"f_dc_{i}", "<f4") for i in range(3)]
    + [(f"f_rest_{i}", "<f4") for i in range(_HIGHER_COEFFICIENTS)]
    + [("opacity", "<f4")]
    + [(f"scale_{i}", "<f4") for i in range(3)]
    + [(f"rot_{i}", "<f4") for i in range(4)]
)


def write_gaussians(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write an initialisation for Gaussian splatting as binary `.ply`, in the world of the scene.

    Args:
        scene: with valid points.
        path: where to.
        options: `max_points`, 200,000 by default.
        on_progress: not told: it is one step.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    cloud = capped_cloud(scene, options, FEW_POINTS)
    rows = np.zeros(len(cloud), dtype=_COLUMNS)
    for axis, name in enumerate("xyz"):
        rows[name] = cloud.points[:, axis]
    for channel in range(3):
        rows[f"f_dc_{channel}"] = (cloud.colors[:, channel] / 255.0 - 0.5) / _SH_DC
    # Stored before the activations of the trainer: opacity through a sigmoid, scales through an exponential.
    rows["opacity"] = np.log(_OPACITY / (1 - _OPACITY))
    spacing = np.log(_spacing(cloud))
    for axis in range(3):
        rows[f"scale_{axis}"] = spacing
    rows["rot_0"] = 1.0
    comments = ("initialisation for Gaussian splatting, not a trained splat", *scene_comments(scene))
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(ply_header({"vertex": (len(rows), _COLUMNS)}, comments))
        file.write(rows.tobytes())


def _spacing(cloud: PointCloud) -> Float64[np.ndarray, " points"]:
    """Root mean square distance of each point to its three nearest neighbours, always positive."""
    from scipy.spatial import cKDTree

    points: Float32[np.ndarray, "points 3"] = cloud.points
    neighbours = min(_NEIGHBOURS, len(points) - 1)
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    if neighbours == 0:
        return np.full(len(points), 1e-3 * extent)
    distance = np.asarray(cKDTree(points).query(points, k=neighbours + 1)[0])
    spacing = np.sqrt(np.square(distance[:, 1:]).mean(axis=1))
    return np.asarray(np.maximum(spacing, 1e-7 * extent), dtype=np.float64)
