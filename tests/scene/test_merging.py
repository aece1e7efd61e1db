"""Blending and merging: against slow references, across seams, in constant memory."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError
from g2vlm.scene import merging
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.merging import VoxelMerger, blend_views
from g2vlm.scene.view import View


def make_view(seed: int, height: int = 6, width: int = 8) -> View:
    rng = np.random.default_rng(seed)
    T = np.eye(4, dtype=np.float32)
    T[:3, :3] = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    T[:3, 3] = rng.normal(size=3)
    return View(
        name="frame",
        rgb=np.full((height, width, 3), 7, np.uint8),
        points_camera=rng.uniform(1, 2, (height, width, 3)).astype(np.float32),
        T_world_camera=T,
        K=np.array([[8, 0, 3.5], [0, 8, 2.5], [0, 0, 1]], np.float32) + 0,
        confidence=rng.uniform(0.2, 1, (height, width)).astype(np.float32),
        valid=np.ones((height, width), bool),
        original_size=(width, height),
        T_model_original=np.eye(3),
    )


def random_cloud(seed: int, count: int, size: float = 1.0) -> PointCloud:
    rng = np.random.default_rng(seed)
    return PointCloud(
        points=rng.uniform(-size, size, (count, 3)).astype(np.float32),
        colors=rng.integers(0, 256, (count, 3), dtype=np.uint8),
        confidence=rng.uniform(0, 1, count).astype(np.float32),
        view_index=np.full(count, seed, np.int32),
    )


def test_blending_ends_at_both_views_and_halves_turn_and_way():
    first, second = make_view(0), make_view(1)
    for weight, end in ((0.0, first), (1.0, second)):
        blended = blend_views(first, second, weight)
        np.testing.assert_allclose(blended.points_camera, end.points_camera, rtol=1e-6)
        np.testing.assert_allclose(blended.T_world_camera, end.T_world_camera, atol=1e-6)
        np.testing.assert_allclose(blended.confidence, end.confidence, rtol=1e-6)
    middle = blend_views(first, second, 0.5).T_world_camera.astype(np.float64)
    turns = [
        Rotation.from_matrix(pose[:3, :3].T.astype(np.float64) @ middle[:3, :3]).magnitude()
        for pose in (first.T_world_camera, second.T_world_camera)
    ]
    assert turns[0] == pytest.approx(turns[1], rel=1e-5)
    expected = (first.T_world_camera[:3, 3] + second.T_world_camera[:3, 3]) / 2
    np.testing.assert_allclose(middle[:3, 3], expected, rtol=1e-6)


def test_blended_points_follow_confidence_and_validity():
    first, second = make_view(0), make_view(1)
    points = first.points_camera.copy()
    points[0, 0] = np.nan
    first = replace(
        first,
        points_camera=points,
        valid=first.valid & ~np.isnan(points[..., 0]),
        confidence=np.full_like(first.confidence, 0.9),
    )
    confidence = np.full_like(second.confidence, 0.9)
    confidence[1, 1] = 0.0
    invalid = second.valid.copy()
    invalid[2, 2] = False
    second = replace(second, confidence=confidence, valid=invalid)
    blended = blend_views(first, second, 0.5)
    assert blended.valid.all()
    np.testing.assert_array_equal(blended.points_camera[0, 0], second.points_camera[0, 0])
    np.testing.assert_array_equal(blended.points_camera[2, 2], first.points_camera[2, 2])
    np.testing.assert_allclose(blended.points_camera[1, 1], first.points_camera[1, 1], rtol=2e-3)
    mean = (first.points_camera[3, 3] + second.points_camera[3, 3]) / 2
    np.testing.assert_allclose(blended.points_camera[3, 3], mean, rtol=1e-6)


def test_blending_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="one size"):
        blend_views(make_view(0), make_view(1, width=9), 0.5)
    with pytest.raises(InputError, match="weight"):
        blend_views(make_view(0), make_view(1), 1.5)


def merged(clouds: list[PointCloud], voxel: float) -> dict[tuple[int, ...], tuple]:
    with VoxelMerger(voxel) as merger:
        for cloud in clouds:
            merger.add(cloud)
        rows = {}
        for cloud in merger.clouds():
            for index, point in enumerate(cloud.points):
                cell = tuple(np.floor(point.astype(np.float64) / voxel).astype(int))
                assert cell not in rows, "two points in one voxel"
                rows[cell] = (
                    point,
                    cloud.colors[index],
                    cloud.confidence[index],
                    cloud.view_index[index],
                )
    return rows


def test_merging_gives_the_weighted_mean_of_each_voxel():
    clouds, voxel = [random_cloud(seed, 400) for seed in range(3)], 0.25
    points = np.concatenate([cloud.points for cloud in clouds]).astype(np.float64)
    colors = np.concatenate([cloud.colors for cloud in clouds]).astype(np.float64)
    confidence = np.concatenate([cloud.confidence for cloud in clouds]).astype(np.float64)
    weight = confidence + 1e-3
    cells = np.floor(points / voxel).astype(int)
    found = merged(clouds, voxel)
    assert set(found) == {tuple(cell) for cell in cells}
    for cell, (point, color, trust, view) in found.items():
        inside = (cells == cell).all(axis=1)
        share = weight[inside] / weight[inside].sum()
        np.testing.assert_allclose(point, share @ points[inside], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(color, share @ colors[inside], atol=0.6)
        assert trust == pytest.approx(share @ confidence[inside], rel=1e-4)
        assert view in {index // 400 for index in np.flatnonzero(inside)}


def test_order_and_division_into_clouds_hardly_matter():
    clouds = [random_cloud(seed, 300) for seed in range(4)]
    forward, backward = merged(clouds, 0.3), merged(clouds[::-1], 0.3)
    assert set(forward) == set(backward)
    for cell, row in forward.items():
        np.testing.assert_allclose(row[0], backward[cell][0], rtol=1e-4, atol=1e-5)


def test_far_points_and_empty_clouds_are_no_trouble(tmp_path):
    far = replace(random_cloud(0, 4), points=np.full((4, 3), 1e9, np.float32))
    with VoxelMerger(1e-3, tmp_path) as merger:
        merger.add(far)
        merger.add(random_cloud(1, 0))
        assert sum(len(cloud) for cloud in merger.clouds()) == 1
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    with VoxelMerger(1.0) as merger:
        assert list(merger.clouds()) == []
    with pytest.raises(InputError, match="voxel"):
        VoxelMerger(0.0)


def test_thinning_on_the_way_keeps_the_means(monkeypatch):
    clouds = [random_cloud(seed, 300) for seed in range(6)]
    whole = merged(clouds, 0.5)
    monkeypatch.setattr(merging, "_SMALLEST_THINNED", 4)
    for cell, row in merged(clouds, 0.5).items():
        np.testing.assert_allclose(row[0], whole[cell][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(row[1], whole[cell][1], atol=1)


def test_looking_again_at_the_same_place_does_not_add_memory_or_disk(tmp_path):
    sizes, peaks = [], []
    with VoxelMerger(0.1, tmp_path) as merger:
        tracemalloc.start()
        for seed in range(30):
            merger.add(random_cloud(seed, 20000))
            sizes.append(sum(file.stat().st_size for file in next(tmp_path.iterdir()).iterdir()))
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(sizes) <= 1.1 * max(sizes[:10])
    assert peaks[-1] < 1.2 * peaks[10]


def test_memory_does_not_grow_with_the_number_of_clouds():
    def peak(num_clouds: int) -> int:
        tracemalloc.start()
        with VoxelMerger(0.02) as merger:
            for seed in range(num_clouds):
                merger.add(random_cloud(seed, 2000, size=10.0))
            count = sum(len(cloud) for cloud in merger.clouds())
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count > 1990 * num_clouds
        return highest

    # The lower of two runs: the first may meet allocations that happen once in a process.
    assert min(peak(40), peak(40)) < 1.3 * min(peak(10), peak(10))
