"""Levels of detail: every point in one block, coarse ones first, within the budget."""

import numpy as np
import pytest

from g2vlm.viewer.pyramid import Eye, Pyramid, build_pyramid, count_points


def wall(count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    points = draw.random((count, 3)) * [4, 3, 0.01]
    return points.astype(np.float32)


def eye_at(distance: float) -> Eye:
    return Eye(np.array([2, 1.5, -distance]), np.array([0.0, 0.0, 1.0]), 1.0, 1.4, 800.0)


@pytest.fixture(scope="module")
def pyramid() -> tuple[np.ndarray, Pyramid]:
    points = wall(400_000)
    return points, build_pyramid(points)


def test_every_point_stands_in_exactly_one_block(pyramid):
    points, made = pyramid
    np.testing.assert_array_equal(np.sort(made.order), np.arange(len(points)))
    assert [block.start for block in made.blocks[1:]] == [block.stop for block in made.blocks[:-1]]
    assert (made.blocks[0].start, made.blocks[-1].stop) == (0, len(points))


def test_points_lie_in_their_cubes_and_coarse_blocks_are_spread(pyramid):
    points, made = pyramid
    for block in made.blocks:
        inside = points[made.order[block.start : block.stop]] - block.centre
        assert np.abs(inside).max() <= block.radius / np.sqrt(3) * 1.0001
    root = made.blocks[0]
    cells = np.floor((points[made.order[: root.stop]] - (root.centre - 64 * root.spacing)) / root.spacing)
    assert len(np.unique(cells, axis=0)) == len(root)  # one point in each cell
    assert all(made.blocks[child].spacing == root.spacing / 2 for child in root.children)


def test_each_block_but_the_roots_has_one_parent(pyramid):
    _, made = pyramid
    children = [child for block in made.blocks for child in block.children]
    assert sorted(children) == list(range(made.num_roots, len(made.blocks)))


@pytest.mark.parametrize("budget", [15_000, 60_000, 200_000])
def test_no_more_than_the_budget_is_drawn_and_parents_come_with_children(pyramid, budget):
    _, made = pyramid
    chosen = made.choose(eye_at(3), budget)
    assert 0.3 * budget < count_points(chosen) <= budget
    numbers = {block.number for block in chosen}
    for block in made.blocks:
        assert block.number in numbers or not numbers.intersection(block.children)


def test_far_away_little_is_enough_and_behind_the_back_nothing(pyramid):
    points, made = pyramid
    near, far = (count_points(made.choose(eye_at(d), 10**7)) for d in (1.0, 60.0))
    assert near > 0.5 * len(points)
    assert far < 0.1 * len(points)
    away = Eye(np.array([2, 1.5, -9.0]), np.array([0.0, 0.0, -1.0]), 1.0, 1.4, 800.0)
    assert made.choose(away, 10**7) == []


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((1, 3), np.float32),
        np.ones((50_000, 3), np.float32),
        np.r_[wall(1000), np.full((1, 3), 1e7, np.float32)],
        np.linspace(0, 1, 40_000, dtype=np.float32)[:, None] * [[1, 0, 0]],
    ],
    ids=["one", "all the same", "an outlier", "a line"],
)
def test_strange_clouds_are_sorted_too(points):
    made = build_pyramid(points.astype(np.float32))
    np.testing.assert_array_equal(np.sort(made.order), np.arange(len(points)))
    assert sum(len(block) for block in made.blocks) == len(points)
