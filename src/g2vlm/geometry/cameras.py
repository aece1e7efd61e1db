"""Pinhole cameras: pixels, rays, intrinsics and what resizing or padding does to them.

Pixel centres lie at integers (u = 0 .. width - 1 to the right, v = 0 .. height - 1 downwards), camera axes
are OpenCV's (x right, y down, z forward), depth is z-depth. Intrinsics are 3x3 matrices without skew,
[[fx, 0, cx], [0, fy, cy], [0, 0, 1]], in pixels.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from g2vlm.geometry.alignment import weighted_median
from g2vlm.geometry.precision import widen

_MAX_FIT_PIXELS = 1 << 14
_IRLS_STEPS = 8
_FEWEST_POINTS = 32
_FOCAL_RANGE = (0.02, 100.0)


def pixel_grid(
    height: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "height width 2"]:
    """The (u, v) of every pixel centre: integers, u along the width, v along the height."""
    v = torch.arange(height, dtype=dtype, device=device)
    u = torch.arange(width, dtype=dtype, device=device)
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def unproject(
    depth: Float[Tensor, "*batch height width"], K: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch height width 3"]:
    """Point map in camera axes of a depth map.

    Args:
        depth: z-depth, any unit; the points come in the same unit.
        K: intrinsics in pixels of this depth map.
    """
    height, width = depth.shape[-2:]
    u, v = pixel_grid(height, width, dtype=depth.dtype, device=depth.device).unbind(-1)
    fx, fy, cx, cy = (value[..., None, None] for value in _entries(K))
    return torch.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], dim=-1)


def project(
    points_camera: Float[Tensor, "*points 3"], K: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*points 2"]:
    """Pixel (u, v) where points in camera axes are seen, fractional, possibly outside of the image.

    Args:
        points_camera: their leading dimensions begin with those of `K`; a single 3x3 takes any shape.
        K: intrinsics in pixels.

    Returns:
        Pixels that mean something only where z > 0, which the caller checks: points behind the camera are
        mirrored, and points in its plane are pushed off it by a tiny amount, so that no division by zero
        reaches values or gradients.
    """
    free = points_camera.dim() - 1 - (K.dim() - 2)
    if free < 0:
        raise ValueError(
            f"Expected points whose leading dimensions begin with those of K {tuple(K.shape[:-2])}, "
            f"got points of shape {tuple(points_camera.shape)}."
        )
    fx, fy, cx, cy = (value[(..., *(None,) * free)] for value in _entries(K))
    x, y, z = points_camera.unbind(-1)
    tiny = torch.finfo(z.dtype).eps
    z = torch.where(z.abs() < tiny, torch.where(z < 0, -tiny, tiny), z)
    return torch.stack([fx * (x / z) + cx, fy * (y / z) + cy], dim=-1)


def _entries(K: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2]


def make_intrinsics(
    focal_px: Float[Tensor, "*batch 2"], centre_px: Float[Tensor, "*batch 2"]
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics of focal lengths (fx, fy) and a principal point (cx, cy), all in pixels."""
    K = torch.diag_embed(torch.cat([focal_px, torch.ones_like(focal_px[..., :1])], dim=-1))
    K[..., :2, 2] = centre_px
    return K


@dataclass(frozen=True, eq=False)
class IntrinsicsFit:
    """Intrinsics recovered from point maps, and how far to trust them."""

    K: Float[Tensor, "*batch 3 3"]
    """Intrinsics in pixels: always finite, focal lengths always positive."""
    found: Bool[Tensor, "*batch"]
    """False where a focal length could not be measured: `K` then holds a substitute, or a guess."""
    residual_px: Float[Tensor, "*batch"]
    """Median distance along one axis between pixels and reprojected points; NaN without points."""


