from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from noisy_room import box_room, with_errors
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError
from g2vlm.geometry.known import (
    CameraBook,
    DepthMaps,
    KnownCamera,
    KnownDepth,
    KnownPose,
    KnownPosition,
    PoseTrack,
    PositionTrack,
)
from g2vlm.scene.metre import KnownBaseline, KnownThings, PoseUse, Role
from g2vlm.scene.scale import ScaleKind
from g2vlm.scene.scene import Scene

WORLD = np.eye(4)
WORLD[:3, :3] = Rotation.from_rotvec([0.4, -1.0, 0.3]).as_matrix()
WORLD[:3, 3] = [10, -20, 5]


def track(
    scene: Scene, *, is_metric: bool = True, named: bool = True, world: np.ndarray = WORLD
) -> PoseTrack:
    poses = tuple(
        KnownPose(world @ view.T_world_camera.astype(np.float64), view.name if named else None)
        for view in scene.views
    )
    return PoseTrack(poses, "truth.txt", is_metric)


def test_poses_bring_scale_and_world():
    truth, scene = box_room(), box_room(unit=0.05)
    result = scene.calibrated(KnownThings(poses=track(truth)))
    (finding,) = result.findings
    assert finding.factor == pytest.approx(20, rel=1e-5)
    assert finding.residual < 1e-5
    assert (finding.num_inliers, finding.num_given) == (4, 4)
    assert "by file name" in str(finding)
    assert result.scene.scale.kind is ScaleKind.METRIC
    for true, found in zip(truth.views, result.scene.views, strict=True):
        np.testing.assert_allclose(found.T_world_camera, WORLD @ true.T_world_camera, atol=2e-5)
        np.testing.assert_allclose(found.points_camera, true.points_camera, rtol=1e-5, atol=2e-5)


def test_thirty_percent_of_wrong_poses_do_not_count():
    rng = np.random.default_rng(0)
    truth, scene = box_room(10), with_errors(box_room(10, unit=0.5), rng, local=0.01)
    poses = list(track(truth).poses)
    for i in (1, 4, 8):
        wrong = poses[i].T_world_camera.copy()
        wrong[:3, 3] += rng.uniform(2, 5, 3)
        poses[i] = replace(poses[i], T_world_camera=wrong)
    for i, pose in enumerate(poses):
        near = pose.T_world_camera.copy()
        near[:3, 3] += 0.005 * rng.standard_normal(3)
        poses[i] = replace(pose, T_world_camera=near)
    (finding,) = scene.calibrated(KnownThings(poses=PoseTrack(tuple(poses), "t", True))).findings
    assert finding.factor == pytest.approx(2, rel=0.01)
    assert 5 <= finding.num_inliers <= 7


def test_poses_are_matched_in_order_where_nothing_else_tells():
    result = box_room().calibrated(KnownThings(poses=track(box_room(), named=False)))
    assert "in order" in str(result.findings[0])


def test_poses_are_matched_by_time_stamps_in_file_names():
    truth = box_room()
    stamps = ["1305031102.175304", "1305031102.211214", "1305031102.243211", "1305031102.275326"]
    views = tuple(replace(v, name=f"{s}.png") for v, s in zip(truth.views, stamps, strict=True))
    poses = tuple(
        KnownPose(v.T_world_camera.astype(np.float64), None, float(s) + 0.004)
        for v, s in zip(truth.views, stamps, strict=True)
    )
    shuffled = PoseTrack((*poses[::-1], KnownPose(np.eye(4), None, 9.0)), "groundtruth.txt", True)
    result = Scene(views, truth.scale).calibrated(KnownThings(poses=shuffled))
    assert "by time" in str(result.findings[0])
    assert result.findings[0].factor == pytest.approx(1, rel=1e-5)


def test_poses_of_unknown_unit_leave_the_scene_relative():
    result = box_room(unit=0.1).calibrated(KnownThings(poses=track(box_room(), is_metric=False)))
    assert result.scene.scale.kind is ScaleKind.RELATIVE
    assert "unit of the poses" in result.scene.scale.source
    assert result.findings[0].unit == "units"


def test_a_metre_from_elsewhere_joins_poses_of_unknown_unit():
    truth = box_room()
    a, b = (truth.views[i].T_world_camera[:3, 3].astype(np.float64) for i in (0, 3))
    baseline = KnownBaseline(0, 3, 2 * float(np.linalg.norm(a - b)))
    known = KnownThings(baselines=(baseline,), poses=track(truth, is_metric=False))
    result = box_room(unit=0.1).calibrated(known)
    assert result.scene.scale.kind is ScaleKind.METRIC
    assert [finding.role for finding in result.findings] == [Role.METRE, Role.COMPARED]
    twice = WORLD @ truth.views[2].T_world_camera
    twice[:3, 3] *= 2
    np.testing.assert_allclose(result.scene.views[2].T_world_camera, twice, atol=1e-4)


