"""Folders of measured depth: 16-bit PNG or TIFF, EXR, NPY."""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from g2vlm.errors import InputError, MissingExtraError
from g2vlm.geometry.known import DepthMaps, KnownDepth
from g2vlm.inputs.decode import decoding, printable
from g2vlm.inputs.known.files import written_by_g2vlm
from g2vlm.inputs.listing import natural_key

COUNTS_PER_METRE = 1000.0
"""Of integer files whose scale nobody says: millimetres."""
_ENDINGS = (".png", ".tif", ".tiff", ".exr", ".npy")
_INVALID_16 = 65535


def read_depth_folder(folder: str | Path, counts_per_metre: int | float | None = None) -> DepthMaps:
    """List the depth maps of a folder; each is read when it is needed.

    Args:
        folder: files named as the photos, whatever their ending: 16-bit PNG or TIFF, EXR, NPY. Zero, what is
            not finite, and 65535 in 16 bits are holes.
        counts_per_metre: values per metre, as 5000 for TUM's data and 256 for KITTI's. None: what
            `g2vlm.json` there says, else 1000 (millimetres) for integers and 1 for floats.

    Raises:
        InputError: no such folder, no depth maps, a scale that is not positive, or depth that g2vlm wrote in
            no known unit.
    """
    folder = Path(folder).expanduser()
    if counts_per_metre is not None and not counts_per_metre > 0:
        raise InputError(f"Expected a depth scale above 0 (values per metre), got {counts_per_metre:g}.")
    if not folder.is_dir():
        raise InputError(f"Expected a folder of depth maps, got {printable(str(folder))}.")
    files = sorted((path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS), key=natural_key)
    if not files:
        raise InputError(
            f"Expected depth maps ({', '.join(_ENDINGS)}) in {printable(str(folder))}, got none."
        )
    if counts_per_metre is None:
        counts_per_metre = _scale_of_export(folder)
    maps = tuple(KnownDepth(partial(_read, path, counts_per_metre), path.name) for path in files)
    return DepthMaps(maps, printable(f"{folder.name or folder}/"))


def _scale_of_export(folder: Path) -> float | None:
    about = written_by_g2vlm(folder) if (folder / "g2vlm.json").is_file() else None
    if about is None:
        return None
    if about.get("scale") != "metric":
        raise InputError(
            f"Expected depth in metres in {printable(str(folder))}, but g2vlm wrote it in the unit of a "
            "scene "
            "without metres: state values per metre (--depth_scale) if you know them."
        )
    return 1 / float(about["unit_per_count"]) if "unit_per_count" in about else 1.0


def _read(path: Path, counts_per_metre: int | float | None) -> Float32[np.ndarray, "height width"]:
    try:
        with decoding():
            values = _values(path)
    except InputError as error:
        raise InputError(f"Cannot read the depth map {printable(str(path))}: {error}.") from error
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uif" or values.dtype.itemsize < 2:
        raise InputError(
            f"Expected depth of one channel with 16 bits or more in {printable(str(path))}, got shape "
            f"{values.shape} of {values.dtype}: a coloured or 8-bit picture of depth holds no metres."
        )
    is_integer = values.dtype.kind in "ui"
    scale = counts_per_metre or (COUNTS_PER_METRE if is_integer else 1.0)
    depth = values.astype(np.float32)
    if is_integer and values.dtype.itemsize == 2:
        depth[values == _INVALID_16] = 0
    return (depth / np.float32(scale)).astype(np.float32)


def _values(path: Path) -> np.ndarray:
    ending = path.suffix.lower()
    if ending == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if ending == ".exr":
        return _exr(path)
    with Image.open(path) as image:
        return np.asarray(image)


def _exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError("Reading EXR depth", "exr") from error
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = file.channels()
        name = next(
            (name for name in ("Z", "Y", "V", "R", "depth") if name in channels), next(iter(channels))
        )
        return np.array(channels[name].pixels)
