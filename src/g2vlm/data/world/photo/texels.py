"""Colours of textures and panoramas at given places."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from g2vlm.data.world.photo.library import Library


@dataclass(frozen=True)
class Palette:
    """The library's textures and panoramas on one device."""

    words: Int[Tensor, " texels"]
    """RGBA bytes of every texel as one number of 32 bits: one gather fetches all four."""
    first: Int64[Tensor, " textures"]
    side: Int64[Tensor, " textures"]
    has_holes: Int64[Tensor, " textures"]
    panoramas: Float[Tensor, "panoramas rows columns 3"]


_PALETTES: dict[tuple[int, str], Palette] = {}


def palette_of(library: Library, device: torch.device) -> Palette:
    """The palette of a library on a device; kept for the process."""
    key = (id(library), str(device))
    if key not in _PALETTES:
        # Mapped read-only: torch warns about it, and nothing here writes.
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            words = torch.from_numpy(library.texels.reshape(-1).view("int32")).to(device)
            panoramas = torch.from_numpy(library.panoramas).float().to(device)
        table = torch.from_numpy(library.texture_table()).to(device)
        _PALETTES[key] = Palette(
            words, table[:, 0].clone(), table[:, 1].clone(), table[:, 2].clone(), panoramas
        )
    return _PALETTES[key]


def sample_colour(
    palette: Palette,
    texture: Int64[Tensor, " pixels"],
    uv: tuple[Float[Tensor, " pixels"], Float[Tensor, " pixels"]],
    footprint: Float[Tensor, " pixels"],
) -> list[Float[Tensor, " pixels"]]:
    """Linear RGB of textures: bilinear, in the mip level that fits the footprint.

    Args:
        palette: of the library.
        texture: which one, at least 0.
        uv: in sides of the texture, any real numbers (they wrap).
        footprint: extent of the pixel on the texture, in sides.
    """
    full = palette.side.index_select(0, texture)
    level = torch.log2((footprint * full * 0.7).clamp_min(1e-6)).round_().clamp_min_(0).long()
    side = torch.bitwise_right_shift(full, level).clamp_min_(1)
    start = palette.first.index_select(0, texture) + (full * full - side * side) * 4 // 3
    mask = side - 1
    place = [coordinate * side - 0.5 for coordinate in uv]
    floor = [value.floor() for value in place]
    weight_u, weight_v = place[0] - floor[0], place[1] - floor[1]
    left, top = floor[0].long() & mask, floor[1].long() & mask
    right, bottom = (left + 1) & mask, start + ((top + 1) & mask) * side
    top = start + top * side
    taps = [
        palette.words.index_select(0, index)
        for index in (top + left, top + right, bottom + left, bottom + right)
    ]
    weights = [
        (1 - weight_u) * (1 - weight_v),
        weight_u * (1 - weight_v),
        (1 - weight_u) * weight_v,
        weight_u * weight_v,
    ]
    channels = []
    for shift in (0, 8, 16):
        value = sum(
            (torch.bitwise_right_shift(tap, shift) & 255) * weight
            for tap, weight in zip(taps, weights, strict=True)
        )
        assert isinstance(value, Tensor)
        # Display values squared are close enough to linear light.
        channels.append((value * (1 / 255)).square_())
    return channels


def sample_panorama(
    panorama: Float[Tensor, "rows columns 3"], direction: list[Float[Tensor, " pixels"]], turn: float
) -> list[Float[Tensor, " pixels"]]:
    """Linear RGB of a panorama along directions (world axes, any length), bilinear."""
    rows, columns = panorama.shape[:2]
    x, y, z = direction
    height = torch.atan2(-y, torch.sqrt(x * x + z * z))
    v = ((0.5 - height / torch.pi) * rows - 0.5).clamp(0, rows - 1)
    u = ((torch.atan2(x, z) + turn) / (2 * torch.pi) + 0.5) * columns - 0.5
    top, left = v.floor(), u.floor()
    weight_v, weight_u = v - top, u - left
    row, column = top.long(), left.long() % columns
    below, beside = (row + 1).clamp_max(rows - 1), (column + 1) % columns
    flat = panorama.flatten(0, 1)
    upper = torch.lerp(flat[row * columns + column], flat[row * columns + beside], weight_u[:, None])
    lower = torch.lerp(flat[below * columns + column], flat[below * columns + beside], weight_u[:, None])
    return list(torch.lerp(upper, lower, weight_v[:, None]).unbind(-1))
