"""Sim(3) against matrix exponentials and finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, logm

from g2vlm.geometry.rotations import rotation_from_axis_angle
from g2vlm.geometry.sim3 import (
    adjoint,
    axis_angle_from_rotation,
    right_jacobian,
    similarity_exp,
    similarity_log,
    skew,
)

seeds = st.integers(0, 2**31)


def random_tangents(seed: int, size: float, count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tangent = torch.randn(count, 7, generator=generator, dtype=torch.float64)
    # Rotations stay inside the range where the logarithm is unique.
    return size * tangent / tangent[:, 3:6].norm(dim=-1, keepdim=True).clamp_min(1.0)


def hat(tangent: torch.Tensor) -> torch.Tensor:
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[:3, :3] = skew(tangent[3:6]) + tangent[6] * torch.eye(3, dtype=torch.float64)
    matrix[:3, 3] = tangent[:3]
    return matrix


# SciPy's logarithm doubts its own accuracy for some matrices, aloud; the comparison below judges it.
@pytest.mark.filterwarnings("ignore:logm result may be inaccurate:RuntimeWarning")
@given(seeds, st.sampled_from([0.0, 1e-12, 1e-6, 1e-3, 0.5, 2.5]))
@settings(max_examples=15, deadline=None)
def test_exponential_and_logarithm_are_those_of_matrices(seed, size):
    tangents = random_tangents(seed, size)
    similarities = similarity_exp(tangents)
    torch.testing.assert_close(similarity_log(similarities), tangents, rtol=1e-9, atol=1e-13)
    for tangent, matrix in zip(tangents, similarities.matrix(), strict=True):
        expected = torch.from_numpy(expm(hat(tangent).numpy()))
        # SciPy's is right relative to the largest entry, not to each: 1e-11 off at entries of 34, where
        # ours differs by 1e-14 from the series summed in fifty digits.
        torch.testing.assert_close(matrix, expected, rtol=0, atol=3e-12 * float(expected.abs().max()))
        if size:
            logarithm = torch.from_numpy(logm(matrix.numpy()).real)
            torch.testing.assert_close(logarithm, hat(tangent), rtol=1e-6, atol=1e-9)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_adjoint_moves_a_tangent_through_a_similarity(seed):
    x, y = random_tangents(seed, 0.8), random_tangents(seed + 1, 0.8)
    outer = similarity_exp(x)
    left = outer.compose(similarity_exp(y)).compose(outer.inverse())
    right = similarity_exp((adjoint(outer) @ y[..., None])[..., 0])
    torch.testing.assert_close(left.matrix(), right.matrix(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", [0.0, 1e-5, 0.7, 2.0])
def test_right_jacobian_is_the_derivative_of_the_exponential(size):
    x = random_tangents(3, size, count=1)[0]
    step = 1e-6
    columns = []
    for axis in range(7):
        delta = torch.zeros(7, dtype=torch.float64)
        delta[axis] = step
        plus = similarity_log(similarity_exp(x).inverse().compose(similarity_exp(x + delta)))
        minus = similarity_log(similarity_exp(x).inverse().compose(similarity_exp(x - delta)))
        columns.append((plus - minus) / (2 * step))
    torch.testing.assert_close(right_jacobian(x), torch.stack(columns, dim=-1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("angle", [0.0, 1e-14, 1e-9, 1e-4, 1.0, 3.0, 3.1415926])
def test_axis_angle_inverts_rodrigues(angle):
    axis = torch.nn.functional.normalize(torch.tensor([0.3, -2.0, 0.7], dtype=torch.float64), dim=0)
    vector = angle * axis
    torch.testing.assert_close(
        axis_angle_from_rotation(rotation_from_axis_angle(vector)), vector, rtol=1e-9, atol=1e-15
    )
