"""Photos from wherever they are: a folder, a pattern, files, a video, images in memory."""

import glob
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import IMAGE_SUFFIXES, Photo, decode_array, decode_file, decode_image, printable
from g2vlm.inputs.video import VIDEO_SUFFIXES, FrameChoice, FrameChoiceKind, evenly_spread, read_frames

__all__ = [
    "FrameChoice",
    "FrameChoiceKind",
    "Photo",
    "PhotoItem",
    "PhotoSet",
    "PhotoSource",
    "Skipped",
    "SkippedInputWarning",
    "load_photos",
    "natural_key",
]

PhotoItem = str | Path | Image.Image | np.ndarray
"""One photo: a file, or an image in memory."""

_SPREAD = FrameChoice()
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_NAMED_IN_MESSAGE = 8


class SkippedInputWarning(UserWarning):
    """Some inputs could not be used and were left out."""


@dataclass(frozen=True)
class Skipped:
    """An input that was left out."""

    name: str
    """File name, or place in the list for an image in memory."""

    reason: str
    """Why, in a few words."""


@dataclass(frozen=True)
class PhotoSet:
    """Photos of one scene, in order, and what happened on the way to them."""

    photos: tuple[Photo, ...]
    """At least one photo; their names differ."""

    skipped: tuple[Skipped, ...]
    """Inputs that could not be used."""

    source: str
    """The folder, pattern, file or video, or "memory" or "a list", for messages and reports."""

    frame_indices: tuple[int, ...] | None = None
    """For a video the number of every frame, counted from 0; none for photos."""


PhotoSource = PhotoItem | Sequence[PhotoItem] | PhotoSet
"""Where photos may come from: a folder, pattern, file or video; an image or array in memory; a list; or what
`load_photos` returned before."""


@dataclass(frozen=True)
class _Candidate:
    """An input that may turn out to be a photo."""

    name: str
    decode: Callable[[], Image.Image]
    path: Path | None = None


@dataclass(frozen=True)
class _Listing:
    """What a source holds before anything is decoded."""

    label: str
    candidates: tuple[_Candidate, ...]
    skipped: tuple[Skipped, ...] = ()


def load_photos(
    source: PhotoSource, *, max_views: int | None = None, frames: FrameChoice = _SPREAD
) -> PhotoSet:
    """Load the photos of one scene.

    Args:
        source: A folder (its photos in natural order: img2 before img10; hidden files are ignored, folders
            inside not searched), a glob pattern, one photo, one video, an image in memory, a (views, height,
            width, channels) array, or a list of photo files and images in memory, kept in its order. Photos
            that this function returned before are only thinned.
        max_views: Upper limit on the number of views; of more, an evenly spread part is kept that includes
            the first and the last.
        frames: Which frames to take if the source is a video.

    Returns:
        The photos. What could not be used is listed in `skipped` and named in a `SkippedInputWarning`.

    Raises:
        InputError: The source does not exist or holds nothing usable, or `max_views` is below 1.
    """
    if max_views is not None and max_views < 1:
        raise InputError(f"Expected a maximum of at least 1 view, got {max_views}.")
    if isinstance(source, PhotoSet):
        return _thinned(source, max_views)
    if not isinstance(source, str | Path):
        listing = _list_items(source)
    elif not str(source).strip():
        raise InputError("Expected a folder, a photo or a video, got an empty path.")
    elif re.match(r"[A-Za-z]{2,}://", str(source)):
        raise InputError(f"Expected a file or folder on this machine, got {source}: download it first.")
    else:
        path = _expanded(source)
        try:
            is_folder, is_entry = path.is_dir(), path.exists() or path.is_symlink()
        except OSError as error:  # a folder on the way that may not be entered, or an impossible name
            raise InputError(f"Cannot look up {printable(str(path))}: {error.strerror}.") from error
        if is_entry and not is_folder:
            return _load_file(path, max_views, frames)
        listing = _list_folder(path) if is_folder else _list_pattern(path)
    photos, damaged = _decode(listing.candidates, max_views)
    skipped = (*listing.skipped, *damaged)
    if not photos:
        raise InputError(f"No usable photo in {listing.label}: {_describe(skipped)}.")
    if skipped:
        message = f"Left out {len(skipped)} of the inputs in {listing.label}: {_describe(skipped)}."
        warnings.warn(message, SkippedInputWarning, stacklevel=2)
    return PhotoSet(_with_distinct_names(photos), skipped, listing.label)


