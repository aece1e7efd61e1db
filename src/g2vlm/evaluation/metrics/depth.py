"""Errors of depth maps, after the alignment that the protocol allows."""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import median_scale, weighted_median

DELTA = 1.25
"""Ratio between prediction and truth up to which a pixel counts as an inlier."""
_SHIFT_STEPS = 200


class DepthAlignment(Enum):
    """What the unknown unit of predicted depths is matched by.

    The last two are those of the public video-depth evaluations (MonST3R, CUT3R, Pi3), over all views of a
    sequence together.
    """

    NONE = "none"
    """Nothing: the prediction claims the unit of the truth."""
    PER_IMAGE = "per_image"
    """One ratio of medians for each view: the protocol of monocular depth."""
    PER_SCENE = "per_scene"
    """One ratio of medians for all views together: relative sizes between views must be right too."""
    MEDIAN_OF_RATIOS = "median_of_ratios"
    """One factor for all views: the median of the ratios of all pixels, which far pixels sway less."""
    SCALE = "scale"
    """One factor for all views, the minimiser of the summed absolute differences."""
    SCALE_SHIFT = "scale_shift"
    """One factor and one offset for all views, the minimisers of the summed absolute differences."""


@dataclass(frozen=True)
class DepthErrors:
    """Errors over the valid pixels of all views together."""

    abs_rel: float
    """Mean of |prediction - truth| / truth."""
    rmse: float
    """Root of the mean squared error, unit of the truth."""
    delta: float
    """Share of pixels with max(prediction / truth, truth / prediction) < 1.25."""
    num_pixels: int
    """Pixels that counted."""


def align_depth(
    pred: Float[Tensor, "views height width"],
    true: Float[Tensor, "views height width"],
    valid: Bool[Tensor, "views height width"],
    alignment: DepthAlignment,
) -> Float[Tensor, "views height width"]:
    """Predicted depths in the unit of the truth, by what the alignment fits over valid pixels."""
    if alignment is DepthAlignment.NONE:
        return pred
    if alignment is DepthAlignment.MEDIAN_OF_RATIOS:
        return pred * _median_of_ratios(pred[valid], true[valid])
    if alignment is DepthAlignment.SCALE:
        return pred * absolute_scale(pred[valid], true[valid])
    if alignment is DepthAlignment.SCALE_SHIFT:
        scale, shift = absolute_scale_and_shift(pred[valid], true[valid])
        return scale * pred + shift
    per_view = pred.flatten(1), true.flatten(1), valid.flatten(1)
    if alignment is DepthAlignment.PER_SCENE:
        return pred * median_scale(*(tensor.flatten() for tensor in per_view))
    return pred * median_scale(*per_view)[:, None, None]


def _median_of_ratios(pred: Tensor, true: Tensor) -> Tensor:
    counts = pred > 0
    if not bool(counts.any()):
        return torch.ones((), dtype=pred.dtype)
    ratios = (true[counts] / pred[counts]).sort().values
    return (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2


def absolute_scale(pred: Float[Tensor, " n"], true: Float[Tensor, " n"]) -> float:
    """The factor that minimises `sum |s * pred - true|`, exactly: a weighted median of the ratios.

    The public code iterates ten reweighted least-squares steps towards the same minimum.
    """
    counts = pred != 0
    if not bool(counts.any()):
        return 1.0
    return float(weighted_median(true[counts] / pred[counts], pred[counts].abs()))


def absolute_scale_and_shift(pred: Float[Tensor, " n"], true: Float[Tensor, " n"]) -> tuple[float, float]:
    """Factor and offset that minimise `sum |s * pred + t - true|`, by reweighted least squares.

    The public code follows the gradient from the ratio of medians for at most 1000 steps of 1e-4, which can
    end before the minimum; this goes to it, so that figures here can be a little better.
    """
    scale, shift = absolute_scale(pred, true), 0.0
    best = float((scale * pred + shift - true).abs().sum())
    floor = max(1e-6 * float(true.abs().mean()), torch.finfo(true.dtype).tiny)
    for _ in range(_SHIFT_STEPS):
        weight = 1 / (scale * pred + shift - true).abs().clamp_min(floor)
        total, p, t = weight.sum(), (weight * pred).sum(), (weight * true).sum()
        spread = (weight * pred * pred).sum() - p * p / total
        if float(spread) <= 1e-12 * float((weight * pred * pred).sum()):
            # All predictions alike: only an offset can be fitted, and the median is the best one.
            return 0.0, float(true.median())
        scale = float(((weight * pred * true).sum() - p * t / total) / spread)
        shift = float((t - scale * p) / total)
        now = float((scale * pred + shift - true).abs().sum())
        if abs(best - now) <= 1e-9 * best:
            break
        best = now
    return scale, shift


def depth_errors(
    pred: Float[Tensor, "views height width"],
    true: Float[Tensor, "views height width"],
    valid: Bool[Tensor, "views height width"] | None = None,
    alignment: DepthAlignment = DepthAlignment.PER_SCENE,
    max_depth: int | float | None = None,
) -> DepthErrors:
    """Compare z-depths of the views of one scene.

    Args:
        pred: predicted depths, any unit unless `alignment` is NONE.
        true: true depths.
        valid: pixels whose truth is known; all if None. Of these, pixels with a true depth of 0 or less, or
            with a non-finite number on either side, are left out.
        alignment: how the unit of the prediction is found.
        max_depth: pixels with a true depth of this and more are left out, and aligned predictions are cut to
            it (Sintel: 70).

    Raises:
        InputError: no pixel is left to compare.
    """
    pred, true = pred.double(), true.double()
    usable = torch.isfinite(pred) & torch.isfinite(true) & (true > 0)
    usable = usable if valid is None else usable & valid
    usable = usable if max_depth is None else usable & (true < max_depth)
    if not bool(usable.any()):
        raise InputError("Expected at least one pixel with a finite prediction and a true depth, got none.")
    aligned = align_depth(torch.where(usable, pred, 0.0), torch.where(usable, true, 0.0), usable, alignment)
    p, t = aligned[usable].clamp_max(math.inf if max_depth is None else max_depth), true[usable]
    difference = p - t
    # A depth of 0 or less is infinitely far off as a ratio; clamping keeps the division harmless.
    ratio = torch.maximum(p / t, t / p.clamp_min(torch.finfo(p.dtype).tiny))
    return DepthErrors(
        abs_rel=float((difference.abs() / t).mean()),
        rmse=float(difference.square().mean().sqrt()),
        delta=float((ratio < DELTA).double().mean()),
        num_pixels=int(usable.sum()),
    )
