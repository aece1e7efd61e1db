"""How each figure of geometry is computed from the scores of each scene."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch

from g2vlm.evaluation.metrics.depth import DepthAlignment
from g2vlm.evaluation.metrics.poses import auc_shares
from g2vlm.evaluation.results import Better
from g2vlm.evaluation.scores import GeometryScores


class Statistic(Enum):
    """What is made of the items of all scenes."""

    MEAN = "mean"
    MEDIAN = "median"


@dataclass(frozen=True)
class Measure:
    """How one figure is computed from the items of each scene."""

    key: str
    label: str
    unit: str
    better: Better
    items: Callable[[GeometryScores], Iterable[float | None]]
    """The numbers of one scene that are averaged; None does not count."""
    statistic: Statistic = Statistic.MEAN


def _folded(scores: GeometryScores) -> np.ndarray:
    angles = np.asarray(scores.translation_deg)
    return np.minimum(angles, 180 - angles)


def _share(length: float | None, scores: GeometryScores) -> float | None:
    return None if length is None or not scores.diagonal else length / scores.diagonal


def _auc(scores: GeometryScores, translation_deg: np.ndarray, threshold: int) -> list[float]:
    if not scores.rotation_deg:
        return []
    largest = np.maximum(np.asarray(scores.rotation_deg), translation_deg)
    return list(auc_shares(torch.from_numpy(np.atleast_1d(largest)), threshold).tolist())


def _below(angles: Iterable[float], threshold: int | float) -> list[float]:
    return [float(angle < threshold) for angle in angles]


def _signed(scores: GeometryScores) -> np.ndarray:
    return np.asarray(scores.translation_deg)


LOWER, HIGHER = Better.LOWER, Better.HIGHER
ALIGNMENT_LABELS = {
    DepthAlignment.NONE: "in metres as predicted",
    DepthAlignment.PER_IMAGE: "one scale per view",
    DepthAlignment.PER_SCENE: "one scale per scene",
    DepthAlignment.MEDIAN_OF_RATIOS: "one scale per scene, median of ratios",
    DepthAlignment.SCALE: "one scale per scene, least absolute",
    DepthAlignment.SCALE_SHIFT: "scale and shift per scene, least absolute",
}


def _aligned(alignment: DepthAlignment) -> tuple[Measure, Measure]:
    """Measures of depth after an alignment that a benchmark asks for beside the usual ones."""
    name, label = alignment.value, ALIGNMENT_LABELS[alignment]

    def found(scores: GeometryScores, field: str) -> list[float]:
        return [getattr(scores.aligned[name], field)] if name in scores.aligned else []

    return (
        Measure(f"depth/abs_rel/{name}", f"depth AbsRel, {label}", "", LOWER, lambda s: found(s, "abs_rel")),
        Measure(
            f"depth/delta/{name}",
            f"depth within a factor of 1.25, {label}",
            "share",
            HIGHER,
            lambda s: found(s, "delta"),
        ),
    )


MEASURES = (
    Measure("depth/abs_rel", "depth AbsRel, one scale per scene", "", LOWER, lambda s: [s.abs_rel]),
    Measure(
        "depth/abs_rel_per_view",
        "depth AbsRel, one scale per view",
        "",
        LOWER,
        lambda s: [s.abs_rel_per_view],
    ),
    Measure("depth/delta", "depth within a factor of 1.25", "share", HIGHER, lambda s: [s.delta]),
    Measure("depth/rmse", "depth RMSE, one scale per scene", "m", LOWER, lambda s: [s.rmse]),
    *(measure for alignment in DepthAlignment for measure in _aligned(alignment)),
    Measure("pose/auc30", "pose AUC@30", "share", HIGHER, lambda s: _auc(s, _folded(s), 30)),
    Measure(
        "pose/auc30_signed",
        "pose AUC@30, opposite translations are wrong",
        "share",
        HIGHER,
        lambda s: _auc(s, _signed(s), 30),
    ),
    Measure("pose/auc15", "pose AUC@15", "share", HIGHER, lambda s: _auc(s, _folded(s), 15)),
    Measure(
        "pose/auc15_signed",
        "pose AUC@15, opposite translations are wrong",
        "share",
        HIGHER,
        lambda s: _auc(s, _signed(s), 15),
    ),
    Measure("pose/auc5", "pose AUC@5", "share", HIGHER, lambda s: _auc(s, _folded(s), 5)),
    Measure(
        "pose/auc5_signed",
        "pose AUC@5, opposite translations are wrong",
        "share",
        HIGHER,
        lambda s: _auc(s, _signed(s), 5),
    ),
    Measure(
        "pose/rra15", "rotations within 15 degrees", "share", HIGHER, lambda s: _below(s.rotation_deg, 15)
    ),
    Measure(
        "pose/rta15", "translations within 15 degrees", "share", HIGHER, lambda s: _below(_folded(s), 15)
    ),
    Measure(
        "pose/rta15_signed",
        "translations within 15 degrees, opposite ones are wrong",
        "share",
        HIGHER,
        lambda s: _below(_signed(s), 15),
    ),
    Measure(
        "pose/rra30", "rotations within 30 degrees", "share", HIGHER, lambda s: _below(s.rotation_deg, 30)
    ),
    Measure(
        "pose/rta30", "translations within 30 degrees", "share", HIGHER, lambda s: _below(_folded(s), 30)
    ),
    Measure("pose/rotation_deg", "mean rotation error", "deg", LOWER, lambda s: s.rotation_deg),
    Measure(
        "pose/rotation_median_deg",
        "median rotation error",
        "deg",
        LOWER,
        lambda s: s.rotation_deg,
        Statistic.MEDIAN,
    ),
    Measure(
        "pose/direction_median_deg",
        "median error of translation directions, 0 to 180",
        "deg",
        LOWER,
        lambda s: s.translation_deg,
        Statistic.MEDIAN,
    ),
    Measure("pose/ate", "trajectory error after Sim(3)", "m", LOWER, lambda s: [s.ate]),
    Measure("pose/rpe_m", "relative pose error, translation", "m", LOWER, lambda s: [s.rpe_translation]),
    Measure("pose/rpe_deg", "relative pose error, rotation", "deg", LOWER, lambda s: [s.rpe_rotation_deg]),
    Measure(
        "points/pointwise",
        "points, same pixel, share of the diagonal",
        "share",
        LOWER,
        lambda s: [_share(s.pointwise, s)],
    ),
    Measure(
        "points/accuracy",
        "point accuracy, share of the diagonal",
        "share",
        LOWER,
        lambda s: [_share(s.accuracy, s)],
    ),
    Measure(
        "points/completeness",
        "point completeness, share of the diagonal",
        "share",
        LOWER,
        lambda s: [_share(s.completeness, s)],
    ),
    Measure("points/accuracy_m", "point accuracy", "m", LOWER, lambda s: [s.accuracy]),
    Measure("points/completeness_m", "point completeness", "m", LOWER, lambda s: [s.completeness]),
    Measure("points/normals", "normal consistency", "share", HIGHER, lambda s: [s.normal_consistency]),
    Measure("camera/focal", "focal length, relative error", "", LOWER, lambda s: [s.focal]),
    Measure(
        "camera/focal_median",
        "focal length, median relative error",
        "",
        LOWER,
        lambda s: s.focal_per_view,
        Statistic.MEDIAN,
    ),
)
"""All figures of geometry."""
