"""Measurements between pixels, at model and at original resolution."""

import numpy as np
import pytest

from g2vlm.errors import InputError
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import PixelSpace

MODEL, ORIGINAL = PixelSpace.MODEL, PixelSpace.ORIGINAL


def test_depth_at_a_model_pixel_is_that_of_the_point_map(scene):
    view = scene.views[2]
    result = scene.measure_depth(2, (5, 1), MODEL)
    assert result.value == float(view.depth[1, 5])
    assert result.confidence == float(view.confidence[1, 5])
    assert float(result) == result.value
    assert scene.measure_depth(2, (5.4, 0.6), MODEL).value == result.value


def test_original_pixels_are_mapped_to_the_model_pixel_that_covers_them(scene):
    # Each model pixel covers four columns and three rows of the original.
    for u, v in ((0, 0), (31, 17), (20, 3), (23, 5), (16, 8)):
        expected = float(scene.views[0].depth[v // 3, u // 4])
        assert scene.measure_depth(0, (u, v)).value == expected, (u, v)
    for corner in ((-0.5, -0.5), (31.5, 17.5), (31.5, -0.5)):
        scene.measure_depth(0, corner)


def test_distance_is_that_of_the_world_points(scene):
    a, b = scene.views[0].points_world[2, 3], scene.views[2].points_world[5, 7]
    result = scene.measure_distance(0, (3, 2), 2, (7, 5), MODEL)
    assert result.value == pytest.approx(float(np.linalg.norm(a - b)), rel=1e-6)
    assert result.confidence == min(scene.views[0].confidence[2, 3], scene.views[2].confidence[5, 7])
    assert scene.measure_distance(0, (3, 2), 0, (3, 2), MODEL).value == 0
    original = scene.measure_distance(2, (30, 17), 0, (12, 7))  # the same pixels, the other way round
    assert original.value == pytest.approx(result.value)


def test_measurements_state_their_unit(scene):
    assert str(scene.measure_depth(0, (3, 2), MODEL)).endswith(" units")
    metric = scene.transformed(np.eye(4), scale=Scale(ScaleKind.METRIC, "laser"))
    result = metric.measure_depth(0, (3, 2), MODEL)
    assert str(result) == "2.4 m"
    assert result.scale.source == "laser"
    assert str(metric.measure_size(0, (0, 0, 7, 5), MODEL)).endswith(" m")


def flat_scene(make_view) -> Scene:
    view = make_view()
    return Scene((make_view(points_camera=2 * view.points_camera / view.depth[..., None]),), METRIC)


METRIC = Scale(ScaleKind.METRIC, "laser")


def test_size_of_a_flat_region_is_its_extent(make_view):
    scene = flat_scene(make_view)  # pixels are 0.2 m apart
    size = scene.measure_size(0, (2, 1, 6, 4), MODEL)
    assert (size.width, size.height, size.depth) == pytest.approx((0.8, 0.6, 0.0), abs=0.03)
    assert size.num_points == 20
    original = scene.measure_size(0, (8, 3, 27, 14))
    assert (original.width, original.height, original.num_points) == (size.width, size.height, 20)
    assert original.confidence == pytest.approx(np.median(scene.views[0].confidence[1:5, 2:7]))


def test_a_box_within_one_pixel_measures_that_pixel(make_view):
    size = flat_scene(make_view).measure_size(0, (3.2, 2.2, 3.4, 2.4), MODEL)
    assert (size.num_points, size.width) == (1, 0)


def test_stray_points_hardly_change_a_size(make_view):
    scene = flat_scene(make_view)
    points = scene.views[0].points_camera.copy()
    points[3, 3] *= 50
    stray = Scene((make_view(points_camera=points),), METRIC)
    plain, robust = (s.measure_size(0, (0, 0, 7, 5), MODEL) for s in (scene, stray))
    assert (robust.width, robust.height) == pytest.approx((plain.width, plain.height))
    assert robust.depth < 0.01


@pytest.mark.parametrize(
    ("view", "pixel", "space", "message"),
    [
        (3, (0, 0), MODEL, "view from 0 to 2, got 3"),
        (-1, (0, 0), MODEL, "view from 0 to 2, got -1"),
        (0, (8, 0), MODEL, "8 pixels wide and 6 high, got \\(8, 0\\)"),
        (0, (-1, 0), MODEL, "inside the model image"),
        (0, (32, 0), ORIGINAL, "32 pixels wide and 18 high"),
        (0, (0, 18), ORIGINAL, "inside the original image"),
        (0, (float("nan"), 0), ORIGINAL, "inside the original image"),
        (1, (0, 0), MODEL, "padding or was filtered out"),
    ],
)
def test_pixels_that_cannot_be_measured_are_refused(scene, view, pixel, space, message):
    with pytest.raises(InputError, match=message):
        scene.measure_depth(view, pixel, space)
    with pytest.raises(InputError, match=message):
        scene.measure_distance(2, (1, 1), view, pixel, space)


@pytest.mark.parametrize(
    ("view", "box", "message"),
    [
        (0, (3, 3, 2, 4), "left <= right"),
        (0, (0, 0, 8, 4), "inside the model image"),
        (1, (0, 0, 1, 5), "valid points"),
        (9, (0, 0, 1, 1), "view from 0 to 2"),
    ],
)
def test_boxes_that_cannot_be_measured_are_refused(scene, view, box, message):
    with pytest.raises(InputError, match=message):
        scene.measure_size(view, box, MODEL)
