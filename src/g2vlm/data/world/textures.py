"""A bank of procedural textures that hardly repeat, with mip levels.

A checker board cannot be matched between two views; noise, marble, jittered planks and collages can. The
bank is drawn once from a fixed seed: scenes choose a texture, an offset, an angle and a scale from it.
Every texture is periodic over 5.12 m at scale 1, which is wider than most walls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int, Int32
from numpy.typing import NDArray
from torch import Tensor

TEXELS = 512
TEXEL_M = 0.01
NUM_LEVELS = 7
BANK_SEED = 20251121

_Array = NDArray[np.float64]
_Rng = np.random.Generator


class TextureStyle(Enum):
    """Families of textures; `TEXTURES_OF` lists the bank's indices of each."""

    CLOUDS = "clouds"
    MARBLE = "marble"
    PLANKS = "planks"
    TILES = "tiles"
    MOSAIC = "mosaic"
    SPOTS = "spots"
    COLLAGE = "collage"
    FIBRES = "fibres"


def _noise(rng: _Rng, size_cm: float, stretch: float = 1.0, steepness: float = 2.0) -> _Array:
    """Periodic Gaussian noise with features of about `size_cm`, longer along u by `stretch`, in [0, 1]."""
    frequency_v = np.fft.fftfreq(TEXELS)[:, None]
    frequency_u = np.fft.fftfreq(TEXELS)[None, :] * stretch
    radius = np.hypot(frequency_v, frequency_u) * size_cm
    spectrum = np.fft.fft2(rng.standard_normal((TEXELS, TEXELS))) / (1.0 + radius**steepness)
    spectrum[0, 0] = 0.0
    return _spread(np.fft.ifft2(spectrum).real)


def _spread(values: _Array) -> _Array:
    """Maps values to [0, 1] with the 2nd percentile at 0 and the 98th at 1."""
    low, high = np.percentile(values, (2, 98))
    return np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0)


def _clouds(rng: _Rng) -> _Array:
    mixed = _noise(rng, rng.uniform(30, 90), steepness=2.5) + 0.6 * _noise(rng, rng.uniform(6, 14))
    return _spread(mixed)


def _marble(rng: _Rng) -> _Array:
    warp = _noise(rng, 70.0, steepness=4.0) * rng.uniform(3, 6) + 0.3 * _noise(rng, 30.0, steepness=3.0)
    return _spread(np.abs(np.sin(warp * np.pi)) ** 0.7 + 0.5 * _noise(rng, 40.0, steepness=2.5))


def _fibres(rng: _Rng) -> _Array:
    return _spread(_noise(rng, 9.0, stretch=rng.uniform(4, 9)) + 0.6 * _noise(rng, 40.0))


def _rows(rng: _Rng, row_cm: tuple[float, float], length_cm: tuple[float, float], gap: float) -> _Array:
    """Rows of jittered rectangles, each with a value of its own: planks, tiles, bricks, books."""
    image = np.zeros((TEXELS, TEXELS))
    edges = [0]
    while TEXELS - edges[-1] > row_cm[1] * 1.5:
        edges.append(edges[-1] + int(rng.uniform(*row_cm)))
    edges.append(TEXELS)
    columns = np.arange(TEXELS)
    for top, bottom in pairwise(edges):
        cuts = np.cumsum(rng.uniform(*length_cm, size=int(TEXELS / length_cm[0]) + 2))
        cuts = cuts[cuts < TEXELS - length_cm[0] * 0.5]
        cell = np.searchsorted(cuts, columns)
        image[top:bottom] = rng.random(len(cuts) + 1)[cell] * 0.8 + 0.2
        distance = np.abs(columns[:, None] - cuts[None, :]).min(axis=1) if len(cuts) else columns + 9
        image[top:bottom, distance < gap] = 0.0
        image[top : top + int(gap)] = 0.0
    return image


