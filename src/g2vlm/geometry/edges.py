"""Edges of depth maps and normal maps, and normals of point maps.

A point map is an image of 3-D points, one per pixel. Pixels next to a depth edge are often a blend of
foreground and background ("flying pixels"); these masks find them.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def depth_range(
    depth: Float[Tensor, "*batch height width"],
    valid: Bool[Tensor, "*batch height width"] | None = None,
    kernel: int = 3,
) -> Float[Tensor, "*batch height width"]:
    """Relative depth range: (maximum - minimum) in the window around a pixel, divided by the pixel's depth.

    Args:
        depth: z-depth, positive where valid, any unit.
        valid: pixels that count; the others neither widen a range nor get one (0 there). All if None.
        kernel: odd window size in pixels. The window is cut at the image border.

    Returns:
        Ratios >= 0. 0 on a plane facing the camera, about 0.03 and more at depth edges.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"Expected an odd window size of at least 1, got {kernel}.")
    valid = torch.ones_like(depth, dtype=torch.bool) if valid is None else valid
    high = _window_max(torch.where(valid, depth, -torch.inf), kernel)
    low = -_window_max(torch.where(valid, -depth, -torch.inf), kernel)
    scale = torch.where(valid, depth.abs(), 1.0).clamp_min(torch.finfo(depth.dtype).tiny)
    return torch.where(valid, (high - low) / scale, 0.0)


def _window_max(image: Tensor, kernel: int) -> Tensor:
    flat = image.reshape(-1, 1, *image.shape[-2:])
    # Separable: a row pass and a column pass cost 2k instead of k*k comparisons.
    pooled = torch.nn.functional.max_pool2d(flat, (1, kernel), stride=1, padding=(0, kernel // 2))
    pooled = torch.nn.functional.max_pool2d(pooled, (kernel, 1), stride=1, padding=(kernel // 2, 0))
    return pooled.reshape(image.shape)


def depth_edge_mask(
    depth: Float[Tensor, "*batch height width"],
    relative_threshold: float = 0.03,
    kernel: int = 3,
    valid: Bool[Tensor, "*batch height width"] | None = None,
) -> Bool[Tensor, "*batch height width"]:
    """True where the depth range in the window exceeds a fraction of the pixel's own depth.

    Args:
        depth: z-depth, positive where valid.
        relative_threshold: fraction of the depth; 0.03 is the value of the normal loss.
        kernel: odd window size in pixels.
        valid: pixels that count; an invalid pixel is never an edge and never makes one.
    """
    return depth_range(depth, valid, kernel) > relative_threshold


def normals_from_points(
    points: Float[Tensor, "*batch height width 3"],
    valid: Bool[Tensor, "*batch height width"] | None = None,
) -> Float[Tensor, "*batch height width 3"]:
    """Unit surface normals of a point map, facing the camera (z < 0 in camera axes for a wall in front).

    Each pixel averages, weighted by triangle area, the up to four triangles it forms with its direct
    neighbours. The points may be in any frame reached by a rotation and a positive scale: the normals are in
    that frame. Differentiable in the points.

    Args:
        points: one point per pixel.
        valid: pixels that may be used; all if None.

    Returns:
        Unit normals; the zero vector where no triangle is valid or all are degenerate.
    """
    valid = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device) if valid is None else valid
    points = torch.where(valid[..., None], points, 0.0)
    right = _pad(points[..., :, 1:, :] - points[..., :, :-1, :], valid[..., :, 1:] & valid[..., :, :-1])
    down = _pad(points[..., 1:, :, :] - points[..., :-1, :, :], valid[..., 1:, :] & valid[..., :-1, :])
    height, width = valid.shape[-2:]
    # `right` and `down` are padded by a zero edge on every side: the edge to the left of a pixel is the edge
    # to the right of its neighbour. A missing edge is zero and so are its cross products: it drops out.
    east = right[..., 1 : height + 1, 1 : width + 1, :]
    west = -right[..., 1 : height + 1, :width, :]
    south = down[..., 1 : height + 1, 1 : width + 1, :]
    north = -down[..., :height, 1 : width + 1, :]
    # The four triangles sum to (south x east) + (west x south) + (north x west) + (east x north), which is
    # (south - north) x (east - west) whichever of the edges are missing.
    total = torch.linalg.cross(south - north, east - west, dim=-1)
    square = (total * total).sum(dim=-1, keepdim=True)
    defined = square > torch.finfo(points.dtype).tiny
    return torch.where(defined, total / torch.where(defined, square, 1.0).sqrt(), 0.0)


def _pad(edges: Tensor, exists: Tensor) -> Tensor:
    edges = torch.where(exists[..., None], edges, 0.0)
    return torch.nn.functional.pad(edges, (0, 0, 1, 1, 1, 1))


def normal_edge_mask(
    normals: Float[Tensor, "*batch height width 3"],
    threshold_rad: float = math.radians(5.0),
    kernel: int = 3,
) -> Bool[Tensor, "*batch height width"]:
    """True where some normal in the window differs from the pixel's own by more than an angle.

    Args:
        normals: unit normals; zero vectors (undefined) are never edges and never make one.
        threshold_rad: angle in radians, 0 to pi.
        kernel: odd window size in pixels.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"Expected an odd window size of at least 1, got {kernel}.")
    # Squared chords, 4 sin^2(angle / 2), stay accurate for small angles where the cosine is flat.
    limit = 4 * math.sin(min(threshold_rad, math.pi) / 2) ** 2
    reach = kernel // 2
    defined = (normals != 0).any(dim=-1)
    edge = torch.zeros_like(defined)
    for row in range(reach + 1):
        for column in range(-reach, reach + 1):
            if (row, column) <= (0, 0):
                continue  # each pair of pixels is visited once, and marks both of its ends
            first, second = _overlap(normals, row, column)
            chord = (first - second).square().sum(dim=-1)
            first_defined, second_defined = _overlap(defined[..., None], row, column)
            apart = (chord > limit) & first_defined[..., 0] & second_defined[..., 0]
            for end in _overlap(edge[..., None], row, column):
                end[..., 0].logical_or_(apart)
    return edge


def _overlap(image: Tensor, row: int, column: int) -> tuple[Tensor, Tensor]:
    """Two views of a `... height width channels` image, the second shifted by (row >= 0, column) pixels."""
    height, width = image.shape[-3:-1]
    rows, columns = max(height - row, 0), max(width - abs(column), 0)
    left = max(-column, 0)
    first = image[..., :rows, left : left + columns, :]
    second = image[..., row : row + rows, left + column : left + column + columns, :]
    return first, second
