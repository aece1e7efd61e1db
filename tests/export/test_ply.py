"""PLY files, read back by trimesh and by a plain parser of the format."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import trimesh

import g2vlm.export.ply
from g2vlm.errors import OutputError
from g2vlm.export import save_scene
from g2vlm.export.ply import write_ply
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View


def make_cloud(count: int, normals: bool = False, seed: int = 0) -> PointCloud:
    rng = np.random.default_rng(seed)
    return PointCloud(
        points=rng.normal(size=(count, 3)).astype(np.float32),
        colors=rng.integers(0, 256, (count, 3), dtype=np.uint8),
        confidence=rng.random(count, dtype=np.float32),
        view_index=np.zeros(count, dtype=np.int32),
        normals=rng.normal(size=(count, 3)).astype(np.float32) if normals else None,
    )


@pytest.fixture
def scene() -> Scene:
    valid = np.array([[True, True], [False, True]])
    points = np.array([[[0, 0, 1], [1, 0, 1]], [[np.nan, 0, 1], [1, 1, 2]]], dtype=np.float32)
    pose = np.eye(4, dtype=np.float32)
    pose[:3, 3] = [10, 20, 30]
    view = View(
        name="a.jpg",
        rgb=np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        points_camera=points,
        T_world_camera=pose,
        K=np.eye(3, dtype=np.float32),
        confidence=np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32),
        valid=valid,
        original_size=(2, 2),
        T_model_original=np.eye(3),
    )
    return Scene((view,), Scale(ScaleKind.RELATIVE, "größe\nunbekannt"))


def parse(data: bytes) -> tuple[list[str], dict[str, list]]:
    """Header lines and columns of a binary PLY with one element, by the letter of the format."""
    head, _, body = data.partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    properties = [line.split()[1:] for line in lines if line.startswith("property")]
    row = struct.Struct("<" + "".join({"float": "f", "uchar": "B"}[kind] for kind, _ in properties))
    assert len(body) == count * row.size
    rows = list(row.iter_unpack(body))
    return lines, {name: [r[i] for r in rows] for i, (_, name) in enumerate(properties)}


@pytest.mark.parametrize("normals", [False, True])
def test_a_plain_parser_reads_every_column(tmp_path, normals):
    cloud = make_cloud(50, normals)
    write_ply(cloud, tmp_path / "a.ply", ["two\nlines"])
    lines, columns = parse((tmp_path / "a.ply").read_bytes())
    assert "comment two lines" in lines
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if normals else []), "red", "green", "blue", "confidence"]
    assert list(columns) == names
    np.testing.assert_array_equal(np.float32([columns[n] for n in "xyz"]).T, cloud.points)
    np.testing.assert_array_equal(np.uint8([columns[n] for n in ("red", "green", "blue")]).T, cloud.colors)
    np.testing.assert_array_equal(np.float32(columns["confidence"]), cloud.confidence)
    if normals:
        np.testing.assert_array_equal(np.float32([columns[n] for n in ("nx", "ny", "nz")]).T, cloud.normals)


def test_trimesh_reads_points_colours_and_confidence(tmp_path):
    cloud = make_cloud(200)
    write_ply(cloud, tmp_path / "a.ply")
    loaded = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_array_equal(loaded.vertices.astype(np.float32), cloud.points)
    np.testing.assert_array_equal(loaded.colors[:, :3], cloud.colors)
    data = loaded.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(data["confidence"].ravel(), cloud.confidence)


def test_writing_in_pieces_changes_nothing(tmp_path, monkeypatch):
    cloud = make_cloud(100, normals=True)
    write_ply(cloud, tmp_path / "whole.ply")
    monkeypatch.setattr(g2vlm.export.ply, "_CHUNK", 7)
    write_ply(cloud, tmp_path / "pieces.ply")
    assert (tmp_path / "pieces.ply").read_bytes() == (tmp_path / "whole.ply").read_bytes()


def test_a_scene_is_written_with_its_valid_points_in_the_world_frame(scene, tmp_path):
    assert scene.save(tmp_path / "new" / "room.PLY") == tmp_path / "new" / "room.PLY"
    lines, columns = parse((tmp_path / "new" / "room.PLY").read_bytes())
    assert columns["x"] == [10, 11, 11]
    assert columns["y"] == [20, 20, 21]
    assert columns["z"] == [31, 31, 32]
    assert columns["green"] == [1, 4, 10]
    assert columns["confidence"] == pytest.approx([0.1, 0.2, 0.4])
    assert "comment scale relative: gr??e unbekannt" in lines  # headers are ASCII


def test_save_scene_knows_all_formats_and_names_them_when_asked_for_another(scene, tmp_path):
    assert save_scene(scene, str(tmp_path / "a.ply")).exists()
    assert save_scene(scene, tmp_path / "a.npz").exists()
    with pytest.raises(OutputError, match=r"ending in .*\.npz.*\.ply.*got .*a\.stl"):
        save_scene(scene, tmp_path / "a.stl")
    with pytest.raises(OutputError, match="ending chooses the format"):
        save_scene(scene, tmp_path / "noending")


def test_a_scene_without_points_is_not_written(scene, tmp_path):
    with pytest.raises(OutputError, match="filter less"):
        write_ply(make_cloud(0), tmp_path / "a.ply")
    assert os.listdir(tmp_path) == []


def test_a_failure_in_the_middle_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(g2vlm.export.ply, "_CHUNK", 10)
    plain = g2vlm.export.ply.vertices

    def fail_late(cloud, piece, vertex):
        if piece.start >= 20:
            raise OSError(28, "No space left on device")
        return plain(cloud, piece, vertex)

    monkeypatch.setattr(g2vlm.export.ply, "vertices", fail_late)
    with pytest.raises(OutputError, match="No space left"):
        write_ply(make_cloud(100), tmp_path / "a.ply")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_places_that_cannot_be_written_are_refused(tmp_path, kind):
    target = tmp_path / "a.ply"
    target.mkdir() if kind == "folder" else target.write_text("x")
    with pytest.raises(OutputError, match="Expected"):
        write_ply(make_cloud(3), target if kind == "folder" else target / "b.ply")


def test_scenes_and_their_writers_load_without_torch():
    code = "import sys, g2vlm.scene, g2vlm.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0
