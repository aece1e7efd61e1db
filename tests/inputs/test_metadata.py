"""Metadata that hold anything cost no pixel: a photo comes out as without them, turned by its orientation."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from g2vlm.inputs.decode import decode_bytes, decode_image
from g2vlm.inputs.formats.containers import without_metadata
from g2vlm.inputs.formats.exif import read_tags

TURNED = {
    1: lambda rgb: rgb,
    2: np.fliplr,
    3: lambda rgb: np.rot90(rgb, 2),
    4: np.flipud,
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: np.rot90(rgb, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def picture() -> Image.Image:
    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    return Image.fromarray(rgb)


def encoded(format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, format=format_, **options)
    return buffer.getvalue()


def exif_block(entries: list[tuple[int, int, int, bytes]], order: str = "<", tail: bytes = b"") -> bytes:
    """A TIFF structure of one directory: (tag, type, count, four bytes of value or pointer)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = mark + struct.pack(f"{order}IH", 8, len(entries))
    body += b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return body + struct.pack(f"{order}I", 0) + tail


def jpeg_with(exif: bytes) -> bytes:
    plain, block = encoded("JPEG", quality=95), b"Exif\0\0" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    plain = encoded("PNG")
    packed = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return plain[:33] + packed + plain[33:]


def webp_with(exif: bytes) -> bytes:
    return encoded("WEBP", lossless=True, exif=b"Exif\0\0" + exif)


def tiff_with(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """A TIFF file to whose directory entries are added."""
    data = encoded("TIFF")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    kept = [data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    known = {struct.unpack_from("<H", entry)[0] for entry in kept}
    kept += [struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries if entry[0] not in known]
    kept.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    directory = struct.pack("<H", len(kept)) + b"".join(kept) + struct.pack("<I", 0)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


ODD_TAGS = st.sampled_from(
    [270, 271, 272, 282, 283, 296, 305, 306, 315, 531, 700, 33432, 34665, 34675, 34853, 40965, 39321, 50341]
)
ENTRIES = st.lists(
    st.tuples(
        ODD_TAGS,
        st.integers(0, 20),
        st.sampled_from([0, 1, 2, 4, 1000, 2**32 - 1]),
        st.binary(min_size=4, max_size=4),
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(
    ENTRIES,
    st.integers(1, 8),
    st.sampled_from([1, 3, 4, 8, 9]),
    st.sampled_from("<>"),
    st.binary(max_size=60),
    st.sampled_from(["jpeg", "png", "webp"]),
)
def test_pixels_are_those_without_metadata_turned(
    entries: list[tuple[int, int, int, bytes]],
    orientation: int,
    kind: int,
    order: str,
    tail: bytes,
    container: str,
) -> None:
    code = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}[kind]
    value = struct.pack(f"{order}{code}", orientation).ljust(4, b"\0")
    exif = exif_block([*entries, (0x0112, kind, 1, value)], order, tail)
    plain = {
        "jpeg": encoded("JPEG", quality=95),
        "png": encoded("PNG"),
        "webp": encoded("WEBP", lossless=True),
    }
    made = {"jpeg": jpeg_with, "png": lambda exif: png_with((b"eXIf", exif)), "webp": webp_with}
    expected = TURNED[orientation](np.asarray(Image.open(io.BytesIO(plain[container])).convert("RGB")))
    assert np.array_equal(np.asarray(decode_bytes(made[container](exif))), expected)


@settings(max_examples=100, deadline=None)
@given(ENTRIES, st.integers(1, 8))
def test_tiff_files_with_odd_tags(entries: list[tuple[int, int, int, bytes]], orientation: int) -> None:
    data = tiff_with([*entries, (0x0112, 3, 1, struct.pack("<I", orientation))])
    assert np.array_equal(np.asarray(decode_bytes(data)), TURNED[orientation](np.asarray(picture())))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_in_place_of_metadata(block: bytes) -> None:
    png = png_with((b"eXIf", block), (b"iCCP", block), (b"zTXt", block))
    assert np.array_equal(np.asarray(decode_bytes(png)), np.asarray(picture()))
    assert read_tags(block) is not None
    jpeg = np.asarray(Image.open(io.BytesIO(encoded("JPEG", quality=95))))
    assert np.array_equal(
        np.asarray(decode_bytes(jpeg_with(b"II*\0" + block.replace(b"\x12\x01", b"")))), jpeg
    )


@pytest.mark.parametrize("format_", ["AVIF", "HEIF"])
@settings(max_examples=25, deadline=None)
@given(ENTRIES)
def test_telephone_formats_with_odd_tags(format_: str, entries: list[tuple[int, int, int, bytes]]) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    plain = encoded(format_, quality=95)
    block = exif_block(entries)
    empty = block[:8] + bytes(len(block) - 8)  # encoders read what they write: odd tags come in afterwards
    data = encoded(format_, quality=95, exif=empty).replace(empty, block)
    assert block in data
    assert np.array_equal(np.asarray(decode_bytes(data)), np.asarray(decode_bytes(plain)))


def test_long_texts_and_profiles_of_png() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "x" * 3_000_000, zip=True)
    for data in (encoded("PNG", pnginfo=info), encoded("PNG", icc_profile=bytes(3_000_000))):
        assert np.array_equal(np.asarray(decode_bytes(data)), np.asarray(picture()))


def test_segments_of_wrong_length() -> None:
    plain = encoded("JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(plain)))
    for length in (3, 200, 60_000):
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", length) + b"Exif\0\0" + bytes(30) + plain[2:]
        assert np.array_equal(np.asarray(decode_bytes(data)), expected)


def test_orientation_in_xmp_counts_where_exif_has_none() -> None:
    xmp = b'<x><rdf:Description tiff:Orientation="6"/></x>'
    for format_ in ("JPEG", "WEBP"):
        options = {"lossless": True} if format_ == "WEBP" else {"quality": 95}
        plain = np.asarray(decode_bytes(encoded(format_, **options)))
        assert np.array_equal(
            np.asarray(decode_bytes(encoded(format_, xmp=xmp, **options))), TURNED[6](plain)
        )


def test_text_where_a_number_belongs_turns_nothing() -> None:
    data = jpeg_with(exif_block([(0x0112, 2, 2, b"6\0\0\0")]))
    assert decode_bytes(data).size == (32, 24)


def test_opened_images_with_odd_metadata_are_usable() -> None:
    data = jpeg_with(
        exif_block([(0x0110, 5, 1, struct.pack("<I", 50)), (0x0112, 3, 1, b"\6\0\0\0")], tail=b"\1" * 60)
    )
    assert decode_image(Image.open(io.BytesIO(data))).size == (24, 32)


def test_files_keep_their_pixels_only() -> None:
    data, metadata = without_metadata(jpeg_with(exif_block([(0x0110, 2, 3, b"ab\0\0")])))
    assert b"Exif" not in data
    assert metadata is not None
    assert metadata.camera == "ab"
