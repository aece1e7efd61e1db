"""Errors of camera poses: relative poses of all pairs, and trajectories after a similarity.

Definitions follow the evaluation of PoseDiffusion, VGGSfM and VGGT: for every unordered pair of views the
pose of one camera seen from the other is compared with the truth, by the angle between the rotations and the
angle between the directions of the translations, both in degrees.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import Similarity, umeyama
from g2vlm.geometry.poses import relative_pose
from g2vlm.geometry.rotations import rotation_angle

NO_DIRECTION_DEG = 180.0
"""Angle charged where only one of the two translations is zero and so has no direction."""


class Direction(Enum):
    """Whether opposite translations count as the same direction."""

    FOLDED = "folded"
    """Yes: angles fold to 0..90 degrees, as in the published figures, whose first methods came from epipolar
    geometry that cannot tell the sign."""
    SIGNED = "signed"
    """No: angles from 0 to 180 degrees."""


@dataclass(frozen=True)
class PairErrors:
    """Errors of the relative poses of all pairs of one scene, or of several scenes together."""

    rotation_deg: Float[Tensor, " pairs"]
    """0 to 180."""
    translation_deg: Float[Tensor, " pairs"]
    """0 to 90 folded, 0 to 180 signed."""

    @property
    def largest_deg(self) -> Float[Tensor, " pairs"]:
        """The larger of both angles of each pair."""
        return torch.maximum(self.rotation_deg, self.translation_deg)


def pair_errors(
    pred: Float[Tensor, "views 4 4"],
    true: Float[Tensor, "views 4 4"],
    direction: Direction = Direction.FOLDED,
) -> PairErrors:
    """Errors of the relative poses T_a_b of all pairs of views a < b.

    Relative poses do not depend on the world frame, nor translation directions on the scale, so nothing is
    aligned first.

    Args:
        pred: predicted T_world_camera, any frame and scale.
        true: true T_world_camera.
        direction: whether opposite translations agree.

    Raises:
        InputError: different numbers of views, or fewer than two.
    """
    if pred.shape != true.shape or pred.shape[0] < 2:
        raise InputError(
            f"Expected poses of the same two or more views, got {pred.shape[0]} predicted and "
            f"{true.shape[0]} true ones."
        )
    return relative_errors(all_relative_poses(pred), all_relative_poses(true), direction)


def all_relative_poses(T_world_camera: Float[Tensor, "views 4 4"]) -> Float[Tensor, "pairs 4 4"]:
    """Poses T_a_b of all pairs a < b: (0, 1), (0, 2), ..., (1, 2), ...; in double precision."""
    poses = T_world_camera.double()
    a, b = torch.triu_indices(len(poses), len(poses), offset=1, device=poses.device)
    return relative_pose(poses[a], poses[b])


def relative_errors(
    found: Float[Tensor, "pairs 4 4"],
    wanted: Float[Tensor, "pairs 4 4"],
    direction: Direction = Direction.FOLDED,
) -> PairErrors:
    """Errors of relative poses of pairs of views; a pose with NaN was not found and is off by all it can.

    Args:
        found: predicted T_a_b.
        wanted: true T_a_b.
        direction: whether opposite translations agree.
    """
    found, wanted = found.double(), wanted.double()
    known = torch.isfinite(found).flatten(1).all(dim=1)
    found = torch.where(known[:, None, None], found, torch.eye(4, dtype=found.dtype, device=found.device))
    difference = found[:, :3, :3].mT @ wanted[:, :3, :3]
    rotation = torch.rad2deg(rotation_angle(difference))
    angle = _direction_angle(found[:, :3, 3], wanted[:, :3, 3], direction)
    worst = 90.0 if direction is Direction.FOLDED else NO_DIRECTION_DEG
    return PairErrors(torch.where(known, rotation, 180.0), torch.where(known, angle, worst))


def _direction_angle(found: Tensor, wanted: Tensor, direction: Direction) -> Tensor:
    cross = torch.linalg.cross(found, wanted, dim=-1).norm(dim=-1)
    dot = (found * wanted).sum(dim=-1)
    # atan2 is accurate at all angles, where the arccos of a dot product loses half its digits near 0.
    angle = torch.rad2deg(torch.atan2(cross, dot.abs() if direction is Direction.FOLDED else dot))
    still, should_be_still = found.norm(dim=-1) == 0, wanted.norm(dim=-1) == 0
    angle = torch.where(still ^ should_be_still, NO_DIRECTION_DEG, angle)
    return torch.where(still & should_be_still, 0.0, angle)


def recall_at(errors_deg: Float[Tensor, " pairs"], threshold_deg: int | float) -> float:
    """Share of pairs with an error below the threshold: RRA@t of rotations, RTA@t of translations."""
    return float((errors_deg < threshold_deg).double().mean())


def auc_at(errors_deg: Float[Tensor, " pairs"], threshold_deg: int = 30) -> float:
    """Area under the curve of recall over thresholds, as VGGSfM and VGGT compute it.

    The mean over thresholds 1, 2, ..., `threshold_deg` degrees of the share of pairs whose error (the larger
    of rotation and translation angle) lies below: the mean of the cumulative sums of a histogram with bins of
    one degree. Bins are half open, but the last one holds its upper end (`numpy.histogram`).

    Args:
        errors_deg: `PairErrors.largest_deg` of all pairs.
        threshold_deg: largest threshold, a whole number of degrees.

    Returns:
        0 to 1. Errors drawn evenly from 0 to `threshold_deg` give about one half.

    Raises:
        InputError: no pairs, or a threshold below 1.
    """
    if errors_deg.numel() == 0 or threshold_deg < 1:
        raise InputError(
            f"Expected errors of at least one pair and a threshold of 1 degree or more, got "
            f"{errors_deg.numel()} and {threshold_deg}."
        )
    return float(auc_shares(errors_deg, threshold_deg).mean())


def auc_shares(errors_deg: Float[Tensor, " pairs"], threshold_deg: int = 30) -> Float[Tensor, " pairs"]:
    """What each pair adds to the area under the curve: their mean is `auc_at`.

    A pair with an error in [k, k + 1) is found at the thresholds k + 1, ..., `threshold_deg`: a share of
    (threshold - k) / threshold. Because the area is a mean over pairs, resampling scenes is cheap.
    """
    errors = errors_deg.double()
    bins = errors.floor().clamp(0, threshold_deg)
    # The last bin is closed: an error of exactly the threshold counts in it.
    bins = torch.where(errors == threshold_deg, threshold_deg - 1.0, bins)
    share = (threshold_deg - bins) / threshold_deg
    return torch.where(torch.isfinite(errors), share, 0.0)


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors of camera positions after the best similarity."""

    ate: float
    """Absolute trajectory error: root mean square distance of camera centres, unit of the truth."""
    rpe_translation: float
    """Relative pose error: mean length of the translation error between neighbouring views."""
    rpe_rotation_deg: float
    """Relative pose error: mean rotation error between neighbouring views."""


