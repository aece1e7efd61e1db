"""Things that stand in rooms, composed of boxes, ellipsoids and upright cylinders.

Each builder returns the parts of one object standing at the origin: x to its right, `up` above the floor,
z towards its front, metres.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum

from g2vlm.data.world.draws import Draws


class Shape(IntEnum):
    """Primitive shapes; all are the unit shape of their kind stretched by the half sizes."""

    BOX = 0
    ELLIPSOID = 1
    CYLINDER = 2


class Finish(Enum):
    """Which of an object's materials a part wears."""

    COLOUR = 0
    WOOD = 1
    METAL = 2
    PICTURE = 3
    GLOW = 4
    LEAVES = 5


class Support(Enum):
    """Where an object may stand."""

    WALL = "against a wall"
    FREE = "on the floor"
    TOP = "on furniture or on the floor"
    HUNG = "on a wall"
    FLAT = "flat on the floor"


@dataclass(frozen=True)
class SolidPart:
    """One primitive of an object."""

    shape: Shape
    centre: tuple[float, float, float]
    """x, up, z of the middle."""
    half: tuple[float, float, float]
    """Half sizes along x, up, z."""
    finish: Finish = Finish.COLOUR


@dataclass(frozen=True)
class Blueprint:
    """The parts of one object, and the height of a surface that can carry small objects (or None)."""

    parts: tuple[SolidPart, ...]
    top_m: float | None = None


Builder = Callable[[Draws, float], Blueprint]


def _box(
    x: float, up: float, z: float, half: tuple[float, float, float], finish: Finish = Finish.COLOUR
) -> SolidPart:
    return SolidPart(Shape.BOX, (x, up, z), half, finish)


def _round(
    x: float, up: float, z: float, radius: float, half_up: float, finish: Finish = Finish.COLOUR
) -> SolidPart:
    return SolidPart(Shape.CYLINDER, (x, up, z), (radius, half_up, radius), finish)


def _ball(
    x: float, up: float, z: float, half: tuple[float, float, float], finish: Finish = Finish.COLOUR
) -> SolidPart:
    return SolidPart(Shape.ELLIPSOID, (x, up, z), half, finish)


def _legs(
    half_x: float, half_z: float, height: float, radius: float, finish: Finish
) -> tuple[SolidPart, ...]:
    corners = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    return tuple(
        _round(i * (half_x - radius), height / 2, k * (half_z - radius), radius, height / 2, finish)
        for i, k in corners
    )


def _table(draws: Draws, s: float) -> Blueprint:
    half_x, half_z, top = 0.65 * s, 0.42 * s, 0.74 * s
    if draws.chance(0.3):
        parts = (
            _round(0.0, top - 0.025, 0.0, half_z * 1.25, 0.025),
            _round(0.0, top / 2, 0.0, 0.06, top / 2 - 0.03, Finish.METAL),
            _round(0.0, 0.02, 0.0, 0.25 * s, 0.02, Finish.METAL),
        )
        return Blueprint(parts, top)
    board = _box(0.0, top - 0.025, 0.0, (half_x, 0.025, half_z))
    return Blueprint((board, *_legs(half_x, half_z, top - 0.05, 0.035, Finish.WOOD)), top)


def _desk(draws: Draws, s: float) -> Blueprint:
    top = 0.74 * s
    parts = (
        _box(0.0, top - 0.02, 0.0, (0.7 * s, 0.02, 0.33 * s)),
        _box(-0.45 * s, top / 2 - 0.02, 0.0, (0.22 * s, top / 2 - 0.02, 0.3 * s), Finish.WOOD),
        _box(0.67 * s, top / 2 - 0.02, 0.0, (0.025, top / 2 - 0.02, 0.3 * s), Finish.WOOD),
        _box(-0.45 * s, top * 0.62, 0.305 * s, (0.06, 0.012, 0.012), Finish.METAL),
        _box(-0.45 * s, top * 0.3, 0.305 * s, (0.06, 0.012, 0.012), Finish.METAL),
    )
    return Blueprint(parts, top)


def _chair(draws: Draws, s: float) -> Blueprint:
    half, seat = 0.22 * s, 0.45 * s
    parts = (
        _box(0.0, seat - 0.025, 0.0, (half, 0.025, half)),
        _box(0.0, seat + 0.24 * s, -half + 0.02, (half, 0.2 * s, 0.02)),
        *_legs(half, half, seat - 0.05, 0.022, Finish.WOOD),
    )
    return Blueprint(parts)


