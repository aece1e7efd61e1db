"""Taskonomy: 4.5 million single views of scanned buildings, several of each point.

Source: http://taskonomy.stanford.edu (Zamir et al., CVPR 2018); licence: MIT for code, its own for data.
Layout: of the tiny or full set, rgb/taskonomy/BUILDING/point_0_view_0_domain_rgb.png, or rgb/BUILDING/...,
depth_zbuffer (counts of 1/512 m, 65535 unknown) and point_info (JSON: camera_location, camera_rotation_final,
field_of_view_rads) likewise. The rotation holds Euler angles about the fixed x, y, z axes, camera-to-world of
a camera that looks along -z with y up. Views with a pitch beyond 90 degrees are estimated wrongly and left
out.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from g2vlm.data.posed_frame import picture_size
from g2vlm.data.prepare.files import GL_TO_CV, intrinsics, png_depth
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame


class Taskonomy(Layout):
    """One scene for each building."""

    name, title = "taskonomy", "Taskonomy"
    licence = "its own, for research"
    source = "http://taskonomy.stanford.edu"
    expects = "rgb/BUILDING/*_domain_rgb.png, depth_zbuffer/BUILDING, point_info/BUILDING"
    far_m = 80.0

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with pictures below rgb/."""
        for path in sorted((root / "rgb").rglob("*")):
            if path.is_dir() and next(path.glob("*_domain_rgb.png"), None) is not None:
                yield path.relative_to(root / "rgb").as_posix()

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """By the numbers of points and views."""
        pictures = (root / "rgb" / scene).glob("point_*_view_*_domain_rgb.png")
        for picture in sorted(pictures, key=lambda path: tuple(map(int, path.name.split("_")[1:4:2]))):
            stem = picture.name.removesuffix("_domain_rgb.png")
            what, path = f"{scene}/{stem}", root / "point_info" / scene / f"{stem}_domain_point_info.json"
            try:
                about = json.loads(path.read_text(encoding="utf-8"))
                turn, place = about["camera_rotation_final"], about["camera_location"]
                angle = float(about["field_of_view_rads"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                drop("its camera cannot be read", f"{what}: {error!r}")
                continue
            if abs(turn[1]) > math.pi / 2:
                drop("its pitch is estimated wrongly", what)
                continue
            width, height = picture_size(picture.read_bytes())
            focal = 0.5 * width / math.tan(0.5 * angle)
            pose = np.eye(4)
            pose[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix()
            pose[:3, 3] = place
            depth = root / "depth_zbuffer" / scene / f"{stem}_domain_depth_zbuffer.png"
            yield ListedFrame(
                stem,
                picture,
                intrinsics(focal, focal, width / 2 - 0.5, height / 2 - 0.5),
                pose @ GL_TO_CV,
                depth=png_depth(depth, 1 / 512),
            )
