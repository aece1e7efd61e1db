"""transforms.json of nerfstudio and instant-ngp: pictures with cameras in OpenGL axes.

Layout: https://docs.nerf.studio/quickstart/data_conventions.html. `transform_matrix` is camera-to-world with
y up and z backwards; principal points count from the corner of the picture, so that half a pixel is taken
off. Bent pictures (k1, k2, p1, p2, or OPENCV_FISHEYE) are straightened. Frames that are listed without a file
are left out, as are pictures without a pose. Depth (`depth_file_path`) is in millimetres unless
`depth_unit_scale_factor` says otherwise. Lengths are metres only where the file says "scale": "metric" or has
depth.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from g2vlm.data.posed_frame import picture_size
from g2vlm.data.prepare.distortion import Lens, straightened, straightened_depth
from g2vlm.data.prepare.files import GL_TO_CV, array_depth, intrinsics, png_depth, square
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind

NAME = "transforms.json"


class Nerfstudio(Layout):
    """Folders with a transforms.json."""

    name, title = "nerfstudio", "nerfstudio transforms.json"
    licence = "the user's own"
    source = "https://docs.nerf.studio/quickstart/data_conventions.html"
    expects = "transforms.json beside the pictures, or folders that hold one"
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with the file, at any depth."""
        yield from deep_folders_with(root, NAME)

    def scale_of(self, root: Path, scene: str) -> ScaleKind:
        """What the file says, or whether it has depth."""
        content = read_transforms(root / scene / NAME)
        metric = any("depth_file_path" in frame for frame in content["frames"])
        said = content.get("scale", ScaleKind.METRIC.value if metric else ScaleKind.RELATIVE.value)
        return ScaleKind.METRIC if said == ScaleKind.METRIC.value else ScaleKind.RELATIVE

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of the file."""
        yield from listed_transforms(root / scene / NAME, scene, drop)


def read_transforms(path: Path) -> dict[str, Any]:
    """The content of a transforms.json.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a JSON object with frames in {path}: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise InputError(f"Expected a JSON object with a list of frames in {path}.")
    return content


def listed_transforms(path: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
    """Frames of a transforms.json, sorted by the names of their files."""
    content, folder = read_transforms(path), path.parent
    unit = float(content.get("depth_unit_scale_factor", 1e-3))
    frames = sorted(content["frames"], key=lambda frame: str(frame.get("file_path", "")))
    for about in frames:
        name = str(about.get("file_path", ""))
        what = f"{scene}/{name}"
        picture = _found(folder, name)
        if picture is None:
            drop("its picture is missing", what)
            continue
        try:
            camera = _camera({**content, **about}, picture)
            pose = square(about["transform_matrix"]) @ GL_TO_CV
        except (KeyError, TypeError, ValueError) as error:
            drop("its entry cannot be read", f"{what}: {error!r}")
            continue
        depth = None
        if about.get("depth_file_path"):
            file = folder / about["depth_file_path"]
            read = array_depth(file) if file.suffix == ".npy" else png_depth(file, unit)
            depth = straightened_depth(read, camera.K, camera.size, camera.lens)
        image = straightened(picture, camera.K, camera.size, camera.lens)
        yield ListedFrame(Path(name).stem, image, camera.K, pose, K_size=camera.size, depth=depth)


@dataclass(frozen=True, eq=False)
class _Camera:
    K: np.ndarray
    size: tuple[int, int]
    lens: Lens


def _camera(about: dict[str, Any], picture: Path) -> _Camera:
    if "w" in about and "h" in about:
        size = (int(about["w"]), int(about["h"]))
    else:
        with picture.open("rb") as file:
            size = picture_size(file.read())
    if "fl_x" in about:
        fx = float(about["fl_x"])
    else:
        fx = 0.5 * size[0] / math.tan(0.5 * float(about["camera_angle_x"]))
    fy = float(about.get("fl_y", fx))
    cx, cy = float(about.get("cx", size[0] / 2)), float(about.get("cy", size[1] / 2))
    model = about.get("camera_model", "OPENCV")
    if "FISHEYE" in model:
        lens = Lens(tuple(float(about.get(k, 0.0)) for k in ("k1", "k2", "k3", "k4")), is_fisheye=True)
    else:
        lens = Lens(tuple(float(about.get(k, 0.0)) for k in ("k1", "k2", "p1", "p2", "k3")))
    return _Camera(intrinsics(fx, fy, cx - 0.5, cy - 0.5), size, lens)


def _found(folder: Path, name: str) -> Path | None:
    """The picture's file: as listed, with an ending, or in a folder of smaller copies (images_4)."""
    listed = folder / name
    if name and listed.is_file():
        return listed
    candidates = (
        [listed.with_name(listed.name + ending) for ending in (".png", ".jpg", ".jpeg")] if name else []
    )
    candidates += [
        listed.parent.with_name(f"{listed.parent.name}_{factor}") / listed.name for factor in (2, 4, 8)
    ]
    return next((path for path in candidates if path.is_file()), None)
