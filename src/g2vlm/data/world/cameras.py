"""Camera paths through a room: neighbouring views share what they look at, and nothing blocks the lens."""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from g2vlm.data.world.config import WorldConfig
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.layout import Room
from g2vlm.errors import InputError

CAMERA_STREAM = 1
_CLEARANCE_M = 0.25
_LOOKOUT_M = 0.7
_TRIES = 24
_RETRIES = 6


class PathKind(Enum):
    """How the cameras of one sample move."""

    ORBIT = "orbit"
    """Around a target in the room, which stays in view."""
    WALK = "walk"
    """Along a line, looking roughly the same way."""
    PAIR = "pair"
    """Scattered positions that look at the same target."""
    TURN = "turn"
    """About nearly one place, as somebody who looks around."""


_KINDS = (PathKind.ORBIT, PathKind.ORBIT, PathKind.WALK, PathKind.PAIR)


@dataclass(frozen=True)
class CameraPath:
    """The cameras of one sample."""

    kind: PathKind
    T_world_camera: Float64[ndarray, "views 4 4"]


@dataclass(frozen=True)
class _Obstacles:
    """Boxes along the world axes that enclose the parts of a room, grown by the clearance."""

    low: Float64[ndarray, "parts 3"]
    high: Float64[ndarray, "parts 3"]
    limit: Float64[ndarray, " 3"]
    room_height: float

    def blocked(self, position: Float64[ndarray, "n 3"], forward: Float64[ndarray, "n 3"]) -> ndarray:
        """Which cameras stand in something, leave the room, or look at something very close."""
        outside = (np.abs(position[:, [0, 2]]) > self.limit[[0, 2]]).any(axis=1)
        within = (position[:, None] > self.low) & (position[:, None] < self.high)
        inside = np.any(np.all(within, axis=2), axis=1)
        slope = np.where(np.abs(forward) < 1e-9, 1e-9, forward)
        first = (self.low - position[:, None]) / slope[:, None]
        second = (self.high - position[:, None]) / slope[:, None]
        enter = np.minimum(first, second).max(axis=2)
        leave = np.maximum(first, second).min(axis=2)
        close = ((enter < leave) & (leave > 0) & (enter < _LOOKOUT_M)).any(axis=1)
        wall = ((np.sign(slope) * self.limit - position) / slope)[:, [0, 2]].min(axis=1)
        return outside | inside | close | (wall < 2.0 * _LOOKOUT_M)


def _obstacles(room: Room) -> _Obstacles:
    cos, sin = np.abs(np.cos(room.yaw)), np.abs(np.sin(room.yaw))
    half = room.half.astype(np.float64)
    reach = np.stack(
        [cos * half[:, 0] + sin * half[:, 2], half[:, 1], sin * half[:, 0] + cos * half[:, 2]], axis=1
    )
    limit = np.asarray(room.size_m) / 2 - _CLEARANCE_M
    return _Obstacles(
        room.centre - reach - _CLEARANCE_M, room.centre + reach + _CLEARANCE_M, limit, room.size_m[1]
    )


def look_at(
    position: Float[ndarray, " 3"], forward: Float[ndarray, " 3"], roll_rad: float = 0.0
) -> Float64[ndarray, "4 4"]:
    """Camera-to-world pose of a camera that looks along `forward` with the world's down (y) below.

    Args:
        position: camera centre, world frame, metres.
        forward: viewing direction, any length, not vertical.
        roll_rad: turn about the viewing direction.
    """
    z = np.asarray(forward, dtype=np.float64)
    z = z / np.linalg.norm(z)
    x = np.array([z[2], 0.0, -z[0]])
    x = x / np.linalg.norm(x)
    y = np.cross(z, x)
    cos, sin = math.cos(roll_rad), math.sin(roll_rad)
    T_world_camera = np.eye(4)
    T_world_camera[:3, 0] = cos * x + sin * y
    T_world_camera[:3, 1] = cos * y - sin * x
    T_world_camera[:3, 2] = z
    T_world_camera[:3, 3] = position
    return T_world_camera