def _stool(draws: Draws, s: float) -> Blueprint:
    seat = 0.5 * s
    return Blueprint(
        (
            _round(0.0, seat - 0.03, 0.0, 0.18 * s, 0.03),
            *_legs(0.14 * s, 0.14 * s, seat - 0.06, 0.02, Finish.METAL),
        )
    )


def _sofa(draws: Draws, s: float) -> Blueprint:
    half_x, half_z = (0.75 + 0.3 * draws.unit()) * s, 0.42 * s
    cushion = (half_x - 0.17 * s) / 2
    parts = (
        _box(0.0, 0.2 * s, 0.0, (half_x, 0.17 * s, half_z)),
        _box(0.0, 0.55 * s, -half_z + 0.1 * s, (half_x, 0.25 * s, 0.1 * s)),
        _box(-half_x + 0.08 * s, 0.45 * s, 0.02, (0.08 * s, 0.14 * s, half_z - 0.02)),
        _box(half_x - 0.08 * s, 0.45 * s, 0.02, (0.08 * s, 0.14 * s, half_z - 0.02)),
        _box(-cushion, 0.42 * s, 0.08 * s, (cushion - 0.01, 0.06 * s, half_z - 0.12 * s)),
        _box(cushion, 0.42 * s, 0.08 * s, (cushion - 0.01, 0.06 * s, half_z - 0.12 * s)),
    )
    return Blueprint(parts)


def _bed(draws: Draws, s: float) -> Blueprint:
    half_x, half_z = (0.5 + 0.3 * draws.unit()) * s, 1.0 * s
    parts = (
        _box(0.0, 0.14 * s, 0.0, (half_x, 0.14 * s, half_z), Finish.WOOD),
        _box(0.0, 0.38 * s, 0.02, (half_x - 0.02, 0.1 * s, half_z - 0.03)),
        _box(0.0, 0.45 * s, -half_z, (half_x, 0.45 * s, 0.04), Finish.WOOD),
        _ball(-half_x * 0.45, 0.52 * s, -half_z + 0.28 * s, (half_x * 0.38, 0.07, 0.17 * s), Finish.PICTURE),
        _ball(half_x * 0.45, 0.52 * s, -half_z + 0.28 * s, (half_x * 0.38, 0.07, 0.17 * s), Finish.PICTURE),
    )
    return Blueprint(parts)


def _shelf(draws: Draws, s: float) -> Blueprint:
    half_x, half_z, height = 0.42 * s, 0.16 * s, (1.3 + 0.6 * draws.unit()) * s
    parts = [
        _box(-half_x + 0.015, height / 2, 0.0, (0.015, height / 2, half_z)),
        _box(half_x - 0.015, height / 2, 0.0, (0.015, height / 2, half_z)),
        _box(0.0, height / 2, -half_z + 0.01, (half_x, height / 2, 0.01)),
    ]
    levels = 4
    boards = (0.02 + (height - 0.04) * k / levels for k in range(levels + 1))
    parts.extend(_box(0.0, up, 0.0, (half_x, 0.015, half_z)) for up in boards)
    for k in range(levels):
        if draws.chance(0.75):
            wide, tall = half_x * (0.35 + 0.5 * draws.unit()), height / levels * (0.28 + 0.1 * draws.unit())
            left = draws.symmetric(half_x - 0.04 - wide)
            parts.append(
                _box(
                    left,
                    0.035 + (height - 0.04) * k / levels + tall,
                    0.01,
                    (wide, tall, half_z * 0.7),
                    Finish.PICTURE,
                )
            )
    return Blueprint(tuple(parts), height)


def _cabinet(draws: Draws, s: float) -> Blueprint:
    half_x, half_z, height = 0.5 * s, 0.22 * s, (0.7 + 0.3 * draws.unit()) * s
    parts = [_box(0.0, height / 2, 0.0, (half_x, height / 2, half_z))]
    for k in range(3):
        up = height * (0.19 + 0.31 * k)
        parts.append(_box(0.0, up, half_z, (half_x * 0.92, height * 0.13, 0.012), Finish.WOOD))
        parts.append(_ball(0.0, up, half_z + 0.025, (0.025, 0.025, 0.025), Finish.METAL))
    return Blueprint(tuple(parts), height)


