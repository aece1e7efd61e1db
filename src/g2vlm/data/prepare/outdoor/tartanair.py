"""TartanAir V1: flights through photo-realistic worlds of the Unreal engine.

Source: https://theairlab.org/tartanair-dataset (Wang et al., IROS 2020); licence: CC BY 4.0.
Layout: ENVIRONMENT/Easy/P000/image_left/000000_left.png, depth_left/000000_left_depth.npy (float32 metres,
z-depth) and pose_left.txt, one row `tx ty tz qx qy qz qw` for each picture: camera-to-world with NED camera
axes (x forward, y right, z down) and NED world. K is the same everywhere: 320, 320, 320, 240. The sky and
what lies behind the far plane is at 80 m and more.
"""

from collections.abc import Iterator
from pathlib import Path

from g2vlm.data.prepare.files import NED_TO_CV, array_depth, intrinsics, pose_of, read_rows
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError


class TartanAir(Layout):
    """Left cameras of all trajectories."""

    name, title = "tartanair", "TartanAir V1"
    licence = "CC BY 4.0"
    source = "https://theairlab.org/tartanair-dataset"
    expects = "ENVIRONMENT/Easy/P000/image_left, depth_left, pose_left.txt"
    far_m = 80.0

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with a trajectory, at any depth."""
        yield from deep_folders_with(root, "pose_left.txt")

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """Row k of the trajectory belongs to picture k."""
        folder = root / scene
        poses = read_rows(folder / "pose_left.txt", columns=7)
        K = intrinsics(320, 320, 320, 240)
        # Archives made on a Mac hold a stub "._NAME" beside every file.
        pictures = sorted((folder / "image_left").glob("[0-9]*_left.png"))
        if not pictures:
            raise InputError(f"Expected pictures image_left/*_left.png in {folder}, found none.")
        for picture in pictures:
            number = int(picture.stem.removesuffix("_left"))
            if number >= len(poses):
                drop("there are fewer poses than pictures", f"{scene}/{picture.stem}")
                continue
            yield ListedFrame(
                f"{number:06d}",
                picture,
                K,
                pose_of(poses[number, :3], poses[number, 3:]) @ NED_TO_CV,
                depth=array_depth(folder / "depth_left" / f"{picture.stem}_depth.npy"),
            )
