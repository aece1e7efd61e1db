"""Batches of several sources, mixed by shares."""

from collections.abc import Sequence

import numpy as np

from g2vlm.training.sources.batches import BatchSource, TrainingBatch

_GOLDEN = 0.6180339887498949


class MixtureSource:
    """Micro-batch k of a mixture: all micro-batches of a step come from the same source.

    Processes that share weights must run the same layers in a step. Shares are kept over any stretch of
    steps, not just on average, and each source is visited in its own order without gaps.

    Args:
        sources: what is mixed.
        shares: of the steps, as many; scaled to sum to one.
        accumulate: micro-batches of a step.
        num_steps: of the whole run.
        seed: of the order.
    """

    def __init__(
        self,
        sources: Sequence[BatchSource],
        shares: Sequence[float],
        accumulate: int,
        num_steps: int,
        seed: int = 0,
    ) -> None:
        self.sources, self.accumulate = tuple(sources), accumulate
        # Multiples of the golden ratio fill the unit interval evenly however far one counts.
        start = np.random.default_rng(seed).random()
        drawn = (np.arange(num_steps) * _GOLDEN + start) % 1.0
        limits = np.cumsum(shares)[:-1] / np.sum(shares)
        self._choice = np.searchsorted(limits, drawn, side="right").astype(np.int16)
        self._earlier = np.zeros(num_steps, dtype=np.int64)
        for number in range(len(self.sources)):
            chosen = self._choice == number
            self._earlier[chosen] = np.arange(chosen.sum())

    def __getitem__(self, index: int) -> TrainingBatch:
        """The micro-batch of the source whose turn it is."""
        step, micro = divmod(index, self.accumulate)
        source = self.sources[self._choice[step]]
        return source[int(self._earlier[step]) * self.accumulate + micro]
