"""Surfaces: brute-force neighbours, recovered similarities, and what accuracy alone does not see."""

import math

import pytest
import torch

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.points import IcpOptions, Surface, diagonal, evenly, icp, point_errors
from g2vlm.geometry.alignment import Similarity, umeyama
from g2vlm.geometry.rotations import rotation_angle, rotation_from_axis_angle


def cloud(count: int = 400, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_motion() -> Similarity:
    R = rotation_from_axis_angle(torch.tensor([0.02, -0.03, 0.01], dtype=torch.float64))
    return Similarity(torch.ones((), dtype=torch.float64), R, torch.tensor([0.01, 0.02, -0.01]).double())


def test_distances_agree_with_brute_force() -> None:
    pred, true = cloud(90, 1), cloud(70, 2)
    normals = [torch.nn.functional.normalize(cloud(n, 3) - 0.5, dim=-1) for n in (90, 70)]
    errors = point_errors(Surface(pred, normals[0]), Surface(true, normals[1]))
    distances = torch.cdist(pred, true)
    there, back = distances.min(dim=1), distances.min(dim=0)
    assert errors.accuracy == pytest.approx(float(there.values.mean()))
    assert errors.completeness == pytest.approx(float(back.values.mean()))
    assert errors.accuracy_median == pytest.approx(float(there.values.quantile(0.5)))
    cosines = [
        (normals[0] * normals[1][there.indices]).sum(-1).abs().mean(),
        (normals[1] * normals[0][back.indices]).sum(-1).abs().mean(),
    ]
    assert errors.normal_consistency == pytest.approx(float(sum(cosines)) / 2)


def test_icp_recovers_a_small_motion_without_correspondences() -> None:
    target = cloud()
    motion = small_motion()
    source = motion.inverse().apply(target)[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    found = icp(source, target, options=IcpOptions(max_distance=0.2, max_iterations=100))
    angle = rotation_angle(found.R.mT @ motion.R)
    assert float(angle) < 1e-6
    torch.testing.assert_close(found.apply(source).sort(dim=0).values, target.sort(dim=0).values)


def test_icp_keeps_the_scale_of_its_start_and_ignores_far_points() -> None:
    target = cloud()
    start = Similarity(torch.tensor(0.5).double(), torch.eye(3).double(), torch.zeros(3).double())
    source = torch.cat([2 * target, 2 * target[:50] + 100])
    found = icp(source, target, start)
    assert float(found.scale) == 0.5
    torch.testing.assert_close(found.R, torch.eye(3).double())
    far = icp(target + 10, target)
    torch.testing.assert_close(far.t, torch.zeros(3).double())


def test_perfect_points_after_sim3_are_perfect() -> None:
    true = cloud()
    pred = 0.1 * small_motion().apply(true)
    start = umeyama(pred, true)
    errors = point_errors(Surface(pred).moved(icp(pred, true, start)), Surface(true))
    assert max(errors.accuracy, errors.completeness) < 1e-9
    assert errors.normal_consistency is None


def test_a_known_offset_gives_the_known_error() -> None:
    grid = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))
    true = torch.nn.functional.pad(grid, (0, 1))
    errors = point_errors(Surface(true + torch.tensor([0.0, 0.0, 0.3])), Surface(true))
    assert errors.accuracy == pytest.approx(0.3)
    assert errors.completeness == pytest.approx(0.3)


def test_a_collapsed_prediction_is_accurate_but_not_complete() -> None:
    true = cloud()
    errors = point_errors(Surface(true[:1].repeat(400, 1)), Surface(true))
    assert errors.accuracy == 0
    assert errors.completeness > 0.3


def test_fewer_queries_estimate_the_same_distance() -> None:
    pred, true = cloud(4000, 1), cloud(4000, 2)
    whole, part = (point_errors(Surface(pred), Surface(true), most) for most in (None, 1000))
    assert part.accuracy == pytest.approx(whole.accuracy, rel=0.05)
    assert torch.equal(evenly(pred, 3), pred[[0, 2000, 3999]])
    assert evenly(pred, None) is pred


def test_normals_turn_with_the_surface() -> None:
    surface = Surface(cloud(5), torch.eye(3).double()[[0, 1, 2, 0, 1]])
    turn = Similarity(
        torch.tensor(2.0).double(),
        rotation_from_axis_angle(torch.tensor([0.0, 0.0, math.pi / 2]).double()),
        torch.zeros(3).double(),
    )
    moved = surface.moved(turn)
    assert moved.normals is not None
    torch.testing.assert_close(moved.normals[0], torch.tensor([0.0, 1.0, 0.0]).double())


def test_empty_and_degenerate_surfaces_are_errors() -> None:
    with pytest.raises(InputError, match="points on both sides"):
        point_errors(Surface(torch.empty(0, 3)), Surface(cloud()))
    flat = Surface(cloud(5), torch.zeros(5, 3))
    with pytest.raises(InputError, match="defined normals"):
        point_errors(flat, flat)


def test_diagonal_of_a_box() -> None:
    assert diagonal(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0], [0.5, 0.5, 0.5]])) == pytest.approx(3)
