"""The synthetic world: its geometry agrees with itself and with brute force, and seeds decide everything."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from g2vlm.data.samples import SceneBatch
from g2vlm.data.splits import Split, split_of, split_seeds
from g2vlm.data.synthetic import SyntheticBatches, ViewShape, render_batch, render_sample
from g2vlm.data.world.cameras import PathKind, make_path
from g2vlm.data.world.config import WorldConfig, easy_world, full_world
from g2vlm.data.world.furniture import Shape
from g2vlm.data.world.layout import Room, make_room
from g2vlm.data.world.textures import NUM_TEXTURES, TEXEL_M, TEXELS, sample_texture, texture_bank
from g2vlm.errors import InputError
from g2vlm.geometry.cameras import project
from g2vlm.geometry.edges import depth_edge_mask, normal_edge_mask, normals_from_points
from g2vlm.geometry.poses import invert_pose, transform_points

HEIGHT, WIDTH, VIEWS = 48, 64, 3


@pytest.fixture(scope="module")
def batch() -> SceneBatch:
    config = full_world()
    return render_batch(
        config, [make_room(seed, config) for seed in range(6)], ViewShape(VIEWS, HEIGHT, WIDTH)
    )


def nearest_by_brute_force(room: Room, origin: np.ndarray, direction: np.ndarray) -> tuple[float, int]:
    """Depth and instance along one ray, part after part in float64, written as differently as possible."""
    best, owner = math.inf, -1
    size = np.asarray(room.size_m)
    low, high = np.array([-size[0] / 2, -size[1], -size[2] / 2]), np.array([size[0] / 2, 0.0, size[2] / 2])
    for axis in range(3):
        for wall in (low[axis], high[axis]):
            t = (wall - origin[axis]) / direction[axis]
            if t > 0 and t < best:
                hit = origin + t * direction
                if all(low[k] - 1e-9 <= hit[k] <= high[k] + 1e-9 for k in range(3) if k != axis):
                    best, owner = t, 0
    for k in range(len(room.shape)):
        cos, sin = math.cos(room.yaw[k]), math.sin(room.yaw[k])
        turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        half = room.half[k].astype(float)
        o = turn.T @ (origin - room.centre[k]) / half
        d = turn.T @ direction / half
        for t in candidate_hits(Shape(int(room.shape[k])), o, d):
            if 0 < t < best:
                best, owner = t, int(room.instance[k])
    return best, owner


def candidate_hits(shape: Shape, o: np.ndarray, d: np.ndarray) -> list[float]:
    def on_plane(axis: int, side: float) -> float:
        return (side - o[axis]) / d[axis]

    def quadric(keep: list[int]) -> list[float]:
        roots = np.roots([d[keep] @ d[keep], 2 * o[keep] @ d[keep], o[keep] @ o[keep] - 1])
        return [r.real for r in roots if abs(r.imag) < 1e-12]

    hits = []
    if shape is Shape.BOX:
        for axis in range(3):
            for side in (-1.0, 1.0):
                t = on_plane(axis, side)
                if all(abs(o[k] + t * d[k]) <= 1 for k in range(3) if k != axis):
                    hits.append(t)
    elif shape is Shape.ELLIPSOID:
        hits = quadric([0, 1, 2])
    else:
        hits = [t for t in quadric([0, 2]) if abs(o[1] + t * d[1]) <= 1]
        for side in (-1.0, 1.0):
            t = on_plane(1, side)
            if (o[0] + t * d[0]) ** 2 + (o[2] + t * d[2]) ** 2 <= 1:
                hits.append(t)
    return hits


def test_depth_and_instance_against_brute_force(batch: SceneBatch) -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        scene, view = rng.integers(len(batch)), rng.integers(VIEWS)
        v, u = rng.integers(HEIGHT), rng.integers(WIDTH)
        K, T = batch.K[scene, view].double().numpy(), batch.T_world_camera[scene, view].double().numpy()
        ray = T[:3, :3] @ np.array([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], 1.0])
        depth, owner = nearest_by_brute_force(batch.rooms[scene], T[:3, 3], ray)
        same = abs(batch.depth[scene, view, v, u].item() - depth) < 1e-3 * depth
        wrong += not (same and batch.instance[scene, view, v, u].item() == owner)
    # Rays that graze an edge may fall on either side of it.
    assert wrong <= 2


def test_points_reproject_onto_the_depth_of_other_views(batch: SceneBatch) -> None:
    points = batch.points_world()
    seen = compared = 0
    for target in range(VIEWS):
        T_camera_world = invert_pose(batch.T_world_camera[:, target])
        moved = transform_points(T_camera_world[:, None], points)
        pixel = project(moved, batch.K[:, target][:, None])
        grid = pixel / torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]) - 1
        flat = grid.flatten(1, 2)
        depth = batch.depth[:, target, None]
        sampled = torch.nn.functional.grid_sample(1 / depth, flat, align_corners=True)[:, 0].reciprocal()
        # Interpolated inverse depth is exact on planes; edges are left out.
        edge = depth_edge_mask(batch.depth[:, target], 0.05).float()[:, None]
        near_edge = torch.nn.functional.grid_sample(edge, flat, align_corners=True)[:, 0] > 0
        z = moved[..., 2].flatten(1, 2)
        inside = (flat.abs().amax(-1) < 1) & (z > 0.1) & ~near_edge
        difference = (z - sampled) / sampled
        # Nothing can be seen through: no point lies clearly in front of what the other view sees.
        assert (difference[inside] < -0.06).float().mean() < 5e-3
        seen += (inside & (difference.abs() < 0.02)).sum().item()
        compared += inside.sum().item()
    assert seen / compared > 0.7


def test_neighbouring_views_overlap() -> None:
    config = easy_world()
    batch = render_batch(config, [make_room(seed, config) for seed in range(20, 30)], ViewShape(2, 24, 32))
    moved = transform_points(invert_pose(batch.T_world_camera[:, 1]), batch.points_world()[:, 0])
    u, v = project(moved, batch.K[:, 1]).unbind(-1)
    inside = (u > 0) & (u < 31) & (v > 0) & (v < 23) & (moved[..., 2] > 0)
    assert inside.float().mean() > 0.5


def test_normals_agree_with_finite_differences(batch: SceneBatch) -> None:
    T_camera_world = invert_pose(batch.T_world_camera)
    points = transform_points(T_camera_world, batch.points_world())
    numeric = normals_from_points(points)
    cosine = (numeric * batch.normals).sum(-1)
    assert torch.allclose(batch.normals.norm(dim=-1), torch.ones(()), atol=1e-4)
    # Across creases and steps a finite difference is no normal; round parts turn within a pixel or two.
    inside = ~depth_edge_mask(batch.depth, 0.1) & ~normal_edge_mask(batch.normals, 0.1)
    assert inside.float().mean() > 0.5
    assert (cosine[inside] > 0.99).float().mean() > 0.94
    # All normals face the camera.
    assert ((batch.normals * points).sum(-1) <= 1e-4).all()


def test_instances_lie_inside_the_boxes_of_their_objects(batch: SceneBatch) -> None:
    points = batch.points_world()
    checked = 0
    for index, room in enumerate(batch.rooms):
        for thing in room.objects:
            mine = points[index][batch.instance[index] == thing.instance].double()
            away = mine - torch.tensor(thing.centre_m, dtype=torch.float64)
            cos, sin = math.cos(thing.yaw_rad), math.sin(thing.yaw_rad)
            right = away[:, 0] * cos - away[:, 2] * sin
            ahead = away[:, 0] * sin + away[:, 2] * cos
            local = torch.stack([right, away[:, 1], ahead], dim=-1).abs()
            assert (local <= torch.tensor(thing.half_m, dtype=torch.float64) + 2e-3).all(), thing
            checked += len(mine) > 0
    assert checked > 20


def test_images_are_neither_dark_nor_burnt_nor_flat(batch: SceneBatch) -> None:
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    per_view = batch.images.flatten(3).mean(dim=(2, 3))
    assert (per_view > 0.15).all()
    assert (per_view < 0.92).all()
    assert (batch.images.flatten(3).std(dim=-1).mean(dim=2) > 0.03).all()


def test_a_seed_decides_the_room_alone(batch: SceneBatch) -> None:
    config = full_world()
    again = render_batch(config, [make_room(4, config)], ViewShape(VIEWS, HEIGHT, WIDTH))
    assert torch.allclose(again.images[0], batch.images[4], atol=1e-5)
    assert torch.equal(again.instance[0], batch.instance[4])
    assert not torch.allclose(batch.images[3], batch.images[4], atol=0.1)


def test_layout_is_pinned() -> None:
    # Scene k must stay scene k: published figures name seeds.
    room = make_room(500_000, full_world())
    described = [thing.label for thing in room.objects]
    assert described[:3] == PINNED_OBJECTS
    np.testing.assert_allclose(room.size_m, PINNED_SIZE, rtol=1e-6)


PINNED_OBJECTS = ["black sofa", "white wardrobe", "purple desk"]
PINNED_SIZE = [6.023135548227178, 2.6772922390872695, 6.810125180512873]


def test_resolution_changes_the_pixels_but_not_the_place() -> None:
    config = full_world()
    small = render_sample(config, 11, ViewShape(2, 30, 40))
    large = render_sample(config, 11, ViewShape(2, 90, 120))
    assert torch.equal(small.T_world_camera, large.T_world_camera)
    # Every third pixel of the large image is the centre of a small one.
    middle = large.depth[:, 1::3, 1::3]
    assert ((middle - small.depth).abs() < 1e-3).float().mean() > 0.99


@pytest.mark.parametrize("config", [easy_world(), full_world()], ids=["easy", "full"])
def test_cameras_stand_in_free_space(config: WorldConfig) -> None:
    for seed in range(40):
        room = make_room(seed, config)
        for num_views in (1, 4):
            T = make_path(room, config, num_views).T_world_camera
            position = T[:, :3, 3]
            assert (np.abs(position[:, [0, 2]]) < np.asarray(room.size_m)[[0, 2]] / 2 - 0.2).all()
            assert (position[:, 1] < -0.3).all()
            assert (position[:, 1] > -room.size_m[1]).all()
            np.testing.assert_allclose(
                T[:, :3, :3] @ T[:, :3, :3].transpose(0, 2, 1),
                np.eye(3)[None].repeat(num_views, 0),
                atol=1e-9,
            )
            assert np.allclose(np.linalg.det(T[:, :3, :3]), 1)


def test_nothing_is_right_in_front_of_the_lens(batch: SceneBatch) -> None:
    assert batch.depth.min() > 0.15
    assert (batch.depth.flatten(2).median(dim=-1).values > 0.6).all()


def test_numbers_of_paths_and_kinds_give_different_cameras() -> None:
    config = full_world()
    room = make_room(7, config)
    first, second = make_path(room, config, 2, path=0), make_path(room, config, 2, path=1)
    assert not np.allclose(first.T_world_camera, second.T_world_camera)
    assert make_path(room, config, 3, kind=PathKind.WALK).kind in (PathKind.WALK, PathKind.PAIR)
    with pytest.raises(InputError, match="at least 1 view"):
        make_path(room, config, 0)


def test_an_orbit_keeps_the_configured_angles() -> None:
    config = dataclasses.replace(easy_world(), yaw_jitter_rad=0.0)
    spreads = []
    for seed in range(30):
        path = make_path(make_room(seed, config), config, 4, kind=PathKind.ORBIT)
        forward = path.T_world_camera[:, :3, 2]
        heading = np.arctan2(forward[:, 0], forward[:, 2])
        spreads.append(abs(np.angle(np.exp(1j * (heading[-1] - heading[0])))))
    # The scatter of positions turns the heading by a few more degrees.
    assert np.quantile(spreads, 0.9) < config.spread_rad + 0.2
    assert np.median(spreads) > 0.15


def test_batches_are_a_function_of_their_index() -> None:
    batches = SyntheticBatches(
        easy_world(), split_seeds(Split.TRAIN, 5), views=2, height=14, width=28, batch_size=2, repeats=2
    )
    assert len(batches) == 6
    sizes = [len(item) for item in batches]
    assert sizes == [2, 2, 1, 2, 2, 1]
    assert torch.equal(batches[1].images, batches[1].images)
    # The second pass sees the same room along another path.
    assert batches[3].rooms[0].seed == batches[0].rooms[0].seed
    assert not torch.equal(batches[3].T_world_camera, batches[0].T_world_camera)
    assert batches[-1].rooms[0].seed == batches[5].rooms[0].seed
    with pytest.raises(IndexError):
        batches[6]
    with pytest.raises(InputError, match="at least one seed"):
        SyntheticBatches(easy_world(), [], views=1, height=8, width=8)


def test_splits_do_not_meet() -> None:
    seeds = [set(split_seeds(split, 1000)) for split in Split]
    assert not (seeds[0] & seeds[1])
    assert not (seeds[0] & seeds[2])
    assert not (seeds[1] & seeds[2])
    for split in Split:
        assert split_of(split.seeds[0]) is split
        assert split_of(split.seeds[-1]) is split
    with pytest.raises(InputError, match="one of the splits"):
        split_of(-1)
    with pytest.raises(InputError, match="choose a smaller range"):
        split_seeds(Split.TEST, 10, first=10**6)


def test_configs_reject_impossible_ranges() -> None:
    with pytest.raises(InputError, match="fov_rad"):
        WorldConfig(fov_rad=(1.2, 0.8))
    with pytest.raises(InputError, match="lowest ceiling"):
        WorldConfig(camera_height_m=(1.0, 2.9))


def test_textures_are_bilinear_periodic_and_averaged_when_far() -> None:
    bank = texture_bank(torch.device("cpu"))
    side = TEXELS
    texels = bank.texels[: NUM_TEXTURES * side * side].view(NUM_TEXTURES, side, side)
    index = torch.tensor([3])

    def at(u: float, v: float, footprint_m: float = 0.001) -> Tensor:
        where = (torch.tensor([u]), torch.tensor([v]))
        return sample_texture(bank, index, where, torch.tensor([footprint_m]))

    centre = at((10 + 0.5) * TEXEL_M, (20 + 0.5) * TEXEL_M)
    torch.testing.assert_close(centre, texels[3, 20, 10][None], rtol=0, atol=1e-3)
    between = at(11 * TEXEL_M, (20 + 0.5) * TEXEL_M)
    torch.testing.assert_close(between, texels[3, 20, 10:12].mean()[None], rtol=0, atol=1e-3)
    torch.testing.assert_close(
        at(1.0, 2.0), at(1.0 - side * TEXEL_M, 2.0 + side * TEXEL_M), rtol=0, atol=2e-3
    )
    blurred = at(0.32, 0.32, footprint_m=0.8)
    torch.testing.assert_close(blurred, texels[3, :64, :64].mean()[None], rtol=0, atol=0.05)


def test_textures_do_not_repeat() -> None:
    bank = texture_bank(torch.device("cpu"))
    texels = bank.texels[: NUM_TEXTURES * TEXELS**2].view(NUM_TEXTURES, TEXELS, TEXELS)
    spectrum = torch.fft.rfft2(texels - texels.mean(dim=(1, 2), keepdim=True))
    correlation = torch.fft.irfft2(spectrum.abs().square(), s=(TEXELS, TEXELS))
    correlation = correlation / correlation[:, :1, :1]
    away = correlation.clone()
    # Beyond 60 cm from itself no texture resembles itself.
    reach = 60
    for rows in (slice(None, reach), slice(-reach, None)):
        for columns in (slice(None, reach), slice(-reach, None)):
            away[:, rows, columns] = 0
    assert away.amax(dim=(1, 2)).max() < 0.6


def test_lamps_cast_shadows_only_when_asked() -> None:
    config = full_world()
    rooms = [make_room(2, config)]
    shape = ViewShape(1, 24, 32)
    plain = render_batch(config, rooms, shape)
    shaded = render_batch(dataclasses.replace(config, shadow_rays=2), rooms, shape)
    assert torch.equal(plain.depth, shaded.depth)
    assert (shaded.images <= plain.images + 1e-5).all()
    assert (shaded.images < plain.images - 0.02).any()
