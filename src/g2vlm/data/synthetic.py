"""Batches of the synthetic world, rendered where they are used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from g2vlm.data.samples import SceneBatch, SceneSample
from g2vlm.data.world.cameras import PathKind, make_path
from g2vlm.data.world.config import WorldConfig
from g2vlm.data.world.layout import Room
from g2vlm.data.world.places import make_place, see
from g2vlm.errors import InputError


@dataclass(frozen=True)
class SyntheticBatches:
    """A sequence of rendered batches; batch k is the same every time and on every machine.

    Being a function of its index, the sequence needs no state to resume: continue with the next index. With
    `repeats` > 1 each pass over the seeds visits the same rooms along new camera paths.
    """

    config: WorldConfig
    seeds: Sequence[int]
    """One room each, such as `split_seeds(Split.TRAIN, 100_000)`; a `range` costs no memory."""
    views: int
    """Views per sample."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    batch_size: int = 8
    """Samples per batch; the last batch of a pass may be smaller."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where batches are rendered and stay."""
    repeats: int = 1
    """Passes over the seeds."""
    kind: PathKind | None = None
    """How cameras move; drawn per sample when None."""

    def __post_init__(self) -> None:
        if not len(self.seeds) or min(self.views, self.batch_size, self.repeats) < 1:
            raise InputError(
                f"Expected at least one seed, view, sample per batch and pass; got {len(self.seeds)} seeds, "
                f"{self.views} views, batches of {self.batch_size}, {self.repeats} passes."
            )

    @property
    def batches_per_pass(self) -> int:
        """Batches it takes to visit every seed once."""
        return -(-len(self.seeds) // self.batch_size)

    def __len__(self) -> int:
        return self.batches_per_pass * self.repeats

    def __getitem__(self, index: int) -> SceneBatch:
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        turn, position = divmod(index % len(self), self.batches_per_pass)
        chosen = self.seeds[position * self.batch_size : (position + 1) * self.batch_size]
        rooms = [make_place(seed, self.config) for seed in chosen]
        shape = ViewShape(self.views, self.height, self.width)
        return render_batch(self.config, rooms, shape, device=self.device, path=turn, kind=self.kind)

    def __iter__(self) -> Iterator[SceneBatch]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class ViewShape:
    """How many views a sample has, and their size in pixels."""

    views: int
    height: int
    width: int


def render_batch(
    config: WorldConfig,
    rooms: Sequence[Room],
    shape: ViewShape,
    *,
    device: torch.device | None = None,
    path: int = 0,
    kind: PathKind | None = None,
) -> SceneBatch:
    """Renders one sample in each room.

    Args:
        config: the ranges that cameras are drawn from.
        rooms: one per sample, from `make_room`.
        shape: views per sample and their size.
        device: where to render; the CPU when not given.
        path: number of the camera path in each room.
        kind: how cameras move; drawn per sample when None.
    """
    paths = [make_path(room, config, shape.views, path, kind) for room in rooms]
    rendered = see(config, rooms, paths, (shape.height, shape.width), device)
    return SceneBatch(
        images=rendered.images,
        depth=rendered.depth,
        normals=rendered.normals,
        instance=rendered.instance,
        valid=rendered.valid,
        K=rendered.K,
        T_world_camera=rendered.T_world_camera,
        rooms=tuple(rooms),
    )


def render_sample(config: WorldConfig, seed: int, shape: ViewShape) -> SceneSample:
    """Renders one sample on the CPU."""
    return render_batch(config, [make_place(seed, config)], shape).sample(0)
