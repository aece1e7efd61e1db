"""How far cameras and depth contradict features that two views share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from g2vlm.data.checking.views import CheckedView, Matches

WORST = 0.25
"""Largest error of a pair, in widths of the picture: beyond it, wrong is wrong."""
_FEWEST_WITH_DEPTH = 12
_IN_FRONT = 0.6
"""Share of shared features that must lie in front of both cameras."""


def pair_errors(views: Sequence[CheckedView], matches: Sequence[Matches]) -> Float[np.ndarray, " pairs"]:
    """Error of each pair in widths of the picture, at most `WORST`.

    With depth: the median distance between where a feature of one view is seen in the other, and where its
    depth and the cameras put it, both ways. Without: the median distance from its epipolar line, and `WORST`
    where the features would lie behind a camera.
    """
    return np.array([_pair_error(views[m.first], views[m.second], m) for m in matches])


def _pair_error(first: CheckedView, second: CheckedView, matches: Matches) -> float:
    if first.depth is not None and second.depth is not None:
        there = _reprojection(first, second, matches.points_first, matches.points_second)
        back = _reprojection(second, first, matches.points_second, matches.points_first)
        both = np.concatenate([there, back])
        if len(both) >= _FEWEST_WITH_DEPTH:
            return float(min(np.median(both), WORST))
    return _epipolar(first, second, matches)


def _reprojection(
    source: CheckedView, target: CheckedView, points: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Distances of features with depth, in widths."""
    depth = source.depth_at(points)
    known = depth > 0
    local = _rays(points[known], source.K) * depth[known, None]
    T = np.linalg.inv(target.T_world_camera) @ source.T_world_camera
    x, y, z = T[:3, :3] @ local.T + T[:3, 3:]
    front = z > 1e-9
    z = np.where(front, z, 1.0)
    u = target.K[0, 0] * x / z + target.K[0, 2]
    v = target.K[1, 1] * y / z + target.K[1, 2]
    distance = np.hypot(u - seen[known, 0], v - seen[known, 1]) / target.size[0]
    return np.where(front, np.minimum(distance, WORST), WORST)


def _epipolar(first: CheckedView, second: CheckedView, matches: Matches) -> float:
    T = np.linalg.inv(second.T_world_camera) @ first.T_world_camera
    R, t = T[:3, :3], T[:3, 3]
    if np.linalg.norm(t) < 1e-9:
        return WORST
    t = t / np.linalg.norm(t)
    a, b = _rays(matches.points_first, first.K), _rays(matches.points_second, second.K)
    if _in_front(R, t, a, b) < _IN_FRONT:
        return WORST
    E = np.cross(np.eye(3), t) @ R  # rows of the cross product matrix, up to a sign
    F = np.linalg.inv(second.K).T @ E @ np.linalg.inv(first.K)
    ones = np.ones((len(a), 1))
    p, q = (np.concatenate([x, ones], axis=1) for x in (matches.points_first, matches.points_second))
    lines_second, lines_first = p @ F.T, q @ F
    value = np.abs((q * lines_second).sum(axis=1))
    distance = value * (
        1 / np.maximum(np.linalg.norm(lines_second[:, :2], axis=1), 1e-12)
        + 1 / np.maximum(np.linalg.norm(lines_first[:, :2], axis=1), 1e-12)
    )
    return float(min(np.median(distance) / 2 / second.size[0], WORST))


def _in_front(R: np.ndarray, t: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Share of features whose rays meet in front of both cameras, or show no parallax."""
    turned = a @ R.T
    # Solve depth_b b - depth_a turned = t in the sense of least squares.
    aa, bb, ab = (turned**2).sum(1), (b**2).sum(1), (turned * b).sum(1)
    at, bt = turned @ t, b @ t
    determinant = aa * bb - ab**2
    depth_a = (ab * bt - bb * at) / np.maximum(determinant, 1e-15)
    depth_b = (aa * bt - ab * at) / np.maximum(determinant, 1e-15)
    no_parallax = determinant < 1e-6 * aa * bb
    return float(((depth_a > 0) & (depth_b > 0) | no_parallax).mean())


def _rays(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    x = (points[:, 0] - K[0, 2]) / K[0, 0]
    y = (points[:, 1] - K[1, 2]) / K[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def depth_disagreement(
    views: Sequence[CheckedView], matches: Sequence[Matches]
) -> Float[np.ndarray, " pairs"]:
    """Median relative difference between the depth that a view measures and that another one predicts.

    Taken where shared features are seen, NaN for pairs in which too few of them have depth.
    """
    found = []
    for m in matches:
        first, second = views[m.first], views[m.second]
        if first.depth is None or second.depth is None:
            found.append(np.nan)
            continue
        near, far = first.depth_at(m.points_first), second.depth_at(m.points_second)
        known = (near > 0) & (far > 0)
        T = np.linalg.inv(second.T_world_camera) @ first.T_world_camera
        local = _rays(m.points_first[known], first.K) * near[known, None]
        z = local @ T[2, :3] + T[2, 3]
        found.append(np.median(np.abs(z / far[known] - 1)) if known.sum() >= _FEWEST_WITH_DEPTH else np.nan)
    return np.array(found)


def depth_ratio(views: Sequence[CheckedView], matches: Sequence[Matches]) -> tuple[float, float]:
    """How many times too large depth is beside the poses, and how well that is known.

    A shared feature moves in camera axes by D = X_second - R X_first, which equals the translation t where
    units agree. <t, D> / <t, t> is that ratio, in which noise of the depth cancels even where cameras hardly
    move.

    Returns:
        The median over pairs, each weighing as much as its cameras move compared with the depth; NaN where
        nothing is known. And the sum of these weights: below about 0.01 the ratio means little.
    """
    ratios, weights = [], []
    for m in matches:
        first, second = views[m.first], views[m.second]
        if first.depth is None or second.depth is None:
            continue
        near, far = first.depth_at(m.points_first), second.depth_at(m.points_second)
        known = (near > 0) & (far > 0)
        T = np.linalg.inv(second.T_world_camera) @ first.T_world_camera
        t = T[:3, 3]
        if known.sum() < _FEWEST_WITH_DEPTH or not t.any():
            continue
        a = _rays(m.points_first[known], first.K) * near[known, None]
        b = _rays(m.points_second[known], second.K) * far[known, None]
        D = np.median(b - a @ T[:3, :3].T, axis=0)
        ratios.append(float(t @ D / (t @ t)))
        weights.append(float(t @ t))
    if not ratios:
        return float("nan"), 0.0
    order = np.argsort(ratios)
    share = np.cumsum(np.array(weights)[order])
    ratio = float(np.array(ratios)[order][np.searchsorted(share, share[-1] / 2)])
    typical = np.median(
        [np.median(v.depth[v.depth > 0]) for v in views if v.depth is not None and v.depth.any()]
    )
    return ratio, float(sum(weights) * max(ratio, 1.0) ** 2 / typical**2)
