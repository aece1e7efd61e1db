"""Parts of photos that are left out: by black and white pictures beside them, or because they show sky.

They become transparent: no point comes from them, and they judge no other view.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from g2vlm.errors import InputError
from g2vlm.inputs.decode import decode_file, printable
from g2vlm.inputs.formats.kinds import IMAGE_SUFFIXES
from g2vlm.inputs.known.sky import sky_mask
from g2vlm.inputs.photo import Photo
from g2vlm.inputs.photos import PhotoSet

_ASPECT_TOLERANCE = 0.02
_WHITE = 128


def mask_photos(photos: PhotoSet, folder: str | Path, *, inverted: bool = False) -> tuple[PhotoSet, str]:
    """The photos with what their masks cover in black left out.

    Args:
        photos: of one scene.
        folder: black and white pictures, each named as its photo: `0001.png` or `0001.jpg.png` for
            `0001.jpg`, of the same shape, at any resolution. Black is left out, white stays, as in COLMAP
            and nerfstudio.
        inverted: white is left out, black stays.

    Returns:
        The photos, and a line that says how many masks were found. Photos without a mask stay whole.

    Raises:
        InputError: no such folder, no mask for any photo, one of another shape, or all pixels left out.
    """
    masks = mask_files(folder)
    found = {photo.name: path for photo in photos.photos if (path := mask_of(photo.name, masks)) is not None}
    if not found:
        raise InputError(
            f"Expected masks named like the photos ({photos.photos[0].name}, ...) in "
            f"{printable(str(folder))}, "
            f"got {', '.join(sorted(path.name for path in masks.values())[:3])}: rename them."
        )
    kept = {name: read_mask(path) ^ inverted for name, path in found.items()}
    covered = [
        _covered(photo, kept[photo.name], found[photo.name]) if photo.name in kept else photo
        for photo in photos.photos
    ]
    whole = len(covered) - len(found)
    rest = f", {whole} without one stay whole" if whole else ""
    share = 100 * (1 - float(np.mean([mask.mean() for mask in kept.values()])))
    return replace(photos, photos=tuple(covered)), f"masks: {len(found)} photos, {share:.0f} % left out{rest}"


def mask_sky(photos: PhotoSet) -> tuple[PhotoSet, str]:
    """The photos with sky left out, by the rule of `known.sky`.

    Returns:
        The photos, and a line that says in how many of them sky was found.
    """
    covered, shares = [], []
    for photo in photos.photos:
        sky = sky_mask(np.asarray(photo.smallest()))
        shares.append(float(sky.mean()))
        covered.append(photo.masked(~sky) if 0 < shares[-1] < 1 else photo)
    seen = [share for share in shares if 0 < share < 1]
    text = f", {100 * float(np.mean(seen)):.0f} % of these left out" if seen else ""
    return replace(photos, photos=tuple(covered)), f"sky: in {len(seen)} of {len(shares)} photos{text}"


def mask_files(folder: str | Path) -> dict[str, Path]:
    """Pictures of a folder by their name without its last ending, in small letters.

    Raises:
        InputError: no such folder, or no pictures in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"Expected a folder of masks, got {printable(str(folder))}.")
    masks = {
        path.stem.casefold(): path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    if not masks:
        raise InputError(f"Expected black and white pictures in {printable(str(folder))}, got none.")
    return masks


def mask_of(name: str, masks: dict[str, Path]) -> Path | None:
    """The mask of a photo: named as it, as it without its ending, or either before `_mask`."""
    keys: Iterable[str] = (name.casefold(), Path(name).stem.casefold())
    return next(
        (masks[key + end] for key in keys for end in ("", "_mask", "-mask") if key + end in masks), None
    )


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """True where a mask is white.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return np.asarray(decode_file(path).convert("L")) >= _WHITE
    except InputError as error:
        raise InputError(f"Cannot read the mask {printable(str(path))}: {error}.") from error


def require_shape(size: tuple[int, int], mask: np.ndarray, path: Path) -> None:
    """Check that a mask has the shape of its photo, at any resolution.

    Raises:
        InputError: it has another, or leaves nothing of it.
    """
    height, width = mask.shape
    if abs(np.log(width * size[1] / (height * size[0]))) > _ASPECT_TOLERANCE:
        raise InputError(
            f"Expected a mask of the shape of its photo, {size[0]}x{size[1]}, but {printable(str(path))} has "
            f"{width}x{height}: it must cover the whole upright photo."
        )
    if not mask.any():
        raise InputError(
            f"Expected a mask that leaves something, but {printable(str(path))} leaves out everything: black "
            "is "
            "left out and white stays, unless inverted."
        )


def _covered(photo: Photo, mask: np.ndarray, path: Path) -> Photo:
    require_shape(photo.size, mask, path)
    return photo.masked(mask)
