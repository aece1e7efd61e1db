"""Two ways to compute the same, timed by turns in a few milliseconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

FEWEST_ROUNDS, MOST_ROUNDS = 3, 12
BUDGET_S = 0.25
"""Seconds after which no further round starts."""
AGREEMENT = 1.15
"""The two shortest times of a way agree if the second is at most so much longer."""
HOPELESS, HOPELESS_S = 10.0, 2e-3
"""A way that takes so many times as long as the other, and so many seconds, is not timed any further."""
USUAL_CACHE_BYTES = 1 << 25
"""Size of the last cache where the system does not tell."""
MOST_CACHE_BYTES = 1 << 29

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of both ways, the shortest of several."""

    plain_s: float
    fast_s: float
    settled: bool
    """Whether the shortest times agree with each other."""

    @property
    def hopeless(self) -> bool:
        """Whether the fast way is far slower than the plain one."""
        return self.fast_s > HOPELESS_S and self.fast_s > HOPELESS * self.plain_s


def compare(plain: Call, fast: Call, *, cold: bool = False, budget_s: float = BUDGET_S) -> Timing:
    """Time two ways by turns, after one call of each that warms up.

    A busy machine only ever adds time, so the shortest counts.

    Args:
        plain: does the work one way.
        fast: the other way.
        cold: what they read comes from memory, as weights of a whole model do, not from a cache.
        budget_s: seconds after which no further round starts.
    """
    plain()
    fast()
    sweep = _sweeper() if cold else (lambda: None)
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + budget_s
    while len(times[0]) < MOST_ROUNDS:
        for call, own in zip((plain, fast), times, strict=True):
            sweep()
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
        done = len(times[0])
        if done >= FEWEST_ROUNDS and (all(map(_agree, times)) or time.perf_counter() > end):
            break
    return Timing(min(times[0]), min(times[1]), settled=all(map(_agree, times)))


def _agree(times: list[float]) -> bool:
    shortest, second, *_ = sorted(times)
    return second <= AGREEMENT * shortest


def _sweeper() -> Callable[[], None]:
    """Reads so much that nothing else is left in the caches."""
    filler = torch.ones(2 * min(_cache_bytes(), MOST_CACHE_BYTES) // 4)

    def sweep() -> None:
        filler.sum()

    return sweep


def _cache_bytes() -> int:
    """Size of the last cache of the first processor."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return USUAL_CACHE_BYTES
