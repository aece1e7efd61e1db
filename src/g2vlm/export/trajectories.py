"""Camera trajectories as text, in the formats of the TUM RGB-D and KITTI benchmarks."""

import os

import numpy as np

from g2vlm.export.conventions import camera_pose, quaternion_wxyz
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.writing import atomic_path


def write_tum(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write `time x y z qx qy qz qw` of each view; times in seconds, or 0, 1, 2 ... for photos.

    Raises:
        OutputError: a place that cannot be written.
    """
    known = [view.time_s for view in scene.views]
    times = known if all(time is not None for time in known) else range(len(scene))
    lines = ["# time x y z qx qy qz qw", f"# camera to world, OpenCV axes, unit: {scene.scale.unit}"]
    for time, view in zip(times, scene.views, strict=True):
        pose = camera_pose(view)
        w, x, y, z = quaternion_wxyz(pose[:3, :3])
        lines.append(f"{time:.6f} " + _numbers(np.array([*pose[:3, 3], x, y, z, w])))
    _write(lines, path)


def write_kitti(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write the upper three rows of each pose, twelve numbers to a line.

    Raises:
        OutputError: a place that cannot be written.
    """
    _write([_numbers(camera_pose(view)[:3].ravel()) for view in scene.views], path)


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _write(lines: list[str], path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")
