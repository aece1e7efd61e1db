"""Rotations: projection, angles and representations, against scipy and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from g2vlm.geometry.rotations import (
    nearest_rotation,
    quaternion_from_rotation,
    rotation_angle,
    rotation_from_axis_angle,
    rotation_from_quaternion,
)

angles = st.floats(-math.pi, math.pi)
vectors = st.tuples(angles, angles, angles)


def rotation_of(vector: tuple[float, float, float]) -> torch.Tensor:
    return rotation_from_axis_angle(torch.tensor(vector, dtype=torch.float64))


def assert_rotation(R: torch.Tensor, tolerance: float = 1e-12) -> None:
    identity = torch.eye(3, dtype=R.dtype).expand_as(R)
    torch.testing.assert_close(R @ R.mT, identity, atol=tolerance, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(R.shape[:-2], dtype=R.dtype))


@given(vectors)
@settings(max_examples=60, deadline=None)
def test_axis_angle_and_quaternions_agree_with_scipy(vector):
    R = rotation_of(vector)
    oracle = Rotation.from_rotvec(np.array(vector))
    np.testing.assert_allclose(R.numpy(), oracle.as_matrix(), atol=1e-12)
    wxyz = np.roll(oracle.as_quat(canonical=False), 1)
    wxyz = wxyz if wxyz[0] >= 0 else -wxyz
    quaternion = quaternion_from_rotation(R)
    if wxyz[0] > 1e-9:  # at w = 0 both signs are right
        np.testing.assert_allclose(quaternion.numpy(), wxyz, atol=1e-7)
    torch.testing.assert_close(rotation_from_quaternion(quaternion), R, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        rotation_angle(R), torch.tensor(oracle.magnitude(), dtype=torch.float64), atol=1e-7, rtol=0
    )


@given(vectors, vectors, vectors)
@settings(max_examples=40, deadline=None)
def test_rotations_are_a_group(a, b, c):
    A, B, C = rotation_of(a), rotation_of(b), rotation_of(c)
    for R in (A, A @ B, A.mT):
        assert_rotation(R)
    torch.testing.assert_close((A @ B) @ C, A @ (B @ C), atol=1e-12, rtol=0)
    torch.testing.assert_close(A @ A.mT, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert rotation_angle(A @ B) <= rotation_angle(A) + rotation_angle(B) + 1e-9  # triangle inequality
    torch.testing.assert_close(rotation_angle(A), rotation_angle(A.mT), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [1e-4, 1e-3, 0.0999, 0.1001, 1.0, math.pi - 1e-3])
def test_small_and_large_angles_keep_their_relative_accuracy(angle, dtype):
    axis = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64) / 3
    R = rotation_from_axis_angle((axis * angle).to(dtype))
    assert R.dtype == dtype
    relative = abs(float(rotation_angle(R)) - angle) / angle
    assert relative < (
        1e-3 if dtype == torch.float32 and angle < 1e-3 else 1e-4 if dtype == torch.float32 else 1e-9
    )


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, math.pi])
def test_angle_and_representations_have_finite_gradients(angle):
    vector = torch.tensor([0.0, angle, 0.0], dtype=torch.float64, requires_grad=True)
    R = rotation_from_axis_angle(vector)
    (rotation_angle(R) + quaternion_from_rotation(R).sum() + R.sum()).backward()
    assert torch.isfinite(vector.grad).all()


def test_angle_gradient_is_that_of_finite_differences():
    matrices = torch.from_numpy(Rotation.random(4, random_state=0).as_matrix()).requires_grad_()
    assert torch.autograd.gradcheck(rotation_angle, (matrices,))
    vectors = torch.tensor([[0.05, 0.02, -0.01], [1.0, 2.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(rotation_from_axis_angle, (vectors.requires_grad_(),))


def slow_nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    u, _, vh = np.linalg.svd(matrix)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vh))]) @ vh


def test_nearest_rotation_agrees_with_plain_procrustes_and_beats_random_rotations():
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(50, 2, 3, 3, generator=generator, dtype=torch.float64)
    assert (torch.linalg.det(matrices) < 0).any()
    nearest = nearest_rotation(matrices)
    assert_rotation(nearest)
    oracle = np.stack([slow_nearest_rotation(m) for m in matrices.numpy().reshape(-1, 3, 3)])
    np.testing.assert_allclose(nearest.numpy().reshape(-1, 3, 3), oracle, atol=1e-10)
    others = torch.from_numpy(Rotation.random(200, random_state=1).as_matrix())
    distance = (matrices[:, :1] - others).square().sum(dim=(-1, -2)).amin(dim=1)
    assert ((matrices[:, 0] - nearest[:, 0]).square().sum(dim=(-1, -2)) <= distance).all()


@pytest.mark.parametrize(
    "matrix",
    [
        torch.eye(3, dtype=torch.float64),
        2 * torch.eye(3, dtype=torch.float64),
        torch.diag(torch.tensor([3.0, 2.0, 2.0], dtype=torch.float64)),
        torch.diag(torch.tensor([3.0, 2.0, -1.0], dtype=torch.float64)),
        torch.arange(9, dtype=torch.float64).reshape(3, 3).sin(),
    ],
)
def test_nearest_rotation_gradient_is_exact_even_where_singular_values_repeat(matrix):
    assert torch.autograd.gradcheck(nearest_rotation, (matrix.clone().requires_grad_(),))


@pytest.mark.parametrize("matrix", [torch.zeros(3, 3), -torch.eye(3), torch.ones(3, 3)])
def test_nearest_rotation_of_ambiguous_matrices_is_a_rotation_with_finite_gradient(matrix):
    matrix = matrix.clone().requires_grad_()
    nearest = nearest_rotation(matrix)
    assert_rotation(nearest.detach(), 1e-6)
    nearest[0, 1].backward()
    assert torch.isfinite(matrix.grad).all()


def test_nearest_rotation_keeps_half_precision_dtype():
    matrix = torch.eye(3, dtype=torch.bfloat16) * 2
    assert torch.equal(nearest_rotation(matrix), torch.eye(3, dtype=torch.bfloat16))
