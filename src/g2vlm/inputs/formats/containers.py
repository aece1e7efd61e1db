"""Image files without their metadata: what a decoder gets to see, and what is read beside it.

Decoders stop at metadata that they do not expect, although the pixels are intact. So JPEG, PNG and TIFF files
are handed to them with the parts that the pixels need and nothing else; orientation, colour profile and XMP
are read here, by code that takes anything. A file whose structure is not understood is passed on unchanged.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from g2vlm.inputs.formats.exif import Metadata, read_metadata

_LARGEST_EXTRA = 16 << 20
"""Most bytes of one unpacked profile or text."""

_JPEG_PIXEL_APPS = (0xE0, 0xEE)  # JFIF, and Adobe's note on how colours are stored
_JPEG_STANDALONE = (0x01, *range(0xD0, 0xD8))
_PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"sBIT")
_BOXED_EXIF = re.compile(rb"(?:\0\0\0\0|Exif\0\0)(II\*\0|MM\0\*)")
_LONGEST_BOXED_EXIF = 1 << 20
_PNG_EXIF_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
_TIFF_KEPT = frozenset(
    {*range(254, 260), 262, 263, 266, 273, *range(277, 282), 284, *range(290, 294), 297, 317, 320}
    | {*range(322, 326), 332, 338, 339, 347, *range(512, 522), *range(529, 533)}
)
"""Tags that say how pixels are stored; orientation, resolution and all other descriptions go."""


def without_metadata(data: bytes) -> tuple[bytes, Metadata | None]:
    """Take the metadata out of an image file.

    Args:
        data: The file.

    Returns:
        The file without metadata, and what they say; None where the format keeps them in another way and the
        decoder has to be asked.
    """
    if data[:3] == b"\xff\xd8\xff":
        return _strip_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _strip_png(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _strip_tiff(data)
    if data[4:8] == b"ftyp":
        return _blank_exif(data)
    return data, None


def _blank_exif(data: bytes) -> tuple[bytes, Metadata | None]:
    """Empty the EXIF blocks of HEIC and AVIF files: they have turns of their own, which decoders apply."""
    copy, metadata = bytearray(data), None
    for found in _BOXED_EXIF.finditer(data):
        tiff = data[found.start(1) : found.start(1) + _LONGEST_BOXED_EXIF]
        metadata = metadata or read_metadata(tiff)
        (start,) = struct.unpack_from("<I" if tiff[:1] == b"I" else ">I", tiff.ljust(8, b"\0"), 4)
        if start + 2 <= len(tiff):
            copy[found.start(1) + start : found.start(1) + start + 2] = b"\0\0"
    return bytes(copy) if metadata is not None else data, metadata


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Walk the marker segments of a JPEG file up to its first scan.

    Yields:
        (marker, start, end) of every segment, from its 0xFF byte to the byte after it. The last one has the
        marker 0xDA (start of scan) and ends with the file. After a wrong length the walk goes on where the
        next sensible segment begins.
    """
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            place = data.find(b"\xff", place)
            if place < 0:
                return
            continue
        marker = data[place + 1]
        if marker == 0xFF or marker == 0 or marker in _JPEG_STANDALONE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker in (0xDA, 0xD9):
            yield marker, place, len(data)
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if not _is_segment(data, end) and (0xE0 <= marker <= 0xEF or marker == 0xFE):
            end = _resume(data, place + 4)
        yield marker, place, end
        place = end


def _is_segment(data: bytes, place: int) -> bool:
    """Whether a marker that may follow metadata stands at a place, with or without fill bytes."""
    while data[place : place + 2] == b"\xff\xff":
        place += 1
    marker = data[place + 1 : place + 2]
    return data[place : place + 1] == b"\xff" and bool(marker) and marker[0] >= 0xC0


def _resume(data: bytes, place: int) -> int:
    """Where tables or frame header begin after metadata of wrong length; the end if nowhere."""
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        if data[place + 1] in (0xDB, 0xC0, 0xC1, 0xC2, 0xC4, 0xE0, 0xE1, 0xE2, 0xEE):
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            if end > place + 3 and data[end : end + 1] == b"\xff":
                return place
        place += 1
    return len(data)


