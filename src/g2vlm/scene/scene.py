"""The scene: the one 3-D currency between reconstruction, questions, viewers and files."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from g2vlm.errors import InputError
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.coloring import view_normals
from g2vlm.scene.contact_sheet import scene_html
from g2vlm.scene.filtering import away_from_edges, filter_by_confidence
from g2vlm.scene.formats import Progress, find_target, no_progress
from g2vlm.scene.measurement import Measurement, RegionSize, measure_depth, measure_distance, measure_size
from g2vlm.scene.measuring import larger
from g2vlm.scene.measuring.boxes import BoxAxes, BoxSize
from g2vlm.scene.measuring.floor import Floor, find_floor
from g2vlm.scene.measuring.larger import Area
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.view import Pixel, PixelBox, PixelSpace, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from g2vlm.scene.metre.calibration import Calibration, KnownThings

__all__ = ["Bounds", "HasMatrix", "PixelSpace", "Scale", "ScaleKind", "Scene", "View"]

_RIGID_TOLERANCE = 1e-3
_SAME_UNIT_TOLERANCE = 1e-6


class Bounds(NamedTuple):
    """Axis-aligned box around points."""

    minimum: Float32[np.ndarray, "3"]
    """Lowest x, y, z."""
    maximum: Float32[np.ndarray, "3"]
    """Highest x, y, z."""


@runtime_checkable
class HasMatrix(Protocol):
    """Anything that gives a 4x4 similarity, such as `geometry.alignment.Similarity`."""

    def matrix(self) -> Any:
        """4x4 matrix, an array or a CPU tensor."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Scene:
    """Views in one world frame, all of one resolution.

    The world frame is the network's own unless a method says otherwise: arbitrary, with OpenCV axes. Methods
    never change a scene, they return a new one that shares the arrays.

    Raises:
        InputError: on construction, without views or with views of different sizes.
    """

    views: tuple[View, ...]
    """In the order of the photos or frames."""
    scale: Scale
    """The unit of all lengths."""

    def __post_init__(self) -> None:
        """Check that the views belong together."""
        if not self.views:
            raise InputError("Expected a scene of at least one view, got none.")
        sizes = sorted({(view.width, view.height) for view in self.views})
        if len(sizes) > 1:
            raise InputError(f"Expected views of one size, got {', '.join(f'{w}x{h}' for w, h in sizes)}.")

    def __repr__(self) -> str:
        return f"Scene({len(self)} views, {self.num_points} points, {self.scale.kind.value} scale)"

    def _repr_html_(self) -> str:
        """What notebooks show: the points to turn and measure, photos, depth and confidence of the views."""
        return scene_html(self)

    def __len__(self) -> int:
        return len(self.views)

    @property
    def num_points(self) -> int:
        """Valid pixels of all views."""
        return sum(int(np.count_nonzero(view.valid)) for view in self.views)

    def filtered(
        self,
        min_confidence: int | float | None = None,
        percentile: int | float | None = None,
        max_depth_edge: int | float | None = None,
        max_normal_edge_rad: int | float | None = None,
    ) -> "Scene":
        """The scene with the points that fail any of the tests marked invalid; None leaves a test out.

        Args:
            min_confidence: lowest confidence kept, 0 to 1.
            percentile: drop the points below this percentile of confidence over the whole scene, 0 to 100.
            max_depth_edge: drop pixels whose 3x3 window spans more than this fraction of their depth; 0.03
                removes flying pixels.
            max_normal_edge_rad: drop pixels whose normal differs from one in the 3x3 window by more than this
                angle in radians. It takes creases and noise with it: 0.5 is mild, 0.1 strict.

        Raises:
            InputError: a threshold out of range.
        """
        # Edges first: an edge is an edge of the reconstruction, whatever confidence removes afterwards.
        views = tuple(
            replace(view, valid=away_from_edges(view, max_depth_edge, max_normal_edge_rad))
            for view in self.views
        )
        return replace(self, views=filter_by_confidence(views, min_confidence, percentile))

    def masked(self, masks: Sequence[Bool[np.ndarray, "height width"] | None]) -> "Scene":
        """The scene without the points that masks leave out.

        The confidence of the others stays as it is; masks given to a reconstruction also keep what they leave
        out from judging other views.

        Args:
            masks: for each view, True where its photo stays, at any resolution of the whole upright photo;
                None leaves it whole.

        Raises:
            InputError: another number than that of the views, or nothing would be left.
        """
        from g2vlm.scene.masking import mask_views

        return mask_views(self, masks)

    def transformed(
        self, T_new_world: Float[np.ndarray, "4 4"] | HasMatrix, scale: Scale | None = None
    ) -> "Scene":
        """The scene in another world frame, reached by a rotation, a shift and a common scale.

        Args:
            T_new_world: 4x4 matrix [[s R, t], [0, 1]] with s > 0, or a `Similarity`.
            scale: what a unit means afterwards. If None it stays, except that a metric scene whose size
                changes is no longer metric.

        Raises:
            InputError: the matrix is not such a transform.
        """
        matrix = T_new_world.matrix() if isinstance(T_new_world, HasMatrix) else T_new_world
        factor, T_rigid = _split_similarity(np.asarray(matrix, dtype=np.float64))
        if scale is None:
            scale = self.scale
            if scale.kind is ScaleKind.METRIC and abs(factor - 1) > _SAME_UNIT_TOLERANCE:
                scale = Scale(ScaleKind.RELATIVE, f"{factor:.6g} times metres ({scale.source})")
        return Scene(tuple(_moved(view, factor, T_rigid) for view in self.views), scale)

    def anchored(self) -> "Scene":
        """The scene with the first view's camera as its world frame: that pose is exactly the identity."""
        T_world_first = self.views[0].T_world_camera.astype(np.float64)
        R_first_world = T_world_first[:3, :3].T
        T_first_world = np.eye(4)
        T_first_world[:3, :3] = R_first_world
        T_first_world[:3, 3] = -R_first_world @ T_world_first[:3, 3]
        views = [_moved(view, 1.0, T_first_world) for view in self.views]
        views[0] = replace(views[0], T_world_camera=np.eye(4, dtype=np.float32))
        return replace(self, views=tuple(views))

    def bounds(self) -> Bounds:
        """Axis-aligned box around all valid points, world frame.

        Raises:
            InputError: no point is valid.
        """
        boxes = [
            (points.min(axis=0), points.max(axis=0))
            for points in (view.points_world[view.valid] for view in self.views)
            if len(points)
        ]
        if not boxes:
            raise InputError("Expected a scene with points, but all are invalid: filter less.")
        low, high = zip(*boxes, strict=True)
        return Bounds(np.min(low, axis=0), np.max(high, axis=0))

    def point_cloud(
        self, voxel: int | float | None = None, max_points: int | None = None, normals: bool = False
    ) -> PointCloud:
        """All valid points of all views, view by view in pixel order.

        Args:
            voxel: keep one point per cube of this side, in the unit of the scene (`PointCloud.thinned`).
            max_points: then keep a random subset of at most this many (`PointCloud.limited`).
            normals: add surface normals, in the world frame.
        """
        counts = [int(np.count_nonzero(view.valid)) for view in self.views]
        cloud = PointCloud(
            points=_gather(self.views, lambda view: view.points_world),
            colors=_gather(self.views, lambda view: view.rgb),
            confidence=_gather(self.views, lambda view: view.confidence),
            view_index=np.repeat(np.arange(len(self.views), dtype=np.int32), counts),
            normals=_gather(self.views, _normals_world) if normals else None,
        )
        cloud = cloud if voxel is None else cloud.thinned(voxel)
        return cloud if max_points is None else cloud.limited(max_points)

    def measure_depth(self, view: int, pixel: Pixel, space: PixelSpace = PixelSpace.ORIGINAL) -> Measurement:
        """Z-depth at a pixel of a view.

        Args:
            view: index of the view, from 0.
            pixel: (u, v): columns from the left, rows from the top, from 0; the nearest point counts.
            space: which image `pixel` counts in, the original photo or the model's.

        Raises:
            InputError: no such view, a pixel outside of the image, or one without a valid point.
        """
        self.view_at(view)
        return measure_depth(self.views, view, pixel, space, self.scale)

    def measure_distance(
        self,
        view_a: int,
        pixel_a: Pixel,
        view_b: int,
        pixel_b: Pixel,
        space: PixelSpace = PixelSpace.ORIGINAL,
    ) -> Measurement:
        """Straight distance in space between two pixels, of one view or of two; else as `measure_depth`."""
        for view in (view_a, view_b):
            self.view_at(view)
        return measure_distance(self.views, ((view_a, pixel_a), (view_b, pixel_b)), space, self.scale)

    def measure_size(
        self,
        view: int,
        box: PixelBox,
        space: PixelSpace = PixelSpace.ORIGINAL,
    ) -> RegionSize:
        """Width, height and depth of what a box (left, top, right, bottom) of pixels shows, camera axes.

        All valid points in the box count, 2 % at each end of each axis left out: draw it tightly.

        Raises:
            InputError: no such view, a box that is empty, outside of the image or without valid points.
        """
        return measure_size(self.view_at(view), box, space, self.scale)

    def measure_points(self, point_a: Float[np.ndarray, "3"], point_b: Float[np.ndarray, "3"]) -> Measurement:
        """Straight distance between two points in world coordinates, as those of `points_world`."""
        a, b = (np.asarray(point, dtype=np.float64) for point in (point_a, point_b))
        return larger.measure_points(self.views, a, b, self.scale)

    def measure_height(self, view: int, pixel: Pixel, space: PixelSpace = PixelSpace.ORIGINAL) -> Measurement:
        """Height of a pixel's point above the floor (`floor`); else as `measure_depth`.

        Raises:
            InputError: besides, a scene that shows no floor.
        """
        self.view_at(view)
        return larger.measure_height(self.views, view, pixel, space, self.scale)

    def measure_box(
        self,
        view: int,
        box: PixelBox,
        space: PixelSpace = PixelSpace.ORIGINAL,
        axes: BoxAxes = BoxAxes.UPRIGHT,
    ) -> BoxSize:
        """Box around what a rectangle of pixels shows; arguments and errors as in `measure_size`."""
        self.view_at(view)
        return larger.measure_box(self.views, view, box, space, self.scale, axes)

    def measure_area(self, view: int, pixel: Pixel, space: PixelSpace = PixelSpace.ORIGINAL) -> Area:
        """Area of the flat surface around a pixel, as far as this view shows it; else as `measure_depth`.

        Raises:
            InputError: besides, a pixel whose surroundings are not flat.
        """
        self.view_at(view)
        return larger.measure_area(self.views, view, pixel, space, self.scale)

    def floor(self) -> Floor | None:
        """The floor, where the scene shows one: see `measuring.floor.find_floor`."""
        return find_floor(self.views)

    def view_at(self, index: int) -> View:
        """The view of a number from 0.

        Raises:
            InputError: no such view.
        """
        if not 0 <= index < len(self.views):
            raise InputError(f"Expected a view from 0 to {len(self.views) - 1}, got {index}.")
        return self.views[index]

    def calibrated(self, known: "KnownThings") -> "Calibration":
        """The scene in metres, or with known cameras, and a report of how well it agrees with what is known.

        Args:
            known: lengths, depth maps, poses, positions, intrinsics; the most trusted fixes the metre.

        Raises:
            InputError: what is known cannot fix what it should; the message says what would help.
        """
        from g2vlm.scene.metre.calibration import calibrate

        return calibrate(self, known)

    def with_known_distance(
        self, view_a: int, pixel_a: Pixel, view_b: int, pixel_b: Pixel, metres: int | float
    ) -> "Scene":
        """The scene in metres, from the true distance between two pixels of the original photos.

        For several distances, or other known things and a report, use `calibrated`.
        """
        from g2vlm.scene.metre.calibration import KnownThings
        from g2vlm.scene.metre.lengths import KnownDistance

        known = KnownThings(distances=(KnownDistance(view_a, pixel_a, view_b, pixel_b, metres),))
        return self.calibrated(known).scene

    def plot(self) -> "Figure":
        """A sheet of photos, depth, confidence, and the cameras from above, for notebooks and reports.

        Returns:
            A figure of matplotlib: `scene.plot().savefig("room.png")`.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from g2vlm.scene.plotting import plot_scene

        return plot_scene(self)

    def save(
        self,
        path: str | os.PathLike[str],
        options: SaveOptions = SaveOptions(),
        on_progress: Progress = no_progress,
    ) -> Path:
        """Write the scene, completely or not at all; missing folders are created. The scene stays as it is.

        Args:
            path: its ending chooses the format: `.npz` keeps everything, `.ply` and `.glb` are to look at.
                `KIND:PATH` names a format (`"colmap:room"`), and `formats.FORMATS` lists them all.
            options: choices about the files; each format heeds those that concern it.
            on_progress: called with (steps done, steps in all) where a format has several.

        Returns:
            The file or folder written.

        Raises:
            OutputError: no such format, a place that cannot be written, or nothing to write.
            MissingExtraError: the format needs an optional dependency.
        """
        target = find_target(path)
        target.write(self, options, on_progress)
        return target.path


def _split_similarity(matrix: np.ndarray) -> tuple[float, Float64[np.ndarray, "4 4"]]:
    """Scale and rigid part: the transform is the rigid one after scaling by the first."""
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"Expected a finite 4x4 transform, got shape {matrix.shape}.")
    factor = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    rigid = matrix.copy()
    if factor > 0:
        rigid[:3, :3] /= factor
    R = rigid[:3, :3]
    is_rotation = factor > 0 and np.abs(R @ R.T - np.eye(3)).max() < _RIGID_TOLERANCE
    if not is_rotation or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise InputError(
            "Expected a 4x4 transform of a rotation, a positive scale and a shift, with last row 0 0 0 1, "
            f"got {matrix.tolist()}."
        )
    return factor, rigid


def _moved(view: View, factor: float, T_rigid: np.ndarray) -> View:
    T_world_camera = view.T_world_camera.astype(np.float64)
    T_world_camera[:3, 3] *= factor
    points = view.points_camera if factor == 1 else view.points_camera * np.float32(factor)
    return replace(view, points_camera=points, T_world_camera=(T_rigid @ T_world_camera).astype(np.float32))


def _gather(views: tuple[View, ...], field: Callable[[View], np.ndarray]) -> np.ndarray:
    return np.concatenate([field(view)[view.valid] for view in views])


def _normals_world(view: View) -> np.ndarray:
    return view_normals(view) @ view.T_world_camera[:3, :3].T
