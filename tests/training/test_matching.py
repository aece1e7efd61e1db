import dataclasses
import math

import pytest
import torch
from small_runs import small_recipe, small_trainer

from g2vlm.errors import InputError
from g2vlm.geometry.cameras import unproject
from g2vlm.geometry.poses import transform_points
from g2vlm.training.guidance.matching import Matches, MatchingGuide, matching_loss, patch_matches
from g2vlm.training.losses import GeometryTarget
from g2vlm.training.recipes.recipe import Optimisation

PATCH, ROWS, COLUMNS, FOCAL = 14, 3, 4, 56.0


def wall(poses: torch.Tensor, distance: float = 2.0) -> GeometryTarget:
    """Views of the endless wall z = distance by cameras that face it."""
    views, height, width = len(poses), ROWS * PATCH, COLUMNS * PATCH
    K = torch.tensor([[FOCAL, 0, (width - 1) / 2], [0, FOCAL, (height - 1) / 2], [0, 0, 1.0]])
    depth = (distance - poses[:, 2, 3])[:, None, None].abs().expand(views, height, width)
    points = transform_points(poses, unproject(depth, K.expand(views, 3, 3)))
    valid = torch.ones(1, views, height, width, dtype=torch.bool)
    return GeometryTarget(points[None], valid, poses[None])


def moved(x: float) -> torch.Tensor:
    pose = torch.eye(4)
    pose[0, 3] = x
    return pose


ONE_PATCH = PATCH * 2.0 / FOCAL
"""Metres along the wall that one patch shows."""


def test_a_camera_one_patch_to_the_right_sees_everything_one_patch_to_the_left():
    matches = patch_matches(wall(torch.stack([moved(0.0), moved(ONE_PATCH)])), PATCH)
    grid = torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS)
    found, patch = (tensor[0].unflatten(1, (ROWS, COLUMNS)) for tensor in (matches.found, matches.patch))
    assert not found[0, ..., 0].any()
    assert not found[1, ..., 1].any()
    assert torch.equal(found[0, ..., 1], (grid % COLUMNS) > 0)
    assert torch.equal(patch[0, :, 1:, 1], grid[:, :-1])
    assert torch.equal(found[1, ..., 0], (grid % COLUMNS) < COLUMNS - 1)
    assert torch.equal(patch[1, :, :-1, 0], grid[:, 1:])


def test_hidden_and_unknown_places_have_no_match():
    target = wall(torch.stack([moved(0.0), moved(0.0)]))
    # Something stands before the left half of the second view, and the top of the first is unknown.
    target.points_world[0, 1, :, : 2 * PATCH, 2] = 1.0
    target.points_world[0, 0, :PATCH] = torch.nan
    found = patch_matches(target, PATCH).found[0].unflatten(1, (ROWS, COLUMNS))
    assert not found[0, :, :2, 1].any()
    assert not found[0, 0, :, 1].any()
    assert found[0, 1:, 2:, 1].all()
    assert not found[1, :, :2, 0].any()
    assert not found[1, 0, :, 0].any()


def some_matches() -> Matches:
    return patch_matches(wall(torch.stack([moved(0.0), moved(ONE_PATCH), moved(-ONE_PATCH)])), PATCH)


def test_loss_of_ignorant_and_of_perfect_attention():
    matches, patches = some_matches(), ROWS * COLUMNS
    nothing = torch.zeros(1, 3 * patches, 8)
    assert matching_loss(nothing, nothing, matches).item() == pytest.approx(math.log(patches))
    # A wall without end: patches with the same place on it get the same code.
    place = torch.arange(3 * patches).view(3, ROWS, COLUMNS) % patches
    place = place // COLUMNS * 8 + place % COLUMNS + torch.tensor([0, 1, -1])[:, None, None] + 1
    codes = torch.nn.functional.one_hot(place.flatten(), 32).float()[None] * 20
    assert matching_loss(codes, codes, matches).item() < 1e-4


def test_loss_without_matches_is_zero_with_zero_gradients():
    matches = some_matches()
    nowhere = Matches(matches.patch, torch.zeros_like(matches.found))
    queries = torch.randn(1, 3 * ROWS * COLUMNS, 8, requires_grad=True)
    loss = matching_loss(queries, queries, nowhere)
    loss.backward()
    assert loss.item() == 0
    assert not queries.grad.any()


def test_guided_attention_learns_to_look_at_the_same_place(training_checkpoint, tmp_path):
    recipe = small_recipe(
        training_checkpoint,
        matching=MatchingGuide(weight=1.0, layers=(1,)),
        optimisation=Optimisation(steps=30, learning_rate=3e-3, warmup=2),
    )
    data = dataclasses.replace(recipe.data, num_rooms=2, phases=recipe.data.phases[:1])
    trainer = small_trainer(dataclasses.replace(recipe, data=data), tmp_path)
    batches = (trainer.source[index % 2] for index in range(30))
    values = [trainer.step(batches)["matching"] for _ in range(30)]
    assert sum(values[-4:]) < 0.9 * sum(values[:4])


def test_impossible_guides_are_refused(training_checkpoint, tmp_path):
    beyond = small_recipe(training_checkpoint, matching=MatchingGuide(layers=(2,)))
    with pytest.raises(InputError, match="guided layers from 0 to 1"):
        small_trainer(beyond, tmp_path)
    both = small_recipe(training_checkpoint, matching=MatchingGuide(layers=(1,)), checkpointing=True)
    with pytest.raises(InputError, match="checkpointing"):
        small_trainer(both, tmp_path)
