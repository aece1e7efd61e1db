"""How far a figure would move with other scenes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from g2vlm.errors import InputError

CONFIDENCE = 0.95
"""Probability that the interval is meant to cover."""
RESAMPLES = 2000
_CHUNK = 200


@dataclass(frozen=True)
class Interval:
    """A figure with its error bar."""

    value: float
    low: float
    high: float
    error: float = 0.0
    """Standard error: the spread of the resampled figures."""


def bootstrap_mean(
    sums: Float64[ndarray, " scenes"], counts: Float64[ndarray, " scenes"], *, seed: int = 0
) -> Interval:
    """Mean over all items with a 95 % interval, resampling whole scenes.

    Items of one scene (its pairs of views, its questions) depend on each other, so scenes are drawn with
    replacement, not items: the cluster bootstrap, percentile interval.

    Args:
        sums: sum of the items of each scene.
        counts: number of items of each scene; zero leaves a scene without a say.
        seed: of the draws.

    Returns:
        The mean `sum(sums) / sum(counts)` and its interval. With a single scene the interval is the mean.

    Raises:
        InputError: no items at all.
    """
    has_items = counts > 0
    sums, counts = sums[has_items], counts[has_items]
    if len(counts) == 0:
        raise InputError("Expected at least one measurement to average, got none.")
    draw = np.random.default_rng(seed)
    means = []
    # In chunks: the index array of all resamples of thousands of scenes would not fit a small machine.
    for first in range(0, RESAMPLES, _CHUNK):
        chosen = draw.integers(0, len(counts), (min(_CHUNK, RESAMPLES - first), len(counts)))
        means.append(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1))
    return _interval(float(sums.sum() / counts.sum()), np.concatenate(means))


def bootstrap_difference(
    first: tuple[Float64[ndarray, " scenes"], Float64[ndarray, " scenes"]],
    second: tuple[Float64[ndarray, " scenes"], Float64[ndarray, " scenes"]],
    *,
    seed: int = 0,
) -> Interval:
    """Difference of two means over the same scenes, first minus second, with a 95 % interval.

    Both are resampled together (paired), so that what makes a scene hard for both cancels.

    Args:
        first: sums and counts of each scene, as in `bootstrap_mean`.
        second: the same for what it is compared with.
        seed: of the draws.

    Raises:
        InputError: no scene has items on both sides.
    """
    stacked = np.stack([*first, *second])
    stacked = stacked[:, (stacked[1] > 0) & (stacked[3] > 0)]
    if stacked.shape[1] == 0:
        raise InputError("Expected at least one scene with measurements on both sides, got none.")
    draw = np.random.default_rng(seed)
    differences = []
    for begin in range(0, RESAMPLES, _CHUNK):
        chosen = draw.integers(0, stacked.shape[1], (min(_CHUNK, RESAMPLES - begin), stacked.shape[1]))
        a, n, b, m = (row[chosen].sum(axis=1) for row in stacked)
        differences.append(a / n - b / m)
    a, n, b, m = stacked.sum(axis=1)
    return _interval(float(a / n - b / m), np.concatenate(differences))


def bootstrap_median(items: Sequence[Sequence[float]], *, seed: int = 0) -> Interval:
    """Median over all items with a 95 % interval, resampling whole scenes.

    Args:
        items: the items of each scene; a scene without items has no say.
        seed: of the draws.

    Raises:
        InputError: no items at all.
    """
    known = [np.asarray(scene, dtype=np.float64) for scene in items if len(scene)]
    if not known:
        raise InputError("Expected at least one measurement to take the middle of, got none.")
    draw = np.random.default_rng(seed)
    chosen = draw.integers(0, len(known), (RESAMPLES, len(known)))
    medians = [np.median(np.concatenate([known[k] for k in row])) for row in chosen]
    return _interval(float(np.median(np.concatenate(known))), np.array(medians))


def bootstrap_macro(
    sums: Float64[ndarray, "families scenes"],
    counts: Float64[ndarray, "families scenes"],
    weights: Float64[ndarray, " families"],
    *,
    seed: int = 0,
) -> Interval:
    """Weighted mean of the means of several families, with a 95 % interval, resampling whole scenes.

    Args:
        sums: of the scores of each family in each scene.
        counts: of the items of each family in each scene.
        weights: of the families; those without items leave theirs to the others.
        seed: of the draws.

    Raises:
        InputError: no items at all.
    """
    if counts.sum() == 0:
        raise InputError("Expected at least one measurement to average, got none.")
    draw, scenes = np.random.default_rng(seed), counts.shape[1]
    value = float(_macro(sums.sum(axis=1)[None], counts.sum(axis=1)[None], weights)[0])
    found = []
    for first in range(0, RESAMPLES, _CHUNK):
        # How often each scene is drawn; products with it are sums over the drawn scenes.
        times = draw.multinomial(scenes, np.full(scenes, 1 / scenes), min(_CHUNK, RESAMPLES - first))
        found.append(_macro(times @ sums.T, times @ counts.T, weights))
    resampled = np.concatenate(found)
    return _interval(value, resampled[np.isfinite(resampled)])


def _macro(sums: ndarray, counts: ndarray, weights: ndarray) -> ndarray:
    """Weighted mean of the families' means, row by row; NaN where no family has items."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means, shares = np.where(counts > 0, sums / counts, 0), np.where(counts > 0, weights, 0)
        return np.asarray((means * shares).sum(axis=1) / shares.sum(axis=1))


def _interval(value: float, resampled: ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high), float(resampled.std()))
