"""Training objectives as pure functions: the geometry loss and the language loss.

The geometry loss is that of the released model (its paper's section on geometry pre-training): predictions
and truth are brought to unit size, one scale per sample is solved exactly, and local points, global points,
surface normals and relative poses are compared. Everything runs in float32 whatever the autocast state, over
whole batches at once, and every term has finite gradients for any finite prediction.
"""

import math
from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.geometry.alignment import optimal_scale_l1
from g2vlm.geometry.edges import depth_edge_mask
from g2vlm.geometry.poses import anchor_to_first, invert_pose, relative_pose, transform_points
from g2vlm.geometry.rotations import rotation_angle

_MIN_ANGLE_RAD, _MAX_ANGLE_RAD, _SMOOTH_ANGLE_RAD = math.radians(1), math.radians(90), math.radians(3)
_TINY = 1e-8


@dataclass(frozen=True)
class GeometryLossWeights:
    """Constants of the geometry loss."""

    local: float = 1.0
    """Factor of the local (camera-frame) points."""
    global_: float = 1.0
    """Factor of the global (first-view-frame) points."""
    normal: float = 1.0
    """Factor of the surface normals; at 0 the term is not computed and reads 0."""
    camera: float = 0.2
    """Factor of the whole camera term."""
    translation: float = 100.0
    """Factor of translations inside the camera term, whose other part is the mean rotation angle (rad)."""
    huber_delta: float = 0.1
    """Where the translation error turns from quadratic to linear, in units of the sample's size."""
    edge_threshold: float = 0.03
    """Relative depth range in a 3x3 window above which a pixel's normal is not compared."""
    num_scale_points: int = 4096
    """Points per sample from which the scale is solved."""

    @staticmethod
    def released() -> "GeometryLossWeights":
        """Constants of the public code."""
        return GeometryLossWeights()

    @staticmethod
    def paper() -> "GeometryLossWeights":
        """Constants of the paper, which weighs translations twice as much."""
        return GeometryLossWeights(translation=200.0)


@dataclass(frozen=True, eq=False)
class GeometryTarget:
    """The truth about a batch of samples."""

    points_world: Float[Tensor, "batch views height width 3"]
    """World points, any frame and unit. Where not valid they only serve to find depth edges: a hole filled
    with NaN or with the camera's centre makes its surroundings an edge, where normals are not compared."""
    valid: Bool[Tensor, "batch views height width"]
    """Pixels whose point is known."""
    T_world_camera: Float[Tensor, "batch views 4 4"]


@dataclass(frozen=True, eq=False)
class PredictedGeometry:
    """What the heads returned for a batch of samples."""

    points_camera: Float[Tensor, "batch views height width 3"]
    """Local points, camera frame, arbitrary scale."""
    points_global: Float[Tensor, "batch views height width 3"] | None
    """Points in the frame of the first view at the same scale; None where the head is left out."""
    T_world_camera: Float[Tensor, "batch views 4 4"]
    """Camera poses at the same scale; the world is arbitrary."""


@dataclass(frozen=True, eq=False)
class GeometryLoss:
    """The weighted total, and every term without its weight."""

    total: Float[Tensor, ""]
    local: Float[Tensor, ""]
    global_: Float[Tensor, ""]
    normal: Float[Tensor, ""]
    translation: Float[Tensor, ""]
    rotation: Float[Tensor, ""]
    """Mean geodesic angle of relative rotations, radians."""
    scale: Float[Tensor, " batch"]
    """Factor that brought each normalised prediction to its normalised truth (no gradient)."""


def _safe_norm(vector: Tensor) -> Tensor:
    """Length over the last axis with gradient zero, instead of NaN, at zero."""
    square = (vector * vector).sum(dim=-1)
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def _masked_mean(values: Tensor, mask: Tensor, dims: tuple[int, ...], empty: float) -> Tensor:
    """Mean over some dimensions where the mask is set (dimensions kept); `empty` where it is nowhere set."""
    count = mask.sum(dim=dims, keepdim=True)
    total = torch.where(mask, values, 0.0).sum(dim=dims, keepdim=True)
    return torch.where(count > 0, total / count.clamp_min(1), empty)


