"""A frozen tower must have been trained: random features teach nothing, however long one trains on them."""

from g2vlm.errors import InputError
from g2vlm.training.recipes.recipe import FromScratch, Recipe
from g2vlm.training.recipes.stages import Group


def require_trained_towers(recipe: Recipe) -> None:
    """Refuse a recipe that draws the encoders or the semantic expert and then keeps them as they were drawn.

    Raises:
        InputError: a tower that the recipe reads would stay random.
    """
    if not isinstance(recipe.start, FromScratch):
        return
    read = {Group.GEOMETRIC_ENCODER}
    if recipe.stage.has_language:
        read |= {Group.SEMANTIC_ENCODER, Group.SEMANTIC_EXPERT}
    if random := sorted(group.value for group in read - recipe.trained):
        raise InputError(
            f"Expected trained weights for what {recipe.name} freezes ({', '.join(random)}), but it begins "
            "with drawn ones: put public towers together with  g2vlm assemble  and name the folder with "
            "--init_from."
        )
