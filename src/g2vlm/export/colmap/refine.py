"""Bundle adjustment of a scene's cameras over correspondences measured in the photos, by pycolmap.

The refined cameras are kept only if they explain correspondences that took no part in the adjustment better
than the cameras of the scene do.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from g2vlm.errors import MissingExtraError
from g2vlm.export.colmap.files import write_binary
from g2vlm.export.colmap.matches import measured_tracks
from g2vlm.export.colmap.model import Observations
from g2vlm.export.colmap.tracks import Tracks, nearest_pixel
from g2vlm.export.colmap.writer import sparse_model, write_colmap
from g2vlm.export.conventions import CORNER_SHIFT_PX, original_intrinsics, project, world_to_camera
from g2vlm.export.originals import originals
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

_HELD_OUT = 5
_FEWEST_TRACKS = 30
_OUTLIER_PX = 4.0
_LOSS_PX = 1.0
_ROUNDS = 2
_MOST_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class Refinement:
    """What bundle adjustment came to."""

    scene: Scene
    """With refined cameras, and points moved along; or the original one."""
    measured: Tracks | None
    """Correspondences measured in the photos, as the refined scene has them; None if it was not kept."""
    is_refined: bool
    """Whether the refined cameras were kept."""
    before_px: float
    """Median distance in the original photos between held-out correspondences and their points, by the
    cameras of the scene; NaN without enough correspondences."""
    after_px: float
    """The same by the refined cameras."""
    num_tracks: int
    """Points seen in two photos or more, held-out ones included."""

    def write_colmap(
        self, scene: Scene, path: Path, options: SaveOptions, on_progress: Progress = no_progress
    ) -> None:
        """Write a COLMAP folder of the refined scene, the measured correspondences among its points."""
        write_colmap(scene, path, options, on_progress, self.measured)

    def summary(self) -> dict[str, Any]:
        """As JSON can say it."""
        px = (self.before_px, self.after_px)
        before, after = (value if np.isfinite(value) else None for value in px)
        return {
            "is_refined": self.is_refined,
            "before_px": before,
            "after_px": after,
            "correspondences": self.num_tracks,
        }

    def __str__(self) -> str:
        if not self.num_tracks or not np.isfinite(self.before_px):
            return f"cameras kept: only {self.num_tracks} correspondences found between the photos"
        change = f"median reprojection error {self.before_px:.2f} px -> {self.after_px:.2f} px"
        if self.is_refined:
            return f"cameras refined: {change}, {self.num_tracks} correspondences"
        return f"cameras kept: bundle adjustment does not help ({change}, {self.num_tracks} correspondences)"


def refine_scene(scene: Scene, photos: Path | None = None, on_progress: Progress = no_progress) -> Refinement:
    """Refine poses and focal lengths; the scene itself stays as it is.

    Corners are matched between the photos; a fifth of them is held out. The others determine cameras and
    points with a robust loss, and outliers of more than 4 px are left out of a second round. The result is
    moved and scaled onto the old points, so that the unit of the scene stays. Depth of each view is scaled by
    the median change of its matched points.

    Args:
        scene: with valid points; the original photos should be at hand.
        photos: a folder where they lie now.
        on_progress: told about every view.

    Raises:
        MissingExtraError: pycolmap is not installed.
    """
    try:
        import pycolmap  # noqa: F401  (told before the search begins)
    except ImportError as error:
        raise MissingExtraError("Bundle adjustment", "colmap") from error
    pictures = [original.image for original in originals(scene, photos)]
    tracks = measured_tracks(scene, pictures, on_progress)
    held = np.arange(len(tracks.xyz)) % _HELD_OUT == 0
    if len(tracks.xyz) < _FEWEST_TRACKS:
        return Refinement(scene, None, False, float("nan"), float("nan"), len(tracks.xyz))
    learned, tested = _selected(tracks, ~held), _selected(tracks, held)
    refined, fitting = _refined(scene, learned)
    before, after = (_unexplained_px(each, tested) for each in (scene, refined))
    if not after < before:
        return Refinement(scene, None, False, before, after, len(tracks.xyz))
    return Refinement(refined, fitting, True, before, after, len(tracks.xyz))


def _selected(tracks: Tracks, chosen: Bool[np.ndarray, " points"]) -> Tracks:
    """Some of the points, numbered anew."""
    number = np.cumsum(chosen) - 1
    kept = chosen[tracks.seen.point]
    seen = Observations(number[tracks.seen.point[kept]], tracks.seen.view[kept], tracks.seen.pixel[kept])
    return Tracks(tracks.xyz[chosen], tracks.rgb[chosen], seen)


def _reconstruction(scene: Scene, tracks: Tracks) -> Any:
    """Pycolmap's form of a scene with these tracks."""
    import pycolmap

    with tempfile.TemporaryDirectory(prefix="g2vlm-") as folder:
        write_binary(sparse_model(scene, tracks, SaveOptions()), Path(folder))
        return pycolmap.Reconstruction(folder)


