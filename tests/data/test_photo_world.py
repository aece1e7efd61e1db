"""The photographic world: exact truth, seeds, and what it is without any files."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.cameras import PathKind, make_path
from g2vlm.data.world.config import World
from g2vlm.data.world.furniture import Shape
from g2vlm.data.world.photo.library import open_library, the_library
from g2vlm.data.world.photo.packing import INDEX_FILE, LibraryWriter, MeshEntry, Triangles
from g2vlm.data.world.photo.raster import FAR_M, Cameras, Soup, rasterise
from g2vlm.data.world.photo.rooms import PhotoRoom, make_photo_room
from g2vlm.data.world.photo.shell import Kind
from g2vlm.data.world.photo.solids import unit_solid
from g2vlm.data.world.places import make_place
from g2vlm.errors import InputError
from g2vlm.geometry.cameras import unproject
from g2vlm.geometry.poses import invert_pose, transform_points
from g2vlm.training.sources.pictures import PictureStore

CONFIG = World.PHOTO.config
SHAPE = ViewShape(2, 42, 56)


def _write_library(folder: Path) -> None:
    """A stand-in for the photographs: a few noisy textures, one crate, one sky."""
    rng = np.random.default_rng(0)
    writer = LibraryWriter()
    for use in ("wall", "floor", "wood", "fabric", "metal", "ground", "picture", "ceiling", "mesh"):
        pixels = rng.integers(40, 220, (32, 32, 4)).astype(np.uint8)
        pixels[..., 3] = 255
        writer.add_texture(use, use, pixels)
    corners, normals = unit_solid(Shape.BOX)
    corners = (corners * 0.25 + [0.0, 0.25, 0.0]).astype(np.float32)
    faces = np.tile(np.array([8.0, 1.0, 1.0, 1.0, 0.1]), (len(corners), 1))
    faces[::2, 0] = -1
    triangles = Triangles(corners, corners[..., :2], normals, faces)
    for noun, place in (("crate", "FREE"), ("cabinet", "WALL"), ("mug", "TOP")):
        entry = MeshEntry(noun, noun, place, 0, 0, (0.5, 0.5, 0.5), 0.0, 0.5, "red", "CC0", "a test")
        writer.add_mesh(entry, triangles)
    writer.panoramas.append(np.full((128, 256, 3), 2.0))
    writer.panorama_names.append("sky")
    writer.write(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    _write_library(folder)
    return folder


@pytest.fixture(autouse=True)
def _without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2VLM_ASSETS", str(tmp_path / "none"))


def _soup(num: int) -> Soup:
    generator = torch.Generator().manual_seed(3)
    middle = torch.randn(num, 1, 3, generator=generator) * torch.tensor([2.0, 1.5, 2.0]) + torch.tensor(
        [0, 0, 3.0]
    )
    corners = middle + 0.7 * torch.randn(num, 3, 3, generator=generator)
    texels = torch.randint(0, 255, (64, 4), generator=generator, dtype=torch.uint8)
    alpha = torch.where(torch.arange(num) % 3 == 0, 0, -1)
    side = torch.full((num,), 8, dtype=torch.int32)
    return Soup(corners.contiguous(), torch.rand(num, 3, 2, generator=generator), alpha, side, texels)


def _cameras(num: int) -> Cameras:
    K = torch.tensor([[30.0, 0.0, 23.5], [0.0, 31.0, 17.5], [0.0, 0.0, 1.0]]).expand(2, 3, 3)
    T = torch.eye(4).repeat(2, 1, 1)
    T[1, :3, 3] = torch.tensor([0.1, -0.2, -2.5])
    return Cameras(T, K, (0, num // 2), (num, num), 36, 48)


def test_fast_and_plain_rasterisation_agree() -> None:
    soup, cameras = _soup(60), _cameras(60)
    depth, index = rasterise(soup, cameras)
    plain_depth, plain_index = rasterise(soup, cameras, plain=True)
    assert (index == plain_index).float().mean() > 0.998
    same = index == plain_index
    torch.testing.assert_close(depth[same], plain_depth[same], rtol=1e-4, atol=1e-4)
    assert (index >= 0).float().mean() > 0.2
    assert (depth[index < 0] == FAR_M).all()


def test_depth_is_where_the_ray_meets_the_plane() -> None:
    soup, cameras = _soup(40), _cameras(40)
    depth, index = rasterise(soup, cameras)
    v, u = (index[0] >= 0).nonzero(as_tuple=True)
    ray = torch.stack([(u - 23.5) / 30.0, (v - 17.5) / 31.0, torch.ones(len(u))], dim=-1).double()
    corners = soup.corners[index[0, v, u].long()].double()
    normal = (corners[:, 1] - corners[:, 0]).cross(corners[:, 2] - corners[:, 0], -1)
    expected = (corners[:, 0] * normal).sum(-1) / (ray * normal).sum(-1)
    error = (depth[0, v, u].double() / expected - 1).abs()
    assert error.median() < 1e-5
    assert error.quantile(0.98) < 1e-3


@pytest.mark.parametrize("seed", [1, 4])
def test_views_agree_about_the_surfaces(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2VLM_ASSETS", str(folder))
    room = make_place(seed, CONFIG)
    batch = render_batch(CONFIG, [room], ViewShape(2, 84, 112), kind=PathKind.PAIR)
    first, second = batch.sample(0).depth
    points = transform_points(batch.T_world_camera[0, :1], unproject(first[None], batch.K[0, :1]))[0]
    local = transform_points(invert_pose(batch.T_world_camera[0, 1]), points[batch.valid[0, 0]])
    K = batch.K[0, 1]
    u = (K[0, 0] * local[:, 0] / local[:, 2] + K[0, 2]).round().long()
    v = (K[1, 1] * local[:, 1] / local[:, 2] + K[1, 2]).round().long()
    inside = (local[:, 2] > 0.1) & (u >= 0) & (u < 112) & (v >= 0) & (v < 84)
    seen = second[v[inside], u[inside]]
    ratio = local[inside, 2] / seen
    # What one view sees is in the other at the same distance or hidden behind something nearer.
    assert inside.sum() > 500
    assert ((ratio - 1).abs() < 0.03).float().mean() > 0.6
    assert (ratio < 0.9).float().mean() < 0.1


def test_equal_seeds_give_equal_pictures_in_any_batch() -> None:
    rooms = [make_place(seed, CONFIG) for seed in (5, 6)]
    together = render_batch(CONFIG, rooms, SHAPE)
    alone = render_batch(CONFIG, [make_place(6, CONFIG)], SHAPE)
    torch.testing.assert_close(together.images[1], alone.images[0], rtol=0, atol=0.02)
    assert torch.equal(together.depth[1], alone.depth[0])
    assert torch.equal(together.instance[1], alone.instance[0])
    assert not torch.equal(together.depth[0], together.depth[1])
    assert float(together.images.min()) >= 0.0
    assert float(together.images.max()) <= 1.0


def test_normals_are_unit_and_face_the_camera() -> None:
    batch = render_batch(CONFIG, [make_place(2, CONFIG)], SHAPE)
    normals = batch.normals[batch.valid]
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)), atol=1e-4, rtol=0)
    rays = unproject(batch.depth[0], batch.K[0])[batch.valid[0]]
    assert ((normals * rays).sum(-1) <= 1e-4).all()


def test_the_sky_has_no_depth() -> None:
    yard = next(
        room
        for room in (make_place(seed, CONFIG) for seed in range(60))
        if isinstance(room, PhotoRoom) and room.kind is Kind.YARD
    )
    batch = render_batch(CONFIG, [yard], ViewShape(4, 42, 56))
    assert not batch.valid.all()
    assert batch.valid.float().mean() > 0.2
    assert bool(torch.isfinite(batch.depth).all())


def test_a_library_survives_writing(folder: Path) -> None:
    assets = open_library(folder)
    assert assets.is_photographic
    assert [entry.noun for entry in assets.meshes] == ["crate", "cabinet", "mug"]
    nouns = {thing.noun for seed in range(6) for thing in make_photo_room(seed, CONFIG, assets).objects}
    assert "crate" in nouns
    crate = assets.mesh(assets.meshes[0])
    assert len(crate.corners) == 12
    assert len(assets.plain_groups(assets.meshes[0])) == 1


def test_another_version_is_refused(tmp_path: Path) -> None:
    _write_library(tmp_path)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    (tmp_path / INDEX_FILE).write_text(json.dumps(index | {"version": 0}))
    with pytest.raises(InputError, match="collect_assets"):
        open_library(tmp_path)
    with pytest.raises(InputError, match="got none"):
        open_library(tmp_path / "elsewhere")


def test_without_files_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="g2vlm"):
        assert not the_library().is_photographic
    assert "procedural" in caplog.text


def test_turning_paths_stay_in_place() -> None:
    config = dataclasses.replace(CONFIG, turning_share=1.0)
    for seed in range(4):
        path = make_path(make_place(seed, config), config, 3)
        assert path.kind is PathKind.TURN
        position = path.T_world_camera[:, :3, 3]
        assert np.abs(position - position[0]).max() < 0.2


def test_stored_pictures_keep_what_is_valid(tmp_path: Path) -> None:
    store = PictureStore(tmp_path)
    first = store.load(World.PHOTO, [3, 9], SHAPE)
    again = store.load(World.PHOTO, [3, 9], SHAPE)
    assert torch.equal(first.valid, again.valid)
    assert torch.equal(first.images, again.images)
    assert first.valid.dtype == torch.bool


def test_meshes_are_not_mirrored(folder: Path) -> None:
    library = open_library(folder)
    room = make_photo_room(3, CONFIG, library)
    crates = [thing for thing in room.objects if thing.noun in ("crate", "cabinet", "mug")]
    turned = 0
    for thing in crates:
        corners = room.corners[room.owner == thing.instance]
        normals = room.normals[room.owner == thing.instance]
        if len(corners) != 12:
            continue
        # Seen from outside, the corners of the stand-in crate run the same way round as in its own frame.
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        own, own_normals = library.mesh(library.meshes[0]).corners, library.mesh(library.meshes[0]).normals
        expected = np.cross(own[:, 1] - own[:, 0], own[:, 2] - own[:, 0])
        same = np.sign((cross * normals[:, 0]).sum(-1)) == np.sign((expected * own_normals[:, 0]).sum(-1))
        assert same.all()
        turned += 1
    assert turned
