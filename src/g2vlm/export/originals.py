"""The original photos of a scene: found again, upright, under names that any software can read."""

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import Photo, decode_file, is_upright_rgb
from g2vlm.inputs.video import iterate_numbered_frames
from g2vlm.scene.save_options import ImageFiles
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

_LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".tga")
_JPEG_QUALITY = 95
_NAMED = 4


class MissingOriginalWarning(UserWarning):
    """Originals could not be found; the network's images, enlarged, stand in for them."""


@dataclass(frozen=True, eq=False)
class Original:
    """The upright original picture of one view, or its stand-in."""

    image: Image.Image
    """RGB, of the view's `original_size`."""
    path: Path | None
    """A file that any reader sees exactly so; None if the picture must be written anew."""
    is_stand_in: bool
    """Whether it is the network's image, enlarged, because the original is not at hand."""


def originals(scene: Scene, photos: Path | None = None) -> Iterator[Original]:
    """The original picture of each view, in order; a few are in memory at a time.

    Frames of a video are decoded again. Where a file is gone, has another size than before, or never existed,
    the network's image is enlarged to the original size.

    Args:
        scene: whose views say where their pictures come from.
        photos: a folder in which files are looked for by name before their recorded place.

    Warns:
        MissingOriginalWarning: at the end, if there were stand-ins.
    """
    missing = []
    videos = _Videos(scene.views, photos)
    for view in scene.views:
        found = videos.frame_of(view) if view.frame_index is not None else _from_file(view, photos)
        if found is None or found.image.size != view.original_size:
            found = _stand_in(view)
            missing.append(view.name)
        yield found
    if missing:
        rest = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        warnings.warn(
            f"The originals of {', '.join(missing[:_NAMED])}{rest} are not at hand: the network's images, "
            "enlarged, stand in for them. Name the folder they lie in (photos).",
            MissingOriginalWarning,
            stacklevel=2,
        )


def source_file(view: View, photos: Path | None) -> Path | None:
    """The file of a view's picture, in the folder `photos` or where it was; None if it is in neither."""
    if view.source_path is None:
        return None
    recorded = Path(view.source_path)
    places = [recorded] if photos is None else [photos / recorded.name, recorded]
    return next((place for place in places if place.is_file()), None)


def _from_file(view: View, photos: Path | None) -> Original | None:
    path = source_file(view, photos)
    if path is None:
        return None
    try:
        image = decode_file(path)
        return Original(image, path if is_upright_rgb(path) else None, is_stand_in=False)
    except InputError:
        return None  # told with the other missing ones


class _Videos:
    """Frames of the videos behind views, each video decoded once where its frames come in order."""

    def __init__(self, views: Sequence[View], photos: Path | None) -> None:
        self._photos = photos
        self._wanted: dict[Path, list[int]] = {}
        for view in views:
            path = source_file(view, photos)
            if path is not None and view.frame_index is not None:
                self._wanted.setdefault(path, []).append(view.frame_index)
        self._passes: dict[Path, tuple[int, Iterator[tuple[int, Photo]]]] = {}

    def frame_of(self, view: View) -> Original | None:
        """The frame that a view shows; None if it cannot be read."""
        path, index = source_file(view, self._photos), view.frame_index
        if path is None or index is None:
            return None
        last, frames = self._passes.get(path, (-1, iter(())))
        if index <= last or last < 0:
            frames = iterate_numbered_frames(path, self._wanted[path])
        try:
            for number, photo in frames:
                self._passes[path] = (number, frames)
                if number == index:
                    return Original(photo.image, None, is_stand_in=False)
                if number > index:  # the frame wanted does not decode
                    return None
        except InputError:
            pass  # told with the other missing ones
        self._passes.pop(path, None)
        return None


def _stand_in(view: View) -> Original:
    """The network's image on the pixels of the original; outside of it the border is repeated."""
    import cv2

    width, height = view.original_size
    affine = np.asarray(view.T_model_original[:2], dtype=np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(
        np.ascontiguousarray(view.rgb), affine, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return Original(Image.fromarray(pixels), None, is_stand_in=True)


def image_names(scene: Scene) -> list[str]:
    """File names for the pictures of all views: distinct, one word, ending in .jpg or .png.

    They follow the names of the views. White space and characters with a meaning in paths become `_`, since
    COLMAP's text format cannot hold them.
    """
    taken: set[str] = set()
    names = []
    for view in scene.views:
        stem, suffix = _stem_and_suffix(view)
        candidates = (f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
        name = next(name for name in candidates if name.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def _stem_and_suffix(view: View) -> tuple[str, str]:
    path = Path(view.name)
    is_file = view.frame_index is None and path.suffix.lower() in (*_LOSSLESS, ".jpg", ".jpeg")
    keeps = path.suffix.lower() in (".png", ".jpg", ".jpeg") and is_file
    lossless = is_file and path.suffix.lower() in _LOSSLESS
    suffix = path.suffix if keeps else (".png" if lossless else ".jpg")
    known = {*_LOSSLESS, ".jpg", ".jpeg", ".heic", ".heif", ".webp", ".avif", ".jp2", ".jfif"}
    stem = path.stem if path.suffix.lower() in known else path.name
    return re.sub(r"[\s/\\:*?\"<>|\x00-\x1f]+", "_", stem).lstrip(".") or "view", suffix


def place_image(original: Original, target: Path, files: ImageFiles) -> None:
    """Put an original picture at `target`, whose ending is .jpg or .png: as a copy, a link, or written anew.

    Args:
        original: the picture.
        target: a new file.
        files: copy or link; `NONE` writes nothing.
    """
    if files is ImageFiles.NONE:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if original.path is not None and original.path.suffix.lower() == target.suffix.lower():
        if files is ImageFiles.LINK:
            os.symlink(original.path.resolve(), target)
        else:
            shutil.copyfile(original.path, target)
    elif target.suffix.lower() == ".png":
        original.image.save(target, compress_level=6)
    else:
        original.image.save(target, quality=_JPEG_QUALITY, subsampling=0)
