"""Cameras: projection, intrinsics from point maps, pixel affines."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.geometry.cameras import (
    fit_intrinsics,
    make_intrinsics,
    pad_affine,
    pixel_grid,
    project,
    recover_intrinsics,
    resize_affine,
    transform_intrinsics,
    unproject,
)

sizes = st.integers(1, 50)


def camera(fx: float, fy: float, width: int, height: int) -> torch.Tensor:
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    return make_intrinsics(torch.tensor([fx, fy], dtype=torch.float64), centre)


def rough_depth(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(1, 4, (height, width)))


def test_pixel_grid_counts_u_along_the_width():
    grid = pixel_grid(2, 3)
    assert grid.tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]


@given(st.floats(5, 500), st.floats(5, 500), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_project_inverts_unproject_at_every_pixel(fx, fy, height, width):
    K = camera(fx, fy, width, height).expand(2, 3, 3)
    depth = torch.stack([rough_depth(height, width, 1), rough_depth(height, width, 2)])
    points = unproject(depth, K)
    torch.testing.assert_close(points[..., 2], depth)
    grid = pixel_grid(height, width, dtype=torch.float64).expand(2, height, width, 2)
    torch.testing.assert_close(project(points, K), grid, atol=1e-9, rtol=0)


def test_project_agrees_with_opencv():
    points = torch.tensor([[0.3, -0.2, 2.0], [-1.0, 0.5, 4.0]], dtype=torch.float64)
    K = camera(300, 310, 64, 48)
    oracle, _ = cv2.projectPoints(points.numpy(), np.zeros(3), np.zeros(3), K.numpy(), None)
    np.testing.assert_allclose(project(points, K).numpy(), oracle[:, 0], atol=1e-9)


def test_project_is_finite_with_finite_gradients_in_the_camera_plane():
    points = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -1.0]], requires_grad=True)
    pixels = project(points, camera(10, 10, 4, 4).float())
    pixels.sum().backward()
    assert torch.isfinite(pixels).all()
    assert torch.isfinite(points.grad).all()
    with pytest.raises(ValueError, match="leading dimensions"):
        project(torch.zeros(3), torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width"), [(28, 42), (392, 518), (50, 2)])
def test_intrinsics_of_an_exact_point_map_are_found(height, width, dtype):
    K = camera(0.9 * width, 1.1 * width, width, height)
    points = (37.0 * unproject(rough_depth(height, width), K)).to(dtype)
    fit = fit_intrinsics(points)
    assert bool(fit.found)
    assert fit.K.dtype == dtype
    torch.testing.assert_close(fit.K, K.to(dtype), rtol=1e-5, atol=1e-4)
    assert fit.residual_px < 1e-3
    torch.testing.assert_close(recover_intrinsics(points), fit.K)


def test_intrinsics_survive_gross_outliers_and_respect_weights():
    height, width = 40, 60
    K = camera(70, 75, width, height)
    rng = np.random.default_rng(0)
    points = unproject(rough_depth(height, width), K)
    noisy = points * torch.from_numpy(1 + 1e-3 * rng.normal(size=points.shape))
    bad = torch.from_numpy(rng.random((height, width)) < 0.3)
    noisy[bad] = torch.from_numpy(rng.normal(size=(int(bad.sum()), 3)) * 3 + [0, 0, 5])
    torch.testing.assert_close(recover_intrinsics(noisy), K, rtol=0.01, atol=0)

    worse = points.clone()
    mostly = torch.from_numpy(rng.random((height, width)) < 0.8)
    worse[mostly] *= torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(recover_intrinsics(worse, (~mostly).double()), K, rtol=1e-6, atol=1e-9)


def test_weighted_least_squares_is_reached_when_all_residuals_are_small():
    height, width = 20, 30
    K = camera(40, 40, width, height)
    points = unproject(rough_depth(height, width), K)
    points[..., :2] *= 1 + 1e-4 * torch.randn(height, width, 1, dtype=torch.float64)
    a = points[..., 0] / points[..., 2]
    du = pixel_grid(height, width, dtype=torch.float64)[..., 0] - (width - 1) / 2
    plain = (a * du).sum() / (a * a).sum()
    assert abs(float(recover_intrinsics(points)[0, 0] / plain) - 1) < 1e-4


def test_views_of_a_batch_do_not_influence_each_other():
    points = torch.stack(
        [unproject(rough_depth(20, 30, s), camera(20 + 9 * s, 30, 30, 20)) for s in range(3)]
    )
    points[1] = torch.nan
    fit = fit_intrinsics(points)
    assert fit.found.tolist() == [True, False, True]
    torch.testing.assert_close(fit.K[2], fit_intrinsics(points[2]).K)


@pytest.mark.parametrize("kind", ["nan", "behind", "zero", "weightless", "mirrored"])
def test_without_evidence_the_documented_fallback_is_flagged(kind):
    points = unproject(rough_depth(20, 30), camera(25, 25, 30, 20))
    weights = torch.full((20, 30), 0.0 if kind == "weightless" else 1.0, dtype=torch.float64)
    factor = {"nan": [torch.nan] * 3, "behind": [1, 1, -1], "zero": [0, 0, 1], "mirrored": [-1, -1, 1]}
    points = points * torch.tensor(factor.get(kind, [1, 1, 1]), dtype=torch.float64)
    fit = fit_intrinsics(points, weights)
    assert not bool(fit.found)
    assert fit.K.tolist() == [[30, 0, 14.5], [0, 30, 9.5], [0, 0, 1]]


@pytest.mark.parametrize(("points", "found"), [(0, False), (3, False), (20, False), (200, True)])
def test_a_focal_length_of_few_points_is_no_measurement(points: int, found: bool) -> None:
    K = make_intrinsics(torch.tensor([50.0, 50.0]), torch.tensor([31.5, 23.5]))
    weights = torch.zeros(48 * 64)
    weights[torch.randperm(48 * 64, generator=torch.Generator().manual_seed(0))[:points]] = 1.0
    fit = fit_intrinsics(unproject(torch.full((48, 64), 2.0), K), weights.reshape(48, 64))
    assert bool(fit.found) is found
    assert torch.isfinite(fit.K).all()


def test_an_axis_without_extent_borrows_the_other_focal_length():
    fit = fit_intrinsics(unproject(rough_depth(1, 30), camera(25, 25, 30, 1)))
    assert not bool(fit.found)
    torch.testing.assert_close(fit.K, camera(25, 25, 30, 1))


def test_noise_like_points_give_finite_positive_focal_lengths():
    points = torch.randn(5, 28, 42, 3, generator=torch.Generator().manual_seed(0))
    points[..., 2] = points[..., 2].exp()
    points[..., :2] *= points[..., 2:]
    K = recover_intrinsics(points)
    assert torch.isfinite(K).all()
    assert (K[:, 0, 0] > 0).all()
    assert (K[:, 1, 1] > 0).all()


@given(sizes, sizes, sizes, sizes, st.integers(-9, 9), st.integers(-9, 9))
@settings(max_examples=40, deadline=None)
def test_moved_pixels_and_moved_intrinsics_agree(source_w, source_h, target_w, target_h, left, top):
    A = pad_affine(left, top) @ resize_affine((source_w, source_h), (target_w, target_h))
    K = camera(20, 30, source_w, source_h)
    point = torch.tensor([0.1, -0.2, 1.5], dtype=torch.float64)
    u, v = project(point, K)
    moved = A @ torch.stack([u, v, torch.ones_like(u)])
    torch.testing.assert_close(project(point, transform_intrinsics(K, A)), moved[:2])
    back = transform_intrinsics(transform_intrinsics(K, A), torch.linalg.inv(A))
    torch.testing.assert_close(back, K, atol=1e-9, rtol=0)


def test_resizing_keeps_corners_and_follows_opencv():
    A = resize_affine((64, 48), (16, 24))
    for source, target in (((-0.5, -0.5), (-0.5, -0.5)), ((63.5, 47.5), (15.5, 23.5))):
        moved = A @ torch.tensor([*source, 1.0], dtype=torch.float64)
        assert moved[:2].tolist() == pytest.approx(target)
    ramp = np.tile(np.arange(64, dtype=np.float32), (48, 1))  # each pixel holds its own u
    resized = cv2.resize(ramp, (16, 24), interpolation=cv2.INTER_AREA)
    inverse = torch.linalg.inv(A)
    expected = [float(inverse[0, 0] * u + inverse[0, 2]) for u in range(16)]
    np.testing.assert_allclose(resized[0], expected, atol=1e-4)


def test_transformed_intrinsics_keep_dtype_and_broadcast():
    K = camera(20, 30, 10, 8).float().expand(5, 3, 3)
    moved = transform_intrinsics(K, pad_affine(2, 3))
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved[:, :2, 2], K[:, :2, 2] + torch.tensor([2.0, 3.0]))
