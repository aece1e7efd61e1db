"""Scales and similarities that most of the data agree on, with up to half of it being wrong.

Medians find what the majority says, without a threshold; least squares over those who agree then gives the
value. (Least median of squares: Rousseeuw 1984.)
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import Similarity, umeyama, weighted_median
from g2vlm.geometry.rotations import nearest_rotation

_MAD_TO_SIGMA = 1.4826
_CHI3_MEDIAN = 1.538
"""Median norm of a 3-D Gaussian of unit deviation per axis."""
_CUT_SIGMAS = 3.0
_ROUNDS = 20
_MOST_TRIALS = 600
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class ScaleFit:
    """A common factor between lengths."""

    factor: float
    """Target length per source length."""
    inliers: Bool[Tensor, " n"]
    """The lengths that agree with it."""
    spread: float
    """Robust standard deviation of the logarithm of the factor from one length to the next; 0 for one."""


@torch.no_grad()
def consensus_scale(
    source: Float64[Tensor, " n"], target: Float64[Tensor, " n"], weights: Float64[Tensor, " n"] | None = None
) -> ScaleFit:
    """Factor from source to target lengths that the majority agrees on.

    The median of log(target / source) starts; then the mean over those within three robust standard
    deviations, until it stays. With up to two lengths all count, and the factor is their geometric mean.

    Args:
        source: positive lengths.
        target: the same lengths in the unit wanted, positive.
        weights: positive, one per length; equal if None.

    Raises:
        InputError: no lengths, or lengths that are not positive.
    """
    if len(source) == 0 or not bool(((source > 0) & (target > 0)).all()):
        raise InputError("Expected positive lengths to find a scale, got none or some that are not positive.")
    weights = torch.ones_like(source) if weights is None else weights
    ratio = (target / source).log()
    centre = _middle(ratio, weights)
    inliers = torch.ones_like(ratio, dtype=torch.bool)
    spread = torch.zeros_like(centre)
    for _ in range(_ROUNDS):
        # The deviation is measured over all lengths, so that cutting cannot shrink it step by step.
        spread = _MAD_TO_SIGMA * _middle((ratio - centre).abs(), weights)
        agree = (ratio - centre).abs() <= _CUT_SIGMAS * spread + _ROUNDING
        centre = (weights * ratio)[agree].sum() / weights[agree].sum()
        if bool((agree == inliers).all()):
            break
        inliers = agree
    return ScaleFit(float(centre.exp()), inliers, float(spread))


def _middle(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted median; of two middle values, their mean."""
    low = weighted_median(values, weights)
    return (low - weighted_median(-values, weights)) / 2


@dataclass(frozen=True, eq=False)
class SimilarityFit:
    """A similarity between corresponding points, and who agrees with it."""

    similarity: Similarity
    """From source to target."""
    residuals: Float64[Tensor, " n"]
    """Distance of each moved source point from its target, in target units."""
    inliers: Bool[Tensor, " n"]
    """The points that agree."""


@torch.no_grad()
def consensus_similarity(
    source: Float64[Tensor, "n 3"], target: Float64[Tensor, "n 3"], with_scale: bool = True
) -> SimilarityFit:
    """Similarity that the majority of corresponding points agrees on.

    Among similarities through three points each (all triples, or 600 drawn ones) the one with the smallest
    median residual is taken, then refined by least squares over the points within three robust standard
    deviations of it.

    Args:
        source: at least three points, not on one line.
        target: where they should come to lie.
        with_scale: False fixes the scale at 1.

    Raises:
        InputError: fewer than three points, or all of them on one line.
    """
    if len(source) < 3 or is_collinear(source) or is_collinear(target):
        raise InputError(
            f"Expected three or more points that are not on one line, got {len(source)} that do not fix a "
            "rotation: add some beside the line."
        )
    triples = _triples(len(source))
    triples = triples[_area(source[triples]) > 0]
    fits = umeyama(source[triples], target[triples], with_scale=with_scale)
    residuals = (fits.apply(source.expand(len(triples), -1, -1)) - target).norm(dim=-1)
    best = int(residuals.median(dim=-1).values.argmin())
    fit = Similarity(fits.scale[best], fits.R[best], fits.t[best])
    return _refined(fit, source, target, lambda p, g, _: umeyama(p, g, with_scale=with_scale))


