"""Scenes as one page: what stands in the file, and that it asks for nothing."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from g2vlm.errors import OutputError
from g2vlm.export.page import static_page
from g2vlm.export.page.packing import along_curve, pack_points, unpack_colors, unpack_positions
from g2vlm.scene.ground import find_ground
from g2vlm.scene.scene import Scene


def header_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="header">(.*?)</script>', page)[1])


def test_points_come_back_to_within_a_chunks_last_bit(room):
    cloud = room.point_cloud(normals=True)
    packed = pack_points(cloud)
    order = along_curve(cloud.points)
    step = packed.chunk_boxes[:, 3:].max() / 65535
    np.testing.assert_allclose(unpack_positions(packed), cloud.points[order], atol=0.51 * step + 1e-6)
    colors = unpack_colors(packed)
    np.testing.assert_array_equal(colors[:, :3], cloud.colors[order])
    np.testing.assert_allclose(colors[:, 3] / 255, cloud.confidence[order], atol=0.5 / 255 + 1e-6)


def test_an_outlier_far_away_does_not_coarsen_the_others(room):
    cloud = room.point_cloud(normals=True)
    points = cloud.points.copy()
    points[100] = 1e6
    packed = pack_points(replace(cloud, points=points))
    error = np.abs(unpack_positions(packed) - points[along_curve(points)]).max(axis=1)
    # Only its own chunk suffers.
    assert np.sort(error)[-4096 - 1] < 1e-3


def test_the_page_asks_for_nothing_from_elsewhere(room):
    page = static_page(room, max_points=2000)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", page)


def test_names_of_photos_cannot_become_markup(room):
    hostile = "</script><script>alert(1)</script>@POINTS@@SCRIPT@.png"
    views = (replace(room.views[0], name=hostile), *room.views[1:])
    page = static_page(replace(room, views=views), max_points=500)
    assert "<script>alert" not in page
    assert header_of(page)["views"][0]["name"] == hostile


def test_header_says_scale_and_cameras(room):
    told = header_of(static_page(room, max_points=1000, frusta=False))
    assert (told["unit"], told["scale"], told["scale_source"]) == ("m", "metric", "the renderer")
    assert told["frusta"] is False
    pose = np.reshape(told["views"][1]["T_world_camera"], (4, 4))
    np.testing.assert_allclose(pose, room.views[1].T_world_camera, atol=1e-6)
    assert told["chunk_starts"][-1] <= 1000


def test_saving_twice_gives_the_same_bytes(room, tmp_path):
    first, second = (room.save(tmp_path / name) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


def test_a_scene_without_points_is_refused(room):
    empty = replace(room, views=tuple(replace(v, valid=np.zeros_like(v.valid)) for v in room.views))
    with pytest.raises(OutputError, match="filter less"):
        static_page(empty)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_the_floor_is_found_however_the_world_lies(room, tilt):
    from scipy.spatial.transform import Rotation

    # The renderer's own world: y down, its floor at the largest y.
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_rotvec([tilt, -tilt, 2 * tilt]).as_matrix()
    moved: Scene = room.transformed(turned)
    ground = find_ground(moved)
    plain = find_ground(room)
    assert np.degrees(np.arccos(np.clip(ground.up @ turned[:3, :3] @ plain.up, -1, 1))) < 1
    assert abs(ground.height - plain.height) < 0.03
    below = room.point_cloud().points @ plain.up < plain.height - 0.05
    assert below.mean() < 0.01
