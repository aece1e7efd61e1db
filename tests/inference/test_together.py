"""Several scenes in one pass are what each is by itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.together import are_equal, grouped_by_size, reconstruct_together
from g2vlm.model.config import ViewAttention
from g2vlm.pipeline import Model


@pytest.fixture(scope="module")
def model(small_checkpoint):
    return Model.from_pretrained(small_checkpoint, dtype="float32")


@pytest.mark.parametrize("attention", list(ViewAttention))
@pytest.mark.parametrize("views", [1, 2, 5])
def test_scenes_of_a_pass_do_not_see_each_other(model, attention, views):
    prompts = PromptBuilder(model.tokenizer, model.config, torch.device("cpu"))
    draws = torch.Generator().manual_seed(views)
    scenes = [torch.rand(views, 3, 28, 42, generator=draws) for _ in range(3)]

    def predict(chosen):
        return reconstruct_together(model.network, prompts, attention, chosen)

    for own, together in zip([predict([scene])[0] for scene in scenes], predict(scenes), strict=True):
        torch.testing.assert_close(together.points_camera, own.points_camera, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.T_world_camera, own.T_world_camera, rtol=1e-5, atol=1e-5)
    assert are_equal(predict(scenes)[1], predict(scenes)[1])
    assert not are_equal(predict(scenes)[0], predict(scenes)[1])


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([28, 42])), max_size=30),
    st.integers(1, 12),
)
def test_groups_hold_every_scene_once_within_the_budget(sizes, budget):
    passes = grouped_by_size(sizes, budget)
    assert sorted(index for group in passes for index in group) == list(range(len(sizes)))
    for group in passes:
        assert len({sizes[index] for index in group}) == 1
        assert len(group) == 1 or sum(sizes[index][0] for index in group) <= budget
    assert passes == sorted(passes)
