"""Pose errors: known rotations and translations, and the area under the curve against its definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.poses import (
    Direction,
    auc_at,
    focal_errors,
    pair_errors,
    recall_at,
    trajectory_errors,
)
from g2vlm.geometry.alignment import Similarity
from g2vlm.geometry.poses import compose_poses, invert_pose, make_pose
from g2vlm.geometry.rotations import rotation_from_axis_angle


def some_poses(views: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    R = rotation_from_axis_angle(torch.randn(views, 3, generator=generator, dtype=torch.float64))
    return make_pose(R, torch.randn(views, 3, generator=generator, dtype=torch.float64))


def moved(poses: torch.Tensor, scale: float, seed: int = 9) -> torch.Tensor:
    """The same cameras in another world of another unit."""
    T = some_poses(1, seed)[0]
    result = compose_poses(T, poses)
    result[:, :3, 3] *= scale
    return result


def test_perfect_poses_in_another_frame_and_unit_are_perfect() -> None:
    true = some_poses()
    errors = pair_errors(moved(true, 7.0), true)
    assert errors.largest_deg.shape == (10,)
    assert float(errors.largest_deg.max()) < 1e-5
    assert auc_at(errors.largest_deg) == 1
    path = trajectory_errors(moved(true, 7.0), true)
    assert max(path.ate, path.rpe_translation, path.rpe_rotation_deg) < 1e-6


def test_pairs_agree_with_a_loop() -> None:
    pred, true = some_poses(4, 1), some_poses(4, 2)
    errors = pair_errors(pred, true, Direction.SIGNED)
    k = 0
    for a in range(4):
        for b in range(a + 1, 4):
            found = np.linalg.inv(pred[a].numpy()) @ pred[b].numpy()
            wanted = np.linalg.inv(true[a].numpy()) @ true[b].numpy()
            cosine = (np.trace(found[:3, :3].T @ wanted[:3, :3]) - 1) / 2
            assert float(errors.rotation_deg[k]) == pytest.approx(math.degrees(math.acos(cosine)))
            t, g = found[:3, 3], wanted[:3, 3]
            angle = math.degrees(math.acos(t @ g / np.linalg.norm(t) / np.linalg.norm(g)))
            assert float(errors.translation_deg[k]) == pytest.approx(angle)
            folded = float(pair_errors(pred, true).translation_deg[k])
            assert folded == pytest.approx(min(angle, 180 - angle))
            k += 1


@pytest.mark.parametrize("degrees", [0.5, 7.5, 29.5, 100.0])
def test_a_known_rotation_gives_the_known_angle(degrees: float) -> None:
    true = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    true[1, 0, 3] = 1
    turn = rotation_from_axis_angle(torch.tensor([0.0, math.radians(degrees), 0.0], dtype=torch.float64))
    pred = true.clone()
    pred[1, :3, :3] = turn
    errors = pair_errors(pred, true)
    assert float(errors.rotation_deg) == pytest.approx(degrees)
    assert float(errors.translation_deg) == pytest.approx(0)
    # An error in [k, k + 1) is found at the thresholds k + 1 to 30.
    assert auc_at(errors.largest_deg) == pytest.approx(max(0, 30 - math.floor(degrees)) / 30)


def test_only_the_signed_direction_tells_forward_from_backward() -> None:
    true = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    true[1, 2, 3] = 1
    pred = true.clone()
    pred[1, 2, 3] = -1
    assert float(pair_errors(pred, true).translation_deg) == pytest.approx(0)
    assert float(pair_errors(pred, true, Direction.SIGNED).translation_deg) == pytest.approx(180)


def test_a_camera_that_should_have_moved_has_no_direction() -> None:
    still = torch.eye(4).repeat(2, 1, 1)
    away = still.clone()
    away[1, 0, 3] = 1
    assert float(pair_errors(still, away).translation_deg) == 180
    assert float(pair_errors(still, still).translation_deg) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 180), min_size=1, max_size=40), st.integers(1, 40))
def test_auc_is_the_mean_of_the_cumulated_histogram(errors: list[float], limit: int) -> None:
    counts, _ = np.histogram(errors, bins=np.arange(limit + 1))
    expected = np.mean(np.cumsum(counts / len(errors)))
    assert auc_at(torch.tensor(errors, dtype=torch.float64), limit) == pytest.approx(expected)


def test_auc_of_even_errors_is_about_one_half_and_broken_poses_count_as_wrong() -> None:
    assert auc_at(torch.linspace(0, 30, 3001)[:-1]) == pytest.approx(0.5, abs=0.02)
    assert auc_at(torch.tensor([0.0, math.nan])) == 0.5


def test_recall_counts_what_lies_below() -> None:
    assert recall_at(torch.tensor([1.0, 5.0, 14.9, 15.0]), 15) == 0.75


def test_trajectory_error_is_the_distance_that_no_similarity_removes() -> None:
    true = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    true[:, :3, 3] = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    pred = true.clone()
    # Up, up, down, down: orthogonal to every similarity's motion to first order.
    pred[:, 2, 3] = torch.tensor([0.01, 0.01, -0.01, -0.01])
    assert trajectory_errors(pred, true).ate == pytest.approx(0.01, rel=1e-3)


def test_similarity_moves_cameras_as_it_moves_their_centres() -> None:
    from g2vlm.evaluation.metrics.poses import transform_cameras

    poses = some_poses()
    similarity = Similarity(
        torch.tensor(3.0, dtype=torch.float64), some_poses(1, 4)[0, :3, :3], torch.ones(3).double()
    )
    cameras = transform_cameras(similarity, poses)
    torch.testing.assert_close(cameras[:, :3, 3], similarity.apply(poses[:, :3, 3]))
    torch.testing.assert_close(
        compose_poses(invert_pose(cameras[:1]), cameras[1:2])[0, :3, :3],
        compose_poses(invert_pose(poses[:1]), poses[1:2])[0, :3, :3],
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="two or more"):
        pair_errors(some_poses(1), some_poses(1))
    with pytest.raises(InputError, match="three or more"):
        trajectory_errors(some_poses(2), some_poses(2))
    with pytest.raises(InputError, match="at least one pair"):
        auc_at(torch.empty(0))


def test_focal_error_is_relative() -> None:
    K = torch.eye(3).repeat(2, 1, 1) * 100
    assert focal_errors(1.2 * K, K).tolist() == pytest.approx([0.2] * len(K))
