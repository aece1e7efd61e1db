"""Pictures with known cameras and, mostly, depth: what `eval frames` and the geometry benchmarks score on."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, UnidentifiedImageError

from g2vlm.data.posed_frame import resized_intrinsics
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.data.prepare.own.frames_json import NAME as FRAMES_JSON
from g2vlm.data.prepare.own.frames_json import groups_of
from g2vlm.data.prepare.registry import layout_of_own
from g2vlm.data.shards.reading import PreparedData
from g2vlm.data.shards.writing import ABOUT_NAME
from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import SceneTruth
from g2vlm.evaluation.trials import Trial
from g2vlm.inputs.photos import load_photos

NEAREST_M, FARTHEST_M = 0.1, 20.0
"""Depths outside count as unknown in `eval frames`, unless told otherwise."""
LAYOUT = (
    "frames.json, transforms.json, frames.csv, a TUM sequence or a COLMAP model (the file or its folder), a "
    "folder of such folders, or a folder that `g2vlm data prepare` wrote"
)


@dataclass(frozen=True)
class FrameSet:
    """Frames of one scene."""

    name: str
    frames: Sequence[ListedFrame]
    groups: tuple[tuple[int, ...], ...] = ()
    """Frames that overlap, where the set says so itself."""
    num_dropped: int = 0
    """Frames that are listed, but whose entry or pose is no use, or whose picture is not there."""


def find_frame_sets(place: Path) -> list[FrameSet]:
    """The sets in a folder, or that a file describes; see `LAYOUT`.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    if (place / ABOUT_NAME).is_file():
        return _prepared(place)
    try:
        return _own(*layout_of_own(place))
    except InputError:
        if not place.is_dir() or _is_own(place):
            raise
    sets = [
        one for folder in sorted(place.iterdir()) if _is_own(folder) for one in _own(*layout_of_own(folder))
    ]
    if not sets:
        raise InputError(f"Expected {LAYOUT}; found none in {place}.")
    return sets


def _is_own(folder: Path) -> bool:
    try:
        layout_of_own(folder)
    except InputError:
        return False
    return True


def _own(layout: Layout, root: Path) -> list[FrameSet]:
    """Sets in one of the layouts that people write themselves."""
    sets = []
    for scene in layout.scenes(root):
        drops, folder = Drops(), root / scene
        frames = [frame for frame in layout.frames(root, scene, drops) if _is_sound(frame, drops)]
        if not frames:
            told = "; ".join(f"{reason} ({known[0]})" for reason, known in drops.examples.items())
            raise InputError(
                f"Expected frames in {folder}, found none that can be read: {told or 'it is empty'}."
            )
        groups = groups_of(folder) if (folder / FRAMES_JSON).is_file() else []
        index = {frame.frame: k for k, frame in enumerate(frames)}
        lost = sorted({name for group in groups for name in group if name not in index})
        if lost:
            raise InputError(
                f"Expected all frames of the groups in {folder}, but {lost[0]!r} cannot be read."
            )
        chosen = tuple(tuple(index[name] for name in group) for group in groups)
        dropped = sum(drops.counts.values())
        sets.append(FrameSet(folder.resolve().name, frames, chosen, dropped))
    return sets


def _is_sound(frame: ListedFrame, drop: Drops) -> bool:
    if isinstance(frame.image, Path) and not frame.image.is_file():
        drop("its picture is missing", frame.frame)
        return False
    if not np.isfinite(frame.T_world_camera).all():
        drop("its pose is not finite", frame.frame)
        return False
    return True


def _prepared(place: Path) -> list[FrameSet]:
    """Scenes of shards; frames are read when they are wanted."""
    data = PreparedData(place)
    rows = data.frames.select(["frame", "K", "T_world_camera", "width", "height", "members"]).to_pylist()
    sets = []
    for scene in data.scenes:
        numbers = range(scene.first, scene.first + scene.count)
        sets.append(FrameSet(scene.name, [_listed(data, number, rows[number]) for number in numbers]))
    return sets


def _listed(data: PreparedData, number: int, row: dict[str, Any]) -> ListedFrame:
    return ListedFrame(
        frame=row["frame"],
        image=partial(_rgb, data, number),
        K=np.array(row["K"], dtype=np.float64).reshape(3, 3),
        T_world_camera=np.array(row["T_world_camera"], dtype=np.float64).reshape(4, 4),
        K_size=(row["width"], row["height"]),
        depth=partial(_depth, data, number) if any("depth" in name for name in row["members"]) else None,
    )


def _rgb(data: PreparedData, number: int) -> bytes:
    return data[number].rgb


def _depth(data: PreparedData, number: int) -> np.ndarray:
    """z-depth with 0 where it is not known, or not trusted."""
    frame = data[number]
    if frame.depth_m is None or frame.known is None:
        raise ValueError("no depth was measured")
    return np.where(frame.known, frame.depth_m, 0)


@dataclass(frozen=True)
class DepthLimits:
    """Depths that count, in the unit of the truth: nearer and farther ones are unknown."""

    nearest: float = NEAREST_M
    farthest: float = FARTHEST_M


def read_photo(frame: ListedFrame) -> Image.Image:
    """The picture, upright.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(frame.image, Path):
        return load_photos(frame.image).photos[0].image
    with Image.open(io.BytesIO(frame.image())) as image:
        return image.convert("RGB")


def read_depth(
    frame: ListedFrame, limits: DepthLimits
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


def intrinsics_at(frame: ListedFrame, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of a frame in pixels of an image of another size, by the half-pixel rule."""
    return frame.K if frame.K_size is None else resized_intrinsics(frame.K, frame.K_size, size)


@dataclass(frozen=True)
class Knowledge:
    """What the truth of a benchmark knows."""

    depth: bool = True
    """Where every frame has it."""
    poses: bool = True
    intrinsics: bool = True


def trial_of(
    frames: Sequence[ListedFrame],
    limits: DepthLimits,
    *,
    part: str = "",
    knows: Knowledge = Knowledge(),
) -> Trial:
    """Photos of some frames with the truth about them, at the size of the photos.

    Depth of another resolution than its photo is taken at the nearest pixel.

    Args:
        frames: of one scene, in the order in which the method sees them.
        limits: which depths count.
        part: what the scene belongs to in tables.
        knows: what is compared; the rest is left out of the truth.

    Raises:
        InputError: a photo or a depth file cannot be read, or photos differ in size.
    """
    photos = tuple(read_photo(frame) for frame in frames)
    depths = valids = poses = K = None
    if knows.depth and all(frame.depth is not None for frame in frames):
        if len({photo.size for photo in photos}) > 1:
            sizes = sorted({photo.size for photo in photos})
            raise InputError(f"Expected photos of one size where depth is compared, got {sizes}.")
        found = [
            _at_size(*read_depth(f, limits), photo.size) for f, photo in zip(frames, photos, strict=True)
        ]
        depths = torch.from_numpy(np.stack([d for d, _ in found])).float()
        valids = torch.from_numpy(np.stack([v for _, v in found]))
    if knows.poses:
        poses = torch.from_numpy(np.stack([frame.T_world_camera for frame in frames])).double()
    if knows.intrinsics:
        stacked = np.stack([intrinsics_at(f, photo.size) for f, photo in zip(frames, photos, strict=True)])
        K = torch.from_numpy(stacked).float()
    return Trial(photos, SceneTruth(depths, valids, poses, K), part=part)


def _at_size(depth: np.ndarray, known: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = depth.shape
    if (width, height) == size:
        return depth, known
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    chosen = np.ix_(rows, columns)
    return depth[chosen], known[chosen]
