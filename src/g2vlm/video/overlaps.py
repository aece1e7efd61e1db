"""How two reconstructions of the same frames lie to each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import Similarity, robust_similarity, weighted_median
from g2vlm.geometry.pose_graph import SimilarityEdge
from g2vlm.scene.view import View
from g2vlm.video.pieces import Piece

_POINTS_PER_VIEW = 2048
_CAMERA_SHARE = 0.15
_LARGEST_NEARNESS = 3.0
_MEDIAN_OF_NORM = 1.538  # of a 3-D Gaussian of unit deviation per axis
_SYSTEMATIC = 0.01
"""Deviation that every overlap is granted beside the measured one: errors common to all its points."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """The measured position of one piece in another."""

    first_from_second: Similarity
    """Float64."""
    centre: Float[Tensor, "3"]
    """Middle of the shared points, frame of the second."""
    extent: float
    """Root mean square distance from the middle, unit of the second."""
    deviation: float
    """Robust standard deviation of the points from each other per axis, relative to the extent."""

    def edge(self, first: int, second: int, robust_width: float = math.inf) -> SimilarityEdge:
        """As an edge of the pose graph between two nodes."""
        sigma = math.hypot(self.deviation, _SYSTEMATIC)
        return SimilarityEdge(
            first, second, self.first_from_second, self.centre, self.extent, sigma, robust_width
        )


@dataclass(frozen=True, eq=False)
class _Matches:
    """Corresponding points of both pieces."""

    first: Float[Tensor, "points 3"]
    second: Float[Tensor, "points 3"]
    weight: Float[Tensor, " points"]


def shared_frames(first: Piece, second: Piece) -> list[int]:
    """Frames that both pieces hold, in order."""
    return sorted(set(first.frames) & set(second.frames))


def measure_overlap(first: Piece, second: Piece) -> Overlap:
    """Sim(3) between two pieces from the frames they share.

    Every pixel of a shared frame is seen by both, so its two points correspond. They are weighted by the
    confidence both give and by the inverse square of their depth (the error of a depth grows with it), and
    aligned robustly; cameras take part as three points each: their centres and points ahead and to the side
    at the view's median depth, with 15 % of the weight.

    Raises:
        InputError: no shared frames, or no points in them that both trust.
    """
    frames = shared_frames(first, second)
    if not frames:
        raise InputError("Expected pieces that share frames, got none in common: widen the overlap.")
    pairs = [(first.view_of(frame), second.view_of(frame)) for frame in frames]
    points, cameras = _points(pairs), _cameras(pairs)
    if float(points.weight.sum()) <= 0:
        raise InputError(
            f"Expected points with confidence in frames {frames[0]} to {frames[-1]}, got none that both "
            "pieces trust."
        )
    share = _CAMERA_SHARE * float(points.weight.sum()) / len(cameras.weight)
    similarity = robust_similarity(
        torch.cat([points.second, cameras.second]),
        torch.cat([points.first, cameras.first]),
        torch.cat([points.weight, share * cameras.weight]),
    )
    return _judged(similarity, points)


def _judged(similarity: Similarity, points: _Matches) -> Overlap:
    weight = points.weight / points.weight.sum()
    centre = (weight[:, None] * points.second).sum(dim=0)
    extent = float((weight * (points.second - centre).square().sum(dim=-1)).sum().sqrt())
    residual = (similarity.apply(points.second) - points.first).norm(dim=-1) / similarity.scale
    deviation = float(weighted_median(residual, weight)) / _MEDIAN_OF_NORM
    return Overlap(similarity, centre, extent, deviation / extent)


def _points(pairs: Sequence[tuple[View, View]]) -> _Matches:
    """A regular sample of the pixels that are valid in both views of a frame."""
    first, second, weight = [], [], []
    for one, other in pairs:
        step = max(1, math.ceil(math.sqrt(one.valid.size / _POINTS_PER_VIEW)))
        grid = np.s_[step // 2 :: step, step // 2 :: step]
        both = one.valid[grid] & other.valid[grid] & (one.depth[grid] > 0) & (other.depth[grid] > 0)
        if not both.any():
            continue
        trust = np.sqrt(one.confidence[grid][both].astype(np.float64) * other.confidence[grid][both])
        first.append(_world(one, grid, both))
        second.append(_world(other, grid, both))
        nearness = [_nearness(view.depth[grid][both]) for view in (one, other)]
        weight.append(trust * nearness[0] * nearness[1])
    if not first:
        raise InputError("Expected points that both pieces hold in the frames they share, got none.")
    return _Matches(*(torch.from_numpy(np.concatenate(rows)) for rows in (first, second, weight)))


def _nearness(depth: np.ndarray) -> np.ndarray:
    """Inverse depth relative to the median, limited so that the nearest points do not decide alone."""
    near: np.ndarray = np.minimum(np.median(depth) / depth.astype(np.float64), _LARGEST_NEARNESS)
    return near


def _world(view: View, grid: tuple[slice, slice], chosen: np.ndarray) -> np.ndarray:
    T = view.T_world_camera.astype(np.float64)
    points: np.ndarray = view.points_camera[grid][chosen].astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    return points


def _cameras(pairs: Sequence[tuple[View, View]]) -> _Matches:
    """The centre of every camera and points on its axes, at the median depth of the view."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float64)
    sides = []
    for side in range(2):
        rows = []
        for pair in pairs:
            view = pair[side]
            depth = np.median(view.depth[view.valid]) if view.valid.any() else 1.0
            T = view.T_world_camera.astype(np.float64)
            rows.append(float(depth) * corners @ T[:3, :3].T + T[:3, 3])
        sides.append(torch.from_numpy(np.concatenate(rows)))
    return _Matches(sides[0], sides[1], torch.ones(len(sides[0]), dtype=torch.float64))
