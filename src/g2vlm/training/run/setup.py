"""From a recipe to a network, a tokenizer and batches."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from g2vlm.checkpoints.hub import resolve_checkpoint
from g2vlm.checkpoints.loading import load_network
from g2vlm.data.splits import Split
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.inputs.semantic import SemanticPreparation
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.initialisation import initialise_
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import Placement, cast_
from g2vlm.training.recipes.recipe import FromCheckpoint, FromScratch, Phase, Recipe, SyntheticData
from g2vlm.training.recipes.tiny import tiny_lines, train_tokenizer, write_preparation
from g2vlm.training.run.distributed import one_process_first
from g2vlm.training.run.states import newest_state
from g2vlm.training.run.towers import require_trained_towers
from g2vlm.training.sources.augmentation import Augmentation
from g2vlm.training.sources.batches import BatchSource
from g2vlm.training.sources.sequences import SequenceBuilder
from g2vlm.training.sources.synthetic import SyntheticSource

_UNCHANGED = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Start:
    """What a run begins with."""

    network: G2VLM
    """On the CPU (or the device of the placement), float32 unless the recipe says otherwise."""
    tokenizer_folder: Path
    """Holds the tokenizer and the image preparation that belong to the weights."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the weights."""
        return TextTokenizer.from_folder(self.tokenizer_folder)

    @property
    def preparation(self) -> SemanticPreparation:
        """The image preparation of the weights."""
        side = self.network.config.semantic_encoder.image_side
        return SemanticPreparation.from_file(self.tokenizer_folder / "preprocessor_config.json", side=side)


def prepare_start(recipe: Recipe, run: Path) -> Start:
    """Draw or load the weights that a recipe starts from.

    Args:
        recipe: what to start from.
        run: folder of the run; a tokenizer made for it is put there.

    Raises:
        CheckpointError: the checkpoint is missing or does not fit.
        InputError: a frozen tower would be random.
    """
    require_trained_towers(recipe)
    if isinstance(recipe.start, FromScratch):
        config = recipe.start.config
        folder = run / "tokenizer"
        with one_process_first() as is_first:
            # Without a state nothing depends on an older tokenizer, which may be that of another recipe.
            if is_first and (newest_state(run) is None or not (folder / "tokenizer.json").is_file()):
                train_tokenizer(tiny_lines(), folder, config.mixture.vocab_size)
                write_preparation(config, folder)
        network = initialise_(G2VLM(config), recipe.start.initialisation)
        cast_(network, recipe.weight_precision)
        return Start(network, folder)
    assert isinstance(recipe.start, FromCheckpoint)
    folder = resolve_checkpoint(recipe.start.name)
    placement = Placement(torch.device("cpu"), recipe.weight_precision)
    return Start(load_network(folder, placement), folder)


def training_batches(recipe: Recipe, start: Start, store: Path | None) -> BatchSource:
    """The batches a recipe trains on."""
    builder = SequenceBuilder(start.tokenizer, start.network.config)
    if isinstance(recipe.data, SyntheticData):
        return SyntheticSource(recipe, builder, start.preparation, store)
    from g2vlm.training.sources.question_file import QuestionFileSource

    return QuestionFileSource(recipe, builder, start.preparation)


def validation_batches(recipe: Recipe, start: Start, store: Path | None) -> BatchSource | None:
    """Batches of held-out rooms, whatever the phase of the curriculum; None for a user's own file.

    Rooms of the full world, photographic ones too where a phase has them, unchanged pictures, the prompt of
    inference. Four views of each; where questions
    are asked, one and two as well, since each number of views has questions of its own.
    """
    if not isinstance(recipe.data, SyntheticData):
        return None
    worlds = {world for phase in recipe.data.phases for world in phase.worlds}
    photographic = (World.PHOTO,) if World.PHOTO in worlds else ()
    phase = Phase(1, (World.FULL, *photographic), (1, 2, 4) if recipe.stage.has_language else (4,))
    data = dataclasses.replace(
        recipe.data,
        phases=(phase,),
        augmentation=_UNCHANGED,
        language_prompts=0.0,
        semantic_only_share=0.0,
        num_rooms=1000,
    )
    batching = dataclasses.replace(recipe.batching, accumulate=1, global_share=1.0)
    held_out = dataclasses.replace(recipe, data=data, batching=batching, seed=0)
    builder = SequenceBuilder(start.tokenizer, start.network.config)
    return SyntheticSource(held_out, builder, start.preparation, store, Split.VALIDATION)


def require_fitting_data(recipe: Recipe, network: G2VLM, processes: int) -> None:
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
    if not isinstance(recipe.data, SyntheticData):
        return
    patch = network.config.geometric_encoder.patch_size
    stretches = [phase.widths or () for phase in recipe.data.phases]
    wrong = [width for widths in (recipe.data.widths, *stretches) for width in widths if width % patch]
    if wrong:
        raise InputError(f"Expected picture widths in multiples of the patch size {patch}, got {wrong}.")
