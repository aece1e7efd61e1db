"""Colours and transparency: profiles, sensors of few bits, pixels that show nothing."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from g2vlm.inputs.decode import Photo, decode_bytes, read_array, read_bytes
from g2vlm.inputs.geometric import prepare_geometric

RAMP = np.tile(np.arange(256, dtype=np.uint8), (32, 1))
COLOURS = np.dstack([RAMP, RAMP[:, ::-1], np.roll(RAMP, 90, axis=1)])


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_, **options)
    return buffer.getvalue()


def linear_profile() -> bytes:
    """sRGB's colours with linear light."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place in range(struct.unpack(">I", profile[128:132])[0]):
        name, at, size = struct.unpack_from(">4sII", profile, 132 + 12 * place)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[at : at + size] = (b"curv\0\0\0\0" + struct.pack(">I", 0)).ljust(size, b"\0")
    return bytes(profile)


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_colours_under_a_profile_become_srgb(format_: str) -> None:
    shown = COLOURS / 255
    light = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    stored = Image.fromarray((light * 255).round().astype(np.uint8))
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = encoded(stored, format_, icc_profile=linear_profile(), **options)
    bright = COLOURS > 60  # linear light keeps few dark levels
    assert np.abs(np.asarray(decode_bytes(data)).astype(int) - COLOURS)[bright].max() <= 3


def test_plain_profiles_change_no_pixel() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile at all"):
        data = encoded(Image.fromarray(COLOURS), icc_profile=profile)
        assert np.array_equal(np.asarray(decode_bytes(data)), COLOURS)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("values", [RAMP, COLOURS], ids=["gray", "rgb"])
def test_sensors_of_few_bits(tmp_path: Path, bits: int, suffix: str, values: np.ndarray) -> None:
    path = tmp_path / f"a.{suffix}"
    stored = (values.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)
    cv2.imwrite(str(path), stored[..., ::-1] if stored.ndim == 3 else stored)
    expected = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    assert np.abs(np.asarray(decode_bytes(path.read_bytes())).astype(int) - expected).max() <= 1


def cutout(format_: str) -> bytes:
    """A picture whose left half is fully transparent."""
    alpha = np.where(np.arange(256) < 128, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.dstack([COLOURS, np.tile(alpha, (32, 1))]))
    return encoded(image, format_, **({"lossless": True} if format_ == "WEBP" else {}))


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_are_no_points(format_: str) -> None:
    picture = read_bytes(cutout(format_))
    images = prepare_geometric([Photo(picture.image, "a", visible=picture.visible)], width=112)
    assert torch.equal(images.valid[0], (torch.arange(112) >= 56).expand(14, 112))
    assert (images.pixels[0, :, :, :50] == 1).all()


def test_transparent_colour_of_a_palette() -> None:
    image = Image.fromarray(np.array([[0, 1]] * 2, np.uint8)).resize((64, 48), Image.Resampling.NEAREST)
    image.putpalette([9, 9, 9, 200, 30, 30])
    picture = read_bytes(encoded(image, "GIF", transparency=0))
    assert picture.visible is not None
    assert picture.visible.getextrema() == (0, 255)
    assert picture.visible.getpixel((3, 3)) == 0


def test_half_transparent_pixels_stay() -> None:
    rgba = np.full((16, 20, 4), 128, np.uint8)
    assert read_array(rgba).visible is None


def test_a_photo_that_lost_its_transparency_keeps_its_colours() -> None:
    image = Image.fromarray(np.dstack([COLOURS, np.zeros_like(RAMP)]))
    picture = read_bytes(encoded(image))
    assert picture.visible is None
    assert np.array_equal(np.asarray(picture.image), COLOURS)
