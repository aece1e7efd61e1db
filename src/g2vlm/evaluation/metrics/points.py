"""Errors of reconstructed surfaces: alignment by Umeyama and ICP, then accuracy, completeness and normals.

The protocol of the public point benchmarks (7-Scenes in Spann3R, CUT3R, Pi3): corresponding pixels give a
Sim(3), point-to-point ICP refines its rigid part, then nearest neighbours are measured in both directions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import Similarity, umeyama


@dataclass(frozen=True)
class IcpOptions:
    """How the alignment is refined."""

    max_distance: float = 0.1
    """Pairs of nearest neighbours farther apart than this do not pull, unit of the target (0.1 m in the
    public protocol)."""
    max_iterations: int = 30
    """Upper limit; it stops earlier when the alignment settles."""
    tolerance: float = 1e-6
    """Settled: the mean distance of matched points and their number change by less than this fraction."""
    max_points: int = 5_000
    """Evenly spread source points that pull; the target is always used whole."""


@dataclass(frozen=True)
class PointErrors:
    """Distances between two surfaces, unit of the truth."""

    accuracy: float
    """Mean distance from a predicted point to the nearest true one: small also for a prediction that
    collapsed onto a bit of the surface, so it means nothing without completeness."""
    completeness: float
    """Mean distance from a true point to the nearest predicted one."""
    accuracy_median: float
    completeness_median: float
    normal_consistency: float | None
    """Mean |cosine| between the normals of nearest neighbours, both directions averaged: 1 is perfect, 0.5
    is chance. None where no normals were given."""


_IDENTITY = Similarity(
    torch.ones((), dtype=torch.float64),
    torch.eye(3, dtype=torch.float64),
    torch.zeros(3, dtype=torch.float64),
)


def icp(
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "m 3"],
    start: Similarity | None = None,
    options: IcpOptions | None = None,
) -> Similarity:
    """Point-to-point iterative closest point: rigid steps after a start that may hold a scale.

    Args:
        source: points to be moved.
        target: points to be met.
        start: first guess, from source to target; the identity if None. Its scale is kept.
        options: distances and limits.

    Returns:
        The refined similarity, the start itself where no point has a neighbour within reach.
    """
    from scipy.spatial import cKDTree

    options = options or IcpOptions()
    current = _IDENTITY if start is None else start
    p, g = evenly(source.double().cpu(), options.max_points), target.double().cpu()
    tree = cKDTree(g.numpy())
    moved = Similarity(current.scale.double(), current.R.double(), current.t.double()).apply(p)
    before = (np.inf, 0.0)
    for _ in range(options.max_iterations):
        found, index = tree.query(moved.numpy(), distance_upper_bound=options.max_distance)
        distance = np.asarray(found)
        near = torch.from_numpy(np.isfinite(distance))
        if int(near.sum()) < 3:
            break
        now = (float(distance[near.numpy()].mean()), float(near.double().mean()))
        if all(
            abs(a - b) <= options.tolerance * max(abs(a), 1e-300) for a, b in zip(now, before, strict=True)
        ):
            break
        before = now
        step = umeyama(moved[near], g[torch.from_numpy(index)[near]], with_scale=False)
        current = step.compose(current)
        moved = step.apply(moved)
    return current


@dataclass(frozen=True)
class Surface:
    """Points of a surface, with normals where they are known."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"] | None = None
    """Unit length, or zero where undefined; either sign."""

    def moved(self, similarity: Similarity) -> "Surface":
        """The surface in the target frame of a similarity."""
        normals = None if self.normals is None else self.normals.double().cpu() @ similarity.R.double().mT
        return Surface(similarity.apply(self.points.double().cpu()), normals)


def point_errors(pred: Surface, true: Surface, max_queries: int | None = None) -> PointErrors:
    """Distances between surfaces in one frame, by nearest neighbours in both directions.

    Args:
        pred: the predicted surface, aligned.
        true: the true one.
        max_queries: measure from at most so many evenly spread points of each side (to all points of the
            other, so that distances do not grow); from all if None.

    Raises:
        InputError: one of them has no point.
    """
    if len(pred.points) == 0 or len(true.points) == 0:
        raise InputError(
            f"Expected points on both sides, got {len(pred.points)} predicted and {len(true.points)} true."
        )
    from_pred, from_true = evenly(pred.points, max_queries), evenly(true.points, max_queries)
    accuracy, nearest_true = _nearest(from_pred, true.points)
    completeness, nearest_pred = _nearest(from_true, pred.points)
    consistency = None
    if pred.normals is not None and true.normals is not None:
        cosines = [
            _cosine(evenly(pred.normals, max_queries), true.normals[nearest_true]),
            _cosine(evenly(true.normals, max_queries), pred.normals[nearest_pred]),
        ]
        consistency = float(np.mean(cosines))
    return PointErrors(
        accuracy=float(accuracy.mean()),
        completeness=float(completeness.mean()),
        accuracy_median=float(np.median(accuracy)),
        completeness_median=float(np.median(completeness)),
        normal_consistency=consistency,
    )


def _nearest(points: Tensor, others: Tensor) -> tuple[np.ndarray, Tensor]:
    from scipy.spatial import cKDTree

    tree = cKDTree(others.double().cpu().numpy())
    distance, index = tree.query(points.double().cpu().numpy())
    return np.asarray(distance), torch.from_numpy(index)


def _cosine(normals: Tensor, others: Tensor) -> float:
    """Mean |cosine| over the points where both normals are defined."""
    a, b = normals.double().cpu(), others.double().cpu()
    defined = (a.abs().sum(dim=-1) > 0) & (b.abs().sum(dim=-1) > 0)
    if not bool(defined.any()):
        raise InputError("Expected defined normals on both sides, got none: the surfaces are degenerate.")
    return float((a[defined] * b[defined]).sum(dim=-1).abs().mean())


def evenly(rows: Float[Tensor, "n 3"], most: int | None) -> Float[Tensor, "chosen 3"]:
    """At most `most` rows, evenly spread over the list, always the same ones."""
    if most is None or len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).round().long()]


def diagonal(points: Float[Tensor, "n 3"]) -> float:
    """Length of the diagonal of the box around points, along the axes."""
    return float((points.amax(dim=0) - points.amin(dim=0)).double().norm())
