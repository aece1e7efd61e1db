"""Named durations of the steps of a job."""

import threading
import time
from collections.abc import Iterator, Mapping
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


class ThreadTimings:
    """Seconds of the last job, kept for each thread by itself: jobs of other threads do not replace them."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._for_all: dict[str, float] = {}

    def get(self) -> Mapping[str, float]:
        """Those of this thread's last job, or those for all."""
        found: dict[str, float] = getattr(self._own, "seconds", self._for_all)
        return found

    def set(self, seconds: Mapping[str, float]) -> None:
        """Keep those of a job of this thread."""
        self._own.seconds = dict(seconds)

    def set_for_all(self, seconds: Mapping[str, float]) -> None:
        """Keep those that every thread finds before its first job."""
        self._for_all = dict(seconds)
