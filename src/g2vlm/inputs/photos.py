"""Photos from wherever they are: a folder, a pattern, files, a video, images in memory."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.inputs.decode import IMAGE_SUFFIXES, Photo, printable
from g2vlm.inputs.formats.kinds import FileKind, kind_of, read_head
from g2vlm.inputs.frame_choice import choose_frames
from g2vlm.inputs.listing import (
    Candidate,
    Listing,
    PhotoItem,
    Skipped,
    expanded,
    list_file,
    list_folder,
    list_items,
    list_pattern,
    natural_key,
)
from g2vlm.inputs.notices import Notices, SkippedInputWarning, UnusualPhotoWarning, listed
from g2vlm.inputs.reading import Readings, read_candidates
from g2vlm.inputs.reduction import TINY_SHARE, Reduction
from g2vlm.inputs.spread import evenly_spread
from g2vlm.inputs.video import FrameChoice, FrameChoiceKind, VideoOptions, is_video, read_frames

__all__ = [
    "IMAGE_SUFFIXES",
    "FrameChoice",
    "FrameChoiceKind",
    "Photo",
    "PhotoItem",
    "PhotoSet",
    "PhotoSource",
    "Reduction",
    "Skipped",
    "SkippedInputWarning",
    "UnusualPhotoWarning",
    "load_photos",
    "natural_key",
]

_SPREAD = FrameChoice()
_NAMED_IN_MESSAGE = 8

ReadingProgress = Callable[[int, int], None]
"""Called with (photos or frames done, how many in all)."""


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

    notices: tuple[str, ...] = ()
    """What the user should know about them, in the words of the warnings that were given."""


PhotoSource = PhotoItem | Sequence[PhotoItem] | PhotoSet
"""Where photos may come from: a folder, pattern, file or video; an image or array in memory; a list; or what
`load_photos` returned before."""


def load_photos(
    source: PhotoSource,
    *,
    max_views: int | None = None,
    frames: FrameChoice = _SPREAD,
    keep: Reduction | None = None,
    on_progress: ReadingProgress | None = None,
) -> PhotoSet:
    """Load the photos of one scene.

    Args:
        source: A folder (its photos in natural order: img2 before img10; hidden files are ignored, folders
            inside not searched, masks and depth maps beside photos left out), a glob pattern, one photo, one
            video, one animation or file of several pages (all of which become views), an image in memory, a
            (views, height, width, channels) array, or a list of photo files and images in memory, kept in its
            order. Photos that this function returned before are only thinned.
        max_views: Upper limit on the number of views; of more, an evenly spread part is kept that includes
            the first and the last.
        frames: Which frames to take if the source is a video or an animation; of animations and pages,
            `MOTION` takes evenly spread ones.
        keep: The sizes that stay in memory of each photo; all pixels if None. With it, photos that are too
            small or too flat for the model are refused here.
        on_progress: Called with (photos or frames done, how many in all) from the calling thread.

    Returns:
        The photos. What could not be used is listed in `skipped` and named in a `SkippedInputWarning`; what
        may make results worse is said in an `UnusualPhotoWarning`.

    Raises:
        InputError: The source does not exist or holds nothing usable, or `max_views` is below 1.
        MemoryLimitError: This machine has too little memory to decode a photo.
    """
    if max_views is not None and max_views < 1:
        raise InputError(f"Expected a maximum of at least 1 view, got {max_views}.")
    if isinstance(source, PhotoSet):
        return _thinned(source, max_views)
    if isinstance(source, str | Path):
        path = _checked_path(source)
        if _is_video(path):
            return _load_video(path, max_views, frames, keep, on_progress)
        listing = _list_path(path)
    else:
        listing = list_items(source)
    return _load_listing(_choose_pages(listing, frames), max_views, keep, on_progress)


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


def _checked_path(source: str | Path) -> Path:
    if not str(source).strip():
        raise InputError("Expected a folder, a photo or a video, got an empty path.")
    if re.match(r"[A-Za-z]{2,}://", str(source)):
        raise InputError(f"Expected a file or folder on this machine, got {source}: download it first.")
    return expanded(source)


def _is_video(path: Path) -> bool:
    try:
        return is_video(path)
    except OSError:
        return False


def _list_path(path: Path) -> Listing:
    try:
        is_folder, is_entry = path.is_dir(), path.exists() or path.is_symlink()
    except OSError as error:  # a folder on the way that may not be entered, or an impossible name
        raise InputError(f"Cannot look up {printable(str(path))}: {error.strerror}.") from error
    if is_folder:
        return list_folder(path)
    if not is_entry:
        return list_pattern(path)
    if kind_of(read_head(path), path.suffix) is FileKind.AUDIO:
        raise InputError(
            f"Cannot use {printable(str(path))}: it holds sound without pictures. Expected photos or a video."
        )
    return list_file(path)


def _choose_pages(listing: Listing, frames: FrameChoice) -> Listing:
    """Take of every animation as many pictures as of a video."""
    chosen: list[Candidate] = []
    animation: list[Candidate] = []
    for candidate in (*listing.candidates, None):
        if animation and (candidate is None or candidate.item is not animation[-1].item):
            times = [page.time_s for page in animation]
            chosen += [animation[place] for place in choose_frames(times, frames)]
            animation = []
        if candidate is not None and candidate.place is not None:
            animation.append(candidate)
        elif candidate is not None:
            chosen.append(candidate)
    return replace(listing, candidates=tuple(chosen))


def _load_video(
    path: Path,
    max_views: int | None,
    frames: FrameChoice,
    keep: Reduction | None,
    on_progress: ReadingProgress | None,
) -> PhotoSet:
    label, notices = printable(str(path)), Notices()
    options = VideoOptions(keep=keep, on_progress=on_progress)
    video = read_frames(path, frames, max_frames=max_views, options=options)
    for text in video.notices:
        notices.say(UnusualPhotoWarning, text)
    _tell_shapes(video.photos, keep, notices)
    return PhotoSet(video.photos, (), label, video.indices, notices.said)


def _load_listing(
    listing: Listing,
    max_views: int | None,
    keep: Reduction | None,
    on_progress: ReadingProgress | None,
) -> PhotoSet:
    notices = Notices()
    readings = read_candidates(listing.candidates, max_views, keep, on_progress)
    skipped = (*listing.skipped, *(readings.skipped[index] for index in sorted(readings.skipped)))
    photos = [readings.photos[index] for index in sorted(readings.photos)]
    if not photos:
        raise InputError(_why_nothing(listing, skipped))
    if skipped:
        text = f"Left out {len(skipped)} of the inputs in {listing.label}: {_describe(skipped)}."
        notices.say(SkippedInputWarning, text)
    if listing.beside:
        notices.say(
            SkippedInputWarning,
            f"Not used as views, since they look like masks, depth maps or raw versions beside the photos in "
            f"{listing.label}: {listed(list(listing.beside))}. To use them all the same, name them in a list "
            "or by a pattern.",
        )
    _tell_projections(readings, listing.candidates, notices)
    _tell_shapes(photos, keep, notices)
    beside = tuple(
        Skipped(name, "a mask, depth map or raw version beside a photo") for name in listing.beside
    )
    names = _with_distinct_names(photos)
    return PhotoSet(names, (*skipped, *beside), listing.label, notices=notices.said)


def _why_nothing(listing: Listing, skipped: Sequence[Skipped]) -> str:
    path = Path(listing.label)
    if len(skipped) == 1 and len(listing.candidates) == 1 and path.name == skipped[0].name:
        return (
            f"Cannot use {listing.label}: {skipped[0].reason}. Expected a photo (jpg, png, webp, heic, tif, "
            "...) or a video."
        )
    return f"No usable photo in {listing.label}: {_describe(skipped)}."


def _tell_projections(readings: Readings, candidates: Sequence[Candidate], notices: Notices) -> None:
    by_kind: dict[str, list[str]] = {}
    for index, kind in sorted(readings.projections.items()):
        by_kind.setdefault(kind, []).append(candidates[index].name)
    for kind, names in by_kind.items():
        notices.say(
            UnusualPhotoWarning,
            f"{listed(names)}: {kind}. The model expects photos of ordinary cameras; points and cameras will "
            "be wrong. Cut it into ordinary views first.",
        )


def _tell_shapes(photos: Sequence[Photo], keep: Reduction | None, notices: Notices) -> None:
    """Say which sizes make little sense, where they go to the model."""
    if keep is None:
        return
    text = keep.check_first(photos[0].name, photos[0].size)
    if text is not None:
        notices.say(UnusualPhotoWarning, text)
    tiny = [photo for photo in photos if min(photo.size) < TINY_SHARE * keep.width]
    if tiny:
        width, height = tiny[0].size
        notices.say(
            UnusualPhotoWarning,
            f"{listed([photo.name for photo in tiny])}: tiny ({width}x{height} pixels), and enlarged to "
            f"{keep.width} pixels width. Expect little; use the originals if these are thumbnails.",
        )


def _with_distinct_names(photos: Sequence[Photo]) -> tuple[Photo, ...]:
    """Number photos of the same name (0.jpg of two folders), so that results can be told apart."""
    taken = {photo.name for photo in photos}
    seen: set[str] = set()
    distinct = []
    for photo in photos:
        if photo.name in seen:
            path = Path(photo.name)
            numbered = (f"{path.stem}-{number}{path.suffix}" for number in count(2))
            photo = photo.renamed(next(name for name in numbered if name not in taken))
        seen.add(photo.name)
        taken.add(photo.name)
        distinct.append(photo)
    return tuple(distinct)


def _describe(skipped: Sequence[Skipped]) -> str:
    """Names and reasons on one line."""
    named = "; ".join(f"{item.name} ({item.reason})" for item in skipped[:_NAMED_IN_MESSAGE])
    rest = len(skipped) - _NAMED_IN_MESSAGE
    return f"{named}; and {rest} more" if rest > 0 else named
