"""Any kind of pixel to 8-bit RGB: transparency, palettes, gray of many bits, colour profiles.

Pictures that are plain sRGB already pass unchanged, bit for bit.
"""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_SENSOR_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Largest values of 8, 10, 12, 14 and 16 bits: sensors of fewer bits are stored in 16."""
_FLOAT_WHITES = (1.0, 255.0, 65535.0)

_SAME_COLOUR = 2
"""Levels up to which a profile counts as sRGB; versions of sRGB differ by one."""

_PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Colours:
    """A picture in 8-bit RGB, and where it can be seen through."""

    rgb: Image.Image
    """Transparency laid on white."""

    visible: Image.Image | None = None
    """Mode L: 0 where the picture is fully transparent, 255 elsewhere; none if it is transparent nowhere."""


def to_colours(image: Image.Image, icc: bytes = b"") -> Colours:
    """Bring a loaded Pillow image of any mode to 8-bit RGB.

    Gray of more than 8 bits is scaled by the smallest usual range that holds its largest value, since files
    of 10, 12 and 14 bits do not say so. A picture that is transparent everywhere but holds colours has lost
    its transparency on the way, not its colours: it counts as opaque.

    Args:
        image: The image; it is not changed.
        icc: Its colour profile. Colours are converted to sRGB; a profile that cannot be used is ignored.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return Colours(_to_srgb(image, icc))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Colours(_wide_gray_to_rgb(image))
    if image.has_transparency_data:
        return _without_alpha(image, icc)
    if image.mode in ("L", "CMYK"):
        return Colours(_to_srgb(image, icc))
    return Colours(_to_srgb(image.convert("RGB"), icc))


def range_to_bytes(values: np.ndarray, white: float) -> np.ndarray:
    """Map 0..white to 0..255, rounding to nearest."""
    return np.clip(np.rint(values.astype(np.float64) * (255.0 / white)), 0, 255).astype(np.uint8)


def undeclared_range_to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale values whose file does not say which one is white.

    The smallest of the usual ranges (1, 8 bit or 16 bit for floats; 8, 10, 12, 14 or 16 bit for integers)
    that holds the largest value is taken, or that value itself. What is not a number becomes black.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        peak = int(values.max())
        # A table instead of arithmetic: photos have millions of pixels, but only so many values.
        table = range_to_bytes(np.arange(65536), next(white for white in _SENSOR_WHITES if peak <= white))
        return table[values]
    whites = _FLOAT_WHITES if np.issubdtype(values.dtype, np.floating) else _SENSOR_WHITES
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(numbers.max())
    return range_to_bytes(numbers, next((white for white in whites if largest <= white), largest))


def _wide_gray_to_rgb(image: Image.Image) -> Image.Image:
    """Scale gray of more than 8 bits."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        values = values.astype(np.uint16)
    # The PPM formats declare their white; Pillow has scaled it to 16 bits.
    declared = getattr(image, "format", None) == "PPM" and image.mode == "I"
    levels = range_to_bytes(values, 65535.0) if declared else undeclared_range_to_bytes(values)
    return Image.fromarray(levels).convert("RGB")


def _without_alpha(image: Image.Image, icc: bytes) -> Colours:
    """Lay a picture on white, and say where it is fully transparent."""
    # Pillow leads from "La" (premultiplied) to RGBA only by way of "LA".
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = rgba.getchannel("A")
    rgb = _to_srgb(rgba.convert("RGB"), icc)
    least, most = alpha.getextrema()
    if least == 255 or (most == 0 and not _is_uniform(rgb)):
        return Colours(rgb)
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    laid = rgb.convert("RGBA")
    laid.putalpha(alpha)
    visible = None if least else alpha.point([0] + [255] * 255)
    return Colours(Image.alpha_composite(white, laid).convert("RGB"), visible)


def _is_uniform(image: Image.Image) -> bool:
    return all(low == high for low, high in image.getextrema())  # type: ignore[misc]


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert RGB, gray or CMYK through its profile, or plainly where there is no usable one."""
    if icc:
        transform = _transform(icc, image.mode)
        if transform is not None:
            return transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def changes_colours(icc: bytes, mode: str) -> bool:
    """Whether colours under a profile have to be converted to become sRGB."""
    return bool(icc) and _transform(icc, mode) is not None


@lru_cache(maxsize=16)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """How to get from a profile to sRGB; none if that changes nothing, or the profile is of no use."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if source.profile.xcolor_space != _PROFILE_SPACES.get(mode):
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return transform if _changes_colours(transform, mode) else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        # A damaged profile only costs colour accuracy: the photo itself is intact.
        return None


def _changes_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform does more than the differences between versions of sRGB."""
    if mode == "CMYK":
        return True
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    before = Image.fromarray(colours if mode == "RGB" else np.ascontiguousarray(colours[..., 0]))
    after = np.asarray(transform.apply(before), dtype=int)
    return bool(np.abs(after - np.asarray(before.convert("RGB"), dtype=int)).max() > _SAME_COLOUR)
