"""Files that hold several pictures: animations (GIF, WebP, APNG, AVIF), pages (TIFF), sets (MPO, HEIC).

Every picture that shows a view is one. What belongs to another picture is none: thumbnails, pyramids and
masks of TIFF, previews and brightness maps that cameras keep behind a JPEG picture.
"""

import io
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import (
    Picture,
    decoding,
    file_content,
    picture_of,
    read_bytes,
)
from g2vlm.inputs.formats.containers import jpeg_segments
from g2vlm.inputs.formats.exif import Metadata
from g2vlm.inputs.formats.kinds import FileKind, kind_of
from g2vlm.inputs.formats.opening import open_image
from g2vlm.inputs.formats.raw import is_raw_tiff

_ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
_SETS = ("TIFF", "HEIF")
_SUBFILE_TYPE = 254
_REDUCED_OR_MASK = 1 | 4
_USUAL_FRAME_S = 0.1

_MP_ENTRIES = 0xB002
_MP_VIEWS = (0x020001, 0x020002, 0x020003)  # panorama, stereo pair, several angles
_MP_UNDEFINED = 0x000000


@dataclass(frozen=True)
class Pages:
    """The pictures of a file that are views of their own."""

    places: tuple[int, ...] = (0,)
    """Their numbers in the file, counted from 0; at least one."""

    times_s: tuple[float, ...] | None = None
    """When each is shown, for animations."""


def find_pages(path: Path) -> Pages:
    """Find the views in an image file.

    Returns:
        A single place for ordinary photos, and for files whose structure cannot be read: decoding them says
        what is wrong.
    """
    try:
        data = file_content(path)
        if kind_of(data, path.suffix) is not FileKind.IMAGE or is_raw_tiff(data):
            return Pages()
        if data[:2] == b"\xff\xd8":
            return Pages(tuple(range(len(_jpeg_views(data)))))
        with decoding():
            image, _ = open_image(data)
            return _pages_of(image)
    except InputError:
        return Pages()


def read_pages(path: Path, wanted: Collection[int]) -> Iterator[tuple[int, Picture | InputError]]:
    """Decode some pictures of a file, in order.

    Args:
        path: The file.
        wanted: Places as `find_pages` gives them.

    Yields:
        Place and picture, or why that one cannot be decoded.

    Raises:
        InputError: The file cannot be used at all; the message is the reason.
    """
    data = file_content(path)
    readers: dict[int, Callable[[], Picture]]
    if set(wanted) == {0} and data[:2] != b"\xff\xd8":
        # A first picture may be one that only the whole file leads to, such as a raw photo.
        readers = {0: partial(read_bytes, data, path.suffix)}
    elif data[:2] == b"\xff\xd8":
        views = _jpeg_views(data)
        readers = {place: partial(read_bytes, views[place]) for place in wanted if place < len(views)}
    else:
        with decoding():
            image, metadata = open_image(data)
        readers = {place: partial(_read_place, image, metadata, place) for place in wanted}
    for place in sorted(readers):
        try:
            yield place, readers[place]()
        except InputError as error:
            yield place, error


def _read_place(image: Image.Image, metadata: Metadata, place: int) -> Picture:
    with decoding():
        image.seek(place)
        return picture_of(image.copy(), metadata)


def _pages_of(image: Image.Image) -> Pages:
    """Views in an opened image."""
    count = getattr(image, "n_frames", 1)
    if count == 1:
        return Pages()
    if image.format in _ANIMATIONS:
        # A PNG may begin with a picture for programs that do not know animations.
        first = 1 if image.info.get("default_image") else 0
        places = tuple(range(first, count))
        return Pages(places, _times(image, places))
    if image.format not in _SETS:
        return Pages()
    first, size, mode = image.tell(), image.size, image.mode
    views = [first]
    for place in range(count):
        image.seek(place)
        if image.format == "TIFF":
            kind = image.tag_v2.get(_SUBFILE_TYPE, 0)  # type: ignore[attr-defined]
            is_view = not (isinstance(kind, int) and kind & _REDUCED_OR_MASK)
        else:
            is_view = (image.size, image.mode) == (size, mode)
        if is_view and place != first:
            views.append(place)
    return Pages(tuple(sorted(views)))


def _times(image: Image.Image, places: tuple[int, ...]) -> tuple[float, ...]:
    """When the pictures of an animation are shown, in seconds from its start."""
    times, now = [], 0.0
    for place in places:
        image.seek(place)
        times.append(now)
        if image.format in ("WEBP", "AVIF"):
            image.load()  # these tell a duration only with the pixels
        duration_ms = image.info.get("duration")
        usable = isinstance(duration_ms, int | float) and duration_ms > 0
        now += duration_ms / 1000.0 if usable else _USUAL_FRAME_S  # type: ignore[operator]
    return tuple(times)


def _jpeg_views(data: bytes) -> list[bytes]:
    """The views in a JPEG file: itself, and the others of a stereo pair or the like (Multi-Picture Format).

    Cameras also keep previews there, and brightness maps for bright screens. They say so, or are smaller or
    gray.
    """
    views = [data]
    for marker, start, end in jpeg_segments(data):
        if marker == 0xE2 and data[start + 4 : start + 8] == b"MPF\0":
            base = start + 8
            for kind, offset, size in _mp_entries(data[base:end])[1:]:
                part = data[base + offset : base + offset + size]
                if part[:3] == b"\xff\xd8\xff" and (
                    kind in _MP_VIEWS or (kind == _MP_UNDEFINED and _is_alike(data, part))
                ):
                    views.append(part)
    return views


def _mp_entries(block: bytes) -> list[tuple[int, int, int]]:
    """(kind, offset, size) of the pictures that a Multi-Picture block lists; none if it cannot be read."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return []
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, length, offset = struct.unpack_from(f"{order}HHII", block, place)
            if tag == _MP_ENTRIES:
                entries = [
                    struct.unpack_from(f"{order}III", block, offset + 16 * i) for i in range(length // 16)
                ]
                return [(flags & 0xFFFFFF, begin, size) for flags, size, begin in entries]
    except struct.error:
        return []
    return []


def _is_alike(data: bytes, part: bytes) -> bool:
    """Whether two JPEG pictures have one size and kind of colours, and the second is no brightness map."""
    if b"hdrgm:" in part[:65536] or b"HDRGainMap" in part[:65536]:
        return False
    try:
        with decoding(), Image.open(io.BytesIO(part)) as second:
            first, _ = open_image(data)
            return (first.size, first.mode) == (second.size, second.mode)
    except InputError:
        return False
