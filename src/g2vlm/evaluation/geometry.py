"""A reconstructed scene against the truth about it."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.depth import ScaleAlignment, depth_errors
from g2vlm.evaluation.metrics.points import (
    IcpOptions,
    PointErrors,
    Surface,
    diagonal,
    evenly,
    icp,
    point_errors,
)
from g2vlm.evaluation.metrics.poses import Direction, focal_error, pair_errors, trajectory_errors
from g2vlm.geometry.alignment import umeyama
from g2vlm.geometry.cameras import unproject
from g2vlm.geometry.edges import normals_from_points
from g2vlm.geometry.poses import transform_points
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """What is known about the views of one scene, at any resolution."""

    depth: Float[Tensor, "views height width"]
    """z-depth."""
    valid: Bool[Tensor, "views height width"]
    """Pixels whose depth is known."""
    T_world_camera: Float[Tensor, "views 4 4"]
    K: Float[Tensor, "views 3 3"]
    """Intrinsics in pixels, integer pixel centres."""
    diagonal: float | None = None
    """Size of the scene that point errors are related to; that of the box around the true points if None."""

    @property
    def points_world(self) -> Float[Tensor, "views height width 3"]:
        """The surface point that each pixel sees."""
        return transform_points(self.T_world_camera, unproject(self.depth, self.K))


@dataclass(frozen=True)
class GeometryScores:
    """Errors of the geometry of one scene; lengths in the unit of the truth."""

    num_views: int
    abs_rel: float
    """Depth, one scale for the scene."""
    delta: float
    """Depth, one scale for the scene: share of pixels within a factor of 1.25."""
    rmse: float
    """Depth, one scale for the scene."""
    abs_rel_per_view: float
    """Depth, one scale for each view."""
    rotation_deg: tuple[float, ...]
    """Relative rotations, one error for each pair of views."""
    translation_deg: tuple[float, ...]
    """Directions of relative translations, 0 to 180 (signed), one for each pair."""
    ate: float | None
    """Absolute trajectory error after Sim(3); None with fewer than three views."""
    rpe_translation: float | None
    rpe_rotation_deg: float | None
    pointwise: float
    """Mean distance between the predicted and the true point of the same pixel, after Sim(3)."""
    accuracy: float
    """Mean distance from predicted to the nearest true points after Sim(3) and ICP. A collapsed prediction
    can lie on a surface and score well: read it together with completeness."""
    completeness: float
    """Mean distance from true to the nearest predicted points after Sim(3) and ICP."""
    normal_consistency: float | None
    focal: float
    """Relative error of the focal length recovered from the points."""
    diagonal: float
    """Size of the scene."""


@dataclass(frozen=True)
class GeometryOptions:
    """How a scene is measured."""

    icp: IcpOptions = field(default_factory=IcpOptions)
    """Refinement of the alignment of points."""
    max_depth: float | None = None
    """Farther true depths are left out, and predictions cut to it, in depth errors; points beyond it are left
    out of point errors too."""
    max_queries: int = 10_000
    """Points of each side that nearest neighbours are looked up for."""


def compare(scene: Scene, truth: SceneTruth, options: GeometryOptions | None = None) -> GeometryScores:
    """Measure a reconstruction.

    Args:
        scene: what the model says, in its own frame and unit.
        truth: of the same views in the same order, at the resolution of the original photos.
        options: of the point measures; the public protocol's if None.

    Raises:
        InputError: different views, nothing to compare, or a reconstruction that cannot be aligned.
    """
    if len(scene) != len(truth.depth):
        raise InputError(f"Expected the truth of {len(scene)} views, got that of {len(truth.depth)}.")
    options = options or GeometryOptions()
    truth = at_model_pixels(truth, scene.views)
    if options.max_depth is not None:
        truth = replace(truth, valid=truth.valid & (truth.depth < options.max_depth))
    depth = torch.from_numpy(np.stack([view.depth for view in scene.views]))
    known = truth.valid & torch.from_numpy(np.stack([view.valid for view in scene.views]))
    poses = torch.from_numpy(np.stack([view.T_world_camera for view in scene.views]))
    intrinsics = torch.from_numpy(np.stack([view.K for view in scene.views]))
    limit = options.max_depth
    whole = depth_errors(depth, truth.depth, known, ScaleAlignment.PER_SCENE, limit)
    pairs = pair_errors(poses, truth.T_world_camera, Direction.SIGNED) if len(scene) >= 2 else None
    path = trajectory_errors(poses, truth.T_world_camera) if len(scene) >= 3 else None
    points = _compare_points(scene, truth, known, options)
    return GeometryScores(
        num_views=len(scene),
        abs_rel=whole.abs_rel,
        delta=whole.delta,
        rmse=whole.rmse,
        abs_rel_per_view=_abs_rel_per_view(depth, truth.depth, known, limit),
        rotation_deg=tuple(pairs.rotation_deg.tolist()) if pairs else (),
        translation_deg=tuple(pairs.translation_deg.tolist()) if pairs else (),
        ate=path.ate if path else None,
        rpe_translation=path.rpe_translation if path else None,
        rpe_rotation_deg=path.rpe_rotation_deg if path else None,
        pointwise=points.pointwise,
        accuracy=points.nearest.accuracy,
        completeness=points.nearest.completeness,
        normal_consistency=points.nearest.normal_consistency,
        focal=focal_error(intrinsics, truth.K),
        diagonal=points.diagonal,
    )


def _abs_rel_per_view(depth: Tensor, true: Tensor, known: Tensor, limit: float | None) -> float:
    """Mean over the views in which anything is known."""
    views = [slice(i, i + 1) for i in range(len(depth)) if bool(known[i].any())]
    return float(np.mean([depth_errors(depth[i], true[i], known[i], max_depth=limit).abs_rel for i in views]))


@dataclass(frozen=True)
class _Points:
    pointwise: float
    nearest: PointErrors
    diagonal: float


def _compare_points(
    scene: Scene, truth: SceneTruth, known: Bool[Tensor, "views height width"], options: GeometryOptions
) -> _Points:
    pred_maps = torch.from_numpy(np.stack([view.points_world for view in scene.views])).double()
    true_maps = truth.points_world.double()
    pred, true = pred_maps[known], true_maps[known]
    # A subset of the pixels keeps the Sim(3) of large scenes cheap and does not change it noticeably.
    most = 20 * options.max_queries
    corresponding = umeyama(evenly(pred, most), evenly(true, most))
    similarity = icp(pred, true, corresponding, options.icp)
    surfaces = (
        Surface(pred, normals_from_points(pred_maps, known)[known]).moved(similarity),
        Surface(true, normals_from_points(true_maps, known)[known]),
    )
    return _Points(
        pointwise=float((corresponding.apply(pred) - true).norm(dim=-1).mean()),
        nearest=point_errors(*surfaces, options.max_queries),
        diagonal=diagonal(true) if truth.diagonal is None else truth.diagonal,
    )


def at_model_pixels(truth: SceneTruth, views: tuple[View, ...]) -> SceneTruth:
    """The truth at the pixels of the model's images: the nearest original pixel of each.

    Depth is not interpolated, since a blend of near and far lies on no surface.

    Args:
        truth: at the resolution of the original photos.
        views: with the pixel affines from original to model.

    Raises:
        InputError: an original photo of another size than its truth.
    """
    height, width = truth.depth.shape[1:]
    sizes = {view.original_size for view in views}
    if sizes != {(width, height)}:
        raise InputError(f"Expected photos of {width}x{height} pixels like their truth, got {sorted(sizes)}.")
    depths, valids, intrinsics = [], [], []
    for i, view in enumerate(views):
        T_model_original = torch.from_numpy(view.T_model_original)
        u, v, inside = _original_pixels(T_model_original, (view.width, view.height), (width, height))
        depths.append(truth.depth[i, v, u])
        valids.append(truth.valid[i, v, u] & inside)
        intrinsics.append((T_model_original @ truth.K[i].double()).float())
    return SceneTruth(
        torch.stack(depths),
        torch.stack(valids),
        truth.T_world_camera,
        torch.stack(intrinsics),
        truth.diagonal,
    )


def _original_pixels(
    T_model_original: Tensor, model_size: tuple[int, int], original_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Columns and rows of the original pixel nearest to each model pixel, and whether it exists."""
    width, height = model_size
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).double()
    original = (pixels @ torch.linalg.inv(T_model_original).mT).round().long()
    u, v = original[..., 0], original[..., 1]
    inside = (u >= 0) & (u < original_size[0]) & (v >= 0) & (v < original_size[1])
    return u.clamp(0, original_size[0] - 1), v.clamp(0, original_size[1] - 1), inside
