"""Known cameras brought together with a scene: intrinsics, poses, positions."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from g2vlm.errors import InputError
from g2vlm.geometry.known import CameraBook, KnownCamera, PoseTrack, PositionTrack
from g2vlm.scene.metre.matching import match_views
from g2vlm.scene.metre.report import Finding
from g2vlm.scene.view import View

if TYPE_CHECKING:
    from torch import Tensor

    from g2vlm.geometry.consensus import SimilarityFit
    from g2vlm.scene.scene import Scene

MIN_GPS_EXTENT_M = 10.0
"""Positions of GPS are good to some metres: tracks shorter than this tell no scale."""
_MOST_POSE_ERROR = 0.5
_MOST_TURN_DEG = 45.0
_ENOUGH = 5
_MOST_GPS_ERROR = 0.2
_ASPECT_TOLERANCE = 0.02
_NOTED_DISTORTION_PX = 0.5


class PoseUse(StrEnum):
    """How known poses change a scene."""

    SIMILARITY = "similarity"
    """One similarity moves the whole scene into their world: cameras keep their places to each other."""
    GIVEN = "given"
    """Besides, each matched camera takes its given pose exactly, and its points follow it."""


@dataclass(frozen=True, eq=False)
class PoseFit:
    """How a scene lies in the world of known cameras."""

    finding: Finding
    T_target_scene: Float64[np.ndarray, "4 4"]
    """Similarity from the scene's world to theirs, in their unit."""
    given: dict[int, Float64[np.ndarray, "4 4"]]
    """Their poses by view, in their unit; empty where only positions are known."""
    positions: dict[int, Float64[np.ndarray, "3"]]
    """Their positions by view."""


def apply_intrinsics(scene: "Scene", book: CameraBook) -> "tuple[Scene, Finding]":
    """The scene with known intrinsics: depth stays, x and y of every point follow from its pixel.

    Raises:
        InputError: a camera of another shape than the photo, or names that match no view.
    """
    cameras = _cameras_of(scene, book)
    views, misses, notes = [], [], []
    for view, camera in zip(scene.views, cameras, strict=True):
        if camera is None:
            views.append(view)
            continue
        K_original = _at_original_size(view, camera)
        K = view.T_model_original @ K_original
        misses.append(_miss_px(view, K))
        points = _on_rays(view, K)
        views.append(replace(view, K=K.astype(np.float32), points_camera=points, focal_measured=True))
    changes = [
        float(new.K[0, 0] / old.K[0, 0])
        for new, old, camera in zip(views, scene.views, cameras, strict=True)
        if camera is not None
    ]
    notes.append(f"focal lengths changed by {100 * (float(np.median(changes)) - 1):+.3g} %")
    if missing := len(scene) - len(misses):
        notes.append(f"{missing} of {len(scene)} views keep their own")
    bent = max(camera.distortion_px for camera in cameras if camera is not None)
    if bent > _NOTED_DISTORTION_PX:
        notes.append(
            f"lens distortion is not modelled and moves pixels by up to {bent:.3g} px: undistort photos first"
        )
    finding = Finding(
        source=f"intrinsics of {book.source}",
        fit="intrinsics, after the network, which takes none",
        factor=None,
        residual=float(np.median(misses)),
        unit="px",
        num_inliers=len(misses),
        num_given=len(scene),
        notes=tuple(notes),
    )
    return replace(scene, views=tuple(views)), finding


def _cameras_of(scene: "Scene", book: CameraBook) -> list[KnownCamera | None]:
    """The camera of each view; None where the book has none for it."""
    named = [camera for camera in book.cameras if camera.name is not None]
    if not named:
        if len(book.cameras) != 1:
            raise InputError(
                f"Expected one camera, or cameras with the names of photos, got {len(book.cameras)} without "
                f"names in {book.source}: give images.txt beside cameras.txt, or a single camera."
            )
        return [book.cameras[0]] * len(scene)
    match = match_views(scene.views, [c.name for c in named], [None] * len(named), "cameras")
    found: list[KnownCamera | None] = [None] * len(scene)
    for index, place in match.pairs:
        found[index] = named[place]
    return found


def _at_original_size(view: View, camera: KnownCamera) -> np.ndarray:
    """Intrinsics at the size of the view's photo."""
    K = camera.K.astype(np.float64)
    width, height = view.original_size
    given_width, given_height = camera.size or view.original_size
    if abs(np.log(given_width * height / (given_height * width))) > _ASPECT_TOLERANCE:
        raise InputError(
            f"Expected intrinsics of the shape of the upright photo {view.name}, {width}x{height}, got a "
            f"camera of {given_width}x{given_height}: turn or crop it as the photo."
        )
    # Image borders coincide: with centres at integers, u' = (u + 0.5) s - 0.5.
    scale = np.diag([width / given_width, height / given_height, 1.0])
    scale[:2, 2] = (np.diag(scale)[:2] - 1) / 2
    return scale @ K


