"""Pose files of other software, and our own, read back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from noisy_room import box_room
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError
from g2vlm.export import save_scene
from g2vlm.inputs.known.intrinsics import read_intrinsics
from g2vlm.inputs.known.poses import read_poses
from g2vlm.scene.metre import KnownThings
from g2vlm.scene.save_options import ImageFiles, SaveOptions
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene

METRIC = Scale(ScaleKind.METRIC, "a laser", 0.01)
PLAIN = SaveOptions(images=ImageFiles.NONE)


@pytest.fixture(scope="module")
def truth() -> Scene:
    return replace(box_room(), scale=METRIC)


@pytest.mark.filterwarnings("ignore:The originals")
@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("colmap", PLAIN),
        ("colmap", replace(PLAIN, text=True)),
        ("nerfstudio", PLAIN),
        ("room.tum", PLAIN),
        ("room.kitti", PLAIN),
    ],
)
def test_what_we_export_is_read_back(truth, tmp_path, target, options):
    path = save_scene(truth, tmp_path / target, options)
    track = read_poses(path, is_metric=True if target == "room.kitti" else None)
    assert track.is_metric  # as g2vlm.json, or the kind of file, says
    result = box_room(unit=0.3).calibrated(KnownThings(poses=track))
    assert result.findings[0].factor == pytest.approx(1 / 0.3, rel=1e-4)
    assert result.findings[0].residual < 1e-4


@pytest.mark.filterwarnings("ignore:The originals")
@pytest.mark.parametrize("target", ["colmap", "nerfstudio"])
def test_intrinsics_we_export_are_read_back(truth, tmp_path, target):
    path = save_scene(truth, tmp_path / target, PLAIN)
    book = read_intrinsics(path if target == "colmap" else path / "transforms.json")
    assert len(book.cameras) == len(truth)
    for camera, view in zip(book.cameras, truth.views, strict=True):
        np.testing.assert_allclose(camera.K, view.K_original, atol=1e-3)
        assert camera.size == view.original_size
        assert camera.name.endswith(view.name)
    assert truth.calibrated(KnownThings(intrinsics=book)).findings[0].residual < 1e-3


@pytest.mark.filterwarnings("ignore:The originals")
def test_scenes_without_metres_are_exported_as_such(tmp_path):
    assert not read_poses(save_scene(box_room(), tmp_path / "colmap", PLAIN)).is_metric
    assert not read_poses(save_scene(box_room(), tmp_path / "room.tum", PLAIN)).is_metric


@pytest.mark.parametrize("text", [False, True])
def test_models_of_pycolmap_are_read(truth, tmp_path, text):
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction()
    width, height = truth.views[0].original_size
    for i, view in enumerate(truth.views, start=1):
        K = view.K_original.astype(float)
        camera = pycolmap.Camera(
            model="OPENCV",
            width=width,
            height=height,
            params=[K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5, 0.01, 0, 0, 0],
            camera_id=i,
        )
        model.add_camera_with_trivial_rig(camera)
        pose = np.linalg.inv(view.T_world_camera.astype(np.float64))
        image = pycolmap.Image(name=f"left/{view.name}", camera_id=i, image_id=i)
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:3, :3]), pose[:3, 3])
        model.add_image_with_trivial_frame(image, rigid)
    folder = tmp_path / "sparse" / "0"
    folder.mkdir(parents=True)
    (model.write_text if text else model.write_binary)(str(folder))
    track, book = read_poses(tmp_path), read_intrinsics(folder / f"cameras.{'txt' if text else 'bin'}")
    assert not track.is_metric  # COLMAP's unit is arbitrary
    for pose, camera, view in zip(track.poses, book.cameras, truth.views, strict=True):
        np.testing.assert_allclose(pose.T_world_camera, view.T_world_camera, atol=1e-5)
        np.testing.assert_allclose(camera.K, view.K_original, atol=1e-4)
        assert 0.1 < camera.distortion_px < 10
    assert "by file name" in str(truth.calibrated(KnownThings(poses=track)))


def test_nerfstudio_intrinsics_may_stand_once_for_all(tmp_path):
    document = {"camera_angle_x": np.pi / 2, "w": 200, "h": 100, "frames": [{"file_path": "a.png"}]}
    (tmp_path / "t.json").write_text(json.dumps(document))
    (camera,) = read_intrinsics(tmp_path / "t.json").cameras
    np.testing.assert_allclose(camera.K, [[100, 0, 99.5], [0, 100, 49.5], [0, 0, 1]])
    assert camera.name is None


def test_tum_lines_may_name_files_and_use_commas(tmp_path):
    turn = Rotation.from_rotvec([0.1, 0.2, 0.3])
    x, y, z, w = turn.as_quat()
    (tmp_path / "poses.txt").write_text(
        f"# comment\n\nleft/a.png 1 2 3 {x} {y} {z} {w}\n2.5,4,5,6,0,0,0,2 # twice\n"
    )
    named, timed = read_poses(tmp_path / "poses.txt").poses
    assert (named.name, named.time_s, timed.time_s) == ("left/a.png", None, 2.5)
    np.testing.assert_allclose(named.T_world_camera[:3, :3], turn.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(
        timed.T_world_camera[:3], [[1, 0, 0, 4], [0, 1, 0, 5], [0, 0, 1, 6]], atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "1 2 3", "line 1 has neither 8 numbers"),
        ("a.txt", "0 1 2 3 0 0 0 0", "line 1"),
        ("a.txt", "", "empty file"),
        ("a.txt", "# nothing", "got no pose"),
        ("a.json", "[1]", "one JSON object"),
        ("a.json", "{", "as JSON"),
        ("a.json", '{"frames": []}', "Expected frames"),
        ("a.json", '{"frames": [{"file_path": "a"}]}', "4x4"),
        ("a.json", '{"frames": [{"transform_matrix": "x"}]}', "4x4"),
        ("a.json", '{"frames": [{"transform_matrix": [[1, 2], [3]]}]}', "4x4"),
        ("a.txt", "0 nan 2 3 0 0 0 1", "line 1"),
        ("a.txt", "0 1 2 3 nan 0 0 1", "line 1"),
        ("none.txt", None, "no such file"),
    ],
)
def test_files_that_hold_no_poses_are_refused(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=expected):
        read_poses(tmp_path / name)


def test_damaged_and_missing_models_are_refused(truth, tmp_path):
    with pytest.raises(InputError, match="found none"):
        read_poses(tmp_path)
    (tmp_path / "images.bin").write_bytes(b"\x05\0\0\0\0\0\0\0abc")
    (tmp_path / "cameras.bin").write_bytes(b"\0" * 8)
    with pytest.raises(InputError, match="damaged"):
        read_poses(tmp_path)
    (tmp_path / "cameras.bin").unlink()
    (tmp_path / "images.bin").unlink()
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 0 7 a.png\n\n")
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 10 10 5 5 5 5\n")
    with pytest.raises(InputError, match="camera 7"):
        read_poses(tmp_path)
    (tmp_path / "cameras.txt").write_text("7 OPENCV_FISHEYE 10 10 5 5 5 5 0 0 0 0\n")
    with pytest.raises(InputError, match="undistort"):
        read_poses(tmp_path)


def test_the_intrinsics_of_an_option_or_a_matrix(tmp_path):
    (camera,) = read_intrinsics("500, 510,319.5,239.5").cameras
    np.testing.assert_array_equal(camera.K, [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
    np.savetxt(tmp_path / "K.txt", camera.K)
    np.testing.assert_allclose(read_intrinsics(tmp_path / "K.txt").cameras[0].K, camera.K)
    four = np.eye(4)
    four[:3, :3] = camera.K
    (tmp_path / "K4.txt").write_text(str(four.tolist()))
    np.testing.assert_allclose(read_intrinsics(tmp_path / "K4.txt").cameras[0].K, camera.K)


@pytest.mark.parametrize("bad", ["500,510", "a,b,c,d", "missing.txt"])
def test_other_words_are_no_intrinsics(bad):
    with pytest.raises(InputError, match="fx,fy,cx,cy"):
        read_intrinsics(bad)


def test_a_file_of_other_numbers_is_no_matrix(tmp_path):
    (tmp_path / "K.txt").write_text("1 2 3")
    with pytest.raises(InputError, match="something else"):
        read_intrinsics(tmp_path / "K.txt")
    (tmp_path / "K.txt").write_text("5 0 1 0 5 1 1 2 3")
    with pytest.raises(InputError, match="last row"):
        read_intrinsics(tmp_path / "K.txt")


@pytest.mark.parametrize(
    "values",
    [
        '"w": 0, "h": 0, "fl_x": 5',
        '"w": 1e999, "h": 5, "fl_x": 5',
        '"w": 9, "h": 5, "camera_angle_x": 0',
        '"w": 9',
    ],
)
def test_senseless_intrinsics_are_refused(tmp_path, values):
    (tmp_path / "t.json").write_text(f'{{"frames": [{{"file_path": "a"}}], {values}}}')
    with pytest.raises(InputError):
        read_intrinsics(tmp_path / "t.json")
