"""7-Scenes: points of rooms filmed with a Kinect (Shotton et al. 2013).

Source and licence: `data.prepare.indoor.seven_scenes` (Microsoft, research only).
Protocol of CUT3R, Pi3 and the G2VLM paper: the test sequences, one frame out of 40, true depth up to 10 m
registered to the colour camera, Sim(3) by Umeyama and ICP with pairs within 0.1 m, means over the
sequences. Here whole images count; the published evaluations crop to the middle first.
"""

import re
from functools import partial
from pathlib import Path

from g2vlm.data.prepare.indoor.seven_scenes import SevenScenes
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.geometry.sequences import Selection, SequencesBenchmark, evenly, sound_frames
from g2vlm.evaluation.posed_frames import DepthLimits
from g2vlm.evaluation.published import G2VLM_PAPER, OMEGA_REPRODUCTION, table

VERSION = 2
LAYOUT = (
    "7-Scenes' folder with <scene>/TestSplit.txt and <scene>/seq-01/frame-000000.color.png, .depth.png (or "
    ".depth.proj.png, registered to the colour camera) and .pose.txt"
)
FRAME_STEP = 40
LIMITS = DepthLimits(1e-3, 10.0)
PUBLISHED = table(
    G2VLM_PAPER,
    ("points/accuracy_m", "points/completeness_m"),
    {
        "G2VLM": (0.046, 0.029),
        "VGGT": (0.022, 0.026),
        "Pi3": (0.016, 0.022),
        "CUT3R": (0.023, 0.027),
        "Fast3R": (0.040, 0.056),
    },
) + table(
    OMEGA_REPRODUCTION,
    ("pose/auc30", "depth/abs_rel"),
    {
        "VGGT": (0.744, 0.073),
        "Pi3": (0.770, 0.068),
        "DA3": (0.782, 0.063),
        "VGGT-Omega (retrained)": (0.824, 0.060),
    },
)


def seven_scenes(
    folder: Path, num_scenes: int | None = None, num_views: int | None = None
) -> SequencesBenchmark:
    """The test sequences of all scenes in the folder.

    Args:
        folder: see `LAYOUT`.
        num_scenes: at most so many sequences; all 18 if None.
        num_views: at most so many frames of each, one out of 40 if None.

    Raises:
        InputError: no test sequences are there, or a list of them cannot be read.
    """
    names: list[str] = []
    for split in sorted(folder.glob("*/TestSplit.txt")):
        numbers = re.findall(r"sequence\s*(\d+)", split.read_text(encoding="utf-8"))
        if not numbers:
            raise InputError(f"Expected lines like sequence1 in {split}, found none.")
        names += [f"{split.parent.name}/seq-{int(number):02d}" for number in numbers]
    return SequencesBenchmark(
        f"seven_scenes-{VERSION}",
        LAYOUT,
        folder,
        evenly(names, num_scenes),
        partial(sound_frames, SevenScenes(), folder),
        Selection(FRAME_STEP, num_views),
        limits=LIMITS,
        part_of=lambda scene: scene.split("/")[0],
    )
