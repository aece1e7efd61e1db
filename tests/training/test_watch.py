"""Real frames that are measured while training runs."""

from types import SimpleNamespace

import pytest
import torch
from small_runs import small_recipe, small_trainer, write_frames

from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.model.network import G2VLM
from g2vlm.training.recipes.recipe import Phase, SyntheticData
from g2vlm.training.run.watch import WatchedFrames


def test_a_perfect_prediction_has_perfect_figures(training_checkpoint, tmp_path, monkeypatch):
    write_frames(tmp_path / "frames" / "desk")
    trainer = small_trainer(small_recipe(training_checkpoint), tmp_path / "run")
    watched = WatchedFrames(tmp_path / "frames", trainer.learner.start)
    group = watched.sets["desk"][0]
    height, width = group.depth_m.shape[1:]
    assert width == trainer.learner.network.config.image_width
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (u - (width - 1) / 2) / width, (v - (height - 1) / 2) / width
    points = 3.0 * torch.stack([x, y, torch.ones(height, width)], dim=-1).expand(1, 2, height, width, 3)
    found = SimpleNamespace(points_camera=points, T_world_camera=group.T_world_camera.clone()[None])
    monkeypatch.setattr(G2VLM, "forward", lambda *_: SimpleNamespace(geometry=found))
    autocast = torch.autocast("cpu", enabled=False)
    figures = watched.figures(trainer.learner.network, autocast)
    assert figures["desk_abs_rel"] < 1e-5
    assert figures["desk_auc30"] > 0.95
    assert figures["desk_focal_error"] < 0.02
    trainer.close()


def test_validation_reports_the_frames(training_checkpoint, tmp_path):
    write_frames(tmp_path / "frames")
    trainer = small_trainer(small_recipe(training_checkpoint), tmp_path / "run", watch=tmp_path / "frames")
    figures = trainer.validate()
    trainer.close()
    assert {"frames_abs_rel", "frames_auc30", "frames_focal_error"} <= set(figures)


def test_folders_without_frames_are_refused(training_checkpoint, tmp_path):
    trainer = small_trainer(small_recipe(training_checkpoint), tmp_path / "run")
    with pytest.raises(InputError, match=r"frames\.json"):
        WatchedFrames(tmp_path, trainer.learner.start)
    (tmp_path / "frames.json").write_text('{"frames": {}, "groups": [["a"]]}')
    with pytest.raises(InputError, match="groups"):
        WatchedFrames(tmp_path, trainer.learner.start)
    trainer.close()


def test_rooms_of_a_phase_that_return_are_kept(training_checkpoint, tmp_path):
    data = SyntheticData(phases=(Phase(1, (World.EASY,), (2,), stride=2, num_rooms=2),), widths=(56,))
    recipe = small_recipe(training_checkpoint, data=data)
    trainer = small_trainer(recipe, tmp_path / "run", store=tmp_path / "store")
    trainer.source[0]
    trainer.close()
    assert list((tmp_path / "store").glob("easy-*.npz"))
