"""Drawn surfaces that photographs of materials lack: panels with joints, tiles, carpet, plaster, planks."""

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

_SIDE = 256


def _noise(rng: np.random.Generator, steepness: float) -> ndarray:
    """Periodic noise with standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.fftfreq(_SIDE)[None]) * _SIDE
    spectrum = np.fft.fft2(rng.standard_normal((_SIDE, _SIDE))) / (1.0 + frequency) ** steepness
    spectrum[0, 0] = 0.0
    values = np.fft.ifft2(spectrum).real
    return values / values.std()


def _joints(cells: tuple[int, int], width: int, shift: bool) -> ndarray:
    """Lines between rectangular cells; every other row is shifted like bricks where asked."""
    v, u = np.mgrid[:_SIDE, :_SIDE]
    tall, wide = _SIDE // cells[0], _SIDE // cells[1]
    moved = u + (v // tall % 2) * (wide // 2 if shift else 0)
    return (v % tall < width) | (moved % wide < width)


def drawn_surfaces() -> list[tuple[str, str, float, UInt8[ndarray, "side side 4"]]]:
    """Name, use, usual length of a side in metres, and pixels of each."""
    rng = np.random.default_rng(5)
    found = []

    def add(name: str, use: str, size_m: float, values: ndarray, colour: tuple[float, float, float]) -> None:
        pixels = np.clip(values[..., None] * np.asarray(colour), 0.0, 1.0) * 255
        alpha = np.full((_SIDE, _SIDE, 1), 255.0)
        found.append((name, use, size_m, np.concatenate([pixels, alpha], axis=-1).astype(np.uint8)))

    for k in range(3):
        stain = 0.015 * _noise(rng, 1.5)
        add(f"plaster {k}", "wall", 2.5, 0.9 + stain + 0.012 * _noise(rng, 0.2), (1.0, 0.99, 0.97))
    for k, (cells, width) in enumerate((((1, 1), 2), ((2, 1), 2), ((1, 2), 3), ((4, 4), 3))):
        value = np.where(_joints(cells, width, shift=False), 0.45, 0.93) + 0.02 * _noise(rng, 1.2)
        add(f"panels {k}", "panel", 2.4, value, (1.0, 1.0, 0.97))
    for k, cells in enumerate(((2, 2), (4, 4), (8, 8), (8, 4))):
        tone = rng.normal(1.0, 0.04, (8, 8)).repeat(_SIDE // 8, 0).repeat(_SIDE // 8, 1)
        value = np.where(_joints(cells, 2, shift=k == 3), 0.5, 0.85 * tone) + 0.02 * _noise(rng, 1.0)
        add(f"tiles {k}", "tile", 1.6 - 0.3 * k, value, ((1.0, 0.98, 0.93), (0.9, 0.95, 1.0))[k % 2])
    for k in range(3):
        value = 0.62 + 0.12 * _noise(rng, 0.1) + 0.03 * _noise(rng, 1.2)
        add(f"carpet {k}", "carpet", 0.8, value, (1.0, 1.0, 1.0))
    for k in range(2):
        value = np.where(_joints((2, 2), 3, shift=False), 0.7, 0.92) - 0.06 * (_noise(rng, 0.1) > 1.6)
        add(f"ceiling {k}", "ceiling", 1.2, value, (1.0, 1.0, 0.98))
    value = np.where(_joints((8, 2), 2, shift=True), 0.3, 0.7) + 0.1 * _noise(rng, 0.9)
    add("asphalt slabs", "ground", 3.0, value, (0.9, 0.88, 0.85))
    return found
