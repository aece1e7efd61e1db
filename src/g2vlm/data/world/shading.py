"""Surface points, normals and colours of what the ray caster found."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.data.world.furniture import Shape
from g2vlm.data.world.raycast import (
    LocalCameras,
    PackedRooms,
    Rays,
    Visibility,
    enter_distance,
    pixel_directions,
)
from g2vlm.data.world.textures import TextureBank, sample_texture

_Triple = tuple[Tensor, Tensor, Tensor]
# Columns of a material row (`palette.Material.row`): three colours, texture, scale, turn, offset, glow.
_TEXTURE, _SCALE, _TURN, _OFFSET_U, _OFFSET_V, _GLOW = range(9, 15)
_LAMP_RADIUS_M = 0.15
_SHADOW_CHUNK = 1024


class Surfaces:
    """Per-pixel geometry of a batch of views, all in the camera frame.

    Everything is kept as flat contiguous tensors, one per component: elementwise work on a CPU is bound by
    memory, and strided triples would triple it.
    """

    def __init__(self, rooms: PackedRooms, rays: Rays, cameras: LocalCameras, visible: Visibility) -> None:
        x, y = pixel_directions(rays)
        depth = visible.depth
        self.shape = depth.shape
        self.depth = depth.flatten()
        self.point: _Triple = ((depth * x).flatten(), (depth * y).flatten(), self.depth)
        self.is_shell = (visible.part == rooms.num_parts).flatten()
        views = torch.arange(len(rays.scene), device=depth.device)[:, None, None]
        part = visible.part.long()
        self.view = views.expand(depth.shape).flatten()
        self._place((views * (rooms.num_parts + 1) + part).flatten(), _part_table(rooms, rays, cameras))
        scene_rows = rays.scene[:, None, None] * rooms.material.shape[1] + part
        self.material = scene_rows.flatten() + self.face * self.is_shell

    def _place(self, row: Int[Tensor, " pixels"], table: list[Float[Tensor, " rows"]]) -> None:
        """Local position, normal and dominant axis of every pixel."""
        columns = [column.index_select(0, row) for column in table]
        R, centre, half, shape = columns[:9], columns[9:12], columns[12:15], columns[15]
        q = [self.point[i] - centre[i] for i in range(3)]
        local = [R[k] * q[0] + R[3 + k] * q[1] + R[6 + k] * q[2] for k in range(3)]
        self.local: _Triple = (local[0], local[1], local[2])
        self.half_m: _Triple = (half[0].abs(), half[1].abs(), half[2].abs())
        unit = [local[k] / half[k] for k in range(3)]
        size = [value.abs() for value in unit]
        is_y = (size[1] > size[0]) & (size[1] > size[2])
        is_x = (size[0] >= size[2]) & ~is_y
        is_z = ~(is_x | is_y)
        masks = (is_x, is_y, is_z)
        # The shell has negative half sizes: its normals point inwards.
        normal = [torch.sign(unit[k]) * masks[k] for k in range(3)]
        self.face = is_y * 2 + is_z * 4 + (normal[0] + normal[1] + normal[2] < 0)
        round_pixels = (shape > 0.5).nonzero()[:, 0]
        if len(round_pixels):
            rounded = _round_normals(
                [value[round_pixels] for value in unit],
                [value[round_pixels] for value in half],
                shape[round_pixels] > Shape.ELLIPSOID + 0.5,
            )
            for k in range(3):
                normal[k][round_pixels] = rounded[k]
            size_x, size_y, size_z = (value.abs() for value in rounded)
            is_y[round_pixels] = (size_y > size_x) & (size_y > size_z)
            is_x[round_pixels] = (size_x >= size_z) & ~is_y[round_pixels]
        self.axis: tuple[Tensor, Tensor] = (is_x, is_y)
        self.side = normal[0] + normal[1] + normal[2] > 0
        rotated = [
            R[3 * i] * normal[0] + R[3 * i + 1] * normal[1] + R[3 * i + 2] * normal[2] for i in range(3)
        ]
        self.normal: _Triple = (rotated[0], rotated[1], rotated[2])

    def normals(self) -> Float[Tensor, "views height width 3"]:
        """Unit normals towards the camera, camera frame."""
        return torch.stack(self.normal, dim=-1).view(*self.shape, 3)


def _part_table(rooms: PackedRooms, rays: Rays, cameras: LocalCameras) -> list[Float[Tensor, " rows"]]:
    """Per view and part (the shell last): rotation, centre, half sizes and shape, as columns."""
    R_world_camera = rays.T_world_camera[:, :3, :3]
    R_shell = R_world_camera.transpose(1, 2)[:, None]
    offset = rooms.room_centre[rays.scene] - rays.T_world_camera[:, :3, 3]
    centre_shell = (R_shell[:, 0] * offset[:, None, :]).sum(-1)[:, None]
    half_shell = -rooms.room_half[rays.scene][:, None]
    shape = rooms.shape[rays.scene].to(offset.dtype)
    rotation = torch.cat([cameras.R_camera_part, R_shell], dim=1).flatten(2)
    centre = torch.cat([cameras.centre_camera, centre_shell], dim=1)
    half = torch.cat([rooms.half[rays.scene], half_shell], dim=1)
    shape = torch.cat([shape, torch.zeros_like(shape[:, :1])], dim=1)
    rows = torch.cat([rotation, centre, half, shape[..., None]], dim=-1).flatten(0, 1)
    return list(rows.T.contiguous())


def _round_normals(unit: list[Tensor], half: list[Tensor], is_cylinder: Tensor) -> list[Tensor]:
    """Unit normals of ellipsoids and cylinders in their own frame."""
    x, y, z = unit
    cap = is_cylinder & (y * y > x * x + z * z)
    lateral = (~cap).to(x.dtype)
    upright = torch.where(is_cylinder, torch.where(cap, torch.sign(y), 0.0), y / half[1])
    parts = [lateral * x / half[0], upright, lateral * z / half[2]]
    length = torch.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2).clamp_min(1e-12)
    return [value / length for value in parts]


def _albedo(
    rooms: PackedRooms, rays: Rays, surfaces: Surfaces, bank: TextureBank, fine_detail: bool
) -> tuple[_Triple, Tensor]:
    """Reflectance of every pixel, and its share of light of its own."""
    material = rooms.material.flatten(0, 1)
    turn = material[:, _TURN]
    cos, sin = turn.cos() * material[:, _SCALE], turn.sin() * material[:, _SCALE]

    def pick(column: Tensor) -> Tensor:
        return column.contiguous().index_select(0, surfaces.material)

    x, y, z = surfaces.local
    is_x, is_y = surfaces.axis
    # Opposite faces must not look alike: each face starts elsewhere on the texture.
    shift = surfaces.side * 1.9 + is_x * 1.1
    u, v = torch.where(is_x, z, x) + shift, torch.where(is_y, z, y) + shift
    cos, sin = pick(cos), pick(sin)
    texture_u = cos * u + sin * v + pick(material[:, _OFFSET_U])
    texture_v = cos * v - sin * u + pick(material[:, _OFFSET_V])
    facing, distance = _facing(surfaces)
    focal = rays.K[:, 0, 0].index_select(0, surfaces.view)
    # Halfway between the narrow and the wide extent of the slanted pixel.
    footprint = surfaces.depth / focal * torch.rsqrt((facing / distance).clamp_min(0.05))
    footprint = footprint * pick(material[:, _SCALE])
    index = pick(material[:, _TEXTURE]).to(torch.int32)
    value = sample_texture(bank, index, (texture_u, texture_v), footprint)
    if fine_detail:
        grain = torch.zeros_like(index)
        fine = sample_texture(bank, grain, (texture_u * 9.0, texture_v * 9.0), footprint * 9.0)
        value = (value + 0.35 * (fine - 0.5)).clamp(0.0, 1.0)
    low, high = (2.0 * value).clamp_max(1.0), (2.0 * value - 1.0).clamp_min(0.0)
    channels = []
    for c in range(3):
        dark, middle, light = material[:, c], material[:, 3 + c], material[:, 6 + c]
        channels.append(pick(dark) + pick(middle - dark) * low + pick(light - middle) * high)
    return (channels[0], channels[1], channels[2]), pick(material[:, _GLOW])


def _facing(surfaces: Surfaces) -> tuple[Tensor, Tensor]:
    """Minus normal times point (positive), and the distance of the point."""
    p, n = surfaces.point, surfaces.normal
    facing = -(p[0] * n[0] + p[1] * n[1] + p[2] * n[2])
    return facing, torch.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])


def _corner_shade(surfaces: Surfaces) -> Tensor:
    """Darkening of walls, floor and ceiling towards the edges of the room."""
    is_x, is_y = surfaces.axis
    own = (is_x, is_y, ~(is_x | is_y))
    shade = torch.ones_like(surfaces.depth)
    for k in range(3):
        gap = surfaces.half_m[k] - surfaces.local[k].abs()
        lit = 1.0 - 0.4 * torch.exp(gap * -5.0)
        shade *= torch.where(surfaces.is_shell & ~own[k], lit, 1.0)
    return shade


def _irradiance(rooms: PackedRooms, rays: Rays, surfaces: Surfaces, shadow_rays: int) -> _Triple:
    """Light that reaches every pixel's surface."""
    R_world_camera = rays.T_world_camera[:, :3, :3]
    n, p = surfaces.normal, surfaces.point

    def pick(column: Tensor) -> Tensor:
        return column.contiguous().index_select(0, surfaces.view)

    up = -R_world_camera[:, 1]
    upward = n[0] * pick(up[:, 0]) + n[1] * pick(up[:, 1]) + n[2] * pick(up[:, 2])
    sky = (1.0 + 0.25 * upward) * _corner_shade(surfaces)
    ambient = rooms.ambient[rays.scene]
    total = [sky * pick(ambient[:, c]) for c in range(3)]
    for k in range(rooms.lights.shape[1]):
        lamp = rooms.lights[rays.scene, k]
        away = lamp[:, :3] - rays.T_world_camera[:, :3, 3]
        position = (R_world_camera * away[:, :, None]).sum(1)
        to = [pick(position[:, i]) - p[i] for i in range(3)]
        squared = to[0] * to[0] + to[1] * to[1] + to[2] * to[2]
        cosine = (to[0] * n[0] + to[1] * n[1] + to[2] * n[2]).clamp_min(0.0) * torch.rsqrt(squared + 1e-6)
        # A falloff milder than the inverse square keeps rooms readable without many lamps.
        strength = cosine / (0.45 + 0.16 * squared)
        if shadow_rays:
            strength = strength * _unshadowed(rooms, rays, surfaces, lamp[:, :3], shadow_rays)
        for c in range(3):
            total[c] = total[c] + strength * pick(lamp[:, 3 + c])
    return total[0], total[1], total[2]


