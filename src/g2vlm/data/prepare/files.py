"""Small readers that several data sets share: matrices, quaternions, depth files, resized pictures."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from PIL import Image
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError, MissingExtraError

GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Right factor of a camera-to-world pose that turns OpenGL camera axes (y up, z backwards) into OpenCV's."""
NED_TO_CV = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
"""Right factor that turns NED camera axes (x forward, y right, z down) into OpenCV's."""
PYTORCH3D_TO_CV = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Right factor that turns PyTorch3D camera axes (x left, y up) into OpenCV's."""


def intrinsics(
    fx: SupportsFloat, fy: SupportsFloat, cx: SupportsFloat, cy: SupportsFloat
) -> Float64[np.ndarray, "3 3"]:
    """K of four numbers in pixels, integer pixel centres."""
    return np.array([[float(fx), 0, float(cx)], [0, float(fy), float(cy)], [0, 0, 1]], dtype=np.float64)


def pose_of(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Float64[np.ndarray, "4 4"]:
    """Pose of a translation and a quaternion in x, y, z, w order of any length but zero."""
    T = np.eye(4)
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    if not np.isfinite(quaternion).all() or not quaternion.any():
        return np.full((4, 4), np.nan)
    T[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    T[:3, 3] = np.asarray(translation, dtype=np.float64)
    return T


def square(rows: ArrayLike) -> Float64[np.ndarray, "4 4"]:
    """A 3x4 or 4x4 matrix, or its 12 or 16 numbers row by row, as 4x4."""
    numbers = np.asarray(rows, dtype=np.float64).ravel()
    if numbers.size not in (12, 16):
        raise InputError(f"Expected 12 or 16 numbers of a pose, got {numbers.size}.")
    T = np.eye(4)
    T[:3] = numbers[:12].reshape(3, 4)
    return T


def inverse(T: np.ndarray) -> Float64[np.ndarray, "4 4"]:
    """Inverse of a pose; NaN where it has none."""
    try:
        return np.linalg.inv(T)
    except np.linalg.LinAlgError:
        return np.full((4, 4), np.nan)


def read_matrix(path: Path) -> np.ndarray:
    """The numbers of a text file, as a table.

    Raises:
        InputError: it is missing or holds something else.
    """
    return read_rows(path, columns=None)


def read_rows(path: Path, columns: int | None) -> np.ndarray:
    """Rows of numbers of a text file; lines that begin with `#` are skipped.

    Raises:
        InputError: it is missing, or a row does not have that many columns.
    """
    try:
        rows = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"Expected rows of numbers in {path}: {error}.") from error
    if columns is not None and rows.shape[1] != columns:
        raise InputError(f"Expected {columns} numbers a row in {path}, got {rows.shape[1]}.")
    return rows


def png_depth(path: Path, unit_m: float) -> Callable[[], np.ndarray]:
    """Reader of a 16-bit depth picture; 0 and 65535 mean that nothing is known."""

    def read() -> np.ndarray:
        with Image.open(path) as image:
            counts = np.asarray(image)
        if counts.ndim != 2:
            raise ValueError(f"depth of one channel expected in {path.name}, got shape {counts.shape}")
        return np.where(counts >= 65535, 0, counts).astype(np.float64) * unit_m

    return read


def array_depth(path: Path, unit_m: float = 1.0) -> Callable[[], np.ndarray]:
    """Reader of a depth array in a .npy file."""

    def read() -> np.ndarray:
        return np.load(path, allow_pickle=False).astype(np.float64).squeeze() * unit_m

    return read


def hdf5_array(path: Path, name: str) -> np.ndarray:
    """One array of an HDF5 file.

    Raises:
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("Reading HDF5 files", "data") from error
    with h5py.File(path, "r") as file:
        return np.asarray(file[name])


def exr_depth(path: Path, unit_m: float = 1.0) -> Callable[[], np.ndarray]:
    """Reader of the first channel of an OpenEXR picture.

    Raises:
        MissingExtraError: when read, OpenEXR is not installed.
    """

    def read() -> np.ndarray:
        try:
            import OpenEXR
        except ImportError as error:
            raise MissingExtraError("Reading OpenEXR files", "data") from error
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            return np.asarray(channels[sorted(channels)[0]].pixels).astype(np.float64) * unit_m

    return read


def pfm_depth(path: Path) -> Callable[[], np.ndarray]:
    """Reader of a one-channel PFM picture, whose rows are stored from the bottom up."""

    def read() -> np.ndarray:
        with path.open("rb") as file:
            kind, size, scale = (file.readline().decode("ascii").strip() for _ in range(3))
            if kind != "Pf":
                raise ValueError(f"a one-channel PFM (Pf) expected in {path.name}, got {kind!r}")
            width, height = map(int, size.split())
            values = np.frombuffer(file.read(4 * width * height), "<f4" if float(scale) < 0 else ">f4")
        return values.reshape(height, width)[::-1].astype(np.float64)

    return read


def z_of_distance(distance: np.ndarray, K: np.ndarray) -> np.ndarray:
    """z-depth of a map of distances along the rays of its pixels."""
    height, width = distance.shape
    x = (np.arange(width) - K[0, 2]) / K[0, 0]
    y = (np.arange(height) - K[1, 2]) / K[1, 1]
    return np.asarray(distance / np.sqrt(x**2 + y[:, None] ** 2 + 1))


def resized_jpeg(path: Path, size: tuple[int, int]) -> Callable[[], bytes]:
    """Reader of a picture at another size, as JPEG; a picture that has that size keeps its own bytes."""

    def read() -> bytes:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if image.size == size:
                return content
            buffer = io.BytesIO()
            smaller = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            smaller.save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()

    return read
