"""Random draws for one scene: fast, and a function of the seed alone."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
_POOL = 1024


class Draws:
    """A stream of uniform numbers from a NumPy generator, handed out one by one.

    Single draws from a NumPy generator cost microseconds each; a room takes hundreds of them.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._generator = np.random.default_rng((seed, stream))
        self._pool: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self._pool:
            self._pool = self._generator.random(_POOL).tolist()
        return self._pool.pop()

    def uniform(self, interval: tuple[float, float]) -> float:
        """A number between the two ends."""
        return interval[0] + (interval[1] - interval[0]) * self.unit()

    def symmetric(self, limit: float) -> float:
        """A number in [-limit, limit)."""
        return limit * (2.0 * self.unit() - 1.0)

    def integer(self, interval: tuple[int, int]) -> int:
        """An integer between the two ends, both included."""
        return interval[0] + int(self.unit() * (interval[1] - interval[0] + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def choice(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[int(self.unit() * len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in random order."""
        keyed = [(self.unit(), k) for k in range(len(items))]
        return [items[k] for _, k in sorted(keyed)]
