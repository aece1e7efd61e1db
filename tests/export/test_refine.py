"""Bundle adjustment: wrong cameras become right, right ones stay, and the scene given is never changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendered_room import rendered_room
from scipy.spatial.transform import Rotation

from g2vlm.scene.scene import Scene

pytest.importorskip("pycolmap")

from g2vlm.export.colmap.refine import refine_scene


@pytest.fixture(scope="module")
def sharp_room(tmp_path_factory) -> Scene:
    return rendered_room(tmp_path_factory.mktemp("sharp"), seed=500_021, factor=8)


def disturbed(scene: Scene) -> Scene:
    rng = np.random.default_rng(3)
    views = []
    for view in scene.views:
        pose = view.T_world_camera.astype(np.float64)
        pose[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(0.008 * rng.normal(size=3)).as_matrix()
        pose[:3, 3] += 0.015 * rng.normal(size=3)
        K, factor = view.K.copy(), np.float32(1 + 0.015 * rng.normal())
        K[:2, :2] *= factor
        points = view.points_camera * np.float32(1 + 0.015 * rng.normal())
        points[..., :2] /= factor
        views.append(replace(view, T_world_camera=pose.astype(np.float32), K=K, points_camera=points))
    return replace(scene, views=tuple(views))


def turn_between(scene: Scene, a: int, b: int) -> Rotation:
    first, second = (scene.views[i].T_world_camera[:3, :3].astype(np.float64) for i in (a, b))
    return Rotation.from_matrix(first.T @ second)


def turn_error(scene: Scene, truth: Scene) -> float:
    pairs = [(0, 1), (1, 2), (0, 2)]
    return max((turn_between(scene, *p).inv() * turn_between(truth, *p)).magnitude() for p in pairs)


def test_disturbed_cameras_are_found_again(sharp_room):
    wrong = disturbed(sharp_room)
    kept = [view.T_world_camera.copy() for view in wrong.views]
    result = refine_scene(wrong)
    assert result.is_refined
    assert result.after_px < 0.5 * result.before_px
    assert turn_error(result.scene, sharp_room) < 0.3 * turn_error(wrong, sharp_room)
    assert "cameras refined" in str(result)
    assert result.summary()["correspondences"] == result.num_tracks > 30
    for view, pose in zip(wrong.views, kept, strict=True):
        np.testing.assert_array_equal(view.T_world_camera, pose)


def test_right_cameras_stay_nearly_as_they_are(sharp_room):
    result = refine_scene(sharp_room)
    assert result.after_px <= result.before_px or not result.is_refined
    assert turn_error(result.scene, sharp_room) < 2e-3


def test_photos_without_a_corner_change_nothing(sharp_room, tmp_path):
    views = []
    for view in sharp_room.views:
        path = tmp_path / Path(view.source_path).name
        Image.new("RGB", view.original_size, "grey").save(path)
        views.append(replace(view, source_path=str(path)))
    plain = replace(sharp_room, views=tuple(views))
    result = refine_scene(plain)
    assert not result.is_refined
    assert result.scene is plain
    assert "only 0 correspondences" in str(result)
