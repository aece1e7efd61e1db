"""Folders with one map per view: depth and normals at the size of the photos, and coloured previews."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from g2vlm.errors import OutputError
from g2vlm.export.clouds import require_points
from g2vlm.export.conventions import about, camera_pose, original_intrinsics
from g2vlm.export.exr import write_exr
from g2vlm.export.originals import image_names, originals
from g2vlm.export.upsampling import depth_at_original, nearest_at_original
from g2vlm.scene.coloring import color_confidence, color_depth, color_normals, depth_range_of, view_normals
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import MapFiles, SaveOptions, Upsampling
from g2vlm.scene.scale import ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.writing import atomic_folder

_LEVELS = 65535
_MILLIMETRE = 0.001


def write_depth(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write z-depth at the size of the original photos, one file per view, 0 where unknown.

    In 16-bit PNG a metric scene counts millimetres where that reaches its farthest point (65.5 m); otherwise
    the step is the smallest that does. `g2vlm.json` beside the files states it, with the cameras.

    Args:
        scene: with valid points.
        path: a folder, new or written before.
        options: `maps`, `upsampling`, `photos`.
        on_progress: told about every view.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    require_points(scene)
    step = _depth_step(scene)
    names = _stems(scene)
    facts: dict[str, Any] = {"quantity": "z-depth", "unknown": 0, "upsampling": options.upsampling.value}
    if options.maps is MapFiles.PNG:
        facts |= {"unit_per_count": step, "largest_rounding_error": step / 2}
    files = [f"{name}.{options.maps.value}" for name in names]
    with atomic_folder(path, _facts(scene, "depth", files, **facts)) as folder:
        for done, (view, file, photo) in enumerate(
            zip(scene.views, files, _photos(scene, options), strict=True), start=1
        ):
            depth = depth_at_original(view, options.upsampling, photo)
            if options.maps is MapFiles.PNG:
                levels = np.rint(depth.astype(np.float64) / step)
                # Something known must not become the level that means unknown.
                counts = np.where(depth > 0, np.clip(levels, 1, _LEVELS), 0).astype(np.uint16)
                Image.fromarray(counts).save(folder / file)
            else:
                _write_floats({"Y": depth}, folder / file, options.maps)
            on_progress(done, len(scene))


def write_normals(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write unit normals in camera axes (x right, y down, z forward) at the size of the original photos.

    Each original pixel has the normal of the nearest model pixel. In 16-bit PNG red, green, blue are
    round((x, y, z) * 32767.5 + 32767.5), and 0, 0, 0 where unknown; in `.exr` and `.npy` zeros.

    Args:
        scene: with valid points.
        path: a folder, new or written before.
        options: `maps`.
        on_progress: told about every view.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    require_points(scene)
    files = [f"{name}.{options.maps.value}" for name in _stems(scene)]
    facts = {"quantity": "unit normals, camera axes x right, y down, z forward", "unknown": 0}
    if options.maps is MapFiles.PNG:
        facts["encoding"] = "round(component * 32767.5 + 32767.5)"
    with atomic_folder(path, _facts(scene, "normals", files, **facts)) as folder:
        for done, (view, file) in enumerate(zip(scene.views, files, strict=True), start=1):
            normals = nearest_at_original(view, view_normals(view))
            if options.maps is MapFiles.PNG:
                _write_png_normals(normals, folder / file)
            else:
                channels = {name: normals[..., axis] for axis, name in enumerate("RGB")}
                _write_floats(channels, folder / file, options.maps)
            on_progress(done, len(scene))


def write_previews(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write depth, normals and confidence as colours to look at, at the size of the network's images.

    Depth runs from red (near) to blue (far), the same for all views; `g2vlm.json` states both ends.

    Args:
        scene: with valid points.
        path: a folder, new or written before.
        options: none matters.
        on_progress: told about every view.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    require_points(scene)
    near, far = depth_range_of(scene.views)
    facts = about(scene, "previews", colors="depth: turbo, red near; confidence: viridis", near=near, far=far)
    with atomic_folder(path, facts) as folder:
        for done, (view, name) in enumerate(zip(scene.views, _stems(scene), strict=True), start=1):
            pictures = {
                "depth": color_depth(view.depth, view.valid, near, far),
                "normals": color_normals(view),
                "confidence": color_confidence(view),
            }
            for what, colors in pictures.items():
                Image.fromarray(colors).save(folder / f"{name}_{what}.png")
            on_progress(done, len(scene))


def _depth_step(scene: Scene) -> float:
    """What one count of a 16-bit file stands for."""
    farthest = max(float(view.depth[view.valid].max(initial=0.0)) for view in scene.views)
    needed = farthest / (_LEVELS - 1)
    if scene.scale.kind is ScaleKind.METRIC and needed <= _MILLIMETRE:
        return _MILLIMETRE
    return needed


def _stems(scene: Scene) -> list[str]:
    """Names of files without endings, distinct."""
    stems = [Path(name).stem for name in image_names(scene)]
    if len({stem.casefold() for stem in stems}) < len(stems):
        stems = image_names(scene)  # a.jpg and a.png
    return stems


def _facts(scene: Scene, kind: str, files: list[str], **more: Any) -> dict[str, Any]:
    views = [
        {
            "file": file,
            "name": view.name,
            "size": list(view.original_size),
            "K": original_intrinsics(view).tolist(),
            "T_world_camera": camera_pose(view).tolist(),
        }
        for view, file in zip(scene.views, files, strict=True)
    ]
    return about(scene, kind, **more, pixels="centres at integers", axes="OpenCV", views=views)


def _photos(scene: Scene, options: SaveOptions) -> Any:
    """The original pictures as arrays, or None for each view if nobody looks at them."""
    if options.upsampling is not Upsampling.EDGES:
        return (None for _ in scene.views)
    return (np.asarray(original.image) for original in originals(scene, options.photos))


def _write_floats(
    channels: dict[str, Float32[np.ndarray, "height width"]], path: Path, files: MapFiles
) -> None:
    if files is MapFiles.EXR:
        write_exr(channels, path)
    else:
        values = list(channels.values())
        np.save(path, values[0] if len(values) == 1 else np.stack(values, axis=-1), allow_pickle=False)


def _write_png_normals(normals: Float32[np.ndarray, "height width 3"], path: Path) -> None:
    import cv2

    levels = np.rint(normals.astype(np.float64) * 32767.5 + 32767.5).astype(np.uint16)
    levels[~normals.any(axis=-1)] = 0
    done, data = cv2.imencode(".png", np.ascontiguousarray(levels[..., ::-1]))
    if not done:
        raise OutputError(f"Expected to encode {path.name} as PNG, but OpenCV refused.")
    path.write_bytes(data.tobytes())
