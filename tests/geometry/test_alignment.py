"""Alignment: exact scales against enumeration, similarities against ground truth and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import (
    Similarity,
    median_scale,
    optimal_scale_l1,
    robust_similarity,
    umeyama,
    weighted_median,
)
from g2vlm.geometry.rotations import rotation_angle, rotation_from_axis_angle

seeds = st.integers(0, 2**31)


def objective(scale, pred, target, weights) -> float:
    return float((weights[:, None] * (scale * pred - target).abs()).sum())


@given(seeds, st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_optimal_scale_is_the_best_of_all_candidates(seed, count):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(count, generator=generator, dtype=torch.float64)
    pred[0, 0] = 0.0
    scale = float(optimal_scale_l1(pred, target, weights))
    # The objective is convex and piecewise linear: its minimum lies at one of the ratios.
    candidates = (target / pred)[pred != 0]
    best = min(objective(float(c), pred, target, weights) for c in candidates)
    assert objective(scale, pred, target, weights) <= best * (1 + 1e-12)


def test_optimal_scale_recovers_a_known_scale_despite_outliers_in_each_batch_element():
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(2, 3, 400, 3, generator=generator)
    true = torch.tensor([[0.5, 2.0, 7.0], [1.0, 0.01, 100.0]])
    target = true[..., None, None] * pred
    target[..., :120, :] = 1e3 * torch.randn(2, 3, 120, 3, generator=generator)
    torch.testing.assert_close(optimal_scale_l1(pred, target, torch.ones(2, 3, 400)), true)


def test_optimal_scale_ignores_points_without_weight_and_zero_coordinates():
    pred = torch.tensor([[1.0, 0.0, 0.0], [torch.nan, 1.0, torch.inf], [0.0, 2.0, 0.0]])
    target = torch.tensor([[3.0, 9.0, 9.0], [1.0, torch.nan, 1.0], [9.0, 6.0, 9.0]])
    assert float(optimal_scale_l1(pred, target, torch.tensor([1.0, 0.0, 1.0]))) == 3.0


def test_optimal_scale_of_nothing_is_one():
    pred, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    weights = torch.stack([torch.zeros(5), torch.ones(5)])
    scale = optimal_scale_l1(pred, target, weights)
    assert scale[0] == 1
    assert scale[1] == optimal_scale_l1(pred[1], target[1], weights[1])
    assert optimal_scale_l1(torch.zeros(4, 3), torch.ones(4, 3), torch.ones(4)) == 1


def test_optimal_scale_carries_no_gradient():
    pred = torch.randn(4, 3, requires_grad=True)
    assert not optimal_scale_l1(pred, torch.randn(4, 3), torch.ones(4)).requires_grad


@given(seeds, st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_weighted_median_equals_the_median_of_repeated_values(seed, count):
    rng = np.random.default_rng(seed)
    values = rng.integers(-5, 5, count).astype(np.float64)
    weights = rng.integers(0, 4, count)
    repeated = np.sort(np.repeat(values, weights))
    median = weighted_median(torch.from_numpy(values), torch.from_numpy(weights.astype(np.float64)))
    if len(repeated) == 0:
        assert torch.isnan(median)
    else:
        assert float(median) == repeated[(len(repeated) - 1) // 2]  # the lower median


@given(seeds, st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_median_scale_agrees_with_numpy(seed, count):
    rng = np.random.default_rng(seed)
    pred, target = rng.uniform(0.5, 2, (2, count)), rng.uniform(0.5, 2, (2, count))
    valid = rng.random((2, count)) < 0.7
    scales = median_scale(torch.from_numpy(pred), torch.from_numpy(target), torch.from_numpy(valid))
    for row in range(2):
        if valid[row].any():
            oracle = np.median(target[row, valid[row]]) / np.median(pred[row, valid[row]])
            assert float(scales[row]) == pytest.approx(oracle)
        else:
            assert torch.isnan(scales[row])


def random_similarity(seed: int, dtype=torch.float64) -> Similarity:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(7, generator=generator, dtype=torch.float64)
    R = rotation_from_axis_angle(values[:3])
    return Similarity(scale=values[6].exp().to(dtype), R=R.to(dtype), t=values[3:6].to(dtype))


@given(seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_umeyama_recovers_exact_similarities(seed, weighted):
    truth = random_similarity(seed)
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(6, generator=generator, dtype=torch.float64) if weighted else None
    fit = umeyama(source, truth.apply(source), weights)
    torch.testing.assert_close(fit.matrix(), truth.matrix(), atol=1e-9, rtol=1e-9)


def test_umeyama_is_optimal_and_agrees_with_scipy_on_rotations():
    generator = torch.Generator().manual_seed(3)
    source = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    target = random_similarity(1).apply(source) + 0.3 * torch.randn(30, 3, generator=generator).double()
    weights = torch.rand(30, generator=generator, dtype=torch.float64)

    def cost(fit: Similarity) -> float:
        return float((weights * (fit.apply(source) - target).square().sum(dim=-1)).sum())

    fit = umeyama(source, target, weights)
    for step in range(20):
        twist = 1e-3 * torch.randn(7, generator=generator, dtype=torch.float64)
        nearby = Similarity(
            fit.scale * twist[6].exp(), rotation_from_axis_angle(twist[:3]) @ fit.R, fit.t + twist[3:6]
        )
        assert cost(nearby) > cost(fit), step
    rigid = umeyama(source, target, weights, with_scale=False)
    assert float(rigid.scale) == 1
    mean_p = (weights[:, None] * source).sum(0) / weights.sum()
    mean_g = (weights[:, None] * target).sum(0) / weights.sum()
    oracle, _ = Rotation.align_vectors(target - mean_g, source - mean_p, weights=weights.numpy())
    np.testing.assert_allclose(rigid.R.numpy(), oracle.as_matrix(), atol=1e-9)


def test_umeyama_of_a_mirrored_set_is_still_a_rotation():
    source = torch.randn(20, 3, dtype=torch.float64)
    fit = umeyama(source, source * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    assert float(torch.linalg.det(fit.R)) == pytest.approx(1)


def test_umeyama_in_float32_far_from_the_origin_and_batched():
    truth = random_similarity(5, torch.float32)
    source = torch.randn(4, 50, 3) + 1000
    fit = umeyama(source, truth.apply(source))
    assert fit.scale.shape == (4,)
    assert fit.R.dtype == torch.float32
    residual = (fit.apply(source) - truth.apply(source)).abs().max()
    assert residual < 1e-5 * truth.apply(source).abs().max()
    torch.testing.assert_close(fit.scale, truth.scale.expand(4), rtol=1e-3, atol=0)


def test_umeyama_is_differentiable_at_a_perfect_fit():
    source = torch.randn(5, 3, dtype=torch.float64).requires_grad_()
    target = source.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: umeyama(a, b).matrix(), (source, target))


@pytest.mark.parametrize(
    ("source", "weights", "message"),
    [
        (torch.ones(5, 3), None, "all in one place"),
        (torch.full((5, 3), torch.nan), None, "finite"),
        (torch.randn(5, 3), torch.zeros(5), "positive weight"),
        (torch.zeros(0, 3), None, "positive weight"),
    ],
)
def test_umeyama_refuses_what_cannot_be_aligned(source, weights, message):
    with pytest.raises(InputError, match=message):
        umeyama(source, source, weights)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_robust_similarity_shrugs_off_outliers_that_break_least_squares(seed):
    truth = random_similarity(seed)
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    noise = 1e-3 * truth.scale * torch.randn(300, 3, generator=generator, dtype=torch.float64)
    target = truth.apply(source) + noise
    target[:90] = truth.apply(source[:90] + 3) + truth.scale * torch.randn(90, 3, generator=generator)
    robust = robust_similarity(source, target)
    error = rotation_angle(robust.R.mT @ truth.R)
    assert error < 2e-3
    assert float(robust.scale / truth.scale) == pytest.approx(1, abs=2e-3)
    plain = umeyama(source, target)
    assert error < rotation_angle(plain.R.mT @ truth.R)


def test_robust_similarity_of_exact_points_is_exact_and_respects_prior_weights():
    truth = random_similarity(9)
    source = torch.randn(40, 3, dtype=torch.float64)
    target = truth.apply(source)
    torch.testing.assert_close(robust_similarity(source, target).matrix(), truth.matrix())
    target[:30] += 5  # a majority of outliers, but the prior knows
    prior = torch.cat([torch.zeros(30), torch.ones(10)]).double()
    torch.testing.assert_close(robust_similarity(source, target, prior).matrix(), truth.matrix())


@given(seeds, seeds)
@settings(max_examples=30, deadline=None)
def test_similarities_are_a_group(seed_a, seed_b):
    a, b = random_similarity(seed_a), random_similarity(seed_b)
    points = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(a.compose(b).apply(points), a.apply(b.apply(points)))
    torch.testing.assert_close(a.compose(b).matrix(), a.matrix() @ b.matrix())
    torch.testing.assert_close(a.inverse().apply(a.apply(points)), points)
    torch.testing.assert_close(a.compose(a.inverse()).matrix(), torch.eye(4).double(), atol=1e-9, rtol=0)
