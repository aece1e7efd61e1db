"""Colours that have a name, and the materials made of them."""

from dataclasses import dataclass

from g2vlm.data.world.draws import Draws
from g2vlm.data.world.textures import TEXTURES_OF, TextureStyle

Rgb = tuple[float, float, float]

COLOURS: dict[str, Rgb] = {
    "red": (0.72, 0.08, 0.07),
    "green": (0.09, 0.48, 0.12),
    "blue": (0.08, 0.16, 0.68),
    "yellow": (0.88, 0.72, 0.08),
    "orange": (0.90, 0.38, 0.04),
    "purple": (0.38, 0.10, 0.52),
    "pink": (0.92, 0.42, 0.58),
    "brown": (0.30, 0.16, 0.07),
    "white": (0.88, 0.88, 0.86),
    "black": (0.05, 0.05, 0.06),
    "gray": (0.40, 0.40, 0.41),
    "cyan": (0.10, 0.66, 0.70),
}
"""Linear RGB reflectance of each colour name."""

WOOD: Rgb = (0.42, 0.25, 0.12)
METAL: Rgb = (0.30, 0.31, 0.33)
SKY: Rgb = (0.55, 0.75, 0.98)

_WALL_TONES: tuple[Rgb, ...] = (
    (0.76, 0.73, 0.66),
    (0.62, 0.70, 0.74),
    (0.72, 0.62, 0.52),
    (0.60, 0.68, 0.56),
    (0.70, 0.70, 0.70),
    (0.76, 0.64, 0.62),
    (0.50, 0.55, 0.62),
    (0.78, 0.74, 0.54),
)
_FLOOR_TONES: tuple[Rgb, ...] = (
    (0.46, 0.29, 0.16),
    (0.58, 0.42, 0.26),
    (0.32, 0.20, 0.12),
    (0.50, 0.47, 0.43),
    (0.38, 0.42, 0.40),
)
_STYLES_OF_WALLS = (
    TextureStyle.CLOUDS,
    TextureStyle.MOSAIC,
    TextureStyle.SPOTS,
    TextureStyle.TILES,
    TextureStyle.COLLAGE,
    TextureStyle.MARBLE,
)
_STYLES_OF_FLOORS = (
    TextureStyle.PLANKS,
    TextureStyle.PLANKS,
    TextureStyle.TILES,
    TextureStyle.MOSAIC,
    TextureStyle.MARBLE,
)
_STYLES_OF_OBJECTS = (
    TextureStyle.CLOUDS,
    TextureStyle.MOSAIC,
    TextureStyle.SPOTS,
    TextureStyle.COLLAGE,
    TextureStyle.FIBRES,
    TextureStyle.MARBLE,
)


@dataclass(frozen=True)
class Material:
    """What a surface looks like: a ramp dark, middle, light over the values of a texture."""

    dark: Rgb
    middle: Rgb
    light: Rgb
    texture: int
    """Index into the texture bank."""
    scale: float
    """Texture metres per metre: 2 means features half as large."""
    turn_rad: float
    """Rotation of the texture on the surface."""
    offset_m: tuple[float, float]
    """Where on the texture the surface begins."""
    glow: float = 0.0
    """Share of light that does not come from the lamps (screens, windows, lamp shades)."""

    def row(self) -> list[float]:
        """The numbers that the shader reads, in the order of `shading.MATERIAL_COLUMNS`."""
        return [
            *self.dark,
            *self.middle,
            *self.light,
            float(self.texture),
            self.scale,
            self.turn_rad,
            *self.offset_m,
            self.glow,
        ]


def _mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    r, g, b = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return (r, g, b)


def make_material(
    draws: Draws,
    base: Rgb,
    styles: tuple[TextureStyle, ...],
    scale: float,
    contrast: float,
    *,
    glow: float = 0.0,
) -> Material:
    """A material around a base colour.

    Args:
        draws: the scene's random stream.
        base: linear RGB of the middle of the ramp.
        styles: texture families to choose from.
        scale: texture metres per metre.
        contrast: 0 (plain) .. 1 (dark parts nearly black, light parts nearly white).
        glow: share of light of its own.
    """
    tint = (0.05 + draws.unit() * 0.2, 0.05 + draws.unit() * 0.2, 0.05 + draws.unit() * 0.2)
    shine = (0.75 + draws.unit() * 0.25, 0.75 + draws.unit() * 0.25, 0.75 + draws.unit() * 0.25)
    style = draws.choice(styles)
    # Planks and fibres run along a wall or a table; other textures may lie at any angle.
    straight = style in (TextureStyle.PLANKS, TextureStyle.TILES, TextureStyle.FIBRES)
    return Material(
        dark=_mix(base, _mix(tint, base, 0.25), 0.9 * contrast),
        middle=base,
        light=_mix(base, shine, 0.45 * contrast),
        texture=draws.choice(TEXTURES_OF[style]),
        scale=scale,
        turn_rad=0.0 if straight else draws.unit() * 6.2832,
        offset_m=(draws.unit() * 5.0, draws.unit() * 5.0),
        glow=glow,
    )


def wall_material(draws: Draws, scale: float, contrast: float) -> Material:
    """A wall: a pale tone with a pattern strong enough to be matched."""
    return make_material(draws, draws.choice(_WALL_TONES), _STYLES_OF_WALLS, scale * 1.4, contrast)


def floor_material(draws: Draws, scale: float, contrast: float) -> Material:
    """A floor: planks, tiles, mosaic or stone."""
    return make_material(draws, draws.choice(_FLOOR_TONES), _STYLES_OF_FLOORS, scale, contrast)


def ceiling_material(draws: Draws, scale: float, contrast: float) -> Material:
    """A pale ceiling."""
    return make_material(draws, (0.80, 0.80, 0.78), (TextureStyle.CLOUDS,), scale, contrast * 0.7)


def object_material(draws: Draws, base: Rgb, scale: float, contrast: float, *, glow: float = 0.0) -> Material:
    """The coloured part of an object."""
    return make_material(draws, base, _STYLES_OF_OBJECTS, scale, contrast, glow=glow)


def picture_material(draws: Draws, base: Rgb, scale: float) -> Material:
    """A poster, a book row or a rug: a lively pattern."""
    return make_material(draws, base, (TextureStyle.COLLAGE, TextureStyle.SPOTS), scale, 1.0)


def wood_material(draws: Draws, scale: float, contrast: float) -> Material:
    """Wooden parts of furniture."""
    return make_material(draws, WOOD, (TextureStyle.PLANKS, TextureStyle.FIBRES), scale, contrast)