def _planks(rng: _Rng) -> _Array:
    rows = _rows(rng, (9.0, 16.0), (60.0, 160.0), 1.5)
    return np.clip(rows * (0.7 + 0.45 * _noise(rng, 8.0, stretch=8.0)), 0.0, 1.0)


def _tiles(rng: _Rng) -> _Array:
    height = rng.uniform(10, 34)
    rows = _rows(rng, (height * 0.8, height * 1.2), (height * 0.8, height * 2.2), 2.0)
    return np.clip(rows * (0.75 + 0.4 * _noise(rng, 20.0)), 0.0, 1.0)


def _mosaic(rng: _Rng) -> _Array:
    """Jittered Voronoi cells, each with a value of its own."""
    cells = int(rng.integers(14, 34))
    offset_v, offset_u, value = rng.random((3, cells, cells))
    grid_v, grid_u = np.meshgrid(*(np.arange(TEXELS) * cells / TEXELS,) * 2, indexing="ij")
    best = np.full((TEXELS, TEXELS), np.inf)
    image = np.zeros((TEXELS, TEXELS))
    for step_v in (-1, 0, 1):
        for step_u in (-1, 0, 1):
            row = np.floor(grid_v).astype(int) + step_v
            column = np.floor(grid_u).astype(int) + step_u
            index = (row % cells, column % cells)
            distance = np.hypot(row + offset_v[index] - grid_v, column + offset_u[index] - grid_u)
            image = np.where(distance < best, value[index], image)
            best = np.minimum(distance, best)
    return np.clip(image * 0.85 + 0.15 * _noise(rng, 6.0), 0.0, 1.0)


def _shapes(rng: _Rng, count: int, size_cm: tuple[float, float], round_share: float) -> _Array:
    """Rectangles and ellipses thrown over each other, wrapping around the borders."""
    image = np.full((TEXELS, TEXELS), rng.uniform(0.2, 0.8))
    axis = np.arange(TEXELS)
    for _ in range(count):
        centre_v, centre_u = rng.uniform(0, TEXELS, 2)
        half_v, half_u = rng.uniform(*size_cm, 2) / 2
        away_v = np.abs((axis - centre_v + TEXELS / 2) % TEXELS - TEXELS / 2) / half_v
        away_u = np.abs((axis - centre_u + TEXELS / 2) % TEXELS - TEXELS / 2) / half_u
        rows, columns = np.nonzero(away_v < 1)[0], np.nonzero(away_u < 1)[0]
        window = np.ix_(rows, columns)
        inside = np.ones((len(rows), len(columns)), dtype=bool)
        if rng.random() < round_share:
            inside = away_v[rows, None] ** 2 + away_u[None, columns] ** 2 < 1
        image[window] = np.where(inside, rng.random(), image[window])
    return image


def _spots(rng: _Rng) -> _Array:
    return np.clip(_shapes(rng, 420, (8.0, 40.0), 1.0) * 0.9 + 0.1 * _noise(rng, 10.0), 0.0, 1.0)


def _collage(rng: _Rng) -> _Array:
    return np.clip(_shapes(rng, 380, (6.0, 70.0), 0.4) * 0.9 + 0.1 * _noise(rng, 5.0), 0.0, 1.0)


_MAKERS: dict[TextureStyle, tuple[Callable[[_Rng], _Array], int]] = {
    TextureStyle.CLOUDS: (_clouds, 4),
    TextureStyle.MARBLE: (_marble, 3),
    TextureStyle.PLANKS: (_planks, 3),
    TextureStyle.TILES: (_tiles, 3),
    TextureStyle.MOSAIC: (_mosaic, 3),
    TextureStyle.SPOTS: (_spots, 2),
    TextureStyle.COLLAGE: (_collage, 4),
    TextureStyle.FIBRES: (_fibres, 3),
}


def _indices() -> dict[TextureStyle, tuple[int, ...]]:
    first, table = 0, {}
    for style, (_, count) in _MAKERS.items():
        table[style] = tuple(range(first, first + count))
        first += count
    return table


