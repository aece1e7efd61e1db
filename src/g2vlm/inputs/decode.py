"""Image files, bytes, Pillow images and arrays to upright 8-bit RGB.

Every picture leaves here in one form: EXIF orientation applied, transparency laid on white, gray and palette
expanded, 16-bit and floating values scaled (not clipped) to 8 bits, CMYK converted through its own colour
profile where it has one. A plain RGB file passes through unchanged.
"""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from g2vlm.errors import InputError, MissingExtraError
from g2vlm.inputs.opencv import TIFF_MAGIC, decode_tiff, tiff_size

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".hif", ".tif", ".tiff"}
    | {".bmp", ".dib", ".gif", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Endings (lower case) by which a file in a folder is taken for a photo."""

MAX_PIXELS = 178_956_970
"""Largest accepted area: Pillow's own limit against decompression bombs (0.5 GB of RGB)."""

MAX_ASPECT_RATIO = 20.0
"""Longest accepted side over the shorter one: beyond it a view would be less than two patches thin."""

_PLAIN_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}
_ORIENTATION_TAG = 0x0112

_HEIF_BRANDS = frozenset({b"hei", b"hev", b"mif", b"msf"})

# What Pillow's decoders are known to raise on damaged files, besides its own errors.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)

# Warning filters are global to the process: one thread at a time may change them.
_FILTER_LOCK = threading.Lock()


@dataclass(frozen=True)
class Photo:
    """One view before it is resized for an encoder."""

    image: Image.Image
    """Upright RGB, 8 bits per channel."""

    name: str
    """Where it came from, unique within a set: the file name, or video name and frame number."""

    time_s: float | None = None
    """Time in the video in seconds, none for a photo."""

    path: Path | None = None
    """The photo or video file, absolute; none for an image from memory or a camera."""

    frame_index: int | None = None
    """Number of the frame in the video, from 0; none for a photo."""


def decode_file(path: Path) -> Image.Image:
    """Read an image file as upright RGB; of an animation, the first frame.

    Args:
        path: The file. Its content decides the format, not its ending.

    Raises:
        InputError: The file cannot be used; the message is the reason alone, without the file's name, so that
            callers can put it after the name.
    """
    try:
        if not path.is_file():
            raise InputError(why_no_file(path))
        if path.stat().st_size == 0:
            raise InputError("empty file, 0 bytes")
        with path.open("rb") as file:
            return _decode_stream(file)
    except PermissionError as error:
        raise InputError("permission denied: make the file readable") from error


def is_upright_rgb(path: Path) -> bool:
    """Whether a file is a JPEG or PNG, named so, that any reader sees exactly as `decode_file` gives it.

    Args:
        path: An image file that `decode_file` can read.

    Raises:
        InputError: The file cannot be used; the message is the reason.
    """
    with _decoding(), Image.open(path) as stored:
        named_so = path.suffix.lower() in _PLAIN_SUFFIXES.get(stored.format or "", ())
        is_upright = stored.getexif().get(_ORIENTATION_TAG, 1) == 1
        return named_so and is_upright and stored.mode == "RGB" and "transparency" not in stored.info


def decode_bytes(data: bytes) -> Image.Image:
    """Read an encoded image (JPEG, PNG, ...) held in memory as upright RGB.

    Args:
        data: The content of an image file.

    Raises:
        InputError: The data cannot be used; the message is the reason.
    """
    if not data:
        raise InputError("empty file, 0 bytes")
    return _decode_stream(io.BytesIO(data))


def decode_image(image: Image.Image) -> Image.Image:
    """Bring a Pillow image of any mode to upright RGB; of an animation, the current frame.

    Args:
        image: The image; it is not changed.

    Raises:
        InputError: The image cannot be used; the message is the reason.
    """
    with _decoding():
        check_size(*image.size)
        return _to_rgb(image)


def decode_array(array: np.ndarray) -> Image.Image:
    """Bring an array to RGB.

    Args:
        array: (height, width), (height, width, 1), (height, width, 3) RGB or (height, width, 4) RGBA; bool,
            uint8, uint16, or floating in 0..1.

    Raises:
        InputError: Another shape or type, or values out of range; the message is the reason.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.size == 0:
        raise InputError(
            f"expected an array (height, width) or (height, width, 1|3|4), got shape {array.shape}"
        )
    check_size(array.shape[1], array.shape[0])
    levels = _array_to_bytes(array)
    if channels == 1:
        levels = levels.reshape(array.shape[:2])
    with _decoding():
        return _to_rgb(Image.fromarray(np.ascontiguousarray(levels)))


def _array_to_bytes(array: np.ndarray) -> np.ndarray:
    """Scale an array's values to 0..255 by the range of its type."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return _scale_to_bytes(array, 65535.0)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"expected an array of uint8, uint16, bool or floating type, got {array.dtype}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise InputError(
            "expected a floating array with values in 0..1: divide by its largest possible value"
        )
    return _scale_to_bytes(array, 1.0)


