"""Scenes of one's own: a folder of `.npz` files in the package's scene format, true in every value.

Each file is what `Scene.save` writes, made from measured data: `rgb` is the photo the model gets;
`points_camera` (its z is the depth), `valid`, `T_world_camera` and `K` are the truth, at its resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions, SceneTruth
from g2vlm.evaluation.trials import Trial
from g2vlm.inputs.photos import natural_key
from g2vlm.scene.scene import Scene
from g2vlm.scene.storage import read_npz

VERSION = 1
LAYOUT = "a folder of .npz scenes, each written by Scene.save from true photos, points, poses and intrinsics"


@dataclass(frozen=True)
class SceneFolderBenchmark:
    """All scenes of a folder, in natural order.

    Raises:
        InputError: no scene files there.
    """

    folder: Path
    num_scenes: int | None = None
    """At most so many; all if None."""
    num_views: int | None = None
    """At most so many views of each, evenly spread; all if None."""
    geometry_options: GeometryOptions = field(default_factory=GeometryOptions)

    def __post_init__(self) -> None:
        if not self.scenes():
            raise InputError(f"Expected {LAYOUT}; found no .npz file in {self.folder}.")

    @property
    def task(self) -> str:
        """Name and version."""
        return f"scene_folder-{VERSION}"

    @property
    def settings(self) -> dict[str, Any]:
        """The files by name and size: the truth is part of what was measured."""
        sizes = {name: (self.folder / name).stat().st_size for name in self.scenes()}
        return {
            "files": sizes,
            "num_views": self.num_views,
            "geometry_options": self.geometry_options.to_json(),
        }

    def scenes(self) -> Sequence[str]:
        """File names."""
        names = sorted((path.name for path in self.folder.glob("*.npz")), key=natural_key)
        return names[: self.num_scenes]

    def load(self, scene: str) -> Trial:
        """Read one file."""
        true = evenly_chosen(read_npz(self.folder / scene), self.num_views)
        return Trial(tuple(Image.fromarray(view.rgb) for view in true.views), truth_of(true))


def evenly_chosen(scene: Scene, most: int | None) -> Scene:
    """A scene of at most `most` views, evenly spread, the first and the last included."""
    if most is None or len(scene) <= most:
        return scene
    chosen = np.linspace(0, len(scene) - 1, most).round().astype(int)
    return replace(scene, views=tuple(scene.views[k] for k in chosen))


def truth_of(scene: Scene) -> SceneTruth:
    """A scene as the truth about its own pictures."""
    return SceneTruth(
        depth=torch.from_numpy(np.stack([view.depth for view in scene.views])),
        valid=torch.from_numpy(np.stack([view.valid for view in scene.views])),
        T_world_camera=torch.from_numpy(np.stack([view.T_world_camera for view in scene.views])),
        K=torch.from_numpy(np.stack([view.K for view in scene.views])),
    )
