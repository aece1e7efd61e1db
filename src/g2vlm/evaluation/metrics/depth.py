"""Errors of depth maps, after the alignment that the protocol allows."""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import median_scale

DELTA = 1.25
"""Ratio between prediction and truth up to which a pixel counts as an inlier."""


class ScaleAlignment(Enum):
    """What the unknown unit of predicted depths is matched by."""

    NONE = "none"
    """Nothing: the prediction claims the unit of the truth."""
    PER_IMAGE = "per_image"
    """One ratio of medians for each view: the protocol of monocular depth."""
    PER_SCENE = "per_scene"
    """One ratio of medians for all views together: relative sizes between views must be right too."""


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
    alignment: ScaleAlignment,
) -> Float[Tensor, "views height width"]:
    """Predicted depths in the unit of the truth, by the ratio of the medians over valid pixels."""
    if alignment is ScaleAlignment.NONE:
        return pred
    per_view = pred.flatten(1), true.flatten(1), valid.flatten(1)
    if alignment is ScaleAlignment.PER_SCENE:
        return pred * median_scale(*(tensor.flatten() for tensor in per_view))
    return pred * median_scale(*per_view)[:, None, None]


def depth_errors(
    pred: Float[Tensor, "views height width"],
    true: Float[Tensor, "views height width"],
    valid: Bool[Tensor, "views height width"] | None = None,
    alignment: ScaleAlignment = ScaleAlignment.PER_SCENE,
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