def _scale_to_bytes(values: np.ndarray, largest: float) -> np.ndarray:
    """Map 0..largest to 0..255, rounding to nearest."""
    return np.clip(np.rint(values.astype(np.float64) * (255.0 / largest)), 0, 255).astype(np.uint8)


def printable(name: str) -> str:
    """A file name as one line that any terminal can show: characters that cannot be shown become `?`."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _undeclared_range_to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale floats and wide integers, whose files do not say which value is white.

    The smallest of the usual ranges (1 for floats, 8 bit, 16 bit) that holds the largest value is taken, or
    that value itself. What is not a number becomes black.
    """
    if values.dtype == np.uint8:
        return values
    ranges = (1.0, 255.0, 65535.0) if np.issubdtype(values.dtype, np.floating) else (255.0, 65535.0)
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(numbers.max())
    return _scale_to_bytes(numbers, next((candidate for candidate in ranges if peak <= candidate), peak))


def why_no_file(path: Path) -> str:
    """Say in a few words why a path is not a readable file."""
    if path.is_dir():
        return "a folder: pass it on its own"
    if path.is_symlink() and not path.exists():
        return "a link to a file that does not exist"
    if path.exists():
        return "not a regular file"
    return "no such file"


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn what decoders raise into `InputError` and silence what they warn about."""
    with _FILTER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, PermissionError):
            raise
        except MissingExtraError as error:
            raise InputError(str(error)) from error
        except UnidentifiedImageError as error:
            raise InputError("not an image this package can read") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"too large: more than {MAX_PIXELS // 1_000_000} megapixels") from error
        except _DECODER_ERRORS as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"damaged or truncated image: {detail}") from error


def _decode_stream(file: io.BufferedReader | io.BytesIO) -> Image.Image:
    """Decode an opened image file."""
    with _decoding(), _open(file) as image:
        check_size(*image.size)
        return _to_rgb(image)


def _open(file: io.BufferedReader | io.BytesIO) -> Image.Image:
    """Open an image with Pillow, with its HEIC plugin, or with OpenCV."""
    head = file.read(12)
    file.seek(0)
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        if head[4:8] == b"ftyp" and head[8:11] in _HEIF_BRANDS:
            _register_heif()
            return Image.open(file)
        if head[:4] in TIFF_MAGIC:
            return _open_unusual_tiff(file)
        raise


def _open_unusual_tiff(file: io.BufferedReader | io.BytesIO) -> Image.Image:
    """Decode a TIFF file that Pillow does not know, such as floating RGB."""
    check_size(*tiff_size(file))
    values = decode_tiff(file.read())
    return Image.fromarray(np.ascontiguousarray(_undeclared_range_to_bytes(values)))


def _register_heif() -> None:
    """Teach Pillow the HEIC photos of telephones."""
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingExtraError("Reading HEIC photos", "heif") from error
    pillow_heif.register_heif_opener()


def check_size(width: int, height: int) -> None:
    """Refuse impossible sizes before their pixels are decoded.

    Args:
        width: In pixels.
        height: In pixels.

    Raises:
        InputError: No pixels, more than `MAX_PIXELS`, or sides beyond `MAX_ASPECT_RATIO`; the message is the
            reason.
    """
    if width < 1 or height < 1:
        raise InputError(f"no pixels: {width}x{height}")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"too large: {width}x{height}, at most {MAX_PIXELS // 1_000_000} megapixels are read"
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(
            f"too elongated: {width}x{height}, one side may be at most {MAX_ASPECT_RATIO:g} x the other"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB of a Pillow image in any mode."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _wide_gray_to_rgb(image)
    if image.has_transparency_data:
        # Pillow leads from "La" (premultiplied) to RGBA only by way of "LA".
        return _on_white((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an RGBA image on white."""
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _wide_gray_to_rgb(image: Image.Image) -> Image.Image:
    """Scale gray of more than 8 bits: 16-bit modes by their range, 32-bit ones by their content."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        levels = _scale_to_bytes(values, 65535.0)
    else:
        levels = _undeclared_range_to_bytes(values)
    return Image.fromarray(levels).convert("RGB")


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """Convert printing colours, through the embedded profile if there is a usable one."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            # A damaged profile only costs colour accuracy: the photo itself is intact.
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")