def _thinned(photos: PhotoSet, max_views: int | None) -> PhotoSet:
    if max_views is None or len(photos.photos) <= max_views:
        return photos
    kept = evenly_spread(len(photos.photos), max_views)
    indices = photos.frame_indices
    return replace(
        photos,
        photos=tuple(photos.photos[i] for i in kept),
        frame_indices=None if indices is None else tuple(indices[i] for i in kept),
    )


def natural_key(path: str | Path) -> tuple[object, ...]:
    """Sorting key that compares numbers inside names by value: img2 before img10, case ignored.

    Args:
        path: A file name or path, compared folder by folder.
    """
    path = Path(path)
    # The ending is compared apart, so that img.jpg comes before img1.jpg; then the path as it stands, so that
    # names that differ in case or leading zeros only still have a fixed order.
    parts = (*path.parent.parts, path.stem, path.suffix)
    return tuple(_natural_pieces(part) for part in parts), str(path)


def _natural_pieces(text: str) -> tuple[str | int, ...]:
    """Text and numbers in turn, text (possibly none) first: places of two results can always be compared."""
    pieces = re.split(r"([0-9]+)", text.casefold())
    return tuple(int(piece) if place % 2 else piece for place, piece in enumerate(pieces))


def _load_file(path: Path, max_views: int | None, frames: FrameChoice) -> PhotoSet:
    """Load a single video or photo."""
    label = printable(str(path))
    if path.suffix.lower() in VIDEO_SUFFIXES:
        video = read_frames(path, frames, max_frames=max_views)
        return PhotoSet(video.photos, (), label, video.indices)
    try:
        image = decode_file(path)
    except InputError as error:
        raise InputError(
            f"Cannot use {label}: {error}. Expected a photo (jpg, png, webp, heic, tif, ...) or a video."
        ) from error
    return PhotoSet((Photo(image, printable(path.name), path=path.absolute()),), (), label)


def _list_folder(folder: Path) -> _Listing:
    """List a folder's photos."""
    label = printable(str(folder))
    try:
        entries = [entry for entry in folder.iterdir() if not _is_ignored(entry)]
    except OSError as error:
        raise InputError(f"Cannot read the folder {label}: {error.strerror}.") from error
    if not entries:
        raise InputError(
            f"The folder {label} is empty: expected photos in it (jpg, png, webp, heic, tif, ...)."
        )
    return _list_entries(label, entries)


def _list_pattern(pattern: Path) -> _Listing:
    """List the photos that match a glob pattern."""
    label = printable(str(pattern))
    if not re.search(r"[*?[]", label):
        raise InputError(
            f"No such file or folder: {label}. Check the path; the current folder is {Path.cwd()}."
        )
    matches = [Path(match) for match in glob.glob(str(pattern), recursive=True)]
    if not matches:
        raise InputError(f"No file matches the pattern {label}. The current folder is {Path.cwd()}.")
    return _list_entries(label, matches)