class _Walker:
    """Draws the views of one path; lives only inside `make_path`."""

    def __init__(self, room: Room, config: WorldConfig, draws: Draws) -> None:
        self.room, self.config, self.draws = room, config, draws
        self.obstacles = _obstacles(room)
        self.height = draws.uniform(config.camera_height_m)
        self.roll = draws.symmetric(config.roll_rad) if config.roll_rad else 0.0

    def target(self) -> Float64[ndarray, " 3"]:
        """A point worth looking at: the middle of some object, or a point near the middle of the room."""
        draws, width, length = self.draws, self.room.size_m[0], self.room.size_m[2]
        if self.room.objects and draws.chance(0.75):
            centre = np.asarray(draws.choice(self.room.objects).centre_m)
            # Pulled up a little, so that floors do not fill the picture.
            return np.array([centre[0], min(centre[1], -0.3) * 0.7 - 0.35, centre[2]])
        return np.array(
            [draws.symmetric(width * 0.3), -0.6 - 0.6 * draws.unit(), draws.symmetric(length * 0.3)]
        )

    def aimed(self, position: Float64[ndarray, "n 3"], target: Float64[ndarray, "n 3"]) -> ndarray:
        """Viewing directions towards the target with the jitter of the configuration."""
        draws, config = self.draws, self.config
        away = target - position
        heading = np.arctan2(away[:, 0], away[:, 2])
        pitch = np.arctan2(away[:, 1], np.hypot(away[:, 0], away[:, 2]))
        jitter = np.array([[draws.symmetric(1.0), draws.symmetric(1.0)] for _ in range(len(away))])
        heading = heading + jitter[:, 0] * config.yaw_jitter_rad
        pitch = np.clip(pitch, -0.35, 0.6) + jitter[:, 1] * config.pitch_jitter_rad
        return np.stack(
            [np.sin(heading) * np.cos(pitch), np.sin(pitch), np.cos(heading) * np.cos(pitch)], axis=1
        )

    def first_free(
        self, position: Float64[ndarray, "n 3"], forward: Float64[ndarray, "n 3"]
    ) -> Float64[ndarray, "4 4"] | None:
        """Pose of the first candidate with a free view."""
        free = np.nonzero(~self.obstacles.blocked(position, forward))[0]
        if not len(free):
            return None
        roll = self.roll + (self.draws.symmetric(self.config.roll_rad * 0.5) if self.config.roll_rad else 0.0)
        return look_at(position[free[0]], forward[free[0]], roll)

    def near(
        self, centre: Float64[ndarray, "n 3"], target: Float64[ndarray, "n 3"], scatter_m: float
    ) -> Float64[ndarray, "4 4"] | None:
        """A free view near one of the candidate positions, looking at the target."""
        noise = np.array([[self.draws.symmetric(scatter_m) for _ in range(3)] for _ in range(len(centre))])
        noise[:, 1] *= 0.3
        position = centre + noise
        return self.first_free(position, self.aimed(position, target))

    def anywhere(self, target: Float64[ndarray, " 3"]) -> Float64[ndarray, "4 4"] | None:
        """A free view of the target from a distance of a metre or more."""
        limit, draws = self.obstacles.limit, self.draws
        position = np.array(
            [[draws.symmetric(limit[0]), -self.height, draws.symmetric(limit[2])] for _ in range(_TRIES)]
        )
        apart = np.hypot(position[:, 0] - target[0], position[:, 2] - target[2])
        # Distant places come first, mostly: they show more of the room.
        rank = apart * [0.4 + draws.unit() for _ in range(_TRIES)]
        order = np.argsort(-rank)
        position = position[order[apart[order] > 1.2]]
        if not len(position):
            return None
        return self.first_free(position, self.aimed(position, np.broadcast_to(target, position.shape)))

    def orbit(self, num_views: int) -> list[ndarray] | None:
        """Views around a target."""
        draws, target = self.draws, self.target()
        first = self.anywhere(target)
        if first is None:
            return None
        away = first[:3, 3] - target
        angle, radius = math.atan2(away[0], away[2]), math.hypot(away[0], away[2])
        step = draws.uniform(self.config.step_rad) * (1.0 if draws.chance(0.5) else -1.0)
        step *= min(1.0, self.config.spread_rad / max(abs(step) * (num_views - 1), 1e-9))
        poses = [first]
        for k in range(1, num_views):
            turn = angle + step * k
            # Nearer rings come later: where a wall is in the way, the camera steps towards the target.
            rings = np.array([radius * factor for factor in (1.0, 0.95, 1.06, 0.88, 0.8, 1.15, 0.7, 0.6)])
            position = np.stack(
                [
                    target[0] + rings * math.sin(turn),
                    np.full(len(rings), -self.height),
                    target[2] + rings * math.cos(turn),
                ],
                axis=1,
            )
            pose = self.near(position, np.broadcast_to(target, position.shape), 0.06)
            if pose is None:
                return None
            poses.append(pose)
        return poses

    def walk(self, num_views: int) -> list[ndarray] | None:
        """Views along a straight line, the heading changing slowly."""
        draws, target = self.draws, self.target()
        first = self.anywhere(target)
        if first is None:
            return None
        forward = first[:3, 2]
        bend = draws.symmetric(1.3)
        cos, sin = math.cos(bend), math.sin(bend)
        course = np.array([cos * forward[0] + sin * forward[2], 0.0, cos * forward[2] - sin * forward[0]])
        course /= np.linalg.norm(course)
        step = draws.uniform(self.config.step_m)
        sway = draws.symmetric(self.config.step_rad[1] * 0.5)
        poses = [first]
        for k in range(1, num_views):
            # Walls end walks: the whole path is then tried again elsewhere.
            position = first[:3, 3] + course * step * k
            turn = math.atan2(forward[0], forward[2]) + np.clip(sway * k, -0.5, 0.5) * self.config.spread_rad
            ahead = position + np.array([math.sin(turn), forward[1], math.cos(turn)]) * 3.0
            centre = np.broadcast_to(position, (6, 3))
            pose = self.near(centre, np.broadcast_to(ahead, (6, 3)), 0.05)
            if pose is None:
                return None
            poses.append(pose)
        return poses

    def pair(self, num_views: int) -> list[ndarray] | None:
        """Scattered views of one target, each within the spread of the first one."""
        draws, target = self.draws, self.target()
        first = self.anywhere(target)
        if first is None:
            return None
        away = first[:3, 3] - target
        angle, radius = math.atan2(away[0], away[2]), math.hypot(away[0], away[2])
        poses = [first]
        for _ in range(1, num_views):
            limit = min(self.config.step_rad[1] * 1.5, self.config.spread_rad / 2)
            position = np.array(
                [
                    [target[0] + r * math.sin(a), -self.height, target[2] + r * math.cos(a)]
                    for a, r in (
                        (angle + draws.symmetric(limit), radius * (0.65 + 0.6 * draws.unit()))
                        for _ in range(8)
                    )
                ]
            )
            pose = self.near(position, np.broadcast_to(target, position.shape), self.config.step_m[1] * 0.3)
            if pose is None:
                return None
            poses.append(pose)
        return poses

    def turn(self, num_views: int) -> list[ndarray] | None:
        """Views from nearly one place in directions that overlap."""
        draws, target = self.draws, self.target()
        first = self.anywhere(target)
        if first is None:
            return None
        forward = first[:3, 2]
        heading = math.atan2(forward[0], forward[2])
        reach = draws.uniform((0.005, 0.1))
        limit = self.room.fov_rad * draws.uniform((0.2, 0.55)) * min(1.0, 2.0 / max(num_views - 1, 1))
        sweep = draws.choice((-1.0, 1.0)) * limit
        poses = [first]
        for k in range(1, num_views):
            position = first[:3, 3] + np.array([draws.symmetric(reach) for _ in range(3)])
            turn, pitch = heading + sweep * k, forward[1] + draws.symmetric(0.25)
            aim = np.array([math.sin(turn), np.clip(pitch, -0.6, 0.7), math.cos(turn)])
            poses.append(look_at(position, aim, self.roll + draws.symmetric(self.config.roll_rad)))
        return poses

    def huddle(self, num_views: int) -> list[ndarray]:
        """Views close together: the way out in rooms too crowded for any longer path."""
        for scatter in (0.1, 0.05, 0.02, 0.0):
            for _ in range(_TRIES):
                target = self.target()
                first = self.anywhere(target)
                if first is None:
                    self.height = self.draws.uniform(self.config.camera_height_m)
                    continue
                centre = np.broadcast_to(first[:3, 3], (8, 3))
                aim = np.broadcast_to(target, (8, 3))
                rest = [self.near(centre, aim, scatter) for _ in range(num_views - 1)]
                poses = [pose for pose in rest if pose is not None]
                if len(poses) == len(rest):
                    return [first, *poses]
        raise InputError(
            f"Found no place for a camera in the room of seed {self.room.seed}: use larger rooms, less "
            "furniture or a wider range of camera heights in the WorldConfig."
        )


