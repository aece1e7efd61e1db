"""What a video file says that decoders do not tell: why it has no frames, and where its size changes."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from g2vlm.inputs.formats.kinds import FileKind, kind_of, read_head
from g2vlm.inputs.formats.projections import projection_name

_MOST_MOOV = 64 << 20
_MP4_HEADS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_H264_SPS, _HEVC_SPS = 7, 33
_H264_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128)


def why_no_frames(path: Path) -> str | None:
    """Why a file gives no frames, and what helps; none where it does not say."""
    head = read_head(path)
    if kind_of(head, path.suffix) is FileKind.AUDIO:
        return "it holds sound without pictures: expected a video"
    if head[4:8] not in _MP4_HEADS:
        return None
    boxes = {name for name, _, _ in _top_boxes(path)}
    if b"mdat" in boxes and not boxes & {b"moov", b"moof"}:
        return (
            "its index (the moov box) is missing, as after a recording that broke off or an unfinished copy: "
            "copy it again, or repair it with a program such as untrunc and a whole video of the same camera"
        )
    handlers = _handlers(_moov(path))
    if handlers and b"vide" not in handlers:
        return "it holds sound without pictures: expected a video"
    return None


def is_cover_art(path: Path, codec: str) -> bool:
    """Whether the only picture of a file is the cover of a song or the like.

    Args:
        path: A file that opens as a video.
        codec: Four letters that name how its pictures are stored.
    """
    if codec.upper() not in ("MJPG", "MPNG", "PNG ", "BMP ", "JPEG"):
        return False
    head = read_head(path)
    if kind_of(head, "") is FileKind.AUDIO:
        return True
    if head[4:8] not in _MP4_HEADS:
        return False
    moov = _moov(path)
    return b"covr" in moov and b"vide" not in _handlers(moov)


def spherical_projection(path: Path) -> str | None:
    """The projection that a panorama video names in its index; none for ordinary videos."""
    if read_head(path)[4:8] not in _MP4_HEADS:
        return None
    moov = _moov(path)
    name = projection_name(moov)
    if name is None and b"GSpherical:Spherical" in moov:
        name = "equirectangular"
    if name is None and b"sv3d" in moov:
        name = "equirectangular" if b"equi" in moov else "spherical"
    return name


def _top_boxes(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of the outermost boxes of an MP4 or QuickTime file."""
    size = path.stat().st_size
    place = 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            header = file.read(16)
            (length,) = struct.unpack_from(">I", header)
            if length == 1 and len(header) == 16:
                (length,) = struct.unpack_from(">Q", header, 8)
            end = size if length == 0 else place + length
            yield header[4:8], place, end
            if end <= place:
                return
            place = end


def _moov(path: Path) -> bytes:
    """The index of an MP4 or QuickTime file; nothing where there is none."""
    for name, start, end in _top_boxes(path):
        if name == b"moov":
            with path.open("rb") as file:
                file.seek(start)
                return file.read(min(end - start, _MOST_MOOV))
    return b""


def _handlers(moov: bytes) -> set[bytes]:
    """Kinds of the tracks in an index: `vide`, `soun` and others."""
    kinds = set()
    for found in re.finditer(rb"hdlr", moov):
        # After the name: version and flags, and the kind that holds this one (QuickTime), then the kind.
        kinds.add(moov[found.end() + 8 : found.end() + 12])
    return kinds & {b"vide", b"soun", b"text", b"tmcd", b"meta", b"hint"}


def coded_size(packet: bytes) -> tuple[int, int] | None:
    """Size of the pictures that follow, from a packet of H.264 or HEVC with start codes.

    Returns:
        (width, height) in pixels, cropping applied; none where the packet does not say.
    """
    for found in re.finditer(rb"\x00\x00\x01", packet):
        unit = packet[found.end() : found.end() + 256]
        if len(unit) < 8 or unit[0] & 0x80:
            continue
        payload = re.sub(rb"\x00\x00\x03", b"\x00\x00", unit)
        try:
            if unit[0] & 0x1F == _H264_SPS and unit[0] & 0x60:
                return _h264_size(_Bits(payload[1:]))
            if (unit[0] >> 1) & 0x3F == _HEVC_SPS and unit[1] & 7 == 1:
                return _hevc_size(_Bits(payload[2:]))
        except IndexError:
            continue
    return None


class _Bits:
    """Bits of a parameter set, first to last."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._place = 0

    def take(self, count: int) -> int:
        """The next bits as a number."""
        bits = self._bits[self._place : self._place + count]
        if len(bits) < count:
            raise IndexError
        self._place += count
        return int(bits or "0", 2)

    def golomb(self) -> int:
        """The next number in Exp-Golomb code."""
        zeros = 0
        while self.take(1) == 0:
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed_golomb(self) -> int:
        """The next signed number in Exp-Golomb code."""
        value = self.golomb()
        return (value + 1) // 2 if value % 2 else -(value // 2)


def _h264_size(bits: _Bits) -> tuple[int, int]:
    """ITU-T H.264, 7.3.2.1.1: everything up to the cropping."""
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    chroma = 1
    if profile in _H264_HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.signed_golomb()
        bits.signed_golomb()
        for _ in range(bits.golomb()):
            bits.signed_golomb()
    bits.golomb()
    bits.take(1)
    columns, rows = bits.golomb() + 1, bits.golomb() + 1
    fields = 2 - bits.take(1)  # rows count pairs of fields in interlaced video
    if fields == 2:
        bits.take(1)
    bits.take(1)
    left, right, top, bottom = (bits.golomb() for _ in range(4)) if bits.take(1) else (0, 0, 0, 0)
    unit_x = 2 if chroma in (1, 2) else 1
    unit_y = (2 if chroma == 1 else 1) * fields
    return 16 * columns - unit_x * (left + right), 16 * rows * fields - unit_y * (top + bottom)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last


def _hevc_size(bits: _Bits) -> tuple[int, int]:
    """ITU-T H.265, 7.3.2.2.1: everything up to the conformance window."""
    bits.take(4)
    layers = bits.take(3)
    bits.take(1)
    bits.take(96)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.take(88 * has_profile + 8 * has_level)
    bits.golomb()
    chroma = bits.golomb()
    if chroma == 3:
        bits.take(1)
    width, height = bits.golomb(), bits.golomb()
    left, right, top, bottom = (bits.golomb() for _ in range(4)) if bits.take(1) else (0, 0, 0, 0)
    unit_x, unit_y = (2 if chroma in (1, 2) else 1), (2 if chroma == 1 else 1)
    return width - unit_x * (left + right), height - unit_y * (top + bottom)