@torch.no_grad()
def consensus_with_rotation(
    source: Float64[Tensor, "n 3"],
    target: Float64[Tensor, "n 3"],
    rotations: Float64[Tensor, "n 3 3"],
    with_scale: bool = True,
) -> SimilarityFit:
    """Similarity of points of which each pair tells the rotation too, as cameras do; they may lie on a line.

    The rotation is the one with the smallest median angle to all, refined over those near it; scale and
    shift are those of the pair of points with the smallest median residual, refined over the points that
    agree.

    Args:
        source: at least two points, not all in one place.
        target: where they should come to lie.
        rotations: of each correspondence, from source to target axes.
        with_scale: False fixes the scale at 1.

    Raises:
        InputError: fewer than two points, or all of them in one place.
    """
    if len(source) < 2 or float(_extent(source)) == 0 or float(_extent(target)) == 0:
        raise InputError("Expected two or more points in different places, got too few or all in one place.")
    R = consensus_rotation(rotations)
    turned = source @ R.T
    pairs = torch.tensor(list(itertools.combinations(range(len(source)), 2)))
    if len(pairs) > _MOST_TRIALS:
        pairs = pairs[torch.randperm(len(pairs), generator=_generator())[:_MOST_TRIALS]]
    span = turned[pairs[:, 1]] - turned[pairs[:, 0]]
    goal = target[pairs[:, 1]] - target[pairs[:, 0]]
    length = span.norm(dim=-1)
    usable = length > _ROUNDING * _extent(source)
    pairs, span, goal, length = pairs[usable], span[usable], goal[usable], length[usable]
    scale = (goal.norm(dim=-1) / length) if with_scale else torch.ones_like(length)
    t = (target[pairs] - scale[:, None, None] * turned[pairs]).mean(dim=1)
    residuals = (scale[:, None, None] * turned + t[:, None] - target).norm(dim=-1)
    best = int(residuals.median(dim=-1).values.argmin())
    fit = Similarity(scale[best], R, t[best])
    return _refined(fit, source, target, lambda p, g, R: _scale_and_shift(p, g, R, with_scale))


def consensus_rotation(rotations: Float64[Tensor, "n 3 3"]) -> Float64[Tensor, "3 3"]:
    """Mean of the rotations that the majority agrees on."""
    distance = (rotations[:, None] - rotations[None]).flatten(2).norm(dim=-1)
    best = int(distance.median(dim=-1).values.argmin())
    limit = _CUT_SIGMAS * _MAD_TO_SIGMA * distance[best].median() + _ROUNDING
    near = distance[best] <= limit
    return nearest_rotation(rotations[near].mean(dim=0))


def is_collinear(points: Float64[Tensor, "n 3"], ratio: float = 0.02) -> bool:
    """Whether points lie on a line or in one place: spread beside it is below `ratio` of that along."""
    spread = torch.linalg.svdvals(points - points.mean(dim=0))
    return len(points) < 3 or float(spread[1]) <= max(ratio * float(spread[0]), 1e-12)


def _triples(count: int) -> Tensor:
    if count <= 16:
        return torch.tensor(list(itertools.combinations(range(count), 3)))
    # Drawn without replacement, always the same.
    draws = torch.rand(_MOST_TRIALS, count, generator=_generator())
    return draws.argsort(dim=-1)[:, :3]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _area(corners: Tensor) -> Tensor:
    """Area of triangles relative to their extent, 0 where that is rounding."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = torch.linalg.cross(a, b).norm(dim=-1)
    longest = torch.maximum(a.norm(dim=-1), b.norm(dim=-1)).square().clamp_min(1e-300)
    return torch.where(area / longest > 1e-4, area / longest, 0.0)


def _extent(points: Tensor) -> Tensor:
    return (points - points.mean(dim=0)).norm(dim=-1).max()


def _refined(
    fit: Similarity,
    source: Tensor,
    target: Tensor,
    solve: Callable[[Tensor, Tensor, Tensor], Similarity],
) -> SimilarityFit:
    """Least squares over those who agree, until they stay the same."""
    floor = _ROUNDING * _extent(target)
    inliers = torch.zeros(len(source), dtype=torch.bool)
    for _ in range(_ROUNDS):
        residuals = (fit.apply(source) - target).norm(dim=-1)
        # Few points are fitted closely by chance: Rousseeuw's correction widens the limit for them.
        sigma = residuals.median() / _CHI3_MEDIAN * (1 + 5 / max(1, len(source) - 3))
        agree = residuals <= 1.5 * _CUT_SIGMAS * sigma + floor
        if bool((agree == inliers).all()) or int(agree.sum()) < 2:
            break
        inliers = agree
        if int(agree.sum()) >= 3 and is_collinear(source[agree]) and not is_collinear(source):
            break  # the rest of them would leave the rotation open
        fit = solve(source[agree], target[agree], fit.R)
    return SimilarityFit(fit, (fit.apply(source) - target).norm(dim=-1), inliers)


def _scale_and_shift(source: Tensor, target: Tensor, R: Tensor, with_scale: bool) -> Similarity:
    turned = source @ R.T
    centre, goal = turned.mean(dim=0), target.mean(dim=0)
    scale = torch.ones((), dtype=source.dtype)
    if with_scale:
        spread = (turned - centre).square().sum()
        scale = ((turned - centre) * (target - goal)).sum() / spread
        if scale <= 0:  # opposite to each other: no scale fits, and only a positive one is a similarity
            scale = ((target - goal).square().sum() / spread).sqrt()
    return Similarity(scale, R, goal - scale * centre)
