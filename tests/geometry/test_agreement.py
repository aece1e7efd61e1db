"""Geometric confidence: a plain version as oracle, and what it should say about simple scenes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.geometry.agreement import overlapping_views, reprojection_agreement
from g2vlm.geometry.cameras import make_intrinsics, unproject
from g2vlm.geometry.edges import depth_range
from g2vlm.geometry.poses import make_pose, transform_points
from g2vlm.geometry.rotations import rotation_from_axis_angle

HEIGHT, WIDTH = 12, 16


def intrinsics(views: int) -> torch.Tensor:
    K = make_intrinsics(torch.tensor([14.0, 14.0]), torch.tensor([7.5, 5.5]))
    return K.double().expand(views, 3, 3).contiguous()


def cameras_along_x(*positions: float) -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64).repeat(len(positions), 1, 1)
    T[:, 0, 3] = torch.tensor(positions, dtype=torch.float64)
    return T


def wall(T_world_camera: torch.Tensor, z: float = 3.0) -> torch.Tensor:
    """World points of a wall at world z, seen by cameras that look straight at it."""
    depth = (z - T_world_camera[:, 2, 3])[:, None, None].expand(-1, HEIGHT, WIDTH)
    return transform_points(T_world_camera, unproject(depth, intrinsics(len(T_world_camera))))


def all_valid(views: int) -> torch.Tensor:
    return torch.ones(views, HEIGHT, WIDTH, dtype=torch.bool)


def slow_agreement(points, T, K, valid, tolerance):
    """Pixel by pixel over all other views."""
    views = len(points)
    inverse = torch.linalg.inv(T)
    depth = transform_points(inverse, points)[..., 2]
    valid = valid & (depth > 0)
    flatness = 1 / (1 + (depth_range(depth, valid) / 0.06) ** 2)
    out = torch.zeros_like(depth)
    for i in range(views):
        for r, c in valid[i].nonzero().tolist():
            agreed, weight = 0.5, 1.0
            for j in range(views):
                x, y, z = transform_points(inverse[j], points[i, r, c]).tolist()
                if i == j or z <= 0:
                    continue
                column = round(float(K[j, 0, 0]) * x / z + float(K[j, 0, 2]))
                row = round(float(K[j, 1, 1]) * y / z + float(K[j, 1, 2]))
                if 0 <= column < WIDTH and 0 <= row < HEIGHT and valid[j, row, column]:
                    error = (z - float(depth[j, row, column])) / max(z, float(depth[j, row, column]))
                    score = 1 / (1 + (error / tolerance) ** 2)
                    trust = score if error > 0 else 1.0
                    agreed, weight = agreed + trust * score, weight + trust
            out[i, r, c] = agreed / weight * flatness[i, r, c]
    return out


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_agreement_equals_the_plain_version(seed, views):
    generator = torch.Generator().manual_seed(seed)
    twist = 0.1 * torch.randn(views, 6, generator=generator, dtype=torch.float64)
    T = make_pose(rotation_from_axis_angle(twist[:, :3]), twist[:, 3:])
    depth = 2 + 0.05 * torch.rand(views, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    points = transform_points(T, unproject(depth, intrinsics(views)))
    valid = torch.rand(views, HEIGHT, WIDTH, generator=generator) < 0.9
    poisoned = torch.where(valid[..., None], points, torch.nan)
    fast = reprojection_agreement(poisoned, T, intrinsics(views), all_valid(views), tolerance=0.02)
    slow = slow_agreement(points, T, intrinsics(views), valid, 0.02)
    torch.testing.assert_close(fast, slow, atol=1e-9, rtol=0)
    assert fast.min() >= 0
    assert fast.max() <= 1


def test_confirmed_points_outrank_unseen_ones_and_those_outrank_contradicted_ones():
    T = cameras_along_x(0.0, 0.3, 0.6, 50.0)  # the last one looks at another stretch of the wall
    points = wall(T)
    points[0, 5:8, 5:8] = transform_points(T[0], 0.5 * points[0, 5:8, 5:8])  # floats in front of the wall
    confidence = reprojection_agreement(points, T, intrinsics(4), all_valid(4))
    confirmed, floating = confidence[0, 1, 9:13], confidence[0, 6, 6]
    assert confirmed.min() > 0.8
    torch.testing.assert_close(confidence[3], torch.full_like(confidence[3], 0.5))
    assert floating < 0.2


def test_hidden_points_are_not_punished():
    T = cameras_along_x(0.0, 1.0)
    points = wall(T)
    near = unproject(torch.full((1, HEIGHT, WIDTH), 0.4, dtype=torch.float64), intrinsics(1))[0]
    points[1] = transform_points(T[1], near)  # something close hides the wall from view 1
    confidence = reprojection_agreement(points, T, intrinsics(2), all_valid(2))
    assert confidence[0].min() > 0.49


def test_depth_edges_lose_confidence_in_a_single_view():
    T = cameras_along_x(0.0)
    depth = torch.full((1, HEIGHT, WIDTH), 2.0, dtype=torch.float64)
    depth[..., 8:] = 4.0
    points = unproject(depth, intrinsics(1))
    confidence = reprojection_agreement(points, T, intrinsics(1), all_valid(1))[0]
    torch.testing.assert_close(confidence[:, :7], torch.full((HEIGHT, 7), 0.5).double())
    assert confidence[:, 7:9].max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_confidence_does_not_depend_on_the_scale_or_the_world_frame(dtype):
    T = cameras_along_x(0.0, 0.31, 0.73)
    points = wall(T)
    reference = reprojection_agreement(points, T, intrinsics(3), all_valid(3))
    R = rotation_from_axis_angle(torch.tensor([0.4, 2.0, -0.7], dtype=torch.float64))
    moved = make_pose(R, torch.tensor([3.0, -2.0, 9.0], dtype=torch.float64))
    scaled = T.clone()
    scaled[:, :3, 3] *= 10
    result = reprojection_agreement(
        transform_points(moved, 10 * points).to(dtype),
        (moved @ scaled).to(dtype),
        intrinsics(3).to(dtype),
        all_valid(3),
    )
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), reference, atol=1e-3, rtol=0)


def test_invalid_and_non_finite_pixels_get_zero_and_poison_nothing():
    T = cameras_along_x(0.0, 0.5)
    points = wall(T)
    points[0, 0, 0], points[1, 3, 4] = torch.nan, torch.inf
    valid = all_valid(2)
    valid[0, :, :3] = False
    confidence = reprojection_agreement(points, T, intrinsics(2), valid)
    assert torch.isfinite(confidence).all()
    assert not confidence[0, :, :3].any()
    assert confidence[1, 3, 4] == 0
    nothing = reprojection_agreement(points * torch.nan, T, intrinsics(2), valid)
    assert not nothing.any()


def test_neighbours_are_those_that_share_most_of_the_view():
    T = cameras_along_x(0.0, 3.0, 0.2, 1.0, 80.0)
    indices, overlap = overlapping_views(wall(T), T, intrinsics(5), all_valid(5), 3)
    assert indices[0].tolist() == [2, 3, 1]
    assert (overlap.diff(dim=-1) <= 0).all()
    assert overlap[4].tolist() == [0, 0, 0]
    alone, _ = overlapping_views(wall(T[:1]), T[:1], intrinsics(1), all_valid(1), 8)
    assert alone.shape == (1, 0)


def test_more_neighbours_than_asked_for_are_not_consulted():
    T = cameras_along_x(0.0, 0.0, 0.0, 0.0)
    points = wall(T)
    few = reprojection_agreement(points, T, intrinsics(4), all_valid(4), max_neighbours=1)
    np.testing.assert_allclose(few.numpy(), 0.75)  # one confirmation and the neutral vote
    every = reprojection_agreement(points, T, intrinsics(4), all_valid(4))
    np.testing.assert_allclose(every.numpy(), 3.5 / 4)
