"""Videos to photos: which frames are taken, and reading them one at a time.

A video is never held in memory whole. Frames are numbered by counting those that decode, from the start:
seeking by frame number is inexact in common formats, and containers often misstate how many frames they hold.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import Photo, check_size, printable, why_no_file
from g2vlm.inputs.opencv import silent_opencv

if TYPE_CHECKING:
    import cv2

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv"}
    | {".mts", ".m2ts"}
)
"""Endings (lower case) by which a file is taken for a video."""

MAX_FRAMES = 1000
"""Most frames `read_frames` returns: they are held at full size (6 MB each at 1080p)."""

_BROKEN_RUN = 60  # frames in a row that may fail to decode before the video counts as ended
_READABLE_SHARE = 0.9  # of the frames the container states; below it the reader is warned
_TIME_TOLERANCE_S = 1e-3  # containers round times to milliseconds
_USUAL_FPS = 30.0
_THUMBNAIL_WIDTH = 96


class FrameChoiceKind(Enum):
    """How frames are chosen from a video."""

    COUNT = "count"
    """`count` frames spread evenly from the first to the last."""

    RATE = "rate"
    """`rate_hz` frames per second of the video, beginning with the first frame."""

    MOTION = "motion"
    """`count` frames from the first to the last with the same amount of movement between neighbours."""


def _check_rate(rate_hz: float) -> None:
    """Refuse rates that choose nothing or make no sense."""
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"Expected a positive number of frames per second, got {rate_hz}.")


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video become views."""

    kind: FrameChoiceKind = FrameChoiceKind.COUNT
    """The rule."""

    count: int = 16
    """Number of frames for `COUNT` and `MOTION`; all frames if the video has fewer."""

    rate_hz: float = 1.0
    """Frames per second of video for `RATE`; all frames if the video has fewer."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_FRAMES:
            raise InputError(f"Expected 1 to {MAX_FRAMES} frames to be taken from a video, got {self.count}.")
        _check_rate(self.rate_hz)


@dataclass(frozen=True)
class VideoFrames:
    """Frames chosen from a video, in order."""

    photos: tuple[Photo, ...]
    """The frames as upright RGB, each with its time in seconds."""

    indices: tuple[int, ...]
    """Number of each frame in the video, counted from 0 over the frames that decode."""


class BrokenVideoWarning(UserWarning):
    """A video ends earlier than its container says."""


def read_frames(
    path: str | Path, choice: FrameChoice = FrameChoice(), *, max_frames: int | None = None
) -> VideoFrames:
    """Choose frames of a video and read them.

    The video is decoded once for `COUNT` if its container states the number of frames correctly, otherwise
    twice: once to choose, once to read.

    Args:
        path: A video file.
        choice: The rule.
        max_frames: Upper limit on the number of frames, at least 1. `COUNT` and `MOTION` then choose no more
            than that; of a longer `RATE` choice an evenly spread part is kept.

    Raises:
        InputError: No such file, not a video, no frame that can be decoded, or more than `MAX_FRAMES` frames.
    """
    path = Path(path)
    if max_frames is not None and max_frames < 1:
        raise InputError(f"Expected a maximum of at least 1 frame, got {max_frames}.")
    count = min(choice.count, max_frames or choice.count)
    if choice.kind is FrameChoiceKind.COUNT:
        frames, total = _read_evenly(path, count)
    elif choice.kind is FrameChoiceKind.MOTION:
        frames, total = _read_numbered(path, _choose_by_motion(path, count))
    else:
        indices = _choose_by_rate(path, choice.rate_hz)
        kept = evenly_spread(len(indices), max_frames or len(indices))
        frames, total = _read_numbered(path, [indices[place] for place in kept])
    with _opened(path) as capture:
        _warn_if_broken(capture, path, total)
    return frames


def iterate_numbered_frames(path: str | Path, indices: Sequence[int]) -> Iterator[tuple[int, Photo]]:
    """Read the frames of the given numbers again, in one pass and constant memory.

    Args:
        path: A video file.
        indices: Numbers as in `VideoFrames.indices`, in any order.

    Yields:
        Number and frame, in the order of the video; frames that it does not have are left out.

    Raises:
        InputError: No such file, not a video, or no frame that can be decoded.
    """
    path, wanted = Path(path), frozenset(indices)
    with _opened(path) as capture:
        for index, time_s in _grabbed(capture, path):
            photo = _retrieve(capture, path, index, time_s) if index in wanted else None
            if photo is not None:
                yield index, photo
            if index >= max(wanted, default=-1):
                return


def iterate_frames(path: str | Path, *, rate_hz: float | None = None) -> Iterator[Photo]:
    """Read a video frame by frame in constant memory, for streaming reconstruction.

    Args:
        path: A video file.
        rate_hz: Frames per second of video to yield, beginning with the first; none for every frame.

    Yields:
        Upright RGB frames with their time in seconds. Frames that do not decode are passed over.

    Raises:
        InputError: No such file, not a video, or no frame that can be decoded.
    """
    path = Path(path)
    if rate_hz is not None:
        _check_rate(rate_hz)
    total, last_slot = 0, -1
    with _opened(path) as capture:
        for index, time_s in _grabbed(capture, path):
            total += 1
            slot = index if rate_hz is None else int((time_s + _TIME_TOLERANCE_S) * rate_hz)
            if slot > last_slot:
                last_slot = slot
                photo = _retrieve(capture, path, index, time_s)
                if photo is not None:
                    yield photo
        _warn_if_broken(capture, path, total)


def evenly_spread(total: int, count: int) -> list[int]:
    """Choose `count` of `total` places, evenly, first and last included (the first alone if count is 1).

    Args:
        total: Number of places.
        count: Number to choose, at least 1; all places if there are fewer.

    Returns:
        Distinct ascending places in range(total).
    """
    if count >= total:
        return list(range(total))
    if count == 1:
        return [0]
    # floor(x + 1/2) of i * (total - 1) / (count - 1), in integers so that no rounding doubles a place.
    steps = count - 1
    return [(2 * i * (total - 1) + steps) // (2 * steps) for i in range(count)]


def _read_evenly(path: Path, count: int) -> tuple[VideoFrames, int]:
    """Read evenly spread frames, trusting the container's number of frames until it proves wrong.

    Like `_read_numbered`, also returns how many frames the video has.
    """
    with _opened(path) as capture:
        stated = _stated_frames(capture)
    frames, total = _read_numbered(path, evenly_spread(stated, count))
    if total == stated:
        return frames, total
    return _read_numbered(path, evenly_spread(total, count))


def _read_numbered(path: Path, indices: Sequence[int]) -> tuple[VideoFrames, int]:
    """Read the frames with the given numbers; also return how many frames the video has."""
    if len(indices) > MAX_FRAMES:
        raise InputError(
            f"{len(indices)} frames of {printable(path.name)} would be taken, more than {MAX_FRAMES}: take "
            "fewer frames per second, or set a maximum number of views."
        )
    wanted = frozenset(indices)
    photos: list[Photo] = []
    taken: list[int] = []
    total = 0
    with _opened(path) as capture:
        for index, time_s in _grabbed(capture, path):
            total += 1
            photo = _retrieve(capture, path, index, time_s) if index in wanted else None
            if photo is not None:
                photos.append(photo)
                taken.append(index)
    return VideoFrames(tuple(photos), tuple(taken)), total


def _choose_by_rate(path: Path, rate_hz: float) -> list[int]:
    """Numbers of the first frame in each period of 1 / rate_hz seconds."""
    with _opened(path) as capture:
        slots = [int((time_s + _TIME_TOLERANCE_S) * rate_hz) for _, time_s in _grabbed(capture, path)]
    return [index for index, slot in enumerate(slots) if index == 0 or slot > slots[index - 1]]


def _choose_by_motion(path: Path, count: int) -> list[int]:
    """Numbers of frames between which equal amounts of movement lie."""
    steps = list(_movement(path))
    travelled = np.cumsum(steps)
    if count >= len(steps) or count == 1 or travelled[-1] <= 0:
        return evenly_spread(len(steps), count)
    targets = travelled[-1] * np.arange(count) / (count - 1)
    chosen = np.searchsorted(travelled, targets).clip(0, len(steps) - 1).tolist()
    chosen[0], chosen[-1] = 0, len(steps) - 1
    # A jump can attract several targets: spread them over the frames after it, then keep room for the last.
    for place in range(1, count):
        chosen[place] = max(chosen[place], chosen[place - 1] + 1)
    return [min(index, len(steps) - count + place) for place, index in enumerate(chosen)]


def _movement(path: Path) -> Iterator[float]:
    """Mean length of the optical flow from each frame to the next, in image widths; 0 for the first frame."""
    import cv2

    previous = None
    with _opened(path) as capture:
        for _ in _grabbed(capture, path):
            read, frame = capture.retrieve()
            if not read:
                yield 0.0
                continue
            height = max(16, round(frame.shape[0] * _THUMBNAIL_WIDTH / frame.shape[1]))
            thumbnail = cv2.resize(frame, (_THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
            gray = cv2.cvtColor(thumbnail, cv2.COLOR_BGR2GRAY)
            if previous is None:
                yield 0.0
            else:
                flow = np.empty((*gray.shape, 2), dtype=np.float32)
                flow = cv2.calcOpticalFlowFarneback(previous, gray, flow, 0.5, 3, 15, 3, 5, 1.2, 0)
                yield float(np.linalg.norm(flow, axis=-1).mean()) / _THUMBNAIL_WIDTH
            previous = gray


@contextmanager
def _opened(path: Path) -> "Iterator[cv2.VideoCapture]":
    """Open a video, silently: what goes wrong is told by our own errors."""
    if not path.is_file():
        raise InputError(f"Cannot read the video {printable(str(path))}: {why_no_file(path)}.")
    with silent_opencv() as cv2:
        # An absolute path, and no other backend: names like "frame_%03d.avi" are patterns to some of them.
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise InputError(_why_not_opened(path))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield capture
    finally:
        capture.release()


def _why_not_opened(path: Path) -> str:
    """The error for a file that no decoder takes."""
    name = printable(str(path))
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except PermissionError:
        return f"Cannot read the video {name}: permission denied, make the file readable."
    if empty:
        return f"Cannot read the video {name}: empty file (0 bytes)."
    return f"Cannot read the video {name}: it holds no frames OpenCV can decode; convert it to H.264 mp4."


def _stated_frames(capture: Any) -> int:
    """Number of frames according to the container; 0 if it does not say."""
    import cv2

    return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


def _grabbed(capture: Any, path: Path) -> Iterator[tuple[int, float]]:
    """Step through a video's frames without converting them: number and time in seconds."""
    import cv2

    fps = capture.get(cv2.CAP_PROP_FPS)
    period_s = 1.0 / (fps if 0 < fps < 1000 else _USUAL_FPS)
    index, time_s, failures = 0, 0.0, 0
    while failures < _BROKEN_RUN:
        if not capture.grab():
            # A damaged frame reads like the end of the video: only several in a row are the end.
            failures += 1
            continue
        failures = 0
        stated_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if index:
            # Some containers hold no times.
            time_s = stated_s if stated_s > time_s else time_s + period_s
        yield index, time_s
        index += 1
    if index == 0:
        raise InputError(f"Cannot read the video {printable(str(path))}: none of its frames can be decoded.")


def _warn_if_broken(capture: Any, path: Path, total: int) -> None:
    """Warn if clearly fewer frames were decoded than the container states."""
    stated = _stated_frames(capture)
    if total < _READABLE_SHARE * stated:
        warnings.warn(
            f"Only {total} of {stated} frames of {printable(path.name)} can be decoded: the file is damaged.",
            BrokenVideoWarning,
            stacklevel=3,
        )


def _retrieve(capture: Any, path: Path, index: int, time_s: float) -> Photo | None:
    """Convert the frame just grabbed; none if it is damaged."""
    read, frame = capture.retrieve()
    if not read:
        return None
    try:
        check_size(frame.shape[1], frame.shape[0])
    except InputError as error:
        raise InputError(f"Cannot use the video {printable(str(path))}: {error}.") from error
    rgb = np.ascontiguousarray(frame[..., ::-1])
    name = f"{printable(path.stem)}_{index:06d}"
    return Photo(Image.fromarray(rgb), name, time_s, path=path.absolute(), frame_index=index)