def _list_entries(label: str, entries: Iterable[Path]) -> _Listing:
    """Sort paths naturally and tell the photos among them by their endings."""
    candidates, skipped, videos = [], [], []
    for entry in sorted(entries, key=natural_key):
        name, suffix = printable(entry.name), entry.suffix.lower()
        if suffix in IMAGE_SUFFIXES or entry.is_dir():
            candidates.append(_Candidate(name, partial(decode_file, entry), entry.absolute()))
        elif suffix in VIDEO_SUFFIXES:
            videos.append(printable(str(entry)))
            skipped.append(Skipped(name, "a video: pass it on its own"))
        else:
            skipped.append(
                Skipped(name, f"not a photo: ending {suffix!r}" if suffix else "not a photo: no ending")
            )
    if videos and len(videos) == len(skipped) and not candidates:
        count = "one video" if len(videos) == 1 else f"{len(videos)} videos"
        raise InputError(f"{label} holds no photo but {count}: pass a video on its own, such as {videos[0]}.")
    return _Listing(label, tuple(candidates), tuple(skipped))


def _list_items(source: Image.Image | np.ndarray | Sequence[PhotoItem]) -> _Listing:
    """List images in memory, or a list of files and images."""
    label = "memory" if isinstance(source, Image.Image | np.ndarray) else "a list"
    if isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim != 4):
        source = [source]
    if len(source) == 0:
        raise InputError(f"Expected at least one photo, got none in {label}: add a photo.")
    return _Listing(label, tuple(_candidate(item, place) for place, item in enumerate(source)))


def _candidate(item: PhotoItem, place: int) -> _Candidate:
    """One element of a list."""
    if isinstance(item, str | Path):
        path = _expanded(item)
        return _Candidate(printable(path.name), partial(decode_file, path), path.absolute())
    name = f"image_{place}"
    if isinstance(item, Image.Image):
        return _Candidate(name, partial(decode_image, item))
    if isinstance(item, np.ndarray):
        return _Candidate(name, partial(decode_array, item))
    raise InputError(
        f"Expected photo files, Pillow images or numpy arrays, got {type(item).__name__} at place {place}."
    )


def _expanded(path: str | Path) -> Path:
    """A path with ~ replaced; one that names an unknown user stays, to be reported as missing."""
    return Path(os.path.expanduser(path))


def _is_ignored(path: Path) -> bool:
    """Whether a folder's entry is nobody's input: hidden, or left behind by the system."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES


def _decode(candidates: Sequence[_Candidate], max_views: int | None) -> tuple[list[Photo], list[Skipped]]:
    """Decode an evenly spread part of the candidates, replacing those that turn out to be unusable."""
    pool = list(range(len(candidates)))
    decoded: dict[int, Photo] = {}
    skipped: dict[int, Skipped] = {}
    while True:
        chosen = [pool[place] for place in evenly_spread(len(pool), max_views or len(pool))]
        decoded = {index: photo for index, photo in decoded.items() if index in chosen}
        for index in chosen:
            if index not in decoded:
                try:
                    candidate = candidates[index]
                    decoded[index] = Photo(candidate.decode(), candidate.name, path=candidate.path)
                except InputError as error:
                    skipped[index] = Skipped(candidates[index].name, str(error))
        if all(index in decoded for index in chosen):
            return [decoded[index] for index in chosen], [skipped[index] for index in sorted(skipped)]
        pool = [index for index in pool if index not in skipped]


def _with_distinct_names(photos: Sequence[Photo]) -> tuple[Photo, ...]:
    """Number photos of the same name (0.jpg of two folders), so that results can be told apart."""
    taken = {photo.name for photo in photos}
    seen: set[str] = set()
    distinct = []
    for photo in photos:
        if photo.name in seen:
            path = Path(photo.name)
            numbered = (f"{path.stem}-{number}{path.suffix}" for number in count(2))
            photo = replace(photo, name=next(name for name in numbered if name not in taken))
        seen.add(photo.name)
        taken.add(photo.name)
        distinct.append(photo)
    return tuple(distinct)


def _describe(skipped: Sequence[Skipped]) -> str:
    """Names and reasons on one line."""
    named = "; ".join(f"{item.name} ({item.reason})" for item in skipped[:_NAMED_IN_MESSAGE])
    rest = len(skipped) - _NAMED_IN_MESSAGE
    return f"{named}; and {rest} more" if rest > 0 else named
