"""glTF files: by the letter of the format, by trimesh, and by the validator of Khronos if installed."""

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from g2vlm.errors import OutputError
from g2vlm.export.conventions import original_intrinsics
from g2vlm.export.frusta import EDGES
from g2vlm.export.gltf import LINES, POINTS, TRIANGLES, linear_colors
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene

FLIP = np.diag([1.0, -1, -1, 1])
VALIDATE = """
const validator = require('gltf-validator'), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


class Glb:
    """A plain reader of the container."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<II", data, 12)
        assert kind == 0x4E4F534A
        assert size % 4 == 0
        self.document = json.loads(data[20 : 20 + size])
        size_b, kind_b = struct.unpack_from("<II", data, 20 + size)
        assert kind_b == 0x004E4942
        self.buffer = data[28 + size :]
        assert size_b == len(self.buffer) == self.document["buffers"][0]["byteLength"]

    def array(self, index: int) -> np.ndarray:
        accessor = self.document["accessors"][index]
        view = self.document["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        kind = {5125: "<u4", 5126: "<f4"}[accessor["componentType"]]
        assert view["byteOffset"] % 4 == 0
        values = np.frombuffer(self.buffer, kind, accessor["count"] * width, view["byteOffset"])
        assert values.nbytes == view["byteLength"]
        return values.reshape(-1, width)

    def picture(self, texture: int) -> Image.Image:
        image = self.document["images"][self.document["textures"][texture]["source"]]
        view = self.document["bufferViews"][image["bufferView"]]
        data = self.buffer[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return Image.open(BytesIO(data))

    def primitive(self, node: int, place: int = 0) -> dict:
        return self.document["meshes"][self.document["nodes"][node]["mesh"]]["primitives"][place]


def validated(path: Path) -> dict:
    """What the validator of Khronos finds."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    command = [node, "-e", VALIDATE, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if "Cannot find module" in result.stderr:
        pytest.skip("the npm package gltf-validator is not installed (NODE_PATH)")
    return json.loads(result.stdout)


@pytest.mark.parametrize("target", ["glb", "mesh", "tsdf"])
def test_the_validator_of_khronos_has_no_complaint(room, tmp_path, target):
    if target == "tsdf":
        pytest.importorskip("skimage")
    issues = validated(room.save(f"{target}:{tmp_path / 'room.glb'}"))
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues


def test_points_are_turned_to_y_up_and_colours_are_linear_light(room, tmp_path):
    glb = Glb(room.save(tmp_path / "room.glb"))
    cloud = room.point_cloud()
    primitive = glb.primitive(0)
    assert primitive["mode"] == POINTS
    np.testing.assert_array_equal(glb.array(primitive["attributes"]["POSITION"]), cloud.points * [1, -1, -1])
    linear = glb.array(primitive["attributes"]["COLOR_0"])
    # Back to bytes by the inverse of sRGB's curve: not one colour changes.
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal(np.rint(encoded * 255), cloud.colors)
    accessor = glb.document["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_array_equal(accessor["min"], (cloud.points * [1, -1, -1]).min(axis=0))
    np.testing.assert_array_equal(accessor["max"], (cloud.points * [1, -1, -1]).max(axis=0))
    extras = glb.document["scenes"][0]["extras"]
    np.testing.assert_array_equal(extras["T_gltf_world"], FLIP)
    assert (extras["unit"], extras["scale_source"]) == ("m", "the renderer")


def test_middle_grey_is_a_fifth_of_the_light():
    np.testing.assert_allclose(linear_colors(np.uint8([[0, 128, 255]])), [[0, 0.21586, 1]], atol=1e-5)


def test_cameras_see_what_the_photos_see(room, tmp_path):
    """Projecting by the file's cameras alone, as any viewer does, lands on the pixels of the scene."""
    glb = Glb(room.save(tmp_path / "room.glb"))
    nodes = [node for node in glb.document["nodes"] if "camera" in node]
    assert [node["extras"]["name"] for node in nodes] == [view.name for view in room.views]
    for node, view in zip(nodes, room.views, strict=True):
        T_world_camera = np.reshape(node["matrix"], (4, 4)).T
        points = view.points_world[view.valid][::97] * [1, -1, -1]
        camera = np.linalg.solve(T_world_camera, np.c_[points, np.ones(len(points))].T)[:3]
        lens = glb.document["cameras"][node["camera"]]["perspective"]
        half = np.tan(lens["yfov"] / 2)
        assert (camera[2] < 0).all()
        ndc = camera[:2] / -camera[2] / [[half * lens["aspectRatio"]], [half]]
        width, height = view.original_size
        pixels = np.stack([(ndc[0] + 1) * width / 2 - 0.5, (1 - ndc[1]) * height / 2 - 0.5], axis=1)
        v, u = np.mgrid[: view.height, : view.width]
        own = (np.linalg.inv(view.T_model_original) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1))[:2].T
        np.testing.assert_allclose(pixels, own[view.valid.ravel()][::97], atol=0.01)


def test_frusta_end_at_the_borders_of_the_photo_and_show_it_upright(room, tmp_path):
    glb = Glb(room.save(tmp_path / "room.glb"))
    view = room.views[0]
    lines, base = glb.primitive(1, 0), glb.primitive(1, 1)
    assert (lines["mode"], base["mode"]) == (LINES, TRIANGLES)
    corners = glb.array(lines["attributes"]["POSITION"])
    np.testing.assert_array_equal(glb.array(lines["indices"]).reshape(-1, 2), EDGES)
    assert not corners[0].any()
    K = original_intrinsics(view)
    pixels = corners[1:, :2] / -corners[1:, 2:] * [K[0, 0], -K[1, 1]] + K[:2, 2]
    width, height = view.original_size
    borders = [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]]
    np.testing.assert_allclose(pixels, borders, atol=1e-3)
    np.testing.assert_allclose(glb.array(base["attributes"]["TEXCOORD_0"]), [[0, 0], [1, 0], [1, 1], [0, 1]])
    texture = glb.document["materials"][base["material"]]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    picture = glb.picture(texture)
    assert all(side & (side - 1) == 0 for side in picture.size)
    small = np.asarray(picture.convert("L").resize((16, 12)), float)
    expected = np.asarray(Image.fromarray(view.rgb).convert("L").resize((16, 12)), float)
    assert np.corrcoef(small.ravel(), expected.ravel())[0, 1] > 0.98