def _strip_jpeg(data: bytes) -> tuple[bytes, Metadata]:
    kept, exif, xmp = [data[:2]], b"", b""
    profile: dict[int, bytes] = {}
    for marker, start, end in jpeg_segments(data):
        content = data[start + 4 : end]
        if (not 0xE0 <= marker <= 0xEF and marker != 0xFE) or (
            marker in _JPEG_PIXEL_APPS and content[:5] in (b"JFIF\0", b"Adobe")
        ):
            kept.append(data[start:end])
        elif marker == 0xE1 and content[:5] == b"Exif\0":
            exif += content[6:]  # blocks of more than 64 kB go on in a second segment
        elif marker == 0xE1 and content[:28] == b"http://ns.adobe.com/xap/1.0/":
            xmp += content[29:]
        elif marker == 0xE2 and content[:12] == b"ICC_PROFILE\0" and len(content) > 14:
            profile.setdefault(content[12], content[14:])
    icc = b"".join(profile[number] for number in sorted(profile))
    return b"".join(kept), read_metadata(exif, xmp, icc)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Walk the chunks of a PNG file.

    Yields:
        (name, start, end) of every chunk, from its length field to the byte after its checksum.
    """
    place = 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        name, end = data[place + 4 : place + 8], place + 12 + length
        yield name, place, end
        if name == b"IEND":
            return
        place = end


def _strip_png(data: bytes) -> tuple[bytes, Metadata]:
    kept, exif, xmp, icc = [data[:8]], b"", b"", b""
    for name, start, end in png_chunks(data):
        content = data[start + 8 : end - 4]
        if name in _PNG_KEPT:
            kept.append(data[start:end])
        elif name == b"eXIf":
            exif = exif or content
        elif name == b"iCCP":
            _, _, packed = content.partition(b"\0")
            icc = icc or _unpacked(packed[1:])
        elif name == b"iTXt" and content.startswith(b"XML:com.adobe.xmp\0"):
            # After the keyword: a flag and a method of compression, a language, a translated keyword.
            rest = content[18:]
            text = rest[2:].split(b"\0", 2)[-1]
            xmp = xmp or (_unpacked(text) if rest[:1] == b"\1" else text)
        elif name in (b"zTXt", b"tEXt") and content.startswith(_PNG_EXIF_TEXTS):
            text = content.partition(b"\0")[2]
            exif = exif or _from_hexadecimal(_unpacked(text[1:]) if name == b"zTXt" else text)
    return b"".join(kept), read_metadata(exif, xmp, icc)


def _unpacked(packed: bytes) -> bytes:
    """Inflate at most `_LARGEST_EXTRA` bytes; nothing where that is not possible."""
    inflate = zlib.decompressobj()
    try:
        unpacked = inflate.decompress(packed, _LARGEST_EXTRA)
    except zlib.error:
        return b""
    return unpacked if inflate.eof else b""


def _from_hexadecimal(text: bytes) -> bytes:
    """The EXIF block that ImageMagick writes as text: a name, a length, then hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""


def _strip_tiff(data: bytes) -> tuple[bytes, Metadata | None]:
    """Shorten every directory of a TIFF file, in a copy, to the tags that pixels need."""
    order = "<" if data[:1] == b"I" else ">"
    is_big = 43 in (data[2], data[3])
    word, entry_size, head = ("Q", 20, 16) if is_big else ("I", 12, 8)
    counter, width = ("Q", 8) if is_big else ("H", 2)
    copy, seen = bytearray(data), set()
    extras: dict[int, bytes] = {}
    try:
        (start,) = struct.unpack_from(f"{order}{word}", data, head - struct.calcsize(word))
        while start and start not in seen:
            seen.add(start)
            (count,) = struct.unpack_from(f"{order}{counter}", data, start)
            first, last = start + width, start + width + entry_size * count
            (following,) = struct.unpack_from(f"{order}{word}", data, last)
            entries = [data[place : place + entry_size] for place in range(first, last, entry_size)]
            if len(seen) == 1:
                extras = {tag: _tiff_bytes(data, entries, order, tag, word) for tag in (700, 34675)}
            kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _TIFF_KEPT]
            struct.pack_into(f"{order}{counter}", copy, start, len(kept))
            joined = b"".join(kept) + struct.pack(f"{order}{word}", following)
            copy[first : first + len(joined)] = joined
            start = following
    except (struct.error, OverflowError):
        return data, None
    # A classic TIFF file has the very structure of an EXIF block.
    exif = b"" if is_big else data
    return bytes(copy), read_metadata(exif, extras.get(700, b""), extras.get(34675, b""))


def _tiff_bytes(data: bytes, entries: list[bytes], order: str, tag: int, word: str) -> bytes:
    """Content of a tag that holds bytes; nothing where it is absent or of another type."""
    for entry in entries:
        found, kind, count = struct.unpack_from(f"{order}HH{word}", entry)
        if found == tag and kind in (1, 7) and count <= _LARGEST_EXTRA:
            (place,) = struct.unpack_from(f"{order}{word}", entry, 12 if word == "Q" else 8)
            return data[place : place + count]
    return b""
