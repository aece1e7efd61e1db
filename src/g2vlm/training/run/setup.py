"""From a recipe to a network, a tokenizer and batches."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from g2vlm.checkpoints.hub import resolve_checkpoint
from g2vlm.checkpoints.loading import open_checkpoint
from g2vlm.data.shards.reading import PreparedData
from g2vlm.data.splits import Split
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.inputs.semantic import SemanticPreparation
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.config import G2VLMConfig
from g2vlm.scene.writing import atomic_path
from g2vlm.training.recipes.recipe import (
    FromScratch,
    Mixture,
    Phase,
    QuestionFileData,
    Recipe,
    ShardData,
    SyntheticData,
    parts_of,
)
from g2vlm.training.recipes.stages import Group, Stage
from g2vlm.training.recipes.tiny import tiny_lines, train_tokenizer, write_preparation
from g2vlm.training.run.bars import reading
from g2vlm.training.run.distributed import on_first
from g2vlm.training.run.record import fingerprint, plain
from g2vlm.training.run.states import newest_state
from g2vlm.training.run.towers import require_trained_towers
from g2vlm.training.sources.augmentation import Augmentation
from g2vlm.training.sources.batches import BatchSource
from g2vlm.training.sources.mixture import MixtureSource
from g2vlm.training.sources.question_file import QuestionFileSource, shape_of
from g2vlm.training.sources.question_index import QuestionIndex, build_index, open_index
from g2vlm.training.sources.sequences import SequenceBuilder
from g2vlm.training.sources.shards import ShardSource
from g2vlm.training.sources.synthetic import SyntheticSource

_UNCHANGED = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Start:
    """What a run begins with; weights are read or drawn when the network has its place."""

    config: G2VLMConfig
    folder: Path
    """Holds the tokenizer and the image preparation that belong to the weights, and the weights themselves
    where the recipe starts from a checkpoint."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the weights."""
        return TextTokenizer.from_folder(self.folder)

    @property
    def preparation(self) -> SemanticPreparation:
        """The image preparation of the weights."""
        side = self.config.semantic_encoder.image_side
        return SemanticPreparation.from_file(self.folder / "preprocessor_config.json", side=side)


def prepare_start(recipe: Recipe, run: Path) -> Start:
    """Find or make what a recipe starts from.

    Args:
        recipe: what to start from.
        run: folder of the run; a tokenizer made for it is put there.

    Raises:
        CheckpointError: the checkpoint is missing or does not fit.
        InputError: a frozen tower would be random.
    """
    require_trained_towers(recipe)
    if isinstance(recipe.start, FromScratch):
        config, folder = recipe.start.config, run / "tokenizer"

        def make() -> None:
            # Without a state nothing depends on an older tokenizer, which may be that of another recipe.
            if newest_state(run) is None or not (folder / "tokenizer.json").is_file():
                train_tokenizer(tiny_lines(), folder, config.mixture.vocab_size)
                write_preparation(config, folder)

        on_first(make)
        return Start(config, folder)
    name = recipe.start.name
    folder = Path(on_first(lambda: str(resolve_checkpoint(name))))
    return Start(open_checkpoint(folder)[1], folder)


def training_batches(recipe: Recipe, start: Start, run: Path, store: Path | None = None) -> BatchSource:
    """The batches a recipe trains on.

    Args:
        recipe: says which.
        start: tokenizer, image preparation and sizes.
        run: folder of the run; indexes of question files are put there.
        store: where pictures of rooms that return are kept.
    """
    builder = SequenceBuilder(start.tokenizer, start.config)
    sources: list[BatchSource] = []
    for number, part in enumerate(parts_of(recipe.data)):
        own = dataclasses.replace(recipe, data=part.data)
        if isinstance(part.data, SyntheticData):
            sources.append(SyntheticSource(own, builder, start.preparation, store))
        elif isinstance(part.data, ShardData):
            sources.append(ShardSource(own, builder, PreparedData(part.data.path)))
        else:
            index = question_index(part.data, start.config, run / f"questions-{number}")
            sources.append(QuestionFileSource(own, builder, start.preparation, index))
    if not isinstance(recipe.data, Mixture):
        return sources[0]
    shares = [part.share for part in recipe.data.parts]
    steps, accumulate = recipe.optimisation.steps, recipe.batching.accumulate
    return MixtureSource(sources, shares, accumulate, steps, recipe.seed)


def question_index(data: QuestionFileData, config: G2VLMConfig, folder: Path) -> QuestionIndex:
    """The index of a question file, made by the first process where the folder has none of this very file."""

    def make() -> None:
        kind = {"file": fingerprint(data.path, whole=True), "data": plain(data), "width": config.image_width}
        mark = folder / "made_of.json"
        if not mark.is_file() or json.loads(mark.read_text(encoding="utf-8")) != kind:
            with reading(f"indexing {data.path.name}") as on_bytes:
                build_index(data, folder, lambda one: shape_of(one, data, config), on_bytes)
            with atomic_path(mark) as temporary:
                temporary.write_text(json.dumps(kind), encoding="utf-8")

    on_first(make)
    return open_index(data, folder)


