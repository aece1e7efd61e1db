"""Photographic rooms and cameras in; pictures and exact geometry out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.data.world.cameras import CameraPath
from g2vlm.data.world.photo.library import Library
from g2vlm.data.world.photo.raster import Cameras, Soup, rasterise
from g2vlm.data.world.photo.rooms import PhotoRoom
from g2vlm.data.world.photo.sensor import SensorRanges, expose
from g2vlm.data.world.photo.shading import View, radiance, shadow_maps
from g2vlm.data.world.photo.surfaces import Looks, look_up, pixel_rays
from g2vlm.data.world.photo.texels import Palette, palette_of, sample_panorama
from g2vlm.data.world.render import intrinsics
from g2vlm.geometry.poses import invert_pose

SKY_M = 100.0
"""Depth written where there is none; such pixels are not valid."""
SENSOR_STREAM = 7_001


@dataclass(frozen=True)
class RenderedPhotos:
    """Views of several rooms, `views` cameras each."""

    images: Float[Tensor, "scenes views 3 height width"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "scenes views height width"]
    """z-depth, metres."""
    valid: Bool[Tensor, "scenes views height width"]
    """False for the sky and for window panes, which have no depth of their own."""
    normals: Float[Tensor, "scenes views height width 3"]
    """Unit normals towards the camera, camera frame."""
    instance: Int[Tensor, "scenes views height width"]
    K: Float[Tensor, "scenes views 3 3"]
    T_world_camera: Float[Tensor, "scenes views 4 4"]


@dataclass(frozen=True)
class _Packed:
    soup: Soup
    looks: Looks
    owner: Int[Tensor, " triangles"]
    is_pane: Bool[Tensor, " triangles"]
    spans: list[tuple[int, int]]
    casters: list[tuple[int, int]]


def _pack(rooms: Sequence[PhotoRoom], palette: Palette, library: Library, device: torch.device) -> _Packed:
    """Triangles of all rooms, those that cast shadows first in each."""
    columns: list[list[np.ndarray]] = []
    spans, casters, first = [], [], 0
    for room in rooms:
        order = np.argsort(~room.casts_shadow, kind="stable")
        names = ("corners", "uv", "normals", "texture", "look", "owner", "is_pane")
        columns.append([getattr(room, name)[order] for name in names])
        spans.append((first, first + len(order)))
        casters.append((first, first + int(room.casts_shadow.sum())))
        first += len(order)
    corners, uv, normals, texture, look, owner, pane = (
        torch.from_numpy(np.concatenate(parts)).to(device) for parts in zip(*columns, strict=True)
    )
    known = texture.clamp_min(0)
    holes = (texture >= 0) & (palette.has_holes[known] > 0)
    alpha = torch.where(holes, palette.first[known], -1)
    texels = palette.words.view(torch.uint8).view(-1, 4)
    soup = Soup(corners.contiguous(), uv.contiguous(), alpha, palette.side[known].int(), texels)
    return _Packed(soup, Looks(normals, texture, look), owner, pane, spans, casters)


def render_photos(
    rooms: Sequence[PhotoRoom],
    paths: Sequence[CameraPath],
    height: int,
    width: int,
    library: Library,
    *,
    device: torch.device | None = None,
    sensor: SensorRanges | None = None,
) -> RenderedPhotos:
    """Render one path in each room; all paths have the same number of views.

    Args:
        rooms: the places, at least one.
        paths: one for each.
        height: pixels.
        width: pixels.
        library: the one that the rooms were made with.
        device: where to render and to leave the result; the CPU when not given.
        sensor: faults of the cameras.
    """
    device = device or torch.device("cpu")
    views = len(paths[0].T_world_camera)
    # The field of view is that of the longer side, whichever way the camera is held.
    fov = torch.tensor([room.fov_rad for room in rooms], dtype=torch.float32)
    longer = max(width, height)
    fov = 2 * torch.atan(torch.tan(fov / 2) * width / longer)
    K = intrinsics(fov, views, height, width).to(device)
    poses = torch.stack([torch.from_numpy(path.T_world_camera) for path in paths]).float().to(device)
    palette = palette_of(library, device)
    packed = _pack(rooms, palette, library, device)
    spans = [span for span in packed.spans for _ in range(views)]
    first, end = zip(*spans, strict=True)
    T_camera_world = invert_pose(poses).flatten(0, 1)
    cameras = Cameras(T_camera_world, K.flatten(0, 1), first, end, height, width)
    depth, index = rasterise(packed.soup, cameras)
    linear, normals = _shaded(rooms, packed, palette, cameras, poses, depth, index)
    known = index.clamp_min(0).long()
    valid = (index >= 0) & ~packed.is_pane[known]
    instance = torch.where(index >= 0, packed.owner[known], 0).to(torch.int16)
    shape = (len(rooms), views)
    generators = [np.random.default_rng((SENSOR_STREAM, room.seed)) for room in rooms]
    images = expose(linear.unflatten(0, shape), generators, sensor or SensorRanges())
    return RenderedPhotos(
        images=images,
        depth=torch.where(index >= 0, depth, SKY_M).unflatten(0, shape),
        valid=valid.unflatten(0, shape),
        normals=normals.unflatten(0, shape),
        instance=instance.unflatten(0, shape),
        K=K,
        T_world_camera=poses,
    )


def _shaded(
    rooms: Sequence[PhotoRoom],
    packed: _Packed,
    palette: Palette,
    cameras: Cameras,
    poses: Float[Tensor, "scenes views 4 4"],
    depth: Float[Tensor, "pictures height width"],
    index: Int[Tensor, "pictures height width"],
) -> tuple[Float[Tensor, "pictures 3 height width"], Float[Tensor, "pictures height width 3"]]:
    """Linear light and normals of every picture, from which triangle each pixel sees and how far it is."""
    shadows = shadow_maps(
        packed.soup,
        packed.casters,
        [room.lighting for room in rooms],
        [room.diagonal_m / 2 for room in rooms],
    )
    views, (height, width) = poses.shape[1], depth.shape[1:]
    linear, normals = [], []
    for n in range(len(depth)):
        scene = n // views
        T_camera_world, K = cameras.T_camera_world[n], cameras.K[n]
        seen = look_up(packed.soup, packed.looks, palette, T_camera_world, K, depth[n], index[n])
        view = View(scene, poses[scene, n % views], float(K[0, 0]), height, width)
        lit = radiance(seen, view, rooms[scene].lighting, shadows, palette)
        shown = _with_outside(lit, rooms[scene], packed, palette, view, K, index[n])
        linear.append(shown.view(3, height, width))
        normals.append(torch.stack(seen.flat, dim=-1).view(height, width, 3))
    return torch.stack(linear), torch.stack(normals)


def _with_outside(
    lit: list[Tensor],
    room: PhotoRoom,
    packed: _Packed,
    palette: Palette,
    view: View,
    K: Tensor,
    index: Tensor,
) -> Tensor:
    """The panorama where a pixel looks at the sky or out of a window."""
    flat = index.flatten()
    outside = (flat < 0) | packed.is_pane[flat.clamp_min(0).long()]
    colours = torch.stack(lit)
    where = outside.nonzero()[:, 0]
    if len(where):
        x, y = (ray[where] for ray in pixel_rays(K, view.height, view.width))
        R = view.T_world_camera
        direction = [R[i, 0] * x + R[i, 1] * y + R[i, 2] for i in range(3)]
        panorama = palette.panoramas[room.lighting.panorama]
        sky = sample_panorama(panorama, direction, room.lighting.panorama_turn)
        colours[:, where] = torch.stack(sky) * room.lighting.outside
    return colours
