"""One optimisation step over several micro-batches, some of them without any question."""

import dataclasses

import pytest
import torch
from small_runs import small_recipe, small_trainer

from g2vlm.model.network import Wants
from g2vlm.training.objective import StepCounts
from g2vlm.training.recipes.recipe import Batching, LoraSettings, Optimisation
from g2vlm.training.recipes.stages import Stage

LANGUAGE = [Stage.JOINT, Stage.SPATIAL_REASONING, Stage.GEOMETRY_AND_LANGUAGE]


@pytest.fixture
def silent(monkeypatch):
    """Within it, no view gives rise to a question."""
    monkeypatch.setattr("g2vlm.training.sources.synthetic_questions.make_questions", lambda *_, **__: ())


def gradient(trainer):
    return {name: w.grad.clone() for name, w in trainer.learner.weights.items() if w.grad is not None}


def gradient_of_step(trainer, batches):
    """What `Trainer.step` hands to the optimizers."""
    kept = {}
    trainer.learner.apply = lambda step: kept.update(gradient(trainer))
    trainer.step(iter(batches))
    return kept


@pytest.mark.parametrize("stage", LANGUAGE)
def test_a_run_without_any_question_goes_on(training_checkpoint, tmp_path, silent, stage):
    recipe = small_recipe(training_checkpoint, stage)
    recipe = dataclasses.replace(recipe, optimisation=Optimisation(1, 1e-3, ema_decay=0.9))
    trainer = small_trainer(recipe, tmp_path)
    batch = trainer.source[0]
    assert batch.answers is not None
    assert not batch.answers.is_answer.any()
    terms = trainer.step(iter([batch]))
    assert "language" not in terms
    assert (
        terms["loss"] == pytest.approx(0) if stage is not Stage.GEOMETRY_AND_LANGUAGE else terms["loss"] > 0
    )
    assert trainer.run().value == "complete"


def test_a_low_rank_run_without_any_question_goes_on(training_checkpoint, tmp_path, silent):
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING, lora=LoraSettings(rank=2))
    recipe = dataclasses.replace(recipe, optimisation=Optimisation(1, 1e-3))
    assert small_trainer(recipe, tmp_path).run().value == "complete"


def test_a_micro_batch_without_questions_changes_nothing(training_checkpoint, tmp_path, request):
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING)
    single = small_trainer(recipe, tmp_path / "1")
    asked = single.source[0]
    request.getfixturevalue("silent")
    quiet = single.source[1]
    expected = gradient_of_step(single, [asked])
    double = small_trainer(
        dataclasses.replace(recipe, batching=Batching(tokens=48, accumulate=2)), tmp_path / "2"
    )
    found = gradient_of_step(double, [asked, quiet])
    assert max(values.abs().max() for values in expected.values()) > 1e-4
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=name)


def test_accumulated_gradient_is_that_of_the_mean_over_all_answers(training_checkpoint, tmp_path):
    recipe = small_recipe(
        training_checkpoint, Stage.SPATIAL_REASONING, batching=Batching(tokens=48, accumulate=3)
    )
    trainer = small_trainer(recipe, tmp_path)
    batches = [trainer.source[i] for i in range(3)]
    counts = [int(batch.answers.is_answer.sum()) for batch in batches]
    assert len(set(counts)) > 1
    assert StepCounts.of(batches).answer_tokens == sum(counts)
    log_likelihoods = []
    for batch in batches:
        answers = batch.answers
        logits = trainer.learner.network(batch.inputs, Wants(logit_slots=answers.slots)).logits
        chosen = logits.log_softmax(-1).gather(-1, answers.tokens[..., None])[..., 0]
        log_likelihoods.append(chosen[answers.is_answer])
    (-torch.cat(log_likelihoods).mean()).backward()
    torch.nn.utils.clip_grad_norm_(trainer.learner.weights.values(), recipe.optimisation.clip)
    expected = gradient(trainer)
    trainer.learner.optimizers[0].zero_grad()
    found = gradient_of_step(trainer, batches)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=1e-6, rtol=1e-3, msg=name)
