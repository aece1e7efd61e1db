"""Point clouds: thinning and limiting against plain versions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.errors import InputError
from g2vlm.scene.cloud import PointCloud


def cloud_of(points: np.ndarray, confidence: np.ndarray, normals: bool = False) -> PointCloud:
    count = len(points)
    return PointCloud(
        points=points.astype(np.float32),
        colors=np.arange(3 * count, dtype=np.uint32).astype(np.uint8).reshape(count, 3),
        confidence=confidence.astype(np.float32),
        view_index=np.arange(count, dtype=np.int32),  # here: the identity of each point
        normals=points.astype(np.float32) if normals else None,
    )


def slow_thinned(cloud: PointCloud, voxel: float) -> list[int]:
    best: dict[tuple, int] = {}
    for i, point in enumerate(cloud.points.astype(np.float64)):
        cell = tuple(np.floor(point / voxel))
        if cell not in best or cloud.confidence[i] > cloud.confidence[best[cell]]:
            best[cell] = i
    return sorted(best.values())


@given(st.integers(0, 2**31), st.integers(0, 60), st.sampled_from([0.05, 0.3, 1.0, 10.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_thinning_keeps_the_most_confident_point_of_each_cell(seed, count, voxel, has_outlier):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    if has_outlier and count:
        points[0] = [1e30, -1e30, 1e25]  # stretches the grid beyond 64-bit cell numbers
    cloud = cloud_of(points, rng.integers(0, 4, count) / 4, normals=True)
    thin = cloud.thinned(voxel)
    assert thin.view_index.tolist() == slow_thinned(cloud, voxel)
    np.testing.assert_array_equal(thin.points, cloud.points[thin.view_index])
    np.testing.assert_array_equal(thin.colors, cloud.colors[thin.view_index])
    np.testing.assert_array_equal(thin.normals, cloud.normals[thin.view_index])
    assert len(thin.thinned(voxel)) == len(thin)


def test_limiting_keeps_order_and_is_reproducible():
    rng = np.random.default_rng(0)
    cloud = cloud_of(rng.normal(size=(500, 3)), rng.random(500))
    limited = cloud.limited(100)
    assert len(limited) == 100
    assert (np.diff(limited.view_index) > 0).all()
    np.testing.assert_array_equal(limited.points, cloud.points[limited.view_index])
    np.testing.assert_array_equal(cloud.limited(100).view_index, limited.view_index)
    assert not np.array_equal(cloud.limited(100, seed=1).view_index, limited.view_index)
    assert cloud.limited(500) is cloud


@pytest.mark.parametrize("voxel", [0.0, -1.0, np.nan, np.inf])
def test_impossible_voxels_are_refused(voxel):
    with pytest.raises(InputError, match="voxel side above 0"):
        cloud_of(np.zeros((1, 3)), np.zeros(1)).thinned(voxel)


def test_a_limit_below_one_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        cloud_of(np.zeros((1, 3)), np.zeros(1)).limited(0)


def test_spreading_keeps_a_little_less_than_asked_for_and_covers_all():
    rng = np.random.default_rng(1)
    cloud = make_spread_cloud(rng.uniform(0, 1, (5000, 3)))
    spread = cloud.spread(300)
    assert 240 < len(spread) <= 300
    gap = np.linalg.norm(cloud.points[:, None] - spread.points, axis=-1).min(axis=1).max()
    assert gap < 0.4
    assert cloud.spread(5000) is not None
    assert len(cloud.spread(5000)) == 5000
    with pytest.raises(InputError, match="max_points"):
        cloud.spread(0)


@pytest.mark.parametrize("most", [1, 3, 7])
def test_spreading_holds_its_promise_for_the_smallest_numbers(most):
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    assert 1 <= len(make_spread_cloud(corners * 1.0).spread(most)) <= most
    same = make_spread_cloud(np.zeros((10, 3)))
    assert len(same.spread(most)) == 1


def test_a_cloud_moves_with_its_normals():
    cloud = replace(make_spread_cloud(np.eye(3)), normals=np.eye(3, dtype=np.float32))
    turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    moved = cloud.moved(turn)
    np.testing.assert_allclose(moved.points[0], [5, 1, 0])
    np.testing.assert_allclose(moved.normals[0], [0, 1, 0])


def make_spread_cloud(points: np.ndarray) -> PointCloud:
    count = len(points)
    return PointCloud(
        points.astype(np.float32),
        np.zeros((count, 3), np.uint8),
        np.linspace(0, 1, count, dtype=np.float32),
        np.zeros(count, np.int32),
    )
