"""Frames one after the other, in constant memory: videos, folders, cameras, live pipes."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import Photo, decode_array, decode_file, decode_image, printable
from g2vlm.inputs.formats.opencv import silent_opencv
from g2vlm.inputs.geometric import Fit, GeometricImages, canvas_size, prepare_geometric
from g2vlm.inputs.listing import Candidate, PhotoItem, list_file, list_folder
from g2vlm.inputs.notices import SkippedInputWarning
from g2vlm.inputs.reading import read_candidate
from g2vlm.inputs.video import is_video, iterate_frames

if TYPE_CHECKING:
    import cv2

FrameSource = str | Path | int | Iterable[PhotoItem | Photo]
"""A video, a folder of photos, the number of a camera, or anything that yields images or files."""

_DROPPED_FRAMES = 100


def open_frames(source: FrameSource, *, rate_hz: float | None = None) -> Iterator[Photo]:
    """Read frames as they are needed, holding one at a time.

    Args:
        source: a video file; a folder (its photos in natural order); a camera by its number; or an iterable
            of Pillow images, (height, width, channels) arrays, image files or `Photo`s, such as a live pipe.
        rate_hz: frames per second taken from a video; every frame if None. Only for videos.

    Yields:
        Upright RGB frames. Files and images of a folder or iterable that cannot be used are left out with a
        `SkippedInputWarning`.

    Raises:
        InputError: nothing there, nothing usable in it, or a camera that does not open.
    """
    if isinstance(source, bool) or not isinstance(source, str | Path | int | Iterable):
        raise InputError(f"Expected a video, folder, camera number or images, got {source!r}.")
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if is_video(path):
            return iterate_frames(path, rate_hz=rate_hz)
        _refuse_rate(rate_hz)
        return _usable(_pictures_of(path), printable(str(path)))
    _refuse_rate(rate_hz)
    if isinstance(source, int):
        return _camera(source)
    if isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim == 3):
        raise InputError("Expected many images to go through one by one, got a single one: reconstruct it.")
    return _usable(source, "the images")


def _refuse_rate(rate_hz: float | None) -> None:
    if rate_hz is not None:
        raise InputError("Expected a frame rate only for a video file: leave it out for other sources.")


def _pictures_of(path: Path) -> tuple[Candidate, ...]:
    """Photos of a folder, or pictures of an animation, in order."""
    if path.is_file():
        pictures = list_file(path).candidates
        if len(pictures) > 1:
            return pictures
        raise InputError(
            f"Expected a video or a folder of photos, got the file {printable(str(path))}, which "
            "is no video or animation."
        )
    if not path.is_dir():
        raise InputError(f"No such video or folder: {printable(str(path))}. Check the path.")
    listing = list_folder(path)
    if not listing.candidates:
        raise InputError(f"Expected photos in the folder {printable(str(path))}, found none.")
    for name in listing.beside:
        text = f"Left out {name}: a mask, depth map or raw version beside a photo."
        warnings.warn(text, SkippedInputWarning, stacklevel=3)
    return listing.candidates


def _usable(items: Iterable[PhotoItem | Photo | Candidate], label: str) -> Iterator[Photo]:
    num_used = 0
    for place, item in enumerate(items):
        try:
            photo = _photo(item, place)
        except InputError as error:
            name = _name(item, place)
            warnings.warn(f"Left out {name}: {error}.", SkippedInputWarning, stacklevel=2)
            continue
        num_used += 1
        yield photo
    if num_used == 0:
        raise InputError(f"Expected at least one usable image in {label}, found none.")


def _name(item: PhotoItem | Photo | Candidate, place: int) -> str:
    if isinstance(item, Candidate):
        return item.name
    return printable(str(item)) if isinstance(item, str | Path) else f"image_{place}"


def _photo(item: PhotoItem | Photo | Candidate, place: int) -> Photo:
    name = f"image_{place:06d}"
    if isinstance(item, Photo):
        return item
    if isinstance(item, Candidate):
        return read_candidate(item)
    if isinstance(item, str | Path):
        path = Path(item).expanduser()
        return Photo(decode_file(path), printable(path.name), path=path.absolute())
    if isinstance(item, Image.Image):
        return Photo(decode_image(item), name)
    if isinstance(item, np.ndarray):
        return Photo(decode_array(item), name)
    raise InputError(f"expected an image file, Pillow image or array, got {type(item).__name__}")


def _camera(index: int) -> Iterator[Photo]:
    """Frames of a camera as it delivers them, with the time since the first; ends when it stops."""
    if index < 0:
        raise InputError(f"Expected the number of a camera, 0 or more, got {index}.")
    with silent_opencv() as cv2:
        capture = cv2.VideoCapture(index)
    try:
        if not capture.isOpened():
            raise InputError(f"Expected a camera at number {index}, but none opens: check that it is free.")
        yield from _captured(capture, index)
    finally:
        capture.release()


def _captured(capture: "cv2.VideoCapture", index: int) -> Iterator[Photo]:
    import time

    start, count, failures = time.monotonic(), 0, 0
    while failures < _DROPPED_FRAMES:
        read, frame = capture.read()
        if not read:
            failures += 1
            continue
        failures = 0
        rgb = np.ascontiguousarray(frame[..., ::-1])
        yield Photo(Image.fromarray(rgb), f"camera{index}_{count:06d}", time.monotonic() - start)
        count += 1


class FramePreparer:
    """Prepares frames one by one as `prepare_geometric` does all at once: the first decides the size.

    Args:
        width: common width in pixels, a multiple of `patch`.
        patch: side of the encoder's patches.
        fit: what to do with frames of another shape than the first.
    """

    def __init__(self, *, width: int, patch: int, fit: Fit = Fit.STRETCH) -> None:
        self.width, self.patch, self.fit = width, patch, fit
        self._canvas: Image.Image | None = None

    def begin(self, first: Photo) -> None:
        """Let the first frame decide the size of all, if that has not happened yet.

        Raises:
            InputError: it is too flat.
        """
        if self._canvas is None:
            size = canvas_size(first.size, width=self.width, patch=self.patch)
            self._canvas = Image.new("RGB", size)

    def __call__(self, photos: list[Photo]) -> GeometricImages:
        """Prepare some frames; at least one.

        Raises:
            InputError: the very first frame is too flat.
        """
        self.begin(photos[0])
        assert self._canvas is not None
        # A blank image of the common size stands first, so that it decides as the first frame did.
        both = [Photo(self._canvas, "canvas"), *photos]
        images = prepare_geometric(both, width=self.width, patch=self.patch, fit=self.fit)
        return GeometricImages(
            images.pixels[1:], images.valid[1:], images.T_model_original[1:], images.original_sizes[1:]
        )
