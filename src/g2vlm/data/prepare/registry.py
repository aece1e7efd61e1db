"""All data sets that can be prepared, by name."""

from pathlib import Path

from g2vlm.data.prepare.indoor.scannet import ScanNet
from g2vlm.data.prepare.indoor.seven_scenes import SevenScenes
from g2vlm.data.prepare.indoor.tum import TumRgbd
from g2vlm.data.prepare.layout import Layout
from g2vlm.data.prepare.outdoor.tartanair import TartanAir
from g2vlm.data.prepare.own.colmap import Colmap
from g2vlm.data.prepare.own.frames_json import FramesJson
from g2vlm.data.prepare.own.nerfstudio import Nerfstudio
from g2vlm.data.prepare.own.plain_list import PlainList
from g2vlm.errors import InputError

_ALL: tuple[Layout, ...] = (
    ScanNet(),
    SevenScenes(),
    TumRgbd(),
    TartanAir(),
    FramesJson(),
    Nerfstudio(),
    Colmap(),
    PlainList(),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}
"""Every layout by the name that the command line takes."""
_FILES = {
    "frames.json": "frames",
    "transforms.json": "nerfstudio",
    "frames.csv": "list",
    "groundtruth.txt": "tum",
}
"""Files that say by their name what a folder is."""


def layout_named(name: str) -> Layout:
    """The layout of a name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in LAYOUTS:
        raise InputError(f"Expected a data set ({', '.join(LAYOUTS)}), got {name!r}.")
    return LAYOUTS[name]


def layout_of_own(path: Path) -> tuple[Layout, Path]:
    """What files of one's own are, and the folder that holds them.

    Args:
        path: a frames.json, transforms.json, frames.csv or groundtruth.txt, or a folder that holds one of
            them or a COLMAP model.

    Raises:
        InputError: it is none of these.
    """
    if path.name in _FILES and path.is_file():
        return LAYOUTS[_FILES[path.name]], path.parent
    for name, layout in _FILES.items():
        if (path / name).is_file():
            return LAYOUTS[layout], path
    from g2vlm.data.prepare.colmap_files import find_model

    if path.is_dir() and find_model(path) is not None:
        return LAYOUTS["colmap"], path
    raise InputError(
        f"Expected {', '.join(_FILES)} or a COLMAP model in {path}, found none: name the data set, as in  "
        f"g2vlm data prepare NAME {path} TARGET."
    )