TEXTURES_OF = _indices()
NUM_TEXTURES = sum(count for _, count in _MAKERS.values())


@dataclass(frozen=True)
class TextureBank:
    """All textures and their mip levels in one flat tensor.

    Texel (u, v) of texture k at level l lies at `level_start[l] + k * side**2 + v * side + u` with
    `side = TEXELS >> l`.
    """

    texels: Float[Tensor, " texels"]
    level_start: Int32[Tensor, " levels"]


def texture_values(index: int) -> NDArray[np.float64]:
    """One texture of the bank, (`TEXELS`, `TEXELS`) values in [0, 1]."""
    # Every texture has a generator of its own, so that adding one changes no other.
    for number, (style, (maker, _)) in enumerate(_MAKERS.items()):
        if index in TEXTURES_OF[style]:
            return maker(np.random.default_rng((BANK_SEED, number, index - TEXTURES_OF[style][0])))
    raise IndexError(f"texture {index} of {NUM_TEXTURES}")


@lru_cache(maxsize=1)
def _texels() -> tuple[Float[Tensor, " texels"], tuple[int, ...]]:
    images = [texture_values(index) for index in range(NUM_TEXTURES)]
    level = torch.from_numpy(np.stack(images)).float()
    parts, starts, total = [], [], 0
    for _ in range(NUM_LEVELS):
        starts.append(total)
        parts.append(level.flatten())
        total += level.numel()
        level = torch.nn.functional.avg_pool2d(level[:, None], 2)[:, 0]
    return torch.cat(parts), tuple(starts)


@lru_cache(maxsize=4)
def texture_bank(device: torch.device) -> TextureBank:
    """Returns the bank on a device; it is made once per process (about two seconds) and kept."""
    texels, starts = _texels()
    return TextureBank(texels.to(device), torch.tensor(starts, dtype=torch.int32, device=device))


def _take(table: Tensor, index: Tensor) -> Tensor:
    # Several times faster than indexing on a CPU.
    return table.index_select(0, index)


def sample_texture(
    bank: TextureBank,
    index: Int[Tensor, " pixels"],
    uv_m: tuple[Float[Tensor, " pixels"], Float[Tensor, " pixels"]],
    footprint_m: Float[Tensor, " pixels"],
) -> Float[Tensor, " pixels"]:
    """Looks textures up: bilinear, in the mip level that fits the footprint.

    Args:
        bank: the textures.
        index: texture of each pixel.
        uv_m: texture coordinates in texture metres, any real numbers (they wrap).
        footprint_m: extent of the pixel on the texture, in texture metres.

    Returns:
        Values in [0, 1].
    """
    level = torch.log2((footprint_m * (0.8 / TEXEL_M)).clamp_min(1e-6)).round_()
    level = level.clamp_(0, NUM_LEVELS - 1).to(torch.int32)
    # int32 indices halve the memory traffic of the four gathers.
    side = torch.bitwise_right_shift(torch.full_like(level, TEXELS), level)
    scale = side.float() * (1.0 / (TEXELS * TEXEL_M))
    u, v = uv_m[0] * scale - 0.5, uv_m[1] * scale - 0.5
    floor_u, floor_v = u.floor(), v.floor()
    weight_u, weight_v = u - floor_u, v - floor_v
    mask = side - 1
    left, top = floor_u.to(torch.int32) & mask, floor_v.to(torch.int32) & mask
    right, bottom = (left + 1) & mask, (top + 1) & mask
    start = _take(bank.level_start, level) + index.to(torch.int32) * (side * side)
    top, bottom = start + top * side, start + bottom * side
    texels = bank.texels
    upper = torch.lerp(_take(texels, top + left), _take(texels, top + right), weight_u)
    lower = torch.lerp(_take(texels, bottom + left), _take(texels, bottom + right), weight_u)
    return torch.lerp(upper, lower, weight_v)
