"""Stepping through a video's frames with OpenCV: upright, in square pixels, each in its own shape."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from g2vlm.errors import InputError, MemoryLimitError
from g2vlm.inputs.decode import is_out_of_memory, printable, why_no_file
from g2vlm.inputs.formats.kinds import read_head
from g2vlm.inputs.formats.limits import check_size
from g2vlm.inputs.formats.opencv import silent_opencv
from g2vlm.inputs.formats.video_files import coded_size, is_cover_art, why_no_frames

if TYPE_CHECKING:
    import cv2

_BROKEN_RUN = 60  # frames in a row that may fail to decode before the video counts as ended
_USUAL_FPS = 30.0
_PROGRESS_STEP = 16
_SANE_ASPECTS = (Fraction(1, 8), Fraction(8))
_STREAM_HEADS = (b"\0\0\1\xba", b"\0\0\1\xb3", b"\0\0\0\1")

Progress = Callable[[int, int], None]
"""Called with (frames gone through, how many there are)."""


class Capture:
    """An opened video."""

    def __init__(self, capture: "cv2.VideoCapture", path: Path) -> None:
        self.capture = capture
        self.path = path
        self._aspect = _pixel_aspect(capture)
        self._sizes: list[tuple[int, tuple[int, int]]] | None = None

    def stated_frames(self) -> int:
        """Number of frames according to the container; 0 if it does not say."""
        import cv2

        return max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def grabbed(self, on_progress: Progress | None = None) -> Iterator[tuple[int, float]]:
        """Step through the frames without converting them: number and time in seconds.

        Raises:
            InputError: Not one frame can be decoded.
        """
        import cv2

        fps = self.capture.get(cv2.CAP_PROP_FPS)
        period_s = 1.0 / (fps if 0 < fps < 1000 else _USUAL_FPS)
        stated = self.stated_frames()
        index, time_s, failures = 0, 0.0, 0
        while failures < _BROKEN_RUN:
            if not self.capture.grab():
                # A damaged frame reads like the end of the video: only several in a row are the end.
                failures += 1
                continue
            failures = 0
            stated_s = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
            if index:
                # Some containers hold no times, and joined recordings begin anew.
                time_s = stated_s if stated_s > time_s else time_s + period_s
            yield index, time_s
            index += 1
            if on_progress is not None and index % _PROGRESS_STEP == 0:
                on_progress(index, max(stated, index))
        if index == 0:
            name = printable(str(self.path))
            raise InputError(f"Cannot read the video {name}: none of its frames can be decoded.")
        if on_progress is not None:
            on_progress(index, index)

    def pixels(self) -> np.ndarray | None:
        """The frame just grabbed as stored, (height, width, 3) BGR; none if it is damaged.

        Raises:
            MemoryLimitError: The machine has no room for it.
        """
        import cv2

        try:
            read, frame = self.capture.retrieve()
        except (cv2.error, MemoryError) as error:
            if is_out_of_memory(error):
                raise MemoryLimitError(
                    f"Expected enough memory for the frames of {printable(self.path.name)}, but this machine "
                    "has run out of it: take fewer frames, or a machine with more memory."
                ) from error
            return None
        return frame if read else None

    def picture(self, index: int) -> Image.Image | None:
        """The frame just grabbed, upright RGB in square pixels; none if it is damaged.

        Args:
            index: Its number.

        Raises:
            InputError: Its size is impossible.
            MemoryLimitError: The machine has no room for it.
        """
        frame = self.pixels()
        if frame is None:
            return None
        try:
            check_size(frame.shape[1], frame.shape[0])
        except InputError as error:
            raise InputError(f"Cannot use the video {printable(str(self.path))}: {error}.") from error
        image = Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))
        size = self._shown_size(index, image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)

    def size_changes(self) -> bool:
        """Whether the size of the pictures changes on the way."""
        return len(self._coded_sizes()) > 1

    def _shown_size(self, index: int, size: tuple[int, int]) -> tuple[int, int]:
        """Size in which a frame is to be seen: OpenCV squeezes all into that of the first."""
        sizes = self._coded_sizes()
        if len(sizes) > 1:
            size = next(shown for first, shown in reversed(sizes) if first <= index)
        # The wider side grows, so that no detail is lost.
        if self._aspect > 1:
            return round(size[0] * self._aspect), size[1]
        return size[0], round(size[1] / self._aspect)

    def _coded_sizes(self) -> list[tuple[int, tuple[int, int]]]:
        """First frame and size of every stretch of one size; only streams can change it on the way."""
        if self._sizes is None:
            head = read_head(self.path)
            is_stream = head.startswith(_STREAM_HEADS) or 0x47 in (head[:1] + head[4:5])
            self._sizes = _stretches(self.path) if is_stream else []
        return self._sizes


@contextmanager
def opened(path: Path) -> Iterator[Capture]:
    """Open a video, silently: what goes wrong is told by our own errors.

    Raises:
        InputError: No such file, or no video.
    """
    if not path.is_file():
        raise InputError(f"Cannot read the video {printable(str(path))}: {why_no_file(path)}.")
    with silent_opencv() as cv2:
        # An absolute path, and no other backend: names like "frame_%03d.avi" are patterns to some of them.
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise InputError(_why_not_opened(path))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        if is_cover_art(path, code.to_bytes(4, "little").decode("latin-1")):
            raise InputError(
                f"Cannot read the video {printable(str(path))}: it holds sound and a cover picture: "
                "expected a video."
            )
        yield Capture(capture, path)
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
    reason = why_no_frames(path)
    if reason is not None:
        return f"Cannot read the video {name}: {reason}."
    return f"Cannot read the video {name}: it holds no frames OpenCV can decode; convert it to H.264 mp4."


def _pixel_aspect(capture: "cv2.VideoCapture") -> Fraction:
    """Width of a pixel over its height, of the upright picture; 1 where the file says nothing sensible."""
    import cv2

    wide, high = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if not (wide > 0 and high > 0):
        return Fraction(1)
    aspect = Fraction(int(wide), int(high))
    if not _SANE_ASPECTS[0] <= aspect <= _SANE_ASPECTS[1]:
        return Fraction(1)
    is_turned = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
    return 1 / aspect if is_turned else aspect


def _stretches(path: Path) -> list[tuple[int, tuple[int, int]]]:
    """First frame and size of every stretch of one size, from the packets as they are stored."""
    with silent_opencv() as cv2:
        packets = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    found: list[tuple[int, tuple[int, int]]] = []
    index = 0
    try:
        while packets.grab():
            if packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
                read, packet = packets.retrieve()
                size = coded_size(packet.tobytes()) if read else None
                if size is not None and (not found or found[-1][1] != size):
                    found.append((index if found else 0, size))
            index += 1
    finally:
        packets.release()
    return found
