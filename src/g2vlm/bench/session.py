"""What every part of a run shares: the plan, a checkpoint of random weights, the loaded model."""

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from g2vlm.bench.presets import Preset, Sizes, sizes_of, synthetic_photos
from g2vlm.bench.results import Section
from g2vlm.bench.work import Pass
from g2vlm.checkpoints.hub import BUNDLED_NAME
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import DeviceError, InputError
from g2vlm.inference.decoding import Decoding, choose_decoding
from g2vlm.inference.prompts import Prompt, PromptBuilder
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import SemanticImages
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.network import G2VLM, Wants
from g2vlm.model.precision import Placement, choose_placement
from g2vlm.model.quantization import Quantization, quantize_language_
from g2vlm.opening import load
from g2vlm.pipeline import Model

WEIGHTS = "model.safetensors"
LANGUAGE_PARTS = ("mixture", "language_head")


@dataclass(frozen=True)
class Plan:
    """What to measure, and how."""

    preset: Preset = Preset.FEW_LAYER_2B
    """Size of the network."""
    sections: frozenset[Section] = frozenset(Section)
    """Parts of the run."""
    views: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of photos to reconstruct."""
    memory_views: tuple[int, ...] = (4, 8, 16, 32)
    """Numbers of photos between which the growth of memory is fitted."""
    question_views: tuple[int, ...] = (8,)
    """Numbers of photos to ask about."""
    trained: str = BUNDLED_NAME
    """Checkpoint whose answers are compared between full and smaller language sides."""
    device: str = "auto"
    dtype: str = "auto"
    repeats: int = 5
    """Rounds that count, of which the median is taken."""
    budget_s: float = 120.0
    """Seconds after which a figure starts no further round; one always counts."""
    checkpoint: Path | None = None
    """Folder for the random checkpoint, kept and used again; a temporary one by default."""

    def __post_init__(self) -> None:
        for name in ("views", "memory_views", "question_views"):
            counts = getattr(self, name)
            if not counts or min(counts) < 1:
                raise InputError(f"Expected numbers of photos of 1 or more for {name}, got {counts}.")
        if self.repeats < 1:
            raise InputError(f"Expected repeats of 1 or more, got {self.repeats}.")


@dataclass(frozen=True)
class Session:
    """One run on one checkpoint."""

    plan: Plan
    folder: Path
    """The random checkpoint."""
    say: Callable[[str], None]
    """Tells the user what is going on."""
    sizes: Sizes = field(init=False)
    placement: Placement = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", sizes_of(self.plan.preset))
        object.__setattr__(self, "placement", choose_placement(self.plan.device, self.plan.dtype))

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.placement.device

    @cached_property
    def model(self) -> Model:
        """The loaded model, as a user would load it."""
        return load(self.folder, device=str(self.device), dtype=self.placement.precision.value)

    def forget_model(self) -> None:
        """Free the loaded model, to make room for another one; `model` loads it again."""
        self.__dict__.pop("model", None)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def quantized_models(self) -> dict[Quantization, Model]:
        """The same model with a smaller language side; all other weights are shared with `model`."""
        self.model.perceive(self.photos(1))  # loads what is still missing
        return {kind: with_smaller_language(self.model, kind) for kind in self.quantizations}

    @property
    def quantizations(self) -> list[Quantization]:
        """The smaller language sides that this machine can have."""
        return [kind for kind in Quantization if kind is not Quantization.NONE and self._can_have(kind)]

    def _can_have(self, kind: Quantization) -> bool:
        try:
            choose_decoding(self.placement, None, kind)
        except DeviceError:
            return False
        return True

    @cached_property
    def prompts(self) -> PromptBuilder:
        """Builds the same prompts as the model, to know their layouts."""
        return PromptBuilder(self.model.tokenizer, self.sizes.config, torch.device("cpu"))

    def photos(self, count: int) -> list[Image.Image]:
        """Photos of the preset's size."""
        return synthetic_photos(count, self.sizes.photo_size)

    def reconstruction_pass(self, views: int) -> Pass:
        """What a reconstruction of so many photos reads."""
        images = self.images(views)
        inputs = self.prompts.reconstruction(images, self.model.view_attention).inputs
        return Pass(inputs.layout, views, self.patches(images), geometry=True)

    def perception_pass(self, views: int, *, geometry: bool) -> Pass:
        """What reading so many photos for questions reads."""
        images, semantic = self.images(views), self._semantic(views)
        inputs = self.prompts.chat_beginning(images, semantic, self.model.view_attention).inputs
        return Pass(
            inputs.layout,
            views,
            self.patches(images),
            semantic_patches=semantic.rows * semantic.cols,
            geometry=geometry,
        )

    def perception_prompt(self, views: int) -> Prompt:
        """The prompt of the network for reading photos, on its device."""
        prompts = PromptBuilder(self.model.tokenizer, self.sizes.config, self.device)
        images, semantic = self.images(views), self._semantic(views)
        return prompts.chat_beginning(images, semantic, self.model.view_attention)

    def question_pass(self, question: str, past: int) -> Pass:
        """What a question after `past` tokens reads."""
        inputs = self.prompts.text(self.prompts.question_ids(question), past).inputs
        return Pass(inputs.layout, past=past, logit_slots=1)

    def images(self, views: int) -> torch.Tensor:
        """Photos as the geometric encoder takes them."""
        photos = load_photos(self.photos(views)).photos
        config = self.sizes.config
        patch = config.geometric_encoder.patch_size
        return prepare_geometric(photos, width=config.image_width, patch=patch).pixels

    def patches(self, images: torch.Tensor) -> int:
        """Patches of each of such images."""
        return images.shape[-1] * images.shape[-2] // self.sizes.config.geometric_encoder.patch_size**2

    def _semantic(self, views: int) -> SemanticImages:
        """Patches of a plain grey: speed does not depend on them."""
        config = self.sizes.config.semantic_encoder
        cell = config.patch_size * config.merge_size
        side = round(config.image_side / cell) * config.merge_size
        return SemanticImages(torch.zeros(views, side * side, config.patch_features), side, side)


