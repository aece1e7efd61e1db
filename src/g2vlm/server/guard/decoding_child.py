"""A process that decodes photos and videos for the service, and may die of it.

`python -m g2vlm.server.guard.decoding_child DESCRIPTOR LIMITS` reads one job after another from its input, a
line of JSON each, writes pixels into the shared file DESCRIPTOR and answers with a line of JSON. It never
imports torch, so it starts quickly and is small.

Nothing here is trusted by the service: answers are JSON and bare pixels, never pickles.
"""

import json
import os
import resource
import signal
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from g2vlm.errors import InputError, MemoryLimitError
from g2vlm.inputs.canvas import Fit
from g2vlm.inputs.formats.limits import check_size, lower_limit
from g2vlm.inputs.formats.opening import register_heif
from g2vlm.inputs.frame_choice import FrameChoice, FrameChoiceKind
from g2vlm.inputs.notices import InputWarning
from g2vlm.inputs.photo import PhotoParts
from g2vlm.inputs.photos import PhotoSet, load_photos
from g2vlm.inputs.reduction import Reduction

GRACE_S = 5.0
"""After the time limit of a job the service kills the process; so much later it ends by itself."""

_DECODERS = frozenset({"JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "HEIF"})
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
_MOST_FPS = 240


@dataclass(frozen=True)
class ChildLimits:
    """What the process may use."""

    address_bytes: int
    """Address space."""

    job_seconds: float
    """Time for a job."""

    image_pixels: int
    """Largest photo or frame."""

    video_seconds: float
    """Longest video."""

    output_bytes: int
    """Most bytes of decoded pixels in one answer."""


@dataclass(frozen=True)
class Job:
    """One request."""

    folder: str
    """Where the files lie; no answer names it."""

    names: tuple[str, ...]
    """Files in it: photos in order, or one video."""

    is_video: bool
    """Which of the two."""

    frames: FrameChoice
    """Which frames of a video, or pictures of an animation, are taken."""

    max_views: int | None
    """Most photos or frames; all if None."""

    keep: Reduction | None
    """Sizes to keep of each; all pixels if None."""

    def to_json(self) -> str:
        """One line."""
        keep = self.keep
        return json.dumps(
            {
                **asdict(self),
                "frames": {**asdict(self.frames), "kind": self.frames.kind.value},
                "keep": None if keep is None else {**asdict(keep), "fit": keep.fit.value},
            }
        )

    @classmethod
    def from_json(cls, line: str) -> "Job":
        """What `to_json` wrote."""
        document = json.loads(line)
        frames, keep = document["frames"], document["keep"]
        document["names"] = tuple(document["names"])
        document["frames"] = FrameChoice(**{**frames, "kind": FrameChoiceKind(frames["kind"])})
        document["keep"] = None if keep is None else Reduction(**{**keep, "fit": Fit(keep["fit"])})
        return cls(**document)


class TooMuchError(InputError):
    """More than a limit allows."""


def run_job(job: Job, limits: ChildLimits) -> PhotoSet:
    """Decode what a job names, exactly as `load_photos` does.

    Raises:
        InputError: It cannot be used.
        MemoryLimitError: The limit of memory is too small for it.
    """
    paths = [Path(job.folder) / name for name in job.names]
    if job.is_video:
        _check_video(paths[0], limits)
    most = int(limits.video_seconds * _MOST_FPS)

    def watch(done: int, _: int) -> None:
        if job.is_video and done > most:
            raise TooMuchError(f"Expected a video of at most {most} frames, got more: cut it.")

    source = paths[0] if job.is_video else paths
    photos = load_photos(source, max_views=job.max_views, frames=job.frames, keep=job.keep, on_progress=watch)
    if photos.skipped:
        first = photos.skipped[0]
        raise InputError(f"Cannot use {first.name}: {first.reason}.")
    return photos


def _check_video(path: Path, limits: ChildLimits) -> None:
    """Refuse by what the container says, before a frame is decoded."""
    import cv2

    from g2vlm.inputs.capture import opened

    with opened(path) as capture:
        get = capture.capture.get
        width, height = int(get(cv2.CAP_PROP_FRAME_WIDTH)), int(get(cv2.CAP_PROP_FRAME_HEIGHT))
        if width > 0 and height > 0:
            check_size(width, height)
        fps = get(cv2.CAP_PROP_FPS)
        seconds = capture.stated_frames() / fps if fps > 0 else 0.0
    if seconds > limits.video_seconds:
        raise TooMuchError(
            f"Expected a video of at most {limits.video_seconds:g} seconds, got one of {seconds:.0f}: cut it."
        )


def answer(job: Job, photos: PhotoSet, descriptor: int, limits: ChildLimits) -> dict[str, Any]:
    """Write the pixels into the shared file; what describes them."""
    os.ftruncate(descriptor, 0)
    offset, described = 0, []
    for photo in photos.photos:
        parts, planes = photo.parts(), []
        for role, size, resample, pixels in _planes(parts):
            if offset + len(pixels) > limits.output_bytes:
                raise TooMuchError("Expected fewer or smaller photos: together they take too much memory.")
            planes.append({"role": role, "size": size, "resample": resample, "offset": offset})
            offset += os.pwrite(descriptor, pixels, offset)
        described.append(
            {
                "name": parts.name,
                "size": parts.size,
                "time_s": parts.time_s,
                "frame_index": parts.frame_index,
                "planes": planes,
            }
        )
    return {
        "photos": described,
        "frame_indices": photos.frame_indices,
        "notices": [_without_place(job, notice) for notice in photos.notices],
        "num_bytes": offset,
    }


def _planes(parts: PhotoParts) -> list[tuple[str, tuple[int, int], int, bytes]]:
    """All pixels of a photo: what they are, (width, height), Pillow's filter, bytes row by row."""
    planes = []
    if parts.image is not None:
        planes.append(("image", parts.image.size, 0, parts.image.tobytes()))
    if parts.visible is not None:
        planes.append(("visible", parts.visible.size, 0, parts.visible.tobytes()))
    for (size, resample), image in parts.renditions.items():
        planes.append(("rendition", size, int(resample), image.tobytes()))
    for size, mask in parts.masks.items():
        planes.append(("mask", size, 0, np.ascontiguousarray(mask, np.uint8).tobytes()))
    return planes


def _without_place(job: Job, text: str) -> str:
    """A message without the folder, which is nobody's business."""
    return text.replace(f"{job.folder}/", "").replace(job.folder, "")


def serve(jobs: IO[str], answers: IO[str], descriptor: int, limits: ChildLimits) -> None:
    """Answer jobs until there are no more."""
    for line in jobs:
        # Should the service itself be gone, nobody else would end a decoder that runs for ever.
        signal.setitimer(signal.ITIMER_REAL, limits.job_seconds + GRACE_S)
        job = Job.from_json(line)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InputWarning)
                result = answer(job, run_job(job, limits), descriptor, limits)
        except MemoryLimitError:
            result = {"error": "memory", "message": "it takes more memory to decode than is allowed"}
        except TooMuchError as error:
            result = {"error": "too_much", "message": _without_place(job, str(error))}
        except InputError as error:
            result = {"error": "input", "message": _without_place(job, str(error))}
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(result) + "\n")
        answers.flush()


