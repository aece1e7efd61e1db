"""Named durations of the steps of a job."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Collects seconds by name.

    Args:
        device: where the work runs.
        exact: wait for a GPU at both ends of every step, so that a step is charged for its own work; without
            it a step is charged for queueing the work.
    """

    def __init__(self, device: torch.device, *, exact: bool = True) -> None:
        self.device = device
        self.exact = exact
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the duration of the body to `name`."""
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def _now(self) -> float:
        if self.exact and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
