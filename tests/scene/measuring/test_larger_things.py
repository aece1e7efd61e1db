"""Heights, boxes and areas in a box room of 6 x 3 x 8 m whose floor is y = 1.5."""

from dataclasses import replace

import numpy as np
import pytest
from noisy_room import HEIGHT, WIDTH, box_room, with_errors
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError
from g2vlm.scene.measuring.boxes import BoxAxes
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import PixelSpace

MODEL = PixelSpace.MODEL


def test_the_floor_is_found_exactly():
    floor = box_room().floor()
    np.testing.assert_allclose(floor.up, [0, -1, 0], atol=1e-5)
    assert floor.offset == pytest.approx(1.5, abs=1e-4)
    assert floor.level_error < 1e-4
    assert floor.support > 0.05


@pytest.mark.parametrize("unit", [0.01, 40.0])
def test_the_floor_does_not_depend_on_the_unit_or_the_world(unit):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.5, 1.0, -0.4]).as_matrix()
    floor = box_room(unit=unit).transformed(turn).floor()
    np.testing.assert_allclose(floor.up, turn[:3, :3] @ [0, -1, 0], atol=1e-4)


def test_the_floor_survives_noise_and_stray_points():
    rng = np.random.default_rng(0)
    scene = with_errors(box_room(), rng, local=0.01, common=0.01)
    views = []
    for view in scene.views:
        points = view.points_camera.copy()
        stray = rng.random(points.shape[:2]) < 0.1
        points[stray] *= rng.uniform(0.3, 1.0, (int(stray.sum()), 1)).astype(np.float32)
        views.append(replace(view, points_camera=points))
    floor = Scene(tuple(views), scene.scale).floor()
    assert float(floor.up @ [0, -1, 0]) > np.cos(np.radians(2))
    assert floor.offset == pytest.approx(1.5, abs=0.06)


def test_a_scene_without_a_floor_says_so():
    views = []
    for view in box_room().views:
        low = view.points_world[..., 1] > 1.4
        views.append(replace(view, valid=view.valid & ~low))
    scene = Scene(tuple(views), box_room().scale)
    assert scene.floor() is None
    with pytest.raises(InputError, match="shows its floor"):
        scene.measure_height(0, (40, 20), MODEL)


def test_height_is_above_the_floor():
    scene = box_room()
    for row, column in ((10, 30), (25, 60), (55, 40)):
        expected = 1.5 - scene.views[1].points_world[row, column, 1]
        measured = scene.measure_height(1, (column, row), MODEL)
        assert measured.value == pytest.approx(expected, abs=1e-3)


def test_heights_lie_within_two_deviations_as_often_as_they_should():
    rng = np.random.default_rng(2)
    truth = box_room()
    inside = []
    for _ in range(15):
        scene = with_errors(truth, rng, 0.01, 0.005)
        for _ in range(3):
            u, v = int(rng.integers(8, WIDTH - 8)), int(rng.integers(8, HEIGHT - 8))
            measured = scene.measure_height(1, (u, v), MODEL)
            expected = 1.5 - truth.views[1].points_world[v, u, 1]
            inside.append(abs(measured.value - expected) <= 2 * measured.uncertainty)
    assert 0.85 <= np.mean(inside) <= 1.0, np.mean(inside)


def test_points_in_space_are_measured_where_pixels_show_them():
    scene = with_errors(box_room(), np.random.default_rng(0), local=0.01)
    a, b = scene.views[0].points_world[20, 30], scene.views[2].points_world[35, 60]
    measured = scene.measure_points(a, b)
    by_pixels = scene.measure_distance(0, (30, 20), 2, (60, 35), MODEL)
    assert measured.value == pytest.approx(by_pixels.value, rel=1e-6)
    assert 0 < measured.uncertainty < by_pixels.uncertainty  # no pixel was chosen by hand
    nowhere = scene.measure_points(np.array([0.0, 0, 0]), np.array([0.0, 0, 1]))
    assert (nowhere.value, nowhere.uncertainty) == (1.0, None)