def validation_sources(
    recipe: Recipe, start: Start, run: Path, store: Path | None = None
) -> list[tuple[BatchSource, int]]:
    """Held-out data, whatever the phase of the curriculum, and how many batches of each to judge by.

    Rooms of the full world, photographic ones too where a phase has them, unchanged pictures, the prompt of
    inference. Four views of each; where questions are asked, one and two as well, since each number of views
    has questions of its own. Of a question file, the share that is held out; none where it is too short.
    """
    builder = SequenceBuilder(start.tokenizer, start.config)
    batching = dataclasses.replace(recipe.batching, accumulate=1, global_share=1.0)
    sources: list[tuple[BatchSource, int]] = []
    for number, part in enumerate(parts_of(recipe.data)):
        own = dataclasses.replace(recipe, data=part.data, batching=batching, seed=0)
        count = recipe.rhythm.validation_batches
        if isinstance(part.data, SyntheticData):
            own = dataclasses.replace(own, data=_held_out_rooms(part.data, recipe.stage))
            rooms = SyntheticSource(own, builder, start.preparation, store, Split.VALIDATION)
            sources.append((rooms, count))
        elif isinstance(part.data, ShardData):
            own = dataclasses.replace(own, data=_held_out_frames(part.data))
            frames = ShardSource(own, builder, PreparedData(part.data.path), held_out=True)
            sources.append((frames, count if frames.scenes else 0))
        else:
            index = question_index(part.data, start.config, run / f"questions-{number}")
            held_out = QuestionFileSource(own, builder, start.preparation, index, held_out=True)
            sources.append((held_out, min(count, held_out.batches_per_pass)))
    return sources


def _held_out_rooms(data: SyntheticData, stage: Stage) -> SyntheticData:
    worlds = {world for phase in data.phases for world in phase.worlds}
    photographic = (World.PHOTO,) if World.PHOTO in worlds else ()
    phase = Phase(1, (World.FULL, *photographic), (1, 2, 4) if stage.has_language else (4,))
    return dataclasses.replace(
        data,
        phases=(phase,),
        augmentation=_UNCHANGED,
        language_prompts=0.0,
        semantic_only_share=0.0,
        num_rooms=1000,
    )


def _held_out_frames(data: ShardData) -> ShardData:
    """Unchanged pictures of four views."""
    like = dataclasses.replace(
        data.like, phases=(Phase(1, views=(4,)),), augmentation=_UNCHANGED, language_prompts=0.0
    )
    return dataclasses.replace(data, like=like)


def require_fitting_data(recipe: Recipe, config: G2VLMConfig, processes: int) -> None:
    """Check that picture sizes are whole patches and that micro-batches can be shared out.

    Raises:
        InputError: a width of the recipe is not a multiple of the patch size, or the micro-batches of a step
            cannot be shared out evenly.
    """
    if recipe.batching.accumulate % processes:
        raise InputError(
            f"Expected --accumulate to be a multiple of the {processes} processes, got "
            f"{recipe.batching.accumulate}: every process takes its share of each step's micro-batches."
        )
    is_file = [isinstance(part.data, QuestionFileData) for part in parts_of(recipe.data)]
    if recipe.stage.has_geometry and all(is_file):
        raise InputError(
            f"The recipe {recipe.name} trains geometry and answers, but a question file holds no geometry: "
            "let rooms take part (--rooms_share above 0), or take sr-2b, which learns answers alone."
        )
    patch = config.geometric_encoder.patch_size
    for part in parts_of(recipe.data):
        if not isinstance(part.data, SyntheticData):
            continue
        stretches = [phase.widths or () for phase in part.data.phases]
        wrong = [width for widths in (part.data.widths, *stretches) for width in widths if width % patch]
        if wrong:
            raise InputError(f"Expected picture widths in multiples of the patch size {patch}, got {wrong}.")
    _require_learned_towers(recipe)


def _require_learned_towers(recipe: Recipe) -> None:
    """Drawn weights that stay as they were drawn teach nothing to those that learn."""
    if not isinstance(recipe.start, FromScratch):
        return
    used = set(Group) if recipe.stage.has_language else set(Group) - {Group.SEMANTIC_ENCODER}
    if not recipe.stage.has_geometry:
        used -= {Group.GEOMETRY_HEADS}
    frozen = sorted(group.value for group in used - recipe.trained)
    if frozen:
        raise InputError(
            f"Expected pre-trained weights for the recipe {recipe.name}, which leaves {', '.join(frozen)} as "
            "they are: give it a checkpoint that has them with --init_from, such as  g2vlm assemble  makes."
        )
