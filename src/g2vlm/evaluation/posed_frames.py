"""Pictures with known cameras and, mostly, depth: what `eval frames` and the geometry benchmarks score on."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, UnidentifiedImageError

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import SceneTruth
from g2vlm.evaluation.trials import Trial
from g2vlm.inputs.photos import load_photos

NEAREST_M, FARTHEST_M = 0.1, 20.0
"""Depths outside count as unknown in `eval frames`, unless told otherwise."""
LAYOUT = (
    "a folder with frames.json (or that file): `frames` names an image, a depth file (counts of "
    "`depth_unit_m` metres in PNG or NPY), K and T_world_camera (OpenCV axes) for each frame; `groups` may "
    "list frames that overlap; or a folder of such folders"
)


@runtime_checkable
class PosedFrame(Protocol):
    """One picture of a scene, with its camera; nothing large is read before it is wanted."""

    @property
    def frame(self) -> str:
        """Name inside the scene."""
        ...

    @property
    def image(self) -> "Path | Callable[[], bytes]":
        """The picture's file, or what makes its encoded bytes."""
        ...

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:  # noqa: N802  K is the name in the field
        """Intrinsics in pixels of `K_size`, integer pixel centres."""
        ...

    @property
    def K_size(self) -> tuple[int, int] | None:  # noqa: N802
        """Width and height that `K` belongs to; the picture's own if None."""
        ...

    @property
    def T_world_camera(self) -> Float[np.ndarray, "4 4"]:  # noqa: N802
        """Camera-to-world, OpenCV axes."""
        ...

    @property
    def depth(self) -> Callable[[], np.ndarray] | None:
        """Reads the z-depth in the unit of the poses; anything not positive is unknown."""
        ...

    @property
    def valid(self) -> Callable[[], np.ndarray] | None:
        """Reads which pixels of the depth can be trusted."""
        ...


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """A frame of `frames.json`."""

    frame: str
    image: Path
    K: Float[np.ndarray, "3 3"]
    T_world_camera: Float[np.ndarray, "4 4"]
    depth: Callable[[], np.ndarray] | None
    K_size: tuple[int, int] | None = None
    valid: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class FrameSet:
    """Frames of one scene."""

    name: str
    frames: Sequence[PosedFrame]
    groups: tuple[tuple[int, ...], ...] = ()
    """Frames that overlap, where the set says so itself."""


def find_frame_sets(place: Path) -> list[FrameSet]:
    """The sets in a folder, or that a file describes; see `LAYOUT`.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    if place.suffix == ".json":
        return [read_frame_set(place)]
    found = [place / "frames.json", *sorted(place.glob("*/frames.json"))]
    sets = [read_frame_set(path) for path in found if path.is_file()]
    if not sets:
        raise InputError(f"Expected {LAYOUT}; found none in {place}.")
    return sets


def read_frame_set(path: Path) -> FrameSet:
    """The frames of one `frames.json`.

    Raises:
        InputError: the file cannot be read, or a frame lacks something.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        frames = [_stored(path.parent, name, entry) for name, entry in listed["frames"].items()]
        index = {frame.frame: k for k, frame in enumerate(frames)}
        groups = tuple(tuple(index[name] for name in group) for group in listed.get("groups", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"Expected {LAYOUT}; {path}: {error!r}.") from error
    return FrameSet(path.absolute().parent.name, frames, groups)


def _stored(folder: Path, name: str, entry: dict[str, Any]) -> StoredFrame:
    K, pose = np.asarray(entry["K"], dtype=np.float64), np.asarray(entry["T_world_camera"], dtype=np.float64)
    if K.shape != (3, 3) or pose.shape != (4, 4) or not (np.isfinite(K).all() and np.isfinite(pose).all()):
        raise ValueError(f"frame {name}: K (3x3) and T_world_camera (4x4) of finite numbers expected")
    depth = entry.get("depth")
    reader = None if depth is None else _depth_reader(folder / depth, float(entry.get("depth_unit_m", 1.0)))
    return StoredFrame(name, folder / entry["image"], K, pose, reader)


def _depth_reader(path: Path, unit_m: float) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False).astype(np.float64) * unit_m
        with Image.open(path) as image:
            counts = np.asarray(image).astype(np.float64)
        counts[counts >= np.iinfo(np.uint16).max] = 0
        return counts * unit_m

    return read


@dataclass(frozen=True)
class DepthLimits:
    """Depths that count, in the unit of the truth: nearer and farther ones are unknown."""

    nearest: float = NEAREST_M
    farthest: float = FARTHEST_M


def read_photo(frame: PosedFrame) -> Image.Image:
    """The picture, upright.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(frame.image, Path):
        return load_photos(frame.image).photos[0].image
    with Image.open(io.BytesIO(frame.image())) as image:
        return image.convert("RGB")


def read_depth(
    frame: PosedFrame, limits: DepthLimits
) -> tuple[Float[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """z-depth of a frame and which pixels of it are known.

    Raises:
        InputError: the file is missing or damaged.
    """
    if frame.depth is None:
        raise InputError(f"Expected depth of frame {frame.frame}, got none.")
    try:
        depth = np.asarray(frame.depth(), dtype=np.float64)
        trusted = None if frame.valid is None else np.asarray(frame.valid(), dtype=bool)
    except (OSError, ValueError, UnidentifiedImageError) as error:
        raise InputError(f"The depth of frame {frame.frame} cannot be read: {error}.") from error
    known = np.isfinite(depth) & (depth > limits.nearest) & (depth <= limits.farthest)
    return np.where(known, depth, 0.0), known if trusted is None else known & trusted


def intrinsics_at(frame: PosedFrame, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of a frame in pixels of an image of another size, by the half-pixel rule."""
    if frame.K_size is None or frame.K_size == size:
        return frame.K
    sx, sy = size[0] / frame.K_size[0], size[1] / frame.K_size[1]
    affine = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    return affine @ frame.K


def trial_of(
    frames: Sequence[PosedFrame], limits: DepthLimits, *, part: str = "", depth: bool = True
) -> Trial:
    """Photos of some frames with the truth about them, at the size of the photos.

    Depth of another resolution than its photo is taken at the nearest pixel.

    Args:
        frames: of one scene, in the order in which the method sees them.
        limits: which depths count.
        part: what the scene belongs to in tables.
        depth: read depth where every frame has it.

    Raises:
        InputError: a photo or a depth file cannot be read, or photos differ in size.
    """
    photos = tuple(read_photo(frame) for frame in frames)
    K = np.stack([intrinsics_at(f, photo.size) for f, photo in zip(frames, photos, strict=True)])
    depths = valids = None
    if depth and all(frame.depth is not None for frame in frames):
        if len({photo.size for photo in photos}) > 1:
            sizes = sorted({photo.size for photo in photos})
            raise InputError(f"Expected photos of one size where depth is compared, got {sizes}.")
        found = [
            _at_size(*read_depth(f, limits), photo.size) for f, photo in zip(frames, photos, strict=True)
        ]
        depths = torch.from_numpy(np.stack([d for d, _ in found])).float()
        valids = torch.from_numpy(np.stack([v for _, v in found]))
    poses = torch.from_numpy(np.stack([frame.T_world_camera for frame in frames]))
    return Trial(photos, SceneTruth(depths, valids, poses.double(), torch.from_numpy(K).float()), part=part)


def _at_size(depth: np.ndarray, known: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = depth.shape
    if (width, height) == size:
        return depth, known
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    chosen = np.ix_(rows, columns)
    return depth[chosen], known[chosen]
