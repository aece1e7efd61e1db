"""Light that leaves surfaces towards the camera: lamps with soft shadows, light from all sides, gloss."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.data.world.photo.lights import NUM_LIGHTS, Lighting
from g2vlm.data.world.photo.raster import Cameras, Soup, rasterise
from g2vlm.data.world.photo.surfaces import Seen, Triple
from g2vlm.data.world.photo.texels import Palette, sample_panorama

SHADOW_SIDE = 320
_SHADOW_FOV_RAD = 2.5
_BIAS_M = 0.03
_TAPS = 6
_SKY_M = 40.0


@dataclass(frozen=True)
class Shadows:
    """What each light of each room sees, as depth maps."""

    depth: Float[Tensor, "scenes lights side side"]
    T_light_world: Float[Tensor, "scenes lights 4 4"]
    K: Float[Tensor, "scenes lights 3 3"]


def _looking(position: Tensor, forward: Tensor) -> Tensor:
    """World-to-camera pose of a light."""
    z = forward / forward.norm()
    helper = torch.tensor([1.0, 0.0, 0.0]) if abs(float(z[0])) < 0.8 else torch.tensor([0.0, 1.0, 0.0])
    x = helper.cross(z, -1)
    x = x / x.norm()
    R = torch.stack([x, z.cross(x, -1), z])
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = R, -R @ position
    return T


def shadow_maps(
    soup: Soup, spans: list[tuple[int, int]], lightings: list[Lighting], reach_m: list[float]
) -> Shadows:
    """Depth maps from all lights.

    Args:
        soup: all triangles, those that cast shadows first in each span.
        spans: first and end of the triangles of each room that cast shadows.
        lightings: of each room.
        reach_m: radius of each room, which distant lights must cover.
    """
    poses, lenses, first, end = [], [], [], []
    half = (SHADOW_SIDE - 1) / 2
    for lighting, reach, span in zip(lightings, reach_m, spans, strict=True):
        for row in torch.from_numpy(lighting.lamp):
            position, direction = row[:3], row[7:10]
            distant = row[10] < 0.5
            forward = (
                -position if distant else direction if direction.any() else torch.tensor([0.0, 1.0, 0.0])
            )
            focal = half * float(position.norm()) / reach if distant else half / math.tan(_SHADOW_FOV_RAD / 2)
            poses.append(_looking(position, forward))
            lenses.append(torch.tensor([[focal, 0.0, half], [0.0, focal, half], [0.0, 0.0, 1.0]]))
            lit = bool(row[3:6].any())
            first.append(span[0])
            end.append(span[1] if lit else span[0])
    device = soup.corners.device
    T, K = torch.stack(poses).to(device), torch.stack(lenses).to(device)
    depth, _ = rasterise(soup, Cameras(T, K, tuple(first), tuple(end), SHADOW_SIDE, SHADOW_SIDE))
    shape = (len(lightings), NUM_LIGHTS)
    return Shadows(depth.unflatten(0, shape), T.unflatten(0, shape), K.unflatten(0, shape))


@dataclass(frozen=True)
class View:
    """One camera in one room."""

    scene: int
    T_world_camera: Float[Tensor, "4 4"]
    focal_px: float
    height: int
    width: int


def _to_world(T: Tensor, vector: Triple, offset: bool) -> Triple:
    rows = [T[i, 0] * vector[0] + T[i, 1] * vector[1] + T[i, 2] * vector[2] for i in range(3)]
    return [row + T[i, 3] for i, row in enumerate(rows)] if offset else rows


def radiance(seen: Seen, view: View, lighting: Lighting, shadows: Shadows, palette: Palette) -> Triple:
    """Linear RGB of every pixel that shows a surface."""
    T = view.T_world_camera
    point, normal = _to_world(T, seen.point, offset=True), _to_world(T, seen.normal, offset=False)
    away = [T[i, 3] - point[i] for i in range(3)]
    scale = torch.rsqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2 + 1e-9)
    eye = [value * scale for value in away]
    open_share = _openness(seen, view)
    ambient = torch.from_numpy(lighting.ambient).to(T.device)
    squares = [value * value for value in normal]
    light: Triple = []
    for c in range(3):
        sides = [
            torch.where(normal[axis] < 0, ambient[low, c], ambient[high, c])
            for axis, (low, high) in enumerate(((0, 1), (2, 3), (4, 5)))
        ]
        light.append(open_share * (squares[0] * sides[0] + squares[1] * sides[1] + squares[2] * sides[2]))
    shine: Triple = [torch.zeros_like(scale) for _ in range(3)]
    rough = 10.0 + 150.0 * seen.gloss
    for k in range(NUM_LIGHTS):
        _add_light(k, (point, normal, eye), rough, view, lighting, shadows, (light, shine))
    # Reflected surroundings, stronger at grazing angles (Schlick's approximation of Fresnel's law).
    cosine = (normal[0] * eye[0] + normal[1] * eye[1] + normal[2] * eye[2]).clamp(0.0, 1.0)
    fresnel = seen.gloss * (0.05 + 0.6 * (1 - cosine) ** 5)
    mirror = [2 * cosine * normal[i] - eye[i] for i in range(3)]
    around = sample_panorama(palette.panoramas[lighting.panorama][2::8, 2::8], mirror, lighting.panorama_turn)
    level = lighting.ambient.mean()
    result = []
    for c in range(3):
        reflected = (
            fresnel * (level * around[c].clamp_max(4.0) + shine[c] * 3.0) + 0.15 * seen.gloss * shine[c]
        )
        result.append(seen.albedo[c] * (light[c] + seen.glow * 2.0) + reflected)
    return result


def _openness(seen: Seen, view: View) -> Tensor:
    """Share of the surroundings that a pixel's neighbours leave open: darker corners and contacts."""
    shape = (view.height, view.width)
    point = torch.stack(seen.point).view(3, *shape)
    normal = torch.stack(seen.normal).view(3, *shape)
    blocked = torch.zeros(shape, device=point.device)
    reach_px = (0.18 * view.focal_px / seen.point[2].median().clamp_min(0.3)).clamp(2, 40)
    for k in range(8):
        radius, turn = float(reach_px) * (0.35 + 0.65 * (k % 3) / 2), k * 2.39996
        du, dv = round(radius * math.cos(turn)), round(radius * math.sin(turn))
        away = torch.roll(point, (-dv, -du), (1, 2)) - point
        squared = (away * away).sum(0)
        slope = (away * normal).sum(0) * torch.rsqrt(squared + 1e-9)
        near = 1.0 / (1.0 + squared * 4.0)
        edge = torch.zeros_like(slope)
        top, bottom = max(0, -dv), view.height - max(0, dv)
        left, right = max(0, -du), view.width - max(0, du)
        edge[top:bottom, left:right] = 1.0
        blocked += edge * near * (slope - 0.12).clamp_min(0.0)
    return (1.0 - blocked * (1.5 / 8)).clamp(0.25, 1.0).flatten()


