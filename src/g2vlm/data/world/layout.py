"""A furnished room as a function of its seed."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from g2vlm.data.world.config import WorldConfig
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.furniture import CATALOGUE, Blueprint, Finish, SolidPart, Support, nouns_of
from g2vlm.data.world.palette import (
    COLOURS,
    METAL,
    SKY,
    Material,
    ceiling_material,
    floor_material,
    make_material,
    object_material,
    picture_material,
    wall_material,
    wood_material,
)
from g2vlm.data.world.textures import TextureStyle

LAYOUT_STREAM = 0
_TRIES = 8
_WALL_GAP_M = 0.02
_AISLE_M = 0.08
_RUG_STEP_M = 0.006
# Heading of something whose back is against the wall at -z, +z, -x, +x.
_WALL_HEADINGS = (0.0, math.pi, math.pi / 2, -math.pi / 2)


@dataclass(frozen=True)
class SceneObject:
    """One named thing in a room, with the box that encloses it."""

    instance: int
    """Value in instance images; 0 is the room itself."""
    noun: str
    colour: str
    centre_m: tuple[float, float, float]
    """Middle of the enclosing box, world frame."""
    half_m: tuple[float, float, float]
    """Half sizes of the enclosing box along its own right, vertical and forward axes."""
    yaw_rad: float
    """Heading of the box about the vertical (world y): its forward axis is (sin, 0, cos)."""
    place: Support

    @property
    def label(self) -> str:
        """Colour and noun, such as "red chair"."""
        return f"{self.colour} {self.noun}"

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Width, height and depth."""
        return (2 * self.half_m[0], 2 * self.half_m[1], 2 * self.half_m[2])


@dataclass(frozen=True)
class Room:
    """Everything there is to render, in the world frame."""

    seed: int
    size_m: tuple[float, float, float]
    """Width (x), height (y), length (z)."""
    shape: Int64[ndarray, " parts"]
    centre: Float32[ndarray, "parts 3"]
    half: Float32[ndarray, "parts 3"]
    yaw: Float32[ndarray, " parts"]
    instance: Int64[ndarray, " parts"]
    material: Float32[ndarray, "parts columns"]
    shell_material: Float32[ndarray, "6 columns"]
    """Walls at -x, +x, ceiling, floor, walls at -z, +z."""
    lights: Float32[ndarray, "lights 6"]
    """Position and RGB intensity of each lamp."""
    ambient: Float32[ndarray, " 3"]
    exposure: float
    fov_rad: float
    objects: tuple[SceneObject, ...]

    @property
    def diagonal_m(self) -> float:
        """Length of the room's space diagonal."""
        return math.hypot(*self.size_m)


@dataclass(frozen=True)
class Spot:
    """Where an object stands: x, up, z of its origin and its heading."""

    x: float
    up: float
    z: float
    yaw: float


@dataclass(frozen=True)
class Surface:
    """A top that can carry small things: where its middle is, and its half sizes."""

    spot: Spot
    half_x: float
    half_z: float


def extent_of(parts: tuple[SolidPart, ...]) -> tuple[list[float], list[float]]:
    """Lowest and highest x, up and z of the parts of an object."""
    low = [min(part.centre[k] - part.half[k] for part in parts) for k in range(3)]
    high = [max(part.centre[k] + part.half[k] for part in parts) for k in range(3)]
    return low, high


def turned(spot: Spot, x: float, z: float) -> tuple[float, float]:
    """Plan position of a point of an object standing at `spot`."""
    cos, sin = math.cos(spot.yaw), math.sin(spot.yaw)
    return spot.x + cos * x + sin * z, spot.z - sin * x + cos * z


