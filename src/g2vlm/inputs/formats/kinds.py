"""What a file holds, told by its first bytes: endings are often missing or wrong."""

import re
from enum import Enum
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv"}
    | {".mts", ".m2ts", ".vob", ".mxf", ".3g2", ".qt", ".y4m", ".ivf", ".h264", ".hevc", ".264", ".265"}
)
"""Endings (lower case) by which a file whose content tells nothing is taken for a video."""

RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".rwl", ".pef"}
    | {".srw", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mef", ".mos", ".mrw", ".x3f", ".crw", ".raw"}
)
"""Endings (lower case) of photos as sensors record them."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".hif", ".tif"}
    | {".tiff", ".bmp", ".dib", ".gif", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo"}
    | RAW_SUFFIXES
)
"""Endings (lower case) by which a file in a folder is taken for a photo."""

HEAD_BYTES = 1024
"""How much of a file `kind_of` needs."""

_IMAGE_BRANDS = (b"hei", b"hev", b"mif", b"msf", b"avi", b"jxl")
_RAW_HEADS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")
_IMAGE_HEADS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(
        b"\0\0\0\x0cjP  ",
        b"\xff\x4f\xff\x51",
        b"\0\0\0\x0cJXL ",
        b"P1\n",
        b"P2\n",
        b"P3\n",
        b"P4\n",
        b"P5",
        b"P6",
    ),
)
_VIDEO_HEADS = (
    *(
        b"\x1aE\xdf\xa3",
        b"FLV\1",
        b"0&\xb2u\x8ef\xcf\x11",
        b"\0\0\1\xba",
        b"\0\0\1\xb3",
        b"YUV4MPEG2",
        b"DKIF",
    ),
    *(b"\x06\x0e+4\x02\x05\x01\x01", b".RMF", b"\0\0\0\1\x67", b"\0\0\0\1\x40\1", b"\0\0\0\1\x09"),
)
_AUDIO_HEADS = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9", b"#!AMR", b"FORM")
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_OGG_VIDEO = re.compile(rb"\x80theora|\x01video|OVP80")


class FileKind(Enum):
    """What a file holds."""

    IMAGE = "image"
    RAW = "raw photo"
    VIDEO = "video"
    AUDIO = "sound"
    UNKNOWN = "unknown"


def kind_of(head: bytes, suffix: str = "") -> FileKind:
    """Tell what a file holds.

    Args:
        head: Its first `HEAD_BYTES`, or all if there are fewer.
        suffix: Its ending, which counts only where the content tells nothing, and to tell raw photos that are
            TIFF files.
    """
    suffix = suffix.lower()
    if head[4:8] == b"ftyp":
        return _kind_of_brand(head[8:12])
    if head.startswith(_RAW_HEADS) or head[6:10] == b"HEAP" or (head[:2] == b"II" and head[8:10] == b"CR"):
        return FileKind.RAW
    if head.startswith(_IMAGE_HEADS):
        is_tiff = head[:2] in (b"II", b"MM")
        return FileKind.RAW if is_tiff and suffix in RAW_SUFFIXES else FileKind.IMAGE
    if head[:4] in (b"RIFF", b"RF64"):
        named = {b"WEBP": FileKind.IMAGE, b"AVI ": FileKind.VIDEO, b"WAVE": FileKind.AUDIO}
        return named.get(head[8:12], FileKind.UNKNOWN)
    if head.startswith(b"OggS"):
        return FileKind.VIDEO if _OGG_VIDEO.search(head) else FileKind.AUDIO
    if head.startswith(_VIDEO_HEADS) or head[4:8] in _QUICKTIME_BOXES or _is_transport_stream(head):
        return FileKind.VIDEO
    if head.startswith(b"BM") and int.from_bytes(head[6:10], "little") == 0:
        return FileKind.IMAGE
    if head.startswith(_AUDIO_HEADS):
        return FileKind.AUDIO
    if suffix in VIDEO_SUFFIXES:
        return FileKind.VIDEO
    return FileKind.IMAGE if suffix in IMAGE_SUFFIXES - RAW_SUFFIXES else FileKind.UNKNOWN


def _kind_of_brand(brand: bytes) -> FileKind:
    """MP4 and its many relatives."""
    if brand == b"crx ":
        return FileKind.RAW
    if brand[:3] in _IMAGE_BRANDS:
        return FileKind.IMAGE
    return FileKind.AUDIO if brand in (b"M4A ", b"M4B ", b"M4P ", b"F4A ") else FileKind.VIDEO


def _is_transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes (192 on camcorders' discs, 204 on the air) that begin with 0x47."""
    for size, offset in ((188, 0), (192, 4), (204, 0)):
        marks = head[offset::size]
        if len(marks) >= 3 and set(marks) == {0x47}:
            return True
    return False


def read_head(path: Path) -> bytes:
    """First bytes of a regular file; none where it cannot be read."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
