"""The Lie group Sim(3): exponential, logarithm, adjoint and Jacobian, in float64.

A tangent vector is (u, w, s): u the translational part, w the rotational part in radians (axis times angle),
s the logarithm of the scale. As a 4x4 matrix it is [[s I + [w]x, u], [0, 0]], and `similarity_exp` is that
matrix's exponential. Every function is batched over leading dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.geometry.alignment import Similarity
from g2vlm.geometry.rotations import quaternion_from_rotation, rotation_from_axis_angle


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Matrix of the cross product: `skew(a) @ b` is a x b."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def axis_angle_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation axis times angle, 0 to pi: the inverse of `rotation_from_axis_angle`."""
    quaternion = quaternion_from_rotation(rotation)
    sine = quaternion[..., 1:].norm(dim=-1, keepdim=True)
    # w >= 0, so the half angle lies in [0, pi / 2]. Near zero the ratio tends to 2 / w = 2.
    angle = 2 * torch.atan2(sine, quaternion[..., :1])
    tiny = sine < 1e-12
    ratio = torch.where(tiny, 2.0, angle / torch.where(tiny, 1.0, sine))
    return ratio * quaternion[..., 1:]


def _phi1(matrix: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Sum over k of matrix ** k / (k + 1)!, read off the exponential of an augmented matrix.

    No division by an angle or a scale: exact to rounding everywhere, identity at zero.
    """
    n = matrix.shape[-1]
    augmented = matrix.new_zeros(*matrix.shape[:-2], 2 * n, 2 * n)
    augmented[..., :n, :n] = matrix
    augmented[..., :n, n:] = torch.eye(n, dtype=matrix.dtype)
    return torch.matrix_exp(augmented)[..., :n, n:]


def _linear_part(w: Tensor, s: Tensor) -> Tensor:
    return skew(w) + s[..., None, None] * torch.eye(3, dtype=w.dtype)


def similarity_exp(tangent: Float[Tensor, "*batch 7"]) -> Similarity:
    """Similarity of a tangent vector (u, w, s)."""
    u, w, s = tangent[..., :3], tangent[..., 3:6], tangent[..., 6]
    t = (_phi1(_linear_part(w, s)) @ u[..., None])[..., 0]
    return Similarity(scale=s.exp(), R=rotation_from_axis_angle(w), t=t)


def similarity_log(similarity: Similarity) -> Float[Tensor, "*batch 7"]:
    """Tangent vector (u, w, s) of a similarity, |w| at most pi: the inverse of `similarity_exp`."""
    w = axis_angle_from_rotation(similarity.R)
    s = similarity.scale.log()
    u = torch.linalg.solve(_phi1(_linear_part(w, s)), similarity.t[..., None])[..., 0]
    return torch.cat([u, w, s[..., None]], dim=-1)


def adjoint(similarity: Similarity) -> Float[Tensor, "*batch 7 7"]:
    """Matrix A with S exp(x) S^-1 = exp(A x)."""
    scale, R, t = similarity.scale[..., None, None], similarity.R, similarity.t
    matrix = R.new_zeros(*R.shape[:-2], 7, 7)
    matrix[..., :3, :3] = scale * R
    matrix[..., :3, 3:6] = skew(t) @ R
    matrix[..., :3, 6] = -t
    matrix[..., 3:6, 3:6] = R
    matrix[..., 6, 6] = 1
    return matrix


def right_jacobian(tangent: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """Matrix J with exp(x + d) = exp(x) exp(J d) to first order in d."""
    u, w, s = tangent[..., :3], tangent[..., 3:6], tangent[..., 6]
    bracket = tangent.new_zeros(*tangent.shape[:-1], 7, 7)
    bracket[..., :3, :3] = _linear_part(w, s)
    bracket[..., :3, 3:6] = skew(u)
    bracket[..., :3, 6] = -u
    bracket[..., 3:6, 3:6] = skew(w)
    return _phi1(-bracket)
