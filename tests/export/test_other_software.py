"""nerfstudio, Gaussian splatting, trajectories, USD, rerun, fused meshes: read back by other readers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from g2vlm.scene.save_options import ImageFiles, SaveOptions
from g2vlm.scene.scene import Scene


def original_pixels_of(view, step: int = 97) -> np.ndarray:
    v, u = np.mgrid[: view.height, : view.width]
    pixels = np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
    return (np.linalg.inv(view.T_model_original) @ pixels)[:2].T[::step]


def test_nerfstudio_cameras_see_the_points_of_their_cloud(room, tmp_path):
    folder = room.save(f"nerfstudio:{tmp_path / 'ns'}")
    told = json.loads((folder / "transforms.json").read_text())
    applied = np.vstack([told["applied_transform"], [0, 0, 0, 1]])
    for view, frame in zip(room.views, told["frames"], strict=True):
        assert (folder / frame["file_path"]).is_file()
        points = view.points_world.reshape(-1, 3)[::97] @ applied[:3, :3].T
        camera = np.linalg.inv(frame["transform_matrix"]) @ np.c_[points, np.ones(len(points))].T
        x, y, z = camera[:3]  # OpenGL: looks along -z, y up
        assert (z < 0).all()
        pixels = np.stack([x / -z * frame["fl_x"] + frame["cx"], y / z * frame["fl_y"] + frame["cy"]], axis=1)
        np.testing.assert_allclose(pixels - 0.5, original_pixels_of(view), atol=0.01)
    cloud = trimesh.load(folder / told["ply_file_path"])
    np.testing.assert_allclose(cloud.vertices, room.point_cloud().points @ applied[:3, :3].T, atol=1e-5)
    # Up stays up: the world of the renderer has y down, nerfstudio's has z up.
    np.testing.assert_allclose(applied[:3, :3] @ [0, -1, 0], [0, 0, 1])


def test_gaussians_have_the_columns_of_trainers_and_a_sensible_start(room, tmp_path):
    path = room.save(f"gaussians:{tmp_path / 'init.ply'}", SaveOptions(max_points=2000))
    head, body = path.read_bytes().split(b"end_header\n", 1)
    assert b"initialisation" in head
    names = [line.split()[-1] for line in head.decode().splitlines() if line.startswith("property float")]
    expected = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3))]
    expected += [*(f"f_rest_{i}" for i in range(45)), "opacity", *(f"scale_{i}" for i in range(3))]
    assert names == [*expected, *(f"rot_{i}" for i in range(4))]
    rows = np.frombuffer(body, "<f4").reshape(-1, len(names))
    cloud = room.point_cloud().spread(2000)
    np.testing.assert_array_equal(rows[:, :3], cloud.points)
    np.testing.assert_allclose((rows[:, 6:9] * 0.28209479177 + 0.5) * 255, cloud.colors, atol=1e-3)
    np.testing.assert_allclose(1 / (1 + np.exp(-rows[:, 54])), 0.1, rtol=1e-5)
    apart = np.linalg.norm(cloud.points[:50, None] - cloud.points, axis=-1)
    nearest = np.sort(apart, axis=1)[:, 1:4]
    np.testing.assert_allclose(np.exp(rows[:50, 55]), np.sqrt((nearest**2).mean(axis=1)), rtol=1e-3)
    np.testing.assert_array_equal(rows[:, 58:], np.tile([1, 0, 0, 0], (len(rows), 1)))


def test_trajectories_come_back(room, tmp_path):
    poses = np.stack([view.T_world_camera for view in room.views])
    kitti = np.loadtxt(room.save(f"kitti:{tmp_path / 'poses.txt'}")).reshape(-1, 3, 4)
    np.testing.assert_allclose(kitti, poses[:, :3], atol=1e-6)
    tum = np.loadtxt(room.save(tmp_path / "poses.tum"))
    np.testing.assert_array_equal(tum[:, 0], [0, 1, 2])
    np.testing.assert_allclose(tum[:, 1:4], poses[:, :3, 3], atol=1e-6)
    np.testing.assert_allclose(Rotation.from_quat(tum[:, 4:]).as_matrix(), poses[:, :3, :3], atol=1e-6)
    timed = Scene(tuple(replace(v, time_s=0.5 * i) for i, v in enumerate(room.views)), room.scale)
    np.testing.assert_array_equal(np.loadtxt(timed.save(tmp_path / "timed.tum"))[:, 0], [0, 0.5, 1])


@pytest.mark.parametrize("ending", [".usda", ".usdc", ".usdz", ".usd"])
def test_usd_cameras_see_the_points(room, tmp_path, ending):
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom

    path = room.save(tmp_path / f"room{ending}")
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    points = np.array(UsdGeom.Points(stage.GetPrimAtPath("/scene/points")).GetPointsAttr().Get())
    np.testing.assert_allclose(points, room.point_cloud().points * [1, -1, -1], rtol=1e-6)
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/scene/camera_0001"))
    frustum = camera.GetCamera(Usd.TimeCode.Default()).frustum
    view, both = room.views[1], frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()
    world = view.points_world.reshape(-1, 3)[::97] * [1, -1, -1]
    clip = np.c_[world, np.ones(len(world))] @ np.array(both)
    width, height = view.original_size
    ndc = clip[:, :2] / clip[:, 3:]
    pixels = np.stack([(ndc[:, 0] + 1) * width / 2, (1 - ndc[:, 1]) * height / 2], axis=1) - 0.5
    np.testing.assert_allclose(pixels, original_pixels_of(view), atol=0.02)


def test_rerun_reads_its_recording(room, tmp_path):
    pytest.importorskip("rerun")
    chunk = pytest.importorskip("rerun.chunk")
    path = room.save(tmp_path / "room.rrd", SaveOptions(max_points=100))
    places = {each.entity_path for each in chunk.RrdReader(path).stream()}
    assert {"/world/points", "/world/camera_0002", "/world/camera_0000/depth"} <= places


def test_fused_surface_lies_on_the_points_and_faces_the_cameras(room, tmp_path):
    pytest.importorskip("skimage")
    from scipy.spatial import cKDTree

    mesh = trimesh.load(room.save(f"tsdf:{tmp_path / 'fused.ply'}"))
    distance, _ = cKDTree(room.point_cloud().points).query(mesh.triangles_center)
    assert np.percentile(distance, 95) < 0.1
    centres = np.stack([view.T_world_camera[:3, 3] for view in room.views])
    ways = centres[:, None] - mesh.triangles_center
    facing = (ways * mesh.face_normals).sum(axis=-1).max(axis=0) > 0
    assert mesh.area_faces[facing].sum() > 0.85 * mesh.area


TARGETS = (
    "a.npz a.ply a.glb mesh:a.glb a.obj tsdf:a.ply gaussians:g.ply colmap nerfstudio depth normals previews "
    "a.tum a.kitti a.usdc a.usdz colmap:a.zip"
)


@pytest.mark.parametrize("target", TARGETS.split())
def test_exporting_twice_gives_the_same_bytes_and_leaves_the_scene_alone(room, tmp_path, target):
    if target.startswith("tsdf"):
        pytest.importorskip("skimage")
    if ".usd" in target:
        pytest.importorskip("pxr")
    before = {
        (index, name): value.copy()
        for index, view in enumerate(room.views)
        for name, value in vars(view).items()
        if isinstance(value, np.ndarray)
    }
    kind, _, name = target.rpartition(":")
    prefix = f"{kind}:" if kind else ""
    paths = [room.save(f"{prefix}{tmp_path / place / name}") for place in ("one", "two")]
    assert contents(paths[0]) == contents(paths[1])
    for (index, name), value in before.items():
        np.testing.assert_array_equal(getattr(room.views[index], name), value)


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def test_photos_may_be_left_out(room, tmp_path):
    folder = room.save(f"nerfstudio:{tmp_path / 'ns'}", SaveOptions(images=ImageFiles.NONE))
    assert not (folder / "images").exists()
