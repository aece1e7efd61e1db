"""frames.csv: one row for each posed picture, as a spreadsheet or a few lines of a script write it.

    scene,image,fx,fy,cx,cy,tx,ty,tz,qx,qy,qz,qw,depth,depth_unit_m

`scene`, `depth` and `depth_unit_m` may be left out. Poses are camera-to-world in OpenCV axes; intrinsics
belong to the picture's own size, integer pixel centres; paths are relative to the file.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from g2vlm.data.prepare.files import array_depth, intrinsics, png_depth, pose_of
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind

NAME = "frames.csv"
_NEEDED = ("image", "fx", "fy", "cx", "cy", "tx", "ty", "tz", "qx", "qy", "qz", "qw")


class PlainList(Layout):
    """A folder with a frames.csv."""

    name, title = "list", "frames.csv"
    licence = "the user's own"
    source = "docs/data.md"
    expects = "frames.csv with the columns " + ", ".join(_NEEDED)
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """All scenes that the file names, in its order."""
        yield from dict.fromkeys(row["scene"] or "." for row in _rows(root / NAME))

    def scale_of(self, root: Path, scene: str) -> ScaleKind:
        """Metric where the scene has depth."""
        has_depth = any(row["depth"] for row in _rows(root / NAME) if (row["scene"] or ".") == scene)
        return ScaleKind.METRIC if has_depth else ScaleKind.RELATIVE

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of the file."""
        for row in _rows(root / NAME):
            if (row["scene"] or ".") != scene:
                continue
            try:
                numbers = [float(row[name]) for name in _NEEDED[1:]]
            except ValueError as error:
                drop("its row cannot be read", f"{scene}/{row['image']}: {error}")
                continue
            depth = None
            if row["depth"]:
                path, unit = root / row["depth"], float(row["depth_unit_m"] or 0.001)
                depth = array_depth(path) if path.suffix == ".npy" else png_depth(path, unit)
            pose = pose_of(numbers[4:7], numbers[7:11])
            yield ListedFrame(row["image"], root / row["image"], intrinsics(*numbers[:4]), pose, depth=depth)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in _NEEDED if name not in (table.fieldnames or ())]
            if missing:
                raise InputError(f"Expected the columns {', '.join(_NEEDED)} in {path}; it lacks {missing}.")
            optional = ("scene", "depth", "depth_unit_m")
            return [{name: row.get(name) or "" for name in (*_NEEDED, *optional)} for row in table]
    except OSError as error:
        raise InputError(f"Expected a list of posed pictures in {path}: {error.strerror}.") from error
