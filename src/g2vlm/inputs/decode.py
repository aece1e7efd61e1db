"""Image files, bytes, Pillow images and arrays to upright 8-bit RGB.

Every picture leaves here in one form: EXIF orientation applied, transparency laid on white (and remembered),
gray and palette expanded, values of more than 8 bits scaled (not clipped) to 8 bits, colours converted to
sRGB through the file's profile. A plain RGB file passes through unchanged.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from g2vlm.errors import InputError, MemoryLimitError, MissingExtraError
from g2vlm.inputs.formats.colours import (
    Colours,
    changes_colours,
    range_to_bytes,
    to_colours,
)
from g2vlm.inputs.formats.exif import Metadata
from g2vlm.inputs.formats.kinds import IMAGE_SUFFIXES, FileKind, kind_of
from g2vlm.inputs.formats.limits import MAX_PIXELS, check_size
from g2vlm.inputs.formats.opening import metadata_of, open_image
from g2vlm.inputs.formats.projections import unusual_projection
from g2vlm.inputs.formats.quiet import quiet_decoders
from g2vlm.inputs.formats.raw import develop, is_raw_tiff
from g2vlm.inputs.photo import Photo

__all__ = [
    "IMAGE_SUFFIXES",
    "Photo",
    "Picture",
    "decode_array",
    "decode_bytes",
    "decode_file",
    "decode_image",
    "is_upright_rgb",
    "printable",
    "read_array",
    "read_bytes",
    "read_file",
    "read_image",
    "why_no_file",
]

_PLAIN_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}

# What Pillow's decoders are known to raise on damaged files, besides its own errors.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SOMETHING_LARGE = 1 << 28


@dataclass(frozen=True)
class Picture:
    """One decoded picture."""

    image: Image.Image
    """Upright RGB, 8 bits per channel."""

    visible: Image.Image | None = None
    """Mode L: 0 where the picture is fully transparent, 255 elsewhere; none if it is transparent nowhere."""

    projection: str | None = None
    """"an equirectangular panorama" and the like; none for ordinary photos."""


def decode_file(path: Path) -> Image.Image:
    """Read an image file as upright RGB; of an animation, the first frame. As `read_file`."""
    return read_file(path).image


def decode_bytes(data: bytes) -> Image.Image:
    """Read an encoded image held in memory as upright RGB. As `read_bytes`."""
    return read_bytes(data).image


def decode_image(image: Image.Image) -> Image.Image:
    """Bring a Pillow image of any mode to upright RGB. As `read_image`."""
    return read_image(image).image


def decode_array(array: np.ndarray) -> Image.Image:
    """Bring an array to RGB. As `read_array`."""
    return read_array(array).image


def read_file(path: Path) -> Picture:
    """Read an image file; of an animation, the first frame.

    Args:
        path: The file. Its content decides the format, not its ending.

    Raises:
        InputError: The file cannot be used; the message is the reason alone, without the file's name, so that
            callers can put it after the name.
        MemoryLimitError: The machine has too little memory to decode it.
    """
    return read_bytes(file_content(path), path.suffix)


def is_upright_rgb(path: Path) -> bool:
    """Whether a file is a JPEG or PNG, named so, that any reader sees exactly as `decode_file` gives it.

    Args:
        path: An image file that `decode_file` can read.

    Raises:
        InputError: The file cannot be used; the message is the reason.
    """
    with decoding():
        stored, metadata = open_image(file_content(path))
        named_so = path.suffix.lower() in _PLAIN_SUFFIXES.get(stored.format or "", ())
        is_plain = stored.mode == "RGB" and "transparency" not in stored.info
        is_upright = metadata.orientation == 1
        return named_so and is_upright and is_plain and not changes_colours(metadata.icc, stored.mode)


def file_content(path: Path) -> bytes:
    """All bytes of a file; at least one.

    Raises:
        InputError: There is no such file, it may not be read, or it is empty; the message is the reason.
    """
    try:
        if not path.is_file():
            raise InputError(why_no_file(path))
        with decoding(), path.open("rb") as file:
            data = file.read()
    except PermissionError as error:
        raise InputError("permission denied: make the file readable") from error
    if not data:
        raise InputError("empty file, 0 bytes")
    return data


def read_bytes(data: bytes, suffix: str = "") -> Picture:
    """Read an encoded image (JPEG, PNG, ...) held in memory; of an animation, the first frame.

    Args:
        data: The content of an image file.
        suffix: The ending of its name, if it had one.

    Raises:
        InputError: The data cannot be used; the message is the reason.
        MemoryLimitError: The machine has too little memory to decode it.
    """
    if not data:
        raise InputError("empty file, 0 bytes")
    with decoding():
        if kind_of(data, suffix) is FileKind.RAW or is_raw_tiff(data):
            image = develop(data)
            check_size(*image.size)
            return Picture(image)
        image, metadata = open_image(data)
        with image:
            return picture_of(image, metadata)


def read_image(image: Image.Image) -> Picture:
    """Take a Pillow image of any mode; of an animation, the current frame.

    Args:
        image: The image; it is not changed.

    Raises:
        InputError: The image cannot be used; the message is the reason.
        MemoryLimitError: The machine has too little memory for it.
    """
    with decoding():
        return picture_of(image, metadata_of(image))


def read_array(array: np.ndarray) -> Picture:
    """Take an array.

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
    with decoding():
        return picture_of(Image.fromarray(np.ascontiguousarray(levels)), Metadata())


