"""Timing by turns: everything that is compared is measured in the same minutes."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Timed = Callable[[], float]
"""Does something and returns the seconds that it took."""


def stopwatch(action: Callable[[], object], device: torch.device) -> Timed:
    """Time an action as a whole, work still queued on a GPU included."""

    def run() -> float:
        start = now(device)
        action()
        return now(device) - start

    return run


def now(device: torch.device) -> float:
    """Seconds on the clock, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def take_turns(calls: Mapping[str, Timed], repeats: int, budget_s: float) -> dict[str, tuple[float, ...]]:
    """Run all calls in turn, round after round, so that a change of the machine's load meets them all.

    Args:
        calls: what to measure, by name.
        repeats: rounds that count.
        budget_s: no further round starts once this many seconds have passed, but one always counts. A warm-up
            round goes first; if it alone takes more than half of the budget, it counts and is the only one.

    Returns:
        Seconds of every counted round, by name.
    """
    start = time.perf_counter()
    samples = {name: [call()] for name, call in calls.items()}
    if time.perf_counter() - start > budget_s / 2:
        return {name: tuple(values) for name, values in samples.items()}
    samples = {name: [] for name in calls}
    for done in range(max(repeats, 1)):
        if done and time.perf_counter() - start > budget_s:
            break
        for name, call in calls.items():
            samples[name].append(call())
    return {name: tuple(values) for name, values in samples.items()}


def median(samples: tuple[float, ...]) -> float:
    """The middle sample."""
    return statistics.median(samples)
