"""A recipe: everything that decides the outcome of a training run, as one frozen value."""

import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from g2vlm.data.shards.choosing import ViewChoice
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.model.config import G2VLMConfig
from g2vlm.model.initialisation import Initialisation
from g2vlm.model.precision import Precision
from g2vlm.training.guidance.matching import MatchingGuide
from g2vlm.training.guidance.pointing import PointingGuide
from g2vlm.training.losses import GeometryLossWeights
from g2vlm.training.recipes.stages import Group, Stage
from g2vlm.training.sources.augmentation import Augmentation


@dataclass(frozen=True)
class FromScratch:
    """Start from drawn weights."""

    config: G2VLMConfig
    initialisation: Initialisation = field(default_factory=Initialisation)


@dataclass(frozen=True)
class FromCheckpoint:
    """Start from a checkpoint: a folder, a bundled name or a hub id."""

    name: str
    expected: G2VLMConfig | None = None
    """Sizes that the checkpoint will have, for planning before it exists."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a curriculum."""

    steps: int
    """Optimisation steps of this stretch; the last one of a recipe goes on for ever."""
    worlds: tuple[World, ...] = (World.FULL,)
    """Drawn with equal shares, one for each batch."""
    views: tuple[int, ...] = (2, 3, 4)
    """Views of a sample, drawn for each batch."""
    weights: GeometryLossWeights = field(default_factory=GeometryLossWeights)
    """Constants of the geometry loss."""
    stride: int = 1
    """The geometry loss looks at every so many pixels of every so many rows: cheaper at first."""
    num_rooms: int | None = None
    """Distinct rooms of this stretch, where other than those of the whole recipe."""
    widths: tuple[int, ...] | None = None
    """Picture widths of this stretch, where other than those of the whole recipe."""
    aspects: tuple[float, ...] | None = None
    """Heights over widths of this stretch, where other than those of the whole recipe."""
    tokens: int | None = None
    """Budget of image tokens of this stretch, where other than that of the whole recipe."""


@dataclass(frozen=True)
class SyntheticData:
    """Rooms rendered while training."""

    phases: tuple[Phase, ...] = (Phase(1),)
    """The curriculum, in order."""
    widths: tuple[int, ...] = (112,)
    """Picture widths in pixels, drawn for each batch."""
    aspects: tuple[float, ...] = (0.75,)
    """Height over width, drawn for each batch; heights are rounded to whole patches."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes of the pictures."""
    questions_per_sample: int = 6
    """Questions asked about each sample, where the stage asks any."""
    reasoning_share: float = 0.2
    """Share of answers that first state what was measured, then conclude."""
    everyday_share: float = 0.0
    """Share of samples that are also asked how far something is as people ask, and answered in a sentence."""
    free_share: float = 0.0
    """Share of the questions that are asked in free words; see `data.questions.phrasing`."""
    marked_geometry: float = 0.8
    """Share of batches whose markers are drawn on the geometric images too, as happens at inference where
    people hand over one set of photos; in the others they are on the semantic images alone."""
    request_share: float = 0.2
    """In stages with language: share of batches whose prompt also asks to reconstruct the scene, as all of
    the released second stage did."""
    semantic_only_share: float = 0.0
    """In stages with language: share of steps that leave the geometric images out, so that one model shows
    what they are worth."""
    num_rooms: int | None = None
    """Distinct rooms, visited again and again; None draws new ones for ever. With rooms that return, the
    trainer can keep their pictures on disk, which a slow machine needs."""
    rendered_views: int = 4
    """Views rendered of a room that returns; samples pick among them."""
    language_prompts: float = 0.5
    """In the geometry stage: share of batches that open like a chat, so that geometry is as good there."""

    def phase_at(self, step: int) -> Phase:
        """The phase of an optimisation step."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]


@dataclass(frozen=True)
class QuestionFileData:
    """A user's own questions: LLaVA-style JSON lines with images beside them."""

    path: Path
    """One JSON object a line: `{"id": ..., "image": "a.jpg" or [...], "conversations": [...]}`."""
    image_folder: Path | None = None
    """What image paths are relative to; the file's own folder by default."""
    max_views: int = 8
    """Samples with more images are thinned evenly."""
    held_out: float = 0.02
    """Share of the images, with all that is asked about them, that is not learned but validated."""