def trajectory_errors(pred: Float[Tensor, "views 4 4"], true: Float[Tensor, "views 4 4"]) -> TrajectoryErrors:
    """Align the camera centres by Sim(3) (Umeyama 1991), then compare trajectories.

    Centres predicted all in one place go to the mean of the true ones: the best that any similarity does.

    Args:
        pred: predicted T_world_camera, in the order of the trajectory.
        true: true T_world_camera.

    Raises:
        InputError: fewer than three views.
    """
    if pred.shape != true.shape or pred.shape[0] < 3:
        raise InputError(
            f"Expected poses of the same three or more views to align a trajectory, got {pred.shape[0]} "
            f"predicted and {true.shape[0]} true ones."
        )
    pred, true = pred.double(), true.double()
    moved = transform_cameras(_path_alignment(pred[:, :3, 3], true[:, :3, 3]), pred)
    off = (moved[:, :3, 3] - true[:, :3, 3]).norm(dim=-1)
    error = relative_pose(relative_pose(true[:-1], true[1:]), relative_pose(moved[:-1], moved[1:]))
    angles = torch.rad2deg(rotation_angle(error[:, :3, :3]))
    return TrajectoryErrors(
        ate=float(off.square().mean().sqrt()),
        rpe_translation=float(error[:, :3, 3].norm(dim=-1).mean()),
        rpe_rotation_deg=float(angles.mean()),
    )


def _path_alignment(found: Tensor, wanted: Tensor) -> Similarity:
    if not bool((found - found[0]).any()):
        mean = wanted.mean(dim=0)
        return Similarity(torch.zeros((), dtype=mean.dtype), torch.eye(3, dtype=mean.dtype), mean)
    return umeyama(found, wanted)


def transform_cameras(
    similarity: Similarity, T_world_camera: Float[Tensor, "views 4 4"]
) -> Float[Tensor, "views 4 4"]:
    """Rigid poses of the same cameras in the target frame of a similarity."""
    moved = T_world_camera.clone()
    moved[:, :3, :3] = similarity.R @ T_world_camera[:, :3, :3]
    moved[:, :3, 3] = similarity.apply(T_world_camera[:, :3, 3])
    return moved


def focal_errors(
    pred: Float[Tensor, "views 3 3"], true: Float[Tensor, "views 3 3"]
) -> Float[Tensor, " views"]:
    """Relative error of the horizontal focal length of each view, |f_pred - f_true| / f_true."""
    found, wanted = pred[:, 0, 0].double(), true[:, 0, 0].double()
    return ((found - wanted).abs() / wanted).nan_to_num(nan=math.inf)
