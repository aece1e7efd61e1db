"""Cameras and poses of COLMAP models, binary or text (https://colmap.github.io/format.html)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from g2vlm.errors import InputError
from g2vlm.geometry.known import KnownCamera, KnownPose
from g2vlm.inputs.decode import printable
from g2vlm.inputs.known.files import content_of, numbers_of, text_of
from g2vlm.inputs.known.lenses import MODELS, camera_of

_PLACES = (".", "sparse/0", "sparse", "0")
_OBSERVATION_BYTES = 24


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """What a COLMAP model says about cameras."""

    poses: tuple[KnownPose, ...]
    """Of each image, in the order of the file."""
    cameras: tuple[KnownCamera, ...]
    """Of each image, named as it; without images, each camera without a name."""


def find_model(folder: Path) -> Path | None:
    """The folder inside of `folder` that holds cameras and images; None if there is none."""
    for place in _PLACES:
        if any((folder / place / f"images.{ending}").is_file() for ending in ("bin", "txt")):
            return folder / place
    return None


def read_model(folder: Path) -> ColmapModel:
    """Read the cameras and poses of a model.

    Raises:
        InputError: no model there, damaged files, or fisheye cameras.
    """
    place = find_model(folder)
    if place is None:
        raise InputError(
            f"Expected a COLMAP model (images.bin or images.txt, and cameras beside) in "
            f"{printable(str(folder))} "
            "or its sparse/0, found none."
        )
    cameras = _cameras(place)
    images = list(_images(place))
    if not images:
        raise InputError(f"Expected images in the COLMAP model {printable(str(place))}, got none.")
    missing = sorted({camera for camera, _ in images} - set(cameras))
    if missing:
        raise InputError(f"Expected camera {missing[0]} in {printable(str(place))}, to which images refer.")
    named = tuple(replace(cameras[camera], name=pose.name) for camera, pose in images)
    return ColmapModel(tuple(pose for _, pose in images), named)


def read_cameras(path: Path) -> tuple[KnownCamera, ...]:
    """Read cameras.txt or cameras.bin; with an images file beside, one camera for each image by name.

    Raises:
        InputError: it cannot be read.
    """
    if find_model(path.parent) == path.parent / ".":
        return read_model(path.parent).cameras
    return tuple(_cameras(path.parent).values())


def _cameras(folder: Path) -> dict[int, KnownCamera]:
    binary, text = folder / "cameras.bin", folder / "cameras.txt"
    with _damage(binary if binary.is_file() else text):
        if binary.is_file():
            return dict(_binary_cameras(content_of(binary, "COLMAP cameras")))
        return dict(_text_cameras(text_of(text, "COLMAP cameras")))


def _images(folder: Path) -> Iterator[tuple[int, KnownPose]]:
    binary, text = folder / "images.bin", folder / "images.txt"
    with _damage(binary if binary.is_file() else text):
        if binary.is_file():
            yield from _binary_images(content_of(binary, "COLMAP images"))
        else:
            yield from _text_images(text_of(text, "COLMAP images"))


class _damage:
    """Turns what parsing damaged files raises into an error that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, struct.error | ValueError | IndexError | KeyError | UnicodeDecodeError):
            if isinstance(error, InputError):
                return
            raise InputError(
                f"Expected a COLMAP file at {printable(str(self._path))}, but it is damaged or something "
                "else: "
                f"{error}."
            ) from error


def _text_cameras(text: str) -> Iterator[tuple[int, KnownCamera]]:
    for line in _lines(text):
        if line:
            number, model, width, height, *params = line.split()
            size = (int(width), int(height))
            yield int(number), camera_of(model, size, [float(value) for value in params])


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]


def _text_images(text: str) -> Iterator[tuple[int, KnownPose]]:
    lines = _lines(text)
    while lines and not lines[0]:
        lines.pop(0)
    # Two lines an image: its pose, and its observations, which may be empty.
    for line in lines[::2]:
        if not line:
            continue
        words = line.split(maxsplit=9)
        numbers = numbers_of(" ".join(words[1:8]))
        if numbers is None or len(words) < 10:
            raise ValueError(f"no pose in the line {line[:60]!r}")
        yield int(words[8]), _pose(numbers[:4], numbers[4:7], words[9])


def _binary_cameras(data: bytes) -> Iterator[tuple[int, KnownCamera]]:
    (count,) = struct.unpack_from("<Q", data)
    place = 8
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<iiQQ", data, place)
        params = struct.unpack_from(f"<{MODELS[model].num_params}d", data, place + 24)
        place += 24 + 8 * len(params)
        yield number, camera_of(MODELS[model].name, (width, height), params)


def _binary_images(data: bytes) -> Iterator[tuple[int, KnownPose]]:
    (count,) = struct.unpack_from("<Q", data)
    place = 8
    for _ in range(count):
        numbers = struct.unpack_from("<i7di", data, place)
        place += struct.calcsize("<i7di")
        end = data.index(b"\0", place)
        name = data[place:end].decode("utf-8")
        (observations,) = struct.unpack_from("<Q", data, end + 1)
        place = end + 9 + _OBSERVATION_BYTES * observations
        yield numbers[8], _pose(numbers[1:5], numbers[5:8], name)


def _pose(quaternion_wxyz, translation, name: str) -> KnownPose:  # type: ignore[no-untyped-def]
    """Files hold world-to-camera."""
    from scipy.spatial.transform import Rotation

    R = Rotation.from_quat(quaternion_wxyz, scalar_first=True).as_matrix()
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R.T, -R.T @ np.asarray(translation)
    return KnownPose(T, name)
