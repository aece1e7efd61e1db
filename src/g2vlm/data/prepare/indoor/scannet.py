"""ScanNet: 1,513 scans of rooms with a structure sensor.

Source: http://www.scan-net.org (Dai et al., CVPR 2017); licence: ScanNet terms of use, research only.
Layout: what the authors' SensReader exports from a .sens file, one folder for each scan,

    scene0000_00/color/0.jpg  depth/0.png  pose/0.txt  intrinsic/intrinsic_color.txt  intrinsic_depth.txt

or the same under frames/. Depth is in millimetres, registered to the colour camera by the sensor, 640x480;
colour is 1296x968 and made as large as depth. Poses are camera-to-world in OpenCV axes, infinite where
tracking was lost.
"""

from collections.abc import Iterator
from pathlib import Path

from g2vlm.data.posed_frame import picture_size, resized_intrinsics
from g2vlm.data.prepare.files import png_depth, read_matrix, resized_jpeg, square
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError

_SIZE = (640, 480)


class ScanNet(Layout):
    """Exported scans."""

    name, title = "scannet", "ScanNet"
    licence = "ScanNet terms of use, research only"
    source = "http://www.scan-net.org"
    expects = "scene*/color, depth, pose, intrinsic, as SensReader exports them"
    far_m = 80.0

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with colour pictures; the train/ and frames/ between may be there or not."""
        yield from deep_folders_with(root, "color")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of their numbers."""
        folder = root / scene
        pictures = sorted(
            (path for path in (folder / "color").glob("*.jpg") if path.stem.isdigit()),
            key=lambda path: int(path.stem),
        )
        if not pictures:
            raise InputError(f"Expected pictures color/*.jpg in {folder}, found none.")
        K = read_matrix(folder / "intrinsic" / "intrinsic_color.txt")[:3, :3]
        # K belongs to the colour camera's own size, which every picture of a scan has.
        K = resized_intrinsics(K, picture_size(pictures[0].read_bytes()), _SIZE)
        for picture in pictures:
            pose = folder / "pose" / f"{picture.stem}.txt"
            if not pose.is_file():
                drop("its pose is missing", f"{scene}/{picture.stem}")
                continue
            yield ListedFrame(
                picture.stem,
                resized_jpeg(picture, _SIZE),
                K,
                square(read_matrix(pose)),
                depth=png_depth(folder / "depth" / f"{picture.stem}.png", 0.001),
            )
