"""Cameras and pictures of COLMAP models, text or binary; points are left alone.

Formats: https://colmap.github.io/format.html. COLMAP counts pixels from the corner of the picture, so that
half a pixel is taken off principal points.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from g2vlm.data.prepare.distortion import Lens
from g2vlm.data.prepare.files import intrinsics, inverse, pose_of
from g2vlm.errors import InputError

_MODELS = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE",
)
_NUM_PARAMS = (3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12)


@dataclass(frozen=True, eq=False)
class ColmapCamera:
    """A camera."""

    model: str
    size: tuple[int, int]
    params: tuple[float, ...]

    @property
    def K(self) -> np.ndarray:  # noqa: N802
        """Intrinsics, integer pixel centres."""
        shared = self.model.startswith(("SIMPLE", "RADIAL"))
        fx, fy, cx, cy = (self.params[0], *self.params[:3]) if shared else self.params[:4]
        return intrinsics(fx, fy, cx - 0.5, cy - 0.5)

    @property
    def lens(self) -> Lens:
        """What it bends, as OpenCV says it.

        Raises:
            InputError: OpenCV has no such lens.
        """
        p = self.params
        bent: dict[str, tuple[tuple[float, ...], bool]] = {
            "SIMPLE_PINHOLE": ((), False),
            "PINHOLE": ((), False),
            "SIMPLE_RADIAL": ((*p[3:4], 0.0, 0.0, 0.0), False),
            "RADIAL": ((*p[3:5], 0.0, 0.0), False),
            "OPENCV": (p[4:8], False),
            "FULL_OPENCV": (p[4:12], False),
            "OPENCV_FISHEYE": (p[4:8], True),
            "SIMPLE_RADIAL_FISHEYE": ((*p[3:4], 0.0, 0.0, 0.0), True),
            "RADIAL_FISHEYE": ((*p[3:5], 0.0, 0.0), True),
        }
        if self.model not in bent:
            raise InputError(
                f"Expected a camera that can be straightened, got {self.model}: run  "
                "colmap image_undistorter."
            )
        return Lens(*bent[self.model])


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A picture of a model."""

    name: str
    camera: int
    T_world_camera: np.ndarray


def find_model(folder: Path) -> Path | None:
    """The folder below that holds a model's cameras and images; None where there is none."""
    places = ["", "sparse/0", "sparse", "sparse-txt", "colmap/sparse/0", "colmap", "colmap_ground_truth", "0"]
    for place in places:
        for ending in (".bin", ".txt"):
            if all((folder / place / f"{kind}{ending}").is_file() for kind in ("cameras", "images")):
                return folder / place
    return None


def read_cameras(model: Path) -> dict[int, ColmapCamera]:
    """All cameras by their number.

    Raises:
        InputError: the file is damaged.
    """
    try:
        if (model / "cameras.bin").is_file():
            with (model / "cameras.bin").open("rb") as file:
                return dict(_binary_cameras(file))
        lines = (model / "cameras.txt").read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        return {int(r[0]): ColmapCamera(r[1], (int(r[2]), int(r[3])), tuple(map(float, r[4:]))) for r in rows}
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise InputError(f"Expected the cameras of a COLMAP model in {model}: {error}.") from error


def read_images(model: Path) -> list[ColmapImage]:
    """All pictures, by name.

    Raises:
        InputError: the file is damaged.
    """
    try:
        if (model / "images.bin").is_file():
            with (model / "images.bin").open("rb") as file:
                images = list(_binary_images(file))
        else:
            images = list(_text_images(model / "images.txt"))
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise InputError(f"Expected the pictures of a COLMAP model in {model}: {error}.") from error
    return sorted(images, key=lambda image: image.name)


def _image(name: str, camera: int, w_x_y_z: np.ndarray, translation: np.ndarray) -> ColmapImage:
    return ColmapImage(name, camera, inverse(pose_of(translation, np.roll(w_x_y_z, -1))))


def _text_images(path: Path) -> Iterator[ColmapImage]:
    """Every other line holds points, which may be an empty line."""
    with path.open(encoding="utf-8") as file:
        lines = (line for line in file if not line.startswith("#"))
        for line in lines:
            words = line.split(maxsplit=9)
            if not words:
                continue
            numbers = np.array(words[1:8], dtype=np.float64)
            yield _image(words[9].strip(), int(words[8]), numbers[:4], numbers[4:])
            next(lines, None)


def _unpack(file: BinaryIO, form: str) -> tuple:
    return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))


def _binary_cameras(file: BinaryIO) -> Iterator[tuple[int, ColmapCamera]]:
    (count,) = _unpack(file, "Q")
    for _ in range(count):
        number, model, width, height = _unpack(file, "iiQQ")
        yield number, ColmapCamera(_MODELS[model], (width, height), _unpack(file, f"{_NUM_PARAMS[model]}d"))


def _binary_images(file: BinaryIO) -> Iterator[ColmapImage]:
    (count,) = _unpack(file, "Q")
    for _ in range(count):
        _, *numbers, camera = _unpack(file, "i7di")
        name = b"".join(iter(lambda: file.read(1), b"\0")).decode("utf-8", "surrogateescape")
        (points,) = _unpack(file, "Q")
        file.seek(24 * points, 1)
        yield _image(name, camera, np.array(numbers[:4]), np.array(numbers[4:]))
