"""A walk through a known room as an imperfect network would reconstruct it, to test what stitches pieces.

The room is a hall with a block in it that is not in the middle; the path goes around the block, a little more
than once, so that its end sees again what its beginning saw. Depth is exact ray casting; the stand-in for the
network then spoils it as networks do: every piece in an arbitrary frame and unit, drift of heading and scale
along the frames, noise on every pixel, outliers, and places that merely look alike taken for the same.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, Float64
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import GeometricImages
from g2vlm.scene.view import View
from g2vlm.video.reconstructor import Reconstruction

_HALL = np.array([[-10.0, -1.6, -7.0], [10.0, 1.4, 7.0]])
_BLOCK = np.array([[-6.5, -1.6, -2.5], [5.0, 1.4, 3.0]])
_PATH_HALF = (8.0, 5.0)
_CORNER_M = 2.0
_LAP_M = 4 * (_PATH_HALF[0] + _PATH_HALF[1]) - (8 - 2 * math.pi) * _CORNER_M
_FOV_RAD = math.radians(80)
_FEATURES = 256
_SEES_AGAIN_M, _SEES_AGAIN_RAD = 3.0, math.radians(60)


@dataclass(frozen=True)
class WalkOptions:
    """How long the walk is and how badly it is reconstructed."""

    num_frames: int = 400
    """Frames of the walk."""
    laps: float = 1.06
    """Times around the block."""
    height: int = 24
    """Rows of a frame, in pixels."""
    width: int = 32
    """Columns of a frame, in pixels."""
    heading_bias_rad: float = math.radians(0.1)
    """Error of the heading from frame to frame, always to the same side."""
    heading_noise_rad: float = math.radians(0.1)
    """Random part of it, about every axis."""
    scale_drift: float = 0.003
    """Random relative change of the unit from frame to frame."""
    depth_noise: float = 0.02
    """Relative noise of every pixel's depth."""
    outlier_share: float = 0.03
    """Pixels whose depth is off by up to half, some of them with high confidence."""
    look_alikes: bool = True
    """Whether opposite sides of the block share a stretch that looks the same."""
    seed: int = 0
    """Of all noise."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or min(self.height, self.width) < 4 or self.laps <= 0:
            raise InputError(f"Expected frames of at least 4x4 pixels and a path, got {self}.")


@dataclass(frozen=True)
class SimulatedWalk:
    """The true walk, its frames, and a stand-in for the network (call it as a `Reconstructor`)."""

    options: WalkOptions

    @cached_property
    def T_world_camera(self) -> Float64[np.ndarray, "frames 4 4"]:  # noqa: N802
        """True poses, metres; the world's y points down."""
        options = self.options
        along = np.linspace(0, options.laps * _LAP_M, options.num_frames)
        position, heading = _around_the_block(along)
        sway = 0.25 * np.sin(along / 3.1)
        poses = np.tile(np.eye(4), (options.num_frames, 1, 1))
        poses[:, :3, :3] = _rotation_about_y(heading + sway)
        poses[:, 0, 3], poses[:, 2, 3] = position[:, 0], position[:, 1]
        poses[:, 1, 3] = 0.05 * np.sin(along * 1.7)
        return poses

    @property
    def length_m(self) -> float:
        """Length of the true path."""
        return float(np.linalg.norm(np.diff(self.T_world_camera[:, :3, 3], axis=0), axis=1).sum())

    @property
    def K(self) -> Float64[np.ndarray, "3 3"]:  # noqa: N802  K is the name in the field
        """Intrinsics of every frame."""
        height, width = self.options.height, self.options.width
        focal = width / 2 / math.tan(_FOV_RAD / 2)
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])

    def frames(self) -> Iterator[Photo]:
        """Pictures of the walk, named by their number."""
        for number in range(self.options.num_frames):
            yield Photo(Image.fromarray(self._picture(number)), f"{number:07d}", number / 10)

    def true_points(self, number: int) -> Float64[np.ndarray, "height width 3"]:
        """Exact camera points of a frame."""
        T = self.T_world_camera[number]
        height, width = self.options.height, self.options.width
        v, u = np.mgrid[:height, :width]
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(self.K).T
        return rays * _first_hit(T[:3, 3], rays @ T[:3, :3].T)[..., None]

    def __call__(self, photos: tuple[Photo, ...], images: GeometricImages) -> Reconstruction:
        """Reconstruct frames as a network would: the same frames always give the same errors."""
        numbers = [int(photo.name) for photo in photos]
        rng = np.random.default_rng([self.options.seed, zlib.crc32(repr(numbers).encode())])
        poses, units = self._drifted(numbers, rng)
        gauge_unit = math.exp(rng.uniform(-1, 1))
        gauge = np.eye(4)
        gauge[:3, :3] = _rotation(rng.normal(size=3))
        gauge[:3, 3] = rng.normal(size=3) * 5
        views = []
        for index, photo in enumerate(photos):
            poses[index][:3, 3] *= gauge_unit
            pose = (gauge @ poses[index]).astype(np.float32)
            views.append(self._view(photo, images, index, pose, units[index] * gauge_unit, rng))
        return Reconstruction(tuple(views), self.descriptors(numbers))

    def _view(
        self,
        photo: Photo,
        images: GeometricImages,
        index: int,
        pose: np.ndarray,
        unit: float,
        rng: np.random.Generator,
    ) -> View:
        shape = (self.options.height, self.options.width)
        factor = 1 + self.options.depth_noise * rng.normal(size=shape)
        outlier = rng.random(shape) < self.options.outlier_share
        factor[outlier] *= rng.uniform(0.5, 1.5, size=int(outlier.sum()))
        confidence = np.where(outlier & (rng.random(shape) < 0.7), 0.1, 0.8)
        points = self.true_points(int(photo.name)) * (unit * factor)[..., None]
        return View(
            name=photo.name,
            rgb=np.asarray(photo.image),
            points_camera=points.astype(np.float32),
            T_world_camera=pose,
            K=self.K.astype(np.float32),
            confidence=confidence.astype(np.float32),
            valid=np.ones(shape, dtype=bool),
            original_size=images.original_sizes[index],
            T_model_original=images.T_model_original[index].numpy(),
            time_s=photo.time_s,
        )

    def _drifted(self, numbers: list[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Poses and units of frames, relative to the first one, with the errors that add up along them."""
        options, true = self.options, self.T_world_camera
        poses, units = [np.eye(4)], [1.0]
        for before, number in pairwise(numbers):
            step = np.linalg.inv(true[before]) @ true[number]
            if abs(number - before) > 1 and not self._sees_again(before, number):
                # Nothing in common, but it looks alike: taken for the same place.
                step = np.eye(4)
                step[:3, 3] = rng.normal(size=3) * 0.3
            turn = options.heading_noise_rad * rng.normal(size=3)
            turn[1] += options.heading_bias_rad
            step[:3, :3] = step[:3, :3] @ _rotation(turn)
            step[:3, 3] *= units[-1]
            poses.append(poses[-1] @ step)
            units.append(units[-1] * math.exp(options.scale_drift * rng.normal()))
        return np.stack(poses), np.array(units)

    def _sees_again(self, first: int, second: int) -> bool:
        relative = np.linalg.inv(self.T_world_camera[first]) @ self.T_world_camera[second]
        angle = math.acos(np.clip((np.trace(relative[:3, :3]) - 1) / 2, -1, 1))
        return bool(np.linalg.norm(relative[:3, 3]) < _SEES_AGAIN_M and angle < _SEES_AGAIN_RAD)

    def descriptors(self, numbers: list[int]) -> Float32[np.ndarray, "frames channels"]:
        """What frames look like: alike where place and direction are, as far as they tell places apart."""
        T = self.T_world_camera[numbers]
        heading = np.arctan2(T[:, 0, 2], T[:, 2, 2])
        place = np.stack([T[:, 0, 3], T[:, 2, 3], 4 * np.cos(heading), 4 * np.sin(heading)], axis=1)
        if self.options.look_alikes:
            # One corridor looks like the opposite one for a few metres.
            alike = (np.abs(place[:, 0]) < 2.5) & (place[:, 1] < 0)
            place[alike] *= -1
        rng = np.random.default_rng(self.options.seed)
        waves, phase = rng.normal(size=(4, _FEATURES)) / 3, rng.uniform(0, 2 * math.pi, _FEATURES)
        noise = np.random.default_rng([self.options.seed, *numbers]).normal(size=(len(numbers), _FEATURES))
        # A large part that all frames share, as in the tokens of real encoders.
        return (5 + np.cos(place @ waves + phase) + 0.1 * noise).astype(np.float32)

    def _picture(self, number: int) -> np.ndarray:
        T = self.T_world_camera[number]
        points = self.true_points(number) @ T[:3, :3].T + T[:3, 3]
        waves = np.array([[2.1, 0.3, 0.4], [0.2, 1.7, 1.9], [1.3, 1.1, 2.3]])
        return (127.5 + 120 * np.sin(points @ waves.T)).astype(np.uint8)


def _around_the_block(along: Float[np.ndarray, " frames"]) -> tuple[np.ndarray, np.ndarray]:
    """Position (x, z) and heading after so many metres on a rectangle with round corners."""
    half_x, half_z = _PATH_HALF
    straight = {True: 2 * (half_x - _CORNER_M), False: 2 * (half_z - _CORNER_M)}
    corner = _CORNER_M * math.pi / 2
    position, heading = np.empty((len(along), 2)), np.empty(len(along))
    for index, rest in enumerate(np.mod(along, _LAP_M)):
        # Start on the lower side going along +x; heading is measured from +z towards +x.
        x, z, angle, is_long = -(half_x - _CORNER_M), -half_z, math.pi / 2, True
        left = float(rest)
        while left > straight[is_long] + corner:
            x, z = x + straight[is_long] * math.sin(angle), z + straight[is_long] * math.cos(angle)
            x, z, angle = _turned(x, z, angle, math.pi / 2)
            left -= straight[is_long] + corner
            is_long = not is_long
        ahead = min(left, straight[is_long])
        x, z = x + ahead * math.sin(angle), z + ahead * math.cos(angle)
        x, z, angle = _turned(x, z, angle, (left - ahead) / _CORNER_M)
        position[index], heading[index] = (x, z), angle
    return position, heading


def _turned(x: float, z: float, angle: float, turn: float) -> tuple[float, float, float]:
    """Follow a left turn of the corner's radius."""
    centre_x, centre_z = x - _CORNER_M * math.cos(angle), z + _CORNER_M * math.sin(angle)
    angle -= turn
    return centre_x + _CORNER_M * math.cos(angle), centre_z - _CORNER_M * math.sin(angle), angle


def _rotation_about_y(angle: Float[np.ndarray, " frames"]) -> np.ndarray:
    R = np.zeros((len(angle), 3, 3))
    R[:, 0, 0] = R[:, 2, 2] = np.cos(angle)
    R[:, 0, 2], R[:, 2, 0], R[:, 1, 1] = np.sin(angle), -np.sin(angle), 1
    return R


def _rotation(axis_angle: Float[np.ndarray, "3"]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    matrix: np.ndarray = Rotation.from_rotvec(axis_angle).as_matrix()
    return matrix


def _first_hit(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Distance in multiples of each ray to the hall's inside or the block's outside."""
    slope = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    hall = np.maximum(*((wall - origin) / slope for wall in _HALL)).min(axis=-1)
    low, high = ((wall - origin) / slope for wall in _BLOCK)
    enter, leave = np.minimum(low, high).max(axis=-1), np.maximum(low, high).min(axis=-1)
    distance: np.ndarray = np.where((enter < leave) & (enter > 0), np.minimum(enter, hall), hall)
    return distance
