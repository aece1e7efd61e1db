"""A box-shaped room with speckled walls and exact truth about its frames: real enough for SIFT."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

ROOM_M = np.array([4.0, 3.0, 6.0])
"""Width (x), height (y) and length (z); the walls lie half of it from the origin."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame with its truth."""

    rgb: np.ndarray
    depth: np.ndarray
    """z-depth in metres."""
    K: np.ndarray
    T_world_camera: np.ndarray


def film(num_frames: int = 6, width: int = 240, height: int = 180) -> list[Shot]:
    """Frames of a walk to the side with a slow turn."""
    rng = np.random.default_rng(0)
    walls = [
        cv2.resize(
            rng.integers(0, 255, (96, 96, 3), dtype=np.uint8), (480, 480), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(6)
    ]
    K = np.array([[0.9 * width, 0, (width - 1) / 2], [0, 0.9 * width, (height - 1) / 2], [0, 0, 1]])
    shots = []
    for k in range(num_frames):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("yx", [4.0 * k - 10, 3.0 * (k % 2)], degrees=True).as_matrix()
        T[:3, 3] = [0.25 * k - 0.6, 0.1 * (k % 3), 0.08 * k - 1.0]
        shots.append(_shoot(walls, K, T, width, height))
    return shots


def _shoot(walls: list[np.ndarray], K: np.ndarray, T: np.ndarray, width: int, height: int) -> Shot:
    v, u = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    world, origin = rays @ T[:3, :3].T, T[:3, 3]
    # From inside a box a ray leaves through the nearest of the walls that it runs towards.
    with np.errstate(divide="ignore"):
        reach = (np.sign(world) * ROOM_M / 2 - origin) / world
    axis, depth = reach.argmin(axis=-1), reach.min(axis=-1)
    points = (origin + world * depth[..., None]) / ROOM_M + 0.5
    rgb = np.zeros((height, width, 3), dtype=np.uint8)
    for a in range(3):
        others = [b for b in range(3) if b != a]
        for side in (0, 1):
            here = (axis == a) & ((np.take(world, a, axis=-1) > 0) == bool(side))
            rows, columns = ((points[here][:, others] * 479).clip(0, 479)).astype(int).T
            rgb[here] = walls[2 * a + side][rows, columns]
    return Shot(rgb, depth, K, T)


def write_frames(
    folder: Path, shots: list[Shot], groups: list[list[int]] | None = None, *, depth: bool = True
) -> Path:
    """The shots as a folder with `frames.json`, depth in millimetres."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = {}
    for k, shot in enumerate(shots):
        Image.fromarray(shot.rgb).save(folder / f"{k}.png")
        frames[f"f{k}"] = {
            "image": f"{k}.png",
            "K": shot.K.tolist(),
            "T_world_camera": shot.T_world_camera.tolist(),
        }
        if depth:
            Image.fromarray((shot.depth * 1000).round().astype(np.uint16)).save(folder / f"{k}_depth.png")
            frames[f"f{k}"] |= {"depth": f"{k}_depth.png", "depth_unit_m": 0.001}
    listed = {"frames": frames}
    if groups is not None:
        listed["groups"] = [[f"f{k}" for k in group] for group in groups]
    (folder / "frames.json").write_text(json.dumps(listed))
    return folder
