"""Batched ray casting of boxes, ellipsoids and cylinders: depth and which part each pixel sees.

All parts are unit shapes in a stretched frame of their own, so a ray is moved there and met in closed form;
the ray's camera-frame direction has z = 1, which makes its parameter the z-depth. Work is saved by tiles:
only parts whose projected bounds touch a tile of 8x8 pixels are tested there, all tiles of all views of all
rooms at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.data.world.furniture import Shape
from g2vlm.data.world.layout import Room

TILE = 8
NEAR_M = 0.05
_FAR_M = 1e6
_PADDING = -1
# About 0.4 MB per temporary: small enough for a core's cache, large enough to hide the cost of a call.
_CHUNK_PAIRS_CPU = 512
_CHUNK_PAIRS_GPU = 1 << 17


@dataclass(frozen=True)
class PackedRooms:
    """Rooms as padded tensors on one device; padding has shape -1."""

    shape: Int[Tensor, "scenes parts"]
    centre: Float[Tensor, "scenes parts 3"]
    half: Float[Tensor, "scenes parts 3"]
    R_world_part: Float[Tensor, "scenes parts 3 3"]
    instance: Int[Tensor, "scenes parts"]
    material: Float[Tensor, "scenes parts_and_faces columns"]
    """Rows of the parts, then the six faces of the room."""
    room_half: Float[Tensor, "scenes 3"]
    """Half sizes of the room."""
    room_centre: Float[Tensor, "scenes 3"]
    lights: Float[Tensor, "scenes lights 6"]
    ambient: Float[Tensor, "scenes 3"]
    exposure: Float[Tensor, " scenes"]

    @property
    def num_parts(self) -> int:
        """Parts per scene, padding included."""
        return self.shape.shape[1]


def pack_rooms(rooms: Sequence[Room], device: torch.device) -> PackedRooms:
    """Stacks rooms, padded to the largest number of parts, and moves them to a device."""
    most = max(1, *(len(room.shape) for room in rooms)) if rooms else 1

    def pad(values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        padded = np.full((most, *values.shape[1:]), fill, dtype=values.dtype)
        padded[: len(values)] = values
        return padded

    yaw = np.stack([pad(room.yaw) for room in rooms])
    cos, sin, zero = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)
    rotation = np.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], axis=-1)
    size = np.asarray([room.size_m for room in rooms], dtype=np.float32)
    middle = size * np.asarray([0.0, -0.5, 0.0], dtype=np.float32)
    arrays = {
        "shape": np.stack([pad(room.shape, float(_PADDING)) for room in rooms]),
        "centre": np.stack([pad(room.centre) for room in rooms]),
        "half": np.stack([pad(room.half, 1.0) for room in rooms]),
        "R_world_part": rotation.reshape(*yaw.shape, 3, 3),
        "instance": np.stack([pad(room.instance) for room in rooms]),
        "material": np.stack([np.concatenate([pad(r.material), r.shell_material]) for r in rooms]),
        "room_half": size / 2,
        "room_centre": middle,
        "lights": np.stack([room.lights for room in rooms]),
        "ambient": np.stack([room.ambient for room in rooms]),
        "exposure": np.asarray([room.exposure for room in rooms], dtype=np.float32),
    }
    return PackedRooms(**{name: torch.from_numpy(value).to(device) for name, value in arrays.items()})


@dataclass(frozen=True)
class Rays:
    """Cameras of views: view n looks into scene `scene[n]`, pixel (u, v) along ((u-cx)/fx, (v-cy)/fy, 1)."""

    scene: Int[Tensor, " views"]
    T_world_camera: Float[Tensor, "views 4 4"]
    K: Float[Tensor, "views 3 3"]
    height: int
    width: int


@dataclass(frozen=True)
class Visibility:
    """What every pixel sees; tensors are padded to whole tiles in `raycast` and cropped before it returns."""

    depth: Float[Tensor, "views height width"]
    """z-depth, metres."""
    part: Int[Tensor, "views height width"]
    """Index of the part, or `num_parts` for the room's shell."""