def _add_light(
    k: int,
    surface: tuple[Triple, Triple, Triple],
    rough: Tensor,
    view: View,
    lighting: Lighting,
    shadows: Shadows,
    sums: tuple[Triple, Triple],
) -> None:
    """Add the light of lamp k to what is scattered and to what is mirrored."""
    row = [float(value) for value in lighting.lamp[k]]
    if not any(row[3:6]):
        return
    point, normal, eye = surface
    to = [row[i] - point[i] for i in range(3)]
    squared = to[0] ** 2 + to[1] ** 2 + to[2] ** 2
    inverse = torch.rsqrt(squared)
    to = [value * inverse for value in to]
    cosine = (to[0] * normal[0] + to[1] * normal[1] + to[2] * normal[2]).clamp_min(0.0)
    strength = _shadow(k, point, squared, row[6], view.scene, shadows)
    if row[10] > 0.5:
        strength = strength / (squared + 0.3)
    if any(row[7:10]):
        strength = strength * (-(to[0] * row[7] + to[1] * row[8] + to[2] * row[9])).clamp_min(0.0)
    if row[11] > 0.5:
        strength = strength * _through_window(point, to, lighting.window[k].tolist(), row[12:15])
    # Blinn's halfway vector.
    half = [to[i] + eye[i] for i in range(3)]
    length = torch.rsqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2 + 1e-9)
    aligned = ((half[0] * normal[0] + half[1] * normal[1] + half[2] * normal[2]) * length).clamp(0.0, 1.0)
    spot = strength * torch.exp((aligned - 1.0) * rough) * (0.2 + rough * 0.02)
    lit = strength * cosine
    for c in range(3):
        sums[0][c] = sums[0][c] + lit * row[3 + c]
        sums[1][c] = sums[1][c] + spot * row[3 + c]


def _through_window(point: Triple, to: Triple, centre: list[float], gate: list[float]) -> Tensor:
    """Whether the sun reaches a point through a window, with soft borders."""
    half_x, half_y, yaw = gate
    right, forward = (math.cos(yaw), -math.sin(yaw)), (math.sin(yaw), math.cos(yaw))
    gap = [centre[i] - point[i] for i in range(3)]
    across = to[0] * forward[0] + to[2] * forward[1]
    t = (gap[0] * forward[0] + gap[2] * forward[1]) / torch.where(across.abs() < 1e-6, 1e-6, across)
    along = (to[0] * t - gap[0]) * right[0] + (to[2] * t - gap[2]) * right[1]
    upward = to[1] * t - gap[1]
    inside = ((half_x - along.abs()) * 40.0).clamp(0, 1) * ((half_y - upward.abs()) * 40.0).clamp(0, 1)
    bar = (along.abs() * 30.0).clamp(0, 1)
    return inside * bar * (t > 0)


def _shadow(k: int, point: Triple, squared: Tensor, radius: float, scene: int, shadows: Shadows) -> Tensor:
    """Share of lamp k that each point sees: its depth map compared at a few places around the point."""
    T, K, depth = shadows.T_light_world[scene, k], shadows.K[scene, k], shadows.depth[scene, k].flatten()
    local = [T[i, 0] * point[0] + T[i, 1] * point[1] + T[i, 2] * point[2] + T[i, 3] for i in range(3)]
    ahead = local[2] > 0.02
    z = local[2].clamp_min(0.02)
    focal = float(K[0, 0])
    u, v = focal * local[0] / z + float(K[0, 2]), focal * local[1] / z + float(K[1, 2])
    side = SHADOW_SIDE
    within = ahead & (u > 0) & (u < side - 1) & (v > 0) & (v < side - 1)
    # Penumbrae grow with the lamp; the blocker is taken to be a third of the way to the lamp.
    blur = (focal * radius * 0.3 * torch.rsqrt(squared)).clamp(0.7, 14.0)
    limit = z - _BIAS_M - 0.012 * z
    free = torch.zeros_like(u)
    for tap in range(_TAPS):
        length, turn = math.sqrt((tap + 0.5) / _TAPS), tap * 2.39996
        column = (u + blur * (length * math.cos(turn))).round_().clamp_(0, side - 1)
        row = (v + blur * (length * math.sin(turn))).round_().clamp_(0, side - 1)
        free += depth.index_select(0, (row * side + column).long()) > limit
    return torch.where(within, free / _TAPS, 1.0)
