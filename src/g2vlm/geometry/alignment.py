"""Alignment of point sets and depths: scales, Sim(3) by Umeyama, and a robust version of it.

Sums are accumulated in float64 wherever the device has it, whatever the dtype of the points; results come
back in the dtype of the points.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.poses import transform_points
from g2vlm.geometry.precision import widen
from g2vlm.geometry.rotations import nearest_rotation


@dataclass(frozen=True, eq=False)
class Similarity:
    """A similarity transform `target = scale * R @ source + t`, or a batch of them."""

    scale: Float[Tensor, "*batch"]
    """Positive factor from source units to target units."""
    R: Float[Tensor, "*batch 3 3"]
    """Rotation of the source axes into the target axes."""
    t: Float[Tensor, "*batch 3"]
    """Where the origin of the source lies in the target, in target units."""

    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        """`T_target_source` as 4x4, the scale inside its upper left block."""
        T = torch.zeros(*self.scale.shape, 4, 4, dtype=self.R.dtype, device=self.R.device)
        T[..., :3, :3] = self.scale[..., None, None] * self.R
        T[..., :3, 3] = self.t
        T[..., 3, 3] = 1
        return T

    def apply(self, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*moved 3"]:
        """Points of the source in the target; leading dimensions as in `transform_points`."""
        return transform_points(self.matrix().to(points.dtype), points)

    def inverse(self) -> "Similarity":
        """The transform from target to source."""
        scale = 1 / self.scale
        R = self.R.mT
        t = -scale[..., None] * (R * self.t[..., None, :]).sum(dim=-1)
        return Similarity(scale=scale, R=R, t=t)

    def compose(self, other: "Similarity") -> "Similarity":
        """`self` after `other`: with self = a from b and other = b from c, the result is a from c."""
        R = (self.R[..., :, :, None] * other.R[..., None, :, :]).sum(dim=-2)
        t = self.scale[..., None] * (self.R * other.t[..., None, :]).sum(dim=-1) + self.t
        return Similarity(scale=self.scale * other.scale, R=R, t=t)


def weighted_median(
    values: Float[Tensor, "*batch n"], weights: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch"]:
    """Lower weighted median: the smallest value with at least half of the total weight at or below it.

    It minimises `sum_i weights_i |m - values_i|` exactly.

    Args:
        values: finite numbers.
        weights: non-negative; values of weight zero never count. If all are zero the result is NaN.
    """
    order_values, order = values.sort(dim=-1)
    cumulative = widen(weights).gather(-1, order).cumsum(dim=-1)
    total = cumulative[..., -1:]
    # `left` finds the first position whose cumulative weight reaches half. Zero weights cannot be selected:
    # they leave the cumulative weight where it was, below half.
    index = torch.searchsorted(cumulative, total / 2, side="left").clamp_max(values.shape[-1] - 1)
    median = order_values.gather(-1, index).squeeze(-1)
    return torch.where(total.squeeze(-1) > 0, median, torch.nan)


@torch.no_grad()
def optimal_scale_l1(
    pred: Float[Tensor, "*batch n 3"],
    target: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"],
) -> Float[Tensor, "*batch"]:
    """Scale `s` that minimises `sum_i weights_i |s * pred_i - target_i|_1`, solved exactly.

    The minimiser is the weighted median of all coordinate ratios target / pred, with weights
    `weights * |pred|` (the objective is a sum of `weights |pred| |s - target / pred|`). It is computed
    without gradient and is a constant to the losses: at its own minimum an objective does not change with
    the scale to first order (envelope theorem).

    Args:
        pred: points of arbitrary scale. Coordinates that are zero do not depend on the scale and are ignored.
        target: the corresponding true points.
        weights: non-negative, finite; zero leaves a point out (it may then hold anything, even NaN).

    Returns:
        The scale, one per leading index, in the dtype of `pred`. It is negative or zero only if most of the
        weight says so (a mirrored prediction). 1 where no point has weight, so that an empty sample stays
        finite and harmless.
    """
    mass = weights[..., None] * pred.abs()
    counts = (weights[..., None] > 0) & (mass > 0)
    ratio = torch.where(counts, target / torch.where(counts, pred, 1.0), 0.0)
    # A tiny prediction can overflow the ratio; its sign is then all that matters to a median.
    ratio = ratio.clamp(torch.finfo(ratio.dtype).min, torch.finfo(ratio.dtype).max)
    mass = torch.where(counts, mass, 0.0)
    scale = weighted_median(ratio.flatten(-2), mass.flatten(-2))
    return torch.where(counts.flatten(-2).any(dim=-1), scale, 1.0)


def median_scale(
    pred: Float[Tensor, "*batch n"],
    target: Float[Tensor, "*batch n"],
    valid: Bool[Tensor, "*batch n"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Ratio of medians, median(target) / median(pred): the scale of the monocular depth protocol.

    Args:
        pred: depths of arbitrary scale.
        target: true depths, in the unit wanted.
        valid: which entries count; all if None. Medians of an even count average the middle two.

    Returns:
        The factor that brings `pred` to the unit of `target`; NaN where nothing is valid.
    """
    valid = torch.ones_like(pred, dtype=torch.bool) if valid is None else valid
    return _masked_median(target, valid) / _masked_median(pred, valid)


