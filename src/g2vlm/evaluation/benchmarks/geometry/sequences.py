"""What benchmarks of geometry share: scenes of posed frames, a choice of views, how they are measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions
from g2vlm.evaluation.posed_frames import DepthLimits, Knowledge, trial_of
from g2vlm.evaluation.trials import Trial


@dataclass(frozen=True)
class Selection:
    """Which frames of a scene are reconstructed together."""

    every: int = 1
    """Every so many frames, from the first."""
    most: int | None = None
    """At most so many of these: the first ones, or drawn ones if `drawn`."""
    drawn: bool = False
    """Draw them, differently for each scene and the same for each seed."""
    seed: int = 0

    def __call__(self, scene: str, frames: Sequence[ListedFrame]) -> list[ListedFrame]:
        """The chosen frames, drawn ones in the order in which they were drawn."""
        kept = list(frames[:: self.every])
        if self.most is None or len(kept) <= self.most:
            return kept
        if not self.drawn:
            return kept[: self.most]
        draw = np.random.default_rng([self.seed, *scene.encode()])
        return [kept[k] for k in draw.choice(len(kept), self.most, replace=False)]

    def to_json(self) -> dict[str, Any]:
        """All choices as JSON values."""
        return {"every": self.every, "most": self.most, "drawn": self.drawn, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class SequencesBenchmark:
    """Scenes, each reconstructed once from its chosen frames.

    Raises:
        InputError: there are no scenes.
    """

    task: str
    """Name and version."""
    layout: str
    """What the folder must hold, for messages."""
    root: Path
    names: tuple[str, ...]
    """Scenes, in order."""
    frames_of: Callable[[str], Sequence[ListedFrame]]
    """Frames of a scene, nothing large read."""
    selection: Selection = field(default_factory=Selection)
    geometry_options: GeometryOptions = field(default_factory=GeometryOptions)
    limits: DepthLimits = field(default_factory=lambda: DepthLimits(0.0, np.inf))
    knows: Knowledge = field(default_factory=Knowledge)
    part_of: Callable[[str], str] = lambda scene: ""
    """What a scene belongs to in tables."""

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError(f"Expected {self.layout}; found none in {self.root}.")

    @property
    def settings(self) -> dict[str, Any]:
        """Scenes, frames, and how they are measured."""
        farthest = self.limits.farthest if np.isfinite(self.limits.farthest) else None
        return {
            "sequences": list(self.names),
            "selection": self.selection.to_json(),
            "depth_limits": [self.limits.nearest, farthest],
            "geometry_options": self.geometry_options.to_json(),
        }

    def scenes(self) -> Sequence[str]:
        """Names of the scenes."""
        return self.names

    def load(self, scene: str) -> Trial:
        """Read the chosen frames of one scene."""
        frames = self.selection(scene, self.frames_of(scene))
        if not frames:
            raise InputError(f"Expected {self.layout}; found no frames of {scene} in {self.root}.")
        return trial_of(frames, self.limits, part=self.part_of(scene), knows=self.knows)


def sound_frames(layout: Layout, root: Path, scene: str) -> list[ListedFrame]:
    """Frames of a scene whose poses are finite; what a layout drops is left out as it is when preparing."""
    frames = layout.frames(root, scene, Drops())
    return [frame for frame in frames if np.isfinite(frame.T_world_camera).all()]


def scenes_of(layout: Layout, root: Path, num_scenes: int | None) -> tuple[str, ...]:
    """Scenes of a layout, at most so many, evenly spread.

    Raises:
        InputError: the folder is no such data set.
    """
    return evenly(list(layout.scenes(root)), num_scenes)


def evenly(names: Sequence[str], most: int | None) -> tuple[str, ...]:
    """At most so many names, evenly spread."""
    if most is None or len(names) <= most:
        return tuple(names)
    return tuple(names[k] for k in np.linspace(0, len(names) - 1, most).round().astype(int))
