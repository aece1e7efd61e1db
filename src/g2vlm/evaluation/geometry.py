"""A prediction of geometry against the truth about it."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.depth import DepthAlignment, depth_errors
from g2vlm.evaluation.metrics.points import (
    IcpOptions,
    PointErrors,
    Surface,
    diagonal,
    evenly,
    icp,
    point_errors,
)
from g2vlm.evaluation.metrics.poses import (
    Direction,
    PairErrors,
    TrajectoryErrors,
    all_relative_poses,
    focal_errors,
    relative_errors,
    trajectory_errors,
)
from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.scores import DepthScores, GeometryScores
from g2vlm.geometry.alignment import umeyama
from g2vlm.geometry.cameras import unproject
from g2vlm.geometry.edges import normals_from_points
from g2vlm.geometry.poses import transform_points
from g2vlm.scene.scene import Scene


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """What is known about the views of one scene, at any resolution."""

    depth: Float[Tensor, "views height width"] | None
    """z-depth; None where only poses are known."""
    valid: Bool[Tensor, "views height width"] | None
    """Pixels whose depth is known."""
    T_world_camera: Float[Tensor, "views 4 4"] | None
    """Camera-to-world, OpenCV axes; None where only depths are known."""
    K: Float[Tensor, "views 3 3"] | None
    """Intrinsics in pixels, integer pixel centres."""
    diagonal: float | None = None
    """Size of the scene that point errors are related to; that of the box around the true points if None."""

    @property
    def points_world(self) -> Float[Tensor, "views height width 3"]:
        """The surface point that each pixel sees."""
        if self.T_world_camera is None or self.depth is None or self.K is None:
            raise InputError("Expected a truth with poses, depth and intrinsics, got one without some.")
        return transform_points(self.T_world_camera, unproject(self.depth, self.K))

    def __len__(self) -> int:
        known = self.depth if self.T_world_camera is None else self.T_world_camera
        assert known is not None
        return len(known)


@dataclass(frozen=True)
class GeometryOptions:
    """How a scene is measured."""

    icp: IcpOptions = field(default_factory=IcpOptions)
    """Refinement of the alignment of points."""
    max_depth: float | None = None
    """Farther true depths are left out, and predictions cut to it, in depth errors; points beyond it are left
    out of point errors too."""
    min_baseline: float = 0.0
    """Pairs of views whose true cameras are nearer to each other have no direction: they are left out."""
    alignments: tuple[DepthAlignment, ...] = ()
    """Further ways in which depth is brought to the unit of the truth."""
    points: bool = True
    """Measure points, where the truth knows depth and poses: slower than all else."""
    max_queries: int = 10_000
    """Points of each side that nearest neighbours are looked up for."""

    def to_json(self) -> dict[str, Any]:
        """All choices as JSON values."""
        return {**asdict(self), "alignments": [alignment.value for alignment in self.alignments]}


def compare(
    said: Scene | Prediction, truth: SceneTruth, options: GeometryOptions | None = None
) -> GeometryScores:
    """Measure a reconstruction.

    Args:
        said: what the method says, in its own frame and unit.
        truth: of the same views in the same order, at the resolution of the original photos.
        options: of the point measures; the public protocol's if None.

    Raises:
        InputError: different views, nothing to compare, or a reconstruction that cannot be aligned.
    """
    prediction = Prediction.of_views(said.views) if isinstance(said, Scene) else said
    if len(prediction) != len(truth):
        raise InputError(f"Expected the truth of {len(prediction)} views, got that of {len(truth)}.")
    options = options or GeometryOptions()
    truth = at_model_pixels(truth, prediction)
    if options.max_depth is not None and truth.depth is not None and truth.valid is not None:
        truth = replace(truth, valid=truth.valid & (truth.depth < options.max_depth))
    scores = GeometryScores(num_views=len(prediction), diagonal=truth.diagonal)
    scores = _with_depth(scores, prediction, truth, options)
    scores = _with_poses(scores, prediction, truth, options)
    return _with_points(scores, prediction, truth, options) if options.points else scores


def _with_depth(
    scores: GeometryScores, prediction: Prediction, truth: SceneTruth, options: GeometryOptions
) -> GeometryScores:
    if prediction.depth is None or truth.depth is None:
        return scores
    depth, known, limit = torch.from_numpy(prediction.depth), _known(prediction, truth), options.max_depth
    whole = depth_errors(depth, truth.depth, known, DepthAlignment.PER_SCENE, limit)
    others = {
        alignment.value: depth_errors(depth, truth.depth, known, alignment, limit)
        for alignment in options.alignments
    }
    return replace(
        scores,
        abs_rel=whole.abs_rel,
        delta=whole.delta,
        rmse=whole.rmse,
        abs_rel_per_view=_abs_rel_per_view(depth, truth.depth, known, limit),
        aligned={name: DepthScores(found.abs_rel, found.delta) for name, found in others.items()},
    )


def _known(prediction: Prediction, truth: SceneTruth) -> Bool[Tensor, "views height width"]:
    assert truth.valid is not None
    assert prediction.valid is not None
    return truth.valid & torch.from_numpy(prediction.valid)


def _abs_rel_per_view(depth: Tensor, true: Tensor, known: Tensor, limit: float | None) -> float:
    """Mean over the views in which anything is known."""
    views = [slice(i, i + 1) for i in range(len(depth)) if bool(known[i].any())]
    return float(np.mean([depth_errors(depth[i], true[i], known[i], max_depth=limit).abs_rel for i in views]))


def _with_poses(
    scores: GeometryScores, prediction: Prediction, truth: SceneTruth, options: GeometryOptions
) -> GeometryScores:
    pairs = _pairs(prediction, truth, options.min_baseline)
    path = _path(prediction, truth)
    focal: tuple[float, ...] = ()
    if prediction.K is not None and truth.K is not None:
        focal = tuple(focal_errors(torch.from_numpy(prediction.K), truth.K).tolist())
    return replace(
        scores,
        rotation_deg=tuple(pairs.rotation_deg.tolist()) if pairs else (),
        translation_deg=tuple(pairs.translation_deg.tolist()) if pairs else (),
        ate=path.ate if path else None,
        rpe_translation=path.rpe_translation if path else None,
        rpe_rotation_deg=path.rpe_rotation_deg if path else None,
        focal=float(np.mean(focal)) if focal else None,
        focal_per_view=focal,
    )


def _pairs(prediction: Prediction, truth: SceneTruth, min_baseline: float) -> PairErrors | None:
    """Errors of all pairs of views that are far enough apart; None where there is none."""
    if truth.T_world_camera is None or len(truth) < 2:
        return None
    wanted = all_relative_poses(truth.T_world_camera)
    if prediction.T_first_second is not None:
        found = torch.from_numpy(prediction.T_first_second)
    elif prediction.T_world_camera is not None:
        found = all_relative_poses(torch.from_numpy(prediction.T_world_camera))
    else:
        return None
    counts = wanted[:, :3, 3].norm(dim=-1) >= min_baseline
    return relative_errors(found[counts], wanted[counts], Direction.SIGNED) if bool(counts.any()) else None


def _path(prediction: Prediction, truth: SceneTruth) -> TrajectoryErrors | None:
    if prediction.T_world_camera is None or truth.T_world_camera is None or len(truth) < 3:
        return None
    poses = torch.from_numpy(prediction.T_world_camera)
    # A camera that was not found has no error: a mean over the others would flatter the method.
    return trajectory_errors(poses, truth.T_world_camera) if bool(torch.isfinite(poses).all()) else None


def _with_points(
    scores: GeometryScores, prediction: Prediction, truth: SceneTruth, options: GeometryOptions
) -> GeometryScores:
    said = prediction.points_camera is not None and prediction.T_world_camera is not None
    if not said or truth.depth is None or truth.T_world_camera is None or truth.K is None:
        return scores
    points = _compare_points(prediction, truth, options)
    return replace(
        scores,
        pointwise=points.pointwise,
        accuracy=points.nearest.accuracy,
        completeness=points.nearest.completeness,
        accuracy_median=points.nearest.accuracy_median,
        completeness_median=points.nearest.completeness_median,
        normal_consistency=points.nearest.normal_consistency,
        diagonal=points.diagonal,
    )


@dataclass(frozen=True)
class _Points:
    pointwise: float
    nearest: PointErrors
    diagonal: float


def _compare_points(prediction: Prediction, truth: SceneTruth, options: GeometryOptions) -> _Points:
    assert prediction.points_camera is not None
    assert prediction.T_world_camera is not None
    known = _known(prediction, truth)
    poses, points = torch.from_numpy(prediction.T_world_camera), torch.from_numpy(prediction.points_camera)
    pred_maps = transform_points(poses.to(points.dtype), points).double()
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


def at_model_pixels(truth: SceneTruth, prediction: Prediction) -> SceneTruth:
    """The truth at the pixels of the model's images: the nearest original pixel of each.

    Depth is not interpolated, since a blend of near and far lies on no surface.

    Args:
        truth: at the resolution of the original photos.
        prediction: with the pixel affines from original to model.

    Raises:
        InputError: an original photo of another size than its truth.
    """
    affines = torch.from_numpy(np.ascontiguousarray(prediction.affines)).double()
    K = None if truth.K is None else (affines @ truth.K.double()).float()
    if truth.depth is None or truth.valid is None or prediction.depth is None:
        return replace(truth, depth=None, valid=None, K=K)
    height, width = truth.depth.shape[1:]
    sizes = set(prediction.original_sizes)
    if sizes != {(width, height)}:
        raise InputError(f"Expected photos of {width}x{height} pixels like their truth, got {sorted(sizes)}.")
    rows, columns = prediction.depth.shape[1:]
    depths, valids = [], []
    for i, affine in enumerate(affines):
        u, v, inside = _original_pixels(affine, (columns, rows), (width, height))
        depths.append(truth.depth[i, v, u])
        valids.append(truth.valid[i, v, u] & inside)
    return replace(truth, depth=torch.stack(depths), valid=torch.stack(valids), K=K)


def _original_pixels(
    T_model_original: Tensor, model_size: tuple[int, int], original_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Columns and rows of the original pixel nearest to each model pixel, and whether it exists."""
    width, height = model_size
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).double()
    original = pixels @ torch.linalg.inv(T_model_original).mT
    # A tie goes to the later pixel whatever the rounding of the product: the same pixels for everybody.
    original = (original + 0.5 + 1e-6).floor().long()
    u, v = original[..., 0], original[..., 1]
    inside = (u >= 0) & (u < original_size[0]) & (v >= 0) & (v < original_size[1])
    return u.clamp(0, original_size[0] - 1), v.clamp(0, original_size[1] - 1), inside
