"""Which views of a scene make a sample."""

from enum import Enum
from itertools import pairwise

import numpy as np
from jaxtyping import Float

_TEMPERATURE = 0.15
"""Of overlaps in covisibility: views that share 15 % more are drawn e times as often."""


class ViewChoice(Enum):
    """How views of a sample are drawn."""

    RANDOM = "random"
    """Any views of the scene, whether they see each other or not."""
    STRATIFIED = "stratified"
    """The scene in the order it was taken, cut into as many stretches as views are wanted; one of each."""
    WINDOW = "window"
    """Any views of a short stretch."""
    COVISIBILITY = "covisibility"
    """Each view sees something that an earlier one sees, but not nearly all of it."""


WINDOW_FACTOR = 8
"""A window is so many times as long as views are wanted."""
OVERLAP_RANGE = (0.15, 0.85)
"""Least and largest overlap with the views chosen before."""


def choose_views(
    rule: ViewChoice, overlap: Float[np.ndarray, "views views"], count: int, rng: np.random.Generator
) -> list[int]:
    """Numbers of `count` different views of a scene, in random order.

    Args:
        rule: how.
        overlap: share of what each view (row) sees that each other view (column) sees too.
        count: at most as many as the scene has.
        rng: source of the draws.
    """
    total = len(overlap)
    if rule is ViewChoice.STRATIFIED:
        limits = np.linspace(0, total, count + 1).round().astype(int)
        chosen = [int(rng.integers(a, max(a + 1, b))) for a, b in pairwise(limits)]
    elif rule is ViewChoice.WINDOW:
        length = min(total, count * WINDOW_FACTOR)
        start = int(rng.integers(total - length + 1))
        chosen = [start + int(k) for k in rng.permutation(length)[:count]]
    elif rule is ViewChoice.COVISIBILITY:
        chosen = _covisible(overlap, count, rng)
    else:
        chosen = [int(k) for k in rng.permutation(total)[:count]]
    return [chosen[k] for k in rng.permutation(count)]


def _covisible(overlap: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Grow a set of views, each drawn among those whose largest overlap with the set is in range.

    Where none is in range, the one that overlaps most is taken: a sample is never cut short.
    """
    low, high = OVERLAP_RANGE
    both = np.minimum(overlap, overlap.T)
    chosen = [int(rng.integers(len(overlap)))]
    while len(chosen) < count:
        shared = both[chosen].max(axis=0)
        shared[chosen] = -1.0
        fitting = (shared >= low) & (shared <= high)
        if fitting.any():
            weight = np.where(fitting, np.exp(shared / _TEMPERATURE), 0.0)
            chosen.append(int(rng.choice(len(overlap), p=weight / weight.sum())))
        else:
            # Rather too much in common than nothing.
            chosen.append(int(np.argmax(np.where(shared > high, 2.0 - shared, shared))))
    return chosen
