"""Decoding of photos and videos in processes that can die without the service."""

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from g2vlm.errors import InputError, OutputError
from g2vlm.inputs.frame_choice import FrameChoice, FrameChoiceKind
from g2vlm.inputs.photo import Photo, PhotoParts
from g2vlm.inputs.photos import PhotoSet
from g2vlm.inputs.reduction import Reduction
from g2vlm.server.guard.decoding_child import ChildLimits, Job
from g2vlm.server.guard.decoding_worker import DecodingWorker, WorkerDiedError
from g2vlm.server.guard.limits import MIB, Limits
from g2vlm.server.guard.refusals import (
    CancelledError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    UndecodableError,
)
from g2vlm.server.guard.sniffing import MediaKind, sniff

_MOST_JOBS = 1000  # after which a process is replaced: decoders leak a little
_POLL_S = 0.05
_CHANNELS = {"image": ("RGB", 3), "rendition": ("RGB", 3), "visible": ("L", 1), "mask": ("L", 1)}
_OUTPUT_BYTES = 1024 * MIB


def _never() -> bool:
    return False


class DecodingPool:
    """A few decoding processes. Thread-safe; a call blocks its thread until the photos are there."""

    def __init__(self, limits: Limits) -> None:
        """Start the processes.

        Args:
            limits: What they may use, and how many there are.

        Raises:
            OutputError: No process can be started, or no temporary folder made.
        """
        self.limits = limits
        self._child_limits = ChildLimits(
            address_bytes=limits.decoding_bytes,
            job_seconds=limits.decoding_seconds,
            image_pixels=limits.image_pixels,
            video_seconds=limits.video_seconds,
            output_bytes=min(_OUTPUT_BYTES, limits.decoding_bytes),
        )
        self._lock = threading.Lock()
        self._is_closed = False
        self.num_replaced = 0
        """Processes that died or had to be killed so far."""
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="g2vlm-decoding-"))
            # A slot without a process gets one when it is next used.
            self._slots: queue.LifoQueue[DecodingWorker | None] = queue.LifoQueue()
            self._busy: set[DecodingWorker] = set()
            for _ in range(limits.decoding_workers):
                self._slots.put(DecodingWorker(self._child_limits))
        except OSError as error:
            raise OutputError(f"Cannot start a process for decoding: {error.strerror}.") from error

    def __enter__(self) -> "DecodingPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(
        self,
        sources: Sequence[bytes | Path],
        *,
        keep: Reduction | None,
        frames: FrameChoice = FrameChoice(),
        max_views: int | None = None,
        is_cancelled: Callable[[], bool] = _never,
    ) -> PhotoSet:
        """Decode photos, or one video, exactly as `load_photos` does.

        Args:
            sources: Content, or files of the service (never a path from a client): photos, or one video.
            keep: Sizes to keep of each; all pixels if None.
            frames: Which frames of a video, or pictures of an animation, are taken.
            max_views: Upper limit on the number of photos or frames; that of the limits if None.
            is_cancelled: Asked all the time, waiting included.

        Returns:
            The photos; none of them is left out.

        Raises:
            TooLargeError: More bytes, pixels, seconds or photos than the limits allow.
            UnsupportedFormatError: Neither photos nor a video.
            UndecodableError: They cannot be decoded, or not within the limits of time and memory.
            CancelledError: `is_cancelled` said yes, or the service ends.
        """
        is_video = self._check_sources(sources)
        most = self.limits.video_frames if is_video else self.limits.images_per_request
        if frames.kind is not FrameChoiceKind.RATE and frames.count > most:
            raise TooLargeError(f"Expected at most {most} frames, got {frames.count}: ask for fewer.")
        folder = self._place_sources(sources, is_video)
        names = tuple(_name(place, is_video) for place in range(len(sources)))
        job = Job(str(folder), names, is_video, frames, min(max_views or most, most), keep)
        try:
            answer, pixels = self._ask(job, is_cancelled)
            _raise_refusal(answer)
            return self._photo_set(answer, pixels)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _check_sources(self, sources: Sequence[bytes | Path]) -> bool:
        """Look at number, size and kind; whether it is a video."""
        limits = self.limits
        if not sources:
            raise RefusedError("Expected a photo or a video, got none.")
        if len(sources) > limits.images_per_request:
            raise TooLargeError(
                f"Expected at most {limits.images_per_request} photos, got {len(sources)}: send fewer."
            )
        kinds = []
        for place, source in enumerate(sources):
            try:
                kind = sniff(source).kind
                size = len(source) if isinstance(source, bytes) else source.stat().st_size
            except FileNotFoundError as error:
                raise NotFoundError(
                    "Expected photos that are still there, but an upload has been removed meanwhile: send it "
                    "again."
                ) from error
            most = limits.video_bytes if kind is MediaKind.VIDEO else limits.image_bytes
            if size > most:
                raise TooLargeError(f"Expected at most {most} bytes in {kind.value} {place}, got {size}.")
            kinds.append(kind)
        if MediaKind.VIDEO in kinds and len(kinds) > 1:
            raise RefusedError("Expected photos, or one video alone, got a video with others: send it alone.")
        return kinds[0] is MediaKind.VIDEO

    def _place_sources(self, sources: Sequence[bytes | Path], is_video: bool) -> Path:
        """A folder of its own for each job, with names that messages may repeat."""
        try:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            for place, source in enumerate(sources):
                target = folder / _name(place, is_video)
                if isinstance(source, bytes):
                    target.write_bytes(source)
                else:
                    target.symlink_to(source.absolute())
        except OSError as error:
            if self._is_closed:
                raise CancelledError("Decoding was cancelled: the service ends.") from error
            raise OutputError(f"Cannot store what is to be decoded: {error.strerror}.") from error
        return folder

    def _ask(self, job: Job, is_cancelled: Callable[[], bool]) -> tuple[dict[str, Any], bytearray]:
        """Run a job in the next free process; one that fails is replaced."""
        worker = self._take(is_cancelled)
        keep = False
        try:
            result = worker.ask(job, lambda: self._is_closed or is_cancelled())
            keep = worker.num_jobs < _MOST_JOBS
            return result
        except (UndecodableError, CancelledError):
            self.num_replaced += 1
            raise
        finally:
            with self._lock:
                self._busy.discard(worker)
                keep = keep and not self._is_closed
            if not keep:
                worker.kill()
            self._slots.put(worker if keep else None)

    def _take(self, is_cancelled: Callable[[], bool]) -> DecodingWorker:
        """Wait for a free process."""
        worker = self._free_slot(is_cancelled)
        try:
            if worker is not None and not worker.is_alive():
                worker.kill()
                worker = None
            if worker is None:
                worker = DecodingWorker(self._child_limits)
            with self._lock:
                self._busy.add(worker)
            return worker
        except OSError as error:
            self._slots.put(None)
            raise OutputError(f"Cannot start a process for decoding: {error.strerror}.") from error

    def _free_slot(self, is_cancelled: Callable[[], bool]) -> DecodingWorker | None:
        while True:
            if self._is_closed or is_cancelled():
                raise CancelledError("Decoding was cancelled.")
            try:
                return self._slots.get(timeout=_POLL_S)
            except queue.Empty:
                continue

    def _photo_set(self, answer: Mapping[str, Any], pixels: bytearray) -> PhotoSet:
        """Photos from what a process answered, which is believed in nothing."""
        try:
            photos = tuple(_photo(described, pixels) for described in answer["photos"])
            indices = answer["frame_indices"]
            frame_indices = None if indices is None else tuple(int(index) for index in indices)
            notices = tuple(str(notice) for notice in answer["notices"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WorkerDiedError(
                "The process for decoding gave no photos: the content is hostile."
            ) from error
        if not photos or (frame_indices is not None and len(frame_indices) != len(photos)):
            raise WorkerDiedError("The process for decoding gave no photos: the content is hostile.")
        return PhotoSet(photos, (), "memory", frame_indices, notices)

    def close(self) -> None:
        """Kill all processes and remove what lies around."""
        with self._lock:
            self._is_closed = True
        while True:
            try:
                worker = self._slots.get_nowait()
            except queue.Empty:
                break
            if worker is not None:
                worker.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _name(place: int, is_video: bool) -> str:
    return "video" if is_video else f"image_{place}"


def _raise_refusal(answer: Mapping[str, Any]) -> None:
    """Turn what a process refused into an error."""
    error = answer.get("error")
    if error is None:
        return
    message = str(answer.get("message", ""))[:2000]
    if error in ("memory", "too_much"):
        raise TooLargeError(
            message if error == "too_much" else f"Expected smaller photos or videos: {message}."
        )
    if "too large" in message:
        raise TooLargeError(message)
    raise UndecodableError(message)


def _photo(described: Mapping[str, Any], pixels: bytearray) -> Photo:
    """One photo; raises ValueError and the like for nonsense."""
    images: dict[str, Image.Image] = {}
    renditions, masks = {}, {}
    for plane in described["planes"]:
        role, size, image = plane["role"], _size(plane["size"]), _plane(plane, pixels)
        if role == "rendition":
            renditions[size, Image.Resampling(int(plane["resample"]))] = image
        elif role == "mask":
            masks[size] = np.asarray(image) > 0
        else:
            images[role] = image
    time_s, index = described["time_s"], described["frame_index"]
    parts = PhotoParts(
        name=str(described["name"])[:200],
        size=_size(described["size"]),
        time_s=None if time_s is None else float(time_s),
        frame_index=None if index is None else int(index),
        image=images.get("image"),
        renditions=renditions,
        masks=masks,
        visible=images.get("visible"),
    )
    if parts.image is None and not renditions:
        raise ValueError("a photo without pixels")
    return Photo.from_parts(parts, partial(_not_again, parts.name))


def _plane(plane: Mapping[str, Any], pixels: bytearray) -> Image.Image:
    mode, channels = _CHANNELS[plane["role"]]
    width, height = _size(plane["size"])
    start = int(plane["offset"])
    end = start + width * height * channels
    if start < 0 or end > len(pixels):
        raise ValueError("pixels that are not there")
    return Image.frombytes(mode, (width, height), bytes(memoryview(pixels)[start:end]))


def _size(value: Any) -> tuple[int, int]:
    width, height = (int(side) for side in value)
    if not (0 < width < 1 << 20 and 0 < height < 1 << 20):
        raise ValueError("an impossible size")
    return width, height


def _not_again(name: str) -> Image.Image:
    raise InputError(f"Expected {name} at full size, but only the sizes that the model needs were kept.")
