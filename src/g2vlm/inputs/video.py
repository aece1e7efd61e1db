"""Videos to photos: which frames are taken, and reading them one at a time.

A video is never held in memory whole. Frames are numbered by counting those that decode, from the start:
seeking by frame number is inexact in common formats, and containers often misstate how many frames they hold.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.capture import Capture, opened
from g2vlm.inputs.decode import printable
from g2vlm.inputs.formats.kinds import VIDEO_SUFFIXES, FileKind, kind_of, read_head
from g2vlm.inputs.formats.video_files import spherical_projection
from g2vlm.inputs.frame_choice import (
    MAX_FRAMES,
    TIME_TOLERANCE_S,
    FrameChoice,
    FrameChoiceKind,
    at_even_steps,
    by_rate,
    check_rate,
    choose_frames,
)
from g2vlm.inputs.notices import InputWarning
from g2vlm.inputs.pages import read_pages
from g2vlm.inputs.photo import Photo
from g2vlm.inputs.reduction import Reduction
from g2vlm.inputs.spread import evenly_spread

__all__ = [
    "MAX_FRAMES",
    "VIDEO_SUFFIXES",
    "BrokenVideoWarning",
    "FrameChoice",
    "FrameChoiceKind",
    "VideoFrames",
    "VideoOptions",
    "evenly_spread",
    "is_video",
    "iterate_frames",
    "iterate_numbered_frames",
    "read_frames",
]

_READABLE_SHARE = 0.9  # of the frames the container states; below it the reader is warned
_THUMBNAIL_WIDTH = 96


@dataclass(frozen=True)
class VideoFrames:
    """Frames chosen from a video, in order."""

    photos: tuple[Photo, ...]
    """The frames as upright RGB, each with its time in seconds."""

    indices: tuple[int, ...]
    """Number of each frame in the video, counted from 0 over the frames that decode."""

    notices: tuple[str, ...] = ()
    """What the user should know about the video."""


@dataclass(frozen=True)
class VideoOptions:
    """What happens to frames while they are read."""

    keep: Reduction | None = None
    """The sizes that stay in memory of each frame; all pixels if None."""

    on_progress: Callable[[int, int], None] | None = None
    """Called with (frames gone through, how many there are), now and then; a second pass begins anew."""


class BrokenVideoWarning(InputWarning):
    """A video ends earlier than its container says."""


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its content; by its ending where the content tells nothing."""
    return path.is_file() and kind_of(read_head(path), path.suffix) is FileKind.VIDEO


def read_frames(
    path: str | Path,
    choice: FrameChoice = FrameChoice(),
    *,
    max_frames: int | None = None,
    options: VideoOptions = VideoOptions(),
) -> VideoFrames:
    """Choose frames of a video and read them.

    The video is decoded once for `COUNT` if its container states the number of frames correctly and they
    follow each other in an even rhythm, otherwise twice: once to choose, once to read.

    Args:
        path: A video file.
        choice: The rule.
        max_frames: Upper limit on the number of frames, at least 1. `COUNT` and `MOTION` then choose no more
            than that; of a longer `RATE` choice an evenly spread part is kept.
        options: What stays in memory of frames, and whom to tell about progress.

    Raises:
        InputError: No such file, not a video, no frame that can be decoded, or more than `MAX_FRAMES` frames.
        MemoryLimitError: This machine has too little memory for the frames.
    """
    path = Path(path)
    if max_frames is not None and max_frames < 1:
        raise InputError(f"Expected a maximum of at least 1 frame, got {max_frames}.")
    count = min(choice.count, max_frames or choice.count)
    if choice.kind is FrameChoiceKind.COUNT:
        frames, total = _read_evenly(path, count, options)
    elif choice.kind is FrameChoiceKind.MOTION:
        frames, times_s = _read_numbered(path, _choose_by_motion(path, count, options), options)
        total = len(times_s)
    else:
        indices = _choose_by_rate(path, choice.rate_hz, options)
        kept = evenly_spread(len(indices), max_frames or len(indices))
        frames, times_s = _read_numbered(path, [indices[place] for place in kept], options)
        total = len(times_s)
    with opened(path) as capture:
        _warn_if_broken(capture, total)
        return replace(frames, notices=_notices(capture))


def iterate_numbered_frames(path: str | Path, indices: Sequence[int]) -> Iterator[tuple[int, Photo]]:
    """Read the frames of the given numbers again, in one pass and constant memory.

    Args:
        path: A video file, or an animation or other image file of several pictures.
        indices: Numbers as in `VideoFrames.indices` or `Photo.frame_index`, in any order.

    Yields:
        Number and frame, in the order of the file; frames that it does not have are left out.

    Raises:
        InputError: No such file, or no frame that can be decoded.
    """
    path, wanted = Path(path), frozenset(indices)
    if kind_of(read_head(path), path.suffix) is FileKind.IMAGE:
        for place, picture in read_pages(path, wanted):
            if not isinstance(picture, InputError):
                name = f"{printable(path.stem)}_{place:06d}"
                yield place, Photo(picture.image, name, path=path.absolute(), frame_index=place)
        return
    with opened(path) as capture:
        for index, time_s in capture.grabbed():
            photo = _frame(capture, index, time_s) if index in wanted else None
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
        check_rate(rate_hz)
    total, last_slot = 0, -1
    with opened(path) as capture:
        for index, time_s in capture.grabbed():
            total += 1
            slot = index if rate_hz is None else int((time_s + TIME_TOLERANCE_S) * rate_hz)
            if slot > last_slot:
                last_slot = slot
                photo = _frame(capture, index, time_s)
                if photo is not None:
                    yield photo
        _warn_if_broken(capture, total)


