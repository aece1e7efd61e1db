"""Depth and normals at the size of the photos, read back by OpenCV, Pillow, OpenEXR and numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendered_room import true_depth
from scipy.ndimage import maximum_filter, minimum_filter

from g2vlm.export.upsampling import depth_at_original
from g2vlm.scene.coloring import view_normals
from g2vlm.scene.save_options import MapFiles, SaveOptions, Upsampling
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene


def facts(folder: Path) -> dict:
    return json.loads((folder / "g2vlm.json").read_text())


def test_png_depth_counts_millimetres_of_the_original_pixels(room, tmp_path):
    folder = room.save(tmp_path / "depth")
    told, true = facts(folder), true_depth()
    assert told["unit_per_count"] == 0.001
    for index, (view, entry) in enumerate(zip(room.views, told["views"], strict=True)):
        counts = np.asarray(Image.open(folder / entry["file"]))
        assert counts.dtype == np.uint16
        assert counts.shape[::-1] == view.original_size
        error = np.abs(counts * 0.001 - true[index]) / true[index]
        assert np.median(error) < 0.001
        np.testing.assert_allclose(entry["K"], view.K_original, rtol=1e-5)


def test_a_scene_of_unknown_unit_uses_the_whole_range(room, tmp_path):
    relative = Scene(room.views, Scale(ScaleKind.RELATIVE, "test"))
    folder = relative.save(tmp_path / "depth", SaveOptions(upsampling=Upsampling.NEAREST))
    told = facts(folder)
    counts = [np.asarray(Image.open(folder / entry["file"])) for entry in told["views"]]
    assert 65_000 < max(each.max() for each in counts) <= 65_535
    near = depth_at_original(room.views[0], Upsampling.NEAREST)
    np.testing.assert_allclose(counts[0] * told["unit_per_count"], near, atol=told["largest_rounding_error"])


@pytest.mark.parametrize("files", [MapFiles.EXR, MapFiles.NPY])
def test_float_maps_come_back_exactly(room, tmp_path, files):
    options = SaveOptions(maps=files, upsampling=Upsampling.LINEAR)
    for kind in ("depth", "normals"):
        folder = room.save(tmp_path / kind, options)
        for view, entry in zip(room.views, facts(folder)["views"], strict=True):
            found = read_floats(folder / entry["file"])
            assert found.shape[1::-1] == view.original_size
            if kind == "depth":
                np.testing.assert_array_equal(found, depth_at_original(view, Upsampling.LINEAR))
            else:
                np.testing.assert_array_equal(found[1::3, 1::3], view_normals(view))


def read_floats(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    openexr = pytest.importorskip("OpenEXR")  # OpenCV's wheels are built without
    (channel,) = openexr.File(str(path)).channels().values()
    return channel.pixels


def test_normals_in_png_are_unit_vectors_that_face_the_camera(room, tmp_path):
    import cv2

    folder = room.save(tmp_path / "normals")
    levels = cv2.imread(str(folder / facts(folder)["views"][0]["file"]), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert levels.dtype == np.uint16
    normals = (levels.astype(float) - 32767.5) / 32767.5
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-4)
    assert (normals[1::3, 1::3] * room.views[0].points_camera).sum(axis=-1).max() < 0.01


def test_unknown_pixels_are_zero(room, tmp_path):
    clean = room.filtered(min_confidence=0.6)
    folder = clean.save(tmp_path / "depth", SaveOptions(maps=MapFiles.NPY))
    depth = np.load(folder / facts(folder)["views"][0]["file"])
    np.testing.assert_array_equal(depth[1::3, 1::3] > 0, clean.views[0].valid)


def test_edges_of_the_photo_make_edges_of_depth(room):
    """At depth edges the guided way has less than half of the error of the others; elsewhere hardly more."""
    true, error = true_depth(), {}
    for way in Upsampling:
        at_edges, elsewhere = [], []
        for index, view in enumerate(room.views):
            photo = np.asarray(Image.open(view.source_path))
            off = np.abs(depth_at_original(view, way, photo) - true[index]) / true[index]
            step = maximum_filter(true[index], 7) - minimum_filter(true[index], 7) > 0.05 * true[index]
            at_edges.append(off[step])
            elsewhere.append(off[~step])
        error[way] = np.concatenate(at_edges).mean(), np.concatenate(elsewhere).mean()
    assert error[Upsampling.EDGES][0] < 0.6 * error[Upsampling.LINEAR][0]
    assert error[Upsampling.EDGES][0] < 0.5 * error[Upsampling.NEAREST][0]
    assert error[Upsampling.LINEAR][1] < 5e-4
    assert error[Upsampling.EDGES][1] < 1e-3


def test_previews_show_near_things_red_and_far_ones_blue(room, tmp_path):
    folder = room.save(tmp_path / "previews")
    files = sorted(path.name for path in folder.glob("*.png"))
    assert len(files) == 3 * len(room)
    view = room.views[0]
    colors = np.asarray(Image.open(folder / "photo_0_depth.png"), float)
    near, far = view.depth < np.percentile(view.depth, 5), view.depth > np.percentile(view.depth, 95)
    redness = colors[..., 0] - colors[..., 2]
    assert redness[near].mean() > redness[far].mean() + 50
