import dataclasses
import math

import numpy as np
import pytest
import torch
from small_runs import small_recipe, small_trainer

from g2vlm.data.questions.making import MAKERS, make_questions
from g2vlm.data.questions.question import REASONING_REQUEST, QuestionFamily, SeenAt
from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import full_world
from g2vlm.model.mixture import Projections
from g2vlm.training.guidance.pointing import (
    PointingGuide,
    PointingTargets,
    QuoteTargets,
    pointing_loss,
    quoting_loss,
    shown_at,
)
from g2vlm.training.recipes.recipe import Optimisation
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.sources.synthetic_questions import Grids, _looking, _pair


def scene() -> np.ndarray:
    """Two views of 4x6 pixels: object 1 fills the left third of view 0, object 2 is one pixel of view 1."""
    instance = np.zeros((2, 4, 6), dtype=np.int64)
    instance[0, :, :2] = 1
    instance[1, 3, 5] = 2
    return instance


def test_places_are_found_in_the_grid_of_tokens():
    def shown(place: SeenAt, grid: tuple[int, int] = (2, 3)) -> list[int]:
        return np.flatnonzero(shown_at((place,), scene(), grid)).tolist()

    assert shown(SeenAt(0, instance=1)) == [0, 3]
    # Too small to fill a third of any token: the best one counts.
    assert shown(SeenAt(1, instance=2)) == [6 + 5]
    assert shown(SeenAt(0, instance=2)) == []
    assert shown(SeenAt(1, pixel=(3, 1))) == [6 + 1]
    assert shown(SeenAt(1)) == list(range(6, 12))
    # A grid that does not divide the pixels: of six columns, 0-1, 2, 3-4 and 5 make the four tokens.
    assert shown(SeenAt(0, instance=1), (1, 4)) == [0]
    assert shown(SeenAt(1, pixel=(2, 0)), (1, 4)) == [4 + 1]


class Heard:
    """What one layer would have projected: two heads of queries share the keys of six tokens and words."""

    def __init__(self, queries: torch.Tensor, prompt: torch.Tensor, semantic: torch.Tensor, geometric):
        words = torch.zeros(1, 1, queries.shape[1], queries.shape[2])
        keys = torch.cat([prompt, semantic, words[:, 0]], dim=1)[:, None]
        length = keys.shape[2]
        padded = torch.zeros(1, 2, length, queries.shape[2])
        padded[:, :, length - queries.shape[1] :] = queries[:, None]
        self.semantic = {0: Projections(padded, keys, keys)}
        seen = geometric[:, None]
        self.geometric = {0: Projections(seen, seen, seen)}


def loss_of(heard: "Heard", wanted: PointingTargets) -> torch.Tensor:
    return pointing_loss(heard.semantic, heard.geometric, PointingGuide(layers=(0,)), wanted)


def targets(wanted: list[int], num_words: int = 1) -> PointingTargets:
    hit = torch.zeros(1, num_words, 4, dtype=torch.bool)
    hit[0, 0, wanted] = True
    none = torch.zeros(1, 0, dtype=torch.long)
    quotes = QuoteTargets(none, none, none[..., None].expand(-1, -1, 2))
    return PointingTargets(torch.tensor([[6] * num_words]), hit, hit, torch.tensor([2, 3, 4, 5]), 6, quotes)


def test_loss_of_ignorant_and_of_perfect_attention():
    nothing = torch.zeros(1, 1, 8), torch.zeros(1, 2, 8), torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)
    # Six keys each, two of the prompt and four of images, of which one or two are right.
    loss = loss_of(Heard(*nothing), targets([1]))
    assert loss.item() == pytest.approx(math.log(6))
    loss = loss_of(Heard(*nothing), targets([1, 2]))
    assert loss.item() == pytest.approx(math.log(3))
    codes = 20 * torch.eye(8)[None]
    right = codes[:, 1:2], codes[:, 6:8], codes[:, :4], codes[:, :4]
    assert loss_of(Heard(*right), targets([1])).item() < 1e-4
    assert loss_of(Heard(*right), targets([2])).item() > 10