def _wardrobe(draws: Draws, s: float) -> Blueprint:
    half_x, half_z, height = (0.45 + 0.25 * draws.unit()) * s, 0.28 * s, 1.9 * s
    parts = (
        _box(0.0, height / 2, 0.0, (half_x, height / 2, half_z)),
        _box(-half_x / 2, height / 2, half_z, (half_x * 0.46, height * 0.46, 0.012), Finish.WOOD),
        _box(half_x / 2, height / 2, half_z, (half_x * 0.46, height * 0.46, 0.012), Finish.WOOD),
        _box(-0.04, height / 2, half_z + 0.02, (0.012, 0.08, 0.015), Finish.METAL),
        _box(0.04, height / 2, half_z + 0.02, (0.012, 0.08, 0.015), Finish.METAL),
    )
    return Blueprint(parts)


def _floor_lamp(draws: Draws, s: float) -> Blueprint:
    height = 1.5 * s
    parts = (
        _round(0.0, 0.02, 0.0, 0.17 * s, 0.02),
        _round(0.0, height / 2, 0.0, 0.025, height / 2),
        _round(0.0, height, 0.0, 0.19 * s, 0.15 * s, Finish.GLOW),
    )
    return Blueprint(parts)


def _plant(draws: Draws, s: float) -> Blueprint:
    parts = [
        _round(0.0, 0.16 * s, 0.0, 0.16 * s, 0.16 * s),
        _round(0.0, 0.45 * s, 0.0, 0.02, 0.2 * s, Finish.WOOD),
    ]
    for k in range(3):
        size = (0.15 + 0.1 * draws.unit()) * s
        spot = (draws.symmetric(0.14 * s), (0.6 + 0.17 * k) * s, draws.symmetric(0.14 * s))
        parts.append(SolidPart(Shape.ELLIPSOID, spot, (size, size * 0.8, size), Finish.LEAVES))
    return Blueprint(tuple(parts))


def _television(draws: Draws, s: float) -> Blueprint:
    parts = (
        _box(0.0, 0.22 * s, 0.0, (0.6 * s, 0.22 * s, 0.2 * s)),
        _box(0.0, 0.8 * s, 0.0, (0.5 * s, 0.29 * s, 0.025), Finish.METAL),
        _box(0.0, 0.8 * s, 0.02, (0.47 * s, 0.265 * s, 0.012), Finish.PICTURE),
        _box(0.0, 0.47 * s, 0.0, (0.12, 0.04 * s, 0.06), Finish.METAL),
    )
    return Blueprint(parts)


def _crate(draws: Draws, s: float) -> Blueprint:
    half = (0.2 + 0.12 * draws.unit()) * s
    tall = half * (0.7 + 0.6 * draws.unit())
    return Blueprint((_box(0.0, tall, 0.0, (half, tall, half * (0.7 + 0.6 * draws.unit()))),))


def _bin(draws: Draws, s: float) -> Blueprint:
    return Blueprint((_round(0.0, 0.2 * s, 0.0, 0.15 * s, 0.2 * s),))


def _ball_object(draws: Draws, s: float) -> Blueprint:
    radius = (0.09 + 0.08 * draws.unit()) * s
    return Blueprint((_ball(0.0, radius, 0.0, (radius, radius, radius)),))


def _box_object(draws: Draws, s: float) -> Blueprint:
    half = (0.08 + 0.06 * draws.unit()) * s
    return Blueprint((_box(0.0, half * 0.8, 0.0, (half, half * 0.8, half * 1.2)),))


def _vase(draws: Draws, s: float) -> Blueprint:
    return Blueprint(
        (
            _ball(0.0, 0.12 * s, 0.0, (0.1 * s, 0.12 * s, 0.1 * s)),
            _round(0.0, 0.24 * s, 0.0, 0.045 * s, 0.06 * s),
        )
    )


def _mug(draws: Draws, s: float) -> Blueprint:
    return Blueprint(
        (
            _round(0.0, 0.06 * s, 0.0, 0.05 * s, 0.06 * s),
            _box(0.06 * s, 0.06 * s, 0.0, (0.02 * s, 0.035 * s, 0.01)),
        )
    )


def _books(draws: Draws, s: float) -> Blueprint:
    parts, up = [], 0.0
    for k in range(3):
        half = 0.018 + 0.012 * draws.unit()
        size = ((0.15 - 0.02 * k) * s, half, (0.11 - 0.015 * k) * s)
        parts.append(_box(draws.symmetric(0.015), up + half, draws.symmetric(0.015), size))
        up += 2 * half
    return Blueprint(tuple(parts))