def _nearest_valid(valid: Bool[Tensor, "batch pixels"], num: int) -> Int[Tensor, "batch num"]:
    """Positions of `num` valid pixels, evenly spread over the valid ones (nearest resampling)."""
    running = valid.cumsum(dim=1)
    count = running[:, -1:]
    wanted = torch.arange(num, device=valid.device) * count // num + 1
    # The j-th valid pixel is the first whose running count reaches j.
    return torch.searchsorted(running, wanted.contiguous()).clamp_max(valid.shape[1] - 1)


@torch.no_grad()
def _solve_scale(
    pred: Tensor, target: Tensor, weight: Tensor, valid: Bool[Tensor, "batch views height width"], num: int
) -> Float[Tensor, " batch"]:
    """Scale per sample that minimises the weighted L1 distance, from `num` of its valid points."""
    index = _nearest_valid(valid.flatten(1), num)
    triple = index[..., None].expand(*index.shape, 3)
    # A sample without valid pixels gets weight zero, hence scale one.
    chosen_weight = torch.where(valid.flatten(1), weight.flatten(1), 0.0).gather(1, index)
    scale = optimal_scale_l1(
        pred.flatten(1, 3).gather(1, triple), target.flatten(1, 3).gather(1, triple), chosen_weight
    )
    # A mirrored fit is no use to the losses: they then pull from the positive side.
    return scale.abs().clamp_min(_TINY)


def normal_loss(
    pred: Float[Tensor, "*batch height width 3"],
    target: Float[Tensor, "*batch height width 3"],
    usable: Bool[Tensor, "*batch height width"],
) -> Float[Tensor, "*batch rows columns"]:
    """Difference of surface normals at the four corners of every 2x2 cell of pixels.

    Each corner's normal is the cross product of the two edges that meet there. Angles are clamped to 1 .. 90
    degrees and pass through a smooth L1 with a knee at 3 degrees.

    Args:
        pred: predicted points, camera frame.
        target: true points, camera frame; finite everywhere.
        usable: pixels that count; a corner counts where its three pixels do.

    Returns:
        The sum over the corners of each of the (height-1) x (width-1) cells, zero where none counts.
    """
    corners = (slice(None, -1), slice(1, None))
    # Around the cell: top left, top right, bottom right, bottom left.
    ring = [
        (corners[0], corners[0]),
        (corners[0], corners[1]),
        (corners[1], corners[1]),
        (corners[1], corners[0]),
    ]
    m = [usable[..., rows, columns] for rows, columns in ring]
    pred_edges, true_edges = _cell_edges(pred), _cell_edges(target)
    total: Tensor | None = None
    for k in range(4):
        before, after = (k - 1) % 4, (k + 1) % 4
        pred_normal = _cross(pred_edges[before], pred_edges[k])
        true_normal = _cross(true_edges[before], true_edges[k])
        angle = _angle_between(pred_normal, true_normal).clamp(_MIN_ANGLE_RAD, _MAX_ANGLE_RAD)
        knee = _SMOOTH_ANGLE_RAD
        smooth = torch.where(angle < knee, angle.square() * (0.5 / knee), angle - 0.5 * knee)
        corner = torch.where(m[before] & m[k] & m[after], smooth, 0.0)
        total = corner if total is None else total + corner
    assert total is not None
    return total


_Vector = tuple[Tensor, Tensor, Tensor]


