"""Rigid transforms as 4x4 matrices named `T_target_source`: they take points of `source` into `target`.

Camera poses are stored camera-to-world, `T_world_camera`, with OpenCV camera axes (x right, y down,
z forward). All arithmetic is elementwise, so that neither autocast nor TF32 lowers its precision, and
differentiable.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def make_pose(R: Float[Tensor, "*batch 3 3"], t: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """4x4 transform of a rotation and a translation, last row (0, 0, 0, 1).

    Args:
        R: rotations (or any linear parts).
        t: translations, in the unit of the target frame.
    """
    upper = torch.cat([R, t[..., None]], dim=-1)
    last = torch.zeros_like(upper[..., :1, :])
    last[..., 3] = 1
    return torch.cat([upper, last], dim=-2)


def invert_pose(T_target_source: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of rigid transforms, `T_source_target`, by transposing the rotation.

    Args:
        T_target_source: rigid transforms; a scale in the rotation part is not inverted (see `Similarity`).
    """
    R_source_target = T_target_source[..., :3, :3].mT
    return make_pose(R_source_target, -_rotate(R_source_target, T_target_source[..., :3, 3]))


def _rotate(R: Tensor, vector: Tensor) -> Tensor:
    return (R * vector[..., None, :]).sum(dim=-1)


def compose_poses(
    T_a_b: Float[Tensor, "*#batch 4 4"], T_b_c: Float[Tensor, "*#batch 4 4"]
) -> Float[Tensor, "*batch 4 4"]:
    """Product `T_a_c = T_a_b @ T_b_c`, broadcasting over leading dimensions, in full precision."""
    return (T_a_b[..., :, :, None] * T_b_c[..., None, :, :]).sum(dim=-2)


def relative_pose(
    T_world_a: Float[Tensor, "*#batch 4 4"], T_world_b: Float[Tensor, "*#batch 4 4"]
) -> Float[Tensor, "*batch 4 4"]:
    """Pose of b seen from a, `T_a_b` = inverse(`T_world_a`) @ `T_world_b`, broadcasting over the batch."""
    return compose_poses(invert_pose(T_world_a), T_world_b)


def transform_points(
    T_target_source: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*points 3"]
) -> Float[Tensor, "*moved 3"]:
    """Points of `source` expressed in `target`.

    Args:
        T_target_source: affine transforms (rigid, or with a scale in the rotation part).
        points: their leading dimensions begin with those of `T_target_source` (equal, or 1 to broadcast
            either way); further dimensions (pixels, points) are free. A single 4x4 takes points of any shape.

    Returns:
        Points of the target frame, shaped as the leading dimensions broadcast, then the free ones, then 3.

    Raises:
        ValueError: the points have fewer leading dimensions than the transforms.
    """
    free = points.dim() - 1 - (T_target_source.dim() - 2)
    if free < 0:
        raise ValueError(
            f"Expected points whose leading dimensions begin with those of the transforms "
            f"{tuple(T_target_source.shape[:-2])}, got points of shape {tuple(points.shape)}: "
            "insert dimensions of size 1 where the points should broadcast."
        )
    matrix = T_target_source.reshape(*T_target_source.shape[:-2], *(1,) * free, 4, 4)
    moved = torch.addcmul(matrix[..., :3, 3], points[..., 0:1], matrix[..., :3, 0])
    moved = torch.addcmul(moved, points[..., 1:2], matrix[..., :3, 1])
    return torch.addcmul(moved, points[..., 2:3], matrix[..., :3, 2])


def anchor_to_first(T_world_camera: Float[Tensor, "*batch views 4 4"]) -> Float[Tensor, "*batch views 4 4"]:
    """The same cameras with the first view as the world: its pose becomes the identity.

    The identity of the first view is exact, not subject to rounding.
    """
    T_first_camera = relative_pose(T_world_camera[..., :1, :, :], T_world_camera)
    identity = torch.eye(4, dtype=T_world_camera.dtype, device=T_world_camera.device)
    first = identity.expand_as(T_world_camera[..., :1, :, :])
    return torch.cat([first, T_first_camera[..., 1:, :, :]], dim=-3)
