"""What content is, told by its bytes: names and declared types are a client's claims.

Only photos and videos pass. Refused are text that browsers or decoders would run or follow (HTML, SVG,
playlists), archives, documents, programs, pickles, and files that are two things at once: a photo that is
also an archive or a page is harmless here, but somebody made it to harm whoever gets it next.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from g2vlm.inputs.formats.kinds import HEAD_BYTES, FileKind, kind_of
from g2vlm.server.guard.refusals import UnsupportedFormatError

TAIL_BYTES = 65_557
"""How much of a file's end is looked at: the furthest that the directory of a zip archive may lie from it."""

_IMAGES = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM.{4}\x00{4}", re.DOTALL), "image/bmp"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "image/tiff"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "image/avif"),
    (re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), "image/heic"),
)
_VIDEOS = (
    (re.compile(rb".{4}ftypqt  ", re.DOTALL), "video/quicktime"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "video/mp4"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), "video/x-msvideo"),
    (re.compile(rb"\x1aE\xdf\xa3"), "video/webm"),
)

IMAGE_TYPES = tuple(name for _, name in _IMAGES)
"""Media types of the photos that are taken."""

VIDEO_TYPES = tuple(name for _, name in _VIDEOS)
"""Media types of the videos that are taken."""

_KNOWN = (
    (
        re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype\s+svg|<svg)", re.I | re.S),
        "an SVG drawing",
    ),
    (re.compile(rb"\s*<(!doctype|html|head|body|script|iframe|\?php)", re.I), "a web page"),
    (re.compile(rb"\s*<\?xml|\s*<[a-z]+[\s>]", re.I), "XML"),
    (re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)"), "a zip archive"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd"), "an archive"),
    (re.compile(rb"%PDF-|%!PS|\xc5\xd0\xd3\xc6"), "a document"),
    (re.compile(rb"\x80[\x02-\x05]"), "a pickle"),
    (re.compile(rb"\x93NUMPY"), "a numpy array"),
    (re.compile(rb"\x7fELF|MZ|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe|#!"), "a program"),
    (re.compile(rb"\s*(#EXTM3U|ffconcat|\[playlist\]|v=0\r?\n)", re.I), "a playlist"),
    (re.compile(rb"\s*[\[{]"), "JSON"),
)
_PAGE_IN_HEAD = re.compile(rb"<script|<html|<svg|<!doctype|<iframe|<\?php|%PDF-|%!PS-", re.I)
# Longer marks than in the head: in so many bytes of compressed pixels, short ones occur by chance.
_PAGE_IN_TAIL = re.compile(
    rb"<script[\s>]|<html[\s>]|<!doctype\s|<iframe\s|<\?php\s|%PDF-1|<svg\s+xmlns", re.I
)
_END_OF_DIRECTORY = b"PK\5\6"
_DIRECTORY_ENTRY = b"PK\1\2"


class MediaKind(Enum):
    """What the service takes."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(frozen=True)
class Sniffed:
    """What content is."""

    kind: MediaKind
    """Photo or video."""

    media_type: str
    """Such as `image/png`."""


def sniff(content: bytes | Path, declared: str | None = None) -> Sniffed:
    """Tell what content is, whatever it is called.

    Args:
        content: All bytes, or a file.
        declared: Media type that the client gave it, if any. Only photo or video must be right: clients in
            wide use declare every photo as JPEG, and decoders go by the content.

    Raises:
        UnsupportedFormatError: No photo and no video, two things at once, or not what was declared.
    """
    head, tail = _ends(content)
    for mark, media_type in (*_IMAGES, *_VIDEOS):
        if mark.match(head):
            sniffed = Sniffed(MediaKind(media_type.partition("/")[0]), media_type)
            break
    else:
        raise UnsupportedFormatError(f"Expected a photo or a video, got {_named(head)}: convert it first.")
    _refuse_other_brands(head, sniffed)
    _refuse_two_things(head, tail, sniffed)
    _compare(sniffed, declared)
    return sniffed


def _ends(content: bytes | Path) -> tuple[bytes, bytes]:
    """The first and last bytes."""
    if isinstance(content, bytes):
        return content[:HEAD_BYTES], content[-TAIL_BYTES:]
    with content.open("rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        return head, file.read(TAIL_BYTES)


def _named(head: bytes) -> str:
    """What refused content seems to be."""
    if not head:
        return "nothing (0 bytes)"
    for mark, name in _KNOWN:
        if mark.match(head):
            return name
    kind = kind_of(head)
    return {FileKind.AUDIO: "sound", FileKind.RAW: "a raw photo"}.get(kind, "something else")


def _refuse_other_brands(head: bytes, sniffed: Sniffed) -> None:
    """Sound and raw photos look like videos and photos at their first bytes."""
    wanted = FileKind.VIDEO if sniffed.kind is MediaKind.VIDEO else FileKind.IMAGE
    found = kind_of(head)
    if found is not wanted:
        raise UnsupportedFormatError(f"Expected a photo or a video, got {_named(head)}: convert it first.")


def _refuse_two_things(head: bytes, tail: bytes, sniffed: Sniffed) -> None:
    """Refuse photos and videos that other programs would take for a page or an archive."""
    if _PAGE_IN_HEAD.search(head) or _PAGE_IN_TAIL.search(tail):
        other = "a page or document"
    elif _ends_as_archive(tail):
        other = "a zip archive"
    else:
        return
    raise UnsupportedFormatError(
        f"Expected a plain {sniffed.kind.value}, got one ({sniffed.media_type}) that is {other} at the same "
        "time: save it anew with an ordinary program."
    )


def _ends_as_archive(tail: bytes) -> bool:
    """Whether the end is that of a zip archive; four bytes alone would occur by chance."""
    place = tail.rfind(_END_OF_DIRECTORY)
    while place >= 0:
        record = tail[place : place + 22]
        if len(record) == 22:
            comment = int.from_bytes(record[20:22], "little")
            entries = int.from_bytes(record[10:12], "little")
            if place + 22 + comment <= len(tail) and (not entries or _DIRECTORY_ENTRY in tail[:place]):
                return True
        place = tail.rfind(_END_OF_DIRECTORY, 0, place)
    return False


def _compare(sniffed: Sniffed, declared: str | None) -> None:
    """Refuse content of another kind than declared."""
    claim = (declared or "").partition(";")[0].strip().lower()
    if claim in ("", "application/octet-stream", "binary/octet-stream"):
        return
    if claim.partition("/")[0] != sniffed.kind.value or claim == "image/svg+xml":
        raise UnsupportedFormatError(
            f"Expected {claim[:60]} as declared, got {sniffed.media_type}: declare what it is."
        )
