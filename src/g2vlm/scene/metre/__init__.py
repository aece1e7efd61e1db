"""Where the metre comes from: known lengths, cameras, depth and positions brought together with a scene."""

from g2vlm.scene.metre.calibration import Calibration, KnownThings, calibrate
from g2vlm.scene.metre.cameras import PoseUse
from g2vlm.scene.metre.depths import DepthUse
from g2vlm.scene.metre.lengths import KnownBaseline, KnownDistance
from g2vlm.scene.metre.report import Finding, Role

__all__ = [
    "Calibration",
    "DepthUse",
    "Finding",
    "KnownBaseline",
    "KnownDistance",
    "KnownThings",
    "PoseUse",
    "Role",
    "calibrate",
]
