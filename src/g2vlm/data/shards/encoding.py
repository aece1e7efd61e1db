"""How one posed frame is written into a shard, and read back.

A shard is a tar file in webdataset's layout; a frame is a run of members with one key:

    KEY.json         ids, size, K, T_world_camera, scale, and the unit of the depth
    KEY.rgb.jpg      the picture (.png, .webp), usually the data set's own bytes
    KEY.depth.png    16 bits, counts of `depth_unit`; or KEY.depth.npy, float16 multiples of it
    KEY.valid.png    where not every depth can be trusted
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from g2vlm.data.posed_frame import PosedFrame, picture_size
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind

VERSION = 1
_MILLIMETRE = 0.001
_MOST_COUNTS = 65534
"""Sensors write 65535 where they know nothing; we never do."""
_SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}


def encode_frame(frame: PosedFrame) -> dict[str, bytes]:
    """The members of a frame: their endings and contents, the description first."""
    about: dict[str, Any] = {
        "version": VERSION,
        "scene": frame.scene,
        "frame": frame.frame,
        "size": list(frame.size),
        "K": frame.K.tolist(),
        "T_world_camera": frame.T_world_camera.tolist(),
        "scale": frame.scale.value,
    }
    members = {"json": b"", f"rgb.{picture_ending(frame.rgb)}": frame.rgb}
    if frame.depth_m is not None:
        ending, content, unit = _encode_depth(frame.depth_m, frame.scale)
        about["depth_unit"] = unit
        members[f"depth.{ending}"] = content
    if frame.valid is not None:
        members["valid.png"] = _png(frame.valid.astype(np.uint8) * 255)
    members["json"] = json.dumps(about).encode()
    return members


def decode_frame(members: Mapping[str, bytes], where: str) -> PosedFrame:
    """The frame of some members, by their endings.

    Args:
        members: as `encode_frame` returns them.
        where: name in messages.

    Raises:
        InputError: they are not those of a frame.
    """
    try:
        about = json.loads(members["json"])
        rgb = next(content for ending, content in members.items() if ending.startswith("rgb."))
        depth = None
        if "depth.png" in members:
            counts = _read_png(members["depth.png"]).astype(np.float64)
            depth = (counts * about["depth_unit"]).astype(np.float32)
        elif "depth.npy" in members:
            values = np.load(io.BytesIO(members["depth.npy"]), allow_pickle=False)
            depth = (values.astype(np.float64) * about["depth_unit"]).astype(np.float32)
        valid = _read_png(members["valid.png"]) > 0 if "valid.png" in members else None
        return PosedFrame(
            scene=about["scene"],
            frame=about["frame"],
            rgb=rgb,
            K=np.array(about["K"], dtype=np.float64),
            T_world_camera=np.array(about["T_world_camera"], dtype=np.float64),
            scale=ScaleKind(about["scale"]),
            depth_m=depth,
            valid=valid,
        )
    except (KeyError, ValueError, OSError, StopIteration, SyntaxError) as error:
        raise InputError(
            f"Expected a posed frame in {where}, got something else ({error!r}): prepare the data set again."
        ) from error


def picture_ending(encoded: bytes) -> str:
    """The file ending that fits an encoded picture.

    Raises:
        InputError: it is none of JPEG, PNG and WebP.
    """
    for signature, ending in _SIGNATURES.items():
        if encoded.startswith(signature):
            picture_size(encoded)
            return ending
    raise InputError(f"Expected a JPEG, PNG or WebP picture, got bytes that begin with {encoded[:8]!r}.")


def _encode_depth(depth: np.ndarray, scale: ScaleKind) -> tuple[str, bytes, float]:
    """Ending, content and unit: millimetres where they fit, else half floats around the median."""
    known = depth[depth > 0]
    farthest = float(known.max()) if known.size else 0.0
    if scale is ScaleKind.METRIC and farthest <= _MOST_COUNTS * _MILLIMETRE:
        return "png", _png(np.round(depth / _MILLIMETRE).astype(np.uint16)), _MILLIMETRE
    unit = float(np.median(known)) if known.size else 1.0
    buffer = io.BytesIO()
    # Around one, half floats are good to 0.05 % over nine decades.
    np.save(buffer, (depth.astype(np.float64) / unit).clip(0, 65504).astype(np.float16))
    return "npy", buffer.getvalue(), unit


def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Level 1 is three times as fast as the default and a tenth larger.
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _read_png(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)
