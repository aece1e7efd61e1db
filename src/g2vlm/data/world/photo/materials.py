"""Which texture and colour a surface wears."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from g2vlm.data.world.draws import Draws
from g2vlm.data.world.furniture import Finish, Support
from g2vlm.data.world.palette import Rgb
from g2vlm.data.world.photo.library import Library

_RECLAD_SHARE = 0.35
_WALL_TINTS: tuple[Rgb, ...] = (
    (0.95, 0.94, 0.92),
    (0.95, 0.94, 0.92),
    (0.88, 0.86, 0.80),
    (0.62, 0.64, 0.66),
    (0.40, 0.41, 0.43),
    (0.85, 0.80, 0.66),
    (0.72, 0.80, 0.84),
    (0.66, 0.76, 0.64),
    (0.84, 0.70, 0.62),
    (0.30, 0.38, 0.46),
)
_CARPETS: tuple[Rgb, ...] = (
    (0.06, 0.12, 0.36),
    (0.30, 0.30, 0.32),
    (0.14, 0.14, 0.16),
    (0.42, 0.34, 0.26),
    (0.36, 0.08, 0.08),
    (0.16, 0.26, 0.18),
    (0.52, 0.48, 0.42),
)


@dataclass(frozen=True)
class Paint:
    """A texture with a tint, a size, gloss and glow."""

    texture: int
    """Index into the library, -1 for a plain colour."""
    tint: Rgb = (1.0, 1.0, 1.0)
    """Linear RGB factor of the texture's colour, or the colour itself."""
    size_m: float = 1.0
    """Length of a side of the texture on the surface."""
    offset: float = 0.0
    """Where the surface begins on the texture, in sides."""
    gloss: float = 0.0
    glow: float = 0.0


class Wardrobe:
    """Draws paints from a library."""

    def __init__(self, library: Library, draws: Draws) -> None:
        self.library, self.draws = library, draws

    def of_use(
        self, uses: tuple[str, ...], tint: Rgb = (1.0, 1.0, 1.0), gloss: float = 0.0, glow: float = 0.0
    ) -> Paint:
        """A texture for one of the uses; a plain colour where there is none."""
        draws = self.draws
        choices = self.library.of_use(*uses)
        if not choices:
            return Paint(-1, (0.6 * tint[0], 0.6 * tint[1], 0.6 * tint[2]), gloss=gloss, glow=glow)
        index = draws.choice(choices)
        size = self.library.textures[index].size_m * draws.uniform((0.7, 1.5))
        return Paint(index, tint, size, draws.unit(), gloss, glow)

    def tint(self, spread: float) -> Rgb:
        """A factor near white."""
        level = 1.0 - 0.4 * self.draws.unit()
        return tuple(level * (1.0 - spread * self.draws.unit()) for _ in range(3))  # type: ignore[return-value]

    def shade(self) -> Float[ndarray, " 3"]:
        """A factor that makes two copies of a mesh differ a little."""
        return np.asarray(self.tint(0.25)) * 1.15

    def wall(self) -> Paint:
        """Mostly painted plaster, sometimes panels, bricks, tiles or wood."""
        draws = self.draws
        base = draws.choice(_WALL_TINTS)
        pick = draws.unit()
        if pick < 0.6:
            return self.of_use(("wall",), base, 0.03)
        if pick < 0.76:
            return self.of_use(("panel",), base, 0.15)
        if pick < 0.85:
            return self.of_use(("brick",), self.tint(0.2))
        if pick < 0.95:
            return self.of_use(("tile",), self.tint(0.15), 0.25)
        return self.of_use(("wood",), self.tint(0.2), 0.1)

    def floor(self) -> Paint:
        """Wood, tiles, carpet or stone."""
        draws = self.draws
        pick = draws.unit()
        if pick < 0.42:
            return self.of_use(("floor", "wood"), self.tint(0.2), 0.3 * draws.unit())
        if pick < 0.68:
            return self.of_use(("tile",), self.tint(0.1), 0.5 * draws.unit())
        if pick < 0.93:
            carpet = draws.choice(_CARPETS)
            return self.of_use(("carpet", "carpet", "fabric"), tuple(min(1.0, 2.2 * c) for c in carpet))  # type: ignore[arg-type]
        return self.of_use(("wall", "ground"), self.tint(0.1), 0.2 * draws.unit())

    def ceiling(self) -> Paint:
        """White plaster or panels."""
        uses = ("ceiling", "panel") if self.draws.chance(0.4) else ("wall",)
        return self.of_use(uses, (0.96, 0.96, 0.94))

    def front(self) -> Paint:
        """Outer walls."""
        return self.of_use(("brick", "wall", "tile", "brick"), self.tint(0.25))

    def ground(self) -> Paint:
        """Grass, gravel, slabs."""
        return self.of_use(("ground",), self.tint(0.15))

    def paint(self, finish: Finish, colour: Rgb, place: Support) -> Paint:
        """What a part of a primitive thing wears."""
        draws = self.draws
        if finish is Finish.WOOD:
            return self.of_use(("wood",), self.tint(0.15), 0.15)
        if finish is Finish.METAL:
            return self.of_use(("metal",), self.tint(0.05), 0.5)
        if finish is Finish.PICTURE:
            uses = ("fabric", "carpet", "picture") if place is Support.FLAT else ("picture",)
            return self.of_use(uses, self.tint(0.1))
        if finish is Finish.GLOW:
            return Paint(-1, (1.0, 0.92, 0.75), glow=1.0 + draws.unit())
        if finish is Finish.LEAVES:
            return self.of_use(("ground",), (0.35, 0.7, 0.3))
        bright = tuple(min(1.0, 1.5 * c + 0.02) for c in colour)
        return self.of_use(("fabric", "wall", "carpet", "painted"), bright, 0.2 * draws.unit())  # type: ignore[arg-type]

    def reclad(
        self,
        texture: Int64[ndarray, " triangles"],
        look: Float[ndarray, "triangles 5"],
        groups: list[Int64[ndarray, " some"]],
    ) -> Int64[ndarray, " triangles"]:
        """Photographs in place of flat colours of a mesh, one for each colour of it.

        Half of the catalogue has flat colours only, which look drawn; `look` is changed in place.
        """
        texture = texture.copy()
        for mine in groups:
            if not self.draws.chance(0.75):
                continue
            r, g, b, gloss = look[mine[0], :4]
            woody = r > 1.25 * b and r < 0.6 and g > b
            metal = abs(r - b) < 0.03 and gloss > 0.3
            uses = ("wood",) if woody else ("metal",) if metal else ("fabric", "wall", "carpet", "fabric")
            choices = self.library.of_use(*uses)
            if choices:
                texture[mine] = self.draws.choice(choices)
                look[mine, :3] = np.clip(
                    look[mine, :3] * (1.0 if woody else 1.6) + (0.25 if woody else 0.0), 0.0, 1.2
                )
        return texture
