"""Groups of frames that see each other, chosen from their depth and poses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from g2vlm.data.prepare.layout import ListedFrame
from g2vlm.evaluation.posed_frames import DepthLimits, read_depth

_GRID = (18, 24)
"""Rows and columns of the pixels of a frame that stand for it."""
_GUESSED_DEPTHS = (2.0, 5.0, 10.0)
"""Where a frame has no depth: distances in median steps between neighbouring cameras."""
_SAME_SURFACE = 0.1
"""A point is the same surface in two frames if their depths of it differ by less than this share."""


@dataclass(frozen=True)
class GroupOptions:
    """Which frames make a group."""

    size: int = 4
    """Frames of a group."""
    num_groups: int = 16
    """At most so many groups of a set."""
    least_overlap: float = 0.3
    """Every frame shares at least this share of its pixels with the first one of the group."""
    most_overlap: float = 0.9
    """... and at most this one: frames that see the same from the same place say little about depth."""
    seed: int = 0


def choose_groups(
    frames: Sequence[ListedFrame], options: GroupOptions, limits: DepthLimits
) -> tuple[tuple[int, ...], ...]:
    """Groups of overlapping frames, the same for the same seed.

    A first frame is drawn; the others are drawn among those that see enough of what it sees. Frames without
    depth are judged by what their cameras would see at a few guessed distances. No two groups have the same
    first frame.

    Args:
        frames: of one scene.
        options: sizes and overlaps.
        limits: which depths count.

    Returns:
        Indices of frames, each group in the order of the frames; fewer groups than asked where frames do not
        overlap.
    """
    draw = np.random.default_rng(options.seed)
    step = _median_step(frames)
    groups: list[tuple[int, ...]] = []
    for first in draw.permutation(len(frames)):
        if len(groups) >= options.num_groups:
            break
        points = _surface(frames[first], limits, step)
        shares = [_visible_share(points, frame) for frame in frames]
        near = [k for k, share in enumerate(shares) if k != first and share >= options.least_overlap]
        chosen = [int(first)]
        for other in draw.permutation(near):
            if len(chosen) == options.size:
                break
            share = _agreed_share(points, frames[other], limits)
            if options.least_overlap <= share <= options.most_overlap:
                chosen.append(int(other))
        if len(chosen) == options.size:
            groups.append(tuple(sorted(chosen)))
    return tuple(dict.fromkeys(groups))


def _median_step(frames: Sequence[ListedFrame]) -> float:
    centres = np.stack([frame.T_world_camera[:3, 3] for frame in frames])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 1.0


def _size(frame: ListedFrame) -> tuple[int, int]:
    """Width and height that `K` belongs to; twice the principal point where nobody says."""
    if frame.K_size is not None:
        return frame.K_size
    return round(2 * frame.K[0, 2] + 1), round(2 * frame.K[1, 2] + 1)


def _surface(frame: ListedFrame, limits: DepthLimits, step: float) -> Float[np.ndarray, "points 3"]:
    """World points that a frame sees, on a coarse grid of its pixels."""
    width, height = _size(frame)
    v, u = np.meshgrid(
        (np.arange(_GRID[0]) + 0.5) / _GRID[0], (np.arange(_GRID[1]) + 0.5) / _GRID[1], indexing="ij"
    )
    pixels = np.stack([u * width - 0.5, v * height - 0.5, np.ones_like(u)], axis=-1).reshape(-1, 3)
    rays = pixels @ np.linalg.inv(frame.K).T
    if frame.depth is None:
        camera = np.concatenate([rays * step * factor for factor in _GUESSED_DEPTHS])
    else:
        depth, known = read_depth(frame, limits)
        rows, columns = (v * depth.shape[0]).astype(int).ravel(), (u * depth.shape[1]).astype(int).ravel()
        chosen = known[rows, columns]
        camera = rays[chosen] * depth[rows, columns][chosen, None]
    return camera @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]


def _projected(points: np.ndarray, frame: ListedFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative columns and rows (0 to 1 inside) and depths of world points in a frame."""
    R, t = frame.T_world_camera[:3, :3], frame.T_world_camera[:3, 3]
    camera = (points - t) @ R
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (camera @ frame.K.T) / camera[:, 2:]
    width, height = _size(frame)
    return (pixels[:, 0] + 0.5) / width, (pixels[:, 1] + 0.5) / height, camera[:, 2]


def _visible_share(points: np.ndarray, frame: ListedFrame) -> float:
    if len(points) == 0:
        return 0.0
    u, v, z = _projected(points, frame)
    return float(np.mean((z > 0) & (u >= 0) & (u < 1) & (v >= 0) & (v < 1)))


def _agreed_share(points: np.ndarray, frame: ListedFrame, limits: DepthLimits) -> float:
    """Share of the points that a frame sees, not hidden behind something nearer."""
    if frame.depth is None or len(points) == 0:
        return _visible_share(points, frame)
    u, v, z = _projected(points, frame)
    inside = (z > 0) & (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
    depth, known = read_depth(frame, limits)
    rows, columns = (v[inside] * depth.shape[0]).astype(int), (u[inside] * depth.shape[1]).astype(int)
    seen = known[rows, columns] & (np.abs(depth[rows, columns] - z[inside]) < _SAME_SURFACE * z[inside])
    return float(seen.sum() / len(points))
