"""All data sets that can be prepared, by name."""

from pathlib import Path

from g2vlm.data.prepare.indoor.aria_synthetic import AriaSynthetic
from g2vlm.data.prepare.indoor.arkitscenes import ArkitScenes
from g2vlm.data.prepare.indoor.habitat import Habitat
from g2vlm.data.prepare.indoor.hypersim import Hypersim
from g2vlm.data.prepare.indoor.nrgbd import NeuralRgbd
from g2vlm.data.prepare.indoor.scannet import ScanNet
from g2vlm.data.prepare.indoor.scannetpp import ScanNetPp
from g2vlm.data.prepare.indoor.seven_scenes import SevenScenes
from g2vlm.data.prepare.indoor.taskonomy import Taskonomy
from g2vlm.data.prepare.indoor.tum import TumRgbd
from g2vlm.data.prepare.layout import Layout
from g2vlm.data.prepare.objects.co3d import Co3d
from g2vlm.data.prepare.objects.dtu import Dtu
from g2vlm.data.prepare.objects.wildrgbd import WildRgbd
from g2vlm.data.prepare.outdoor.blendedmvs import BlendedMvs
from g2vlm.data.prepare.outdoor.dl3dv import Dl3dv
from g2vlm.data.prepare.outdoor.eth3d import Eth3d
from g2vlm.data.prepare.outdoor.kitti import Kitti
from g2vlm.data.prepare.outdoor.mapfree import MapFree
from g2vlm.data.prepare.outdoor.matrixcity import MatrixCity
from g2vlm.data.prepare.outdoor.megadepth import MegaDepth
from g2vlm.data.prepare.outdoor.realestate10k import RealEstate10k
from g2vlm.data.prepare.outdoor.tartanair import TartanAir
from g2vlm.data.prepare.outdoor.virtual_kitti import VirtualKitti
from g2vlm.data.prepare.own.colmap import Colmap
from g2vlm.data.prepare.own.frames_json import FramesJson
from g2vlm.data.prepare.own.nerfstudio import Nerfstudio
from g2vlm.data.prepare.own.plain_list import PlainList
from g2vlm.errors import InputError

_ALL: tuple[Layout, ...] = (
    ScanNet(),
    ScanNetPp(),
    ArkitScenes(),
    SevenScenes(),
    TumRgbd(),
    NeuralRgbd(),
    Hypersim(),
    Taskonomy(),
    AriaSynthetic(),
    Habitat(),
    TartanAir(),
    Co3d(),
    WildRgbd(),
    Dtu(),
    BlendedMvs(),
    MegaDepth(),
    Dl3dv(),
    RealEstate10k(),
    MapFree(),
    MatrixCity(),
    VirtualKitti(),
    Kitti(),
    Eth3d(),
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