def _cell_edges(points: Tensor) -> list[_Vector]:
    """Edges of every 2x2 cell, going around it from its top left corner, as separate components.

    Vectors of three along the last axis are slow on every device: components are kept apart instead.
    """
    x, y, z = points.movedim(-1, 0).contiguous().unbind(0)

    def edges(c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        across, down = c[..., 1:] - c[..., :-1], c[..., 1:, :] - c[..., :-1, :]
        return across[..., :-1, :], down[..., 1:], -across[..., 1:, :], -down[..., :-1]

    return list(zip(edges(x), edges(y), edges(z), strict=True))


def _cross(a: _Vector, b: _Vector) -> _Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _angle_between(a: _Vector, b: _Vector) -> Tensor:
    """Angle between vectors; a right angle, without gradient, where one of them vanishes."""
    x, y, z = _cross(a, b)
    square = x * x + y * y + z * z
    cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    parallel = square == 0
    sine = torch.where(parallel, 0.0, torch.where(parallel, 1.0, square).sqrt())
    undefined = parallel & (cosine == 0)
    return torch.atan2(torch.where(undefined, 1.0, sine), torch.where(undefined, 0.0, cosine))


def camera_loss(
    pred_T_world_camera: Float[Tensor, "batch views 4 4"],
    true_T_world_camera: Float[Tensor, "batch views 4 4"],
    huber_delta: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Translation and rotation errors of the relative poses of all ordered pairs of different views.

    Args:
        pred_T_world_camera: predicted poses, translations already at the true scale.
        true_T_world_camera: true poses; the two worlds may differ.
        huber_delta: where the translation error turns linear.

    Returns:
        Mean Huber error of the translations' components, and mean geodesic angle in radians; zeros for
        samples of one view.
    """
    views = pred_T_world_camera.shape[1]
    pairs = list(permutations(range(views), 2))
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    pred = relative_pose(pred_T_world_camera[:, first], pred_T_world_camera[:, second])
    true = relative_pose(true_T_world_camera[:, first], true_T_world_camera[:, second])
    num_pairs = max(1, pred.shape[0] * pred.shape[1])
    huber = torch.nn.functional.huber_loss(
        pred[..., :3, 3], true[..., :3, 3], reduction="sum", delta=huber_delta
    )
    between = (true[..., :3, :3, None] * pred[..., :3, None, :3]).sum(dim=-3)
    return huber / (3 * num_pairs), rotation_angle(between).sum() / num_pairs


def geometry_loss(
    prediction: PredictedGeometry,
    target: GeometryTarget,
    weights: GeometryLossWeights | None = None,
    has_exact_depth: Bool[Tensor, " batch"] | None = None,
) -> GeometryLoss:
    """The geometry objective of a batch.

    Args:
        prediction: the heads' outputs.
        target: the truth.
        weights: constants; those of the released code when not given.
        has_exact_depth: samples whose depth is exact enough for normals (rendered or well scanned); all when
            not given.
    """
    weights = weights or GeometryLossWeights.released()
    with torch.autocast(device_type=target.points_world.device.type, enabled=False):
        return _geometry_loss(prediction, target, weights, has_exact_depth)


def _geometry_loss(
    prediction: PredictedGeometry,
    target: GeometryTarget,
    weights: GeometryLossWeights,
    has_exact_depth: Tensor | None,
) -> GeometryLoss:
    valid, everything = target.valid, (1, 2, 3)
    true_global, true_local, true_poses = _normalised_target(target)
    local = prediction.points_camera.float()
    size = _masked_mean(_safe_norm(local), valid, everything, empty=1.0).clamp_min(_TINY)
    true_depth = true_local[..., 2]
    mean_depth = _masked_mean(true_depth, valid, (2, 3), empty=1.0)
    nearness = 1.0 / (torch.maximum(true_depth, 0.1 * mean_depth) + 1e-6)
    unscaled = local / size[..., None]
    scale = _solve_scale(unscaled.detach(), true_local, nearness, valid, weights.num_scale_points)
    factor = scale[:, None, None, None, None]
    aligned = unscaled * factor

    def weighted_l1(points: Tensor, truth: Tensor) -> Tensor:
        error = ((points - truth).abs().sum(dim=-1) / 3) * nearness
        return torch.where(valid, error, 0.0).sum() / valid.sum().clamp_min(1)

    local_term = weighted_l1(aligned, true_local)
    global_term = torch.zeros_like(local_term)
    if prediction.points_global is not None:
        global_term = weighted_l1(prediction.points_global.float() / size[..., None] * factor, true_global)
    normal_term = torch.zeros_like(local_term)
    # It is the costliest term: recipes that leave it out do not pay for it.
    if weights.normal:
        smooth = valid & ~depth_edge_mask(true_depth, weights.edge_threshold)
        normal_term = _mean_normal_loss(normal_loss(aligned, true_local, smooth), has_exact_depth)
        normal_term = normal_term / (4 * max(valid.shape[-2:]))
    poses = prediction.T_world_camera.float()
    poses = torch.cat([poses[..., :3], poses[..., 3:] * _column(scale) / _column(size)], dim=-1)
    translation, rotation = camera_loss(poses, true_poses, weights.huber_delta)
    total = (
        weights.local * local_term
        + weights.global_ * global_term
        + weights.normal * normal_term
        + weights.camera * (weights.translation * translation + rotation)
    )
    return GeometryLoss(total, local_term, global_term, normal_term, translation, rotation, scale)


def _mean_normal_loss(cells: Tensor, has_exact_depth: Tensor | None) -> Tensor:
    """Mean over all cells, masked ones included, of the samples that take part."""
    if cells.numel() == 0:
        return cells.sum()
    per_sample = cells.mean(dim=(1, 2, 3))
    exact = torch.ones_like(per_sample, dtype=torch.bool) if has_exact_depth is None else has_exact_depth
    return torch.where(exact, per_sample, 0.0).sum() / exact.sum().clamp_min(1)


def _column(scale: Tensor) -> Tensor:
    """Factors of the last column of 4x4 poses that scale translations and leave the 1 below alone."""
    scale = scale.reshape(-1, 1, 1, 1)
    return torch.cat([scale.expand(-1, 1, 3, 1), torch.ones_like(scale)], dim=2)


@torch.no_grad()
def _normalised_target(target: GeometryTarget) -> tuple[Tensor, Tensor, Tensor]:
    """Truth in the frame of the first view and of unit mean size: global points, local points, poses."""
    poses = target.T_world_camera.float()
    known = torch.isfinite(target.points_world).all(dim=-1, keepdim=True)
    world = torch.where(known, target.points_world.float(), 0.0)
    points = transform_points(invert_pose(poses[:, 0]), world)
    poses = anchor_to_first(poses)
    size = _masked_mean(_safe_norm(points), target.valid, (1, 2, 3), empty=1.0).clamp_min(_TINY)
    points = points / size[..., None]
    poses = torch.cat([poses[..., :3], poses[..., 3:] / _column(size)], dim=-1)
    local = torch.where(known, transform_points(invert_pose(poses), points), 0.0)
    return points, local, poses


def answer_loss(
    logits: Float[Tensor, "tokens vocabulary"],
    targets: Int[Tensor, " tokens"],
    is_answer: Bool[Tensor, " tokens"],
    num_tokens: int | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy (nats) of the tokens of answers, summed and divided by their number.

    Args:
        logits: output at each position.
        targets: the token that should follow each position; anything where `is_answer` is not set.
        is_answer: positions whose following token belongs to an answer.
        num_tokens: what to divide by, where these are a part of all answers; by default their own number.

    Returns:
        The mean over answer tokens; zero, with zero gradients, where there are none.
    """
    ignored = -100
    labels = torch.where(is_answer, targets, ignored).long()
    with torch.autocast(device_type=logits.device.type, enabled=False):
        total = torch.nn.functional.cross_entropy(
            logits.float(), labels, ignore_index=ignored, reduction="sum"
        )
    return total / (is_answer.sum().clamp_min(1) if num_tokens is None else max(1, num_tokens))
