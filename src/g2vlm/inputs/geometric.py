"""Photos to the input of the geometric encoder: one size, values in 0..1, where each pixel came from.

The first photo decides the size of all: 518 pixels wide, the height rounded to whole 14-pixel patches. The
released model stretches every other photo to that size (`Fit.STRETCH`); `Fit.PAD` keeps their shape instead.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from PIL import Image
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.cameras import pad_affine, resize_affine
from g2vlm.inputs.canvas import Fit, PhotoPlace, canvas_size, fills_canvas, place_photo
from g2vlm.inputs.notices import InputWarning
from g2vlm.inputs.photo import Photo

__all__ = [
    "Fit",
    "GeometricImages",
    "PhotoPlace",
    "StretchedPhotosWarning",
    "canvas_size",
    "place_photo",
    "prepare_geometric",
]

PAD_COLOR = (255, 255, 255)


class StretchedPhotosWarning(InputWarning):
    """Photos of different shapes were stretched to one."""


@dataclass(frozen=True)
class GeometricImages:
    """Views ready for the geometric encoder (which applies its own mean and deviation)."""

    pixels: Float[Tensor, "views 3 height width"]
    """RGB in 0..1, float32; height and width are whole numbers of patches."""

    valid: Bool[Tensor, "views height width"]
    """False on padding and where a photo is fully transparent, true wherever a pixel shows the photo."""

    T_model_original: Float64[Tensor, "views 3 3"]
    """Pixel affine: model pixel = T @ (u, v, 1) of the upright original photo, pixel centres at integers."""

    original_sizes: tuple[tuple[int, int], ...]
    """(width, height) of every upright original photo."""


def prepare_geometric(
    photos: Sequence[Photo], *, width: int = 518, patch: int = 14, fit: Fit = Fit.STRETCH
) -> GeometricImages:
    """Bring photos to the size of the first one, as the geometric encoder wants them.

    Args:
        photos: At least one photo, upright RGB.
        width: Common width in pixels, a multiple of `patch`; the released weights were trained at 518.
        patch: Side of the encoder's patches in pixels.
        fit: What to do with photos of another shape than the first.

    Returns:
        The views in the order of the photos. Resizing is Pillow's Lanczos filter on 8-bit values, followed by
        a division by 255, which reproduces the released preparation bit for bit.

    Raises:
        InputError: No photo, a width that is not a whole number of patches, or a first photo so flat that not
            one row of patches remains.

    Warns:
        StretchedPhotosWarning: `Fit.STRETCH` changed the shape of some photos.
    """
    if not photos:
        raise InputError("Expected at least one photo to prepare, got none: add a photo.")
    canvas = canvas_size(photos[0].size, width=width, patch=patch)
    pixels = torch.empty(len(photos), 3, canvas[1], canvas[0])
    valid = torch.zeros(len(photos), canvas[1], canvas[0], dtype=torch.bool)
    transforms = torch.empty(len(photos), 3, 3, dtype=torch.float64)
    for index, photo in enumerate(photos):
        place = place_photo(photo.size, canvas, patch, fit)
        pixels[index] = _render(photo, canvas, place)
        shown = valid[index, place.top : place.top + place.height, place.left : place.left + place.width]
        visible = photo.visible((place.width, place.height))
        shown[...] = True if visible is None else torch.from_numpy(visible)
        resize = resize_affine(photo.size, (place.width, place.height))
        transforms[index] = pad_affine(place.left, place.top) @ resize
    if fit is Fit.STRETCH:
        _warn_if_stretched(photos, canvas, patch)
    return GeometricImages(pixels, valid, transforms, tuple(photo.size for photo in photos))


def _warn_if_stretched(photos: Sequence[Photo], canvas: tuple[int, int], patch: int) -> None:
    """Say which photos lost their shape."""
    stretched = [photo for photo in photos if not fills_canvas(photo.size, canvas, patch)]
    if stretched:
        width, height = stretched[0].size
        warnings.warn(
            f"{len(stretched)} of {len(photos)} photos are stretched to the shape of the first, such as "
            f"{stretched[0].name} ({width}x{height}): fit them with padding to keep their shape.",
            StretchedPhotosWarning,
            stacklevel=3,
        )


def _render(photo: Photo, canvas: tuple[int, int], place: PhotoPlace) -> Float[Tensor, "3 height width"]:
    """Resize one photo and lay it on the canvas."""
    resized = photo.resized((place.width, place.height), Image.Resampling.LANCZOS)
    if resized.size != canvas:
        padded = Image.new("RGB", canvas, PAD_COLOR)
        padded.paste(resized, (place.left, place.top))
        resized = padded
    # np.array copies: Pillow's own buffer is read-only, which torch warns about.
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).to(torch.float32).div(255.0)
