"""7-Scenes: points of rooms filmed with a Kinect (Shotton et al. 2013).

Protocol of Spann3R, CUT3R and Pi3: the test sequences, one frame out of 200, true depth registered to the
colour camera (`frame-*.depth.proj.png`, from SimpleRecon's preprocessing), Sim(3) by Umeyama and ICP with
pairs within 0.1 m. Here whole images count; the published evaluations crop to the middle first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions, SceneTruth
from g2vlm.evaluation.trials import Trial
from g2vlm.inputs.photos import load_photos

VERSION = 1
LAYOUT = (
    "7-Scenes' folder with <scene>/TestSplit.txt and <scene>/seq-01/frame-000000.color.png, "
    ".depth.proj.png (depth registered to the colour camera) and .pose.txt"
)
FOCAL_PX, CENTRE_PX = 525.0, (320.0, 240.0)
"""Colour camera, as the public evaluations assume it."""
FRAME_STEP = 200
MAX_DEPTH_M = 10.0


@dataclass(frozen=True)
class SevenScenesBenchmark:
    """The test sequences of all scenes in the folder.

    Raises:
        InputError: no test sequences are there, or a list of them cannot be read.
    """

    folder: Path
    num_scenes: int | None = None
    """At most so many sequences; all 18 if None."""
    num_views: int | None = None
    """So many frames, evenly spread; one out of 200 if None."""
    geometry_options: GeometryOptions = field(default_factory=GeometryOptions)

    def __post_init__(self) -> None:
        if not self.scenes():
            raise InputError(f"Expected {LAYOUT}; found none in {self.folder}.")

    @property
    def task(self) -> str:
        """Name and version."""
        return f"seven_scenes-{VERSION}"

    @property
    def settings(self) -> dict[str, Any]:
        """Sequences, frames, and how they are measured."""
        return {
            "sequences": list(self.scenes()),
            "num_views": self.num_views,
            "frame_step": FRAME_STEP if self.num_views is None else None,
            "geometry_options": self.geometry_options.to_json(),
        }

    def scenes(self) -> Sequence[str]:
        """`scene/seq-xx`."""
        names = []
        for split in sorted(self.folder.glob("*/TestSplit.txt")):
            numbers = re.findall(r"sequence\s*(\d+)", split.read_text(encoding="utf-8"))
            if not numbers:
                raise InputError(f"Expected lines like sequence1 in {split}, found none.")
            names += [f"{split.parent.name}/seq-{int(number):02d}" for number in numbers]
        return names[: self.num_scenes]

    def load(self, scene: str) -> Trial:
        """Read the frames of one sequence."""
        stems = sorted((self.folder / scene).glob("frame-*.color.png"))
        if not stems:
            raise InputError(f"Expected {LAYOUT}; found no frames in {self.folder / scene}.")
        if self.num_views is None:
            chosen = stems[::FRAME_STEP]
        else:
            picks = np.linspace(0, len(stems) - 1, min(self.num_views, len(stems)))
            chosen = [stems[k] for k in picks.round().astype(int)]
        depth = torch.from_numpy(np.stack([_read_depth(path) for path in chosen]))
        poses = np.stack([_read_pose(path) for path in chosen])
        K = torch.tensor([[FOCAL_PX, 0, CENTRE_PX[0]], [0, FOCAL_PX, CENTRE_PX[1]], [0, 0, 1]])
        return Trial(
            tuple(load_photos(path).photos[0].image for path in chosen),
            SceneTruth(
                depth=depth,
                valid=(depth > 1e-3) & (depth <= MAX_DEPTH_M),
                T_world_camera=torch.from_numpy(poses).float(),
                K=K.expand(len(chosen), 3, 3),
            ),
        )


def _beside(color: Path, ending: str) -> Path:
    return color.with_name(color.name.replace(".color.png", ending))


def _read_depth(color: Path) -> np.ndarray:
    """Metres; the sensor's 0 and 65535 mean unknown and come out as such: 0, and beyond any room."""
    path = _beside(color, ".depth.proj.png")
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.float32) / 1000
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"Expected {LAYOUT}; {path}: {error}.") from error


def _read_pose(color: Path) -> np.ndarray:
    path = _beside(color, ".pose.txt")
    try:
        pose = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise InputError(f"Expected {LAYOUT}; {path}: {error}.") from error
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise InputError(f"Expected a finite 4x4 camera-to-world pose in {path}, got shape {pose.shape}.")
    return pose