def test_words_that_look_nowhere_do_not_count():
    queries = torch.randn(1, 1, 8, requires_grad=True)
    others = torch.randn(1, 2, 8), torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    loss = loss_of(Heard(queries, *others), targets([]))
    loss.backward()
    assert loss.item() == 0
    assert not queries.grad.any()
    alone, padded = (loss_of(Heard(queries, *others), targets([1], count)) for count in (1, 3))
    torch.testing.assert_close(alone, padded)


def test_quotes_count_within_their_own_question():
    # Places 0 to 2 are another question, 3 to 9 this one; the choice to look at stands at 5 and 6.
    codes = torch.eye(16)[None, None, :10]
    quotes = QuoteTargets(torch.tensor([[8, 0]]), torch.tensor([[3, 0]]), torch.tensor([[[5, 7], [0, 0]]]))
    nothing = torch.zeros_like(codes)
    assert quoting_loss(Projections(nothing, codes, codes), quotes).item() == pytest.approx(math.log(6 / 2))
    queries = nothing.clone()
    queries[..., 8, 6] = 100.0
    assert quoting_loss(Projections(queries, codes, codes), quotes).item() < 1e-4
    queries[..., 8, 1] = 200.0
    assert quoting_loss(Projections(queries, codes, codes), quotes).item() < 1e-4
    queries[..., 8, 4] = 200.0
    assert quoting_loss(Projections(queries, codes, codes), quotes).item() > 10


@pytest.fixture(scope="module")
def questions():
    found = {}
    for seed in range(500_000, 500_030):
        sample = render_sample(full_world(), seed, ViewShape(2, 84, 112))
        for question in make_questions(sample, 20):
            found.setdefault(question.family, (question, sample))
    return found


@pytest.mark.parametrize("family", MAKERS)
def test_every_family_says_what_its_words_speak_of(questions, family: QuestionFamily):
    question, sample = questions[family]
    assert question.references
    for reference in question.references:
        texts = (question.text, question.reasoning)
        assert any(list(_looking(reference, text)) for text in texts), reference
        if reference.value:
            # What is measured stands in the reasoning, right after its name.
            assert f"{reference.name}{reference.value}" in question.reasoning
    pair = _pair(
        question, question.text + REASONING_REQUEST, True, sample.instance.numpy(), Grids((6, 8), (4, 4))
    )
    assert pair.pointers
    for pointer in pair.pointers:
        assert pointer.geometric.any()
        assert pointer.semantic.any()
        assert 0 <= pointer.start < pointer.end <= len(pair.answer if pointer.in_answer else pair.question)


def test_a_marked_point_is_looked_at_where_its_dot_is(questions):
    question, sample = questions[QuestionFamily.POINT_DEPTH]
    dot = question.markers[0]
    pair = _pair(
        question, question.text + REASONING_REQUEST, True, sample.instance.numpy(), Grids((6, 8), (4, 4))
    )
    for pointer in pair.pointers:
        assert np.flatnonzero(pointer.geometric).tolist() == [dot.view * 48 + dot.v // 14 * 8 + dot.u // 14]
    looked = [pair.answer[p.start : p.end] for p in pair.pointers if p.in_answer]
    assert looked == [f"t is {question.reasoning.split(' is ')[1].split(' m')[0]} "]


def test_words_learn_to_look_at_what_they_speak_of(training_checkpoint, tmp_path):
    recipe = small_recipe(
        training_checkpoint,
        Stage.JOINT,
        pointing=PointingGuide(weight=1.0, layers=(1,)),
        optimisation=Optimisation(steps=30, learning_rate=3e-3, warmup=2),
    )
    data = dataclasses.replace(recipe.data, num_rooms=2, phases=recipe.data.phases[:1], reasoning_share=1.0)
    trainer = small_trainer(dataclasses.replace(recipe, data=data), tmp_path)
    batches = (trainer.source[index % 2] for index in range(30))
    steps = [trainer.step(batches) for _ in range(30)]
    for name in ("pointing", "quoting"):
        values = [step[name] for step in steps]
        assert sum(values[-4:]) < 0.95 * sum(values[:4])