@dataclass(frozen=True)
class LocalCameras:
    """Camera-to-part transforms of every view and part (unit shapes: divided by the half sizes)."""

    A_part_camera: Float[Tensor, "views parts 3 3"]
    origin: Float[Tensor, "views parts 3"]
    R_camera_part: Float[Tensor, "views parts 3 3"]
    centre_camera: Float[Tensor, "views parts 3"]


def local_cameras(rooms: PackedRooms, rays: Rays) -> LocalCameras:
    """Moves every camera into the frame of every part of its room."""
    R_world_camera = rays.T_world_camera[:, :3, :3]
    position = rays.T_world_camera[:, :3, 3]
    # einsum and matmul go through slow tiny matrix products; broadcasting sums are faster here.
    R_part = rooms.R_world_part[rays.scene]
    R_camera_part = (R_world_camera[:, None, :, :, None] * R_part[:, :, :, None, :]).sum(2)
    offset = position[:, None] - rooms.centre[rays.scene]
    half = rooms.half[rays.scene]
    origin = (R_part * offset[..., None]).sum(2) / half
    A_part_camera = R_camera_part.transpose(-1, -2) / half[..., None]
    centre_camera = -(R_world_camera[:, None] * offset[..., None]).sum(2)
    return LocalCameras(A_part_camera, origin, R_camera_part, centre_camera)


