"""Edges and normals against slow plain versions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.geometry.edges import depth_edge_mask, depth_range, normal_edge_mask, normals_from_points

seeds = st.integers(0, 2**31)


def slow_depth_range(depth, valid, kernel):
    height, width = depth.shape
    reach, out = kernel // 2, np.zeros_like(depth)
    for i in range(height):
        for j in range(width):
            if valid[i, j]:
                rows = slice(max(i - reach, 0), i + reach + 1)
                columns = slice(max(j - reach, 0), j + reach + 1)
                window = depth[rows, columns][valid[rows, columns]]
                out[i, j] = (window.max() - window.min()) / depth[i, j]
    return out


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 5]))
@settings(max_examples=40, deadline=None)
def test_depth_range_agrees_with_the_plain_version(seed, height, width, kernel):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 5, (2, height, width))
    valid = rng.random((2, height, width)) < 0.8
    oracle = np.stack([slow_depth_range(d, v, kernel) for d, v in zip(depth, valid, strict=True)])
    poisoned = torch.from_numpy(np.where(valid, depth, np.nan))
    fast = depth_range(poisoned, torch.from_numpy(valid), kernel)
    np.testing.assert_allclose(fast.numpy(), oracle, rtol=1e-12)
    mask = depth_edge_mask(poisoned, 0.4, kernel, torch.from_numpy(valid))
    assert np.array_equal(mask.numpy(), oracle > 0.4)


def test_a_step_is_an_edge_on_both_sides_and_a_slope_is_not():
    depth = torch.full((5, 8), 2.0)
    depth[:, 4:] = 2.2
    edge = depth_edge_mask(depth)
    assert torch.equal(edge, torch.tensor([[False, False, False, True, True, False, False, False]] * 5))
    assert not depth_edge_mask(2 + 0.01 * torch.arange(8.0).expand(5, 8)).any()
    assert not depth_edge_mask(depth, valid=torch.arange(8).expand(5, 8) < 4).any()


def slow_normals(points, valid):
    height, width, _ = points.shape
    out = np.zeros_like(points)

    def edge(i, j, di, dj):
        a, b = i + di, j + dj
        inside = 0 <= a < height and 0 <= b < width
        return points[a, b] - points[i, j] if inside and valid[a, b] and valid[i, j] else None

    for i in range(height):
        for j in range(width):
            east, west = edge(i, j, 0, 1), edge(i, j, 0, -1)
            south, north = edge(i, j, 1, 0), edge(i, j, -1, 0)
            total = np.zeros(3)
            for a, b in ((south, east), (west, south), (north, west), (east, north)):
                if a is not None and b is not None:
                    total += np.cross(a, b)
            length = np.linalg.norm(total)
            out[i, j] = total / length if length > 0 else 0
    return out


@given(seeds, st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_normals_agree_with_the_plain_version(seed, height, width):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2, height, width, 3))
    valid = rng.random((2, height, width)) < 0.8
    oracle = np.stack([slow_normals(p, v) for p, v in zip(points, valid, strict=True)])
    poisoned = torch.from_numpy(np.where(valid[..., None], points, np.nan))
    np.testing.assert_allclose(normals_from_points(poisoned, torch.from_numpy(valid)), oracle, atol=1e-9)


def plane(normal, height=6, width=7) -> torch.Tensor:
    """Point map of the plane {normal . x = -2} seen by a pinhole camera."""
    v, u = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    rays = torch.stack([(u - 3) / 10, (v - 2.5) / 10, torch.ones_like(u)], dim=-1)
    return rays * (-2 / (rays @ normal))[..., None]


def test_normals_of_a_plane_are_its_normal_and_face_the_camera():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, -1.0]).double(), dim=0)
    normals = normals_from_points(plane(normal))
    torch.testing.assert_close(normals, normal.expand_as(normals))
    assert (normals_from_points(plane(normal).float() * 1e-3)[..., 2] < 0).all()


def test_normals_are_zero_with_finite_gradient_where_points_coincide():
    points = torch.ones(3, 3, 3, requires_grad=True)
    normals = normals_from_points(points)
    assert not normals.any()
    normals.sum().backward()
    assert torch.isfinite(points.grad).all()
    points = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normals_from_points, (points,))


def slow_normal_edges(normals, threshold, kernel):
    height, width, _ = normals.shape
    reach, out = kernel // 2, np.zeros((height, width), bool)
    for i in range(height):
        for j in range(width):
            for a in range(max(i - reach, 0), min(i + reach + 1, height)):
                for b in range(max(j - reach, 0), min(j + reach + 1, width)):
                    if normals[i, j].any() and normals[a, b].any():
                        cross = np.linalg.norm(np.cross(normals[i, j], normals[a, b]))
                        out[i, j] |= math.atan2(cross, normals[i, j] @ normals[a, b]) > threshold
    return out


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 5]), st.floats(0.05, 3.0))
@settings(max_examples=40, deadline=None)
def test_normal_edges_agree_with_the_plain_version(seed, height, width, kernel, threshold):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(2, height, width, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[rng.random((2, height, width)) < 0.2] = 0
    oracle = np.stack([slow_normal_edges(n, threshold, kernel) for n in normals])
    assert np.array_equal(normal_edge_mask(torch.from_numpy(normals), threshold, kernel).numpy(), oracle)


def test_a_crease_is_a_normal_edge_and_a_wall_is_not():
    left, right = torch.tensor([0.6, 0.0, -0.8]), torch.tensor([-0.6, 0.0, -0.8])
    normals = torch.stack([left, left, left, right, right, right]).expand(4, 6, 3)
    assert torch.equal(normal_edge_mask(normals)[0], torch.tensor([False, False, True, True, False, False]))
    assert not normal_edge_mask(left.expand(4, 6, 3)).any()


@pytest.mark.parametrize("kernel", [0, 2, -1])
def test_even_windows_are_refused(kernel):
    with pytest.raises(ValueError, match="odd window"):
        depth_edge_mask(torch.ones(3, 3), kernel=kernel)
    with pytest.raises(ValueError, match="odd window"):
        normal_edge_mask(torch.ones(3, 3, 3), kernel=kernel)