def _array_to_bytes(array: np.ndarray) -> np.ndarray:
    """Scale an array's values to 0..255 by the range of its type."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return range_to_bytes(array, 65535.0)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"expected an array of uint8, uint16, bool or floating type, got {array.dtype}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise InputError(
            "expected a floating array with values in 0..1: divide by its largest possible value"
        )
    return range_to_bytes(array, 1.0)


def printable(name: str) -> str:
    """A file name as one line that any terminal can show: characters that cannot be shown become `?`."""
    return "".join(character if character.isprintable() else "?" for character in name)


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
def decoding() -> Iterator[None]:
    """Turn what decoders raise into errors for users, and silence what they warn about."""
    with quiet_decoders():
        try:
            yield
        except (InputError, PermissionError, MemoryLimitError):
            raise
        except MissingExtraError as error:
            raise InputError(str(error)) from error
        except UnidentifiedImageError as error:
            raise InputError("not an image this package can read") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"too large: more than {MAX_PIXELS // 1_000_000} megapixels") from error
        except (MemoryError, *_DECODER_ERRORS) as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            if is_out_of_memory(error):
                raise MemoryLimitError(
                    "Expected enough memory to decode the photos, but this machine has run out of it: close "
                    "other programs, use fewer or smaller photos, or a machine with more memory."
                ) from error
            raise InputError(f"damaged or truncated image: {detail}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a decoder says that memory has run out, and it has.

    Damaged files make decoders ask for absurd amounts: only where an ordinary amount is not to be had either,
    the machine is to blame.
    """
    if not isinstance(error, MemoryError) and not re.search(
        r"out of memory|[Ii]nsufficient memory", str(error)
    ):
        return False
    try:
        bytearray(_SOMETHING_LARGE)
    except MemoryError:
        return True
    return False


def picture_of(image: Image.Image, metadata: Metadata) -> Picture:
    """Upright 8-bit RGB of a Pillow image in any mode."""
    check_size(*image.size)
    image.load()
    colours = to_colours(image, metadata.icc)
    turned = _upright(colours, metadata.orientation)
    return Picture(turned.rgb, turned.visible, unusual_projection(metadata, turned.rgb.size))


def _upright(colours: Colours, orientation: int) -> Colours:
    """Turn pixels as the orientation says."""
    turn = _TURNS.get(orientation)
    if turn is None:
        return colours
    visible = None if colours.visible is None else colours.visible.transpose(turn)
    return Colours(colours.rgb.transpose(turn), visible)