def test_given_poses_are_taken_exactly():
    truth = box_room()
    views = list(truth.views)
    bent = views[1].T_world_camera.copy()
    bent[:3, 3] += 0.05
    views[1] = replace(views[1], T_world_camera=bent)
    scene = Scene(tuple(views), truth.scale)
    known = track(truth)
    moved = scene.calibrated(KnownThings(poses=known)).scene
    exact = scene.calibrated(KnownThings(poses=known, pose_use=PoseUse.GIVEN)).scene
    goal = known.poses[1].T_world_camera
    assert np.abs(moved.views[1].T_world_camera - goal).max() > 0.01
    np.testing.assert_allclose(exact.views[1].T_world_camera, goal, atol=1e-5)


def test_cameras_take_given_poses_where_depth_brings_the_metre():
    rng = np.random.default_rng(0)
    truth = box_room()
    lost = []
    for view in truth.views:
        pose = view.T_world_camera.copy()
        pose[:3, 3] = rng.standard_normal(3)
        lost.append(replace(view, T_world_camera=pose))
    scene = Scene(tuple(lost), truth.scale).transformed(np.diag([0.5, 0.5, 0.5, 1]))
    depth = DepthMaps(tuple(KnownDepth(partial(np.array, v.depth), v.name) for v in truth.views), "lidar")
    known = KnownThings(depth=depth, poses=track(truth), pose_use=PoseUse.GIVEN)
    found = scene.calibrated(known).scene
    for true, view in zip(truth.views, found.views, strict=True):
        np.testing.assert_allclose(view.T_world_camera, WORLD @ true.T_world_camera, atol=1e-5)
        np.testing.assert_allclose(view.depth, true.depth, rtol=1e-5)


def test_orientations_count_where_positions_hardly_tell():
    rng = np.random.default_rng(1)
    truth = box_room(8)
    views = []
    for view in truth.views:
        pose = view.T_world_camera.copy()
        pose[:3, 3] = [0.5, 0.06, 0.06] * rng.standard_normal(3)
        views.append(replace(view, T_world_camera=pose))
    known = track(Scene(tuple(views), truth.scale))
    noisy = []
    for view in views:
        pose = view.T_world_camera.copy()
        pose[:3, 3] += 0.05 * rng.standard_normal(3)
        noisy.append(replace(view, T_world_camera=pose))
    (finding,) = Scene(tuple(noisy), truth.scale).calibrated(KnownThings(poses=known)).findings
    turn = float(str(finding).split("median rotation residual ")[1].split()[0])
    assert turn < 1


def in_a_row() -> Scene:
    views = []
    for i, view in enumerate(box_room().views):
        pose = view.T_world_camera.copy()
        pose[:3, 3] = [0.5 * i, 0.1 * i, 0]
        views.append(replace(view, T_world_camera=pose))
    return Scene(tuple(views), box_room().scale)


def test_cameras_in_a_row_are_turned_by_their_orientations():
    result = in_a_row().calibrated(KnownThings(poses=track(in_a_row())))
    assert "on a line" in str(result.findings[0])
    np.testing.assert_allclose(
        result.scene.views[3].T_world_camera, WORLD @ in_a_row().views[3].T_world_camera, atol=1e-5
    )


def test_poses_that_tell_no_scale_are_refused():
    scene = box_room()
    one = PoseTrack(track(scene).poses[:1], "one.txt", True)
    with pytest.raises(InputError, match="two or more views"):
        scene.calibrated(KnownThings(poses=one))
    still = PoseTrack(tuple(KnownPose(np.eye(4), view.name) for view in scene.views), "still.txt", True)
    with pytest.raises(InputError, match="stand in one place"):
        scene.calibrated(KnownThings(poses=still))
    strangers = PoseTrack(tuple(KnownPose(np.eye(4), f"x{i}") for i in range(9)), "other.txt", True)
    with pytest.raises(InputError, match="match the views"):
        scene.calibrated(KnownThings(poses=strangers))
    rng = np.random.default_rng(0)
    poses = []
    for view in scene.views:
        T = np.eye(4)
        T[:3, 3] = rng.standard_normal(3)
        poses.append(KnownPose(T, view.name))
    with pytest.raises(InputError, match="convention"):
        scene.calibrated(KnownThings(poses=PoseTrack(tuple(poses), "wrong.txt", True)))