class RoomBuilder:
    """Fills one room with things that stand, lie and hang where they can."""

    def __init__(self, draws: Draws, config: WorldConfig) -> None:
        self.draws, self.config = draws, config
        self.width, self.length, self.height = self.extent()
        self.occupied: list[tuple[float, float, float, float]] = []
        self.hung: list[list[tuple[float, float]]] = [[], [], [], []]
        self.surfaces: list[Surface] = []
        self.taken: list[tuple[float, float, float, float]] = []
        self.rows: list[list[float]] = []
        self.materials: list[list[float]] = []
        self.objects: list[SceneObject] = []
        self.labels: set[str] = set()

    def extent(self) -> tuple[float, float, float]:
        """Width, length and height of the room."""
        draws, config = self.draws, self.config
        width, length = draws.uniform(config.room_width_m), draws.uniform(config.room_length_m)
        return width, length, draws.uniform(config.room_height_m)

    def scale(self) -> float:
        """Factor on the size of texture features."""
        return self.draws.uniform(self.config.texture_scale)

    def contrast(self) -> float:
        """Strength of a texture."""
        return self.draws.uniform(self.config.texture_contrast)

    def add(self, noun: str) -> None:
        """Draws an object and puts it where there is room, or leaves it out."""
        place, build = CATALOGUE[noun]
        blueprint = build(self.draws, self.draws.uniform(self.config.object_scale))
        spot = self.spot(noun, place, blueprint)
        if spot is not None:
            self._commit(noun, place, blueprint, spot)

    def spot(self, noun: str, place: Support, blueprint: Blueprint) -> Spot | None:
        """A free place for a thing, which is then taken; None where the room is too full."""
        if place is Support.WALL:
            return self._against_wall(noun, blueprint)
        if place is Support.TOP:
            return self._on_top(noun, blueprint)
        if place is Support.HUNG:
            return self._on_wall(noun, blueprint)
        return self._on_floor(noun, blueprint, flat=place is Support.FLAT)

    def _free(self, x: float, z: float, half_x: float, half_z: float) -> bool:
        rect = (x - half_x, x + half_x, z - half_z, z + half_z)
        gap = _AISLE_M
        return not any(
            rect[0] < other[1] + gap
            and rect[1] > other[0] - gap
            and rect[2] < other[3] + gap
            and rect[3] > other[2] - gap
            for other in self.occupied
        )

    def _against_wall(self, noun: str, blueprint: Blueprint) -> Spot | None:
        low, high = extent_of(blueprint.parts)
        half_x = max(-low[0], high[0])
        for _ in range(_TRIES):
            wall = self.draws.integer((0, 3))
            along_x = wall < 2
            span = (self.width if along_x else self.length) / 2 - half_x - _WALL_GAP_M
            across = (self.length if along_x else self.width) / 2
            # A third of the short side stays free for people and cameras.
            if span <= 0 or high[2] - low[2] > 1.3 * across:
                continue
            slide, away = self.draws.symmetric(span), across + low[2] - _WALL_GAP_M
            sign = -1.0 if wall in (0, 2) else 1.0
            x, z = (slide, sign * away) if along_x else (sign * away, slide)
            deep = max(-low[2], high[2])
            half = (half_x, deep) if along_x else (deep, half_x)
            if self._free(x, z, *half):
                self.occupied.append((x - half[0], x + half[0], z - half[1], z + half[1]))
                return Spot(x, 0.0, z, _WALL_HEADINGS[wall])
        return None

    def _on_floor(self, noun: str, blueprint: Blueprint, *, flat: bool = False) -> Spot | None:
        low, high = extent_of(blueprint.parts)
        reach_x, reach_z = max(-low[0], high[0]), max(-low[2], high[2])
        for _ in range(_TRIES):
            yaw = self.draws.symmetric(math.pi)
            cos, sin = abs(math.cos(yaw)), abs(math.sin(yaw))
            half_x, half_z = cos * reach_x + sin * reach_z, sin * reach_x + cos * reach_z
            span_x, span_z = self.width / 2 - half_x - 0.05, self.length / 2 - half_z - 0.05
            if span_x <= 0 or span_z <= 0:
                continue
            x, z = self.draws.symmetric(span_x), self.draws.symmetric(span_z)
            if flat:
                # Rugs may overlap: each lies a little higher than the one before, never in the same plane.
                return Spot(x, _RUG_STEP_M * sum(thing.noun == noun for thing in self.objects), z, yaw)
            if self._free(x, z, half_x, half_z):
                self.occupied.append((x - half_x, x + half_x, z - half_z, z + half_z))
                return Spot(x, 0.0, z, yaw)
        return None

    def _on_top(self, noun: str, blueprint: Blueprint) -> Spot | None:
        low, high = extent_of(blueprint.parts)
        reach = max(-low[0], high[0], -low[2], high[2])
        if not self.surfaces or self.draws.chance(0.3):
            return self._on_floor(noun, blueprint)
        for _ in range(_TRIES):
            surface = self.draws.choice(self.surfaces)
            span_x, span_z = surface.half_x - reach, surface.half_z - reach
            if span_x < 0 or span_z < 0:
                continue
            x, z = turned(surface.spot, self.draws.symmetric(span_x), self.draws.symmetric(span_z))
            up = surface.spot.up
            crowded = any(
                abs(up - other[1]) < 0.1 and math.hypot(x - other[0], z - other[2]) < reach + other[3] + 0.02
                for other in self.taken
            )
            if not crowded:
                self.taken.append((x, up, z, reach))
                return Spot(x, up, z, self.draws.symmetric(math.pi))
        return None

    def _on_wall(self, noun: str, blueprint: Blueprint) -> Spot | None:
        _, high = extent_of(blueprint.parts)
        if noun == "door":
            up = 0.0
        else:
            top = self.height - 0.12 - high[1]
            up = min(1.5 + self.draws.symmetric(0.2), top)
        for _ in range(_TRIES):
            wall = self.draws.integer((0, 3))
            along_x = wall < 2
            span = (self.width if along_x else self.length) / 2 - high[0] - 0.1
            if span <= 0:
                continue
            slide = self.draws.symmetric(span)
            begin, end = slide - high[0] - 0.06, slide + high[0] + 0.06
            if any(begin < other[1] and end > other[0] for other in self.hung[wall]):
                continue
            self.hung[wall].append((begin, end))
            sign = -1.0 if wall in (0, 2) else 1.0
            across = sign * (self.length if along_x else self.width) / 2
            x, z = (slide, across) if along_x else (across, slide)
            return Spot(x, up, z, _WALL_HEADINGS[wall])
        return None

    def _commit(self, noun: str, place: Support, blueprint: Blueprint, spot: Spot) -> None:
        colour = self.draws.choice(tuple(COLOURS))
        for _ in range(3):
            if f"{colour} {noun}" not in self.labels:
                break
            colour = self.draws.choice(tuple(COLOURS))
        self.labels.add(f"{colour} {noun}")
        instance = len(self.objects) + 1
        wardrobe = self._materials(COLOURS[colour], place)
        for part in blueprint.parts:
            x, z = turned(spot, part.centre[0], part.centre[2])
            centre = (x, -(spot.up + part.centre[1]), z)
            self.rows.append([float(part.shape), *centre, *part.half, spot.yaw, float(instance)])
            self.materials.append(wardrobe[part.finish].row())
        low, high = extent_of(blueprint.parts)
        x, z = turned(spot, (low[0] + high[0]) / 2, (low[2] + high[2]) / 2)
        half = ((high[0] - low[0]) / 2, (high[1] - low[1]) / 2, (high[2] - low[2]) / 2)
        centre = (x, -(spot.up + (low[1] + high[1]) / 2), z)
        self.objects.append(SceneObject(instance, noun, colour, centre, half, spot.yaw, place))
        if blueprint.top_m is not None:
            top = Spot(spot.x, spot.up + blueprint.top_m, spot.z, spot.yaw)
            self.surfaces.append(Surface(top, half[0] * 0.9, half[2] * 0.9))

    def _materials(self, colour: tuple[float, float, float], place: Support) -> dict[Finish, Material]:
        draws, contrast = self.draws, self.contrast()
        other = draws.choice(tuple(COLOURS.values()))
        # Small things need smaller features to be matched at all.
        fine = self.scale() * (3.5 if place is Support.TOP else 2.0)
        clouds = (TextureStyle.CLOUDS,)
        sky = make_material(draws, SKY, clouds, fine * 0.5, contrast * 0.5, glow=0.8)
        lit = object_material(draws, (0.95, 0.85, 0.6), fine, contrast * 0.4, glow=0.7)
        return {
            Finish.COLOUR: object_material(draws, colour, fine, contrast * 0.7),
            Finish.WOOD: wood_material(draws, fine, contrast),
            Finish.METAL: make_material(draws, METAL, clouds, fine, contrast * 0.5),
            Finish.PICTURE: picture_material(draws, colour if place is Support.FLAT else other, fine * 0.8),
            Finish.GLOW: sky if place is Support.HUNG else lit,
            Finish.LEAVES: make_material(
                draws, (0.10, 0.32, 0.08), (TextureStyle.SPOTS, TextureStyle.MOSAIC), fine, contrast
            ),
        }

    def shell(self) -> list[list[float]]:
        """Material rows of the six faces of the room."""
        walls = [wall_material(self.draws, self.scale() * 0.9, self.contrast()) for _ in range(4)]
        if self.draws.chance(0.5):
            # Most rooms wear one wallpaper; the offsets still differ from wall to wall.
            walls = [walls[0]] * 4
        ceiling = ceiling_material(self.draws, self.scale() * 0.8, self.contrast())
        floor = floor_material(self.draws, self.scale() * 0.8, self.contrast())
        return [m.row() for m in (walls[0], walls[1], ceiling, floor, walls[2], walls[3])]

    def lamps(self) -> tuple[list[list[float]], list[float]]:
        """Rows of the lamps, and the ambient light."""
        draws, rows = self.draws, []
        warm = 0.8 + 0.2 * draws.unit()
        for power in (1.0, 0.5):
            x = draws.symmetric(self.width * 0.3)
            z = draws.symmetric(self.length * 0.3)
            up = self.height - 0.25 - 0.3 * draws.unit()
            strength = power * (0.8 + 0.4 * draws.unit())
            rows.append([x, -up, z, strength, strength * (0.5 + 0.5 * warm), strength * warm])
        ambient = 0.28 + 0.15 * draws.unit()
        return rows, [ambient, ambient, ambient * (0.95 + 0.1 * draws.unit())]


