"""Views and scenes: points, cameras, colours and confidence, with filtering, measuring and storage."""

from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.formats import FORMATS
from g2vlm.scene.measurement import Measurement, RegionSize
from g2vlm.scene.measuring.boxes import BoxAxes, BoxSize
from g2vlm.scene.measuring.floor import Floor
from g2vlm.scene.measuring.larger import Area
from g2vlm.scene.metre import Calibration, KnownBaseline, KnownDistance, KnownThings
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Bounds, Scene
from g2vlm.scene.storage import read_npz, write_npz  # also registers the format
from g2vlm.scene.view import PixelSpace, View
from g2vlm.scene.writing import atomic_folder, atomic_path

__all__ = [
    "FORMATS",
    "Area",
    "Bounds",
    "BoxAxes",
    "BoxSize",
    "Calibration",
    "Floor",
    "KnownBaseline",
    "KnownDistance",
    "KnownThings",
    "Measurement",
    "PixelSpace",
    "PointCloud",
    "RegionSize",
    "SaveOptions",
    "Scale",
    "ScaleKind",
    "Scene",
    "View",
    "atomic_folder",
    "atomic_path",
    "read_npz",
    "write_npz",
]
