"""A sparse model as COLMAP keeps it. Pixels here have their centres at halves, as COLMAP counts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from g2vlm.export.conventions import project


@dataclass(frozen=True)
class SparseCamera:
    """A pinhole camera (COLMAP's PINHOLE)."""

    camera_id: int
    """From 1."""
    width: int
    """Pixels of the original photo."""
    height: int
    """Pixels of the original photo."""
    focal_px: tuple[float, float]
    """fx, fy."""
    centre_px: tuple[float, float]
    """cx, cy, pixel centres at halves."""

    def K(self) -> Float64[np.ndarray, "3 3"]:  # noqa: N802  K is the name in the field
        """Intrinsics for pixel centres at halves."""
        (fx, fy), (cx, cy) = self.focal_px, self.centre_px
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class SparseImage:
    """A photo: its camera, its pose, and where it sees points."""

    image_id: int
    """From 1."""
    camera_id: int
    name: str
    """File name below the image folder, without white space."""
    quaternion: Float64[np.ndarray, "4"]
    """Rotation from world to camera: w, x, y, z."""
    translation: Float64[np.ndarray, "3"]
    """From world to camera."""
    pixels: Float64[np.ndarray, "observations 2"]
    """x, y of each observation."""
    point_ids: Int64[np.ndarray, " observations"]
    """The point that each observation belongs to."""

    def T_camera_world(self) -> Float64[np.ndarray, "4 4"]:  # noqa: N802
        """Pose as a matrix."""
        from scipy.spatial.transform import Rotation

        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_quat(self.quaternion, scalar_first=True).as_matrix()
        pose[:3, 3] = self.translation
        return pose


@dataclass(frozen=True, eq=False)
class SparsePoints:
    """Points and their tracks; the id of a point is its place + 1."""

    xyz: Float64[np.ndarray, "points 3"]
    """World coordinates."""
    rgb: UInt8[np.ndarray, "points 3"]
    error_px: Float64[np.ndarray, " points"]
    """Mean distance between observations and projections; 0 without any."""
    track_start: Int64[np.ndarray, " bounds"]
    """Place of the first observation of each point in the two arrays below; last, their length."""
    track_image: Int32[np.ndarray, " observations"]
    """Image id of each observation."""
    track_place: Int32[np.ndarray, " observations"]
    """Its place among the observations of that image."""

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True, eq=False)
class SparseModel:
    """Cameras, images, points."""

    cameras: tuple[SparseCamera, ...]
    images: tuple[SparseImage, ...]
    points: SparsePoints


@dataclass(frozen=True, eq=False)
class Observations:
    """Which view sees which point where."""

    point: Int64[np.ndarray, " observations"]
    """Place of the point."""
    view: Int64[np.ndarray, " observations"]
    """Place of the view."""
    pixel: Float64[np.ndarray, "observations 2"]
    """(u, v) in the original photo, pixel centres at integers."""


def build_model(
    cameras: tuple[SparseCamera, ...],
    images: tuple[SparseImage, ...],
    xyz: Float64[np.ndarray, "points 3"],
    rgb: UInt8[np.ndarray, "points 3"],
    seen: Observations,
) -> SparseModel:
    """Put a model together from views without observations, points, and who sees what.

    Args:
        cameras: of the images.
        images: in the order of the views that `seen` counts; their own observations are ignored.
        xyz: points in the world.
        rgb: their colours.
        seen: two or more observations of each point, or none.
    """
    order = np.lexsort((seen.view, seen.point))
    point, view, pixel = seen.point[order], seen.view[order], seen.pixel[order] + 0.5
    by_id = {camera.camera_id: camera for camera in cameras}
    place = np.empty(len(point), dtype=np.int32)
    error = np.empty(len(point))
    full = []
    for index, image in enumerate(images):
        mine = np.flatnonzero(view == index)
        place[mine] = np.arange(len(mine))
        projected, _ = project(xyz[point[mine]], image.T_camera_world(), by_id[image.camera_id].K())
        error[mine] = np.linalg.norm(projected - pixel[mine], axis=1)
        full.append(
            SparseImage(
                image_id=image.image_id,
                camera_id=image.camera_id,
                name=image.name,
                quaternion=image.quaternion,
                translation=image.translation,
                pixels=pixel[mine],
                point_ids=point[mine] + 1,
            )
        )
    start = np.searchsorted(point, np.arange(len(xyz) + 1))
    ids = np.array([image.image_id for image in images], dtype=np.int32)
    points = SparsePoints(
        xyz=xyz,
        rgb=rgb,
        error_px=np.bincount(point, weights=error, minlength=len(xyz)) / np.maximum(np.diff(start), 1),
        track_start=start.astype(np.int64),
        track_image=ids[view],
        track_place=place,
    )
    return SparseModel(cameras, tuple(full), points)
