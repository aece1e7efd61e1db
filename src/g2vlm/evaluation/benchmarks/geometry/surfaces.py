"""Points of ETH3D, DTU and Neural RGB-D: accuracy, completeness and normals after Sim(3) and ICP.

Sources, layouts and licences stand in `data.prepare`: `outdoor.eth3d`, `objects.dtu`, `indoor.nrgbd`.
Protocol of CUT3R, Pi3 and the G2VLM paper: every 5th image of ETH3D and DTU, one frame out of 100 of Neural
RGB-D (its dense setting), Sim(3) by Umeyama, ICP with pairs within 0.1 m (100 mm in DTU). Whole images
count here. The published evaluation of DTU keeps the object alone by masks that the data set's page does
not hold; here every pixel with a depth counts, so no published figures stand beside it.
"""

from functools import partial
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.indoor.nrgbd import NeuralRgbd
from g2vlm.data.prepare.layout import Layout
from g2vlm.data.prepare.objects.dtu import Dtu
from g2vlm.data.prepare.outdoor.eth3d import Eth3d
from g2vlm.evaluation.benchmarks.geometry.sequences import (
    Selection,
    SequencesBenchmark,
    scenes_of,
    sound_frames,
)
from g2vlm.evaluation.posed_frames import DepthLimits
from g2vlm.evaluation.published import G2VLM_PAPER, OMEGA_REPRODUCTION, table

VERSION = 1
ETH3D_PUBLISHED = table(
    G2VLM_PAPER,
    ("points/accuracy_m", "points/completeness_m"),
    {
        "G2VLM": (0.414, 0.309),
        "VGGT": (0.280, 0.305),
        "Pi3": (0.194, 0.210),
        "CUT3R": (0.617, 0.747),
        "Fast3R": (0.832, 0.978),
    },
) + table(
    OMEGA_REPRODUCTION,
    ("pose/auc30", "depth/abs_rel"),
    {
        "VGGT": (0.621, 0.036),
        "Pi3": (0.796, 0.016),
        "DA3": (0.870, 0.015),
        "VGGT-Omega (retrained)": (0.889, 0.012),
    },
)
NRGBD_PUBLISHED = table(
    OMEGA_REPRODUCTION,
    ("pose/auc30", "depth/abs_rel"),
    {
        "VGGT": (0.977, 0.019),
        "Pi3": (0.982, 0.011),
        "DA3": (0.984, 0.010),
        "VGGT-Omega (retrained)": (0.989, 0.011),
    },
)


def expected(layout: Layout) -> str:
    """What a folder must hold, in words."""
    return f"{layout.title}: {layout.expects}"


ETH3D_LAYOUT, DTU_LAYOUT, NRGBD_LAYOUT = (expected(layout) for layout in (Eth3d(), Dtu(), NeuralRgbd()))


def eth3d(folder: Path, num_scenes: int | None = None, num_views: int | None = None) -> SequencesBenchmark:
    """Training scenes of ETH3D, every 5th photo."""
    return _surfaces(Eth3d(), folder, num_scenes, Selection(5, num_views), np.inf)


def dtu(folder: Path, num_scenes: int | None = None, num_views: int | None = None) -> SequencesBenchmark:
    """Scans of DTU in MVSNet's layout (with depth), every 5th image."""
    return _surfaces(Dtu(), folder, num_scenes, Selection(5, num_views), np.inf)


def nrgbd(folder: Path, num_scenes: int | None = None, num_views: int | None = None) -> SequencesBenchmark:
    """Rooms of Neural RGB-D, one frame out of 100, depth up to 10 m."""
    return _surfaces(NeuralRgbd(), folder, num_scenes, Selection(100, num_views), 10.0)


def _surfaces(
    layout: Layout, folder: Path, num_scenes: int | None, selection: Selection, farthest: float
) -> SequencesBenchmark:
    return SequencesBenchmark(
        f"{layout.name}-{VERSION}",
        expected(layout),
        folder,
        scenes_of(layout, folder, num_scenes),
        partial(sound_frames, layout, folder),
        selection,
        limits=DepthLimits(1e-3, farthest),
    )
