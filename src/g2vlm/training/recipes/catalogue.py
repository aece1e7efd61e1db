"""The recipes, by name.

`released_*` and `paper_*` keep the constants of the public training code and of the paper; `tiny_*` make the
model that ships with the package; the others fine-tune the released model.
"""

import dataclasses
from collections.abc import Callable

from g2vlm.checkpoints.hub import DEFAULT_REPO
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.model.config import g2vlm_2b
from g2vlm.model.initialisation import BridgeStart, Initialisation
from g2vlm.model.precision import Precision
from g2vlm.training.guidance.matching import MatchingGuide
from g2vlm.training.guidance.pointing import PointingGuide
from g2vlm.training.losses import GeometryLossWeights
from g2vlm.training.recipes.recipe import (
    Batching,
    FromCheckpoint,
    FromScratch,
    LoraSettings,
    Optimisation,
    OptimizerKind,
    Phase,
    Recipe,
    Rhythm,
    SyntheticData,
)
from g2vlm.training.recipes.stages import Stage, from_scratch_groups, released_groups
from g2vlm.training.recipes.tiny import g2vlm_small, g2vlm_tiny

RELEASED_ASPECTS = (0.5, 0.66, 0.75, 1.0, 1.33)
"""Heights over widths, from wide to portrait."""
PHOTO_ASPECTS = (0.67, 0.75, 1.0, 1.33)
"""Heights over widths of photographs, landscape and portrait."""
MANY_VIEWS = (2, 3, 4, 6, 8, 12, 16, 24)
"""Numbers of views between the 2 and 24 of the released training."""


def tiny_geometry() -> Recipe:
    """The small model from scratch: pairs of views of easy rooms and of all rooms, then up to four views.

    Batches are small: the first thing to learn, that pictures matter, takes steps rather than samples. Guided
    attention brings cameras within reach of the first thousand steps, which pictures alone do not.
    """
    weights = GeometryLossWeights(normal=0.0)
    data = SyntheticData(
        phases=(
            Phase(1000, (World.EASY, World.FULL), (2,), weights, stride=3, num_rooms=4_000),
            Phase(1, (World.FULL,), (2, 4, 4), weights, stride=3),
        ),
        num_rooms=24_000,
    )
    return Recipe(
        name="tiny-geometry",
        stage=Stage.GEOMETRY,
        start=FromScratch(g2vlm_tiny()),
        data=data,
        trained=from_scratch_groups(Stage.GEOMETRY),
        optimisation=Optimisation(steps=7000, learning_rate=2e-3, kind=OptimizerKind.MUON, ema_decay=0.998),
        batching=Batching(tokens=1536, global_share=0.75),
        rhythm=Rhythm(log_every=20, validate_every=500, validation_batches=16, save_every=250),
        matching=MatchingGuide(),
        fast_heads=True,
    )


def photo_geometry() -> Recipe:
    """The small model for photographs, from scratch: small pictures of simple rooms first, then larger ones.

    The first thousand steps are those of `tiny-geometry`, where cameras are learned. Then places look like
    photographs, taken by cameras with faults; pictures grow to 224 pixels and take any shape, and views to 8.
    """
    weights = GeometryLossWeights(normal=0.0)
    photo = (World.PHOTO, World.PHOTO, World.PHOTO, World.FULL)
    data = SyntheticData(
        phases=(
            Phase(1_500, (World.EASY, World.FULL), (2,), weights, 3, 4_000, (112,), (0.75,)),
            Phase(6_000, photo, (2, 2, 4), weights, 3, 8_000, (112,), (0.75,)),
            Phase(6_500, photo, (2, 3, 4), weights, 3, None, (168,), PHOTO_ASPECTS),
            Phase(1, photo, (1, 2, 3, 4, 4, 8), weights, 4, None, (168, 224), PHOTO_ASPECTS),
        ),
        widths=(224,),
        aspects=(0.75,),
    )
    return Recipe(
        name="photo-geometry",
        stage=Stage.GEOMETRY,
        start=FromScratch(g2vlm_small()),
        data=data,
        trained=from_scratch_groups(Stage.GEOMETRY),
        optimisation=Optimisation(steps=24_000, learning_rate=2e-3, kind=OptimizerKind.MUON, ema_decay=0.998),
        batching=Batching(tokens=1536, global_share=0.75),
        rhythm=Rhythm(log_every=20, validate_every=500, validation_batches=12, save_every=250),
        matching=MatchingGuide(),
        fast_heads=True,
    )


