"""Streaming reconstruction: each view's geometry as its frame arrives."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from g2vlm.errors import InputError
from g2vlm.geometry.agreement import reprojection_agreement
from g2vlm.inference.assembly import assemble_scene
from g2vlm.inference.prompts import Prompt, PromptBuilder
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import Fit, GeometricImages
from g2vlm.model.cache import CacheShape, KeyValueCache, Memory
from g2vlm.model.config import EncoderWindows
from g2vlm.model.network import G2VLM, GeometryPrediction, Wants
from g2vlm.model.precision import Placement
from g2vlm.model.view_ring import RingSize, ViewRing
from g2vlm.scene.view import View
from g2vlm.video.frames import FramePreparer, FrameSource, open_frames

LARGEST_POSITION = 1 << 14
"""Rotary positions of a bounded stream stay about below this, where float32 angles are exact to 0.002."""
_VIEWS_CONSULTED = 2


@dataclass(frozen=True)
class StreamOptions:
    """How much a stream remembers and how it takes its frames."""

    window: int | None = None
    """Latest views that a new one sees besides the anchors; None: all, in memory that grows."""
    anchors: int = 1
    """First views that a bounded stream never forgets: they hold its frame and unit."""
    fit: Fit = Fit.STRETCH
    """How frames of other shapes are brought to the first one's."""
    rate_hz: float | None = None
    """Frames per second taken from a video; None: every frame."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise InputError(f"Expected a window of at least 1 view, got {self.window}.")
        if self.anchors < 0:
            raise InputError(f"Expected 0 or more anchor views, got {self.anchors}.")


_UNBOUNDED = StreamOptions()


def stream_views(
    network: G2VLM,
    prompts: PromptBuilder,
    placement: Placement,
    source: FrameSource,
    options: StreamOptions = _UNBOUNDED,
) -> Iterator[View]:
    """Reconstruct frames one by one; each sees itself and the earlier ones, as in training.

    Every view is encoded by itself (`EncoderWindows.PER_VIEW`, whatever the checkpoint says: the released
    drifting windows are defined only for all views at once), read with the keys and values of the earlier
    ones, and decoded at once. Without a window the geometry is that of one causal pass over all frames with
    per-view windows.

    Args:
        network: at least the parts that reconstruction needs.
        prompts: for its tokenizer and device.
        placement: where the network runs.
        source: see `open_frames`.
        options: memory and frames.

    Returns:
        Views in the network's frame and unit, as soon as they are computed. Without a confidence head their
        confidence is the agreement with the two views before.

    Raises:
        InputError: nothing usable in `source`.
    """
    frames = open_frames(source, rate_hz=options.rate_hz)
    config = network.config
    prepare = FramePreparer(
        width=config.image_width, patch=config.geometric_encoder.patch_size, fit=options.fit
    )
    return _views(_Stream(network, prompts, placement, options), frames, prepare)


def _views(stream: "_Stream", frames: Iterator[Photo], prepare: FramePreparer) -> Iterator[View]:
    has_confidence = stream.network.confidence_head is not None
    recent: deque[View] = deque(maxlen=1 + _VIEWS_CONSULTED)
    for photo in frames:
        view = stream.read(photo, prepare([photo]))
        recent.append(view)
        yield view if has_confidence else _judged(view, recent)


class _Stream:
    """The memory of one stream, and the positions in it."""

    def __init__(
        self, network: G2VLM, prompts: PromptBuilder, placement: Placement, options: StreamOptions
    ) -> None:
        self.network, self.prompts, self.placement, self.options = network, prompts, placement, options
        self.cache: KeyValueCache | ViewRing | None = None
        self.position = 0
        self.offset = 0

    @torch.inference_mode()
    def read(self, photo: Photo, images: GeometricImages) -> View:
        """Reconstruct one view from its prepared frame."""
        if self.cache is None:
            self.cache = self._begin(images.pixels)
        prompt = self.prompts.next_view(images.pixels, self.position)
        view_step = prompt.next_position - self.position
        if isinstance(self.cache, ViewRing):
            self.cache.follow(view_step, self.offset)
        geometry = self._pass(prompt, self.cache)
        if isinstance(self.cache, ViewRing) and self.position > LARGEST_POSITION:
            self._bring_back(self.cache, view_step)
        return assemble_scene(geometry, images, (photo,)).views[0]

    def _begin(self, pixels: torch.Tensor) -> KeyValueCache | ViewRing:
        """Make the cache and read the request."""
        request = self.prompts.reconstruction_request()
        view = self.prompts.next_view(pixels, 0).inputs.layout.num_tokens
        cache = self._cache(request.inputs.layout.num_tokens, view)
        self.network(request.inputs, Wants(), cache)
        self.position = request.next_position
        return cache

    def _cache(self, prompt_tokens: int, view_tokens: int) -> KeyValueCache | ViewRing:
        mixture, place = self.network.config.mixture, self.placement
        dtype, device = place.precision.dtype, place.device
        if self.options.window is not None:
            size = RingSize(prompt_tokens, view_tokens, self.options.anchors, self.options.window)
            return ViewRing(mixture, size, dtype, device)
        capacity = prompt_tokens + 8 * view_tokens
        return KeyValueCache(CacheShape.of(mixture), capacity, dtype=dtype, device=device, growing=True)

    def _pass(self, prompt: Prompt, cache: Memory) -> GeometryPrediction:
        inputs = prompt.inputs
        assert inputs.photographs is not None
        alone = replace(inputs.photographs, windows=EncoderWindows.PER_VIEW)
        geometry = self.network(replace(inputs, photographs=alone), Wants(geometry=True), cache).geometry
        self.position = prompt.next_position
        assert isinstance(geometry, GeometryPrediction)
        return geometry

    def _bring_back(self, ring: ViewRing, view_step: int) -> None:
        """Move all positions back by the views that were dropped since this was last done."""
        # One more view will be dropped before the next one is read; the window must stay above zero.
        back = ring.num_dropped * view_step + self.offset
        ring.shift(-back)
        self.offset -= back
        self.position -= back


def _judged(view: View, recent: deque[View]) -> View:
    """The last of the recent views, its confidence the agreement with those before it."""
    views = list(recent)
    agreement = reprojection_agreement(
        torch.stack([torch.from_numpy(one.points_world) for one in views]),
        torch.stack([torch.from_numpy(one.T_world_camera) for one in views]),
        torch.stack([torch.from_numpy(one.K) for one in views]),
        torch.stack([torch.from_numpy(one.valid) for one in views]),
    )
    return replace(view, confidence=agreement[-1].numpy())