def test_trimesh_reads_points_and_places_them(room, tmp_path):
    loaded = trimesh.load(room.save(tmp_path / "room.glb", SaveOptions(frusta=False)))
    (points,) = loaded.geometry.values()
    assert isinstance(points, trimesh.PointCloud)
    np.testing.assert_allclose(points.vertices, room.point_cloud().points * [1, -1, -1], rtol=1e-6)
    expected = linear_colors(room.point_cloud().colors) * 255
    np.testing.assert_allclose(points.colors[:, :3], expected, atol=1.01)


def test_a_mesh_wears_the_original_photo(room, tmp_path):
    glb = Glb(room.save(f"mesh:{tmp_path / 'room.glb'}"))
    view = room.views[0]
    primitive = glb.primitive(0)
    texture = glb.document["materials"][primitive["material"]]["pbrMetallicRoughness"]["baseColorTexture"][
        "index"
    ]
    picture = np.asarray(glb.picture(texture), np.float64)
    assert picture.shape[1::-1] == view.original_size
    uv = glb.array(primitive["attributes"]["TEXCOORD_0"]) * view.original_size
    column, row = np.floor(uv).astype(int).T
    position = glb.array(primitive["attributes"]["POSITION"]) * [1, -1, -1]
    world = view.points_world.reshape(-1, 3)
    place = {tuple(point): index for index, point in enumerate(world.tolist())}
    own = view.rgb.reshape(-1, 3)[[place[tuple(point)] for point in position.tolist()]]
    # Edges are sharper in the photo than in the network's image: most pixels agree closely, not all.
    assert np.median(np.abs(picture[row, column] - own)) < 4


def test_points_can_be_limited_and_frusta_left_out(room, tmp_path):
    glb = Glb(room.save(tmp_path / "room.glb", SaveOptions(max_points=500, frusta=False)))
    count = glb.document["accessors"][glb.primitive(0)["attributes"]["POSITION"]]["count"]
    assert 350 < count <= 500
    assert len(glb.document["nodes"]) == 1
    assert "cameras" not in glb.document


def test_a_scene_without_points_is_refused(room, tmp_path):
    view = room.views[0]
    nothing = Scene((replace(view, valid=np.zeros_like(view.valid)),), room.scale)
    for target in (tmp_path / "a.glb", f"mesh:{tmp_path / 'a.glb'}", f"gaussians:{tmp_path / 'a.ply'}"):
        with pytest.raises(OutputError, match="filter less"):
            nothing.save(target)
    assert not list(tmp_path.iterdir())
