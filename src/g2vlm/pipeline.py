"""The model that a user holds."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from g2vlm.checkpoints.hub import choose_checkpoint
from g2vlm.checkpoints.loading import (
    CHAT_PARTS,
    RECONSTRUCTION_PARTS,
    extend_network,
    load_network,
    restore_replaced,
)
from g2vlm.checkpoints.saving import save_network
from g2vlm.errors import CheckpointWarning, OutputError
from g2vlm.inference.assembly import assemble_scene
from g2vlm.inference.batch import AnswerBatch
from g2vlm.inference.choices import member_of
from g2vlm.inference.decoding import DECODERS, Decoder, Decoding, choose_decoding
from g2vlm.inference.perceiving import PhotoReader
from g2vlm.inference.perception import Perception
from g2vlm.inference.photo_sizes import reduction_for
from g2vlm.inference.planning import CachePlan, plan_memory, require_memory
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.selection import select_keys
from g2vlm.inference.spilling import in_memory, on_disk
from g2vlm.inference.timing import Stopwatch, ThreadTimings
from g2vlm.inputs.geometric import Fit, GeometricImages, prepare_geometric
from g2vlm.inputs.photos import FrameChoice, PhotoSet, PhotoSource, load_photos
from g2vlm.inputs.reduction import Reduction
from g2vlm.inputs.semantic import SemanticPreparation
from g2vlm.inputs.spans import SYSTEM_PROMPT
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.config import G2VLMConfig, Part, ViewAttention
from g2vlm.model.key_selection import KeySelection
from g2vlm.model.network import G2VLM, Wants
from g2vlm.model.precision import Placement, choose_placement
from g2vlm.model.quantization import Quantization, adapt_, is_replaced
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.video.frames import FramePreparer, FrameSource, open_frames
from g2vlm.video.long_video import (
    LongVideo,
    LongVideoOptions,
    reconstruct_long_video,
    settings_of,
)
from g2vlm.video.pieces import PieceFolder
from g2vlm.video.reconstructor import NetworkReconstructor
from g2vlm.video.stitching import StitchingProgress, no_progress
from g2vlm.video.stream import StreamOptions, stream_views

QUESTION_TOKENS = 512
"""Tokens of question and answer that a plan of memory counts with."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class Model:
    """A loaded checkpoint: reconstructs scenes and perceives photos for questions.

    Only what reconstruction needs is loaded at first; the first `perceive` adds the rest. Several threads may
    use one model at the same time; each gets what it would get alone.
    """

    def __init__(
        self,
        folder: Path,
        network: G2VLM,
        placement: Placement,
        *,
        view_attention: ViewAttention | None = None,
        quantization: Quantization = Quantization.NONE,
        decoding: Decoding | None = Decoding.PLAIN,
    ) -> None:
        self.folder = folder
        self.placement = placement
        self.network = network
        self.quantization = quantization
        self._decoding = decoding
        self._decoder: Decoder | None = None
        self.view_attention = view_attention or network.config.view_attention
        self.tokenizer = TextTokenizer.from_folder(folder)
        self._timings = ThreadTimings()
        # Guards what changes after loading: the parts of the network, and what decodes with them.
        self._parts_lock = threading.RLock()
        self._prompts = PromptBuilder(self.tokenizer, network.config, placement.device)

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        view_attention: ViewAttention | str | None = None,
        quantization: Quantization | str = Quantization.NONE,
        compiled: bool | None = None,
        download: bool = False,
        on_progress: Progress | None = None,
    ) -> "Model":
        """Load a checkpoint; see `opening.load`."""
        view_attention = member_of(ViewAttention, view_attention, "view_attention")
        quantization = member_of(Quantization, quantization, "quantization") or Quantization.NONE
        placement = choose_placement(device, dtype)
        decoding = None
        if compiled is not None or quantization is not Quantization.NONE or placement.device.type != "cpu":
            decoding = choose_decoding(placement, compiled, quantization)
        choice = choose_checkpoint(checkpoint, may_download=download)
        folder = choice.folder
        if choice.reason:
            warnings.warn(f"checkpoint: {choice}", CheckpointWarning, stacklevel=3)
        watch = Stopwatch(placement.device)
        with watch.measure("load_s"):
            network = load_network(folder, placement, parts=RECONSTRUCTION_PARTS, on_progress=on_progress)
            adapt_(network, placement, quantization, native=decoding is Decoding.NATIVE)
        model = cls(
            folder,
            network,
            placement,
            view_attention=view_attention,
            quantization=quantization,
            decoding=decoding,
        )
        model._timings.set_for_all(watch.seconds)
        return model

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds of each step of the last call in this thread; of loading, where there was none yet."""
        return self._timings.get()

    @property
    def decoding(self) -> Decoding:
        """How answers are decoded: found out, which may compile, when the first of them is wanted."""
        with self._parts_lock:
            if self._decoding is None:
                self._decoding = choose_decoding(self.placement, None, self.quantization)
            return self._decoding

    @property
    def config(self) -> G2VLMConfig:
        """Sizes and rules of the network."""
        return self.network.config

    def reconstruct(
        self,
        source: PhotoSource,
        *,
        max_views: int | None = None,
        fit: Fit = Fit.STRETCH,
        frames: FrameChoice = FrameChoice(),
        key_selection: KeySelection | None = None,
        spill: str | Path | None = None,
    ) -> Scene:
        """Reconstruct the scene in photos or a video, with the released reconstruction prompt.

        Args:
            source: a folder, glob pattern, file, video, list of files, or images in memory.
            max_views: at most so many views, spread evenly.
            fit: how photos of other shapes are brought to the first one's.
            frames: which frames of a video are used.
            key_selection: read only some keys of other views: faster with many views, approximate.
            spill: a folder where the scene's pixels and points go, view after view, instead of into memory;
                for hundreds of views. Nothing is left there once the scene is dropped.

        Returns:
            The scene in the network's own frame and unit. Seconds of each step are left in `timings`.

        Raises:
            InputError: nothing usable in `source`.
            OutputError: `spill` cannot be written.
        """
        watch = Stopwatch(self.placement.device)
        allocate = None if spill is None else on_disk(spill)
        photos, images = self._read(source, max_views, self.reduction(fit), frames, watch)
        return self._reconstruct(
            photos, images, watch, Wants(geometry=True, allocate=allocate), key_selection
        )

    @torch.inference_mode()
    def _reconstruct(
        self,
        photos: PhotoSet,
        images: GeometricImages,
        watch: Stopwatch,
        wants: Wants,
        selection: KeySelection | None,
    ) -> Scene:
        with watch.measure("forward_s"):
            prompt = self._prompts.reconstruction(images.pixels, self.view_attention)
            memory = select_keys(prompt.inputs, selection)
            geometry = self.network(prompt.inputs, wants, memory).geometry
        with watch.measure("assemble_s"):
            scene = assemble_scene(geometry, images, photos.photos, allocate=wants.allocate or in_memory)
        self._timings.set(watch.seconds)
        return scene

    def stream(
        self,
        source: FrameSource,
        *,
        window: int | None = None,
        anchors: int = 1,
        fit: Fit = Fit.STRETCH,
        rate_hz: float | None = None,
    ) -> Iterator[View]:
        """Reconstruct a video, folder, camera or live pipe frame by frame: each view comes as it is ready.

        Each view sees the earlier ones, whatever the model's own view attention is; see `stream_views`.

        Args:
            source: a video, a folder, the number of a camera, or any iterable of images.
            window: how many of the latest views a new one sees, in constant memory; all if None.
            anchors: first views that a window never forgets.
            fit: how frames of other shapes are brought to the first one's.
            rate_hz: frames per second taken from a video; every frame if None.

        Raises:
            InputError: nothing usable in `source`, or numbers out of range.
        """
        options = StreamOptions(window, anchors, fit, rate_hz)
        return stream_views(self.network, self._prompts, self.placement, source, options)

    def reconstruct_long(
        self,
        source: FrameSource,
        folder: str | Path,
        options: LongVideoOptions | None = None,
        *,
        fit: Fit = Fit.STRETCH,
        rate_hz: float | None = None,
        on_progress: StitchingProgress = no_progress,
    ) -> LongVideo:
        """Reconstruct a video of any length piece by piece and stitch the pieces, in constant memory.

        Args:
            source: a video, a folder, the number of a camera, or any iterable of images.
            folder: where pieces are kept; the same call continues an interrupted one there.
            options: windows, overlaps and loops.
            fit: how frames of other shapes are brought to the first one's.
            rate_hz: frames per second taken from a video; every frame if None.
            on_progress: told about every step.

        Raises:
            InputError: nothing usable in `source`, or neighbouring pieces that cannot be aligned.
            OutputError: `folder` holds another video or other settings, or cannot be written.
        """
        options = options or LongVideoOptions()
        frames = open_frames(source, rate_hz=rate_hz)
        settings = settings_of(
            source,
            options,
            checkpoint=str(self.folder.resolve()),
            precision=self.placement.precision.value,
            view_attention=self.view_attention.value,
            fit=fit.value,
            rate_hz=rate_hz,
        )
        pieces = PieceFolder(Path(folder), settings)
        prepare = FramePreparer(
            width=self.config.image_width, patch=self.config.geometric_encoder.patch_size, fit=fit
        )
        reconstruct = NetworkReconstructor(self.network, self._prompts, self.view_attention)
        return reconstruct_long_video(frames, reconstruct, prepare, pieces, options, on_progress)

    def perceive(
        self,
        source: PhotoSource,
        *,
        max_views: int | None = None,
        fit: Fit = Fit.STRETCH,
        frames: FrameChoice = FrameChoice(),
        max_memory_bytes: int | None = None,
    ) -> Perception:
        """Perceive photos or a video with the released chat prompt: geometry and memory from one pass.

        Args:
            source: as in `reconstruct`, like `max_views`, `fit` and `frames`.
            max_views: at most so many views.
            fit: how photos of other shapes are brought to the first one's.
            frames: which frames of a video are used.
            max_memory_bytes: refuse, before any work, a memory larger than this; see `memory_plan`.

        Raises:
            InputError: nothing usable in `source`, or the memory would be too large.
        """
        watch = Stopwatch(self.placement.device)
        with watch.measure("load_s"):
            self.load_parts(CHAT_PARTS)
        photos, images = self._read(source, max_views, self.reduction(fit, asking=True), frames, watch)
        height, width = images.pixels.shape[-2:]
        plan = self.memory_plan(len(photos.photos), height, width)
        require_memory(plan, max_memory_bytes)
        return self._perceive(photos, images, plan, watch)

    def memory_plan(self, num_views: int, height: int, width: int) -> CachePlan:
        """Size of the memory of a perception of views of a given size in pixels after resizing."""
        text = (len(self.tokenizer.encode(SYSTEM_PROMPT)), QUESTION_TOKENS)
        dtype = self.placement.precision.dtype
        size = (num_views, height, width)
        return plan_memory(self.config, self._semantic_preparation(), size, text, dtype)

    @torch.inference_mode()
    def _perceive(
        self, photos: PhotoSet, images: GeometricImages, plan: CachePlan, watch: Stopwatch
    ) -> Perception:
        with watch.measure("forward_s"):
            prepared = self._semantic_preparation()
            reader = PhotoReader(self.network, self._prompts, prepared, self.view_attention)
            geometry, memory = reader.perceive(photos, images, plan.num_photo_tokens)
        with watch.measure("assemble_s"):
            scene = assemble_scene(geometry, images, photos.photos)
        self._timings.set(watch.seconds)
        return Perception(self.decoder(), self._prompts, scene, memory, dict(watch.seconds))

    def decoder(self) -> Decoder:
        """What decodes answers, once the parts for that are loaded; kept, because compiling takes a while."""
        with self._parts_lock:
            if self._decoder is None or self._decoder.network is not self.network:
                self._decoder = DECODERS[self.decoding](self.network)
            return self._decoder

    def answer_batch(self, *, max_rows: int | None = None) -> AnswerBatch:
        """A scheduler of answers to `Perception.question` of any perceptions; more than `max_rows` wait."""
        self.load_parts(CHAT_PARTS)
        return AnswerBatch(self.decoder(), self._prompts, max_rows=max_rows)

    def _read(
        self,
        source: PhotoSource,
        max_views: int | None,
        keep: Reduction,
        frames: FrameChoice,
        watch: Stopwatch,
    ) -> tuple[PhotoSet, GeometricImages]:
        with watch.measure("read_s"):
            photos = load_photos(source, max_views=max_views, frames=frames, keep=keep)
            images = prepare_geometric(photos.photos, width=keep.width, patch=keep.patch, fit=keep.fit)
        return photos, images

    def reduction(self, fit: Fit = Fit.STRETCH, *, asking: bool = False) -> Reduction:
        """The sizes of photos that this model needs; see `load_photos`.

        Args:
            fit: how photos of other shapes are brought to the first one's.
            asking: also those for questions.
        """
        return reduction_for(self.config, fit, asking=asking)

    def _semantic_preparation(self) -> SemanticPreparation:
        side = self.config.semantic_encoder.image_side
        return SemanticPreparation.from_file(self.folder / "preprocessor_config.json", side=side)

    def load_parts(self, parts: frozenset[Part]) -> None:
        """Load the parts of the network that are still missing; other threads wait, or use what there is."""
        with self._parts_lock:
            if parts & self.config.parts <= self.network.parts:
                return
            network = extend_network(self.network, self.folder, self.placement, parts)
            native = self._decoding is Decoding.NATIVE
            adapt_(network, self.placement, self.quantization, native=native)
            # Only now may others see it: before, its new parts are not what they will be.
            self.network = network

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a checkpoint folder in the released layout, with all parts and the tokenizer.

        Raises:
            OutputError: the folder cannot be written, or the model is quantized, other than packed.
        """
        if self.quantization not in (Quantization.NONE, Quantization.PACKED):
            raise OutputError(
                "Expected full weights to save, got a quantized model: load it without quantization."
            )
        self.load_parts(self.config.parts)
        network = self.network
        if is_replaced(network):
            network = restore_replaced(network, self.folder, self.placement)
        save_network(network, Path(folder), tokenizer_from=self.folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload a complete checkpoint to the hub and return its address.

        Raises:
            DownloadError: the hub cannot be reached or refuses.
        """
        import tempfile

        from g2vlm.checkpoints.download import push_folder

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(Path(folder), repo_id, private=private)