def _adjust(reconstruction: Any, *, cameras: bool) -> None:
    """Minimise the reprojection error over points, and over cameras if asked."""
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = cameras
    options.refine_principal_point = False
    options.refine_extra_params = False
    options.refine_rig_from_world = cameras
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = _LOSS_PX
    options.ceres.solver_options.max_num_iterations = _MOST_ITERATIONS
    # More threads would add up in another order each time: results must not depend on the machine's load.
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for number in reconstruction.images:
        config.add_image(number)
    if cameras:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # `pycolmap.bundle_adjustment` does the same and prints; nothing stops it.
    pycolmap.create_default_bundle_adjuster(options, config, reconstruction).solve()


def _refined(scene: Scene, tracks: Tracks) -> tuple[Scene, Tracks]:
    """Cameras adjusted to tracks, with the unit and the place of the scene kept; and the tracks that fit."""
    import pycolmap

    reconstruction = _reconstruction(scene, tracks)
    # The points of the scene are a rough start: cameras must not be bent to them.
    _adjust(reconstruction, cameras=False)
    for _ in range(_ROUNDS):
        _adjust(reconstruction, cameras=True)
        pycolmap.ObservationManager(reconstruction).filter_all_points3D(_OUTLIER_PX, 0.0)
    _move_back(reconstruction, tracks)
    fitting = _tracks_of(reconstruction)
    return _with_cameras(scene, reconstruction, fitting), fitting


def _move_back(reconstruction: Any, tracks: Tracks) -> None:
    """Undo what bundle adjustment leaves open: place, direction and unit of the world."""
    import pycolmap
    import torch

    from g2vlm.geometry.alignment import robust_similarity

    ids = np.array(sorted(reconstruction.points3D))
    new = np.array([reconstruction.points3D[int(number)].xyz for number in ids])
    fit = robust_similarity(torch.from_numpy(new), torch.from_numpy(tracks.xyz[ids - 1]))
    rotation = pycolmap.Rotation3d(fit.R.numpy())
    reconstruction.transform(pycolmap.Sim3d(float(fit.scale), rotation, fit.t.numpy()))


def _tracks_of(reconstruction: Any) -> Tracks:
    """Points and observations of a pycolmap reconstruction whose image ids are places of views + 1."""
    ids = sorted(reconstruction.points3D)
    points = [reconstruction.points3D[number] for number in ids]
    owner, view, pixel = [], [], []
    for place, point in enumerate(points):
        for element in point.track.elements:
            owner.append(place)
            view.append(element.image_id - 1)
            pixel.append(reconstruction.images[element.image_id].points2D[element.point2D_idx].xy)
    seen = Observations(np.array(owner), np.array(view), np.array(pixel) - CORNER_SHIFT_PX)
    colors = np.array([point.color for point in points], dtype=np.uint8)
    return Tracks(np.array([point.xyz for point in points]), colors, seen)


def _with_cameras(scene: Scene, reconstruction: Any, tracks: Tracks) -> Scene:
    """A scene with the cameras of a reconstruction; depth follows the matched points of each view."""
    views = []
    for index, view in enumerate(scene.views):
        image = reconstruction.images[index + 1]
        fx, fy, cx, cy = reconstruction.cameras[image.camera_id].params
        K = np.array([[fx, 0, cx - CORNER_SHIFT_PX], [0, fy, cy - CORNER_SHIFT_PX], [0, 0, 1]])
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().inverse().matrix()
        K_model = (view.T_model_original @ K).astype(np.float32)
        moved = replace(view, K=K_model, T_world_camera=pose.astype(np.float32))
        views.append(
            replace(moved, points_camera=_unprojected(moved, _depth_change(view, moved, index, tracks)))
        )
    return replace(scene, views=tuple(views))


def _depth_change(before: View, after: View, index: int, tracks: Tracks) -> float:
    """Factor by which matched points of a view became farther; 1 without any."""
    mine = tracks.seen.view == index
    pixel = tracks.seen.pixel[mine]
    world = tracks.xyz[tracks.seen.point[mine]]
    T = world_to_camera(after)
    own = nearest_pixel(before, pixel, np.ones(len(pixel), dtype=bool))
    old = before.depth.ravel()[own].astype(np.float64)
    known = before.valid.ravel()[own] & (old > 0)
    new = (world @ T[2, :3] + T[2, 3])[known]
    return float(np.median(new / old[known])) if known.any() else 1.0


def _unprojected(view: View, factor: float) -> Float32[np.ndarray, "height width 3"]:
    v, u = np.mgrid[: view.height, : view.width].astype(np.float32)
    rays = np.stack(
        [(u - view.K[0, 2]) / view.K[0, 0], (v - view.K[1, 2]) / view.K[1, 1], np.ones_like(u)], -1
    )
    depth = np.where(view.valid, view.depth * np.float32(factor), 0)
    return (rays * depth[..., None]).astype(np.float32)


def _unexplained_px(scene: Scene, tracks: Tracks) -> float:
    """Median distance of observations from the points that explain them best, by the cameras of a scene."""
    reconstruction = _reconstruction(scene, tracks)
    _adjust(reconstruction, cameras=False)
    found = _tracks_of(reconstruction)
    errors = []
    for index, view in enumerate(scene.views):
        mine = found.seen.view == index
        world = found.xyz[found.seen.point[mine]]
        pixel, _ = project(world, world_to_camera(view), original_intrinsics(view))
        errors.append(np.linalg.norm(pixel - found.seen.pixel[mine], axis=1))
    return float(np.median(np.concatenate(errors)))
