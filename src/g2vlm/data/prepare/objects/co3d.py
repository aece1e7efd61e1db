"""CO3Dv2: 19,000 turns around single objects of 50 categories, cameras and depth by COLMAP.

Source: https://github.com/facebookresearch/co3d (Reizenstein et al., ICCV 2021); licence: CC BY-NC 4.0.
Layout: CATEGORY/frame_annotations.jgz (gzipped JSON, all frames of the category) and
CATEGORY/SEQUENCE/images, depths, depth_masks. Cameras are PyTorch3D's: row vectors, x left, y up, intrinsics
in normalised device coordinates, either of the shorter side (`ndc_isotropic`) or of each side
(`ndc_norm_image_bounds`). A depth PNG holds the bits of half floats, times `scale_adjustment`. Lengths have
COLMAP's own unit.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from g2vlm.data.prepare.files import intrinsics, inverse
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind

_ANNOTATIONS = "frame_annotations.jgz"


class Co3d(Layout):
    """Sequences of all categories."""

    name, title = "co3d", "CO3Dv2"
    licence = "CC BY-NC 4.0"
    source = "https://github.com/facebookresearch/co3d"
    expects = f"CATEGORY/{_ANNOTATIONS}, CATEGORY/SEQUENCE/images, depths, depth_masks"
    scale = ScaleKind.RELATIVE
    scenes_per_shard = 10

    def scenes(self, root: Path) -> Iterator[str]:
        """CATEGORY/SEQUENCE of all sequences with pictures."""
        for category in sorted(root.iterdir()) if root.is_dir() else ():
            if (category / _ANNOTATIONS).is_file():
                for sequence in sorted(category.iterdir()):
                    if (sequence / "images").is_dir():
                        yield f"{category.name}/{sequence.name}"

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers."""
        category, sequence = scene.split("/")
        for about in _annotations(root / category / _ANNOTATIONS).get(sequence, ()):
            name = f"{about['frame_number']:06d}"
            try:
                height, width = about["image"]["size"]
                camera = about["viewpoint"]
                depth = valid = None
                if about.get("depth") and about["depth"].get("path"):
                    depth = _depth(root / about["depth"]["path"], float(about["depth"]["scale_adjustment"]))
                    if about["depth"].get("mask_path"):
                        valid = _mask(root / about["depth"]["mask_path"])
                K, size = _intrinsics(camera, width, height), (width, height)
                picture = root / about["image"]["path"]
                yield ListedFrame(name, picture, K, _pose(camera), K_size=size, depth=depth, valid=valid)
            except (KeyError, TypeError, ValueError) as error:
                drop("its entry cannot be read", f"{scene}/{name}: {error!r}")


@lru_cache(maxsize=1)
def _annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Frames by sequence; a file covers a whole category, whose sequences come one after the other."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            frames = json.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"Expected the frames of a category in {path}: {error}.") from error
    found: dict[str, list[dict[str, Any]]] = {}
    for frame in sorted(frames, key=lambda frame: frame["frame_number"]):
        found.setdefault(frame["sequence_name"], []).append(frame)
    return found


def _intrinsics(camera: dict[str, Any], width: int, height: int) -> np.ndarray:
    half = np.array([width, height], dtype=np.float64) / 2
    kind = camera.get("intrinsics_format", "ndc_norm_image_bounds")
    if kind not in ("ndc_isotropic", "ndc_norm_image_bounds"):
        raise ValueError(f"unknown intrinsics_format {kind}")
    unit = np.full(2, half.min()) if kind == "ndc_isotropic" else half
    # Device coordinates grow to the left and upwards, from the middle of the picture.
    centre = half - np.array(camera["principal_point"]) * unit - 0.5
    return intrinsics(*(np.array(camera["focal_length"]) * unit), *centre)


def _pose(camera: dict[str, Any]) -> np.ndarray:
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3] = np.array(camera["R"]).T
    T_camera_world[:3, 3] = camera["T"]
    # From x left, y up to x right, y down.
    return inverse(np.diag([-1.0, -1.0, 1.0, 1.0]) @ T_camera_world)


def _depth(path: Path, factor: float) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with Image.open(path) as image:
            bits = np.asarray(image).astype(np.uint16)
        return bits.view(np.float16).astype(np.float64) * factor

    return read


def _mask(path: Path) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image) > 0

    return read
