"""Photos as sensors record them (DNG, NEF, CR3, ...), developed by libraw; never the preview inside them."""

import io
import struct

import numpy as np
from PIL import Image

from g2vlm.errors import InputError, MissingExtraError

_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706


def is_raw_tiff(data: bytes) -> bool:
    """Whether a TIFF file is a raw photo: a DNG, or a preview in front of the real picture."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return False
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = [struct.unpack_from(f"{order}HHI", data, start + 2 + 12 * place) for place in range(count)]
        values = {
            tag: struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, start + 10 + 12 * place)[0]
            for place, (tag, kind, _) in enumerate(entries)
        }
    except struct.error:
        return False
    is_preview = values.get(_SUBFILE_TYPE) == 1 and _SUB_DIRECTORIES in values
    return _DNG_VERSION in values or is_preview


def develop(data: bytes) -> Image.Image:
    """Develop a raw photo with the camera's white balance, upright, in sRGB.

    Args:
        data: The file.

    Raises:
        InputError: libraw cannot develop it; the message is the reason.
        MissingExtraError: `rawpy` is not installed.
    """
    try:
        import rawpy
    except ImportError as error:
        raise MissingExtraError("Developing raw photos", "raw") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            levels = raw.postprocess(use_camera_wb=True, output_bps=8)
    except rawpy.LibRawError as error:
        words = error.args[0] if error.args else error
        reason = words.decode("latin-1") if isinstance(words, bytes) else str(words)
        raise InputError(
            f"a raw photo that cannot be developed ({reason.rstrip('.')}): export it as JPEG or TIFF"
        ) from error
    return Image.fromarray(np.ascontiguousarray(levels))
