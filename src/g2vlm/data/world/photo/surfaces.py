"""What one view sees at every pixel: points, normals, colours."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from g2vlm.data.world.photo.raster import Soup
from g2vlm.data.world.photo.texels import Palette, sample_colour

Triple = list[Tensor]


@dataclass(frozen=True)
class Looks:
    """Materials of the triangles of a `Soup`."""

    normals: Float[Tensor, "triangles 3 3"]
    texture: Int64[Tensor, " triangles"]
    look: Float[Tensor, "triangles 5"]
    """Linear RGB factor, gloss, glow."""


@dataclass(frozen=True)
class Seen:
    """Flat tensors over the pixels of a view, camera frame."""

    point: Triple
    normal: Triple
    """For shading, towards the camera, unit."""
    flat: Triple
    """Of the triangle itself, towards the camera, unit."""
    albedo: Triple
    gloss: Tensor
    glow: Tensor
    hit: Bool[Tensor, " pixels"]


def pixel_rays(K: Float[Tensor, "3 3"], height: int, width: int) -> tuple[Tensor, Tensor]:
    """x/z and y/z of all pixels, flat."""
    u = (torch.arange(width, device=K.device) - K[0, 2]) / K[0, 0]
    v = (torch.arange(height, device=K.device) - K[1, 2]) / K[1, 1]
    return u.repeat(height), v.repeat_interleave(width)


def look_up(
    soup: Soup,
    looks: Looks,
    palette: Palette,
    T_camera_world: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    depth: Float[Tensor, "height width"],
    index: Int[Tensor, "height width"],
) -> Seen:
    """Surfaces of one view from its depth and triangles."""
    height, width = depth.shape
    x, y = pixel_rays(K, height, width)
    hit = index.flatten() >= 0
    z = torch.where(hit, depth.flatten(), 1.0)
    point = [x * z, y * z, z]
    row, table, texture = _table(soup, looks, T_camera_world, index.flatten().clamp_min(0).long())
    column = [values.index_select(0, row) for values in table]
    uv = [
        column[3 * k] * point[0] + column[3 * k + 1] * point[1] + column[3 * k + 2] * point[2]
        for k in range(2)
    ]
    normal = [
        column[6 + 3 * k] * point[0] + column[7 + 3 * k] * point[1] + column[8 + 3 * k] * point[2]
        for k in range(3)
    ]
    flat = column[15:18]
    # Both sides of a triangle can be seen: normals turn towards the camera.
    facing = flat[0] * point[0] + flat[1] * point[1] + flat[2] * point[2]
    side = torch.where(facing > 0, -1.0, 1.0)
    flat = [value * side for value in flat]
    along = normal[0] * flat[0] + normal[1] * flat[1] + normal[2] * flat[2]
    length = torch.rsqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2 + 1e-12) * torch.where(
        along < 0, -1.0, 1.0
    )
    normal = [value * length for value in normal]
    distance = torch.sqrt(point[0] ** 2 + point[1] ** 2 + z * z)
    # Halfway between the narrow and the wide extent of the slanted pixel.
    footprint = z / K[0, 0] * torch.rsqrt((facing.abs() / distance).clamp_min(0.04)) * column[23]
    chosen = texture.index_select(0, row)
    colour = sample_colour(palette, chosen.clamp_min(0), (uv[0], uv[1]), footprint)
    plain = chosen < 0
    albedo = [torch.where(plain, 1.0, colour[c]) * column[18 + c] for c in range(3)]
    return Seen(point, normal, flat, albedo, column[21], column[22], hit)


def _table(
    soup: Soup, looks: Looks, T_camera_world: Tensor, index: Int64[Tensor, " pixels"]
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Row of every pixel's triangle, and attributes of each row, linear in the camera-frame point."""
    count = len(soup.corners)
    mark = torch.zeros(count, dtype=torch.bool, device=index.device)
    mark[index] = True
    visible = mark.nonzero()[:, 0]
    place = torch.empty(count, dtype=torch.long, device=index.device)
    place[visible] = torch.arange(len(visible), device=index.device)
    p = soup.corners[visible] @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    edges = torch.stack(
        [p[:, 1].cross(p[:, 2], -1), p[:, 2].cross(p[:, 0], -1), p[:, 0].cross(p[:, 1], -1)], 1
    )
    det = (p[:, 0] * edges[:, 0]).sum(-1)
    # Weight i of a point on the plane is its product with row i.
    weights = edges / torch.where(det.abs() < 1e-12, 1e-12, det)[:, None, None]
    uv = soup.uv[visible]
    normals = looks.normals[visible] @ T_camera_world[:3, :3].T
    cross = (p[:, 1] - p[:, 0]).cross(p[:, 2] - p[:, 0], -1)
    area = cross.norm(dim=-1).clamp_min(1e-12)
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    density = torch.sqrt((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs() / area + 1e-12)
    parts = [
        (uv.transpose(1, 2) @ weights).flatten(1),
        (normals.transpose(1, 2) @ weights).flatten(1),
        cross / area[:, None],
        looks.look[visible],
        density[:, None],
    ]
    table = torch.cat(parts, dim=1)
    return place[index], list(table.T.contiguous()), looks.texture[visible]
