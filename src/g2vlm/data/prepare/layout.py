"""What a converter has to say about its data set: scenes, and the frames of each."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind

_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class ListedFrame:
    """A frame as a data set lists it: nothing large is read before it is known to be wanted."""

    frame: str
    """Its name inside the scene."""
    image: Path | Callable[[], bytes]
    """The picture's file, or what makes its encoded bytes."""
    K: Float[np.ndarray, "3 3"]
    """Intrinsics in pixels of `K_size`, integer pixel centres."""
    T_world_camera: Float[np.ndarray, "4 4"]
    """Camera-to-world, OpenCV axes."""
    K_size: tuple[int, int] | None = None
    """Width and height that `K` belongs to, where they may differ from the picture's own."""
    depth: Callable[[], np.ndarray] | None = None
    """Reads the z-depth, (height, width), in the unit of the poses; anything not positive is unknown."""
    valid: Callable[[], np.ndarray] | None = None
    """Reads which pixels of the depth can be trusted."""


@dataclass
class Drops:
    """What was left out, and why."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def __call__(self, reason: str, what: str) -> None:
        """Note that `what` is left out."""
        self.counts[reason] += 1
        known = self.examples.setdefault(reason, [])
        if len(known) < _EXAMPLES:
            known.append(what.removeprefix("./"))

    def add(self, counts: dict[str, int], examples: dict[str, list[str]]) -> None:
        """Add what another process left out."""
        self.counts.update(counts)
        for reason, known in examples.items():
            mine = self.examples.setdefault(reason, [])
            mine += known[: _EXAMPLES - len(mine)]


class Layout(ABC):
    """One data set as its authors publish it.

    A new data set is a file with a subclass, listed in `registry.py`: where scenes are, and for each frame
    its picture, K, pose in OpenCV axes and depth reader. Everything else (bad poses, files that are missing,
    far limits, resizing, shards, resuming) is the same for all.
    """

    name: ClassVar[str]
    """What the command line calls it."""
    title: ClassVar[str]
    """Its published name."""
    licence: ClassVar[str]
    """Under which terms it may be used, as its authors say."""
    source: ClassVar[str]
    """Where it is published."""
    expects: ClassVar[str]
    """What the source folder looks like, in one line."""
    scale: ClassVar[ScaleKind] = ScaleKind.METRIC
    far_m: ClassVar[float | None] = None
    """Depth beyond it is taken to be unknown."""
    scenes_per_shard: ClassVar[int] = 1
    """As many as make a shard of some hundred megabytes."""

    @abstractmethod
    def scenes(self, root: Path) -> Iterator[str]:
        """Names of all scenes in a folder, in a fixed order."""

    @abstractmethod
    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """The frames of a scene in the order they were taken; those that are left out go to `drop`.

        Raises:
            InputError: the scene as a whole cannot be read.
        """

    def scale_of(self, root: Path, scene: str) -> ScaleKind:
        """Whether lengths of a scene are metres; the same for all scenes of most data sets."""
        return self.scale

    def missing(self, root: Path) -> InputError:
        """What to raise where a folder holds no scene."""
        return InputError(f"Expected {self.title} in {root}: {self.expects}; found no scene there.")


def folders_with(root: Path, *wanted: str) -> Iterator[str]:
    """Names of folders directly below `root`, or `.` for itself, that hold all wanted names."""
    if not root.is_dir():
        raise InputError(f"Expected a folder with the data set, got {root}, which is none.")
    if all((root / name).exists() for name in wanted):
        yield "."
        return
    for path in sorted(root.iterdir()):
        if path.is_dir() and all((path / name).exists() for name in wanted):
            yield path.name


def deep_folders_with(root: Path, wanted: str) -> Iterator[str]:
    """Folders at any depth below `root`, relative to it, that hold `wanted`; not searched further inside."""
    if not root.is_dir():
        raise InputError(f"Expected a folder with the data set, got {root}, which is none.")
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if (folder / wanted).exists():
            yield folder.relative_to(root).as_posix()
        else:
            waiting += sorted((path for path in folder.iterdir() if path.is_dir()), reverse=True)