def _read_evenly(path: Path, count: int, options: VideoOptions) -> tuple[VideoFrames, int]:
    """Read evenly spread frames, trusting the container's number of frames until it proves wrong.

    Also returns how many frames the video has.
    """
    with opened(path) as capture:
        expected = evenly_spread(capture.stated_frames(), count)
    frames, times_s = _read_numbered(path, expected, options)
    indices = choose_frames(times_s, FrameChoice(FrameChoiceKind.COUNT, count))
    if indices != expected:
        frames, times_s = _read_numbered(path, indices, options)
    return frames, len(times_s)


def _read_numbered(
    path: Path, indices: Sequence[int], options: VideoOptions
) -> tuple[VideoFrames, list[float]]:
    """Read the frames with the given numbers; also return the times of all frames of the video."""
    if len(indices) > MAX_FRAMES:
        raise InputError(
            f"{len(indices)} frames of {printable(path.name)} would be taken, more than {MAX_FRAMES}: take "
            "fewer frames per second, or set a maximum number of views."
        )
    wanted = frozenset(indices)
    photos: list[Photo] = []
    taken: list[int] = []
    times_s: list[float] = []
    with opened(path) as capture:
        for index, time_s in capture.grabbed(options.on_progress):
            times_s.append(time_s)
            photo = _frame(capture, index, time_s) if index in wanted else None
            if photo is None:
                continue
            if options.keep is not None:
                first_size = photos[0].size if photos else photo.size
                renditions = options.keep.renditions(photo.size, first_size)
                photo = photo.reduced(renditions, partial(_read_again, path, index))
            photos.append(photo)
            taken.append(index)
    return VideoFrames(tuple(photos), tuple(taken)), times_s


def _read_again(path: Path, index: int) -> Image.Image:
    """One frame at full size, for the few who need it after it was reduced."""
    for _, photo in iterate_numbered_frames(path, [index]):
        return photo.image
    raise InputError(f"Cannot read frame {index} of {printable(str(path))} again.")


def _choose_by_rate(path: Path, rate_hz: float, options: VideoOptions) -> list[int]:
    """Numbers of the first frame in each period of 1 / rate_hz seconds."""
    with opened(path) as capture:
        return by_rate([time_s for _, time_s in capture.grabbed(options.on_progress)], rate_hz)


def _choose_by_motion(path: Path, count: int, options: VideoOptions) -> list[int]:
    """Numbers of frames between which equal amounts of movement lie."""
    steps = list(_movement(path, options))
    travelled = np.cumsum(steps)
    if count >= len(steps) or count == 1 or travelled[-1] <= 0:
        return evenly_spread(len(steps), count)
    return at_even_steps(travelled, count)


def _movement(path: Path, options: VideoOptions) -> Iterator[float]:
    """Mean length of the optical flow from each frame to the next, in image widths; 0 for the first frame."""
    import cv2

    previous = None
    with opened(path) as capture:
        for _ in capture.grabbed(options.on_progress):
            frame = capture.pixels()
            if frame is None:
                yield 0.0
                continue
            height = max(16, round(frame.shape[0] * _THUMBNAIL_WIDTH / frame.shape[1]))
            thumbnail = cv2.resize(frame, (_THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
            gray = cv2.cvtColor(thumbnail, cv2.COLOR_BGR2GRAY)
            if previous is None or previous.shape != gray.shape:
                yield 0.0
            else:
                flow = np.empty((*gray.shape, 2), dtype=np.float32)
                flow = cv2.calcOpticalFlowFarneback(previous, gray, flow, 0.5, 3, 15, 3, 5, 1.2, 0)
                yield float(np.linalg.norm(flow, axis=-1).mean()) / _THUMBNAIL_WIDTH
            previous = gray


def _warn_if_broken(capture: Capture, total: int) -> None:
    """Warn if clearly fewer frames were decoded than the container states."""
    stated = capture.stated_frames()
    if total < _READABLE_SHARE * stated:
        warnings.warn(
            f"Only {total} of {stated} frames of {printable(capture.path.name)} can be decoded: the file is "
            "damaged.",
            BrokenVideoWarning,
            stacklevel=3,
        )


def _notices(capture: Capture) -> tuple[str, ...]:
    """What the user should know about a video."""
    name, notices = printable(capture.path.name), []
    projection = spherical_projection(capture.path)
    if projection is not None:
        notices.append(
            f"{name}: a panorama video ({projection}). The model expects ordinary cameras; points and "
            "cameras will be wrong. Cut it into ordinary views first."
        )
    if capture.size_changes():
        notices.append(
            f"{name}: the size of the pictures changes on the way. Every frame keeps its own shape, at the "
            "resolution of the first."
        )
    return tuple(notices)


def _frame(capture: Capture, index: int, time_s: float) -> Photo | None:
    """Convert the frame just grabbed; none if it is damaged."""
    image = capture.picture(index)
    if image is None:
        return None
    name = f"{printable(capture.path.stem)}_{index:06d}"
    return Photo(image, name, time_s, path=capture.path.absolute(), frame_index=index)
