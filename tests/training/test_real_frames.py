"""Training on a mixture of rooms and prepared frames: it runs, resumes exactly and learns."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_room import exact_views
from small_runs import small_checkpoint_folder, small_recipe, small_trainer

pytest.importorskip("pyarrow", reason="prepared data need the extra data")

from g2vlm.cli.main import main
from g2vlm.data.shards.choosing import ViewChoice
from g2vlm.data.shards.reading import PreparedData, SceneIndex
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.evaluation.seen import read_training_record, seen_scenes
from g2vlm.training.recipes.catalogue import recipe_named
from g2vlm.training.recipes.mixture_file import read_mixture
from g2vlm.training.recipes.recipe import Optimisation, Phase, Recipe, Rhythm, ShardData, SyntheticData
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.run.record import describe_run
from g2vlm.training.run.setup import training_batches, validation_sources
from g2vlm.training.sources.shards import split_scenes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint_folder(tmp_path_factory.mktemp("weights") / "small")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of a room whose geometry is known."""
    folder = tmp_path_factory.mktemp("prepared")
    for scene in range(3):
        place = folder / "source" / f"room{scene}"
        place.mkdir(parents=True)
        frames = {}
        for k, view in enumerate(exact_views(4, seed=scene)):
            view.image.save(place / f"{k}.png")
            np.save(place / f"{k}.npy", view.depth.astype(np.float32))
            camera = {"K": view.K.tolist(), "T_world_camera": view.T_world_camera.tolist()}
            frames[str(k)] = {"image": f"{k}.png", "depth": f"{k}.npy", **camera}
        (place / "frames.json").write_text(json.dumps({"frames": frames}))
    assert main(["data", "prepare", "frames", str(folder / "source"), str(folder / "out")]) == 0
    return folder / "out"


def mixture_file(folder: Path, prepared: Path, text: str = "") -> Path:
    path = folder / "mixture.yaml"
    path.write_text(
        text
        or f"parts:\n  - prepared: {prepared}\n    weight: 3\n  - synthetic: true\n    weight: 1\n"
        "  - prepared: not-there\n    missing: skip\n"
    )
    return path


def mixed(checkpoint: Path, folder: Path, prepared: Path, **changes: object) -> Recipe:
    recipe = small_recipe(checkpoint, **changes)
    read = read_mixture(mixture_file(folder, prepared), recipe)
    return dataclasses.replace(recipe, data=read.mixture)


def test_a_mixture_trains_resumes_exactly_and_learns(
    checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    recipe = mixed(
        checkpoint,
        tmp_path,
        prepared,
        data=SyntheticData(phases=(Phase(1, (World.EASY,), (2,), stride=2),), widths=(56,), num_rooms=2),
        optimisation=Optimisation(steps=40, learning_rate=3e-3, warmup=3),
        rhythm=Rhythm(log_every=1, validate_every=1000, validation_batches=1, save_every=1000),
    )
    whole = small_trainer(recipe, tmp_path / "whole")
    whole.run()
    # Two slices of time, each cut off after a few steps.
    for _ in range(2):
        small_trainer(recipe, tmp_path / "slices", max_minutes=0.0).run()
    resumed = small_trainer(recipe, tmp_path / "slices")
    assert 0 < resumed.progress.step < 40
    resumed.run()
    weights = dict(resumed.learner.network.named_parameters())
    for name, weight in whole.learner.network.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    losses = [told["loss"] for line in lines if "loss" in (told := json.loads(line))]
    assert len(losses) == 40
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8]), losses


def test_batches_hold_the_truth_about_frames(checkpoint: Path, prepared: Path, tmp_path: Path) -> None:
    recipe = mixed(checkpoint, tmp_path, prepared)
    from g2vlm.training.run.setup import prepare_start

    start = prepare_start(recipe, tmp_path)
    source = training_batches(recipe, start, tmp_path).sources[0]  # type: ignore[attr-defined]
    batch, again = source[5], source[5]
    assert batch.geometry is not None
    assert again.geometry is not None
    torch.testing.assert_close(batch.inputs.photographs.images, again.inputs.photographs.images)
    torch.testing.assert_close(batch.geometry.points_world, again.geometry.points_world)
    points = batch.geometry.points_world[batch.geometry.valid]
    # The room is 5 x 3 x 4 metres around the origin; depth is that of the nearest pixel.
    assert (points.abs() <= torch.tensor([2.53, 1.53, 2.03])).all()
    assert source[6].geometry.points_world.shape[-1] == 3
    poses = {
        view.T_world_camera.astype(np.float32).tobytes() for s in range(3) for view in exact_views(4, seed=s)
    }
    for pose in batch.geometry.T_world_camera.flatten(0, 1):
        assert pose.numpy().tobytes() in poses


