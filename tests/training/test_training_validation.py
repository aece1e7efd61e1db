from pathlib import Path

import pytest
import torch
from small_runs import small_recipe, small_start

from g2vlm.checkpoints.loading import load_network
from g2vlm.model.network import GeometryPrediction
from g2vlm.model.precision import Placement, Precision
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.run.setup import validation_sources
from g2vlm.training.run.validation import _Sums, validate


@pytest.fixture(scope="module")
def start(training_checkpoint, tmp_path_factory):
    return small_start(training_checkpoint, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def batch(start, training_checkpoint):
    recipe = small_recipe(training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE)
    return validation_sources(recipe, start, Path("unused"))[0][0][0]


def perfect(truth, scale=1.0):
    local = torch.linalg.inv(truth.T_world_camera)[..., None, None, :, :]
    points = (local[..., :3, :3] @ truth.points_world[..., None])[..., 0] + local[..., :3, 3]
    poses = truth.T_world_camera.clone()
    poses[..., :3, 3] *= scale
    return GeometryPrediction(points * scale, poses)


def test_truth_in_another_unit_is_perfect(batch):
    sums = _Sums()
    sums.add_geometry(perfect(batch.geometry, 0.3), batch.geometry)
    figures = sums.figures()
    assert figures["abs_rel"] == pytest.approx(0, abs=1e-4)
    assert figures["auc30"] > 0.95


def test_wrong_depth_of_one_view_counts(batch):
    found = perfect(batch.geometry)
    found.points_camera[:, 0] *= 2.0
    sums = _Sums()
    sums.add_geometry(found, batch.geometry)
    assert sums.figures()["abs_rel"] > 0.1


def test_answers_are_judged_token_by_token(batch):
    answers = batch.answers
    certain = torch.nn.functional.one_hot(answers.tokens, 320).float() * 50
    sums = _Sums()
    sums.add_answers(certain, answers)
    assert sums.figures() == {"answer_loss": pytest.approx(0, abs=1e-6), "token_accuracy": 1.0}
    sums.add_answers(-certain, answers)
    assert sums.figures()["token_accuracy"] == 0.5


def test_network_is_judged_on_both(training_checkpoint, batch):
    network = load_network(training_checkpoint, Placement(torch.device("cpu"), Precision.FLOAT32))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    figures = validate(network, [(batch, True), (batch, False)], autocast)
    assert figures == validate(network, [(batch, True)], autocast)
    assert set(figures) >= {"abs_rel", "auc30", "answer_loss", "token_accuracy"}
    assert figures["abs_rel"] > 0.05
