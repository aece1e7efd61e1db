"""The geometry of the example photos beside their truth."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import SceneTruth, at_model_pixels
from g2vlm.evaluation.metrics.depth import depth_errors
from g2vlm.evaluation.metrics.poses import Direction, focal_errors, pair_errors
from g2vlm.evaluation.prediction import Prediction
from g2vlm.geometry.alignment import median_scale
from g2vlm.geometry.cameras import project, unproject
from g2vlm.geometry.poses import invert_pose, transform_points
from g2vlm.scene.scene import Scene

_PAIRS = 20_000
"""Pairs of pixels of each view whose order in depth is compared."""
_APART = 1.1
"""Ratio of true depths from which an order counts."""
_VISIBLE = 0.02
"""Relative difference of depth up to which two views see the same surface."""


@dataclass(frozen=True)
class GeometryFigures:
    """Errors of one reconstruction; shares and ratios, so that its unit does not matter."""

    abs_rel: float
    depth_order: float
    focal: float
    rotation_deg: float
    """Not a number with one view, like all that compares views."""
    direction_deg: float
    between_views: float
    orthonormal: float
    """Largest entry of |R R^T - 1| over all views, also for reflections."""


@dataclass(frozen=True, eq=False)
class KnownViews:
    """Views of which everything is known, at the pixels of the model's pictures."""

    depth: Float[Tensor, "views height width"]
    """z-depth."""
    valid: Bool[Tensor, "views height width"]
    T_world_camera: Float[Tensor, "views 4 4"]
    K: Float[Tensor, "views 3 3"]

    @classmethod
    def of(cls, truth: SceneTruth, scene: Scene) -> "KnownViews":
        """The truth about the first views, as many as a reconstruction has, at its pixels."""
        found = at_model_pixels(_first(truth, len(scene)), Prediction.of_views(scene.views))
        depth, valid, T_world_camera, K = found.depth, found.valid, found.T_world_camera, found.K
        if depth is None or valid is None or T_world_camera is None or K is None:
            raise InputError("Expected depth, poses and intrinsics of the example photos, got less.")
        return cls(depth, valid, T_world_camera, K)

    @property
    def points_world(self) -> Float[Tensor, "views height width 3"]:
        """The surface point that each pixel sees."""
        return transform_points(self.T_world_camera, unproject(self.depth, self.K))


def measure_geometry(scene: Scene, truth: SceneTruth) -> GeometryFigures:
    """Compare a reconstruction with the truth about the same views.

    Args:
        scene: what the model says.
        truth: at the size of the original photos; of as many views or more.
    """
    views, known = len(scene), KnownViews.of(truth, scene)
    depth = torch.from_numpy(np.stack([view.depth for view in scene.views]))
    valid = known.valid & torch.from_numpy(np.stack([view.valid for view in scene.views]))
    poses = torch.from_numpy(np.stack([view.T_world_camera for view in scene.views]))
    points = torch.from_numpy(np.stack([view.points_world for view in scene.views]))
    intrinsics = torch.from_numpy(np.stack([view.K for view in scene.views]))
    several = views > 1
    pairs = pair_errors(poses, known.T_world_camera, Direction.SIGNED) if several else None
    return GeometryFigures(
        abs_rel=depth_errors(depth, known.depth, valid).abs_rel,
        depth_order=depth_order(depth, known.depth, valid),
        focal=float(focal_errors(intrinsics, known.K).mean()),
        rotation_deg=float(pairs.rotation_deg.mean()) if pairs else float("nan"),
        direction_deg=float(pairs.translation_deg.mean()) if pairs else float("nan"),
        between_views=between_views(points, depth, known, valid) if several else float("nan"),
        orthonormal=orthonormality(poses),
    )


def depth_order(
    depth: Float[Tensor, "views height width"],
    true: Float[Tensor, "views height width"],
    known: Bool[Tensor, "views height width"],
) -> float:
    """Share of pairs of pixels, clearly apart in truth, whose nearer one is told; one half by chance."""
    generator = torch.Generator().manual_seed(0)
    right = total = 0
    for found, wanted, mask in zip(depth, true, known, strict=True):
        found, wanted = found[mask], wanted[mask]
        if len(found) == 0:
            continue
        a, b = torch.randint(len(found), (2, _PAIRS), generator=generator)
        nearer = wanted[a] * _APART < wanted[b]
        right += int((found[a] < found[b])[nearer].sum())
        total += int(nearer.sum())
    return right / max(total, 1)


def between_views(
    points_world: Float[Tensor, "views height width 3"],
    depth: Float[Tensor, "views height width"],
    truth: KnownViews,
    valid: Bool[Tensor, "views height width"],
) -> float:
    """Median distance between what two views say about the same surface point, as a share of its depth.

    Which pixels show the same point is taken from the truth, so that nothing needs to be aligned.

    Args:
        points_world: predicted points of each view in the common frame.
        depth: predicted depth, same unit.
        truth: at the same pixels.
        valid: pixels that count.
    """
    true_points, T_camera_world = truth.points_world, invert_pose(truth.T_world_camera)
    height, width = valid.shape[1:]
    shares = []
    for i in range(len(valid)):
        for j in range(len(valid)):
            if i == j:
                continue
            # Where the true points of view i stand in view j, at the nearest pixel.
            seen = transform_points(T_camera_world[j], true_points[i][valid[i]])
            u, v = project(seen, truth.K[j]).round().long().unbind(-1)
            inside = (seen[:, 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
            u, v = u.clamp(0, width - 1), v.clamp(0, height - 1)
            # What view j sees there is the same surface only where nothing stands in front of it.
            same = inside & valid[j][v, u] & ((truth.depth[j][v, u] / seen[:, 2] - 1).abs() < _VISIBLE)
            distance = (points_world[i][valid[i]] - points_world[j][v, u]).norm(dim=-1)
            shares.append((distance / depth[i][valid[i]].clamp_min(1e-9))[same])
    together = torch.cat(shares) if shares else torch.empty(0)
    return float(together.median()) if len(together) else float("inf")


def orthonormality(T_world_camera: Float[Tensor, "views 4 4"]) -> float:
    """How far the rotations are from rotations: largest entry of |R R^T - 1|, 2 for a reflection."""
    R = T_world_camera[:, :3, :3].double()
    off = float((R @ R.mT - torch.eye(3, dtype=R.dtype)).abs().max())
    return max(off, 2.0) if bool((torch.linalg.det(R) < 0).any()) else off


def depth_difference(first: Scene, second: Scene) -> float:
    """Median relative difference of depth between two reconstructions of the same views, up to one scale."""
    a, b = (torch.from_numpy(np.stack([view.depth for view in scene.views])) for scene in (first, second))
    valid = torch.from_numpy(
        np.stack([x.valid & y.valid for x, y in zip(first.views, second.views, strict=True)])
    )
    valid &= (a > 0) & (b > 0)
    if not bool(valid.any()):
        return float("inf")
    a, b = a[valid], b[valid]
    return float((a * median_scale(a, b) / b - 1).abs().median())


def _first(truth: SceneTruth, views: int) -> SceneTruth:
    def first(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:views]

    return SceneTruth(first(truth.depth), first(truth.valid), first(truth.T_world_camera), first(truth.K))
