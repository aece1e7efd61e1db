"""OpenEXR images of 32-bit floats: one part, scan lines, compressed by blocks of sixteen ("ZIP").

Format: OpenEXR File Layout, https://openexr.com/en/latest/OpenEXRFileLayout.html.
"""

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

_MAGIC, _VERSION = 20000630, 2
_ZIP, _LINES_PER_BLOCK = 3, 16
_FLOAT = 2


def write_exr(
    channels: Mapping[str, Float32[np.ndarray, "height width"]], path: str | os.PathLike[str]
) -> None:
    """Write an image to an existing or new file.

    Args:
        channels: by name, all of one size: R, G, B, or Y for a single one, as most readers expect.
        path: where to.
    """
    names = sorted(channels)
    height, width = channels[names[0]].shape
    # A block holds line after line, and a line channel after channel.
    lines = np.stack([channels[name].astype("<f4") for name in names], axis=1)
    blocks = []
    for top in range(0, height, _LINES_PER_BLOCK):
        raw = np.ascontiguousarray(lines[top : top + _LINES_PER_BLOCK]).tobytes()
        packed = _packed(raw)
        data = packed if len(packed) < len(raw) else raw
        blocks.append(struct.pack("<ii", top, len(data)) + data)
    head = struct.pack("<ii", _MAGIC, _VERSION) + _header(names, width, height)
    first = len(head) + 8 * len(blocks)
    offsets = first + np.concatenate([[0], np.cumsum([len(block) for block in blocks[:-1]], dtype=np.int64)])
    Path(path).write_bytes(head + offsets.astype("<u8").tobytes() + b"".join(blocks))


def _packed(raw: bytes) -> bytes:
    """Even bytes before odd ones, differences of neighbours, deflate."""
    data = np.frombuffer(raw, dtype=np.uint8)
    apart = np.concatenate([data[0::2], data[1::2]])
    apart[1:] = apart[1:] - apart[:-1] + np.uint8(128)
    return zlib.compress(apart.tobytes())


def _header(names: list[str], width: int, height: int) -> bytes:
    rows = b"".join(name.encode() + b"\0" + struct.pack("<iB3xii", _FLOAT, 0, 1, 1) for name in names)
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = [
        ("channels", "chlist", rows + b"\0"),
        ("compression", "compression", struct.pack("<B", _ZIP)),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1.0)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0.0, 0.0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1.0)),
    ]
    text = b""
    for name, kind, value in attributes:
        text += name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value
    return text + b"\0"