def test_held_out_scenes_are_validated_and_never_learned(
    checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    from g2vlm.training.run.setup import prepare_start

    recipe = mixed(checkpoint, tmp_path, prepared)
    start = prepare_start(recipe, tmp_path)
    learned = training_batches(recipe, start, tmp_path).sources[0]  # type: ignore[attr-defined]
    (held_out, count), _ = validation_sources(recipe, start, tmp_path)
    assert count == 1
    assert len(learned.scenes) == 2
    assert len(held_out.scenes) == 1  # type: ignore[attr-defined]
    assert not set(learned.scenes) & set(held_out.scenes)  # type: ignore[attr-defined]
    assert held_out[0].num_views == 4


def test_the_record_names_what_was_learned_and_an_evaluation_of_it_is_no_test(
    checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    recipe = mixed(checkpoint, tmp_path, prepared)
    data = describe_run(recipe, checkpoint)["data"]
    (tmp_path / "TRAINING.json").write_text(json.dumps({"data": data}))
    scenes = PreparedData(prepared).scenes
    learned, held_out = split_scenes(scenes, 0.02)
    assert held_out
    seen = seen_scenes(read_training_record(tmp_path), [scene.name for scene in scenes])
    assert seen == [scene.name for scene in learned]


def test_new_scenes_move_no_old_ones_between_the_halves() -> None:
    scenes = tuple(SceneIndex(f"scene{k}", k, 1) for k in range(2000))
    _, few = split_scenes(scenes[:1000], 0.05)
    _, many = split_scenes(scenes, 0.05)
    assert set(few) <= set(many)
    assert 30 < len(few) < 75
    assert split_scenes(scenes[:1], 0.05) == (scenes[:1], ())


@pytest.mark.parametrize(
    "name", ["tiny-geometry", "photo-geometry", "released-stage1", "released-stage1-518", "vg-ce-2b"]
)
def test_recipes_take_mixtures(name: str, prepared: Path, tmp_path: Path) -> None:
    path = mixture_file(tmp_path, prepared)
    mixture = read_mixture(path, recipe_named(name)).mixture
    first, second = mixture.parts
    assert isinstance(first.data, ShardData)
    assert isinstance(second.data, SyntheticData)
    assert (first.share, second.share) == (3.0, 1.0)
    assert first.data.choice is ViewChoice.COVISIBILITY
    assert first.data.like == second.data == recipe_named(name).data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: []", "a list of parts"),
        ("- 1\n", "a list of parts"),
        ("parts:\n - prepared: a\n   synthetic: true\n", "expected one of"),
        ("parts:\n - prepared: a\n   wieght: 2\n", "expected one of"),
        ("parts:\n - prepared: a\n   weight: 0\n", "a weight above zero"),
        ("parts:\n - prepared: a\n   choice: best\n", "a choice of views"),
        ("parts:\n - prepared: a\n   missing: skip\n", "none is there"),
        ("parts:\n - questions: a.jsonl\n", "learns geometry"),
        ("parts: [", "YAML"),
    ],
)
def test_mistakes_in_mixtures_are_told(text: str, message: str, tmp_path: Path, prepared: Path) -> None:
    path = mixture_file(tmp_path, prepared, text)
    with pytest.raises(InputError, match=message):
        read_mixture(path, recipe_named("tiny-geometry"))


def test_answers_alone_cannot_be_learned_from_frames(tmp_path: Path, prepared: Path) -> None:
    path = mixture_file(tmp_path, prepared)
    with pytest.raises(InputError, match="learns answers alone"):
        read_mixture(path, recipe_named("sr-2b"))


def test_geometry_and_answers_take_frames(checkpoint: Path, prepared: Path, tmp_path: Path) -> None:
    recipe = mixed(checkpoint, tmp_path, prepared, stage=Stage.GEOMETRY_AND_LANGUAGE)
    trainer = small_trainer(recipe, tmp_path / "run")
    trainer.run()
    assert trainer.progress.step == recipe.optimisation.steps


def test_poses_without_depth_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    frames = {}
    for k, view in enumerate(exact_views(3)):
        view.image.save(source / f"{k}.png")
        frames[str(k)] = {"image": f"{k}.png", "K": view.K.tolist()}
        frames[str(k)]["T_world_camera"] = view.T_world_camera.tolist()
    (source / "frames.json").write_text(json.dumps({"frames": frames}))
    assert main(["data", "prepare", str(source), str(tmp_path / "out")]) == 0
    assert len(PreparedData(tmp_path / "out")) == 3
    recipe = mixed(checkpoint, tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="poses alone do not teach geometry"):
        small_trainer(recipe, tmp_path / "run")
