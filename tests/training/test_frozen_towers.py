"""Random towers are not frozen."""

import dataclasses

import pytest

from g2vlm.errors import InputError
from g2vlm.training.recipes.catalogue import RECIPES
from g2vlm.training.recipes.recipe import FromCheckpoint
from g2vlm.training.run.towers import require_trained_towers


@pytest.mark.parametrize("name", ["released-stage1", "paper-stage1"])
def test_stage_one_asks_for_trained_towers(name: str) -> None:
    recipe = RECIPES[name]()
    with pytest.raises(InputError, match=rf"{name} freezes .geometric_encoder.*g2vlm assemble.*--init_from"):
        require_trained_towers(recipe)
    require_trained_towers(dataclasses.replace(recipe, start=FromCheckpoint("start")))


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("tiny")])
def test_what_trains_its_towers_may_draw_them(name: str) -> None:
    require_trained_towers(RECIPES[name]())
