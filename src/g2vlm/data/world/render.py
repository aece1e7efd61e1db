"""Rooms and cameras in, images and exact geometry out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.data.world.cameras import CameraPath
from g2vlm.data.world.layout import Room
from g2vlm.data.world.raycast import PackedRooms, Rays, local_cameras, pack_rooms, raycast
from g2vlm.data.world.shading import Surfaces, shade
from g2vlm.data.world.textures import texture_bank
from g2vlm.errors import InputError

# Temporaries of a chunk stay in a core's cache; on a GPU one chunk takes as much as memory allows.
_CHUNK_PIXELS_CPU = 40_000
_CHUNK_PIXELS_GPU = 4_000_000


@dataclass(frozen=True)
class Rendered:
    """Views of several rooms, `views` cameras each."""

    images: Float[Tensor, "scenes views 3 height width"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "scenes views height width"]
    """z-depth, metres; every pixel sees something."""
    normals: Float[Tensor, "scenes views height width 3"]
    """Unit normals towards the camera, camera frame."""
    instance: Int[Tensor, "scenes views height width"]
    """0 for the room, k for `room.objects[k - 1]`."""
    K: Float[Tensor, "scenes views 3 3"]
    T_world_camera: Float[Tensor, "scenes views 4 4"]


def intrinsics(
    fov_rad: Float[Tensor, " scenes"], views: int, height: int, width: int
) -> Float[Tensor, "scenes views 3 3"]:
    """Intrinsics of square pixels with the principal point in the middle (integer pixel centres)."""
    focal_px = width / 2 / torch.tan(fov_rad / 2)
    K = torch.zeros(len(fov_rad), views, 3, 3, device=fov_rad.device, dtype=fov_rad.dtype)
    K[..., 0, 0] = K[..., 1, 1] = focal_px[:, None]
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = (width - 1) / 2, (height - 1) / 2, 1.0
    return K


def render(
    rooms: Sequence[Room],
    paths: Sequence[CameraPath],
    height: int,
    width: int,
    *,
    device: torch.device | None = None,
    shadow_rays: int = 0,
    fine_detail: bool = False,
) -> Rendered:
    """Renders one path in each room; all paths have the same number of views.

    Args:
        rooms: the scenes, at least one.
        paths: one per room.
        height: pixels.
        width: pixels.
        device: where to render and to leave the result; the CPU when not given.
        shadow_rays: rays per pixel and lamp; 0 leaves shadows out.
        fine_detail: add a layer of millimetre texture.

    Raises:
        InputError: if rooms and paths do not fit each other or the image is empty.
    """
    counts = {len(path.T_world_camera) for path in paths}
    if not rooms or len(rooms) != len(paths) or len(counts) != 1 or height < 1 or width < 1:
        raise InputError(
            f"Expected rooms, one path for each with equally many views, and a size of at least 1x1; got "
            f"{len(rooms)} rooms, {len(paths)} paths with {sorted(counts)} views, {width}x{height}."
        )
    device = device or torch.device("cpu")
    views = counts.pop()
    fov_rad = torch.tensor([room.fov_rad for room in rooms], dtype=torch.float32, device=device)
    K = intrinsics(fov_rad, views, height, width)
    poses = torch.stack([torch.from_numpy(path.T_world_camera) for path in paths]).float().to(device)
    scene = torch.arange(len(rooms), device=device).repeat_interleave(views)
    rays = Rays(scene, poses.flatten(0, 1), K.flatten(0, 1), height, width)
    chunks = _render_chunks(pack_rooms(rooms, device), rays, shadow_rays=shadow_rays, fine_detail=fine_detail)
    images, depth, normals, instance = (
        torch.cat(parts).unflatten(0, (len(rooms), views)) for parts in zip(*chunks, strict=True)
    )
    return Rendered(images, depth, normals, instance, K, poses)


def _render_chunks(
    rooms: PackedRooms, rays: Rays, *, shadow_rays: int, fine_detail: bool
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    device = rays.K.device
    budget = _CHUNK_PIXELS_CPU if device.type == "cpu" else _CHUNK_PIXELS_GPU
    size = max(1, math.floor(budget / (rays.height * rays.width)))
    bank = texture_bank(device)
    results = []
    for first in range(0, len(rays.scene), size):
        part = slice(first, first + size)
        chunk = Rays(rays.scene[part], rays.T_world_camera[part], rays.K[part], rays.height, rays.width)
        cameras = local_cameras(rooms, chunk)
        visible = raycast(rooms, chunk, cameras)
        surfaces = Surfaces(rooms, chunk, cameras, visible)
        image = shade(rooms, chunk, surfaces, bank, shadow_rays=shadow_rays, fine_detail=fine_detail)
        owner = torch.nn.functional.pad(rooms.instance[chunk.scene], (0, 1))
        instance = owner.gather(1, visible.part.long().flatten(1)).view(visible.part.shape)
        results.append((image, visible.depth, surfaces.normals(), instance.to(torch.int16)))
    return results
