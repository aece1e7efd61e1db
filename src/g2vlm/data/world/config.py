"""How varied the synthetic world is: the knobs of a curriculum."""

from dataclasses import dataclass
from enum import Enum

from g2vlm.errors import InputError

Interval = tuple[float, float]


@dataclass(frozen=True)
class WorldConfig:
    """Ranges that scenes and cameras are drawn from (uniformly, ends included)."""

    room_width_m: Interval = (3.2, 7.0)
    """Extent of the room along x."""

    room_length_m: Interval = (3.2, 7.0)
    """Extent of the room along z."""

    room_height_m: Interval = (2.3, 3.2)
    """Floor to ceiling."""

    num_furniture: tuple[int, int] = (4, 8)
    """Pieces of furniture tried; those that find no free place are left out."""

    num_small: tuple[int, int] = (3, 7)
    """Small objects put on the floor, on tables and on shelves."""

    num_decor: tuple[int, int] = (3, 7)
    """Posters, windows, doors and rugs tried."""

    object_scale: Interval = (0.8, 1.25)
    """Factor on the usual size of every object."""

    texture_scale: Interval = (0.6, 1.7)
    """Factor on the usual size of texture features; (1, 1) makes textures a metric cue."""

    texture_contrast: Interval = (0.5, 1.0)
    """How strongly textures modulate the base colour."""

    fov_rad: Interval = (0.85, 1.5)
    """Horizontal field of view, one per scene."""

    camera_height_m: Interval = (0.8, 1.9)
    """Height of the camera above the floor."""

    pitch_jitter_rad: float = 0.12
    """Largest extra pitch away from looking at the target."""

    yaw_jitter_rad: float = 0.15
    """Largest extra heading away from looking at the target."""

    roll_rad: float = 0.1
    """Largest roll of the camera."""

    step_rad: Interval = (0.12, 0.6)
    """Angle between neighbouring views, seen from the target they share (orbits)."""

    step_m: Interval = (0.15, 0.7)
    """Distance between neighbouring views (walks and pairs)."""

    spread_rad: float = 1.5
    """Largest angle between the first and the last view of a sample, however many views it has."""

    exposure: Interval = (0.7, 1.35)
    """Gain of the whole scene before the tone curve."""

    shadow_rays: int = 0
    """Rays per pixel and lamp towards points on the lamp: 0 no shadows, 1 hard ones, 8 soft ones (slow)."""

    turning_share: float = 0.0
    """Share of the paths that turn about nearly one place, as somebody who looks around."""

    is_photographic: bool = False
    """Rooms of `g2vlm.data.world.photo`: photographic textures, meshes, light and cameras with faults."""

    fine_detail: bool = False
    """Add a layer of millimetre texture, which only shows at several hundred pixels."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, tuple) and (value[0] > value[1] or value[0] <= 0):
                raise InputError(
                    f"Expected {name} to be a range (low, high) with 0 < low <= high, got {value}."
                )
        if self.room_height_m[0] < self.camera_height_m[1] + 0.3:
            raise InputError(
                f"Expected cameras to stay 0.3 m below the lowest ceiling, got heights up to "
                f"{self.camera_height_m[1]} m under {self.room_height_m[0]} m: lower camera_height_m."
            )


def easy_world() -> WorldConfig:
    """First part of a curriculum: one field of view, textures of known size, small baselines, no roll."""
    return WorldConfig(
        room_width_m=(4.0, 5.5),
        room_length_m=(4.0, 5.5),
        room_height_m=(2.5, 2.7),
        object_scale=(0.95, 1.05),
        texture_scale=(1.0, 1.0),
        texture_contrast=(0.7, 1.0),
        fov_rad=(1.15, 1.15),
        camera_height_m=(1.3, 1.6),
        pitch_jitter_rad=0.06,
        yaw_jitter_rad=0.1,
        roll_rad=0.0,
        step_rad=(0.08, 0.3),
        step_m=(0.1, 0.4),
        spread_rad=0.7,
        exposure=(0.95, 1.05),
    )


def full_world() -> WorldConfig:
    """The whole variation; validation and test figures are reported on it."""
    return WorldConfig()


def photo_world() -> WorldConfig:
    """Places that look like photographs, seen by cameras as people, heads and robots carry them."""
    return WorldConfig(
        room_width_m=(2.6, 7.0),
        room_length_m=(2.8, 8.0),
        room_height_m=(2.3, 3.4),
        num_furniture=(3, 10),
        num_small=(3, 14),
        num_decor=(1, 6),
        fov_rad=(0.78, 1.75),
        camera_height_m=(0.45, 1.9),
        pitch_jitter_rad=0.3,
        yaw_jitter_rad=0.25,
        roll_rad=0.22,
        step_rad=(0.05, 0.5),
        step_m=(0.06, 0.6),
        spread_rad=1.3,
        turning_share=0.15,
        is_photographic=True,
    )


class World(Enum):
    """Which variation the rooms are drawn from."""

    EASY = "easy"
    """The first part of the curriculum: one field of view, small baselines, no roll."""
    FULL = "full"
    """The whole variation; figures are reported on it."""
    PHOTO = "photo"
    """Rooms, halls, corridors and yards that look like photographs, made of what `scripts/collect_assets.py`
    fetches."""

    @property
    def config(self) -> WorldConfig:
        """The ranges."""
        return {World.EASY: easy_world, World.FULL: full_world, World.PHOTO: photo_world}[self]()
