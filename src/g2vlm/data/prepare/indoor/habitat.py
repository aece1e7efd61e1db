"""Renders of scanned buildings by the Habitat simulator, as CroCo and DUSt3R write them.

Source: https://aihabitat.org (Savva et al., ICCV 2019), rendered by the scripts of
https://github.com/naver/croco; licence: of the scans (HM3D, Gibson, Replica, ScanNet), non-commercial.
Layout: DATASET/SCENE/00000000_1.jpeg, 00000000_1_depth.exr (metres, z-depth) and
00000000_1_camera_params.json: camera_intrinsics, R_cam2world, t_cam2world, in OpenCV axes.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import exr_depth
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame

_CAMERA = "_camera_params.json"


class Habitat(Layout):
    """One scene for each folder of renders."""

    name, title = "habitat", "Habitat renders"
    licence = "as the scans, non-commercial"
    source = "https://github.com/naver/croco"
    expects = f"SCENE/*_1.jpeg, *_1_depth.exr, *_1{_CAMERA}"

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with cameras, at any depth."""
        places = {path.parent.relative_to(root).as_posix() for path in root.rglob(f"*{_CAMERA}")}
        yield from sorted(places)

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """By name; views of one number were taken from the same surroundings."""
        for path in sorted((root / scene).glob(f"*{_CAMERA}")):
            stem = path.name.removesuffix(_CAMERA)
            try:
                about = json.loads(path.read_text(encoding="utf-8"))
                K = np.array(about["camera_intrinsics"], dtype=np.float64).reshape(3, 3)
                pose = np.eye(4)
                pose[:3, :3] = about["R_cam2world"]
                pose[:3, 3] = np.array(about["t_cam2world"], dtype=np.float64).ravel()
            except (OSError, ValueError, KeyError, TypeError) as error:
                drop("its camera cannot be read", f"{scene}/{stem}: {error!r}")
                continue
            depth = exr_depth(path.with_name(f"{stem}_depth.exr"))
            yield ListedFrame(stem, path.with_name(f"{stem}.jpeg"), K, pose, depth=depth)