def chest(turn_deg: float) -> Scene:
    """Two views of a chest 1.2 x 0.6 m on the ground and 0.8 m high, on a floor 1.4 m below the cameras."""
    R = Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    low, high = np.array([-0.6, 0.6, -0.3]), np.array([0.6, 1.4, 0.3])
    views = []
    for template, x in zip(box_room(2).views, (-0.3, 0.3), strict=True):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("x", -25, degrees=True).as_matrix()
        T[:3, 3] = [x, 0, -3]
        K = template.K.astype(np.float64)
        v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
        rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1)
        world = rays @ T[:3, :3].T
        depth = np.where(world[..., 1] > 0, (1.4 - T[1, 3]) / np.maximum(world[..., 1], 1e-9), 9.0)
        origin, direction = R.T @ T[:3, 3], world @ R
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.minimum((low - origin) / direction, (high - origin) / direction).max(axis=-1)
            far = np.maximum((low - origin) / direction, (high - origin) / direction).min(axis=-1)
        hit = (near < far) & (near > 0)
        depth = np.where(hit, near, np.minimum(depth, 9.0))
        views.append(
            replace(
                template,
                points_camera=(rays * depth[..., None]).astype(np.float32),
                T_world_camera=T.astype(np.float32),
                confidence=np.where(hit, 0.9, 0.5).astype(np.float32),
            )
        )
    return Scene(tuple(views), Scale(ScaleKind.METRIC, "test"))


@pytest.mark.parametrize("turn_deg", [20.0, 50.0])
def test_an_upright_box_has_the_sides_of_a_chest(turn_deg):
    scene = chest(turn_deg)
    views = list(scene.views)
    views[0] = replace(views[0], valid=views[0].confidence > 0.8)  # the chest alone
    scene = Scene((views[0], views[1]), scene.scale)
    box = scene.measure_box(0, (0, 0, WIDTH - 1, HEIGHT - 1), MODEL)
    assert box.lengths[:2] == pytest.approx((1.2, 0.6), abs=0.09)
    assert box.lengths[2] == pytest.approx(0.8, abs=0.06)
    np.testing.assert_allclose(box.R_world_box[:, 2], [0, -1, 0], atol=1e-3)
    np.testing.assert_allclose(box.centre, [0, 1.0, 0], atol=0.06)
    np.testing.assert_allclose(np.linalg.det(box.R_world_box), 1, atol=1e-6)
    assert all(error is not None and error < 0.1 for error in box.uncertainties)
    assert str(box).endswith(" m")


def test_boxes_along_camera_and_world_follow_their_axes():
    scene = box_room()
    box = (20, 15, 50, 40)
    region = scene.views[0].points_camera[15:41, 20:51].reshape(-1, 3)
    camera = scene.measure_box(0, box, MODEL, BoxAxes.CAMERA)
    plain = scene.measure_size(0, box, MODEL)
    assert camera.lengths == pytest.approx((plain.width, plain.height, plain.depth), rel=1e-4)
    world = scene.measure_box(0, box, MODEL, BoxAxes.WORLD)
    np.testing.assert_array_equal(world.R_world_box, np.eye(3))
    assert world.num_points == len(region)


def test_the_area_of_a_wall_is_that_of_its_pixels():
    scene = box_room()
    back = np.abs(scene.views[1].points_world[..., 2] - 4) < 1e-3  # the wall at z = 4
    rows, columns = np.nonzero(back)
    row, column = int(np.median(rows)), int(np.median(columns))
    area = scene.measure_area(1, (column, row), MODEL)
    assert area.num_points == pytest.approx(back.sum(), abs=0.02 * back.sum())
    # The wall is 6 x 3 m, and the view shows what its borders cut out of it.
    points = scene.views[1].points_world[back]
    assert area.value == pytest.approx(np.ptp(points[:, 0]) * np.ptp(points[:, 1]), rel=0.12)
    assert 0 < area.uncertainty < 0.1 * area.value
    assert str(area).endswith("units^2")


def test_noise_does_not_add_to_an_area():
    truth = box_room()
    rng = np.random.default_rng(0)
    true = truth.measure_area(1, (40, 20), MODEL)
    noisy = [with_errors(truth, rng, local=0.004).measure_area(1, (40, 20), MODEL) for _ in range(8)]
    assert np.mean([each.value for each in noisy]) == pytest.approx(true.value, rel=0.05)
    scaled = truth.transformed(np.diag([2, 2, 2, 1.0])).measure_area(1, (40, 20), MODEL)
    assert scaled.value == pytest.approx(4 * true.value, rel=1e-3)


def test_what_is_not_flat_has_no_area():
    scene = with_errors(box_room(), np.random.default_rng(0), local=0.5)
    nearest = np.argmin(scene.views[0].depth[10:50, 10:70])  # a stray point before all others
    off_plane = (10 + int(nearest % 60), 10 + int(nearest // 60))
    with pytest.raises(InputError, match="no plane"):
        scene.measure_area(0, off_plane, MODEL)
    empty = box_room()
    empty.views[0].valid[:] = False
    empty.views[0].valid[28, 0:4] = True
    with pytest.raises(InputError, match="amid valid points"):
        empty.measure_area(0, (2, 28), MODEL)