def _table_lamp(draws: Draws, s: float) -> Blueprint:
    parts = (
        _ball(0.0, 0.09 * s, 0.0, (0.07 * s, 0.09 * s, 0.07 * s)),
        _round(0.0, 0.2 * s, 0.0, 0.012, 0.06 * s, Finish.METAL),
        _round(0.0, 0.32 * s, 0.0, 0.13 * s, 0.09 * s, Finish.GLOW),
    )
    return Blueprint(parts)


def _poster(draws: Draws, s: float) -> Blueprint:
    half_x, half_up = (0.25 + 0.3 * draws.unit()) * s, (0.25 + 0.3 * draws.unit()) * s
    parts = (
        _box(0.0, 0.0, 0.012, (half_x, half_up, 0.012)),
        _box(0.0, 0.0, 0.02, (half_x - 0.04, half_up - 0.04, 0.012), Finish.PICTURE),
    )
    return Blueprint(parts)


def _window(draws: Draws, s: float) -> Blueprint:
    half_x, half_up = (0.45 + 0.3 * draws.unit()) * s, 0.5 * s
    parts = (
        _box(0.0, 0.0, 0.02, (half_x, half_up, 0.02)),
        _box(-half_x / 2, 0.0, 0.03, (half_x / 2 - 0.04, half_up - 0.05, 0.018), Finish.GLOW),
        _box(half_x / 2, 0.0, 0.03, (half_x / 2 - 0.04, half_up - 0.05, 0.018), Finish.GLOW),
    )
    return Blueprint(parts)


def _door(draws: Draws, s: float) -> Blueprint:
    parts = (
        _box(0.0, 1.0, 0.02, (0.45, 1.0, 0.02)),
        _box(0.0, 1.4, 0.03, (0.3, 0.35, 0.02), Finish.WOOD),
        _box(0.0, 0.5, 0.03, (0.3, 0.35, 0.02), Finish.WOOD),
        _ball(0.36, 1.0, 0.07, (0.03, 0.03, 0.03), Finish.METAL),
    )
    return Blueprint(parts)


def _rug(draws: Draws, s: float) -> Blueprint:
    half_x, half_z = (0.6 + 0.5 * draws.unit()) * s, (0.5 + 0.4 * draws.unit()) * s
    if draws.chance(0.3):
        return Blueprint((_round(0.0, 0.006, 0.0, half_x, 0.006, Finish.PICTURE),))
    parts = (
        _box(0.0, 0.004, 0.0, (half_x, 0.004, half_z)),
        _box(0.0, 0.006, 0.0, (half_x - 0.08, 0.006, half_z - 0.08), Finish.PICTURE),
    )
    return Blueprint(parts)


CATALOGUE: dict[str, tuple[Support, Builder]] = {
    "table": (Support.FREE, _table),
    "chair": (Support.FREE, _chair),
    "stool": (Support.FREE, _stool),
    "crate": (Support.FREE, _crate),
    "plant": (Support.FREE, _plant),
    "floor lamp": (Support.FREE, _floor_lamp),
    "bin": (Support.FREE, _bin),
    "desk": (Support.WALL, _desk),
    "sofa": (Support.WALL, _sofa),
    "bed": (Support.WALL, _bed),
    "bookshelf": (Support.WALL, _shelf),
    "cabinet": (Support.WALL, _cabinet),
    "wardrobe": (Support.WALL, _wardrobe),
    "television": (Support.WALL, _television),
    "ball": (Support.TOP, _ball_object),
    "box": (Support.TOP, _box_object),
    "vase": (Support.TOP, _vase),
    "mug": (Support.TOP, _mug),
    "book stack": (Support.TOP, _books),
    "table lamp": (Support.TOP, _table_lamp),
    "poster": (Support.HUNG, _poster),
    "window": (Support.HUNG, _window),
    "door": (Support.HUNG, _door),
    "rug": (Support.FLAT, _rug),
}
"""Every noun of the world, where it stands and how it is built."""


def nouns_of(*places: Support) -> tuple[str, ...]:
    """The nouns that stand in one of the places."""
    return tuple(noun for noun, (place, _) in CATALOGUE.items() if place in places)
