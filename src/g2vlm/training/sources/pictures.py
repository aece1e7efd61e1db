"""Rendered views of rooms, kept on disk where rooms return."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.config import World
from g2vlm.data.world.places import make_place
from g2vlm.geometry.cameras import unproject
from g2vlm.geometry.poses import transform_points


@dataclass(frozen=True, eq=False)
class Pictures:
    """Views of a batch of rooms."""

    images: Float[Tensor, "batch views 3 height width"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "batch views height width"]
    """z-depth, metres."""
    valid: Bool[Tensor, "batch views height width"]
    """Where the depth is that of a surface."""
    instance: Int[Tensor, "batch views height width"]
    """Which object each pixel shows."""
    K: Float[Tensor, "batch views 3 3"]
    T_world_camera: Float[Tensor, "batch views 4 4"]

    @property
    def points_world(self) -> Float[Tensor, "batch views height width 3"]:
        """The surface point that each pixel sees, world frame, metres."""
        return transform_points(self.T_world_camera, unproject(self.depth, self.K))

    def views(self, order: Sequence[int]) -> "Pictures":
        """The same rooms with some of their views, in a given order."""
        chosen = list(order)
        return Pictures(*(tensor[:, chosen] for tensor in vars(self).values()))


def render_pictures(world: World, seeds: Sequence[int], shape: ViewShape) -> Pictures:
    """Render one sample of each room."""
    config = world.config
    batch = render_batch(config, [make_place(seed, config) for seed in seeds], shape)
    return Pictures(batch.images, batch.depth, batch.valid, batch.instance, batch.K, batch.T_world_camera)


class PictureStore:
    """Pictures on disk, one file for each room; missing ones are rendered.

    Pictures are stored with 8 bits a channel and otherwise exactly, so that a run with a store sees the same
    batches whether they were rendered now or long ago.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, world: World, seeds: Sequence[int], shape: ViewShape) -> Pictures:
        """Pictures of rooms, from disk where they are."""
        missing = [seed for seed in dict.fromkeys(seeds) if not self._path(world, seed, shape).is_file()]
        if missing:
            rendered = render_pictures(world, missing, shape)
            for i, seed in enumerate(missing):
                self._write(self._path(world, seed, shape), rendered, i)
        read = [self._read(self._path(world, seed, shape)) for seed in seeds]
        stacked = [torch.from_numpy(np.stack(arrays)) for arrays in zip(*read, strict=True)]
        return Pictures(stacked[0].float() / 255, *stacked[1:])

    def _path(self, world: World, seed: int, shape: ViewShape) -> Path:
        return self.folder / f"{world.value}-{seed}-{shape.views}x{shape.width}x{shape.height}.npz"

    def _write(self, path: Path, rendered: Pictures, i: int) -> None:
        arrays = {name: tensor[i].numpy() for name, tensor in vars(rendered).items()}
        arrays["images"] = (arrays["images"] * 255).round().astype(np.uint8)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)

    def _read(self, path: Path) -> tuple[np.ndarray, ...]:
        with np.load(path) as arrays:
            return tuple(
                arrays[name] for name in ("images", "depth", "valid", "instance", "K", "T_world_camera")
            )
