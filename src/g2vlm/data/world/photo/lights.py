"""Lamps, windows and the sun."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from g2vlm.data.world.draws import Draws
from g2vlm.data.world.layout import Spot
from g2vlm.data.world.photo.shell import Kind

NUM_LIGHTS = 3
_SUN_M = 80.0


@dataclass(frozen=True)
class Lighting:
    """Light of one place; levels are relative, the camera finds its exposure."""

    lamp: Float32[ndarray, "lights 16"]
    """Position, RGB intensity (at 1 m), radius, main direction (zero for all), whether it falls off, and, for
    light that comes through a window: 1, the half sizes and the heading of the window, whose position is in
    `window`."""
    window: Float32[ndarray, "lights 3"]
    ambient: Float32[ndarray, "6 3"]
    """Irradiance of surfaces that face -x, +x, up, down, -z, +z."""
    panorama: int
    """Index into the library."""
    panorama_turn: float
    """Heading of the panorama's middle, radians."""
    outside: float
    """Brightness of the panorama."""


def _colour(draws: Draws, warm: float) -> tuple[float, float, float]:
    warmth = warm * draws.unit()
    return 1.0, 1.0 - 0.25 * warmth, 1.0 - 0.6 * warmth


def _row(
    position: tuple[float, float, float],
    rgb: tuple[float, float, float],
    radius: float,
    direction: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    falls_off: bool = True,
    window: tuple[float, float, float] | None = None,
) -> list[float]:
    gate = (0.0, 1.0, 1.0, 0.0) if window is None else (1.0, *window)
    return [*position, *rgb, radius, *direction, float(falls_off), *gate, 0.0]


def draw_lighting(
    draws: Draws,
    kind: Kind,
    size: tuple[float, float, float],
    windows: list[tuple[Spot, tuple[float, float]]],
    num_panoramas: int,
) -> Lighting:
    """Light for a place of a size (width, height, length) with some windows."""
    rows: list[list[float]] = []
    places = [(0.0, 0.0, 0.0)] * NUM_LIGHTS
    heading = draws.symmetric(math.pi)
    tilt = draws.uniform((0.35, 1.2))
    sun = (math.sin(heading) * math.cos(tilt), -math.sin(tilt), math.cos(heading) * math.cos(tilt))
    ambient = draws.uniform((0.25, 0.9))
    if kind.is_open:
        level = draws.choice((0.0, 0.0, 1.5, 3.0))
        position = tuple(_SUN_M * c for c in sun)
        rows.append(_row(position, _scaled(_colour(draws, 0.5), level), 1.5, falls_off=False))  # type: ignore[arg-type]
    else:
        if windows and draws.chance(0.8):
            spot, half = draws.choice(windows)
            inward = (math.sin(spot.yaw), 0.0, math.cos(spot.yaw))
            place = (spot.x + 0.25 * inward[0], -spot.up, spot.z + 0.25 * inward[2])
            level = draws.uniform((3.0, 14.0)) * half[0] * half[1] * 4
            rows.append(_row(place, _scaled(_colour(draws, -0.3), level), 0.5, inward))
            if draws.chance(0.35):
                places[len(rows)] = (spot.x, -spot.up, spot.z)
                rows.append(_sun_through(draws, spot, half, tilt * 0.6))
        spread = 0.32
        while len(rows) < NUM_LIGHTS and (not rows or draws.chance(0.65)):
            place = (
                draws.symmetric(size[0] * spread),
                -(size[1] - draws.uniform((0.05, 0.5))),
                draws.symmetric(size[2] * spread),
            )
            rgb = _scaled(_colour(draws, 1.0), draws.uniform((1.5, 6.0)) * max(1.0, size[0] * size[2] / 40.0))
            rows.append(_row(place, rgb, draws.uniform((0.08, 0.5))))
    rows += [_row((0.0, -1.0, 0.0), (0.0, 0.0, 0.0), 0.1)] * (NUM_LIGHTS - len(rows))
    tone = np.asarray(_colour(draws, 0.5))
    shares = np.array([0.75, 0.7, 1.0, 0.6, 0.8, 0.72])[:, None] + 0.15 * np.array(
        [[draws.symmetric(1.0)] for _ in range(6)]
    )
    return Lighting(
        np.asarray(rows, dtype=np.float32),
        np.asarray(places, dtype=np.float32),
        (ambient * shares * tone * (1.6 if kind.is_open else 1.0)).astype(np.float32),
        draws.integer((0, num_panoramas - 1)),
        draws.symmetric(math.pi),
        draws.uniform((1.2, 6.0)) if not kind.is_open else draws.uniform((1.0, 2.5)),
    )


def _sun_through(draws: Draws, spot: Spot, half: tuple[float, float], height_rad: float) -> list[float]:
    """The sun that shines in through a window."""
    away = abs(draws.symmetric(0.8))
    turn = spot.yaw + math.pi + draws.choice((-1.0, 1.0)) * away
    position = (
        spot.x + _SUN_M * (math.sin(turn) * math.cos(height_rad)),
        -spot.up - _SUN_M * math.sin(height_rad),
        spot.z + _SUN_M * (math.cos(turn) * math.cos(height_rad)),
    )
    rgb = _scaled(_colour(draws, 0.6), draws.uniform((2.0, 6.0)))
    return _row(position, rgb, 0.6, falls_off=False, window=(*half, spot.yaw))


def _scaled(rgb: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return rgb[0] * factor, rgb[1] * factor, rgb[2] * factor
