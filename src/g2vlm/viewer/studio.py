"""From uploaded files to scenes: the one model of a web app, loaded when first needed, and its queue."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError
from g2vlm.inference.perception import Perception
from g2vlm.inputs.capture import opened
from g2vlm.inputs.geometric import Fit
from g2vlm.inputs.photos import PhotoSet, load_photos
from g2vlm.inputs.video import FrameChoice, is_video
from g2vlm.pipeline import Model, Progress
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.viewer.limits import Limits
from g2vlm.viewer.points import ShownPoints
from g2vlm.viewer.work import Job, WorkQueue

Step = Callable[[str, float | None], None]
"""Called with what is done now, and its share done from 0 to 1, or None where nobody can tell."""


class CancelledError(Exception):
    """Nobody wants the scene any more."""


@dataclass(frozen=True)
class Material:
    """What a scene is made of."""

    files: tuple[Path, ...]
    """Photos, or one video or folder."""

    @property
    def is_video(self) -> bool:
        """Whether it is one video."""
        return len(self.files) == 1 and self.files[0].is_file() and is_video(self.files[0])

    @property
    def source(self) -> Path | list[str | Path]:
        """As `load_photos` takes it."""
        return self.files[0] if len(self.files) == 1 else list(self.files)


class Studio:
    """Makes scenes of photos and videos, one at a time.

    Args:
        load: loads the model, telling progress; called once.
        limits: what one browser may ask for.
        examples: a folder of photos to try.
        fit: how photos of other shapes are brought to the first one's.
    """

    def __init__(
        self,
        load: Callable[[Progress | None], Model],
        limits: Limits,
        examples: Path | None = None,
        fit: Fit = Fit.STRETCH,
    ) -> None:
        self.limits, self.examples = limits, examples
        self.queue = WorkQueue()
        self._load, self._fit = load, fit
        self._model: Model | None = None
        self._loading = threading.Lock()

    def model(self, on_progress: Progress | None = None) -> Model:
        """The model, loaded now unless it was before; other threads wait."""
        with self._loading:
            if self._model is None:
                self._model = self._load(on_progress)
            return self._model

    def examine(self, file: Path) -> str:
        """Read a file as a reconstruction would, so that a broken one is told at once.

        Returns:
            What it is, in a few words.

        Raises:
            InputError: nothing usable in it, or a video beyond the limit.
        """
        if not is_video(file):
            photos = load_photos(file, frames=self._frames(), max_views=2)
            width, height = photos.photos[0].size
            return f"{width} x {height}"
        duration_s = video_duration_s(file)
        if duration_s is not None and duration_s > self.limits.max_duration_s:
            raise InputError(
                f"Expected a video of at most {self.limits.max_duration_s} s, got {duration_s:.0f} s: cut it."
            )
        load_photos(file, frames=FrameChoice(count=1))
        return "video" if duration_s is None else f"video, {duration_s:.0f} s"

    def reconstruct(
        self, material: Material, step: Step, job: Job
    ) -> tuple[ShownPoints, Perception, tuple[str, ...]]:
        """Make a scene that can be asked about, of at most as many views as the limits allow.

        Returns:
            The scene prepared for viewing, what answers questions about it, and what its maker should know.

        Raises:
            InputError: nothing usable.
            CancelledError: the job is cancelled.
        """
        model = self._ready_model(step, job)
        photos = self._photos(model, material, step)
        _check(job)
        with network_steps(model, step, job, len(photos.photos)):
            perception = model.perceive(photos, fit=self._fit)
        _check(job)
        step("Preparing the view", None)
        return ShownPoints.of(perception.scene), perception, photos.notices

    def stream(
        self,
        material: Material,
        rate_hz: float,
        step: Step,
        job: Job,
        on_view: Callable[[Scene, View, ShownPoints | None], None],
    ) -> ShownPoints:
        """Make a scene of a video frame by frame; each view is told as it is ready.

        Args:
            material: one video.
            rate_hz: frames per second taken from it.
            step: told what is done.
            job: looked at between frames.
            on_view: called with the scene so far, its newest view, and that view's points, if any.

        Raises:
            InputError: nothing usable.
            CancelledError: the job is cancelled.
        """
        from g2vlm.inference.assembly import NETWORK_SCALE

        model = self._ready_model(step, job)
        views: list[View] = []
        duration_s = video_duration_s(material.files[0])
        total = None if duration_s is None else max(1, round(duration_s * rate_hz))
        for view in model.stream(material.files[0], window=self.limits.max_views, rate_hz=rate_hz):
            _check(job)
            views.append(replace(view, source_path=str(material.files[0])))
            scene = Scene(tuple(views), NETWORK_SCALE)
            newest = Scene((views[-1],), NETWORK_SCALE)
            shown = ShownPoints.of(newest, len(views) - 1) if newest.num_points else None
            on_view(scene, views[-1], shown)
            step(f"View {len(views)}", None if total is None else min(1.0, len(views) / total))
        step("Preparing the view", None)
        return ShownPoints.of(Scene(tuple(views), NETWORK_SCALE))

    def _ready_model(self, step: Step, job: Job) -> Model:
        step("Loading the model", None)
        model = self.model(lambda done, total: step("Loading the model", done / max(1, total)))
        _check(job)
        return model

    def _photos(self, model: Model, material: Material, step: Step) -> PhotoSet:
        step("Reading photos", 0.0)
        return load_photos(
            material.source,
            max_views=self.limits.max_views,
            frames=self._frames(),
            keep=model.reduction(self._fit, asking=True),
            on_progress=lambda done, total: step("Reading photos", done / max(1, total)),
        )

    def _frames(self) -> FrameChoice:
        return FrameChoice(count=self.limits.max_views)


def video_duration_s(file: Path) -> float | None:
    """How long a video says it is; None where it does not say.

    Raises:
        InputError: no video.
    """
    import cv2

    with opened(file) as video:
        rate, count = (video.capture.get(kind) for kind in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    return count / rate if rate > 0 and count > 0 else None


@contextmanager
def network_steps(model: Model, step: Step, job: Job, num_views: int) -> Iterator[None]:
    """Tell how far a pass through the network is, layer by layer, in this thread alone.

    Raises:
        CancelledError: from inside of the pass, once the job is cancelled.
    """
    thread, network = threading.get_ident(), model.network
    assert network.mixture is not None
    assert network.point_head is not None
    layers = list(network.mixture.layers)  # type: ignore[arg-type]
    views = "1 view" if num_views == 1 else f"{num_views} views"

    def told(text: str, share: float | None) -> Callable[..., None]:
        def hook(module: Any, *_: Any) -> None:
            if threading.get_ident() == thread:
                _check(job)
                step(text, share)

        return hook

    step(f"Looking at {views}", None)
    handles = [
        layer.register_forward_pre_hook(told(f"Looking at {views}", number / len(layers)))
        for number, layer in enumerate(layers)
    ]
    handles.append(network.point_head.register_forward_pre_hook(told("Points and cameras", None)))
    if network.semantic_encoder is not None:
        handles.append(
            network.semantic_encoder.register_forward_pre_hook(told("Reading for questions", None))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(job: Job) -> None:
    if job.is_cancelled:
        raise CancelledError
