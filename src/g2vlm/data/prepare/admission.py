"""From the frames that a data set lists to those worth keeping: the same checks for every data set."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from g2vlm.data.posed_frame import PosedFrame, picture_size, resized_intrinsics
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame
from g2vlm.scene.scale import ScaleKind

_ROTATION_TOLERANCE = 2e-2
"""Poses are published with as few as three digits."""
_FLIP = np.diag([1.0, -1.0, 1.0, 1.0])
_LEAST_KNOWN = 0.005
"""Share of pixels with depth below which a frame says nothing."""


@dataclass(frozen=True)
class Choice:
    """Which part of a data set is prepared."""

    every: int = 1
    """Only every so many frames of each scene."""
    max_frames: int | None = None
    """At most so many frames of each scene."""


@dataclass(frozen=True)
class _Scene:
    name: str
    scale: ScaleKind
    far: float | None


def posed_frames(layout: Layout, root: Path, scene: str, choice: Choice, drop: Drops) -> Iterator[PosedFrame]:
    """The frames of a scene that can be learned from; what is left out goes to `drop`.

    Frames are read one at a time. A frame is left out where its pose is not finite or no rigid motion, its
    camera is impossible, a file is missing or damaged, or hardly any depth is known.

    Raises:
        InputError: the scene as a whole cannot be read.
    """
    label = scene_label(root, scene)
    about = _Scene(label, layout.scale_of(root, scene), layout.far_m)
    kept = (frame for frame in chosen(layout, root, scene, choice, drop) if _is_sound(frame, label, drop))
    frames = (made for listed in kept if (made := _read(listed, about, drop)) is not None)
    yield from itertools.islice(frames, choice.max_frames)


def scene_label(root: Path, scene: str) -> str:
    """What a scene is called: a layout names it by its place below `root`, which may be `root` itself."""
    parts = [part for part in Path(scene).parts if part != "."]
    return "/".join(parts) if parts else root.resolve().name


def chosen(layout: Layout, root: Path, scene: str, choice: Choice, drop: Drops) -> Iterator[ListedFrame]:
    """Every so many of the frames that a layout lists."""
    return itertools.islice(layout.frames(root, scene, drop), 0, None, choice.every)


def count_listed(frames: Iterable[ListedFrame], scene: str, drop: Drops) -> int:
    """How many frames would be kept by what can be told without reading pictures or depth."""
    return sum(
        _is_sound(frame, scene, drop)
        and (not isinstance(frame.image, Path) or _is_there(frame.image, scene, frame.frame, drop))
        for frame in frames
    )


def _is_sound(listed: ListedFrame, scene: str, drop: Drops) -> bool:
    """Whether pose and camera are possible."""
    what = f"{scene}/{listed.frame}"
    T, K = listed.T_world_camera, listed.K
    if T.shape != (4, 4) or not np.isfinite(T).all():
        drop("its pose is not finite", what)
        return False
    R = T[:3, :3].astype(np.float64)
    if not np.allclose(R @ R.T, np.eye(3), atol=_ROTATION_TOLERANCE):
        drop("its pose is no rigid motion", what)
        return False
    if np.linalg.det(R) < 0:
        drop("its pose mirrors space", what)
        return False
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] == 0:
        drop("its intrinsics are impossible", what)
        return False
    return True


def _is_there(path: Path, scene: str, frame: str, drop: Drops) -> bool:
    if path.is_file():
        return True
    drop("its picture is missing", f"{scene}/{frame}")
    return False


def _read(listed: ListedFrame, about: _Scene, drop: Drops) -> PosedFrame | None:
    """The frame with its picture and depth; None where it is left out."""
    what = f"{about.name}/{listed.frame}"
    try:
        rgb = listed.image.read_bytes() if isinstance(listed.image, Path) else listed.image()
        size = picture_size(rgb)
    except FileNotFoundError:
        drop("its picture is missing", what)
        return None
    except (OSError, SyntaxError, ValueError):
        drop("its picture cannot be read", what)
        return None
    K, T = listed.K.astype(np.float64), listed.T_world_camera.astype(np.float64)
    if listed.K_size is not None and listed.K_size != size:
        K = resized_intrinsics(K, listed.K_size, size)
    K, T = _right_handed(K, T)
    if not (-0.5 * size[0] < K[0, 2] < 1.5 * size[0] and -0.5 * size[1] < K[1, 2] < 1.5 * size[1]):
        drop("its principal point lies far outside of the picture", what)
        return None
    depth = valid = None
    if listed.depth is not None:
        try:
            depth = _clean(listed.depth(), about.far)
            valid = None if listed.valid is None else listed.valid()
        except FileNotFoundError:
            drop("its depth is missing", what)
            return None
        except (OSError, SyntaxError, ValueError, KeyError):
            drop("its depth cannot be read", what)
            return None
        if _share(depth, valid) < _LEAST_KNOWN:
            drop("hardly any depth is known", what)
            return None
        if not _same_shape(depth.shape, size):
            drop("its depth has another shape than its picture", what)
            return None
    return PosedFrame(about.name, listed.frame, rgb, K, T, about.scale, depth, valid)


def _share(depth: np.ndarray, valid: np.ndarray | None) -> float:
    known = depth > 0
    if valid is not None:
        if valid.shape != depth.shape:
            raise ValueError("validity and depth differ in shape")
        known &= valid
    return float(known.mean())


def _right_handed(K: np.ndarray, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ICL-NUIM publishes a negative fy: camera and world are then mirrored in y, which both undo together."""
    if K[1, 1] > 0:
        return K, T_world_camera
    K = K.copy()
    K[1, 1] = -K[1, 1]
    return K, _FLIP @ T_world_camera @ _FLIP


def _clean(depth: np.ndarray, far: float | None) -> np.ndarray:
    """Depth as stored: 0 where it is unknown, undefined, not positive or too far."""
    if depth.ndim != 2:
        raise ValueError(f"depth of two dimensions expected, got shape {depth.shape}")
    good = np.isfinite(depth) & (depth > 0)
    if far is not None:
        good &= depth <= far
    return np.where(good, depth, 0.0).astype(np.float32)


def _same_shape(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether depth and picture cover the same field of view, which equal aspects say."""
    height, width = shape
    return abs(width / height / (size[0] / size[1]) - 1) < 0.02


def require_scenes(layout: Layout, root: Path) -> list[str]:
    """Names of all scenes.

    Raises:
        InputError: there is none.
    """
    scenes = list(layout.scenes(root))
    if not scenes:
        raise layout.missing(root)
    return scenes