@torch.no_grad()
def fit_intrinsics(
    points_camera: Float[Tensor, "*batch height width 3"],
    weights: Float[Tensor, "*batch height width"] | None = None,
) -> IntrinsicsFit:
    """Focal lengths that best explain a point map, principal point at the image centre.

    fx minimises `sum w (u - cx - fx x/z)^2` and fy its counterpart, robustly: the start is the median of
    (u - cx) / (x/z) weighted by w |u - cx|, refined by least squares with Cauchy weights whose width follows
    the median residual. Neither step gives a stray point power by the size of its x/z. At most 16,384 pixels
    of each view, on a regular sub-grid, take part.

    An axis counts as not measured if no pixel has weight or the result is not within 0.02 to 100 times the
    longer image side. It then takes the focal length of the other axis (square pixels), or, if that fails
    too, the longer image side (a field of view of 53 degrees along it), and `found` is False. So it is with
    fewer than 32 usable points, or a quarter of a smaller map: what fits so few is no measurement.

    Args:
        points_camera: points in camera axes, any scale. Non-finite points and points with z <= 0 are ignored.
        weights: non-negative trust per pixel; equal if None.
    """
    height, width = points_camera.shape[-3:-1]
    step = max(1, math.ceil(math.sqrt(height * width / _MAX_FIT_PIXELS)))
    points = widen(points_camera[..., ::step, ::step, :]).flatten(-3, -2)
    weight = torch.ones_like(points[..., 0])
    if weights is not None:
        weight = widen(weights[..., ::step, ::step]).flatten(-2)
    usable = torch.isfinite(points).all(dim=-1) & (points[..., 2] > 0) & (weight > 0)
    weight = torch.where(usable, weight, 0.0)
    slope = torch.where(usable[..., None], points[..., :2] / points[..., 2:], 0.0)
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=slope.dtype, device=slope.device)
    grid = pixel_grid(height, width, dtype=slope.dtype, device=slope.device)[::step, ::step]
    offset = (grid - centre).flatten(0, 1)

    # Axes first, pixels last: both focal lengths of all views are solved together.
    slope, offset = slope.movedim(-1, -2), offset.T.expand_as(slope.movedim(-1, -2))
    focal, residual = _robust_slope(slope, offset, weight[..., None, :].expand_as(slope))
    low, high = (bound * max(height, width) for bound in _FOCAL_RANGE)
    measured = torch.isfinite(focal) & (focal >= low) & (focal <= high)
    focal = torch.where(measured, focal, torch.where(measured.flip(-1), focal.flip(-1), max(height, width)))
    K = make_intrinsics(focal, centre.expand_as(focal)).to(points_camera.dtype)
    fewest = min(_FEWEST_POINTS, usable.shape[-1] // 4)
    found = measured.all(dim=-1) & (usable.sum(dim=-1) >= fewest)
    return IntrinsicsFit(K=K, found=found, residual_px=residual.mean(dim=-1).to(points_camera.dtype))


def _robust_slope(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Robust f of y = f x through the origin, and the median absolute residual; over the last axis."""
    usable = x != 0
    ratio = torch.where(usable, y / torch.where(usable, x, 1.0), 0.0)
    slope = weighted_median(ratio, torch.where(usable, weight * y.abs(), 0.0))
    for _ in range(_IRLS_STEPS):
        residual = y - slope[..., None] * x
        # 1.4826 turns a median into a standard deviation, 2.385 gives 95 % efficiency on Gaussian noise; the
        # floor keeps perfect data from dividing by zero.
        width = 2.385 * 1.4826 * weighted_median(residual.abs(), weight).clamp_min(1e-6)
        trust = weight / (1 + (residual / width[..., None]).square())
        slope = (trust * x * y).sum(dim=-1) / (trust * x * x).sum(dim=-1)
    return slope, weighted_median((y - slope[..., None] * x).abs(), weight)


def recover_intrinsics(
    points_camera: Float[Tensor, "*batch height width 3"],
    weights: Float[Tensor, "*batch height width"] | None = None,
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics of point maps: the `K` of `fit_intrinsics`, finite with positive focal lengths always."""
    return fit_intrinsics(points_camera, weights).K


def transform_intrinsics(
    K: Float[Tensor, "*batch 3 3"], A: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics after the image was moved by a pixel affine: `A @ K`, in the dtype of `K`.

    Args:
        K: intrinsics in source pixels.
        A: target pixel = A @ source pixel (homogeneous, integer centres), from `resize_affine`, `pad_affine`
            or products of them; scales and shifts only.
    """
    # The affines of this module are float64 on the CPU; K may live on a device that has no float64.
    A = widen(A.to(device=K.device, dtype=K.dtype))
    product = (A[..., :, :, None] * widen(K)[..., None, :, :]).sum(dim=-2)
    return product.to(K.dtype)


def resize_affine(source_wh: tuple[int, int], target_wh: tuple[int, int]) -> Float64[Tensor, "3 3"]:
    """Pixel affine of resizing an image: target pixel = A @ source pixel.

    Image borders map to image borders, so that with integer pixel centres u' = (u + 0.5) s - 0.5.

    Args:
        source_wh: width and height before, in pixels.
        target_wh: width and height after, in pixels.
    """
    A = torch.eye(3, dtype=torch.float64)
    for axis, (source, target) in enumerate(zip(source_wh, target_wh, strict=True)):
        scale = target / source
        A[axis, axis] = scale
        A[axis, 2] = 0.5 * scale - 0.5
    return A


def pad_affine(left: int, top: int) -> Float64[Tensor, "3 3"]:
    """Pixel affine of adding columns on the left and rows on top; negative numbers crop them."""
    A = torch.eye(3, dtype=torch.float64)
    A[0, 2], A[1, 2] = left, top
    return A
