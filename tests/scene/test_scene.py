"""Scenes: frames, bounds and clouds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tilted_wall import build_view

from g2vlm.errors import InputError, OutputError
from g2vlm.geometry.alignment import Similarity
from g2vlm.geometry.cameras import project
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene

METRIC = Scale(ScaleKind.METRIC, "laser")


def similarity(scale: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = scale * Rotation.random(random_state=seed).as_matrix()
    T[:3, 3] = rng.normal(size=3)
    return T


def world(scene: Scene) -> np.ndarray:
    return np.concatenate([view.points_world[view.valid] for view in scene.views])


@given(st.floats(0.1, 10), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_transforming_moves_world_points_and_keeps_what_the_cameras_see(scale, seed):
    scene = Scene((build_view(0), build_view(1)), Scale(ScaleKind.RELATIVE, "test"))
    T = similarity(scale, seed)
    moved = scene.transformed(T)
    expected = world(scene) @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(world(moved), expected, atol=1e-4 * max(1, scale))
    back = moved.transformed(np.linalg.inv(T))
    np.testing.assert_allclose(world(back), world(scene), atol=1e-4)
    view = moved.views[1]
    pixels = project(torch.from_numpy(view.points_camera), torch.from_numpy(view.K))
    np.testing.assert_allclose(pixels[2, 3], [3, 2], atol=1e-3)


def test_a_similarity_object_transforms_like_its_matrix(scene):
    T = similarity(2.0)
    R = torch.from_numpy(T[:3, :3] / 2)
    other = scene.transformed(Similarity(torch.tensor(2.0).double(), R, torch.from_numpy(T[:3, 3])))
    np.testing.assert_allclose(world(other), world(scene.transformed(T)), atol=1e-5)


def test_a_metric_scene_stays_metric_only_while_its_size_does(scene):
    metric = scene.transformed(np.eye(4), scale=METRIC)
    assert metric.scale == METRIC
    assert metric.transformed(similarity(1.0)).scale == METRIC
    halved = metric.transformed(similarity(0.5)).scale
    assert halved.kind is ScaleKind.RELATIVE
    assert "0.5 times metres (laser)" in halved.source
    assert metric.transformed(similarity(0.5), scale=METRIC).scale == METRIC


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1, 2, 1]),
        np.diag([-1.0, 1, 1, 1]),
        np.zeros((4, 4)),
        np.full((4, 4), np.nan),
        2 * np.eye(4),
    ],
)
def test_transforms_that_are_no_similarity_are_refused(scene, matrix):
    with pytest.raises(InputError, match="4x4 transform"):
        scene.transformed(matrix)


def test_anchoring_puts_the_first_camera_at_the_origin(scene):
    anchored = scene.anchored()
    np.testing.assert_array_equal(anchored.views[0].T_world_camera, np.eye(4))
    np.testing.assert_array_equal(anchored.views[0].points_world, scene.views[0].points_camera)
    first, second = (view.T_world_camera.astype(np.float64) for view in scene.views[:2])
    np.testing.assert_allclose(anchored.views[1].T_world_camera, np.linalg.inv(first) @ second, atol=1e-6)
    assert anchored.scale == scene.scale


def test_bounds_hold_all_valid_points_tightly(scene):
    low, high = scene.bounds()
    np.testing.assert_array_equal(low, world(scene).min(axis=0))
    np.testing.assert_array_equal(high, world(scene).max(axis=0))


def test_a_scene_without_valid_points_has_no_bounds(scene, make_view):
    empty = make_view(valid=np.zeros((6, 8), bool))
    with pytest.raises(InputError, match="filter less"):
        Scene((empty,), scene.scale).bounds()
    partly = Scene((empty, *scene.views), scene.scale)
    np.testing.assert_array_equal(partly.bounds().minimum, scene.bounds().minimum)
    assert len(Scene((empty,), scene.scale).point_cloud(voxel=1.0, max_points=5, normals=True)) == 0


def test_point_cloud_holds_every_valid_pixel_once(scene):
    cloud = scene.point_cloud()
    assert len(cloud) == scene.num_points == 3 * 48 - 12
    np.testing.assert_array_equal(cloud.points, world(scene))
    np.testing.assert_array_equal(np.bincount(cloud.view_index), [48, 36, 48])
    np.testing.assert_array_equal(cloud.colors[48:84], scene.views[1].rgb[scene.views[1].valid])
    np.testing.assert_array_equal(cloud.confidence[84:], scene.views[2].confidence.ravel())
    assert cloud.normals is None
    assert cloud.colors.dtype == np.uint8
    assert cloud.view_index.dtype == np.int32


def test_point_cloud_can_be_thinned_and_limited(scene):
    thin = scene.point_cloud(voxel=0.2)
    assert 0 < len(thin) < scene.num_points
    assert len(scene.point_cloud(voxel=0.2, max_points=7)) == 7


def test_normals_are_those_of_the_surface_and_face_their_camera(scene):
    cloud = scene.point_cloud(normals=True)
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=1e-5)
    centres = np.stack([view.T_world_camera[:3, 3] for view in scene.views])[cloud.view_index]
    assert ((cloud.normals * (centres - cloud.points)).sum(axis=1) > 0).all()
    # The first 48 points lie on a smooth sheet: neighbours along a row are perpendicular to the normal.
    along = cloud.points[1:8] - cloud.points[:7]
    assert np.abs((along * cloud.normals[:7]).sum(axis=1)).max() < 0.02


def test_scenes_need_views_of_one_size(scene, make_view):
    with pytest.raises(InputError, match="at least one view"):
        Scene((), scene.scale)
    small = make_view(
        rgb=np.zeros((3, 8, 3), np.uint8),
        points_camera=np.ones((3, 8, 3), np.float32),
        confidence=np.ones((3, 8), np.float32),
        valid=np.ones((3, 8), bool),
    )
    with pytest.raises(InputError, match="8x3, 8x6"):
        Scene((*scene.views, small), scene.scale)


def test_saving_with_an_unknown_ending_lists_the_known_ones(scene, tmp_path):
    with pytest.raises(OutputError, match=r"\.npz.*'.*room\.xyz'"):
        scene.save(tmp_path / "room.xyz")
    assert list(tmp_path.iterdir()) == []
