"""nerfstudio's `transforms.json` with photos and a sparse cloud.

Camera axes are OpenGL's (x right, y up, z backward). The world is turned so that z points up where the
scene's y points down, as nerfstudio does for COLMAP models; `applied_transform` states that turn.
"""

import json
import os
from typing import Any

import numpy as np

from g2vlm.export.clouds import FEW_POINTS, capped_cloud
from g2vlm.export.conventions import CORNER_SHIFT_PX, FLIP_YZ, about, camera_pose, original_intrinsics
from g2vlm.export.originals import image_names, originals, place_image
from g2vlm.export.ply import write_ply
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import ImageFiles, SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.scene.writing import atomic_folder

Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""From the world of a scene to that of the file: (x, y, z) becomes (x, z, -y)."""


def write_nerfstudio(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write `transforms.json`, `images/` and `sparse_pc.ply`.

    Args:
        scene: with valid points.
        path: a folder, new or written before.
        options: `max_points` (200,000 by default), `images`, `photos`.
        on_progress: told about every view.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    cloud = capped_cloud(scene, options, FEW_POINTS).moved(Z_UP)
    names = image_names(scene)
    document = {
        "camera_model": "OPENCV",
        "frames": [
            _frame(view, name, index)
            for index, (view, name) in enumerate(zip(scene.views, names, strict=True))
        ],
        "applied_transform": Z_UP[:3].tolist(),
        "ply_file_path": "sparse_pc.ply",
    }
    facts = about(scene, "nerfstudio", camera_axes="OpenGL: x right, y up, z backward", world="z up")
    with atomic_folder(path, facts) as folder:
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (folder / "transforms.json").write_text(text, encoding="utf-8")
        write_ply(cloud, folder / "sparse_pc.ply", ("world of transforms.json: z up",))
        if options.images is not ImageFiles.NONE:
            for index, (name, original) in enumerate(
                zip(names, originals(scene, options.photos), strict=True)
            ):
                place_image(original, folder / "images" / name, options.images)
                on_progress(index + 1, len(scene))


def _frame(view: View, name: str, index: int) -> dict[str, Any]:
    K, (width, height) = original_intrinsics(view), view.original_size
    return {
        "file_path": f"images/{name}",
        "transform_matrix": (Z_UP @ camera_pose(view) @ FLIP_YZ).tolist(),
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2] + CORNER_SHIFT_PX,
        "cy": K[1, 2] + CORNER_SHIFT_PX,
        "w": width,
        "h": height,
        "k1": 0.0,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
        "colmap_im_id": index + 1,
    }
