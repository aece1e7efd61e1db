"""Trajectories of TUM RGB-D and ScanNet: ATE after Sim(3), relative pose errors of neighbours.

Sources, layouts and licences stand in `data.prepare` (`indoor.tum`, `indoor.scannet`).
Protocol of MonST3R, CUT3R and Pi3: 90 frames of each sequence, every third one from the first; ATE is the
root mean square distance after Sim(3). They evaluate the dynamic sequences freiburg3_sitting_* and
freiburg3_walking_* of TUM, which are taken where any of them is there, and the test scans of ScanNet.
`--num_views` takes fewer frames.
"""

from functools import partial
from pathlib import Path

from g2vlm.data.prepare.indoor.scannet import ScanNet
from g2vlm.data.prepare.indoor.tum import TumRgbd
from g2vlm.evaluation.benchmarks.geometry.sequences import (
    Selection,
    SequencesBenchmark,
    evenly,
    scenes_of,
    sound_frames,
)
from g2vlm.evaluation.benchmarks.geometry.surfaces import expected
from g2vlm.evaluation.geometry import GeometryOptions
from g2vlm.evaluation.posed_frames import DepthLimits
from g2vlm.evaluation.published import OMEGA_REPRODUCTION, table

VERSION = 1
NUM_FRAMES, FRAME_STEP = 90, 3
TUM_LAYOUT, SCANNET_LAYOUT = expected(TumRgbd()), expected(ScanNet())
_DYNAMIC = ("freiburg3_sitting", "freiburg3_walking")
TUM_PUBLISHED = table(
    OMEGA_REPRODUCTION,
    ("pose/auc30", "depth/abs_rel"),
    {
        "VGGT": (0.612, 0.064),
        "Pi3": (0.592, 0.046),
        "DA3": (0.627, 0.049),
        "VGGT-Omega (retrained)": (0.828, 0.040),
    },
)


def tum(folder: Path, num_scenes: int | None = None, num_views: int | None = None) -> SequencesBenchmark:
    """Sequences of TUM RGB-D, the dynamic ones where there are any.

    Raises:
        InputError: the folder holds no sequence.
    """
    names = list(TumRgbd().scenes(folder))
    dynamic = [name for name in names if any(kind in name for kind in _DYNAMIC)]
    return SequencesBenchmark(
        f"tum-{VERSION}",
        TUM_LAYOUT,
        folder,
        evenly(dynamic or names, num_scenes),
        partial(sound_frames, TumRgbd(), folder),
        Selection(FRAME_STEP, num_views or NUM_FRAMES),
        GeometryOptions(points=False),
        DepthLimits(0.0, 10.0),
    )


def scannet(folder: Path, num_scenes: int | None = None, num_views: int | None = None) -> SequencesBenchmark:
    """Exported scans of ScanNet.

    Raises:
        InputError: the folder holds no scan.
    """
    return SequencesBenchmark(
        f"scannet-{VERSION}",
        SCANNET_LAYOUT,
        folder,
        scenes_of(ScanNet(), folder, num_scenes),
        partial(sound_frames, ScanNet(), folder),
        Selection(FRAME_STEP, num_views or NUM_FRAMES),
        GeometryOptions(points=False),
        DepthLimits(0.0, 10.0),
    )
