"""Error bars: they cover the truth as often as they claim, and know which items belong together."""

import numpy as np
import pytest

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.uncertainty import bootstrap_difference, bootstrap_mean


def test_the_mean_weighs_items_not_scenes() -> None:
    interval = bootstrap_mean(np.array([1.0, 0.0, 0.0]), np.array([1.0, 3.0, 0.0]))
    assert interval.value == 0.25
    assert interval.low <= 0.25 <= interval.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        values = draw.normal(3.0, 1.0, 60)
        interval = bootstrap_mean(values, np.ones(60), seed=seed)
        covered += interval.low <= 3.0 <= interval.high
    assert 88 <= covered <= 99


def test_items_of_one_scene_are_not_independent_evidence() -> None:
    right = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    single = bootstrap_mean(right, np.ones(50))
    copied = bootstrap_mean(10 * right, np.full(50, 10.0))
    assert (copied.low, copied.high) == (single.low, single.high)


def test_paired_differences_cancel_what_scenes_share() -> None:
    draw = np.random.default_rng(0)
    hard = draw.uniform(0, 10, 80)
    first, second = hard + 1, hard + draw.normal(0, 0.01, 80)
    ones = np.ones(80)
    paired = bootstrap_difference((first, ones), (second, ones))
    assert paired.value == pytest.approx(1, abs=0.01)
    assert paired.high - paired.low < 0.02
    assert bootstrap_mean(first, ones).high - bootstrap_mean(first, ones).low > 0.5


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).normal(size=30)
    assert bootstrap_mean(values, np.ones(30)) == bootstrap_mean(values, np.ones(30))


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one measurement"):
        bootstrap_mean(np.zeros(2), np.zeros(2))
    with pytest.raises(InputError, match="both sides"):
        bootstrap_difference((np.ones(2), np.array([1.0, 0])), (np.ones(2), np.array([0, 1.0])))