def photo_language() -> Recipe:
    """Questions for the small model for photographs, the geometry loss kept beside the answers (VG+CE).

    Most questions are in free words and most answers state what was measured without being asked to, so
    that neither a sentence nor a trigger must be known.
    """
    weights = GeometryLossWeights(normal=0.0)
    worlds = (World.PHOTO, World.PHOTO, World.FULL)
    data = SyntheticData(
        phases=(
            Phase(3_000, worlds, (1, 2), weights, 4, None, (168,), PHOTO_ASPECTS),
            Phase(1, worlds, (1, 1, 2, 4), weights, 4, None, (168, 224), PHOTO_ASPECTS),
        ),
        widths=(224,),
        aspects=(0.75,),
        reasoning_share=0.7,
        everyday_share=0.8,
        free_share=0.6,
        semantic_only_share=0.08,
        marked_geometry=0.95,
    )
    return Recipe(
        name="photo-language",
        stage=Stage.GEOMETRY_AND_LANGUAGE,
        start=FromCheckpoint("runs/photo-geometry/model", g2vlm_small()),
        data=data,
        trained=from_scratch_groups(Stage.GEOMETRY_AND_LANGUAGE),
        optimisation=Optimisation(
            steps=9_000, learning_rate=1.5e-3, warmup=50, kind=OptimizerKind.MUON, ema_decay=0.997
        ),
        batching=Batching(tokens=1536, global_share=0.85),
        rhythm=Rhythm(log_every=20, validate_every=500, validation_batches=8, save_every=250),
        matching=MatchingGuide(),
        pointing=PointingGuide(),
        fast_heads=True,
    )


def tiny_joint() -> Recipe:
    """Questions for the small model: the semantic expert and its encoder learn, geometry stays as it is."""
    phase = Phase(1, (World.FULL,), (1, 2, 4))
    # Answers that say what was measured teach numbers, several tokens of them, not just a letter.
    data = SyntheticData(
        phases=(phase,),
        num_rooms=24_000,
        questions_per_sample=6,
        reasoning_share=0.7,
        everyday_share=0.3,
    )
    return Recipe(
        name="tiny-joint",
        stage=Stage.JOINT,
        start=FromCheckpoint("runs/tiny-geometry/model", g2vlm_tiny()),
        data=data,
        trained=from_scratch_groups(Stage.JOINT),
        optimisation=Optimisation(
            steps=4000, learning_rate=1e-3, warmup=50, kind=OptimizerKind.MUON, ema_decay=0.995
        ),
        batching=Batching(tokens=768, global_share=1.0),
        rhythm=Rhythm(log_every=20, validate_every=250, validation_batches=8, save_every=100),
        pointing=PointingGuide(),
    )


def tiny_sr() -> Recipe:
    """Like `tiny-joint`, with the geometric expert and encoder trained by the answers too (SR)."""
    return dataclasses.replace(
        tiny_joint(),
        name="tiny-sr",
        stage=Stage.SPATIAL_REASONING,
        trained=from_scratch_groups(Stage.SPATIAL_REASONING),
    )


def tiny_geometry_and_language() -> Recipe:
    """Like `tiny-joint`, with everything trained and the geometry loss kept beside the answers (VG+CE)."""
    base = tiny_joint()
    assert isinstance(base.data, SyntheticData)
    phase = Phase(1, (World.FULL,), (1, 2, 4), GeometryLossWeights(normal=0.0), stride=3)
    return dataclasses.replace(
        base,
        name="tiny-vg-ce",
        stage=Stage.GEOMETRY_AND_LANGUAGE,
        trained=from_scratch_groups(Stage.GEOMETRY_AND_LANGUAGE),
        data=dataclasses.replace(base.data, phases=(phase,), semantic_only_share=0.12, marked_geometry=0.95),
        optimisation=dataclasses.replace(base.optimisation, steps=3400, learning_rate=1.5e-3),
        batching=Batching(tokens=1280, global_share=0.85),
        matching=MatchingGuide(),
        fast_heads=True,
    )


