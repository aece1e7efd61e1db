"""Views: what they promise, and what they compute."""

import numpy as np
import pytest

from g2vlm.errors import InputError


def test_world_points_follow_the_pose(make_view):
    view = make_view(1)
    homogeneous = np.concatenate([view.points_camera, np.ones((6, 8, 1), np.float32)], axis=-1)
    expected = np.einsum("ij,hwj->hwi", view.T_world_camera, homogeneous)[..., :3]
    np.testing.assert_allclose(view.points_world, expected, atol=1e-5)
    assert view.points_world.dtype == np.float32
    np.testing.assert_array_equal(view.depth, view.points_camera[..., 2])
    assert (view.height, view.width) == (6, 8)


def test_intrinsics_of_the_original_see_points_at_the_original_pixel(make_view):
    view = make_view()
    point = view.points_camera[4, 5].astype(np.float64)
    pixel = view.K_original @ point / point[2]
    assert (view.T_model_original @ pixel)[:2].tolist() == pytest.approx([5, 4], abs=1e-4)
    assert view.K_original.dtype == np.float32
    np.testing.assert_allclose(np.diag(view.K_original), [40, 30, 1], rtol=1e-6)


def test_invalid_pixels_may_hold_anything(scene):
    assert not np.isfinite(scene.views[1].points_world[:, :2]).any()
    assert np.isfinite(scene.views[1].points_world[:, 2:]).all()


BAD_POSE = np.eye(4, dtype=np.float32)
BAD_POSE[0, 0] = 1.01
MIRROR = np.diag([-1, 1, 1, 1]).astype(np.float32)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rgb", np.zeros((6, 8, 3), np.float32), "rgb of shape"),
        ("points_camera", np.zeros((6, 7, 3), np.float32), "points_camera of shape"),
        ("points_camera", np.full((6, 8, 3), np.nan, np.float32), "finite points wherever valid"),
        ("confidence", np.full((6, 8), 1.5, np.float32), "confidence in 0..1"),
        ("confidence", np.full((6, 8), np.nan, np.float32), "confidence in 0..1"),
        ("valid", np.ones((6, 8), np.uint8), "valid of shape"),
        ("T_world_camera", BAD_POSE, "rigid T_world_camera"),
        ("T_world_camera", MIRROR, "rigid T_world_camera"),
        ("T_world_camera", np.eye(4), "float64"),
        ("K", -np.eye(3, dtype=np.float32), "positive focal"),
        ("T_model_original", np.zeros((3, 3)), "invertible affine"),
        ("original_size", (0, 5), "original size"),
    ],
)
def test_broken_promises_are_refused_by_name(make_view, field, value, message):
    view = make_view()
    object.__setattr__(view, field, value)  # past the shape checks that only tests run with
    with pytest.raises(InputError, match=message):
        view.__post_init__()