def make_room(seed: int, config: WorldConfig) -> Room:
    """Furnishes the room of a seed.

    Args:
        seed: any non-negative integer; equal seeds and configs give equal rooms on every machine.
        config: the ranges to draw from.
    """
    draws = Draws(seed, LAYOUT_STREAM)
    builder = RoomBuilder(draws, config)
    shell, (lights, ambient) = builder.shell(), builder.lamps()
    num_wall = 1 + draws.integer(config.num_furniture) // 2
    num_free = max(1, draws.integer(config.num_furniture) // 2)
    for noun in draws.shuffled(nouns_of(Support.WALL))[:num_wall]:
        builder.add(noun)
    # Nouns may repeat among these, so that there is something to count.
    free = nouns_of(Support.FREE)
    favourite = draws.choice(free)
    for _ in range(num_free):
        builder.add(favourite if draws.chance(0.35) else draws.choice(free))
    decor = nouns_of(Support.HUNG, Support.FLAT)
    for _ in range(draws.integer(config.num_decor)):
        builder.add(draws.choice(decor))
    small = nouns_of(Support.TOP)
    favourite = draws.choice(small)
    for _ in range(draws.integer(config.num_small)):
        builder.add(favourite if draws.chance(0.35) else draws.choice(small))
    rows = np.asarray(builder.rows, dtype=np.float64).reshape(-1, 9)
    return Room(
        seed=seed,
        size_m=(builder.width, builder.height, builder.length),
        shape=rows[:, 0].astype(np.int64),
        centre=rows[:, 1:4].astype(np.float32),
        half=rows[:, 4:7].astype(np.float32),
        yaw=rows[:, 7].astype(np.float32),
        instance=rows[:, 8].astype(np.int64),
        material=np.asarray(builder.materials, dtype=np.float32).reshape(len(rows), -1),
        shell_material=np.asarray(shell, dtype=np.float32),
        lights=np.asarray(lights, dtype=np.float32),
        ambient=np.asarray(ambient, dtype=np.float32),
        exposure=draws.uniform(config.exposure),
        fov_rad=draws.uniform(config.fov_rad),
        objects=tuple(builder.objects),
    )