def _unshadowed(
    rooms: PackedRooms, rays: Rays, surfaces: Surfaces, lamp: Float[Tensor, "views 3"], num_rays: int
) -> Float[Tensor, " pixels"]:
    """Share of a spherical lamp that each pixel's surface sees."""
    R, t = rays.T_world_camera[:, :3, :3], rays.T_world_camera[:, :3, 3]
    num_views = len(rays.scene)
    camera = torch.stack(surfaces.point, -1).view(num_views, -1, 3) + 2e-3 * torch.stack(
        surfaces.normal, -1
    ).view(num_views, -1, 3)
    world = camera @ R.transpose(1, 2) + t[:, None]
    k = torch.arange(num_rays, device=t.device, dtype=t.dtype) + 0.5
    # A Fibonacci lattice on the sphere: even for any number of rays, and the same for every pixel.
    height, turn = 1.0 - 2.0 * k / num_rays, k * 2.39996
    ring = torch.sqrt(1.0 - height * height)
    spread = torch.stack([ring * turn.cos(), height, ring * turn.sin()], dim=-1)
    spread = spread * (_LAMP_RADIUS_M if num_rays > 1 else 0.0)
    seen = torch.zeros(world.shape[:2], device=t.device, dtype=t.dtype)
    for view in range(num_views):
        scene = int(rays.scene[view])
        for offset in spread:
            for first in range(0, world.shape[1], _SHADOW_CHUNK):
                points = world[view, first : first + _SHADOW_CHUNK]
                blocked = _blocked(rooms, scene, points, lamp[view] + offset)
                seen[view, first : first + _SHADOW_CHUNK] += (~blocked).to(t.dtype)
    return seen.flatten() / num_rays