def test_a_pose_that_is_not_rigid_is_refused():
    with pytest.raises(InputError, match="rigid"):
        KnownPose(np.diag([2.0, 1, 1, 1]), "a.png")


def gps(scene: Scene, stretch: float, noise: float = 0.0) -> PositionTrack:
    rng = np.random.default_rng(0)
    positions = tuple(
        KnownPosition(
            stretch * (WORLD @ view.T_world_camera.astype(np.float64))[:3, 3]
            + noise * rng.standard_normal(3),
            view.name,
        )
        for view in scene.views
    )
    return PositionTrack(positions, "GPS of the photos")


def test_gps_brings_metres_and_axes():
    result = box_room(10).calibrated(KnownThings(positions=gps(box_room(10), 30.0, noise=1.0)))
    assert result.findings[0].factor == pytest.approx(30, rel=0.05)
    assert 0 < result.findings[0].residual < 5
    assert result.scene.scale.kind is ScaleKind.METRIC
    assert "east, north, up" in str(result)


def test_gps_that_tells_too_little_is_refused():
    with pytest.raises(InputError, match="at least 10 m"):
        box_room().calibrated(KnownThings(positions=gps(box_room(), 0.5)))
    with pytest.raises(InputError, match="line"):
        in_a_row().calibrated(KnownThings(positions=gps(in_a_row(), 30)))
    with pytest.raises(InputError, match="known distance"):
        box_room(6).calibrated(KnownThings(positions=gps(box_room(6), 5.0, noise=8.0)))


@pytest.mark.parametrize("factor", [1, 2])
def test_intrinsics_put_every_point_on_its_ray(factor):
    truth = box_room()
    wrong = []
    for view in truth.views:
        bent = view.points_camera * np.array([0.8, 0.8, 1.0], dtype=np.float32)
        K = view.K.copy()
        K[0, 0] = K[1, 1] = K[0, 0] / 0.8
        wrong.append(replace(view, points_camera=bent, K=K, focal_measured=False))
    K = truth.views[0].K_original.astype(np.float64)
    size = truth.views[0].original_size
    K[:2] *= factor
    K[:2, 2] += (factor - 1) / 2
    book = CameraBook((KnownCamera(K, (size[0] * factor, size[1] * factor)),), "cameras.txt")
    result = Scene(tuple(wrong), truth.scale).calibrated(KnownThings(intrinsics=book))
    for true, found in zip(truth.views, result.scene.views, strict=True):
        np.testing.assert_allclose(found.points_camera, true.points_camera, atol=2e-5)
        np.testing.assert_allclose(found.K, true.K, rtol=1e-5)
        assert found.focal_measured
    assert "takes none" in str(result)
    assert result.findings[0].unit == "px"
    assert "-20 %" in str(result)
    assert result.scene.scale == truth.scale


def test_intrinsics_by_name_leave_the_others_alone():
    truth = box_room()
    K = truth.views[0].K_original.astype(np.float64) * np.array([[1.1], [1.1], [1]])
    result = truth.calibrated(KnownThings(intrinsics=CameraBook((KnownCamera(K, None, "frame_2.png"),), "c")))
    assert result.scene.views[2].K[0, 0] == pytest.approx(1.1 * truth.views[2].K[0, 0], rel=1e-5)
    np.testing.assert_array_equal(result.scene.views[1].K, truth.views[1].K)
    assert "3 of 4 views keep their own" in str(result)


def test_intrinsics_that_do_not_fit_are_refused():
    K = np.array([[100, 0, 50], [0, 100, 80], [0, 0, 1.0]])
    with pytest.raises(InputError, match="turn or crop"):
        box_room().calibrated(KnownThings(intrinsics=CameraBook((KnownCamera(K, (100, 160)),), "c")))
    with pytest.raises(InputError, match="without names"):
        box_room().calibrated(KnownThings(intrinsics=CameraBook((KnownCamera(K), KnownCamera(K)), "c")))
    with pytest.raises(InputError, match="positive focal"):
        KnownCamera(np.diag([-1.0, 1, 1]))


def test_bent_lenses_are_told():
    K = box_room().views[0].K_original.astype(np.float64)
    book = CameraBook((KnownCamera(K, distortion_px=14.0),), "c")
    assert "up to 14 px" in str(box_room().calibrated(KnownThings(intrinsics=book)))
