"""Confidence from geometry alone: do other views see a surface where this view says there is one?

It stands in for a learned confidence when the checkpoint has none.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.geometry.edges import depth_range
from g2vlm.geometry.poses import compose_poses, invert_pose

_SAMPLES_PER_SIDE = 16
_STEEP_RANGE = 0.06


@torch.no_grad()
def reprojection_agreement(
    points_world: Float[Tensor, "views height width 3"],
    T_world_camera: Float[Tensor, "views 4 4"],
    K: Float[Tensor, "views 3 3"],
    valid: Bool[Tensor, "views height width"],
    *,
    max_neighbours: int = 8,
    tolerance: float = 0.03,
) -> Float[Tensor, "views height width"]:
    """Confidence of every pixel, 0 to 1, from agreement with other views and from its own steepness.

    Each pixel's point is projected into up to `max_neighbours` other views (those that contain most of this
    view, see `overlapping_views`). With e the difference between the point's depth there and the depth that
    view measured at the nearest pixel, relative to the larger of the two, the view gives the score
    a = 1 / (1 + (e / tolerance)^2) with weight

    - 1 if the point lies on or in front of the measured surface (in front, it stands in space seen as empty);
    - a if it lies behind: then it is probably hidden from that view, which has little to say about it;
    - 0 if it falls outside of the image, behind the camera or on an invalid pixel.

    The scores are averaged together with one neutral vote of 1/2, and multiplied by the pixel's flatness
    1 / (1 + (r / 0.06)^2), where r is the relative depth range in the 3x3 window: flying pixels at depth
    edges lose. So a point that many views confirm comes near 1, one that many contradict near 0, and one
    that no other view can judge gets at most 1/2. With a single view that holds for all pixels: the
    confidence then is the flatness, halved.

    The work is linear in views x `max_neighbours` x pixels; the memory needed beyond the inputs is that of
    the depth maps and of a few images.

    Args:
        points_world: point maps in the common world frame, any scale.
        T_world_camera: camera-to-world poses (rigid).
        K: intrinsics in pixels of these maps.
        valid: pixels that take part; the others get 0. Non-finite points count as invalid.
        max_neighbours: other views consulted per view.
        tolerance: relative depth difference at which the score is one half.
    """
    views, height, width = valid.shape
    valid = valid & torch.isfinite(points_world).all(dim=-1)
    T_camera_world = invert_pose(T_world_camera)
    # Depth 0 marks pixels that hold no surface, so that one lookup tells both.
    depth = torch.stack([_depth(T, points) for T, points in zip(T_camera_world, points_world, strict=True)])
    valid = valid & (depth > 0)
    depth = torch.where(valid, depth, 0.0)
    neighbours, overlap = overlapping_views(points_world, T_world_camera, K, valid, max_neighbours)
    projections = _projections(T_camera_world, K)
    # Read once: on a GPU every look at a number waits for all that was queued.
    consulted = [
        [other for other, share in zip(others, shares, strict=True) if share > 0]
        for others, shares in zip(neighbours.tolist(), overlap.tolist(), strict=True)
    ]
    confidence = torch.empty_like(depth)
    for view in range(views):
        points = torch.where(valid[view].flatten(), points_world[view].reshape(-1, 3).T, 0.0).contiguous()
        judges = [(projections[other], depth[other]) for other in consulted[view]]
        confidence[view] = _agreed(points, judges, tolerance).reshape(height, width)
    flatness = 1 / (1 + (depth_range(depth, valid) / _STEEP_RANGE).square())
    return torch.where(valid, confidence * flatness, 0.0)


def _agreed(points: Tensor, judges: list[tuple[Tensor, Tensor]], tolerance: float) -> Tensor:
    """Mean score of points (3, pixels) by other views, as projection and depth, and one neutral vote."""
    agreed = torch.full_like(points[0], 0.5)
    weight = torch.ones_like(agreed)
    for projection, depth in judges:
        score, trust = _judge(points, projection, depth, tolerance)
        agreed += score * trust
        weight += trust
    return agreed / weight


def _depth(T_camera_world: Tensor, points_world: Tensor) -> Tensor:
    x, y, z = points_world.unbind(-1)
    row = T_camera_world[2]
    return row[0] * x + row[1] * y + row[2] * z + row[3]


def _projections(T_camera_world: Tensor, K: Tensor) -> Tensor:
    """3x4 matrices that take world points to (u z, v z, z)."""
    full = torch.eye(4, dtype=K.dtype, device=K.device).repeat(K.shape[0], 1, 1)
    full[:, :3, :3] = K
    return compose_poses(full, T_camera_world)[:, :3]


def _judge(points: Tensor, projection: Tensor, depth: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Score and weight that one view gives to world points of shape (3, n)."""
    height, width = depth.shape
    u, v, z = _project_flat(points, projection)
    column, row = u.round_(), v.round_()
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(inside, row * width + column, 0.0).long()
    seen = depth.flatten()[index]
    inside &= seen > 0
    behind = (z - seen) / torch.maximum(z, seen).clamp_min(torch.finfo(z.dtype).tiny)
    score = 1 / (1 + (behind / tolerance).square())
    return score, torch.where(inside, torch.where(behind > 0, score, 1.0), 0.0)


