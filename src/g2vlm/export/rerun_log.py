"""Recordings for the rerun viewer (`.rrd`): points, and camera, picture and depth of every view.

The rerun library puts random identifiers into its files: two recordings of one scene hold the same data but
differ in bytes.
"""

import io
import os
from typing import Any

import numpy as np
from PIL import Image

from g2vlm.errors import MissingExtraError
from g2vlm.export.clouds import capped_cloud
from g2vlm.export.conventions import camera_pose
from g2vlm.export.frusta import frustum_depth
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.scene.writing import atomic_path

_JPEG_QUALITY = 90


def write_rerun(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write a recording in the world of the scene; pictures and depth are those of the network.

    Args:
        scene: with valid points.
        path: where to.
        options: `max_points`, `frusta`.
        on_progress: told about every view.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
        MissingExtraError: rerun-sdk is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise MissingExtraError("Writing rerun recordings", "rerun") from error
    cloud = capped_cloud(scene, options)
    with atomic_path(path) as temporary:
        recording = rerun.RecordingStream("g2vlm", recording_id="scene", send_properties=False)
        recording.save(temporary)
        recording.log("world", rerun.ViewCoordinates.RDF, static=True)
        recording.log("world/points", rerun.Points3D(cloud.points, colors=cloud.colors), static=True)
        scale = f"{scene.scale} (unit {scene.scale.unit})"
        recording.log("world/scale", rerun.TextDocument(scale), static=True)
        if options.frusta:
            plane = frustum_depth(scene)
            for index, view in enumerate(scene.views):
                _log_view(recording, view, f"world/camera_{index:04d}", plane)
                on_progress(index + 1, len(scene))
        recording.flush()
        recording.disconnect()


def _log_view(recording: Any, view: View, place: str, plane: float) -> None:
    import rerun

    pose = camera_pose(view)
    picture = io.BytesIO()
    Image.fromarray(view.rgb).save(picture, "JPEG", quality=_JPEG_QUALITY)
    lens = rerun.Pinhole(
        image_from_camera=view.K,
        resolution=[view.width, view.height],
        camera_xyz=rerun.ViewCoordinates.RDF,
        image_plane_distance=plane,
    )
    recording.log(place, rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]), lens, static=True)
    image = rerun.EncodedImage(contents=picture.getvalue(), media_type="image/jpeg")
    recording.log(f"{place}/image", image, static=True)
    depth = np.where(view.valid, view.depth, 0).astype(np.float32)
    recording.log(f"{place}/depth", rerun.DepthImage(depth, meter=1.0), static=True)
    recording.log(f"{place}/name", rerun.TextDocument(view.name), static=True)
