"""A textured room whose pictures, depth and cameras are known exactly, to write data sets from."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

HALF = np.array([2.5, 1.5, 2.0])
"""Half of the room's sides, metres; the world's origin is in its middle, y points down."""
BALL, RADIUS = np.array([0.4, 0.9, 0.6]), 0.6


@dataclass(frozen=True, eq=False)
class ExactView:
    """One view with its truth."""

    rgb: np.ndarray
    depth: np.ndarray
    """z-depth in metres, float64."""
    K: np.ndarray
    T_world_camera: np.ndarray
    """OpenCV axes."""

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.depth.shape
        return width, height


def looking(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Camera-to-world pose of a camera that looks at a point, y of the picture downwards."""
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    c, s = np.cos(roll), np.sin(roll)
    T[:3, :3] = T[:3, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    T[:3, 3] = position
    return T


@lru_cache
def exact_views(count: int = 4, width: int = 160, height: int = 120, seed: int = 0) -> tuple[ExactView, ...]:
    """Views along a short path, all looking at one corner of the room; K without any symmetry."""
    rng = np.random.default_rng(seed)
    K = np.array(
        [[0.8 * width, 0, 0.51 * width], [0, 0.82 * width, 0.48 * height], [0, 0, 1]], dtype=np.float64
    )
    views = []
    for k in range(count):
        position = np.array([-1.2 + 0.25 * k, -0.2 + 0.08 * (k % 3), -1.2 + 0.1 * k]) + 0.02 * rng.random(3)
        target = np.array([0.3, 0.5, 1.2]) + 0.1 * rng.random(3)
        views.append(render(looking(position, target, roll=0.05 * k), K, (width, height)))
    return tuple(views)


def render(T_world_camera: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> ExactView:
    """What a pinhole camera sees."""
    width, height = size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1)
    depth, colours = trace(T_world_camera, rays)
    return ExactView(colours, depth, K, T_world_camera)


def trace(T_world_camera: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z-depth and colour of what is seen along rays (height, width, 3) with z = 1 in camera axes."""
    direction, origin = rays @ T_world_camera[:3, :3].T, T_world_camera[:3, 3]
    with np.errstate(divide="ignore"):
        walls = (np.sign(direction) * HALF - origin) / direction
    depth = walls.min(axis=-1)
    b = direction @ (origin - BALL)
    square = (direction**2).sum(axis=-1)
    inner = b**2 - square * (((origin - BALL) ** 2).sum() - RADIUS**2)
    hit = (-b - np.sqrt(np.maximum(inner, 0))) / square
    depth = np.where((inner > 0) & (hit > 0) & (hit < depth), hit, depth)
    return depth, _colours(origin + direction * depth[..., None])


def _colours(points: np.ndarray) -> np.ndarray:
    """A texture that is a function of the place: blocks of several sizes with colours of their own."""
    result = np.zeros(points.shape)
    for size, weight in ((0.31, 0.5), (0.11, 0.35), (0.047, 0.15)):
        cell = np.floor(points / size + 0.137).astype(np.int64)
        number = (cell * np.array([73856093, 19349663, 83492791])).sum(axis=-1)
        for channel in range(3):
            mixed = (number * (2654435761 + 40503 * channel)) & 0xFFFFFFFF
            mixed = ((mixed >> 15) ^ mixed) * 2246822519 & 0xFFFFFFFF
            result[..., channel] += weight * ((mixed >> 8) & 0xFF)
    return np.clip(result, 0, 255).astype(np.uint8)
