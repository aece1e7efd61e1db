"""What OpenCV is needed for, kept silent: videos, and image files of which Pillow knows 8 bits or nothing."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from PIL import TiffImagePlugin

from g2vlm.errors import InputError

TIFF_MAGIC = (b"II*\x00", b"MM\x00*")
"""First bytes of a TIFF file, little and big endian."""

_WIDTH, _HEIGHT = 256, 257  # TIFF tags


@contextmanager
def silent_opencv() -> Iterator[ModuleType]:
    """Import OpenCV and keep it from printing: what goes wrong is told by our own errors."""
    # Read once, when OpenCV first touches a video; its decoders otherwise print about damaged files.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield cv2
    finally:
        cv2.utils.logging.setLogLevel(level)


def tiff_size(file: io.BufferedReader | io.BytesIO) -> tuple[int, int]:
    """Read width and height of a TIFF file in pixels, as stored; the file is left at its start.

    Raises:
        ValueError, KeyError, SyntaxError: Not a usable TIFF file.
    """
    directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
    file.seek(directory.next)
    directory.load(file)
    file.seek(0)
    return int(directory[_WIDTH]), int(directory[_HEIGHT])


def decode_deep(data: bytes) -> np.ndarray:
    """Decode a TIFF or PNG file with the values it stores, integer or floating.

    Args:
        data: Content of the file.

    Returns:
        (height, width) gray, (height, width, 3) RGB or (height, width, 4) RGBA in the type of the file.

    Raises:
        InputError: OpenCV cannot read it either; the message is the reason.
    """
    with silent_opencv() as cv2:
        try:
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            values = None
    if values is None:
        raise InputError("not an image this package can read")
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return values
