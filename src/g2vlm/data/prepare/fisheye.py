"""Where wide lenses show what a straight camera sees at some place."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Map = Float[np.ndarray, "height width"]


def thin_prism_pixels(x: Map, y: Map, params: Sequence[float]) -> tuple[Map, Map]:
    """Pixels (u, v) of COLMAP's THIN_PRISM_FISHEYE, integer centres.

    Args:
        x: place on the plane at distance 1, to the right.
        y: the same downwards.
        params: fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1.
    """
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = params
    r = np.hypot(x, y)
    turned = np.where(r > 1e-12, np.arctan(r) / np.maximum(r, 1e-12), 1.0)
    a, b = x * turned, y * turned
    square = a * a + b * b
    radial = square * (k1 + square * (k2 + square * (k3 + square * k4)))
    u = a + a * radial + 2 * p1 * a * b + p2 * (square + 2 * a * a) + sx1 * square
    v = b + b * radial + 2 * p2 * a * b + p1 * (square + 2 * b * b) + sy1 * square
    return fx * u + cx - 0.5, fy * v + cy - 0.5


def fisheye624_pixels(x: Map, y: Map, params: Sequence[float]) -> tuple[Map, Map]:
    """Pixels (u, v) of Project Aria's FISHEYE624, integer centres.

    Args:
        x: place on the plane at distance 1, to the right.
        y: the same downwards.
        params: focal length, cx, cy, k0 to k5, p0, p1, s0 to s3.
    """
    focal, cx, cy, *rest = params
    radial, (p0, p1), (s0, s1, s2, s3) = rest[:6], rest[6:8], rest[8:12]
    r = np.hypot(x, y)
    angle = np.arctan(r)
    square = angle * angle
    factor = np.ones_like(square)
    for power, k in enumerate(radial, start=1):
        factor = factor + k * square**power
    bent = np.where(r > 1e-12, angle * factor / np.maximum(r, 1e-12), 1.0)
    a, b = x * bent, y * bent
    rd = a * a + b * b
    twice = 2 * (a * p0 + b * p1)
    u = a + twice * a + rd * p0 + s0 * rd + s1 * rd * rd
    v = b + twice * b + rd * p1 + s2 * rd + s3 * rd * rd
    return focal * u + cx, focal * v + cy
