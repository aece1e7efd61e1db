"""Rotations: projection onto SO(3), angles, axis-angle vectors and quaternions.

Every function is batched over leading dimensions, keeps the dtype and device of what it gets, and has finite
gradients everywhere it is used in training (in particular at the identity, where the textbook formulas
divide by zero).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class _NearestRotation(torch.autograd.Function):
    """Polar projection with the exact derivative, which exists even where singular values repeat."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix)
        # A reflection is turned into a rotation by flipping the direction that costs least: the last one.
        # The product of both determinants is exactly +-1 up to rounding, so its sign is safe.
        flip = torch.linalg.det(u) * torch.linalg.det(vh) < 0
        sign = torch.where(flip, -1.0, 1.0).to(s.dtype)
        u = torch.cat([u[..., :2], u[..., 2:] * sign[..., None, None]], dim=-1)
        s = torch.cat([s[..., :2], s[..., 2:] * sign[..., None]], dim=-1)
        ctx.save_for_backward(u, s, vh)
        return _product(u, vh)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # With M = U S V^T and R = U V^T (signs absorbed): U^T dR V = (A - A^T) / (s_i + s_j), A = U^T dM V.
        # Only sums of singular values are divided by; autograd through the SVD divides by differences.
        u, s, vh = ctx.saved_tensors
        inner = _product(_product(u.mT, grad), vh.mT)
        sums = s[..., :, None] + s[..., None, :]
        # Sums vanish only where the projection itself jumps (rank below two, or a reflection with equal
        # smallest singular values): there the gradient is bounded instead of infinite.
        floor = (1e-4 * s[..., :1, None]).clamp_min(torch.finfo(s.dtype).tiny ** 0.5)
        sums = torch.maximum(sums, floor)
        return _product(_product(u, (inner - inner.mT) / sums), vh)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """3x3 product by elementwise arithmetic: neither autocast nor TF32 can lower its precision."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(dim=-2)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation nearest to a 3x3 matrix in the Frobenius norm (orthogonal Procrustes, determinant +1).

    The derivative is analytic (first order): finite at exact rotations, where back-propagation through an SVD
    gives NaN because the singular values repeat. It is bounded where the projection is discontinuous. Half
    precisions are computed in float32 and returned in their own dtype.

    Args:
        matrix: any finite matrices; the scale of each is irrelevant.

    Returns:
        Rotations, orthogonal to rounding error, determinant +1.
    """
    working = matrix.float() if matrix.dtype in (torch.float16, torch.bfloat16) else matrix
    rotation: Tensor = _NearestRotation.apply(working)
    return rotation.to(matrix.dtype)


def rotation_angle(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Geodesic angle of a rotation, in radians, 0 to pi.

    Computed as atan2(sin, cos), accurate for small angles (unlike arccos of the trace) and near pi. The
    gradient is finite everywhere and zero at the identity, the minimum.

    Args:
        rotation: rotation matrices; the angle between R_a and R_b is `rotation_angle(R_a.mT @ R_b)`.
    """
    axis = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        dim=-1,
    )
    cosine2 = rotation[..., 0, 0] + rotation[..., 1, 1] + rotation[..., 2, 2] - 1
    return torch.atan2(_safe_norm(axis), cosine2)


def _safe_norm(vector: Tensor) -> Tensor:
    """Euclidean norm over the last axis whose gradient at zero is zero instead of NaN."""
    square = (vector * vector).sum(dim=-1)
    is_zero = square == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, square).sqrt())


def rotation_from_axis_angle(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula.

    Args:
        axis_angle: rotation axis times angle in radians; the zero vector is the identity (gradient finite).
    """
    square = (axis_angle * axis_angle).sum(dim=-1)[..., None, None]
    small = square < 1e-4 if axis_angle.dtype == torch.float64 else square < 1e-2
    safe = torch.where(small, 1.0, square)
    angle = safe.sqrt()
    # Below the switch the series are exact to the dtype's rounding: the first dropped term of the sine series
    # is square^4 / 9!, at most 3e-22 (float64) and 3e-14 (float32).
    sinc = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    cosc = 0.5 - square / 24 * (1 - square / 30 * (1 - square / 56))
    sinc = torch.where(small, sinc, angle.sin() / angle)
    half = (angle / 2).sin()
    cosc = torch.where(small, cosc, 2 * half * half / safe)
    skew = _skew(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sinc * skew + cosc * _product(skew, skew)


def _skew(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotation_from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation of a quaternion in w, x, y, z order.

    Args:
        quaternion: of any non-zero length (it is normalised first); q and -q give the same rotation.
    """
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quaternion_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion of a rotation, in w, x, y, z order, with w >= 0.

    Of the four classic formulas each element uses the one whose divisor is largest (at least 1), so that
    neither values nor gradients degrade at any angle.
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # Row k is 4 q_k q, so the row with the largest diagonal entry 4 q_k^2 is normalised best.
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    products = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], dim=-1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], dim=-1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], dim=-1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    best = products.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    row = torch.gather(products, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = torch.nn.functional.normalize(row, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
