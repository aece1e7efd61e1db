"""Which photos a folder, a pattern or a list holds, before anything is decoded."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.beside import left_beside
from g2vlm.inputs.decode import printable
from g2vlm.inputs.formats.kinds import IMAGE_SUFFIXES, FileKind, kind_of, read_head
from g2vlm.inputs.pages import find_pages

PhotoItem = str | Path | Image.Image | np.ndarray
"""One photo: a file, or an image in memory."""

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_EXPECTED = "(jpg, png, webp, heic, tif, ...)"


@dataclass(frozen=True)
class Skipped:
    """An input that was left out."""

    name: str
    """File name, or place in the list for an image in memory."""

    reason: str
    """Why, in a few words."""


@dataclass(frozen=True)
class Candidate:
    """A picture that may turn out to be a photo."""

    name: str
    """Of the view that it becomes."""

    item: Path | Image.Image | np.ndarray
    """The file, or the image in memory."""

    place: int | None = None
    """Its number in a file of several pictures; none where it is the only one."""

    time_s: float | None = None
    """When an animation shows it, in seconds."""


@dataclass(frozen=True)
class Listing:
    """What a source holds before anything is decoded."""

    label: str
    """The source, for messages."""

    candidates: tuple[Candidate, ...]
    """In order."""

    skipped: tuple[Skipped, ...] = ()
    """What cannot be a photo."""

    beside: tuple[str, ...] = ()
    """Masks, depth maps and the like that lie beside photos."""


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


def list_folder(folder: Path) -> Listing:
    """List a folder's photos in natural order; masks and depth maps beside them are set apart.

    Raises:
        InputError: It cannot be read, is empty, or holds videos only.
    """
    label = printable(str(folder))
    try:
        entries = [entry for entry in folder.iterdir() if not _is_ignored(entry)]
    except OSError as error:
        raise InputError(f"Cannot read the folder {label}: {error.strerror}.") from error
    if not entries:
        raise InputError(f"The folder {label} is empty: expected photos in it {_EXPECTED}.")
    return _list_entries(label, entries, all_together=True)


def list_pattern(pattern: Path) -> Listing:
    """List the photos that match a glob pattern, in natural order.

    Folders that exist under the name as written are taken by it, whatever characters it holds.

    Raises:
        InputError: Nothing matches.
    """
    label = printable(str(pattern))
    if not re.search(r"[*?[]", label):
        raise InputError(
            f"No such file or folder: {label}. Check the path; the current folder is {Path.cwd()}."
        )
    known, rest = _existing_part(pattern)
    # Names with brackets are more often meant as they stand than as sets of characters.
    for wanted in (rest, rest.replace("[", "[[]")):
        matches = [Path(match) for match in glob.glob(str(known / wanted), recursive=True)]
        if matches:
            return _list_entries(label, matches)
    raise InputError(f"No file matches the pattern {label}. The current folder is {Path.cwd()}.")


def _existing_part(pattern: Path) -> tuple[Path, str]:
    """The folders that exist by name, ready for `glob`, and the rest of a pattern."""
    known, parts = Path(pattern.anchor), list(pattern.parts[1 if pattern.anchor else 0 :])
    while len(parts) > 1 and (known / parts[0]).is_dir():
        known /= parts.pop(0)
    return Path(glob.escape(str(known))), str(Path(*parts))


def list_file(path: Path) -> Listing:
    """List the pictures of one image file."""
    return Listing(printable(str(path)), tuple(_candidates(path)))


def list_items(source: Image.Image | np.ndarray | Sequence[PhotoItem]) -> Listing:
    """List images in memory, or a list of files and images, in their order.

    Raises:
        InputError: Nothing in it, or something that is no image.
    """
    label = "memory" if isinstance(source, Image.Image | np.ndarray) else "a list"
    if isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim != 4):
        source = [source]
    if len(source) == 0:
        raise InputError(f"Expected at least one photo, got none in {label}: add a photo.")
    candidates: list[Candidate] = []
    for place, item in enumerate(source):
        if isinstance(item, str | Path):
            candidates += _candidates(expanded(item))
        elif isinstance(item, Image.Image | np.ndarray):
            candidates.append(Candidate(f"image_{place}", item))
        else:
            raise InputError(
                f"Expected photo files, Pillow images or numpy arrays, got {type(item).__name__} at place "
                f"{place}."
            )
    return Listing(label, tuple(candidates))


def expanded(path: str | Path) -> Path:
    """A path with ~ replaced; one that names an unknown user stays, to be reported as missing."""
    return Path(os.path.expanduser(path))


def _candidates(path: Path) -> list[Candidate]:
    """The pictures of a file; one that cannot be read is a candidate too, and told when it is decoded."""
    pages = find_pages(path)
    if len(pages.places) == 1:
        return [Candidate(printable(path.name), path)]
    stem = printable(path.stem)
    times = pages.times_s or [None] * len(pages.places)
    return [
        Candidate(f"{stem}_{place:06d}", path, place, time_s)
        for place, time_s in zip(pages.places, times, strict=True)
    ]


def _is_ignored(path: Path) -> bool:
    """Whether a folder's entry is nobody's input: hidden, or left behind by the system."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES


def _list_entries(label: str, entries: Iterable[Path], *, all_together: bool = False) -> Listing:
    """Sort paths naturally and tell the photos among them.

    Args:
        label: The source, for messages.
        entries: Files and folders.
        all_together: They were not chosen one by one: what lies beside photos is set apart.
    """
    photos: list[Path] = []
    skipped, videos = [], []
    for entry in sorted(entries, key=natural_key):
        name, suffix = printable(entry.name), entry.suffix.lower()
        kind = kind_of(read_head(entry), suffix)
        if kind in (FileKind.IMAGE, FileKind.RAW) or suffix in IMAGE_SUFFIXES or entry.is_dir():
            photos.append(entry)
        elif kind is FileKind.VIDEO:
            videos.append(printable(str(entry)))
            skipped.append(Skipped(name, "a video: pass it on its own"))
        elif kind is FileKind.AUDIO:
            skipped.append(Skipped(name, "sound without pictures"))
        else:
            skipped.append(
                Skipped(name, f"not a photo: ending {suffix!r}" if suffix else "not a photo: no ending")
            )
    if videos and len(videos) == len(skipped) and not photos:
        count = "one video" if len(videos) == 1 else f"{len(videos)} videos"
        raise InputError(f"{label} holds no photo but {count}: pass a video on its own, such as {videos[0]}.")
    beside = left_beside(photos) if all_together else frozenset[Path]()
    candidates = [candidate for path in photos if path not in beside for candidate in _candidates(path)]
    names = tuple(printable(path.name) for path in photos if path in beside)
    return Listing(label, tuple(candidates), tuple(skipped), names)