def make_path(
    room: Room, config: WorldConfig, num_views: int, path: int = 0, kind: PathKind | None = None
) -> CameraPath:
    """Draws the cameras of one sample in a room.

    Args:
        room: the furnished room.
        config: the ranges to draw from.
        num_views: at least 1.
        path: number of the path in this room; different numbers give different paths.
        kind: how the cameras move; drawn at random when not given.

    Raises:
        InputError: if fewer than one view is asked for, or the room is too crowded for a camera.
    """
    if num_views < 1:
        raise InputError(f"Expected at least 1 view per sample, got {num_views}.")
    draws = Draws(room.seed, CAMERA_STREAM + path)
    walker = _Walker(room, config, draws)
    for _ in range(_RETRIES):
        chosen = kind or draws.choice(_KINDS)
        # Without turning paths nothing more is drawn: other worlds stay as they were.
        if kind is None and config.turning_share and draws.chance(config.turning_share):
            chosen = PathKind.TURN
        makers = {PathKind.ORBIT: walker.orbit, PathKind.WALK: walker.walk, PathKind.PAIR: walker.pair}
        poses = (makers | {PathKind.TURN: walker.turn})[chosen](num_views)
        if poses is not None:
            return CameraPath(chosen, np.stack(poses))
    return CameraPath(kind or PathKind.PAIR, np.stack(walker.huddle(num_views)))
