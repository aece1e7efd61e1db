"""Rooms of triangles as a function of their seed: rooms, halls, corridors and yards."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from g2vlm.data.world.config import WorldConfig
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.furniture import Blueprint, Finish, Shape, SolidPart, Support, nouns_of
from g2vlm.data.world.layout import (
    LAYOUT_STREAM,
    Room,
    RoomBuilder,
    SceneObject,
    Spot,
    Surface,
    extent_of,
    turned,
)
from g2vlm.data.world.palette import COLOURS
from g2vlm.data.world.photo.library import Library
from g2vlm.data.world.photo.lights import Lighting, draw_lighting
from g2vlm.data.world.photo.materials import Paint, Wardrobe
from g2vlm.data.world.photo.packing import MeshEntry
from g2vlm.data.world.photo.shell import Kind, add_shell
from g2vlm.data.world.photo.solids import box_coordinates, solid

_PRIMITIVE_SHARE = 0.2
"""Of the things, where there are meshes: shapes of known form beside those of the catalogue."""
_FITTINGS = ("poster", "poster", "window", "window", "door")


@dataclass(frozen=True, kw_only=True)
class PhotoRoom(Room):
    """A room made of triangles; the parts of `Room` are boxes around its things."""

    kind: Kind
    corners: Float32[ndarray, "triangles 3 3"]
    """World frame, metres."""
    uv: Float32[ndarray, "triangles 3 2"]
    """In sides of the texture."""
    normals: Float32[ndarray, "triangles 3 3"]
    """For shading; may point to either side."""
    texture: Int64[ndarray, " triangles"]
    """Index into the library, -1 for none."""
    look: Float32[ndarray, "triangles 5"]
    """Linear RGB factor, gloss, glow."""
    owner: Int64[ndarray, " triangles"]
    """Value in instance images."""
    is_pane: Bool[ndarray, " triangles"]
    """Shows what is outside: a panorama, with no depth."""
    casts_shadow: Bool[ndarray, " triangles"]
    lighting: Lighting


class TriangleList:
    """Triangles collected one thing after the other."""

    def __init__(self) -> None:
        self.parts: list[tuple[ndarray, ...]] = []

    def add(
        self,
        mesh: tuple[ndarray, ndarray, ndarray],
        paint: Paint,
        owner: int,
        *,
        pane: bool = False,
        shadow: bool = True,
    ) -> None:
        """Add triangles of one material: corners, coordinates in sides of the texture, normals."""
        count = len(mesh[0])
        look = np.broadcast_to(np.asarray([*paint.tint, paint.gloss, paint.glow]), (count, 5))
        self.add_rows(mesh, np.full(count, paint.texture), look, owner, pane=pane, shadow=shadow)

    def add_rows(
        self,
        mesh: tuple[ndarray, ndarray, ndarray],
        texture: ndarray,
        look: ndarray,
        owner: int,
        *,
        pane: bool = False,
        shadow: bool = True,
    ) -> None:
        """Add triangles, each with a texture and a look of its own."""
        count = len(mesh[0])
        flags = (np.full(count, owner), np.full(count, pane), np.full(count, shadow))
        self.parts.append((*mesh, texture, look, *flags))

    def columns(self) -> tuple[ndarray, ...]:
        """All of them, column by column."""
        return tuple(np.concatenate(column) for column in zip(*self.parts, strict=True))


class PhotoBuilder(RoomBuilder):
    """Fills a room with meshes of the library and with primitives in photographic textures."""

    def __init__(self, draws: Draws, config: WorldConfig, library: Library) -> None:
        self.kind = draws.choice(
            (Kind.ROOM,) * 11 + (Kind.HALL,) * 3 + (Kind.CORRIDOR,) * 3 + (Kind.YARD,) * 3
        )
        super().__init__(draws, config)
        self.library, self.wardrobe = library, Wardrobe(library, draws)
        self.triangles = TriangleList()
        self.fronts = tuple(range(4))
        if self.kind.is_open:
            self.fronts = tuple(draws.shuffled(range(4))[: draws.integer((1, 3))])
        for side in set(range(4)) - set(self.fronts):
            # Nothing hangs where there is no wall.
            self.hung[side].append((-math.inf, math.inf))
        self.windows: list[tuple[Spot, tuple[float, float]]] = []

    def extent(self) -> tuple[float, float, float]:
        """Width, length and height by the kind of room."""
        width, length, height = super().extent()
        draws = self.draws
        if self.kind is Kind.HALL:
            return draws.uniform((6.0, 13.0)), draws.uniform((6.0, 16.0)), draws.uniform((2.6, 4.5))
        if self.kind is Kind.CORRIDOR:
            return draws.uniform((1.9, 3.6)), draws.uniform((8.0, 20.0)), draws.uniform((2.4, 3.2))
        if self.kind is Kind.YARD:
            return draws.uniform((8.0, 22.0)), draws.uniform((8.0, 22.0)), draws.uniform((3.0, 9.0))
        return width, length, height

    def furnish(self, meshes: dict[Support, list[MeshEntry]]) -> None:
        """Draw and place everything."""
        draws, config = self.draws, self.config
        area = min(self.width * self.length / 20.0, 3.0)
        bare = draws.chance(0.12)
        for noun in draws.shuffled(_FITTINGS)[: draws.integer((1, 4))]:
            self.add(noun)
        for support, low_high, factor in (
            (Support.WALL, config.num_furniture, 0.6),
            (Support.FREE, config.num_furniture, 0.6),
            (Support.FLAT, (1, 3), 0.4),
            (Support.TOP, config.num_small, 1.0),
            (Support.HUNG, config.num_decor, 0.7),
        ):
            count = round(draws.integer(low_high) * factor * (0.3 if bare else 1.0) * max(area, 0.6))
            favourite: MeshEntry | None = None
            for _ in range(min(count, 16)):
                entries = meshes.get(support)
                if not entries or draws.chance(_PRIMITIVE_SHARE):
                    self.add(draws.choice(nouns_of(support)))
                    continue
                if favourite is None or not draws.chance(0.35):
                    favourite = draws.choice(entries)
                self.add_mesh(favourite, support)

    def add_mesh(self, entry: MeshEntry, place: Support) -> None:
        """Put a mesh where there is room, or leave it out."""
        draws = self.draws
        scale = draws.uniform((0.9, 1.12))
        size = [value * scale for value in entry.size_m]
        # A thing that stands on its own is mostly upright on the floor; the catalogue hangs some of them.
        box = SolidPart(Shape.BOX, (0.0, size[1] / 2, 0.0), (size[0] / 2, size[1] / 2, size[2] / 2))
        blueprint = Blueprint((box,), entry.top_m and entry.top_m * scale)
        if place is Support.HUNG:
            lift = size[1] / 2 if entry.noun != "door" else 0.0
            box = SolidPart(Shape.BOX, (0.0, size[1] / 2 - lift, size[2] / 2), box.half)
            blueprint = Blueprint((box,))
        if size[1] > self.height - 0.05:
            return
        spot = self.spot(entry.noun, place, blueprint)
        if spot is None:
            return
        instance = self._record(entry.noun, entry.colour, place, blueprint, spot)
        mesh = self.library.mesh(entry)
        shift = np.array([0.0, *((-lift, size[2] / 2) if place is Support.HUNG else (0.0, 0.0))])
        # Frames of things are left-handed seen from the world (y is turned down): meshes would be mirrored.
        mirror = np.array([-1.0, 1.0, 1.0])
        corners, normals = mesh.corners * (scale * mirror) + shift, mesh.normals * mirror
        look = np.concatenate([mesh.faces[:, 1:5], np.zeros((entry.count, 1))], axis=1)
        look[:, :3] *= self.wardrobe.shade()
        texture = self.wardrobe.reclad(
            mesh.faces[:, 0].astype(np.int64), look, self.library.plain_groups(entry)
        )
        uv, changed = mesh.uv, np.flatnonzero(texture != mesh.faces[:, 0])
        if len(changed):
            uv = uv.copy()
            uv[changed] = box_coordinates(corners[changed], normals[changed]) * draws.uniform((0.7, 1.6))
        placed = (self._placed(corners, spot), uv, self._turned_normals(normals, spot))
        self.triangles.add_rows(placed, texture, look, instance)

    def _commit(self, noun: str, place: Support, blueprint: Blueprint, spot: Spot) -> None:
        colour = self.draws.choice(tuple(COLOURS))
        instance = self._record(noun, colour, place, blueprint, spot)
        paints: dict[Finish, Paint] = {}
        for part in blueprint.parts:
            if part.finish not in paints:
                paints[part.finish] = self.wardrobe.paint(part.finish, COLOURS[colour], place)
            paint = paints[part.finish]
            corners, normals = solid(part)
            uv = box_coordinates(corners, normals) / paint.size_m + paint.offset
            pane = noun == "window" and part.finish is Finish.GLOW
            if noun == "poster" and part.finish is Finish.PICTURE:
                # Pictures are shown once over the whole front.
                uv = (corners[..., :2] / np.asarray(part.half[:2]) * [-0.5, -0.5] + 0.5) * 0.98
            placed = (self._placed(corners, spot), uv, self._turned_normals(normals, spot))
            self.triangles.add(placed, paint, instance, pane=pane, shadow=place is not Support.HUNG)
        if noun == "window":
            _, high = extent_of(blueprint.parts)
            self.windows.append((spot, (high[0], high[1])))

    def _record(self, noun: str, colour: str, place: Support, blueprint: Blueprint, spot: Spot) -> int:
        """Note a thing, the boxes around its parts and the top it offers; returns its number."""
        instance = len(self.objects) + 1
        for part in blueprint.parts:
            x, z = turned(spot, part.centre[0], part.centre[2])
            centre = (x, -(spot.up + part.centre[1]), z)
            self.rows.append([float(Shape.BOX), *centre, *part.half, spot.yaw, float(instance)])
        low, high = extent_of(blueprint.parts)
        x, z = turned(spot, (low[0] + high[0]) / 2, (low[2] + high[2]) / 2)
        half = ((high[0] - low[0]) / 2, (high[1] - low[1]) / 2, (high[2] - low[2]) / 2)
        centre = (x, -(spot.up + (low[1] + high[1]) / 2), z)
        self.objects.append(SceneObject(instance, noun, colour, centre, half, spot.yaw, place))
        if blueprint.top_m:
            top = Spot(spot.x, spot.up + blueprint.top_m, spot.z, spot.yaw)
            self.surfaces.append(Surface(top, half[0] * 0.85, half[2] * 0.85))
        return instance

    @staticmethod
    def _turned_normals(vectors: ndarray, spot: Spot) -> ndarray:
        cos, sin = math.cos(spot.yaw), math.sin(spot.yaw)
        x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
        return np.stack([cos * x + sin * z, -y, cos * z - sin * x], axis=-1)

    def _placed(self, corners: ndarray, spot: Spot) -> ndarray:
        return self._turned_normals(corners, spot) + np.array([spot.x, -spot.up, spot.z])


def _by_place(library: Library) -> dict[Support, list[MeshEntry]]:
    found: dict[Support, list[MeshEntry]] = {}
    for entry in library.meshes:
        found.setdefault(Support[entry.place], []).append(entry)
    return found


def make_photo_room(seed: int, config: WorldConfig, library: Library) -> PhotoRoom:
    """Furnish the room of a seed.

    Args:
        seed: any non-negative integer; equal seeds, configs and libraries give equal rooms.
        config: the ranges to draw from.
        library: textures and meshes.
    """
    draws = Draws(seed, LAYOUT_STREAM)
    builder = PhotoBuilder(draws, config, library)
    builder.furnish(_by_place(library))
    size = (builder.width, builder.height, builder.length)
    add_shell(
        builder.triangles, builder.wardrobe, draws, size, builder.fronts if builder.kind.is_open else None
    )
    lighting = draw_lighting(draws, builder.kind, size, builder.windows, len(library.panoramas))
    corners, uv, normals, texture, look, owner, pane, shadow = builder.triangles.columns()
    rows = np.asarray(builder.rows, dtype=np.float64).reshape(-1, 9)
    return PhotoRoom(
        seed=seed,
        size_m=size,
        shape=rows[:, 0].astype(np.int64),
        centre=rows[:, 1:4].astype(np.float32),
        half=rows[:, 4:7].astype(np.float32),
        yaw=rows[:, 7].astype(np.float32),
        instance=rows[:, 8].astype(np.int64),
        material=np.zeros((len(rows), 0), dtype=np.float32),
        shell_material=np.zeros((6, 0), dtype=np.float32),
        lights=np.zeros((0, 6), dtype=np.float32),
        ambient=np.zeros(3, dtype=np.float32),
        exposure=draws.uniform(config.exposure),
        fov_rad=draws.uniform(config.fov_rad),
        objects=tuple(builder.objects),
        kind=builder.kind,
        corners=corners.astype(np.float32),
        uv=uv.astype(np.float32),
        normals=normals.astype(np.float32),
        texture=texture.astype(np.int64),
        look=look.astype(np.float32),
        owner=owner.astype(np.int64),
        is_pane=pane.astype(bool),
        casts_shadow=shadow.astype(bool),
        lighting=lighting,
    )
