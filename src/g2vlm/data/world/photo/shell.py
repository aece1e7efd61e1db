"""Walls, floor and ceiling of a room, with skirting boards and pillars; fronts and ground of a yard."""

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from g2vlm.data.world.draws import Draws
from g2vlm.data.world.furniture import Finish, Shape, SolidPart, Support
from g2vlm.data.world.photo.materials import Paint, Wardrobe
from g2vlm.data.world.photo.solids import box_coordinates, rectangle, solid

if TYPE_CHECKING:
    from g2vlm.data.world.photo.rooms import TriangleList

_GROUND_M = 45.0


class Kind(Enum):
    """What a place is."""

    ROOM = "room"
    HALL = "hall"
    CORRIDOR = "corridor"
    YARD = "yard"
    """Outdoors: ground, some fronts, and the sky, which has no depth."""

    @property
    def is_open(self) -> bool:
        """Whether there is sky above."""
        return self is Kind.YARD


def _at(x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z])


def _wall(side: int, size: tuple[float, float, float], up: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """A stretch of wall -z, +z, -x or +x between two heights."""
    half_x, half_z = size[0] / 2, size[2] / 2
    middle, half = -(up[0] + up[1]) / 2, (up[1] - up[0]) / 2
    sign = -1.0 if side in (0, 2) else 1.0
    if side < 2:
        corners, place = rectangle(
            _at(0.0, middle, sign * half_z), _at(half_x, 0.0, 0.0), _at(0.0, half, 0.0)
        )
        normal, reach = (0.0, 0.0, -sign), half_x
    else:
        corners, place = rectangle(
            _at(sign * half_x, middle, 0.0), _at(0.0, 0.0, half_z), _at(0.0, half, 0.0)
        )
        normal, reach = (-sign, 0.0, 0.0), half_z
    return corners, place * [reach, half], np.broadcast_to(np.asarray(normal), corners.shape)


def _level(height: float, half: tuple[float, float], normal: float) -> tuple[np.ndarray, ...]:
    corners, place = rectangle(_at(0.0, -height, 0.0), _at(half[0], 0.0, 0.0), _at(0.0, 0.0, half[1]))
    return corners, place * list(half), np.broadcast_to(np.array([0.0, normal, 0.0]), corners.shape)


def add_shell(
    triangles: "TriangleList",
    wardrobe: Wardrobe,
    draws: Draws,
    size: tuple[float, float, float],
    fronts: tuple[int, ...] | None,
) -> None:
    """Add the surfaces around a place.

    Args:
        triangles: where they are added.
        wardrobe: of the place.
        draws: source of the draws.
        size: width, height, length.
        fronts: outdoors, the sides (-z, +z, -x, +x) with a wall; None for rooms.
    """

    def add(part: tuple[np.ndarray, ...], paint: Paint) -> None:
        mesh = (part[0], part[1] / paint.size_m + paint.offset, part[2])
        triangles.add(mesh, paint, 0, shadow=False)

    if fronts is not None:
        add(_level(0.0, (_GROUND_M, _GROUND_M), -1.0), wardrobe.ground())
        front = wardrobe.front()
        for side in fronts:
            add(_wall(side, size, (0.0, size[1])), front if draws.chance(0.6) else wardrobe.front())
        return
    half = (size[0] / 2, size[2] / 2)
    add(_level(0.0, half, -1.0), wardrobe.floor())
    add(_level(size[1], half, 1.0), wardrobe.ceiling())
    paint = wardrobe.wall()
    lower = wardrobe.wall() if draws.chance(0.2) else None
    split = draws.uniform((0.8, 1.3))
    for side in range(4):
        own = wardrobe.wall() if draws.chance(0.15) else paint
        if lower is None:
            add(_wall(side, size, (0.0, size[1])), own)
        else:
            add(_wall(side, size, (0.0, split)), lower)
            add(_wall(side, size, (split, size[1])), own)
    _trim(triangles, wardrobe, draws, size, split if lower is not None else None)


def _trim(
    triangles: "TriangleList",
    wardrobe: Wardrobe,
    draws: Draws,
    size: tuple[float, float, float],
    split: float | None,
) -> None:
    """Skirting boards, rails at a change of the wall's material, beams and pillars."""
    half_x, half_z = size[0] / 2, size[2] / 2
    bars: list[tuple[float, float, float]] = []
    if draws.chance(0.75):
        bars.append((0.0, draws.uniform((0.05, 0.14)), 0.012))
    if split is not None or draws.chance(0.12):
        bars.append(
            (split or 0.9, (split or 0.9) + draws.uniform((0.03, 0.15)), draws.uniform((0.012, 0.05)))
        )
    boxes = []
    for low, high, deep in bars:
        up, half = (low + high) / 2, (high - low) / 2
        boxes += [((0.0, up, sign * half_z), (half_x, half, deep)) for sign in (-1, 1)]
        boxes += [((sign * half_x, up, 0.0), (deep, half, half_z)) for sign in (-1, 1)]
    if draws.chance(0.25):
        thick = draws.uniform((0.1, 0.25))
        for _ in range(draws.integer((1, 3))):
            x, z = draws.choice((-1.0, 1.0)) * half_x, draws.symmetric(half_z)
            boxes.append(((x, size[1] / 2, z), (thick, size[1] / 2, thick)))
    if draws.chance(0.15):
        z = draws.symmetric(half_z)
        boxes.append(((0.0, size[1] - 0.1, z), (half_x, 0.12, 0.1)))
    if not boxes:
        return
    paint = (
        wardrobe.paint(Finish.WOOD, (1.0, 1.0, 1.0), Support.WALL) if draws.chance(0.4) else wardrobe.wall()
    )
    for centre, half_m in boxes:
        corners, normals = solid(SolidPart(Shape.BOX, centre, half_m))
        uv = box_coordinates(corners, normals) / paint.size_m + paint.offset
        flip = np.array([1.0, -1.0, 1.0])
        triangles.add((corners * flip, uv, normals * flip), paint, 0, shadow=False)
