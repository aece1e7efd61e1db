import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError
from g2vlm.geometry.consensus import (
    consensus_rotation,
    consensus_scale,
    consensus_similarity,
    consensus_with_rotation,
    is_collinear,
)


def moved(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    R = Rotation.random(random_state=rng).as_matrix()
    source = rng.standard_normal((count, 3))
    return torch.from_numpy(source), torch.from_numpy(2.5 * source @ R.T + [1.0, -2.0, 3.0]), R


def test_exact_lengths_give_the_exact_factor():
    lengths = torch.tensor([0.3, 1.0, 2.7], dtype=torch.float64)
    fit = consensus_scale(lengths, 1.7 * lengths)
    assert fit.factor == pytest.approx(1.7, rel=1e-12)
    assert fit.inliers.all()
    assert fit.spread == pytest.approx(0, abs=1e-12)


def test_a_third_of_wrong_lengths_does_not_count():
    rng = np.random.default_rng(0)
    lengths = torch.from_numpy(rng.uniform(1, 3, 300))
    target = 0.8 * lengths * torch.from_numpy(np.exp(0.01 * rng.standard_normal(300)))
    target[:90] *= 3  # all wrong in the same direction
    fit = consensus_scale(lengths, target)
    assert fit.factor == pytest.approx(0.8, rel=0.005)
    assert not fit.inliers[:90].any()
    assert fit.inliers[90:].float().mean() > 0.97


def test_two_lengths_that_disagree_share():
    fit = consensus_scale(torch.tensor([1.0, 1.0]).double(), torch.tensor([1.0, 1.21]).double())
    assert fit.factor == pytest.approx(1.1)
    assert fit.inliers.all()


def test_weights_decide_who_the_majority_is():
    ones = torch.ones(10, dtype=torch.float64)
    target = torch.tensor([1.0] * 7 + [2.0] * 3, dtype=torch.float64)
    assert consensus_scale(ones, target).factor == pytest.approx(1)
    weights = torch.tensor([1.0] * 7 + [10.0] * 3, dtype=torch.float64)
    assert consensus_scale(ones, target, weights).factor == pytest.approx(2)


@pytest.mark.parametrize("bad", [[], [0.0], [-1.0]])
def test_lengths_must_be_positive(bad):
    with pytest.raises(InputError, match="positive"):
        consensus_scale(torch.tensor(bad).double(), torch.ones(len(bad)).double())


@pytest.mark.parametrize("count", [3, 4, 10, 40])
def test_an_exact_similarity_is_found_with_no_residual(count):
    source, target, R = moved(np.random.default_rng(count), count)
    fit = consensus_similarity(source, target)
    assert float(fit.similarity.scale) == pytest.approx(2.5, rel=1e-9)
    np.testing.assert_allclose(fit.similarity.R, R, atol=1e-9)
    assert fit.residuals.max() < 1e-8
    assert fit.inliers.all()


@pytest.mark.parametrize("count", [10, 50])
def test_a_similarity_survives_noise_and_thirty_percent_of_outliers(count):
    rng = np.random.default_rng(1)
    source, target, R = moved(rng, count)
    target += 0.01 * torch.from_numpy(rng.standard_normal((count, 3)))
    wrong = int(0.3 * count)
    target[:wrong] += torch.from_numpy(rng.uniform(2, 6, (wrong, 3)))
    fit = consensus_similarity(source, target)
    assert float(fit.similarity.scale) == pytest.approx(2.5, rel=0.01)
    np.testing.assert_allclose(fit.similarity.R, R, atol=0.02)
    assert not fit.inliers[:wrong].any()
    assert fit.inliers[wrong:].float().mean() > 0.8


def test_a_fixed_scale_stays():
    source, target, _ = moved(np.random.default_rng(2), 12)
    assert float(consensus_similarity(source, target, with_scale=False).similarity.scale) == 1


def test_points_on_a_line_leave_the_rotation_open():
    line = torch.linspace(0, 5, 8, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2, 3]).double()
    assert is_collinear(line)
    with pytest.raises(InputError, match="one line"):
        consensus_similarity(line, line)


def test_orientations_give_the_rotation_of_points_on_a_line():
    rng = np.random.default_rng(3)
    R = Rotation.random(random_state=rng)
    source = np.linspace(0, 5, 10)[:, None] * np.array([1.0, 2, 3])
    target = 0.4 * R.apply(source) + [3, 2, 1]
    rotations = (R * Rotation.from_rotvec(0.001 * rng.standard_normal((10, 3)))).as_matrix()
    rotations[:3] = Rotation.random(3, random_state=rng).as_matrix()
    target[7:] += 5.0
    fit = consensus_with_rotation(*(torch.from_numpy(x) for x in (source, target, rotations)))
    assert float(fit.similarity.scale) == pytest.approx(0.4, rel=0.01)
    np.testing.assert_allclose(fit.similarity.R, R.as_matrix(), atol=0.005)
    assert fit.inliers.tolist() == [True] * 7 + [False] * 3


def test_two_cameras_suffice_with_their_orientations():
    R = Rotation.from_rotvec([0.3, -0.2, 0.9])
    source = np.array([[0.0, 0, 0], [1, 0.5, 0]])
    fit = consensus_with_rotation(
        *(torch.from_numpy(x) for x in (source, 3 * R.apply(source), np.stack([R.as_matrix()] * 2)))
    )
    assert float(fit.similarity.scale) == pytest.approx(3)
    assert fit.residuals.max() < 1e-9


def test_the_mean_rotation_ignores_a_minority():
    rng = np.random.default_rng(4)
    true = Rotation.random(random_state=rng)
    turns = (true * Rotation.from_rotvec(0.01 * rng.standard_normal((20, 3)))).as_matrix()
    turns[:6] = Rotation.random(6, random_state=rng).as_matrix()
    found = Rotation.from_matrix(consensus_rotation(torch.from_numpy(turns)).numpy())
    assert (found * true.inv()).magnitude() < 0.01