def _blocked(
    rooms: PackedRooms, scene: int, points: Float[Tensor, "n 3"], lamp: Float[Tensor, " 3"]
) -> Tensor:
    """Whether some part stands between the points and the lamp."""
    away = lamp - points
    distance = away.norm(dim=-1)
    direction = away / distance[:, None]
    blocked = torch.zeros_like(distance, dtype=torch.bool)
    # Glowing parts are lamps themselves and cast no shadow; the others must meet the box around all the rays.
    reach = (rooms.R_world_part[scene].abs() * rooms.half[scene, :, None, :]).sum(-1)
    low, high = torch.minimum(points.amin(0), lamp), torch.maximum(points.amax(0), lamp)
    near = ((rooms.centre[scene] + reach >= low) & (rooms.centre[scene] - reach <= high)).all(-1)
    near &= rooms.material[scene, : rooms.num_parts, _GLOW] == 0
    for shape in Shape:
        parts = ((rooms.shape[scene] == shape) & near).nonzero()[:, 0]
        if not len(parts):
            continue
        scale = rooms.R_world_part[scene, parts] / rooms.half[scene, parts, None, :]
        centre = rooms.centre[scene, parts]
        origin = torch.einsum("pik,pni->kpn", scale, points - centre[:, None])
        slope = torch.einsum("pik,ni->kpn", scale, direction) + 1e-9
        blocked |= (enter_distance(shape, origin, slope, near=1e-3) < distance).any(dim=0)
    return blocked


def shade(
    rooms: PackedRooms,
    rays: Rays,
    surfaces: Surfaces,
    bank: TextureBank,
    *,
    shadow_rays: int = 0,
    fine_detail: bool = False,
) -> Float[Tensor, "views 3 height width"]:
    """Colours of every pixel, display-referred RGB in [0, 1].

    Args:
        rooms: the scenes.
        rays: the views.
        surfaces: what they see.
        bank: the textures, on the same device.
        shadow_rays: rays per pixel and lamp; 0 leaves shadows out.
        fine_detail: add a layer of millimetre texture.
    """
    albedo, glow = _albedo(rooms, rays, surfaces, bank, fine_detail)
    light = _irradiance(rooms, rays, surfaces, shadow_rays)
    exposure = rooms.exposure[rays.scene].index_select(0, surfaces.view)
    channels = []
    for c in range(3):
        radiance = albedo[c] * (light[c] + 1.4 * glow) * exposure
        # Filmic shoulder, then a square root as the display's gamma.
        channels.append(torch.sqrt_(1.0 - torch.exp_(radiance * -1.1)).clamp_(0.0, 1.0))
    return torch.stack([channel.view(surfaces.shape) for channel in channels], dim=1)
