"""Reading the few metadata that matter, from bytes that may hold anything.

Cameras, messengers and editors write EXIF blocks with wrong types, wrong counts and pointers to nowhere. Only
the wanted tags are looked at, nothing is ever written back, and what cannot be read counts as absent.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

ORIENTATION = 0x0112
_EXIF_POINTER = 0x8769
_LENS_MAKE, _LENS_MODEL = 0xA433, 0xA434
_MAKE, _MODEL = 0x010F, 0x0110

_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
_FRACTIONS = {5: "II", 10: "ii"}
_TEXT = 2
_LONGEST_TEXT = 256
_MOST_ENTRIES = 4096

_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])\b")


@dataclass(frozen=True)
class Metadata:
    """What a picture says about itself, as far as it matters here."""

    orientation: int = 1
    """How to turn the stored pixels, 1 to 8 as in EXIF."""

    camera: str = ""
    """Maker, model and lens in one text, for recognising fisheye lenses and panorama cameras."""

    xmp: bytes = b""
    """The XMP packet, unparsed."""

    icc: bytes = b""
    """The colour profile, unparsed."""


def read_metadata(exif: bytes, xmp: bytes = b"", icc: bytes = b"") -> Metadata:
    """Take from an EXIF block and an XMP packet what matters.

    Args:
        exif: A TIFF structure, with or without the leading `Exif` mark; anything else counts as nothing.
        xmp: An XMP packet; its orientation counts where EXIF holds none.
        icc: A colour profile, passed on.
    """
    tags = read_tags(exif)
    orientation = orientation_of(tags)
    if orientation is None:
        found = _XMP_ORIENTATION.search(xmp)
        orientation = int(found[1]) if found else 1
    words = (tags.get(tag) for tag in (_MAKE, _MODEL, _LENS_MAKE, _LENS_MODEL))
    return Metadata(orientation, " ".join(word for word in words if isinstance(word, str)), xmp, icc)


def orientation_of(tags: Mapping[int, int | float | str]) -> int | None:
    """The orientation among tags that `read_tags` returned; None where there is no usable one."""
    value = tags.get(ORIENTATION)
    if isinstance(value, str) or value is None or value not in range(1, 9):
        return None
    return int(value)


def read_tags(exif: bytes) -> dict[int, int | float | str]:
    """Read orientation, camera and lens from an EXIF block.

    Returns:
        The first number, or the text, of each wanted tag that can be read. Never raises: entries of a wrong
        type, with pointers out of the block, and whole blocks that are none, are passed over.
    """
    tiff = exif[6:] if exif[:5] == b"Exif\x00" else exif
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None or len(tiff) < 8:
        return {}
    tags = _directory(tiff, order, struct.unpack_from(f"{order}I", tiff, 4)[0])
    pointer = tags.pop(_EXIF_POINTER, None)
    if isinstance(pointer, int):
        tags = {**_directory(tiff, order, pointer), **tags}
    return tags


def _directory(tiff: bytes, order: str, start: int) -> dict[int, int | float | str]:
    """Wanted tags of one directory; the first entry of a tag counts."""
    if not 0 < start <= len(tiff) - 2:
        return {}
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    count = min(count, _MOST_ENTRIES, (len(tiff) - start - 2) // 12)
    tags: dict[int, int | float | str] = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", tiff, place)
        if tag in (ORIENTATION, _EXIF_POINTER, _MAKE, _MODEL, _LENS_MAKE, _LENS_MODEL) and tag not in tags:
            value = _value(tiff, order, place + 8, kind, number)
            if value is not None:
                tags[tag] = value
    return tags


def _value(tiff: bytes, order: str, place: int, kind: int, count: int) -> int | float | str | None:
    """The first number or the text of an entry, whose value or pointer lies at `place`."""
    code = _NUMBERS.get(kind) or _FRACTIONS.get(kind)
    size = 1 if kind == _TEXT else struct.calcsize(f"{order}{code}") if code else 0
    if size == 0 or count == 0:
        return None
    if size * count > 4:
        (place,) = struct.unpack_from(f"{order}I", tiff, place)
    if place + size > len(tiff):
        return None
    if kind == _TEXT:
        text = tiff[place : place + min(count, _LONGEST_TEXT)].split(b"\0")[0]
        return bytes(text).decode("latin-1").strip()
    numbers = struct.unpack_from(f"{order}{code}", tiff, place)
    if kind in _FRACTIONS:
        return numbers[0] / numbers[1] if numbers[1] else None
    return int(numbers[0]) if kind not in (11, 12) else float(numbers[0])
