"""What must hold for all inputs, and what SciPy and OpenCV find for the same ones."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from g2vlm.evaluation.benchmarks.reasoning.rules import common_subsequence, inclusive_mra
from g2vlm.evaluation.metrics.answers import mean_relative_accuracy, plain_words
from g2vlm.evaluation.metrics.depth import (
    DepthAlignment,
    absolute_scale,
    absolute_scale_and_shift,
    depth_errors,
)
from g2vlm.evaluation.metrics.poses import (
    Direction,
    all_relative_poses,
    auc_at,
    pair_errors,
    recall_at,
    relative_errors,
    trajectory_errors,
)
from g2vlm.evaluation.metrics.uncertainty import bootstrap_macro, bootstrap_mean, bootstrap_median

SEEDS = st.integers(0, 10_000)
FEW = settings(max_examples=20, deadline=None, derandomize=True, database=None)


def poses(seed: int, count: int = 4) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = rng.standard_normal((count, 3))
    return torch.from_numpy(T)


def similarity(seed: int, T: torch.Tensor, scale: float) -> torch.Tensor:
    """The same cameras in another world and unit."""
    (turn,) = poses(seed, 1)
    moved = turn @ T
    moved[:, :3, 3] = scale * moved[:, :3, 3]
    return moved


@FEW
@given(SEEDS, st.floats(0.01, 100))
def test_poses_do_not_depend_on_world_and_unit(seed: int, scale: float) -> None:
    true, pred = poses(seed), poses(seed + 1)
    moved = similarity(seed + 2, pred, scale)
    before, after = pair_errors(pred, true, Direction.SIGNED), pair_errors(moved, true, Direction.SIGNED)
    torch.testing.assert_close(before.rotation_deg, after.rotation_deg, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(before.translation_deg, after.translation_deg, atol=1e-5, rtol=1e-6)
    paths = trajectory_errors(pred, true), trajectory_errors(moved, true)
    assert paths[0].ate == pytest.approx(paths[1].ate, rel=1e-6)
    assert trajectory_errors(similarity(seed, true, scale), true).ate < 1e-9


@FEW
@given(SEEDS)
def test_rotation_errors_are_those_of_opencv_and_scipy(seed: int) -> None:
    true, pred = poses(seed, 3), poses(seed + 1, 3)
    errors = pair_errors(pred, true, Direction.SIGNED)
    for k, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        found = np.linalg.inv(pred[i].numpy()) @ pred[j].numpy()
        wanted = np.linalg.inv(true[i].numpy()) @ true[j].numpy()
        vector, _ = cv2.Rodrigues(found[:3, :3].T @ wanted[:3, :3])
        assert float(errors.rotation_deg[k]) == pytest.approx(np.degrees(np.linalg.norm(vector)), abs=1e-5)
        both = np.stack([found[:3, 3], wanted[:3, 3]])
        turn, _ = Rotation.align_vectors(both[1:], both[:1])
        assert float(errors.translation_deg[k]) == pytest.approx(np.degrees(turn.magnitude()), abs=1e-4)


@FEW
@given(st.lists(st.floats(0, 180), min_size=1, max_size=30), st.sampled_from([5, 15, 30]))
def test_the_area_is_the_mean_recall(errors: list[float], threshold: int) -> None:
    angles = torch.tensor([error + 1e-3 for error in errors], dtype=torch.float64)
    area = auc_at(angles, threshold)
    by_hand = np.mean([recall_at(angles, t) for t in range(1, threshold + 1)])
    assert area == pytest.approx(by_hand, abs=1e-9) or bool((angles == threshold).any())
    assert 0 <= area <= recall_at(angles, threshold) + 1e-9
    assert auc_at(angles + 1, threshold) <= area


def test_what_was_not_found_is_as_wrong_as_can_be() -> None:
    true = all_relative_poses(poses(0, 3))
    found = true.clone()
    found[1] = torch.nan
    signed, folded = relative_errors(found, true, Direction.SIGNED), relative_errors(found, true)
    assert signed.rotation_deg[1] == signed.translation_deg[1] == 180
    assert folded.translation_deg[1] == 90
    assert float(signed.largest_deg[[0, 2]].max()) < 1e-4


def test_cameras_in_one_place_miss_by_the_spread_of_the_truth() -> None:
    true = poses(3)
    still = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    centres = true[:, :3, 3].numpy()
    spread = np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert trajectory_errors(still, true).ate == pytest.approx(spread)


@FEW
@given(SEEDS, st.floats(0.01, 100), st.floats(0, 5))
def test_alignments_forgive_what_they_fit_and_no_more(seed: int, scale: float, shift: float) -> None:
    true = 1 + 4 * torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for alignment in (DepthAlignment.PER_SCENE, DepthAlignment.MEDIAN_OF_RATIOS, DepthAlignment.SCALE):
        assert depth_errors(scale * true, true, alignment=alignment).abs_rel < 1e-6
    moved = scale * true + scale * shift
    assert depth_errors(moved, true, alignment=DepthAlignment.SCALE_SHIFT).abs_rel < 1e-4


@FEW
@given(SEEDS)
def test_least_absolute_fits_cannot_be_bettered_nearby(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    pred, true = (0.5 + torch.rand(40, generator=draw, dtype=torch.float64) for _ in range(2))

    def loss(scale: float, shift: float = 0.0) -> float:
        return float((scale * pred + shift - true).abs().sum())

    scale = absolute_scale(pred, true)
    assert all(loss(scale) <= loss(scale + step) + 1e-9 for step in (-0.1, -0.001, 0.001, 0.1))
    fit = absolute_scale_and_shift(pred, true)
    assert loss(*fit) <= loss(scale) + 1e-9
    near = [(fit[0] + a, fit[1] + b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01)]
    assert all(loss(*fit) <= loss(*other) * (1 + 1e-4) for other in near)


@FEW
@given(st.floats(0.1, 100), st.floats(0, 3))
def test_relative_accuracy_falls_with_the_error(true: float, error: float) -> None:
    values = [inclusive_mra(true * (1 + e), true) for e in (0, error / 2, error)]
    assert values[0] == 1
    assert values[0] >= values[1] >= values[2] >= 0
    # The bound of a threshold counts in one definition only: at most one step of ten apart.
    assert abs(values[2] - mean_relative_accuracy(true * (1 + error), true)) < 0.1 + 1e-9


@FEW
@given(st.text("abc ", max_size=8), st.text("abc ", max_size=8))
def test_common_subsequences_are_symmetric_and_bounded(first: str, second: str) -> None:
    length = common_subsequence(first, second)
    assert length == common_subsequence(second, first) <= min(len(first), len(second))
    assert common_subsequence(first, first) == len(first)
    assert length >= sum(min(first.count(c), second.count(c)) > 0 for c in "a")


def test_short_answers_are_compared_without_their_dress() -> None:
    assert plain_words("The Red, chair!") == plain_words("Answer: a red chair") == "red chair"
    assert plain_words("<answer>left</answer> or right") == "left"


@FEW
@given(SEEDS)
def test_error_bars_hold_the_value_and_shrink_with_scenes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    few, many = rng.random(8), rng.random(200)
    small, large = bootstrap_mean(few, np.ones(8)), bootstrap_mean(many, np.ones(200))
    for found, values in ((small, few), (large, many)):
        assert found.low <= found.value <= found.high
        assert found.error == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.15)
    assert large.error < small.error
    one = bootstrap_macro(few[None], np.ones((1, 8)), np.ones(1))
    assert one.value == pytest.approx(small.value)
    assert one.error == pytest.approx(small.error, rel=0.15)


def test_a_median_is_over_all_items() -> None:
    found = bootstrap_median([[1.0, 2.0, 9.0], [], [3.0]])
    assert found.value == 2.5
    assert found.low <= found.value <= found.high
