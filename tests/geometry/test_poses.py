"""Poses: group axioms, frames and broadcasting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.geometry.alignment import umeyama
from g2vlm.geometry.poses import (
    anchor_to_first,
    compose_poses,
    invert_pose,
    make_pose,
    relative_pose,
    transform_points,
)
from g2vlm.geometry.rotations import rotation_from_axis_angle

numbers = st.floats(-3, 3)
twists = st.tuples(*[numbers] * 6)


def pose_of(twist) -> torch.Tensor:
    values = torch.tensor(twist, dtype=torch.float64)
    return make_pose(rotation_from_axis_angle(values[..., :3]), values[..., 3:])


def random_poses(*batch: int) -> torch.Tensor:
    return pose_of(torch.randn(*batch, 6, dtype=torch.float64).tolist())


@given(twists, twists, twists)
@settings(max_examples=40, deadline=None)
def test_poses_are_a_group(a, b, c):
    A, B, C = pose_of(a), pose_of(b), pose_of(c)
    identity = torch.eye(4, dtype=torch.float64)
    close = {"atol": 1e-11, "rtol": 0}
    torch.testing.assert_close(compose_poses(A, B), A @ B, **close)
    torch.testing.assert_close(compose_poses(compose_poses(A, B), C), A @ (B @ C), **close)
    torch.testing.assert_close(compose_poses(A, invert_pose(A)), identity, **close)
    torch.testing.assert_close(invert_pose(compose_poses(A, B)), invert_pose(B) @ invert_pose(A), **close)
    torch.testing.assert_close(compose_poses(A, relative_pose(A, B)), B, **close)


def test_transform_points_matches_homogeneous_coordinates_per_pixel():
    T = random_poses(2, 3)
    points = torch.randn(2, 3, 4, 5, 3, dtype=torch.float64)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    oracle = torch.einsum("bvij,bvhwj->bvhwi", T, homogeneous)[..., :3]
    torch.testing.assert_close(transform_points(T, points), oracle)
    torch.testing.assert_close(transform_points(T[0, 0], points[0, 0]), oracle[0, 0])
    torch.testing.assert_close(transform_points(T[1, 2], points[1, 2, 3, 4]), oracle[1, 2, 3, 4])
    torch.testing.assert_close(transform_points(invert_pose(T), transform_points(T, points)), points)


def test_transform_points_broadcasts_dimensions_of_size_one_both_ways():
    T = random_poses(3)
    points = torch.randn(1, 7, 3, dtype=torch.float64)
    moved = transform_points(T, points)
    assert moved.shape == (3, 7, 3)
    torch.testing.assert_close(moved[2], transform_points(T[2], points[0]))
    torch.testing.assert_close(transform_points(T[:1], moved)[1], transform_points(T[0], moved[1]))


def test_transform_points_refuses_points_that_lack_the_batch():
    with pytest.raises(ValueError, match="leading dimensions"):
        transform_points(random_poses(2, 3), torch.zeros(3, dtype=torch.float64))


def test_relative_pose_reads_as_b_seen_from_a():
    T_world_a, T_world_b = random_poses(), random_poses()
    origin_b_in_world = T_world_b[:3, 3]
    seen_from_a = transform_points(invert_pose(T_world_a), origin_b_in_world)
    torch.testing.assert_close(relative_pose(T_world_a, T_world_b)[:3, 3], seen_from_a)


def test_relative_pose_of_all_pairs_by_broadcasting():
    T = random_poses(4)
    pairs = relative_pose(T[:, None], T[None, :])
    assert pairs.shape == (4, 4, 4, 4)
    torch.testing.assert_close(pairs[1, 3], relative_pose(T[1], T[3]))


def test_anchoring_makes_the_first_view_exactly_the_world_and_keeps_relative_poses():
    T = random_poses(2, 5)
    anchored = anchor_to_first(T)
    assert torch.equal(anchored[:, 0], torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    torch.testing.assert_close(relative_pose(anchored[:, 1], anchored[:, 4]), relative_pose(T[:, 1], T[:, 4]))


def test_gradients_flow_to_poses_and_points():
    T = random_poses(2).requires_grad_()
    points = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: transform_points(anchor_to_first(a), b), (T, points))


def test_autocast_does_not_lower_the_precision():
    T = random_poses(2).float()
    points = 100 * torch.randn(2, 50, 3)
    expected = transform_points(T, points), relative_pose(T[0], T[1])
    with torch.autocast("cpu", torch.bfloat16):
        moved, relative = transform_points(T, points), relative_pose(T[0], T[1])
        fit = umeyama(points, moved)
    assert torch.equal(moved, expected[0])
    assert torch.equal(relative, expected[1])
    torch.testing.assert_close(fit.matrix(), T, atol=1e-4, rtol=0)
