"""What cannot be decoded is refused with a reason on one line, huge pictures before they are decoded."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import decode_array, decode_bytes, decode_file, decode_image
from g2vlm.inputs.formats import limits, opening


def picture(width: int = 40, height: int = 30) -> Image.Image:
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2] = (250, 10, 10)
    rgb[: height // 2, width // 2 :] = (10, 250, 10)
    rgb[height // 2 :, : width // 2] = (10, 10, 250)
    rgb[height // 2 :, width // 2 :] = (250, 250, 10)
    return Image.fromarray(rgb)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def reason(call: object, *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_truncated_jpeg(tmp_path: Path) -> None:
    data = encoded(picture(400, 300), format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    assert "truncated" in reason(decode_file, tmp_path / "cut.jpg")


def test_garbage_zero_bytes_and_text(tmp_path: Path) -> None:
    for name, data, words in [
        ("noise.jpg", bytes(range(256)) * 9, "not an image"),
        ("empty.png", b"", "0 bytes"),
        ("letter.jpg", b"Dear all, this is no photo.", "not an image"),
        ("cut.tif", b"II*\x00\x08\x00\x00\x00", "image"),
        ("header.png", b"\x89PNG\r\n\x1a\n", "image"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert words in reason(decode_file, tmp_path / name), name
    assert "0 bytes" in reason(decode_bytes, b"")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert reason(decode_file, tmp_path / "none.jpg") == "no such file"
    assert reason(decode_file, tmp_path).startswith("a folder")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert reason(decode_file, tmp_path / "link.jpg") == "a link to a file that does not exist"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(decode_file, tmp_path / "pipe.jpg") == "not a regular file"


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "locked.jpg")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as a user who can read everything
    assert reason(decode_file, tmp_path / "locked.jpg").startswith("permission denied")


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be huge: header and one empty data chunk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("size", [(100_000, 100_000), (60_000, 50_000), (14_000, 13_000)])
def test_huge_images_are_refused_before_decoding(size: tuple[int, int]) -> None:
    assert "too large" in reason(decode_bytes, bomb(*size))


def test_limits_are_our_own_and_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PIXELS", 1200)
    assert decode_image(picture(40, 30)).size == (40, 30)
    assert "too large: 41x30" in reason(decode_image, picture(41, 30))
    assert "too large" in reason(decode_array, np.zeros((31, 40), np.uint8))
    big = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(big, format="TIFF")
    assert "too large" in reason(decode_bytes, big.getvalue())


def test_huge_float_tiff_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "f.tiff"), np.zeros((48, 64, 3), np.float32))
    monkeypatch.setattr(limits, "MAX_PIXELS", 64 * 48 - 1)
    monkeypatch.setattr(opening, "decode_deep", lambda _: pytest.fail("decoded"))
    assert "too large: 64x48" in reason(decode_file, tmp_path / "f.tiff")


def test_large_photos_within_the_limit_raise_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here on, and refuses from twice
    assert decode_bytes(encoded(picture(40, 30), format="PNG")).size == (40, 30)
    assert "too large" in reason(decode_bytes, encoded(picture(80, 60), format="PNG"))


@pytest.mark.parametrize("size", [(2100, 100), (100, 2100), (3000, 1), (1, 3000)])
def test_extreme_shapes_are_refused(size: tuple[int, int]) -> None:
    assert "too elongated" in reason(decode_image, Image.new("RGB", size))


def test_largest_allowed_shape() -> None:
    assert decode_image(Image.new("RGB", (2000, 100))).size == (2000, 100)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((16, 20, 2), np.uint8), "shape"),
        (np.zeros((3, 16, 20), np.uint8), "shape"),
        (np.zeros((0, 20, 3), np.uint8), "shape"),
        (np.zeros(16, np.uint8), "shape"),
        (np.zeros((16, 20, 3), np.int64), "int64"),
        (np.full((16, 20, 3), 200.0), "0..1"),
        (np.full((16, 20, 3), np.nan), "0..1"),
        (np.full((16, 20, 3), -0.1), "0..1"),
    ],
)
def test_wrong_arrays(array: np.ndarray, words: str) -> None:
    assert words in reason(decode_array, array)


INTACT = [
    encoded(picture(), format=format_)
    for format_ in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "TGA", "PPM", "AVIF")
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(INTACT),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    st.floats(0.01, 1),
)
def test_damage_gives_a_picture_or_a_reason(data: bytes, flips: list[tuple[float, int]], kept: float) -> None:
    damaged = bytearray(data[: max(1, int(len(data) * kept))])
    for place, value in flips:
        damaged[int(place * len(damaged))] = value
    try:
        decoded = decode_bytes(bytes(damaged))
    except InputError as error:
        message = str(error)
    else:
        assert decoded.mode == "RGB"
        return
    assert message
    assert "\n" not in message