def _stage_one(name: str, weights: GeometryLossWeights) -> Recipe:
    """Stage 1 at its two sizes: 100 k steps at 224 px, here the first part."""
    phase = Phase(1, (World.FULL,), MANY_VIEWS, weights)
    return Recipe(
        name=name,
        stage=Stage.GEOMETRY,
        start=FromScratch(
            g2vlm_2b(), Initialisation(fan_in=False, bridge=BridgeStart.ZERO, geometric_scale=0.01)
        ),
        data=SyntheticData(phases=(phase,), widths=(224,), aspects=RELEASED_ASPECTS, language_prompts=0.0),
        trained=released_groups(Stage.GEOMETRY),
        optimisation=Optimisation(steps=100_000, learning_rate=2e-4, warmup=2_000, final_fraction=0.1),
        # The training mask of the release: no view sees later ones.
        batching=Batching(tokens=24_576, accumulate=8, global_share=0.0),
        rhythm=Rhythm(validate_every=2_000, save_every=1_000),
        checkpointing=True,
    )


def released_stage1() -> Recipe:
    """Stage 1 with the constants of the public code, 224 px.

    The released training begins with pre-trained towers; give them with `--init_from`.
    """
    return _stage_one("released-stage1", GeometryLossWeights.released())


def paper_stage1() -> Recipe:
    """Stage 1 with the constants of the paper, 224 px: translations count twice as much."""
    return _stage_one("paper-stage1", GeometryLossWeights.paper())


def released_stage1_large() -> Recipe:
    """The second part of stage 1: 518 px, 20 k steps at 5e-4."""
    base = _stage_one("released-stage1-518", GeometryLossWeights.released())
    assert isinstance(base.data, SyntheticData)
    return dataclasses.replace(
        base,
        start=FromCheckpoint("runs/released-stage1/model", g2vlm_2b()),
        data=dataclasses.replace(base.data, widths=(518,)),
        optimisation=dataclasses.replace(base.optimisation, steps=20_000, learning_rate=5e-4, warmup=500),
    )


def _tuning(name: str, stage: Stage) -> Recipe:
    """Stage 2 of the released model with its constants: 16 k steps at 2e-5."""
    return Recipe(
        name=name,
        stage=stage,
        start=FromCheckpoint(DEFAULT_REPO, g2vlm_2b()),
        data=SyntheticData(
            phases=(Phase(1, (World.FULL,), (1, 2, 4, 8)),),
            widths=(518,),
            aspects=RELEASED_ASPECTS,
            request_share=1.0,
        ),
        trained=released_groups(stage),
        optimisation=Optimisation(steps=16_000, learning_rate=2e-5, warmup=500, final_fraction=0.1),
        batching=Batching(tokens=16_384, accumulate=8, global_share=0.5),
        rhythm=Rhythm(validate_every=1_000, save_every=500),
        checkpointing=True,
    )


def joint_2b() -> Recipe:
    """Stage 2 of the released model by answers alone, the geometric expert frozen: G2VLM."""
    return _tuning("joint-2b", Stage.JOINT)


def sr_2b() -> Recipe:
    """Stage 2 of the released model by answers alone, both experts trained: G2VLM-SR."""
    return _tuning("sr-2b", Stage.SPATIAL_REASONING)


def geometry_and_language_2b() -> Recipe:
    """Stage 2 of the released model by geometry and answers together (VG+CE)."""
    return _tuning("vg-ce-2b", Stage.GEOMETRY_AND_LANGUAGE)


def lora_2b() -> Recipe:
    """G2VLM-SR by low-rank updates of both experts: fits one GPU of 24 GB."""
    base = sr_2b()
    return dataclasses.replace(
        base,
        name="lora-2b",
        lora=LoraSettings(),
        weight_precision=Precision.BFLOAT16,
        optimisation=dataclasses.replace(base.optimisation, steps=4_000, learning_rate=2e-4, warmup=100),
        batching=dataclasses.replace(base.batching, tokens=4_096),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny-geometry": tiny_geometry,
    "photo-geometry": photo_geometry,
    "photo-language": photo_language,
    "tiny-joint": tiny_joint,
    "tiny-sr": tiny_sr,
    "tiny-vg-ce": tiny_geometry_and_language,
    "released-stage1": released_stage1,
    "released-stage1-518": released_stage1_large,
    "paper-stage1": paper_stage1,
    "joint-2b": joint_2b,
    "sr-2b": sr_2b,
    "vg-ce-2b": geometry_and_language_2b,
    "lora-2b": lora_2b,
}
"""Every recipe by the name that the command line takes."""


def recipe_named(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in RECIPES:
        raise InputError(f"Expected a recipe ({', '.join(RECIPES)}), got {name!r}.")
    return RECIPES[name]()
