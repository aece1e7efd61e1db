"""The .npz file, read by plain numpy and by our own reader."""

import contextlib
import os
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest

from g2vlm.errors import InputError, OutputError
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.storage import ORIGIN_KEYS, SCALE_KEYS, read_npz, write_npz
from g2vlm.scene.view import View

SHAPES = {
    "rgb": ((3, 6, 8, 3), np.uint8),
    "points_world": ((3, 6, 8, 3), np.float32),
    "points_camera": ((3, 6, 8, 3), np.float32),
    "depth": ((3, 6, 8), np.float32),
    "T_world_camera": ((3, 4, 4), np.float32),
    "K": ((3, 3, 3), np.float32),
    "K_original": ((3, 3, 3), np.float32),
    "original_size": ((3, 2), np.int64),
    "T_model_original": ((3, 3, 3), np.float64),
    "valid": ((3, 6, 8), np.bool_),
    "confidence": ((3, 6, 8), np.float32),
    "time_s": ((3,), np.float64),
}


def test_numpy_alone_reads_every_key_without_pickle(scene, tmp_path):
    scene.save(tmp_path / "room.npz")
    with np.load(tmp_path / "room.npz", allow_pickle=False) as file:
        rest = {
            "names",
            "source_path",
            "frame_index",
            "focal_measured",
            "scale",
            "scale_source",
            "scale_residual_m",
            "scale_relative_error",
            "scale_point_error",
            "format_version",
        }
        assert set(file) == {*SHAPES, *rest}
        for key, (shape, dtype) in SHAPES.items():
            assert (file[key].shape, file[key].dtype) == (shape, dtype), key
            expected = [getattr(view, key) for view in scene.views]
            expected = [np.nan if value is None else value for value in expected]
            np.testing.assert_array_equal(file[key], np.stack([np.asarray(value) for value in expected]))
        assert file["names"].tolist() == ["photo0.jpg", "küche 1.jpg", "photo2.jpg"]
        assert str(file["scale"]) == "relative"
        assert str(file["scale_source"]) == "the network's own unit"
    with zipfile.ZipFile(tmp_path / "room.npz") as archive:
        assert archive.testzip() is None


def assert_same(a: Scene, b: Scene) -> None:
    assert a.scale == b.scale
    for view_a, view_b in zip(a.views, b.views, strict=True):
        for field in fields(View):
            left, right = getattr(view_a, field.name), getattr(view_b, field.name)
            if isinstance(left, np.ndarray):
                np.testing.assert_array_equal(left, right)
                assert left.dtype == right.dtype
            else:
                assert left == right


def test_a_scene_comes_back_as_it_was(scene, tmp_path):
    metric = replace(scene, scale=Scale(ScaleKind.METRIC, "known door height", 0.01, 0.02, 0.1))
    for original in (scene, metric):
        original.save(tmp_path / "ROOM.NPZ")
        assert_same(read_npz(tmp_path / "ROOM.NPZ"), original)


def test_files_of_earlier_releases_lack_the_origin_of_pictures(scene, tmp_path):
    views = (
        replace(scene.views[0], source_path="/photos/a.jpg", frame_index=7, focal_measured=False),
        *scene.views[1:],
    )
    with_origin = replace(scene, views=views)
    write_npz(with_origin, tmp_path / "new.npz")
    assert_same(read_npz(tmp_path / "new.npz"), with_origin)
    with np.load(tmp_path / "new.npz") as file:
        np.savez(
            tmp_path / "old.npz", **{key: file[key] for key in file if key not in (*ORIGIN_KEYS, *SCALE_KEYS)}
        )
    assert_same(read_npz(tmp_path / "old.npz"), scene)


def test_the_same_scene_gives_the_same_bytes(scene, tmp_path):
    write_npz(scene, tmp_path / "a.npz")
    write_npz(scene, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_arrays_in_any_memory_layout_are_written_alike(scene, make_view, tmp_path):
    view = scene.views[0]
    strided = replace(view, points_camera=np.asfortranarray(view.points_camera), rgb=view.rgb[..., ::-1])
    Scene((strided,), scene.scale).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["points_camera"][0], view.points_camera)
        np.testing.assert_array_equal(file["rgb"][0], view.rgb[..., ::-1])


def test_a_failure_in_the_middle_leaves_no_file(scene, tmp_path, monkeypatch):
    (tmp_path / "room.npz").write_bytes(b"old")
    calls = []

    def fail_on_the_second_view(view):
        calls.append(view)
        if len(calls) == 2:
            raise RuntimeError("stop")
        return view.points_camera

    monkeypatch.setattr(View, "points_world", property(fail_on_the_second_view))
    with pytest.raises(RuntimeError, match="stop"):
        scene.save(tmp_path / "room.npz")
    assert os.listdir(tmp_path) == ["room.npz"]
    assert (tmp_path / "room.npz").read_bytes() == b"old"


def test_saving_to_a_folder_is_refused(scene, tmp_path):
    (tmp_path / "room.npz").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        scene.save(tmp_path / "room.npz")


def test_files_that_are_no_scene_are_refused(scene, tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match="readable scene file"):
        read_npz(path)
    for content in (b"", b"not a zip", b"PK\x03\x04broken"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="readable scene file"):
            read_npz(path)
    np.savez(path, rgb=np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="lacks points_camera"):
        read_npz(path)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(InputError, match="scene file"):
        read_npz(tmp_path / "b.npy")
    scene.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="readable scene file"):
        read_npz(path)


def test_a_newer_format_and_an_unknown_scale_are_refused(scene, tmp_path):
    scene.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "b.npz", **{**arrays, "format_version": np.int64(99)})
    with pytest.raises(InputError, match="version 99: update"):
        read_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **{**arrays, "scale": np.array("parsec")})
    with pytest.raises(InputError, match="parsec"):
        read_npz(tmp_path / "c.npz")


@pytest.mark.parametrize("place", range(0, 60, 2))
def test_files_damaged_anywhere_are_told(scene, tmp_path, place):
    """Such as a method of compression that no program knows, at which zipfile says it is not implemented."""
    scene.save(tmp_path / "room.npz")
    content = bytearray((tmp_path / "room.npz").read_bytes())
    directory = content.rindex(b"PK\1\2")
    content[directory + place : directory + place + 2] = b"\x62\x62"
    (tmp_path / "room.npz").write_bytes(content)
    with contextlib.suppress(InputError):
        read_npz(tmp_path / "room.npz")


def test_a_method_of_compression_that_nobody_knows_is_told(scene, tmp_path):
    scene.save(tmp_path / "room.npz")
    content = bytearray((tmp_path / "room.npz").read_bytes())
    directory = content.index(b"PK\1\2")
    content[directory + 10 : directory + 12] = b"\x62\x62"
    (tmp_path / "room.npz").write_bytes(content)
    with pytest.raises(InputError, match="readable scene file"):
        read_npz(tmp_path / "room.npz")
