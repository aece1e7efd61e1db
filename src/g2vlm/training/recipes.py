"""The recipes, by name."""

from collections.abc import Callable

from g2vlm.errors import InputError
from g2vlm.training.losses import GeometryLossWeights
from g2vlm.training.recipe import (
    Batching,
    FromScratch,
    Optimisation,
    Phase,
    Recipe,
    Rhythm,
    SyntheticData,
    World,
)
from g2vlm.training.stages import Stage, from_scratch_groups
from g2vlm.training.tiny import g2vlm_tiny


def tiny_geometry() -> Recipe:
    """The small model from scratch: pairs of views in easy rooms, then two to four views in all rooms."""
    data = SyntheticData(
        phases=(
            Phase(500, (World.EASY,), (2,), GeometryLossWeights(), stride=3),
            Phase(1000, (World.EASY, World.FULL), (2,), GeometryLossWeights(), stride=3),
            Phase(1, (World.FULL,), (2, 4), GeometryLossWeights(), stride=3),
        ),
        num_rooms=5000,
    )
    return Recipe(
        name="tiny-geometry",
        stage=Stage.GEOMETRY,
        start=FromScratch(g2vlm_tiny()),
        data=data,
        trained=from_scratch_groups(Stage.GEOMETRY),
        optimisation=Optimisation(steps=3000, learning_rate=1.5e-3, warmup=100, ema_decay=0.998),
        batching=Batching(tokens=2304),
        rhythm=Rhythm(log_every=10, validate_every=250, validation_batches=4, save_every=100),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny-geometry": tiny_geometry,
}


def recipe_named(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in RECIPES:
        raise InputError(f"Expected a recipe ({', '.join(RECIPES)}), got {name!r}.")
    return RECIPES[name]()
