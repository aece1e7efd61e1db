"""Pose graphs over similarities: pieces of a long reconstruction, held together by measured overlaps.

Every node is a piece with its own frame and unit; an edge says how two pieces lie to each other where they
overlap. The solution is the set of `world from piece` similarities that contradicts the edges least.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import Similarity
from g2vlm.geometry.sim3 import adjoint, right_jacobian, similarity_exp, similarity_log

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_TANGENT = 7
_ANNEALING = (math.inf, 10.0, 3.0, 1.0)
"""Factors on the robust widths, one solve each: gross drift is taken up before loops are doubted."""
_REJECTED_WEIGHT = 1e-4


@dataclass(frozen=True)
class SimilarityEdge:
    """One measured overlap of two pieces."""

    first: int
    """Node whose frame the measurement leads to."""
    second: int
    """Node whose frame it starts from."""
    first_from_second: Similarity
    """Measured similarity, unbatched, float64."""
    centre: Float[Tensor, "3"]
    """Where the overlap lies, frame of `second`."""
    extent: float
    """Radius of the overlap in the unit of `second`; deviations are counted relative to it."""
    sigma: float
    """Standard deviation of the measurement: relative length, radians and relative scale alike."""
    robust_width: float = math.inf
    """Deviation, in sigmas, from which the edge loses its pull (Cauchy); infinity trusts it always."""

    def __post_init__(self) -> None:
        if self.first == self.second or min(self.first, self.second) < 0:
            raise InputError(f"Expected an edge between two nodes, got {self.first} and {self.second}.")
        numbers = (self.extent, self.sigma, self.robust_width)
        if not all(number > 0 for number in numbers) or not math.isfinite(self.extent * self.sigma):
            raise InputError(f"Expected a positive extent, sigma and robust width, got {numbers}.")


@dataclass(frozen=True, eq=False)
class PoseGraphSolution:
    """Where every piece lies."""

    world_from_node: Similarity
    """Batched over nodes, float64; node 0 keeps the frame it was given."""
    deviations: Float[np.ndarray, " edges"]
    """How far each edge is from what it measured, in its sigmas (norm over the 7 coordinates)."""
    rejected: Bool[np.ndarray, " edges"]
    """Edges left out in the end, because they deviate by more than their robust width."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """All edges side by side."""

    first: Int[Tensor, " edges"]
    second: Int[Tensor, " edges"]
    local: Similarity
    """Frame of the overlap (centre as origin, extent as unit) in the frame of `second`."""
    expected: Similarity
    """The same frame in the frame of `first`, as measured."""
    sigma: Float[Tensor, " edges"]
    width: Float[Tensor, " edges"]


def stack_similarities(similarities: Sequence[Similarity]) -> Similarity:
    """Put unbatched similarities side by side, in float64 on the CPU."""
    return Similarity(
        scale=torch.stack([one.scale for one in similarities]).double().cpu(),
        R=torch.stack([one.R for one in similarities]).double().cpu(),
        t=torch.stack([one.t for one in similarities]).double().cpu(),
    )


def take_similarity(similarity: Similarity, index: int | Tensor) -> Similarity:
    """One or some of a batch."""
    return Similarity(scale=similarity.scale[index], R=similarity.R[index], t=similarity.t[index])


def identity_similarity() -> Similarity:
    """Leaves points where they are; float64."""
    return Similarity(
        scale=torch.ones((), dtype=torch.float64),
        R=torch.eye(3, dtype=torch.float64),
        t=torch.zeros(3, dtype=torch.float64),
    )


def _collect(edges: Sequence[SimilarityEdge]) -> _Batch:
    count = len(edges)
    measured = stack_similarities([edge.first_from_second for edge in edges])
    local = Similarity(
        scale=torch.tensor([edge.extent for edge in edges], dtype=torch.float64),
        R=torch.eye(3, dtype=torch.float64).repeat(count, 1, 1),
        t=torch.stack([edge.centre.double().cpu() for edge in edges]),
    )
    return _Batch(
        first=torch.tensor([edge.first for edge in edges]),
        second=torch.tensor([edge.second for edge in edges]),
        local=local,
        expected=measured.compose(local),
        sigma=torch.tensor([edge.sigma for edge in edges], dtype=torch.float64),
        width=torch.tensor([edge.robust_width for edge in edges], dtype=torch.float64),
    )


def chain_similarities(num_nodes: int, edges: Sequence[SimilarityEdge]) -> Similarity:
    """World from node along the fewest edges from node 0, earlier edges first; node 0 is the world.

    Raises:
        InputError: a node cannot be reached.
    """
    neighbours: dict[int, list[tuple[int, Similarity]]] = {}
    for edge in edges:
        neighbours.setdefault(edge.first, []).append((edge.second, edge.first_from_second))
        neighbours.setdefault(edge.second, []).append((edge.first, edge.first_from_second.inverse()))
    placed = {0: identity_similarity()}
    queue = deque([0])
    while queue:
        node = queue.popleft()
        for other, node_from_other in neighbours.get(node, []):
            if other not in placed:
                placed[other] = placed[node].compose(node_from_other)
                queue.append(other)
    if missing := [node for node in range(num_nodes) if node not in placed]:
        raise InputError(
            f"Expected every piece to be connected to piece 0, but {missing[:8]} are not: widen the overlap."
        )
    return stack_similarities([placed[node] for node in range(num_nodes)])


def optimize_pose_graph(
    edges: Sequence[SimilarityEdge], initial: Similarity, *, max_steps: int = 60
) -> PoseGraphSolution:
    """Move the nodes so that the measured overlaps fit best, node 0 fixed.

    Minimises the sum over edges of c^2 log(1 + |r|^2 / c^2), c the robust width of the edge and r its
    deviation: the Sim(3) logarithm of measured against actual relative position, taken in the frame of the
    overlap (its centre as origin, its extent as unit) and divided by sigma. So the result depends neither on
    the unit of any piece nor on where its origin happens to lie. The robust widths are annealed: the first
    solve trusts every edge, so that a loop may close over a large drift, later ones doubt those that still
    disagree, and the last leaves out those beyond their width. Solved by Levenberg-Marquardt steps with the
    exact sparse Jacobian (scipy.sparse).

    Args:
        edges: at least one; together they must hold every node.
        initial: world from node, batched over nodes, for instance from `chain_similarities`.
        max_steps: limit on the steps of each of the solves.

    Raises:
        InputError: no edge, or an edge to a node that does not exist.
    """
    num_nodes = initial.scale.shape[0]
    if not edges or max(max(edge.first, edge.second) for edge in edges) >= num_nodes:
        raise InputError(f"Expected edges between {num_nodes} nodes, got {len(edges)} that do not fit.")
    batch, nodes = _collect(edges), initial
    stages = _ANNEALING if bool(batch.width.isfinite().any()) else (math.inf,)
    for factor in stages if num_nodes > 1 else ():
        nodes = _solve(_Problem(batch, nodes, batch.width * factor), max_steps)
    rejected = _deviations(batch, nodes) > batch.width
    if bool(rejected.any()):
        # Next to no weight instead of none: a node held by such edges alone stays where it is.
        sigma = torch.where(rejected, batch.sigma / _REJECTED_WEIGHT, batch.sigma)
        kept = replace(batch, sigma=sigma)
        nodes = _solve(_Problem(kept, nodes, torch.full_like(batch.width, math.inf)), max_steps)
    return PoseGraphSolution(nodes, _deviations(batch, nodes).numpy(), rejected.numpy())


def _deviations(batch: _Batch, nodes: Similarity) -> Float[Tensor, " edges"]:
    zero = torch.zeros(nodes.scale.shape[0], _TANGENT, dtype=torch.float64)
    return _Problem(batch, nodes, batch.width).deviation(zero).norm(dim=-1)


def _solve(problem: "_Problem", max_steps: int) -> Similarity:
    """Levenberg-Marquardt with a direct sparse factorisation.

    Iterative solvers (scipy's `lsmr` inside `least_squares`) need thousands of products on long chains, whose
    systems are ill-conditioned; a chain with a few loops factorises in time linear in its length.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import splu

    x = np.zeros((problem.num_nodes - 1) * _TANGENT)
    residual = problem.residual(x)
    cost, damping = float(residual @ residual), 1e-6
    for _ in range(max_steps):
        jacobian = problem.jacobian(x)
        gradient, normal = jacobian.T @ residual, (jacobian.T @ jacobian).tocsc()
        scale = np.maximum(normal.diagonal(), 1e-12)
        improved = False
        while damping < 1e8 and not improved:
            step = -splu(normal + diags(damping * scale, format="csc")).solve(gradient)
            trial = problem.residual(x + step)
            trial_cost = float(trial @ trial)
            improved = trial_cost < cost
            damping = damping / 10 if improved else damping * 10
        if not improved:
            break
        gain = cost - trial_cost
        x, residual, cost = x + step, trial, trial_cost
        damping = max(damping, 1e-12)
        if gain <= 1e-12 * cost or np.abs(step).max() < 1e-11:
            break
    return problem.base.compose(similarity_exp(problem.tangents(x)))


class _Problem:
    """Residuals and Jacobian for nodes `base[i] exp(x_i)`, with x_0 = 0."""

    def __init__(self, edges: _Batch, base: Similarity, width: Float[Tensor, " edges"]) -> None:
        self.edges = edges
        self.base = base
        self.width = width
        self.num_nodes = base.scale.shape[0]

    def tangents(self, x: np.ndarray) -> Float[Tensor, "nodes 7"]:
        """Unknowns as one tangent vector for each node."""
        free = torch.from_numpy(np.asarray(x, dtype=np.float64)).view(-1, _TANGENT)
        return torch.cat([free.new_zeros(1, _TANGENT), free])

    def _actual(self, tangents: Tensor) -> Similarity:
        """Overlap frame by the nodes as they stand, against where the measurement puts it."""
        nodes = self.base.compose(similarity_exp(tangents))
        first = take_similarity(nodes, self.edges.first)
        second = take_similarity(nodes, self.edges.second)
        return self.edges.expected.inverse().compose(
            first.inverse().compose(second).compose(self.edges.local)
        )

    def deviation(self, tangents: Float[Tensor, "nodes 7"]) -> Float[Tensor, "edges 7"]:
        """Deviation of every edge in its sigmas."""
        return similarity_log(self._actual(tangents)) / self.edges.sigma[:, None]

    def residual(self, x: np.ndarray) -> np.ndarray:
        """Robust residual: its squared norm is the robust cost of the edge."""
        deviation = self.deviation(self.tangents(x))
        gain, _ = self._gain(deviation)
        robust: np.ndarray = (gain[:, None] * deviation).flatten().numpy()
        return robust

    def _gain(self, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Factor g with |g r|^2 = c^2 log(1 + |r|^2 / c^2), and dg / d|r|^2."""
        square = deviation.square().sum(dim=-1)
        trusted = self.width.isinf()
        width2 = torch.where(trusted, 1.0, self.width.square())
        ratio = square / width2
        small = ratio < 1e-6
        safe = torch.where(small, 1.0, ratio)
        decay = torch.where(small, 1 - ratio / 2, safe.log1p() / safe)
        slope = torch.where(small, -0.5 + 2 * ratio / 3, (1 / (1 + safe) - safe.log1p() / safe) / safe)
        gain = decay.sqrt()
        return (
            torch.where(trusted, 1.0, gain),
            torch.where(trusted, 0.0, slope / (2 * gain * width2)),
        )

    def jacobian(self, x: np.ndarray) -> "csr_matrix":
        """Derivative of `residual`, one 7 x 7 block for each edge and each of its free nodes."""
        tangents, edges = self.tangents(x), self.edges
        actual = self._actual(tangents)
        log = similarity_log(actual)
        moved = right_jacobian(tangents)
        outer = torch.linalg.inv(right_jacobian(log)) / edges.sigma[:, None, None]
        by_second = outer @ adjoint(edges.local.inverse()) @ moved[edges.second]
        back = actual.inverse().compose(edges.expected.inverse())
        by_first = -outer @ adjoint(back) @ moved[edges.first]
        deviation = log / edges.sigma[:, None]
        gain, slope = self._gain(deviation)
        # d(g r) = g dr + r (dg/d|r|^2) 2 r^T dr
        spread = gain[:, None, None] * torch.eye(_TANGENT, dtype=torch.float64)
        spread = spread + 2 * slope[:, None, None] * deviation[:, :, None] * deviation[:, None, :]
        return self._sparse([(edges.first, spread @ by_first), (edges.second, spread @ by_second)])

    def _sparse(self, blocks: list[tuple[Tensor, Tensor]]) -> Any:
        from scipy.sparse import csr_matrix

        count = len(self.edges.sigma)
        row = torch.arange(count * _TANGENT).view(count, _TANGENT, 1).expand(-1, -1, _TANGENT)
        rows, columns, values = [], [], []
        for node, block in blocks:
            column = (node[:, None] - 1) * _TANGENT + torch.arange(_TANGENT)
            free = node > 0
            rows.append(row[free].flatten())
            columns.append(column[free][:, None].expand(-1, _TANGENT, -1).flatten())
            values.append(block[free].flatten())
        shape = (count * _TANGENT, (self.num_nodes - 1) * _TANGENT)
        place = (torch.cat(rows).numpy(), torch.cat(columns).numpy())
        return csr_matrix((torch.cat(values).numpy(), place), shape=shape)