@dataclass(frozen=True)
class ShardData:
    """Real frames that `g2vlm data prepare` has written."""

    path: str
    """Folder or address of the shards."""
    like: SyntheticData
    """Its phases, sizes, changes of pictures and prompts are those of these frames too."""
    choice: ViewChoice = ViewChoice.COVISIBILITY
    """Which views of a scene make a sample."""
    held_out: float = 0.02
    """Share of the scenes that is not learned but validated."""


@dataclass(frozen=True)
class MixturePart:
    """Data that take part in a mixture."""

    data: SyntheticData | QuestionFileData | ShardData
    share: float
    """Of the steps; shares need not sum to one."""


@dataclass(frozen=True)
class Mixture:
    """Several kinds of data; every step visits one of them."""

    parts: tuple[MixturePart, ...]


Data = SyntheticData | QuestionFileData | ShardData | Mixture


def parts_of(data: Data) -> tuple[MixturePart, ...]:
    """The parts of a mixture; data by themselves are the whole of one."""
    return data.parts if isinstance(data, Mixture) else (MixturePart(data, 1.0),)


@dataclass(frozen=True)
class Batching:
    """What goes into one batch."""

    tokens: int = 8192
    """Budget of image tokens of one micro-batch; it decides the number of samples."""
    accumulate: int = 1
    """Micro-batches of one optimisation step, summed over all processes."""
    global_share: float = 0.5
    """Share of batches in which every view sees every view; in the others view i sees views up to i."""


class OptimizerKind(Enum):
    """What turns gradients into steps."""

    ADAMW = "adamw"
    """Moments of every number, as the released training."""
    MUON = "muon"
    """Orthogonalised momentum for the matrices inside the towers (Muon), AdamW for all other weights: from
    scratch it needs fewer steps, each somewhat slower."""


@dataclass(frozen=True)
class Optimisation:
    """The optimizer and its schedule."""

    steps: int
    """Optimisation steps of the whole run."""
    learning_rate: float
    """Peak."""
    final_fraction: float = 0.05
    """Learning rate at the end, as a share of the peak."""
    warmup: int = 100
    """Steps until the peak."""
    weight_decay: float = 0.05
    """On matrices only."""
    kind: OptimizerKind = OptimizerKind.ADAMW
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights that is validated and exported; None keeps none."""
    language_weight: float = 1.0
    """Factor of the language loss beside the geometry loss."""


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates of the experts' matrices instead of full ones."""

    rank: int = 16
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""


@dataclass(frozen=True)
class Rhythm:
    """How often things happen, in optimisation steps."""

    log_every: int = 10
    validate_every: int = 500
    validation_batches: int = 8
    save_every: int = 500
    keep: int = 2
    """Newest training states that stay on disk."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run."""

    name: str
    stage: Stage
    start: FromScratch | FromCheckpoint
    data: Data
    trained: frozenset[Group]
    """Weights that change; all others are frozen."""
    optimisation: Optimisation
    batching: Batching = field(default_factory=Batching)
    rhythm: Rhythm = field(default_factory=Rhythm)
    lora: LoraSettings | None = None
    precision: Precision = Precision.BFLOAT16
    """Of matrix products (autocast); weights, sums and heads stay float32."""
    weight_precision: Precision = Precision.FLOAT32
    """Of the weights themselves; bfloat16 halves the memory of frozen towers under LoRA."""
    fast_heads: bool = False
    """Let the products of the float32 heads round their factors too: to bfloat16 on a CPU, where they would
    otherwise take a third of a step, to TF32 on a GPU."""
    matching: MatchingGuide | None = None
    """Guides attention between views beside the geometry loss."""
    pointing: PointingGuide | None = None
    """Guides the attention of words beside the language loss, where it is known what they speak of."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimisation.steps < 1 or self.batching.tokens < 1 or self.batching.accumulate < 1:
            raise InputError(
                f"Expected at least one step, token and micro-batch in the recipe {self.name}, got "
                f"{self.optimisation.steps}, {self.batching.tokens}, {self.batching.accumulate}."
            )
        parts = parts_of(self.data)
        if not parts or any(not 0 < part.share < math.inf for part in parts):
            raise InputError(f"Expected data with shares above zero in the recipe {self.name}.")
        is_file = [isinstance(part.data, QuestionFileData) for part in parts]
        if self.stage is Stage.GEOMETRY and any(is_file):
            raise InputError(f"The recipe {self.name} trains geometry, but a question file holds none.")
        if self.lora is None and self.weight_precision is not Precision.FLOAT32:
            raise InputError(
                f"Expected float32 weights in the recipe {self.name}, which trains them, got "
                f"{self.weight_precision.value}: small steps would be rounded away. With lora it is fine."
            )
