"""COLMAP models: read by pycolmap, and by a reader written as those of Gaussian splatting trainers are."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from g2vlm.scene.save_options import ImageFiles, SaveOptions
from g2vlm.scene.scene import Scene


def read_like_a_trainer(folder: Path) -> dict:
    """Cameras, images and points as gsplat's and Kerbl's loaders read them, from the binary files alone."""
    sparse, found = folder / "sparse" / "0", {"cameras": {}, "images": {}, "points": {}}
    with (sparse / "cameras.bin").open("rb") as file:
        for _ in range(struct.unpack("<Q", file.read(8))[0]):
            number, model, width, height = struct.unpack("<iiQQ", file.read(24))
            assert model == 1  # PINHOLE: undistorted, as trainers want
            found["cameras"][number] = (width, height, *struct.unpack("<4d", file.read(32)))
        assert not file.read()
    with (sparse / "images.bin").open("rb") as file:
        for _ in range(struct.unpack("<Q", file.read(8))[0]):
            number, *pose, camera = struct.unpack("<i7di", file.read(64))
            name = b"".join(iter(lambda: file.read(1), b"\0")).decode()
            count = struct.unpack("<Q", file.read(8))[0]
            seen = np.frombuffer(file.read(24 * count), [("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
            found["images"][number] = (np.array(pose), camera, name, seen)
        assert not file.read()
    with (sparse / "points3D.bin").open("rb") as file:
        for _ in range(struct.unpack("<Q", file.read(8))[0]):
            number, x, y, z, red, green, blue, error = struct.unpack("<Q3d3Bd", file.read(43))
            length = struct.unpack("<Q", file.read(8))[0]
            track = struct.unpack(f"<{2 * length}i", file.read(8 * length))
            found["points"][number] = (np.array([x, y, z]), (red, green, blue), error, track)
        assert not file.read()
    return found


def projected(found: dict, number: int, points: np.ndarray) -> np.ndarray:
    """Pixels of world points by the file's camera alone, centres at halves."""
    pose, camera, _, _ = found["images"][number]
    R = Rotation.from_quat(pose[:4], scalar_first=True).as_matrix()
    moved = points @ R.T + pose[4:]
    _, _, fx, fy, cx, cy = found["cameras"][camera]
    return moved[:, :2] / moved[:, 2:] * [fx, fy] + [cx, cy]


@pytest.fixture(scope="module")
def folder(room: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return room.save(f"colmap:{tmp_path_factory.mktemp('colmap') / 'room'}")


def test_a_trainer_reads_cameras_images_and_points(room, folder):
    found = read_like_a_trainer(folder)
    assert len(found["cameras"]) == len(found["images"]) == len(room)
    assert len(found["points"]) == room.num_points
    for view, (_, camera, name, seen) in zip(room.views, found["images"].values(), strict=True):
        assert found["cameras"][camera][:2] == view.original_size
        with Image.open(folder / "images" / name) as image:
            assert image.size == view.original_size
        assert name == view.name.replace(" ", "_")
        assert (folder / "images" / name).read_bytes() == Path(view.source_path).read_bytes()
        for place in (0, len(seen) // 2, len(seen) - 1):  # both directions of the links agree
            track = found["points"][seen["point"][place]][3]
            assert (list(found["images"]).index(camera) + 1, place) in zip(
                track[::2], track[1::2], strict=True
            )
    lengths = {len(point[3]) // 2 for point in found["points"].values()}
    assert lengths == {0, 2, 3}  # COLMAP's bundle adjustment stops at tracks of one


def test_every_point_through_every_camera_lands_where_the_scene_says(room, folder):
    """Under 0.01 px of the original photo between scene and file, for every pair of point and camera."""
    found = read_like_a_trainer(folder)
    points = np.array([point[0] for point in found["points"].values()])
    for number, view in enumerate(room.views, start=1):
        T = np.linalg.inv(view.T_world_camera.astype(np.float64))
        K = np.linalg.inv(view.T_model_original) @ view.K
        camera = points @ T[:3, :3].T + T[:3, 3]
        ahead = camera[:, 2] > 0.05
        own = (camera[:, :2] / camera[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2] + 0.5)[ahead]
        assert np.abs(projected(found, number, points[ahead]) - own).max() < 0.01


def test_observations_are_where_the_photos_show_the_points(room, folder):
    """Under 0.5 px of the original photo; also in colour: the photo there looks like the point."""
    found = read_like_a_trainer(folder)
    for number, (_, _, name, seen) in found["images"].items():
        points = np.array([found["points"][point][0] for point in seen["point"]])
        pixels = np.stack([seen["x"], seen["y"]], axis=1)
        assert np.median(np.linalg.norm(projected(found, number, points) - pixels, axis=1)) < 0.01
        photo = np.asarray(Image.open(folder / "images" / name).convert("RGB"), float)
        column, row = np.floor(pixels).astype(int).T
        colors = np.array([found["points"][point][1] for point in seen["point"]])
        assert np.median(np.abs(photo[row, column] - colors)) < 8


def test_pycolmap_reads_the_same_and_writes_the_same_files_back(room, folder, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert model.is_valid()
    assert (model.num_rigs(), model.num_frames(), model.num_reg_images()) == (3, 3, 3)
    assert model.num_points3D() == room.num_points
    before = model.compute_mean_reprojection_error()
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() == pytest.approx(before, abs=1e-9)
    (tmp_path / "back").mkdir()
    pycolmap.Reconstruction(folder / "sparse" / "0").write_binary(tmp_path / "back")
    for name in ("cameras.bin", "rigs.bin", "frames.bin"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / "sparse" / "0" / name).read_bytes()


def test_text_and_binary_hold_the_same(room, folder, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    options = SaveOptions(text=True, images=ImageFiles.NONE)
    path = room.save(f"colmap:{tmp_path / 'text'}", options)
    assert not (path / "images").exists()
    text, binary = (pycolmap.Reconstruction(each / "sparse" / "0") for each in (path, folder))
    assert text.num_points3D() == binary.num_points3D()
    for number in (1, 2, 3):
        a, b = text.images[number], binary.images[number]
        assert (a.name, a.num_points2D()) == (b.name, b.num_points2D())
        np.testing.assert_array_equal(a.cam_from_world().matrix(), b.cam_from_world().matrix())
        np.testing.assert_array_equal(text.cameras[number].params, binary.cameras[number].params)
    for number in list(binary.points3D)[::500]:
        np.testing.assert_array_equal(text.points3D[number].xyz, binary.points3D[number].xyz)
        assert len(text.points3D[number].track.elements) == len(binary.points3D[number].track.elements)


def test_points_are_capped_cameras_shared_and_photos_linked_on_request(room, tmp_path):
    options = SaveOptions(max_points=400, shared_camera=True, images=ImageFiles.LINK)
    path = room.save(f"colmap:{tmp_path / 'room'}", options)
    found = read_like_a_trainer(path)
    assert 300 < len(found["points"]) <= 400
    assert list(found["cameras"]) == [1]
    assert {image[1] for image in found["images"].values()} == {1}
    assert all(file.is_symlink() for file in (path / "images").iterdir())


def test_single_views_and_views_without_points_are_written_too(room, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    bare = replace(room.views[1], valid=np.zeros_like(room.views[1].valid))
    for index, views in enumerate([room.views[:1], (room.views[0], bare)]):
        path = Scene(views, room.scale).save(f"colmap:{tmp_path / str(index)}")
        model = pycolmap.Reconstruction(path / "sparse" / "0")
        assert model.num_images() == len(views)
        assert model.num_points3D() == room.views[0].valid.sum()
