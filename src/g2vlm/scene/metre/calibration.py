"""What is known about a scene, brought together with it: what fixes the metre, and what the rest says."""

from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from g2vlm.errors import InputError
from g2vlm.geometry.known import CameraBook, DepthMaps, PoseTrack, PositionTrack
from g2vlm.scene.metre.cameras import PoseFit, PoseUse, apply_intrinsics, fit_poses, fit_positions
from g2vlm.scene.metre.depths import DepthFit, DepthUse, find_depths, scale_views
from g2vlm.scene.metre.lengths import KnownBaseline, KnownDistance, find_baselines, find_distances
from g2vlm.scene.metre.report import Finding, Role, percent
from g2vlm.scene.scale import Scale, ScaleKind

if TYPE_CHECKING:
    from g2vlm.scene.scene import Scene

_CONFLICT = 0.05
_CONFLICT_SIGMAS = 3.0


@dataclass(frozen=True, kw_only=True)
class KnownThings:
    """What is known about a scene.

    Of what tells a metre, the first in this order fixes it: distances, baselines, depth, poses in metres,
    positions. The others are compared with it and told.
    """

    distances: tuple[KnownDistance, ...] = ()
    """Lengths between pixels."""
    baselines: tuple[KnownBaseline, ...] = ()
    """Lengths between cameras."""
    depth: DepthMaps | None = None
    """Measured depth maps."""
    depth_use: DepthUse = DepthUse.SCENE
    """One factor for all, or one for each view besides."""
    poses: PoseTrack | None = None
    """Camera poses; they also fix the world frame."""
    pose_use: PoseUse = PoseUse.SIMILARITY
    """Move the scene as a whole, or give each camera its pose."""
    positions: PositionTrack | None = None
    """Camera positions, as of GPS; they fix the world frame where there are no poses."""
    intrinsics: CameraBook | None = None
    """Focal lengths and principal points; applied before all others."""

    def __bool__(self) -> bool:
        """Whether anything is known."""
        known = (self.distances, self.baselines, self.depth, self.poses, self.positions, self.intrinsics)
        return any(each is not None and each != () for each in known)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A scene after known things were applied, and what they said."""

    scene: "Scene"
    """A new scene; its `scale` says where the metre comes from."""
    findings: tuple[Finding, ...]
    """One for each known thing, in the order of trust."""
    conflicts: tuple[str, ...] = field(default=())
    """Pairs of sources whose metres differ by more than their errors explain, with both figures."""

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings]
        lines += [f"conflict: {conflict}" for conflict in self.conflicts]
        return "\n".join([*lines, f"scale {self.scene.scale}"])

    def summary(self) -> dict[str, Any]:
        """The same for JSON."""
        scale = self.scene.scale
        return {
            "scale": scale.kind.value,
            "scale_source": scale.source,
            "residual_m": scale.residual_m,
            "relative_error": scale.relative_error,
            "findings": [finding.summary() for finding in self.findings],
            "conflicts": list(self.conflicts),
        }


def calibrate(scene: "Scene", known: KnownThings) -> Calibration:
    """Bring a scene together with what is known about it: intrinsics, then the metre, then the world frame.

    Points, depth, camera positions, everything that has a length, take the factor of the most trusted source.
    Poses (or positions) then turn and shift the scene into their world.

    Args:
        scene: stays as it is.
        known: at least one thing.

    Raises:
        InputError: nothing known, or data that cannot fix what they should; the message says what would help.
    """
    if not known:
        raise InputError("Expected something known about the scene: a distance, poses, intrinsics, depth.")
    findings: list[Finding] = []
    if known.intrinsics is not None:
        scene, found = apply_intrinsics(scene, known.intrinsics)
        findings.append(found)

    # Everything is measured on the scene as it is now, so that the figures can be compared.
    depth = None if known.depth is None else find_depths(scene, known.depth, known.depth_use)
    # Where the metre comes from elsewhere, cameras may take given poses that the scene itself fits badly.
    is_needed = known.pose_use is PoseUse.SIMILARITY or not (
        known.distances or known.baselines or known.depth
    )
    poses = None if known.poses is None else fit_poses(scene, known.poses, is_needed)
    positions = None if known.positions is None else fit_positions(scene, known.positions)
    scales = _scales(scene, known, depth, poses, positions)
    chosen = next((each for each in scales if each.is_metric), next(iter(scales), None))
    if chosen is None:
        return Calibration(scene, tuple(findings))
    findings += [replace(each, role=Role.METRE if each is chosen else Role.COMPARED) for each in scales]

    if depth is not None and known.depth_use is DepthUse.VIEW:
        scene = scale_views(scene, depth)
    frame = poses or positions
    scene = _moved(scene, chosen, frame, known.pose_use)
    if depth is not None:
        scene = replace(scene, scale=replace(scene.scale, point_error=depth.finding.point_error))
    return Calibration(scene, tuple(findings), _conflicts(scales))


def _scales(
    scene: "Scene",
    known: KnownThings,
    depth: DepthFit | None,
    poses: PoseFit | None,
    positions: PoseFit | None,
) -> list[Finding]:
    """Findings that tell a unit, the most trusted first."""
    found = []
    if known.distances:
        found.append(find_distances(scene, known.distances))
    if known.baselines:
        found.append(find_baselines(scene, known.baselines))
    return found + [fit.finding for fit in (depth, poses, positions) if fit is not None]


def _moved(scene: "Scene", chosen: Finding, frame: PoseFit | None, use: PoseUse) -> "Scene":
    """The scene in the new unit and frame."""
    assert chosen.factor is not None
    kind = ScaleKind.METRIC if chosen.is_metric else ScaleKind.RELATIVE
    residual = chosen.residual if chosen.is_metric else None
    source = chosen.source if chosen.is_metric else f"unit of the {chosen.source}"
    scale = Scale(kind, source, residual, chosen.relative_error)
    if frame is None:
        return scene.transformed(np.diag([chosen.factor] * 3 + [1.0]), scale)
    if frame.finding is chosen:
        T, to_unit = frame.T_target_scene, 1.0
    else:
        T, to_unit = _rigid_at(scene, chosen.factor, frame)
    moved = scene.transformed(T, scale)
    if use is PoseUse.SIMILARITY or not frame.given:
        return moved
    views = list(moved.views)
    for index, pose in frame.given.items():
        exact = pose.copy()
        exact[:3, 3] *= to_unit
        views[index] = replace(views[index], T_world_camera=exact.astype(np.float32))
    return replace(moved, views=tuple(views))


def _rigid_at(scene: "Scene", factor: float, frame: PoseFit) -> tuple[np.ndarray, float]:
    """Similarity of a fixed factor into the frame's world, and the frame's unit in the new one."""
    assert frame.finding.factor is not None
    # Where the frame's own unit is the metre its positions are taken by their word.
    to_unit = 1.0 if frame.finding.is_metric else factor / frame.finding.factor
    R = frame.T_target_scene[:3, :3] / frame.finding.factor
    indices = list(frame.positions)
    ours = np.stack([scene.views[i].T_world_camera[:3, 3].astype(np.float64) for i in indices])
    target = to_unit * np.stack([frame.positions[i] for i in indices])
    T = np.eye(4)
    T[:3, :3] = factor * R
    T[:3, 3] = np.median(target - ours @ T[:3, :3].T, axis=0)
    return T, to_unit


def _conflicts(scales: list[Finding]) -> tuple[str, ...]:
    """Pairs of metres that differ by more than 5 % and more than three standard errors."""
    told = []
    for a, b in combinations([each for each in scales if each.is_metric], 2):
        assert a.factor is not None
        assert b.factor is not None
        apart = abs(np.log(a.factor / b.factor))
        error = np.hypot(a.relative_error or 0.0, b.relative_error or 0.0)
        if apart > max(_CONFLICT, _CONFLICT_SIGMAS * error):
            told.append(
                f"{a.source} says {a.factor:.4g} m per unit, {b.source} {b.factor:.4g} m, "
                f"{percent(np.exp(apart) - 1)} apart; the first is used"
            )
    return tuple(told)
