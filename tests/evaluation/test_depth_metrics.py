"""Depth errors against a slow oracle, and what each alignment forgives."""

import math

import numpy as np
import pytest
import torch

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.depth import (
    DepthAlignment,
    absolute_scale,
    absolute_scale_and_shift,
    align_depth,
    depth_errors,
)


def some_depth(seed: int = 0, views: int = 3) -> torch.Tensor:
    return 0.5 + 4 * torch.rand(views, 6, 8, generator=torch.Generator().manual_seed(seed))


def oracle(pred: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:
    rel = sq = inside = 0.0
    for p, t in zip(pred, true, strict=True):
        rel += abs(p - t) / t
        sq += (p - t) ** 2
        inside += p > 0 and max(p / t, t / p) < 1.25
    return rel / len(pred), math.sqrt(sq / len(pred)), inside / len(pred)


def least_absolute(pred: np.ndarray, true: np.ndarray, *, with_shift: bool) -> tuple[float, float]:
    """The exact minimiser of the summed absolute differences, by linear programming."""
    from scipy.optimize import linprog

    n = len(pred)
    columns = np.stack([pred, np.ones(n)], axis=1)
    A = np.block([[columns, -np.eye(n)], [-columns, -np.eye(n)]])
    bounds = [(None, None), (None, None) if with_shift else (0, 0), *[(0, None)] * n]
    found = linprog(np.r_[0, 0, np.ones(n)], A, np.r_[true, -true], bounds=bounds)
    return float(found.x[0]), float(found.x[1])


def test_public_iterations_go_to_the_same_scale() -> None:
    """Ten reweighted least-squares steps, as the public video-depth evaluation does them."""
    pred, true = some_depth(1).double().flatten(), some_depth(2).double().flatten()
    scale = true.mean() / pred.mean()
    for _ in range(200):
        weight = 1 / ((scale * pred - true).abs() + 1e-8)
        scale = (weight * pred * true).sum() / (weight * pred * pred).sum()
    assert absolute_scale(pred, true) == pytest.approx(float(scale), rel=1e-3)


def test_a_constant_prediction_is_shifted_to_the_middle() -> None:
    true = torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64)
    assert absolute_scale_and_shift(torch.ones(3, dtype=torch.float64), true) == (0.0, 2.0)
    assert absolute_scale(torch.zeros(3, dtype=torch.float64), true) == 1.0


@pytest.mark.parametrize("alignment", list(DepthAlignment))
def test_agrees_with_a_loop_over_pixels(alignment: DepthAlignment) -> None:
    pred, true = some_depth(1), some_depth(2)
    valid = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(3)) > 0.3
    p, t, v = pred.double().numpy(), true.double().numpy(), valid.numpy()
    if alignment is DepthAlignment.PER_SCENE:
        p = p * np.median(t[v]) / np.median(p[v])
    elif alignment is DepthAlignment.PER_IMAGE:
        p = np.stack([p[i] * np.median(t[i][v[i]]) / np.median(p[i][v[i]]) for i in range(3)])
    elif alignment is DepthAlignment.MEDIAN_OF_RATIOS:
        p = p * np.median(t[v] / p[v])
    elif alignment in (DepthAlignment.SCALE, DepthAlignment.SCALE_SHIFT):
        scale, shift = least_absolute(p[v], t[v], with_shift=alignment is DepthAlignment.SCALE_SHIFT)
        p = scale * p + shift
    errors = depth_errors(pred, true, valid, alignment)
    assert (errors.abs_rel, errors.rmse, errors.delta) == pytest.approx(oracle(p[v], t[v]), rel=1e-4)
    assert errors.num_pixels == v.sum()


def test_perfect_up_to_scale_is_perfect() -> None:
    true = some_depth()
    errors = depth_errors(0.01 * true, true)
    assert errors.abs_rel == pytest.approx(0, abs=1e-6)
    assert errors.delta == 1


def test_a_known_perturbation_gives_the_known_error() -> None:
    true = torch.full((1, 4, 4), 2.0)
    errors = depth_errors(1.1 * true, true, alignment=DepthAlignment.NONE)
    assert errors.abs_rel == pytest.approx(0.1, rel=1e-6)
    assert errors.rmse == pytest.approx(0.2, rel=1e-6)
    assert depth_errors(1.26 * true, true, alignment=DepthAlignment.NONE).delta == 0


def test_one_scale_per_scene_does_not_forgive_scales_that_differ_between_views() -> None:
    true = some_depth(views=2)
    pred = true * torch.tensor([1.0, 2.0])[:, None, None]
    assert depth_errors(pred, true, alignment=DepthAlignment.PER_IMAGE).abs_rel == pytest.approx(0, abs=1e-6)
    assert depth_errors(pred, true, alignment=DepthAlignment.PER_SCENE).abs_rel > 0.2


def test_unusable_pixels_do_not_count() -> None:
    true, pred = some_depth(), some_depth()
    pred[0, 0, 0], true[1, 0, 0], true[2, 0, 0] = math.nan, math.inf, 0.0
    errors = depth_errors(pred, true)
    assert errors.num_pixels == true.numel() - 3
    assert errors.abs_rel == pytest.approx(0, abs=1e-6)


def test_negative_depth_is_no_inlier() -> None:
    true = torch.ones(1, 2, 2)
    assert depth_errors(-true, true, alignment=DepthAlignment.NONE).delta == 0


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        depth_errors(some_depth(), some_depth(), torch.zeros(3, 6, 8, dtype=torch.bool))


def test_alignment_leaves_metric_predictions_alone() -> None:
    pred, true = some_depth(1), some_depth(2)
    assert align_depth(pred, true, torch.ones_like(pred, dtype=torch.bool), DepthAlignment.NONE) is pred