def _on_rays(view: View, K: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[: view.height, : view.width].astype(np.float64)
    depth = view.depth.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # invalid pixels may hold anything
        x, y = (u - K[0, 2]) / K[0, 0] * depth, (v - K[1, 2]) / K[1, 1] * depth
        return np.stack([x, y, depth], axis=-1).astype(np.float32)


def _miss_px(view: View, K: np.ndarray) -> float:
    """Median distance, in pixels of the photo, of the network's points from their pixels under `K`."""
    usable = view.valid & (view.depth > 0)
    if not usable.any():
        return 0.0
    rows, columns = np.nonzero(usable)
    x, y, z = view.points_camera[usable].astype(np.float64).T
    du = (K[0, 0] * x / z + K[0, 2] - columns) / view.T_model_original[0, 0]
    dv = (K[1, 1] * y / z + K[1, 2] - rows) / view.T_model_original[1, 1]
    return float(np.median(np.hypot(du, dv)))


def fit_poses(scene: "Scene", track: PoseTrack, is_needed: bool = True) -> PoseFit:
    """The similarity that brings a scene's cameras to known poses.

    Where positions do not lie on a line they decide alone; on a line, or with two cameras, the rotation comes
    from the orientations of the cameras.

    Args:
        scene: the scene.
        track: known poses.
        is_needed: refuse a bad fit; without it the poses can still be given to the cameras one by one.

    Raises:
        InputError: fewer than two poses match, cameras stand in one place, or nothing fits.
    """
    import torch

    names, times = [pose.name for pose in track.poses], [pose.time_s for pose in track.poses]
    match = match_views(scene.views, names, times, "poses")
    given = {index: track.poses[place].T_world_camera for index, place in match.pairs}
    if len(given) < 2:
        raise InputError(
            f"Expected poses of two or more views to find a scale, got {len(given)} in {track.source}: add "
            "poses, or give a known distance."
        )
    ours = {index: scene.views[index].T_world_camera.astype(np.float64) for index in given}
    source, target = (torch.from_numpy(np.stack([poses[i][:3, 3] for i in given])) for poses in (ours, given))
    _require_moving(source.numpy(), target.numpy(), track.source)
    notes = [match.note(len(scene))]
    rotations = torch.from_numpy(np.stack([given[i][:3, :3] @ ours[i][:3, :3].T for i in given]))
    fit, why = _similarity(source, target, rotations)
    notes += [why] if why else []
    T = fit.similarity.matrix().numpy()
    turned = _turns_deg(fit.similarity.R, rotations).numpy()
    notes.append(f"median rotation residual {np.median(turned):.3g} degrees")
    unit = "m" if track.is_metric else "units"
    finding = _pose_finding(
        f"poses of {track.source}",
        fit.residuals.numpy(),
        fit.inliers.numpy(),
        float(fit.similarity.scale),
        target.numpy(),
    )
    finding = replace(finding, unit=unit, is_metric=track.is_metric, notes=(*finding.notes, *notes))
    unsure = finding.relative_error is not None and finding.relative_error > _MOST_POSE_ERROR
    if is_needed and (unsure or np.median(turned) > _MOST_TURN_DEG):
        raise InputError(
            f"Expected poses that fit the cameras of the scene, but those of {track.source} miss them by "
            f"{finding.residual:.3g} and {np.median(turned):.3g} degrees in the median, while the cameras "
            "moved about as much: check names, order and convention (camera-to-world, OpenCV axes, for TUM "
            "files), or give a known distance or depth, beside which --pose_fit given puts each camera into "
            "its pose."
        )
    return PoseFit(finding, T, given, {i: given[i][:3, 3] for i in given})


def _similarity(source: "Tensor", target: "Tensor", rotations: "Tensor") -> tuple["SimilarityFit", str]:
    """The similarity of cameras, and why orientations gave its rotation; empty where positions did."""
    from g2vlm.geometry.consensus import consensus_similarity, consensus_with_rotation, is_collinear

    fit = consensus_with_rotation(source, target, rotations)
    if is_collinear(source, 0.05) or is_collinear(target, 0.05):
        return fit, "cameras stand on a line, so their orientations give the rotation"
    by_positions = consensus_similarity(source, target)
    # Positions that hardly spread beside their noise tell a rotation worse than orientations do.
    if _misfit(by_positions, rotations, target) <= 1.25 * _misfit(fit, rotations, target) + 1e-4:
        return by_positions, ""
    return fit, "orientations give the rotation, since positions fit worse"


def fit_positions(scene: "Scene", track: PositionTrack) -> PoseFit:
    """The similarity that brings a scene's cameras to known positions, such as those of GPS.

    Raises:
        InputError: fewer than three positions, all near each other or on a line, or nothing fits.
    """
    import torch

    from g2vlm.geometry.consensus import consensus_similarity, is_collinear

    match = match_views(
        scene.views, [p.name for p in track.positions], [None] * len(track.positions), "positions"
    )
    given = {index: track.positions[place].position_m.astype(np.float64) for index, place in match.pairs}
    source = torch.from_numpy(
        np.stack([scene.views[i].T_world_camera[:3, 3] for i in given]).astype(np.float64)
    )
    target = torch.from_numpy(np.stack(list(given.values())))
    extent = float(torch.cdist(target, target).max()) if len(given) else 0.0
    if len(given) < 3 or extent < MIN_GPS_EXTENT_M:
        raise InputError(
            f"Expected positions of three or more views over at least {MIN_GPS_EXTENT_M:g} m, since GPS is "
            "good to "
            f"some metres; got {len(given)} over {extent:.3g} m in {track.source}: give a known distance "
            "instead."
        )
    for points, whose in ((target, f"positions of {track.source}"), (source, "cameras of this scene")):
        if is_collinear(points, 0.05):
            raise InputError(
                f"Expected positions beside one line, but the {whose} lie on one, which leaves the turn "
                "about it open: "
                "walk a curve, or give poses or a known distance."
            )
    fit = consensus_similarity(source, target)
    finding = _pose_finding(
        track.source, fit.residuals.numpy(), fit.inliers.numpy(), float(fit.similarity.scale), target.numpy()
    )
    if finding.relative_error is None or finding.relative_error > _MOST_GPS_ERROR:
        raise InputError(
            f"Expected positions that fit the cameras of the scene, but those of {track.source} miss them by "
            f"{finding.residual:.3g} m in the median over {extent:.3g} m: give a known distance instead."
        )
    finding = replace(finding, notes=(*finding.notes, match.note(len(scene)), "axes east, north, up"))
    return PoseFit(finding, fit.similarity.matrix().numpy(), {}, given)


def _require_moving(source: np.ndarray, target: np.ndarray, what: str) -> None:
    for points, whose in ((target, f"poses of {what}"), (source, "cameras of this scene")):
        extent = np.linalg.norm(points - points.mean(axis=0), axis=-1).max()
        if not extent > 1e-9 * max(1.0, float(np.abs(points).max())):
            raise InputError(
                f"Expected cameras that moved, but the {whose} stand in one place, which tells no scale: "
                "give a "
                "known distance or depth."
            )


def _pose_finding(
    name: str, residuals: np.ndarray, inliers: np.ndarray, factor: float, target: np.ndarray
) -> Finding:
    """Report of a similarity; the error of its scale follows from the residuals of those who agree."""
    moved = target[inliers] - target[inliers].mean(axis=0)
    # Of few cameras some always fit by chance, so then all count; seven numbers were fitted.
    counted = residuals[inliers] if inliers.sum() >= _ENOUGH else residuals
    noise = np.sqrt(np.square(counted).sum() / max(1, 3 * len(counted) - 7))
    error = float(noise / np.sqrt(np.square(moved).sum()))
    extent = float(2 * np.linalg.norm(moved, axis=-1).max())
    return Finding(
        source=name,
        fit="similarity",
        factor=factor,
        residual=float(np.median(residuals)),
        unit="m",
        num_inliers=int(inliers.sum()),
        num_given=len(residuals),
        relative_error=error,
        notes=(f"cameras moved over {extent:.3g}",),
        residuals=tuple(float(x) for x in residuals[:1000]),
    )


def _turns_deg(R: "Tensor", rotations: "Tensor") -> "Tensor":
    """Angles between one rotation and others."""
    from g2vlm.geometry.rotations import rotation_angle

    return rotation_angle(rotations @ R.T).rad2deg()


def _misfit(fit: "SimilarityFit", rotations: "Tensor", target: "Tensor") -> float:
    """Median position residual over the extent, plus median rotation residual in radians."""
    extent = (target - target.mean(dim=0)).norm(dim=-1).max()
    turn = _turns_deg(fit.similarity.R, rotations).deg2rad().median()
    return float(fit.residuals.median() / extent + turn)