def _masked_median(values: Tensor, valid: Tensor) -> Tensor:
    ordered = torch.where(valid, values, torch.inf).sort(dim=-1).values
    count = valid.sum(dim=-1, keepdim=True)
    lower = ordered.gather(-1, ((count - 1) // 2).clamp_min(0))
    upper = ordered.gather(-1, (count // 2).clamp_max(values.shape[-1] - 1))
    return torch.where(count > 0, (lower + upper) / 2, torch.nan).squeeze(-1)


def umeyama(
    source: Float[Tensor, "*batch n 3"],
    target: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None = None,
    with_scale: bool = True,
) -> Similarity:
    """Least-squares similarity between corresponding points (Umeyama 1991), weighted and differentiable.

    Minimises `sum_i weights_i |scale R source_i + t - target_i|^2`. Points on one line leave the rotation
    about that line open: one of the minimisers is returned.

    Args:
        source: points to be moved.
        target: where they should come to lie.
        weights: non-negative, one per point; equal if None.
        with_scale: False fixes the scale at 1 (rigid alignment).

    Raises:
        InputError: non-finite points, no weight at all, or (with scale) all source points in one place.
    """
    p, g = widen(source), widen(target)
    w = torch.ones_like(p[..., 0]) if weights is None else widen(weights)
    if not bool(torch.isfinite(p).all() and torch.isfinite(g).all() and torch.isfinite(w).all()):
        raise InputError("Expected finite points and weights to align, got NaN or infinity: mask them first.")
    if source.shape[-2] == 0 or bool((w.sum(dim=-1) <= 0).any()):
        raise InputError("Expected points with positive weight to align, got none: widen the selection.")
    w = w / w.sum(dim=-1, keepdim=True)
    centre_p = (w[..., None] * p).sum(dim=-2, keepdim=True)
    centre_g = (w[..., None] * g).sum(dim=-2, keepdim=True)
    p, g = p - centre_p, g - centre_g
    covariance = torch.einsum("...ni,...nj->...ij", w[..., None] * g, p)
    R = nearest_rotation(covariance)
    scale = torch.ones_like(w[..., 0])
    if with_scale:
        variance = (w * (p * p).sum(dim=-1)).sum(dim=-1)
        noise = (torch.finfo(source.dtype).eps * centre_p).square().sum(dim=(-1, -2))
        if bool((variance <= noise).any()):
            raise InputError(
                "Expected source points that differ, to measure a scale, got all in one place: "
                "align with_scale=False."
            )
        scale = (R * covariance).sum(dim=(-1, -2)) / variance
    t = centre_g[..., 0, :] - scale[..., None] * (R * centre_p).sum(dim=-1)
    dtype = source.dtype
    return Similarity(scale=scale.to(dtype), R=R.to(dtype), t=t.to(dtype))


@torch.no_grad()
def robust_similarity(
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"] | None = None,
    with_scale: bool = True,
    iterations: int = 30,
) -> Similarity:
    """Similarity between corresponding points that gross outliers hardly move.

    Iteratively reweighted least squares with the Huber loss; its threshold is 1.345 robust standard
    deviations (from the median residual) measured anew in every round, so it tightens as the fit improves.
    Tolerates outliers well below one half of the weight.

    Args:
        source: points to be moved.
        target: where they should come to lie.
        weights: prior trust per point (a confidence), non-negative; equal if None.
        with_scale: False fixes the scale at 1.
        iterations: upper limit; it stops earlier when the weights settle.

    Raises:
        InputError: as `umeyama`.
    """
    prior = torch.ones_like(source[..., 0]) if weights is None else weights
    fit = umeyama(source, target, prior, with_scale)
    extent = (target - target.mean(dim=0)).norm(dim=-1).max()
    floor = (torch.finfo(source.dtype).eps * extent).clamp_min(torch.finfo(source.dtype).tiny)
    previous = torch.ones_like(prior)
    for _ in range(iterations):
        residual = (fit.apply(source) - target).norm(dim=-1)
        # The norm of an isotropic 3-D Gaussian has a median of 1.538 standard deviations per axis.
        threshold = 1.345 * torch.maximum(weighted_median(residual, prior) / 1.538, floor)
        trust = (threshold / residual.clamp_min(floor)).clamp_max(1.0)
        fit = umeyama(source, target, prior * trust, with_scale)
        if bool((trust - previous).abs().max() < 1e-4):
            break
        previous = trust
    return fit