def with_smaller_language(model: Model, kind: Quantization) -> Model:
    """The same model with a smaller language side; all other weights are shared."""
    own = model.network
    shared: dict[int, object] = {id(parameter): parameter for parameter in own.parameters()}
    # Only what is replaced needs modules of its own.
    shared |= {id(part): part for name, part in own.named_children() if name not in LANGUAGE_PARTS}
    network = copy.deepcopy(own, shared)
    quantize_language_(network, kind, native=model.decoding is Decoding.NATIVE)
    return Model(model.folder, network, model.placement, quantization=kind, decoding=model.decoding)


@torch.inference_mode()
def read_photos(session: Session, network: G2VLM, prompt: Prompt, *, growing: bool = False) -> KeyValueCache:
    """Read photos for questions as the public code does: both encoders and the mixture, no geometry."""
    cache = KeyValueCache(
        CacheShape.of(session.sizes.config.mixture),
        prompt.inputs.layout.num_tokens,
        dtype=session.placement.precision.dtype,
        device=session.device,
        growing=growing,
    )
    network(prompt.inputs, Wants(), cache)
    return cache


@contextmanager
def open_session(plan: Plan, say: Callable[[str], None]) -> Iterator[Session]:
    """Write the random checkpoint (or find it where the plan keeps it) and open a session on it."""
    if plan.checkpoint is not None:
        yield Session(plan, _written(plan.checkpoint, plan.preset, say), say)
        return
    with TemporaryDirectory(prefix="g2vlm-bench-") as folder:
        yield Session(plan, _written(Path(folder), plan.preset, say), say)


def _written(folder: Path, preset: Preset, say: Callable[[str], None]) -> Path:
    """The checkpoint has float32 weights, like the released one, so that loading is measured honestly."""
    mark = folder / "preset"
    if mark.is_file() and mark.read_text() == preset.value and (folder / WEIGHTS).is_file():
        return folder
    if (folder / WEIGHTS).exists():
        raise InputError(
            f"Expected the random checkpoint of {preset.value}, or no checkpoint, in {folder}: "
            "name another folder for it."
        )
    say(f"writing random weights of {preset.value}")
    random_checkpoint(folder, sizes_of(preset).config)
    mark.write_text(preset.value)
    return folder
