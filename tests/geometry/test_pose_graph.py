"""Pose graphs: the Jacobian against differences, solutions against ground truth, outliers, invariances."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from g2vlm.errors import InputError
from g2vlm.geometry import pose_graph
from g2vlm.geometry.alignment import Similarity
from g2vlm.geometry.pose_graph import (
    SimilarityEdge,
    chain_similarities,
    optimize_pose_graph,
    stack_similarities,
    take_similarity,
)
from g2vlm.geometry.sim3 import similarity_exp, similarity_log


def ring(count: int, radius: float = 10.0, scale_spread: float = 0.5, seed: int = 0) -> Similarity:
    """Nodes around a circle, facing along it, each with its own unit; node 0 is the world."""
    generator = torch.Generator().manual_seed(seed)
    nodes = []
    for index in range(count):
        angle = 2 * math.pi * index / count
        centre = [radius * (1 - math.cos(angle)), 0.0, radius * math.sin(angle)]
        log_scale = scale_spread * float(torch.randn((), generator=generator)) if index else 0.0
        turn = similarity_exp(torch.tensor([0, 0, 0, 0, angle, 0, log_scale], dtype=torch.float64))
        nodes.append(Similarity(scale=turn.scale, R=turn.R, t=torch.tensor(centre, dtype=torch.float64)))
    return stack_similarities(nodes)


def edge(nodes: Similarity, a: int, b: int, noise=None, width: float = math.inf) -> SimilarityEdge:
    """Overlap of two nodes, three metres wide and somewhere off the origin of `b`, with a deviation."""
    first, second = take_similarity(nodes, a), take_similarity(nodes, b)
    extent = 3.0 / float(second.scale)
    centre = torch.tensor([0.4, -0.2, 1.0], dtype=torch.float64) * extent
    measured = first.inverse().compose(second)
    if noise is not None:
        local = Similarity(scale=torch.tensor(extent, dtype=torch.float64), R=torch.eye(3).double(), t=centre)
        error = local.compose(similarity_exp(torch.as_tensor(noise).double())).compose(local.inverse())
        measured = measured.compose(error)
    return SimilarityEdge(a, b, measured, centre, extent, 0.02, width)


def noisy_ring(count: int, bias, noise: float, seed: int = 1) -> tuple[Similarity, list[SimilarityEdge]]:
    nodes = ring(count)
    generator = torch.Generator().manual_seed(seed)
    edges = [
        edge(nodes, k, k + 1, torch.tensor(bias) + noise * torch.randn(7, generator=generator))
        for k in range(count - 1)
    ]
    return nodes, edges


def position_error(found: Similarity, true: Similarity) -> float:
    return float((found.t - true.t).norm(dim=-1).max())


BIAS = [0.01, 0.0, 0.0, 0.0, 0.006, 0.0, 0.004]


@pytest.mark.parametrize("width", [math.inf, 2.0])
def test_jacobian_is_the_derivative_of_the_residual(width):
    nodes, edges = noisy_ring(5, BIAS, 0.02)
    edges.append(edge(nodes, 0, 4, [0.3, 0.1, -0.2, 0.2, -0.3, 0.1, 0.4], width))
    edges.append(edge(nodes, 3, 1, [0.0] * 7, width))
    batch = pose_graph._collect(edges)
    problem = pose_graph._Problem(batch, chain_similarities(5, edges), batch.width)
    x = 0.2 * np.random.default_rng(0).standard_normal(4 * 7)
    exact, step = problem.jacobian(x).toarray(), 1e-6
    for column in range(len(x)):
        delta = step * np.eye(len(x))[column]
        difference = (problem.residual(x + delta) - problem.residual(x - delta)) / (2 * step)
        np.testing.assert_allclose(exact[:, column], difference, rtol=1e-5, atol=2e-5)


def test_exact_edges_give_the_exact_solution_from_a_disturbed_start():
    nodes = ring(12)
    edges = [edge(nodes, k, (k + 1) % 12) for k in range(12)]
    rng = torch.Generator().manual_seed(5)
    disturbance = 0.2 * torch.randn(12, 7, generator=rng, dtype=torch.float64)
    disturbance[0] = 0
    start = nodes.compose(similarity_exp(disturbance))
    solution = optimize_pose_graph(edges, start)
    torch.testing.assert_close(solution.world_from_node.matrix(), nodes.matrix(), rtol=1e-6, atol=1e-6)
    assert solution.deviations.max() < 1e-5


def test_a_loop_takes_out_drift():
    nodes, edges = noisy_ring(60, BIAS, 0.002)
    drifted = chain_similarities(60, edges)
    closed = [*edges, edge(nodes, 0, 59, width=10.0), edge(nodes, 1, 58, width=10.0)]
    solution = optimize_pose_graph(closed, chain_similarities(60, closed[:-2]))
    before, after = position_error(drifted, nodes), position_error(solution.world_from_node, nodes)
    length = 2 * math.pi * 10
    assert before > 0.05 * length
    assert after < 0.01 * length


def test_false_loops_are_outvoted_even_when_drift_is_large():
    nodes, edges = noisy_ring(60, BIAS, 0.002)
    true = [edge(nodes, a, b, width=10.0) for a, b in ((0, 59), (1, 58), (2, 59))]
    wrong = [2.0, 0.5, 1.0, 0.3, 2.0, 0.0, 0.5]
    false = [edge(nodes, 10, 35, wrong, width=10.0)]
    solution = optimize_pose_graph([*edges, *true, *false], chain_similarities(60, edges))
    assert position_error(solution.world_from_node, nodes) < 0.02 * 2 * math.pi * 10
    assert solution.rejected.tolist() == [False] * (len(edges) + 3) + [True]
    alone = optimize_pose_graph([*edges, *true], chain_similarities(60, edges))
    torch.testing.assert_close(
        solution.world_from_node.matrix(), alone.world_from_node.matrix(), rtol=1e-3, atol=1e-3
    )


def test_result_does_not_depend_on_units_and_origins_of_pieces():
    nodes, edges = noisy_ring(8, BIAS, 0.01)
    edges.append(edge(nodes, 0, 7, [0.05] * 7, width=5.0))
    reference = optimize_pose_graph(edges, chain_similarities(8, edges))
    # Piece 3 in another frame: a far origin and a unit seven times smaller.
    change = similarity_exp(torch.tensor([9.0, -4.0, 30.0, 0.5, 1.0, -0.3, math.log(7)]).double())

    def changed(one: SimilarityEdge) -> SimilarityEdge:
        if one.second == 3:
            return dataclasses.replace(
                one,
                first_from_second=one.first_from_second.compose(change.inverse()),
                centre=change.apply(one.centre),
                extent=one.extent * float(change.scale),
            )
        if one.first == 3:
            return dataclasses.replace(one, first_from_second=change.compose(one.first_from_second))
        return one

    moved = [changed(one) for one in edges]
    solution = optimize_pose_graph(moved, chain_similarities(8, moved))
    others = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(
        take_similarity(solution.world_from_node, torch.tensor(others)).matrix(),
        take_similarity(reference.world_from_node, torch.tensor(others)).matrix(),
        rtol=1e-6,
        atol=1e-6,
    )


def test_long_chain_with_a_loop_converges():
    nodes, edges = noisy_ring(400, [b / 5 for b in BIAS], 0.001)
    closed = [*edges, edge(nodes, 0, 399, width=10.0)]
    solution = optimize_pose_graph(closed, chain_similarities(400, edges))
    assert position_error(solution.world_from_node, nodes) < 0.02 * 2 * math.pi * 10
    # At the optimum, moving any node costs: the gradient vanishes.
    batch = pose_graph._collect(closed)
    problem = pose_graph._Problem(batch, solution.world_from_node, batch.width)
    x = np.zeros(399 * 7)
    gradient = problem.jacobian(x).T @ problem.residual(x)
    assert np.abs(gradient).max() < 1e-2


def test_mistakes_are_named():
    nodes = ring(4)
    with pytest.raises(InputError, match="not: widen the overlap"):
        chain_similarities(4, [edge(nodes, 0, 1), edge(nodes, 2, 3)])
    with pytest.raises(InputError, match="do not fit"):
        optimize_pose_graph([edge(nodes, 0, 3)], take_similarity(nodes, torch.tensor([0, 1])))
    with pytest.raises(InputError, match="between two nodes"):
        edge(nodes, 1, 1)
    with pytest.raises(InputError, match="positive extent"):
        dataclasses.replace(edge(nodes, 0, 1), sigma=0.0)


def test_deviation_is_the_logarithm_in_the_frame_of_the_overlap():
    nodes = ring(2)
    noise = [0.02, 0.01, -0.03, 0.05, 0.02, 0.01, 0.04]
    wrong = edge(nodes, 0, 1, noise)
    batch = pose_graph._collect([wrong])
    problem = pose_graph._Problem(batch, nodes, batch.width)
    deviation = problem.deviation(torch.zeros(2, 7, dtype=torch.float64))
    # The nodes lie right and the measurement is off by `noise`, seen in the frame of the overlap.
    expected = similarity_log(similarity_exp(torch.tensor(noise).double()).inverse()) / 0.02
    torch.testing.assert_close(deviation[0], expected, rtol=1e-8, atol=1e-9)
