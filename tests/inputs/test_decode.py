"""Every kind of picture leaves the decoder as upright 8-bit RGB, every broken one as a one-line reason."""

import io
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import decode_array, decode_bytes, decode_file, decode_image

RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))
COLORS = np.stack([RAMP, RAMP[:, ::-1], RAMP * 0.5], axis=-1)


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Four differently coloured quarters, so that a wrong orientation shows."""
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


def test_plain_rgb_passes_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    picture().save(path)
    assert np.array_equal(np.asarray(decode_file(path)), np.asarray(picture()))
    jpeg = encoded(picture(), format="JPEG", quality=80)
    assert np.array_equal(np.asarray(decode_bytes(jpeg)), np.asarray(Image.open(io.BytesIO(jpeg))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored_from_upright = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = picture() if stored_from_upright is None else picture().transpose(stored_from_upright)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"turned.{suffix}"
    stored.save(path, exif=exif)
    upright = decode_file(path)
    assert upright.size == (40, 30)
    assert (
        np.abs(np.asarray(upright, float)[5:-5:19, 5:-5:29] - np.asarray(picture())[5:-5:19, 5:-5:29]).max()
        < 30
    )


def test_damaged_exif_does_not_cost_the_photo() -> None:
    data = encoded(picture(), format="JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")
    assert decode_bytes(data).size == (40, 30)


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "La", "RGBa"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    assert decode_image(Image.new(mode, (20, 16))).getcolors() == [(320, (255, 255, 255))]


def test_half_transparent_red_becomes_pink() -> None:
    half = decode_bytes(encoded(Image.new("RGBA", (20, 16), (255, 0, 0, 128)), format="PNG"))
    assert half.getpixel((3, 3)) == (255, 127, 127)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_transparency(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (20, 16), 1)
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.paste(0, (0, 0, 10, 16))
    image.save(tmp_path / f"p.{suffix}", transparency=0)
    upright = decode_file(tmp_path / f"p.{suffix}")
    assert upright.getpixel((2, 2)) == (255, 255, 255)
    assert upright.getpixel((15, 2)) == (200, 30, 30)


def test_palette_with_alpha_bytes_and_rgb_with_transparent_colour() -> None:
    image = Image.new("P", (20, 16), 1)
    image.putpalette([0, 0, 0, 200, 30, 30])
    assert decode_bytes(encoded(image, format="PNG", transparency=b"\xff\x00")).getpixel((0, 0)) == (
        255,
        255,
        255,
    )
    red = Image.new("RGB", (20, 16), (255, 0, 0))
    assert decode_bytes(encoded(red, format="PNG", transparency=(255, 0, 0))).getpixel((0, 0)) == (
        255,
        255,
        255,
    )


def test_bilevel_and_gray() -> None:
    assert decode_bytes(encoded(Image.new("1", (20, 16), 1), format="PNG")).getpixel((0, 0)) == (
        255,
        255,
        255,
    )
    assert decode_bytes(encoded(Image.new("L", (20, 16), 77), format="PNG")).getpixel((0, 0)) == (77, 77, 77)


def expected_ramp(values: np.ndarray) -> np.ndarray:
    return values * 255 if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2) * 255


@pytest.mark.parametrize("values", [RAMP, COLORS], ids=["gray", "rgb"])
@pytest.mark.parametrize(
    ("suffix", "largest"), [("png", 65535), ("tiff", 65535), ("tif", 1.0), ("ppm", 65535)]
)
def test_deep_files_are_scaled_not_clipped(
    tmp_path: Path, values: np.ndarray, suffix: str, largest: float
) -> None:
    path = tmp_path / f"deep.{suffix if values.ndim == 3 or suffix != 'ppm' else 'pgm'}"
    dtype = np.uint16 if largest > 1 else np.float32
    stored = (values * largest).astype(dtype)
    assert cv2.imwrite(str(path), stored[..., ::-1] if values.ndim == 3 else stored)
    decoded = np.asarray(decode_file(path), dtype=float)
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded - expected_ramp(values)).max() <= 1.0


def test_deep_tiff_with_alpha_and_doubles(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), np.dstack([COLORS[..., ::-1], RAMP]).astype(np.float32))
    decoded = np.asarray(decode_file(tmp_path / "a.tiff"))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert np.abs(decoded[0, -1].astype(int) - [255, 0, 128]).max() <= 1
    cv2.imwrite(str(tmp_path / "d.tiff"), RAMP.astype(np.float64))
    assert np.abs(np.asarray(decode_file(tmp_path / "d.tiff"), float) - expected_ramp(RAMP)).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_sixteen_bit_modes(mode: str) -> None:
    image = Image.new(mode, (20, 16), 32768)
    assert decode_image(image).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("mode", "white", "value", "level"),
    [
        ("F", 1.0, 0.5, 128),
        ("F", 255.0, 51.0, 51),
        ("F", 60000.0, 25700.0, 100),
        ("F", 1e6, 5e5, 128),
        ("I", 255, 51, 51),
        ("I", 65535, 25700, 100),
        ("I", 2**31 - 1, 2**30, 128),
    ],
)
def test_values_without_declared_range(mode: str, white: float, value: float, level: int) -> None:
    image = Image.new(mode, (20, 16), value)
    image.putpixel((0, 0), white)
    assert decode_image(image).getpixel((5, 5)) == (level, level, level)


def test_not_a_number_becomes_black() -> None:
    values = np.ones((16, 20), np.float32)
    values[3, 4], values[3, 5] = np.nan, -np.inf
    decoded = decode_image(Image.fromarray(values))
    assert decoded.getpixel((4, 3)) == decoded.getpixel((5, 3)) == (0, 0, 0)
    assert decoded.getpixel((0, 0)) == (255, 255, 255)


def test_orientation_of_a_floating_tiff(tmp_path: Path) -> None:
    path = tmp_path / "turned.tiff"
    cv2.imwrite(str(path), COLORS[..., ::-1].astype(np.float32))
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0] + 2
    count = struct.unpack_from("<H", data, start - 2)[0]
    entries = [struct.unpack_from("<HHI4s", data, start + 12 * place) for place in range(count)]
    # The planar configuration may be left out, which makes room for an orientation; tags must ascend.
    entries = [entry for entry in entries if entry[0] != ExifTags.Base.PlanarConfiguration]
    entries.append((ExifTags.Base.Orientation.value, 3, 1, struct.pack("<I", 6)))
    assert len(entries) == count
    for place, entry in enumerate(sorted(entries)):
        struct.pack_into("<HHI4s", data, start + 12 * place, *entry)
    path.write_bytes(data)
    upright = np.rot90(COLORS, -1) * 255
    assert np.abs(np.asarray(decode_file(path), float) - upright).max() <= 1


def test_cmyk_without_profile(tmp_path: Path) -> None:
    Image.new("CMYK", (20, 16), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red, green, blue = decode_file(tmp_path / "c.jpg").getpixel((3, 3))
    assert red > 240
    assert max(green, blue) < 15


def cmyk_profile() -> bytes:
    """A printer that prints white as light, all else as a Lab green: unlike any real one."""
    grid = [(255, 128, 128) if node == 0 else (178, 78, 168) for node in range(16)]
    identity = bytes(range(256))
    matrix = b"".join(
        struct.pack(">i", 65536 if row == column else 0) for row in range(3) for column in range(3)
    )
    lut = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + bytes(sum(grid, ())) + identity * 3
    )
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\x00" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    rights = b"text" + bytes(4) + b"none\x00"
    tags, body, offset = b"", b"", 128 + 4 + 12 * 4
    for name, content in ((b"desc", text), (b"wtpt", white), (b"cprt", rights), (b"A2B0", lut)):
        content += bytes(-len(content) % 4)
        tags += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(24)
    header += bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\x00") + struct.pack(">I", 4) + tags + body


def test_cmyk_goes_through_its_profile() -> None:
    ink = Image.new("CMYK", (20, 16), (0, 255, 255, 0))
    data = encoded(ink, format="TIFF", icc_profile=cmyk_profile())
    red, green, blue = decode_bytes(data).getpixel((3, 3))
    assert green > red + 60  # plain conversion gives pure red
    assert green > blue + 60
    paper = encoded(Image.new("CMYK", (20, 16), (0, 0, 0, 0)), format="TIFF", icc_profile=cmyk_profile())
    assert min(decode_bytes(paper).getpixel((3, 3))) > 245


def test_cmyk_with_damaged_profile_is_converted_plainly() -> None:
    data = encoded(Image.new("CMYK", (20, 16), (0, 255, 255, 0)), format="TIFF", icc_profile=b"nonsense" * 20)
    assert decode_bytes(data).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format_: str) -> None:
    frames = [Image.new("RGB", (20, 16), color) for color in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], format=format_, save_all=True, append_images=frames[1:], lossless=True)
    red, _, blue = decode_bytes(data).getpixel((3, 3))
    assert red > 240
    assert blue < 15


@pytest.mark.parametrize(
    "format_", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF", "JPEG2000", "TGA", "PPM"]
)
def test_common_formats_by_content(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "any_ending.dat"
    path.write_bytes(encoded(picture(), format=format_))
    corner = np.asarray(decode_file(path), float)[3, 3]
    assert np.abs(corner - (250, 10, 10)).max() < 40


def test_heic_is_read_upright(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = picture(160, 120).transpose(Image.Transpose.ROTATE_90)
    pillow_heif.from_pillow(stored).save(tmp_path / "a.heic", quality=90, exif=exif.tobytes())
    decoded = decode_file(tmp_path / "a.heic")
    assert decoded.size == (160, 120)
    assert np.abs(np.asarray(decoded, float)[10, 10] - (250, 10, 10)).max() < 40


def test_heic_under_the_general_brand() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture(160, 120)).save(buffer, quality=90)
    data = bytearray(buffer.getvalue())
    data[8:12] = b"mif1"
    assert decode_bytes(bytes(data)).size == (160, 120)


def test_heic_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(100))
    assert "g2vlm[heif]" in reason(decode_file, tmp_path / "a.heic")
    (tmp_path / "misnamed.jpg").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(100))
    assert "g2vlm[heif]" in reason(decode_file, tmp_path / "misnamed.jpg")


@pytest.mark.parametrize(
    ("array", "level"),
    [
        (np.full((16, 20, 3), 7, np.uint8), 7),
        (np.full((16, 20), 7, np.uint8), 7),
        (np.full((16, 20, 1), 7, np.uint8), 7),
        (np.full((16, 20, 3), 25700, np.uint16), 100),
        (np.full((16, 20, 3), 0.2, np.float64), 51),
        (np.full((16, 20, 3), 0.2, np.float32), 51),
        (np.full((16, 20), True), 255),
        (np.zeros((16, 20, 4), np.uint8), 255),
        (np.full((32, 20, 3), 7, np.uint8)[::2], 7),
    ],
)
def test_arrays(array: np.ndarray, level: int) -> None:
    decoded = decode_array(array)
    assert decoded.size == (20, 16)
    assert decoded.getcolors() == [(320, (level, level, level))]


def test_given_images_are_not_changed() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.open(io.BytesIO(encoded(picture(), format="JPEG", exif=exif)))
    assert decode_image(image).size == (30, 40)
    assert image.size == (40, 30)
    assert image.getexif()[ExifTags.Base.Orientation] == 6