def _tile_pairs(
    rooms: PackedRooms, rays: Rays, cameras: LocalCameras
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Pairs of a tile and a part that may be seen in it: view, tile, part, sorted by tile."""
    half = rooms.half[rays.scene]
    corner = torch.tensor(
        [[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], dtype=half.dtype, device=half.device
    )
    arm = (cameras.R_camera_part * half[..., None, :])[:, :, None] * corner[:, None, :]
    points = cameras.centre_camera[:, :, None] + arm.sum(-1)
    z = points[..., 2]
    safe = z.clamp_min(NEAR_M)
    u = rays.K[:, 0, 0, None, None] * points[..., 0] / safe + rays.K[:, 0, 2, None, None]
    v = rays.K[:, 1, 1, None, None] * points[..., 1] / safe + rays.K[:, 1, 2, None, None]
    behind = z < NEAR_M
    crossing = behind.any(-1)
    bounds = torch.stack([u.amin(-1), u.amax(-1), v.amin(-1), v.amax(-1)])
    # The projected bounds mean nothing when a corner is behind the camera: such parts are tested everywhere.
    everywhere = torch.tensor([-1e9, 1e9, -1e9, 1e9], device=half.device)[:, None, None]
    left, right, top, bottom = torch.where(crossing, everywhere, bounds)
    alive = ~behind.all(-1) & (rooms.shape[rays.scene] >= 0)
    columns = torch.arange(-(-rays.width // TILE), device=half.device) * TILE
    rows = torch.arange(-(-rays.height // TILE), device=half.device) * TILE
    # One pixel of margin absorbs rounding.
    hit_u = (left[..., None] <= columns + TILE) & (right[..., None] >= columns - 1) & alive[..., None]
    hit_v = (top[..., None] <= rows + TILE) & (bottom[..., None] >= rows - 1)
    touched = hit_v.transpose(1, 2)[:, :, None, :] & hit_u.transpose(1, 2)[:, None, :, :]
    view, row, column, part = touched.nonzero(as_tuple=True)
    return view, row * len(columns) + column, part


def _enter_box(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    inverse = direction.reciprocal()
    middle = inverse * -origin
    reach = inverse.abs_()
    far = middle + reach
    near = middle.sub_(reach)
    enter = torch.maximum(torch.maximum(near[0], near[1]), near[2])
    leave = torch.minimum(torch.minimum(far[0], far[1]), far[2])
    return enter, leave


def _solve(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Both roots of a t^2 + 2 b t + c; where there are none, an empty interval."""
    discriminant = b * b - a * c
    root = discriminant.clamp_min(0.0).sqrt_()
    inverse = 1.0 / a.clamp_min(1e-12)
    enter, leave = (-b - root) * inverse, (root - b) * inverse
    return torch.where(discriminant > 0, enter, _FAR_M), leave


def _enter_ellipsoid(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    a = (direction * direction).sum(0)
    b = (direction * origin).sum(0)
    return _solve(a, b, (origin * origin).sum(0) - 1.0)


def _enter_cylinder(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    x, y, z = direction.unbind(0)
    ox, oy, oz = origin.unbind(0)
    enter, leave = _solve(x * x + z * z, x * ox + z * oz, ox * ox + oz * oz - 1.0)
    inverse = y.reciprocal()
    middle, reach = inverse * -oy, inverse.abs()
    return torch.maximum(enter, middle - reach), torch.minimum(leave, middle + reach)


_ENTER = {Shape.BOX: _enter_box, Shape.ELLIPSOID: _enter_ellipsoid, Shape.CYLINDER: _enter_cylinder}


def enter_distance(
    shape: Shape,
    origin: Float[Tensor, "3 *#rays"],
    direction: Float[Tensor, "3 *#rays"],
    near: float = NEAR_M,
) -> Float[Tensor, "*rays"]:
    """Ray parameter at which rays enter a unit shape; very far where they miss it or begin inside.

    Args:
        shape: which unit shape.
        origin: ray origins in the frame of the shape (broadcast against the directions).
        direction: ray directions there, any length, no component exactly zero.
        near: smallest parameter that counts.
    """
    enter, leave = _ENTER[shape](origin, direction)
    return torch.where((enter < leave) & (enter > near), enter, _FAR_M)


def _pair_depths(
    rooms: PackedRooms, rays: Rays, cameras: LocalCameras, pairs: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, "pairs pixels"]:
    """Depth of the part at every pixel of the tile, for every pair."""
    view, tile, part = pairs
    num_columns = -(-rays.width // TILE)
    depth = torch.empty((len(view), TILE * TILE), device=view.device, dtype=rays.K.dtype)
    step = torch.arange(TILE, device=view.device, dtype=rays.K.dtype)
    grid = torch.stack(
        [step.repeat(TILE), step.repeat_interleave(TILE), torch.ones(TILE * TILE, device=view.device)]
    )
    K = rays.K[view]
    x = (tile % num_columns * TILE - K[:, 0, 2]) / K[:, 0, 0]
    y = (tile // num_columns * TILE - K[:, 1, 2]) / K[:, 1, 1]
    row = view * rooms.num_parts + part
    A = cameras.A_part_camera.flatten(0, 1)[row]
    # Axes first, so that every operation below runs over long contiguous rows; the directions of a tile are
    # linear in the pixel, hence one matrix product. The tiny constant keeps axis-parallel rays finite.
    corner = A[:, :, 0] * x[:, None] + A[:, :, 1] * y[:, None] + A[:, :, 2] + 1e-9
    linear = torch.stack([A[:, :, 0] / K[:, 0, 0, None], A[:, :, 1] / K[:, 1, 1, None], corner], dim=-1)
    linear = linear.transpose(0, 1)
    origin = cameras.origin.flatten(0, 1)[row].T[:, :, None]
    shape = rooms.shape[rays.scene[view], part]
    chunk = _CHUNK_PAIRS_CPU if view.device.type == "cpu" else _CHUNK_PAIRS_GPU
    for kind in Shape:
        for chosen in (shape == kind).nonzero()[:, 0].split(chunk):
            direction = (linear[:, chosen].reshape(-1, 3) @ grid).view(3, len(chosen), TILE * TILE)
            depth[chosen] = enter_distance(kind, origin[:, chosen], direction)
    return depth


@dataclass(frozen=True)
class _Rounds:
    """Pairs in the order of a depth buffer: first one pair of every tile, then the second of each, ..."""

    tile: Int[Tensor, " tiles"]
    """Tiles, the fullest first: round k works on the first so many of them."""
    pair: Int[Tensor, " pairs"]
    """Positions of the pairs, round after round."""
    sizes: tuple[int, ...]


def _rounds(view_tile: Int[Tensor, " pairs"], num_tiles: int) -> _Rounds:
    """Sorts pairs, given by their tile in ascending order, into rounds."""
    counts = torch.bincount(view_tile, minlength=num_tiles)
    start = counts.cumsum(0) - counts
    rank = torch.arange(len(view_tile), device=view_tile.device) - start[view_tile]
    tile = counts.argsort(descending=True, stable=True)
    place = torch.empty_like(tile)
    place[tile] = torch.arange(num_tiles, device=tile.device)
    pair = (rank * num_tiles + place[view_tile]).argsort()
    sizes = tuple(torch.bincount(rank).tolist()) if len(rank) else ()
    return _Rounds(tile, pair, sizes)


def _nearest(
    rounds: _Rounds, part: Int[Tensor, " pairs"], depth: Float[Tensor, "pairs pixels"]
) -> tuple[Float[Tensor, "tiles pixels"], Int[Tensor, "tiles pixels"]]:
    """Depth buffer of all tiles; pairs come in the order of the rounds."""
    num_tiles = len(rounds.tile)
    best = depth.new_full((num_tiles, depth.shape[1]), _FAR_M)
    winner = torch.full(best.shape, _PADDING, device=depth.device, dtype=torch.int32)
    part = part.to(torch.int32)[:, None]
    first = 0
    for size in rounds.sizes:
        candidate, current, owner = depth[first : first + size], best[:size], winner[:size]
        torch.where(candidate < current, part[first : first + size], owner, out=owner)
        torch.minimum(candidate, current, out=current)
        first += size
    place = torch.empty_like(rounds.tile)
    place[rounds.tile] = torch.arange(num_tiles, device=place.device)
    return best[place], winner[place]


def raycast(rooms: PackedRooms, rays: Rays, cameras: LocalCameras) -> Visibility:
    """Finds what every pixel of every view sees.

    Args:
        rooms: the scenes.
        rays: the views.
        cameras: `local_cameras` of the same.
    """
    num_rows, num_columns = -(-rays.height // TILE), -(-rays.width // TILE)
    per_view = num_rows * num_columns
    num_views = len(rays.scene)
    view, tile, part = _tile_pairs(rooms, rays, cameras)
    rounds = _rounds(view * per_view + tile, num_views * per_view)
    view, tile, part = view[rounds.pair], tile[rounds.pair], part[rounds.pair]
    best, winner = _nearest(rounds, part, _pair_depths(rooms, rays, cameras, (view, tile, part)))

    def image(tiles: Tensor) -> Tensor:
        grid = tiles.view(num_views, num_rows, num_columns, TILE, TILE).transpose(2, 3)
        return grid.reshape(num_views, num_rows * TILE, num_columns * TILE)[:, : rays.height, : rays.width]

    shell = shell_depth(rooms, rays)
    seen = image(best)
    nearer = seen < shell
    return Visibility(torch.where(nearer, seen, shell), torch.where(nearer, image(winner), rooms.num_parts))


def pixel_directions(rays: Rays) -> tuple[Float[Tensor, "views 1 width"], Float[Tensor, "views height 1"]]:
    """x/z of every column and y/z of every row."""
    dtype, device = rays.K.dtype, rays.K.device
    u = torch.arange(rays.width, device=device, dtype=dtype)
    v = torch.arange(rays.height, device=device, dtype=dtype)
    x = (u - rays.K[:, 0, 2, None]) / rays.K[:, 0, 0, None]
    y = (v - rays.K[:, 1, 2, None]) / rays.K[:, 1, 1, None]
    return x[:, None, :], y[:, :, None]


def shell_depth(rooms: PackedRooms, rays: Rays) -> Float[Tensor, "views height width"]:
    """Depth of the walls, floor and ceiling, seen from inside."""
    x, y = pixel_directions(rays)
    R = rays.T_world_camera[:, :3, :3]
    origin = rays.T_world_camera[:, :3, 3] - rooms.room_centre[rays.scene]
    half = rooms.room_half[rays.scene]
    depth: Tensor | None = None
    for axis in range(3):
        row = R[:, axis, :, None, None]
        slope = row[:, 0] * x + (row[:, 1] * y + row[:, 2])
        inverse = 1.0 / (slope + 1e-9)
        leave = inverse.abs() * half[:, axis, None, None] - origin[:, axis, None, None] * inverse
        depth = leave if depth is None else torch.minimum(depth, leave)
    if depth is None:
        raise AssertionError("three axes give a depth")
    return depth
