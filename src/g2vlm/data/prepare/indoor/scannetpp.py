"""ScanNet++: rooms with an iPhone's video and LiDAR beside a laser scanner; here the iPhone's part.

Source: https://kaldir.vc.in.tum.de/scannetpp (Yeshwanth et al., ICCV 2023); licence: ScanNet++ terms of use,
non-commercial.
Layout: data/SCENE/iphone/rgb/frame_000000.jpg (1920x1440) and depth/frame_000000.png (256x192, millimetres),
as the toolkit extracts them, or render_depth/ of the laser scan where it was rendered, and
pose_intrinsic_imu.json: `aligned_pose`, camera-to-world of the scan's world in OpenCV axes, and `intrinsic`
of each frame.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import png_depth
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError

_POSES = "iphone/pose_intrinsic_imu.json"


class ScanNetPp(Layout):
    """iPhone videos of all scenes."""

    name, title = "scannetpp", "ScanNet++ (iPhone)"
    licence = "ScanNet++ terms of use, non-commercial"
    source = "https://kaldir.vc.in.tum.de/scannetpp"
    expects = "data/SCENE/iphone/rgb, depth or render_depth, pose_intrinsic_imu.json"
    far_m = 120.0

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with a video's poses, at any depth."""
        yield from deep_folders_with(root, _POSES)

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers; only pictures that were extracted."""
        folder = root / scene / "iphone"
        try:
            poses = json.loads((root / scene / _POSES).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"Expected poses in {root / scene / _POSES}: {error}.") from error
        depths = folder / "render_depth" if (folder / "render_depth").is_dir() else folder / "depth"
        for picture in sorted((folder / "rgb").glob("frame_*.jpg")):
            about = poses.get(picture.stem)
            if not about or "aligned_pose" not in about:
                drop("its pose is missing", f"{scene}/{picture.stem}")
                continue
            K = np.array(about["intrinsic"], dtype=np.float64)
            pose = np.array(about["aligned_pose"], dtype=np.float64)
            depth = png_depth(depths / f"{picture.stem}.png", 0.001)
            yield ListedFrame(picture.stem, picture, K, pose, depth=depth)