def _confine(limits: ChildLimits) -> None:
    """Take from this process what decoding does not need."""
    for kind, most in (
        (resource.RLIMIT_AS, limits.address_bytes),
        (resource.RLIMIT_FSIZE, limits.output_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    # Decoders follow references in some containers; only these few, and only local files, are opened at all.
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"protocol_whitelist;file|format_whitelist;{_CONTAINERS}"
    lower_limit(limits.image_pixels)
    Image.MAX_IMAGE_PIXELS = limits.image_pixels
    Image.init()
    _register_heif()
    # Pillow knows rare formats that nobody attacks but those who know why, and one that starts Ghostscript.
    for name in set(Image.OPEN) - _DECODERS:
        del Image.OPEN[name]
    Image.ID[:] = [name for name in Image.ID if name in _DECODERS]


def _register_heif() -> None:
    """Before the formats are thinned; where it is not installed, HEIC photos are refused with the reason."""
    try:
        register_heif()
    except ImportError:
        return


def main() -> None:
    """Serve the process that started this one."""
    # What decoders print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    limits = ChildLimits(**json.loads(sys.argv[2]))
    _confine(limits)
    answers.write("ready\n")
    answers.flush()
    serve(sys.stdin, answers, int(sys.argv[1]), limits)


if __name__ == "__main__":
    main()
