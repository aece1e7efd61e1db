import dataclasses

import pytest
from small_runs import small_config, small_recipe

from g2vlm.errors import InputError
from g2vlm.model.network import G2VLM
from g2vlm.training.recipes.catalogue import RECIPES, recipe_named
from g2vlm.training.recipes.recipe import FromScratch, LoraSettings
from g2vlm.training.recipes.stages import Stage, freeze_
from g2vlm.training.run.memory import plan_memory


def test_plan_counts_weights_and_moments(training_checkpoint):
    recipe = small_recipe(training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE)
    plan = plan_memory(recipe)
    network = G2VLM(small_config())
    trained = sum(weight.numel() for _, weight in freeze_(network, recipe.trained))
    assert plan.num_trained == trained
    assert plan.weights == 4 * sum(weight.numel() for weight in network.parameters())
    assert plan.optimizer == 2 * plan.gradients == 8 * trained
    assert plan.activations > 0
    assert plan_memory(recipe, processes=2).optimizer == plan.optimizer // 2


def test_recomputing_keeps_less(training_checkpoint):
    recipe = small_recipe(training_checkpoint)
    less = plan_memory(dataclasses.replace(recipe, checkpointing=True))
    assert less.activations < plan_memory(recipe).activations


def test_low_rank_needs_a_fraction(training_checkpoint):
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING)
    low = plan_memory(dataclasses.replace(recipe, lora=LoraSettings(rank=2)))
    assert 0 < low.optimizer < plan_memory(recipe).optimizer / 4


def test_full_size_fits_the_announced_gpu():
    plan = plan_memory(recipe_named("lora-2b"))
    assert plan.num_parameters > 4.5e9
    assert plan.total < 24e9


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_carry_their_names(name):
    recipe = recipe_named(name)
    assert recipe.name == name
    assert isinstance(recipe.start, FromScratch) or recipe.start.expected is not None


def test_unknown_recipe_lists_the_known():
    with pytest.raises(InputError, match="tiny-geometry"):
        recipe_named("huge")
