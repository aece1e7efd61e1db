import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import small_recipe, small_trainer

import g2vlm
from g2vlm.data.world.config import World
from g2vlm.training.objective import StepCounts
from g2vlm.training.recipes.recipe import Batching, Optimisation, OptimizerKind, Phase, Rhythm, SyntheticData
from g2vlm.training.recipes.stages import Group, Stage, group_of
from g2vlm.training.run.states import newest_state
from g2vlm.training.run.trainer import MODEL_FOLDER, Ending, NonFiniteLossError

ALONE = StepCounts(geometry=1, answer_tokens=0, pointing=0)


def weights(trainer):
    return {name: weight.detach().clone() for name, weight in trainer.learner.network.named_parameters()}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_geometry_loss_goes_down(training_checkpoint, tmp_path):
    data = SyntheticData(phases=(Phase(1, (World.EASY,), (2,), stride=2),), widths=(56,), num_rooms=2)
    optimisation = Optimisation(steps=30, learning_rate=3e-3, warmup=3)
    recipe = small_recipe(training_checkpoint, data=data, optimisation=optimisation)
    recipe = dataclasses.replace(recipe, rhythm=dataclasses.replace(recipe.rhythm, save_every=1000))
    assert small_trainer(recipe, tmp_path, store=tmp_path / "store").run() is Ending.COMPLETE
    losses = [line["loss"] for line in lines(tmp_path) if line["kind"] == "train"]
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("kind", OptimizerKind)
def test_resumed_run_equals_an_uninterrupted_one(training_checkpoint, tmp_path, kind):
    settings = Optimisation(steps=4, learning_rate=1e-3, warmup=2, ema_decay=0.9, kind=kind)
    recipe = small_recipe(training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE, optimisation=settings)
    whole = small_trainer(recipe, tmp_path / "whole")
    whole.run()
    first = small_trainer(recipe, tmp_path / "sliced", max_minutes=0.0)
    assert first.run() is Ending.OUT_OF_TIME
    assert first.progress.step == 1
    second = small_trainer(recipe, tmp_path / "sliced")
    torch.manual_seed(99)  # the state brings its own
    assert second.run() is Ending.COMPLETE
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(second)[name]), name
    assert all(
        torch.equal(value, second.learner.average.values[name])
        for name, value in whole.learner.average.values.items()
    )
    logs = [
        [line["loss"] for line in lines(tmp_path / run) if line["kind"] == "train"]
        for run in ("whole", "sliced")
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("stage", [Stage.JOINT, Stage.SPATIAL_REASONING])
def test_stages_change_their_groups_only(training_checkpoint, tmp_path, stage):
    recipe = small_recipe(training_checkpoint, stage, optimisation=Optimisation(2, 1e-3, warmup=1))
    trainer = small_trainer(recipe, tmp_path)
    before = weights(trainer)
    trainer.run()
    changed = {
        group_of(name) for name, weight in weights(trainer).items() if not torch.equal(weight, before[name])
    }
    assert changed == recipe.trained
    assert (Group.GEOMETRIC_EXPERT in changed) is (stage is Stage.SPATIAL_REASONING)


def test_exported_model_reconstructs_and_answers(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint, optimisation=Optimisation(1, 1e-3))
    small_trainer(recipe, tmp_path).run()
    told = json.loads((tmp_path / MODEL_FOLDER / "TRAINING.json").read_text())
    assert told["data"] == json.loads((tmp_path / "run.json").read_text())["data"]
    model = g2vlm.load(tmp_path / MODEL_FOLDER, device="cpu")
    photos = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    assert len(model.reconstruct(photos).views) == 2
    assert isinstance(model.perceive(photos).ask("Which?", max_new_tokens=2).text, str)


def test_non_finite_loss_stops_and_keeps_the_batch(training_checkpoint, tmp_path):
    trainer = small_trainer(small_recipe(training_checkpoint), tmp_path)
    with torch.no_grad():
        trainer.learner.network.point_head.prediction.proj.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="step 0"):
        trainer.run()
    batch = torch.load(tmp_path / "failed_batch.pt", weights_only=False)
    assert batch.num_views == 2


def test_states_are_pruned_and_complete(training_checkpoint, tmp_path):
    rhythm = Rhythm(log_every=1, validate_every=1000, validation_batches=1, save_every=1, keep=2)
    trainer = small_trainer(small_recipe(training_checkpoint, rhythm=rhythm), tmp_path)
    trainer.run()
    names = sorted(path.name for path in (tmp_path / "states").iterdir())
    assert names == ["step-00000003", "step-00000004"]
    assert newest_state(tmp_path).name == "step-00000004"
    # A state without its mark is half written, and ignored.
    (tmp_path / "states" / "step-00000009").mkdir()
    assert newest_state(tmp_path).name == "step-00000004"


def test_signal_ends_after_the_step(training_checkpoint, tmp_path):
    trainer = small_trainer(small_recipe(training_checkpoint), tmp_path)
    before = signal.getsignal(signal.SIGINT)
    step = trainer.step

    def interrupted(batches, meter):
        os.kill(os.getpid(), signal.SIGINT)
        return step(batches, meter)

    trainer.step = interrupted
    assert trainer.run() is Ending.INTERRUPTED
    assert trainer.progress.step == 1
    assert newest_state(tmp_path).name == "step-00000001"
    assert signal.getsignal(signal.SIGINT) is before


def test_accumulation_equals_the_mean_of_micro_batches(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint, batching=Batching(tokens=48, accumulate=2))
    trainer = small_trainer(recipe, tmp_path)
    parts = [trainer._loss(trainer.source[i], ALONE).total.item() for i in range(2)]
    terms = trainer.step(iter([trainer.source[0], trainer.source[1]]))
    assert terms["loss"] == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_checkpointing_changes_no_gradient(training_checkpoint, tmp_path):
    gradients = []
    for checkpointing in (False, True):
        recipe = small_recipe(training_checkpoint, checkpointing=checkpointing)
        trainer = small_trainer(recipe, tmp_path / str(checkpointing))
        trainer._loss(trainer.source[0], ALONE).total.backward()
        gradients.append([w.grad for w in trainer.learner.weights.values() if w.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 50
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_validation_figures(training_checkpoint, tmp_path):
    trainer = small_trainer(small_recipe(training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE), tmp_path)
    figures = trainer.validate()
    assert set(figures) == {
        "abs_rel", "auc30", "rotation_deg", "translation_deg", "answer_loss", "token_accuracy",
    }  # fmt: skip
    assert figures == trainer.validate()
