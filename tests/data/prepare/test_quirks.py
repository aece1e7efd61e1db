"""Quirks of published files that no miniature of a whole data set shows."""

import json
from pathlib import Path

import numpy as np
import pytest
from exact_room import exact_views, render
from miniatures import save_depth, save_png

pytest.importorskip("pyarrow", reason="prepared data need the extra data")

from g2vlm.data.prepare.admission import Choice, posed_frames
from g2vlm.data.prepare.colmap_files import read_cameras, read_images
from g2vlm.data.prepare.indoor.seven_scenes import SevenScenes
from g2vlm.data.prepare.layout import Drops, ListedFrame
from g2vlm.data.prepare.own.frames_json import FramesJson, groups_of
from g2vlm.data.prepare.own.nerfstudio import Nerfstudio
from g2vlm.data.prepare.registration import carried_depth


def test_a_negative_focal_length_mirrors_camera_and_world(tmp_path: Path) -> None:
    """ICL-NUIM: y of the camera points up, in a world that is a mirror image."""
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    frames = {}
    views = exact_views(3)
    for k, view in enumerate(views):
        save_png(view, tmp_path / f"{k}.png")
        K = view.K.copy()
        K[1, 1] *= -1
        pose = mirror @ view.T_world_camera @ mirror
        frames[str(k)] = {"image": f"{k}.png", "K": K.tolist(), "T_world_camera": pose.tolist()}
    (tmp_path / "frames.json").write_text(json.dumps({"frames": frames}))
    found = list(posed_frames(FramesJson(), tmp_path, ".", Choice(), Drops()))
    for frame, view in zip(found, views, strict=True):
        np.testing.assert_allclose(frame.K, view.K)
        np.testing.assert_allclose(frame.T_world_camera, view.T_world_camera, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (np.diag([1.0, 1.0, -1.0, 1.0]), "its pose mirrors space"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), "its pose is no rigid motion"),
        (np.full((4, 4), np.nan), "its pose is not finite"),
    ],
)
def test_impossible_poses_are_left_out(tmp_path: Path, change: np.ndarray, reason: str) -> None:
    save_png(exact_views(1)[0], tmp_path / "a.png")

    class Broken(FramesJson):
        def frames(self, root, scene, drop):
            yield ListedFrame("a", root / "a.png", exact_views(1)[0].K, change)

        def scale_of(self, root, scene):
            return self.scale

    drops = Drops()
    assert list(posed_frames(Broken(), tmp_path, ".", Choice(), drops)) == []
    assert dict(drops.counts) == {reason: 1}


def test_depth_of_another_camera_is_carried_over() -> None:
    view = exact_views(1, 320, 240)[0]
    K_depth = np.array([[290.0, 0, 160], [0, 290, 120], [0, 0, 1]])
    K_colour = np.array([[262.0, 0, 160], [0, 262, 120], [0, 0, 1]])
    T_colour_depth = np.eye(4)
    T_colour_depth[0, 3] = -0.025
    source = render(view.T_world_camera, K_depth, (320, 240))
    truth = render(view.T_world_camera @ np.linalg.inv(T_colour_depth), K_colour, (320, 240))
    carried = carried_depth(source.depth, K_depth, T_colour_depth, K_colour)
    known = carried > 0
    assert known[20:-20, 20:-20].mean() > 0.97
    error = np.abs(carried - truth.depth)[known] / truth.depth[known]
    assert np.median(error) < 0.002
    assert (error < 0.02).mean() > 0.98
    # Left as it is, the depth would be wrong by the difference of the two cameras.
    assert np.median(np.abs(source.depth - truth.depth) / truth.depth) > 3 * np.median(error)


def test_published_7_scenes_depth_is_registered(tmp_path: Path) -> None:
    view, folder = exact_views(1, 640, 480)[0], tmp_path / "chess" / "seq-01"
    stem = folder / "frame-000000"
    save_png(view, stem.with_name("frame-000000.color.png"))
    save_depth(np.full((480, 640), 2.0), stem.with_name("frame-000000.depth.png"), 1000)
    np.savetxt(stem.with_name("frame-000000.pose.txt"), view.T_world_camera)
    (frame,) = posed_frames(SevenScenes(), tmp_path, "chess/seq-01", Choice(), Drops())
    assert frame.K[0, 0] == 525.0
    # Seen by a wider camera, a wall leaves a border without depth.
    assert frame.depth_m is not None
    assert not (frame.depth_m[:, :10] > 0).any()
    assert abs(np.median(frame.depth_m[frame.depth_m > 0]) - 2.0) < 0.03


def test_bent_pictures_are_straightened(tmp_path: Path) -> None:
    import cv2
    from PIL import Image

    view = exact_views(1, 320, 240)[0]
    K, k1 = view.K, -0.12
    u, v = np.meshgrid(np.arange(320.0), np.arange(240.0))
    points = np.stack([u.ravel(), v.ravel()], axis=-1)[:, None]
    straight = cv2.undistortPoints(points, K, np.array([k1, 0, 0, 0.0]), P=K).reshape(240, 320, 2)
    x, y = straight[..., 0].astype(np.float32), straight[..., 1].astype(np.float32)
    bent = cv2.remap(view.rgb, x, y, cv2.INTER_LINEAR)
    Image.fromarray(bent).save(tmp_path / "a.png")
    pose = view.T_world_camera @ np.diag([1.0, -1.0, -1.0, 1.0])
    content = {
        "w": 320, "h": 240, "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5,
        "k1": k1, "frames": [{"file_path": "a.png", "transform_matrix": pose.tolist()}],
    }  # fmt: skip
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    (frame,) = posed_frames(Nerfstudio(), tmp_path, ".", Choice(), Drops())
    inner = np.s_[30:-30, 30:-30]
    before = np.abs(bent.astype(float) - view.rgb)[inner].mean()
    after = np.abs(frame.pixels().astype(float) - view.rgb)[inner].mean()
    assert after < 0.5 * before


def test_binary_models_are_read_as_pycolmap_writes_them(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    from miniatures import write_colmap

    views = exact_views(3)
    write_colmap(tmp_path / "text", views, ["a.png", "b.png", "c.png"])
    model = pycolmap.Reconstruction(str(tmp_path / "text"))
    (tmp_path / "binary").mkdir()
    model.write_binary(str(tmp_path / "binary"))
    assert {number: camera.K.tolist() for number, camera in read_cameras(tmp_path / "binary").items()} == {
        number: camera.K.tolist() for number, camera in read_cameras(tmp_path / "text").items()
    }
    for image, view in zip(read_images(tmp_path / "binary"), views, strict=True):
        np.testing.assert_allclose(image.T_world_camera, view.T_world_camera, atol=1e-9)


def test_groups_are_read(tmp_path: Path) -> None:
    (tmp_path / "frames.json").write_text(json.dumps({"frames": {}, "groups": [["a", "b"], ["c"]]}))
    assert groups_of(tmp_path) == [["a", "b"], ["c"]]