def _project_flat(points: Tensor, projection: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel and depth of points (3, n) by projections (*batch, 3, 4), in full precision."""
    rows = []
    for row in projection.unbind(-2):
        partial = torch.addcmul(row[..., 3:], points[0], row[..., 0:1])
        partial = torch.addcmul(partial, points[1], row[..., 1:2])
        rows.append(torch.addcmul(partial, points[2], row[..., 2:3]))
    inverse = 1 / torch.where(rows[2] > 0, rows[2], 1.0)
    return rows[0] * inverse, rows[1] * inverse, rows[2]


def overlapping_views(
    points_world: Float[Tensor, "views height width 3"],
    T_world_camera: Float[Tensor, "views 4 4"],
    K: Float[Tensor, "views 3 3"],
    valid: Bool[Tensor, "views height width"],
    max_neighbours: int,
) -> tuple[Int[Tensor, "views neighbours"], Float[Tensor, "views neighbours"]]:
    """For each view, the other views that contain most of what it sees.

    Overlap is the share of a view's valid points, on a grid of at most 16x16 pixels, that project into the
    other image and lie in front of that camera; what hides what is not considered.

    Args:
        points_world: point maps in the common world frame.
        T_world_camera: camera-to-world poses (rigid).
        K: intrinsics in pixels of these maps.
        valid: pixels that take part; their points must be finite.
        max_neighbours: how many to return, at most views - 1.

    Returns:
        Indices of other views, best first, and their overlap, 0 to 1.
    """
    views, height, width = valid.shape
    rows, columns = -(-height // _SAMPLES_PER_SIDE), -(-width // _SAMPLES_PER_SIDE)
    sampled_valid = valid[:, rows // 2 :: rows, columns // 2 :: columns].flatten(1)
    samples = points_world[:, rows // 2 :: rows, columns // 2 :: columns].flatten(1, 2)
    samples = torch.where(sampled_valid[..., None], samples, 0.0)
    projections = _projections(invert_pose(T_world_camera), K)
    overlap = torch.empty(views, views, dtype=points_world.dtype, device=points_world.device)
    for view in range(views):
        u, v, z = _project_flat(samples[view].T, projections)
        inside = (z > 0) & (u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5)
        count = (inside & sampled_valid[view]).sum(dim=-1)
        overlap[view] = count / sampled_valid[view].sum().clamp_min(1)
    overlap.fill_diagonal_(-1.0)  # a view is not its own neighbour
    best = overlap.topk(max(0, min(max_neighbours, views - 1)), dim=-1)
    return best.indices, best.values
