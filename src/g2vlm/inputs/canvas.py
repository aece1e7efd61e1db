"""Where photos lie on the canvas that all views share: sizes alone, without tensors.

Processes that only decode use this too, so nothing here imports torch.
"""

from dataclasses import dataclass
from enum import Enum

from g2vlm.errors import InputError


class Fit(Enum):
    """What happens to a photo whose shape differs from the first one's."""

    STRETCH = "stretch"
    """Resized to the first photo's size whatever its shape: what the released model does."""

    PAD = "pad"
    """Resized with its shape kept, centred, and surrounded by white pixels that are marked invalid.

    A photo that rounds to the first one's patch grid is resized as released, so that photos of one shape give
    the same pixels under both choices.
    """


@dataclass(frozen=True)
class PhotoPlace:
    """Where a resized photo lies inside the canvas all views share, in pixels."""

    width: int
    height: int
    left: int
    top: int


def canvas_size(original_size: tuple[int, int], *, width: int = 518, patch: int = 14) -> tuple[int, int]:
    """The size all views get when a photo of `original_size` comes first.

    Args:
        original_size: (width, height) of the upright photo in pixels.
        width: Width of the canvas in pixels, a multiple of `patch`.
        patch: Side of a patch in pixels.

    Returns:
        (width, height) in pixels; the height is the one that keeps the shape, rounded to whole patches with
        ties to even, as the released code does.

    Raises:
        InputError: The width is not a positive multiple of the patch, or the height rounds to zero.
    """
    if width < patch or width % patch:
        raise InputError(f"Expected an image width that is a positive multiple of {patch}, got {width}.")
    original_width, original_height = original_size
    height = _rows(original_size, width, patch) * patch
    if height == 0:
        raise InputError(
            f"The first photo is {original_width}x{original_height}, too flat to reconstruct: at {width} "
            f"pixels width it would be under half a {patch}-pixel patch high: crop it, or put another first."
        )
    return width, height


def _rows(size: tuple[int, int], width: int, patch: int) -> int:
    """Patch rows of a photo at the common width, its shape kept; ties go to the even number."""
    return round(size[1] * width / size[0] / patch)


def fills_canvas(size: tuple[int, int], canvas: tuple[int, int], patch: int) -> bool:
    """Whether a photo has the canvas's shape, up to the rounding to patches."""
    return _rows(size, canvas[0], patch) * patch == canvas[1]


def place_photo(size: tuple[int, int], canvas: tuple[int, int], patch: int, fit: Fit) -> PhotoPlace:
    """Decide size and position of one photo on the canvas.

    Args:
        size: (width, height) of the upright photo in pixels.
        canvas: (width, height) that all views share.
        patch: Side of a patch in pixels.
        fit: What to do with photos of another shape.
    """
    if fit is Fit.STRETCH or fills_canvas(size, canvas, patch):
        return PhotoPlace(canvas[0], canvas[1], 0, 0)
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    width = min(max(round(size[0] * scale), 1), canvas[0])
    height = min(max(round(size[1] * scale), 1), canvas[1])
    return PhotoPlace(width, height, (canvas[0] - width) // 2, (canvas[1] - height) // 2)
