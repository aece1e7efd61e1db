"""Which triangle every pixel shows: in C on a CPU with a compiler, plainly in torch anywhere."""

import ctypes
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int, Int32, Int64, UInt8
from torch import Tensor

from g2vlm.model.native.library import NativeUnavailableError, load_translated

_log = logging.getLogger(__name__)
NEAR_M = 0.05
FAR_M = 1e6
"""Depth of pixels that show no triangle."""
_CHUNK_TESTS_CPU = 1 << 22
_CHUNK_TESTS_GPU = 1 << 28


@dataclass(frozen=True)
class Soup:
    """Triangles of several rooms one after the other, world frame, metres."""

    corners: Float[Tensor, "triangles 3 3"]
    uv: Float[Tensor, "triangles 3 2"]
    """Texture coordinates, in sides of the texture."""
    alpha: Int64[Tensor, " triangles"]
    """First texel of the texture where it has holes, else -1."""
    side: Int32[Tensor, " triangles"]
    """Texels of a side of the texture."""
    texels: UInt8[Tensor, "texels 4"]


@dataclass(frozen=True)
class Cameras:
    """Views: view n looks at the triangles `first[n]` to `end[n]`."""

    T_camera_world: Float[Tensor, "views 4 4"]
    K: Float[Tensor, "views 3 3"]
    first: tuple[int, ...]
    end: tuple[int, ...]
    height: int
    width: int


@lru_cache(maxsize=1)
def _native() -> ctypes.CDLL | None:
    try:
        return load_translated(Path(__file__).with_name("raster.c"))
    except NativeUnavailableError as error:
        _log.warning("Rooms are rasterised by torch, which is many times slower on a CPU: %s", error)
        return None


def rasterise(
    soup: Soup, cameras: Cameras, *, plain: bool = False
) -> tuple[Float[Tensor, "views height width"], Int[Tensor, "views height width"]]:
    """Depth and nearest triangle of every pixel.

    Args:
        soup: all triangles.
        cameras: the views, on the same device.
        plain: through torch even where C could do it.

    Returns:
        z-depth in metres (`FAR_M` where nothing is seen) and the index of the triangle (-1 there).
    """
    library = None if plain or soup.corners.device.type != "cpu" else _native()
    if library is None:
        return _rasterise_plainly(soup, cameras)
    shape = (len(cameras.first), cameras.height, cameras.width)
    depth = torch.full(shape, FAR_M)
    index = torch.full(shape, -1, dtype=torch.int32)
    view = cameras.T_camera_world[:, :3].contiguous()
    lens = torch.stack([cameras.K[:, 0, 0], cameras.K[:, 1, 1], cameras.K[:, 0, 2], cameras.K[:, 1, 2]], -1)
    lens = lens.contiguous()
    shared = [_address(part) for part in (soup.corners, soup.uv, soup.alpha, soup.side, soup.texels)]
    for n in range(shape[0]):
        library.g2vlm_raster(
            *shared,
            ctypes.c_int64(cameras.first[n]),
            ctypes.c_int64(cameras.end[n]),
            _address(view[n]),
            _address(lens[n]),
            ctypes.c_int(shape[1]),
            ctypes.c_int(shape[2]),
            ctypes.c_float(NEAR_M),
            _address(depth[n]),
            _address(index[n]),
        )
    return depth, index


def _address(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def _rasterise_plainly(soup: Soup, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Every triangle against every pixel, a chunk of triangles at a time."""
    device = soup.corners.device
    u = torch.arange(cameras.width, device=device, dtype=torch.float32)
    v = torch.arange(cameras.height, device=device, dtype=torch.float32)
    pixels = cameras.height * cameras.width
    chunk = max(1, (_CHUNK_TESTS_CPU if device.type == "cpu" else _CHUNK_TESTS_GPU) // pixels)
    depths, indices = [], []
    for n, (first, end) in enumerate(zip(cameras.first, cameras.end, strict=True)):
        K, T = cameras.K[n], cameras.T_camera_world[n]
        x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
        rays = torch.stack([x.repeat(len(v)), y.repeat_interleave(len(u)), torch.ones(pixels, device=device)])
        depth = torch.full((pixels,), FAR_M, device=device)
        index = torch.full((pixels,), -1, device=device, dtype=torch.int32)
        for start in range(first, end, chunk):
            rows = torch.arange(start, min(start + chunk, end), device=device)
            p = soup.corners[rows] @ T[:3, :3].T + T[:3, 3]
            found, at = _nearest_of(soup, rows, p, rays)
            nearer = found < depth
            depth, index = torch.where(nearer, found, depth), torch.where(nearer, rows[at].int(), index)
        depths.append(depth.view(cameras.height, cameras.width))
        indices.append(index.view(cameras.height, cameras.width))
    return torch.stack(depths), torch.stack(indices)


def _nearest_of(
    soup: Soup, rows: Int64[Tensor, " n"], p: Float[Tensor, "n 3 3"], rays: Float[Tensor, "3 pixels"]
) -> tuple[Float[Tensor, " pixels"], Int64[Tensor, " pixels"]]:
    """Nearest of some triangles at every pixel, and which one it is."""
    edges = torch.stack(
        [p[:, 1].cross(p[:, 2], -1), p[:, 2].cross(p[:, 0], -1), p[:, 0].cross(p[:, 1], -1)], 1
    )
    det = (p[:, 0] * edges[:, 0]).sum(-1)
    edges = edges / torch.where(det.abs() < 1e-12, torch.inf, det)[:, None, None]
    weights = edges @ rays
    total = weights.sum(1)
    hit = (weights >= 0).all(1) & (total * NEAR_M <= 1.0) & (total > 0)
    holed = (soup.alpha[rows] >= 0).nonzero()[:, 0]
    if len(holed):
        share = weights[holed] / total[holed, None].clamp_min(1e-12)
        uv = torch.einsum("ncp,nck->nkp", share, soup.uv[rows[holed]])
        side = soup.side[rows[holed]].long()[:, None]
        texel = (uv * side[:, None]).floor().long() & (side[:, None] - 1)
        alpha = soup.texels[:, 3][soup.alpha[rows[holed]][:, None] + texel[:, 1] * side + texel[:, 0]]
        hit[holed] &= alpha >= 128
    depth = torch.where(hit, 1.0 / total.clamp_min(1e-12), FAR_M)
    found = depth.min(dim=0)
    return found.values, found.indices
