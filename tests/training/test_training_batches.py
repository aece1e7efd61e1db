import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import small_recipe, small_start

from g2vlm.data.splits import Split
from g2vlm.data.synthetic import ViewShape
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.training.recipes.recipe import Batching, Phase, QuestionFileData, SyntheticData
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.run.setup import require_fitting_data, training_batches, validation_sources
from g2vlm.training.sources.augmentation import Augmentation, augmented
from g2vlm.training.sources.framing import reframed
from g2vlm.training.sources.pictures import PictureStore, render_pictures

RUN = Path("unused")


@pytest.fixture(scope="module")
def start(training_checkpoint, tmp_path_factory):
    return small_start(training_checkpoint, tmp_path_factory.mktemp("run"))


def test_a_batch_is_a_function_of_its_index(start, training_checkpoint):
    recipe = small_recipe(training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE)
    source, again = (training_batches(recipe, start, RUN) for _ in range(2))
    first, other = source[3], source[4]
    repeated = again[3]
    assert torch.equal(first.inputs.photographs.images, repeated.inputs.photographs.images)
    assert torch.equal(first.inputs.token_ids, repeated.inputs.token_ids)
    assert torch.equal(first.answers.tokens, repeated.answers.tokens)
    assert not torch.equal(first.inputs.photographs.images[0], other.inputs.photographs.images[0])


def test_budget_decides_the_number_of_samples(start, training_checkpoint):
    recipe = small_recipe(training_checkpoint, batching=Batching(tokens=100))
    batch = training_batches(recipe, start, RUN)[0]
    # 56 x 42 pixels in patches of 14: 12 tokens a view, two views in the first phase.
    assert (batch.num_samples, batch.num_views) == (4, 2)
    assert batch.geometry.points_world.shape == (4, 2, 42, 56, 3)
    assert batch.answers is None


def test_phases_follow_the_steps():
    data = SyntheticData(phases=(Phase(2, (World.EASY,), (2,)), Phase(3, views=(3,)), Phase(1, views=(4,))))
    assert [data.phase_at(step).views[0] for step in (0, 1, 2, 4, 5, 99)] == [2, 2, 3, 3, 4, 4]


def test_validation_visits_held_out_rooms_only(start, training_checkpoint):
    recipe = small_recipe(training_checkpoint)
    held_out, trained = validation_sources(recipe, start, RUN)[0][0], training_batches(recipe, start, RUN)
    for index in range(5):
        held_out_seeds = held_out.draw(index, np.random.default_rng(index)).seeds
        assert all(seed in Split.VALIDATION.seeds for seed in held_out_seeds)
        seeds = trained.draw(index, np.random.default_rng(index)).seeds
        assert all(seed in Split.TRAIN.seeds for seed in seeds)


def test_store_returns_what_was_rendered(tmp_path):
    shape, seeds = ViewShape(2, 42, 56), [1_000_003, 1_000_009, 1_000_003]
    rendered = render_pictures(World.EASY, seeds, shape)
    for _ in range(2):  # made, then read
        kept = PictureStore(tmp_path).load(World.EASY, seeds, shape)
        torch.testing.assert_close(kept.images, rendered.images, atol=0.5 / 255 + 1e-6, rtol=0.0)
        for name in ("depth", "instance", "K", "T_world_camera"):
            assert torch.equal(getattr(kept, name), getattr(rendered, name)), name
    assert len(list(tmp_path.iterdir())) == 2


def test_views_can_be_picked():
    pictures = render_pictures(World.EASY, [1_000_003], ViewShape(3, 42, 56))
    picked = pictures.views((2, 0))
    assert torch.equal(picked.depth[0, 1], pictures.depth[0, 0])
    assert torch.equal(picked.points_world[0, 0], pictures.points_world[0, 2])


def test_augmentation_keeps_views_alike():
    images = torch.rand(3, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 2, -1, -1, -1)
    still = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    rng = np.random.default_rng(0)
    torch.testing.assert_close(augmented(images, still, rng), images)
    shared = dataclasses.replace(Augmentation(), per_view=0.0, noise=0.0, blur_share=1.0)
    changed = augmented(images, shared, rng)
    torch.testing.assert_close(changed[:, 0], changed[:, 1])
    assert not torch.allclose(changed, images, atol=0.01)
    assert float(changed.min()) >= 0.0
    assert float(changed.max()) <= 1.0


@pytest.fixture
def question_file(tmp_path):
    lines = []
    for i in range(5):
        names = [f"{i}_{k}.png" for k in range(1 + i % 2)]
        for name in names:
            Image.new("RGB", (80, 60), (40 * i, 100, 200)).save(tmp_path / name)
        turns = [{"from": "human", "value": f"Question {i}?"}, {"from": "gpt", "value": f"{i}.5"}]
        lines.append(json.dumps({"id": str(i), "image": names, "conversations": turns * (1 + i % 3)}))
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_question_file_is_visited_once_a_pass(start, training_checkpoint, question_file, tmp_path):
    data = QuestionFileData(question_file)
    recipe = small_recipe(training_checkpoint, Stage.JOINT, data=data, batching=Batching(tokens=24))
    source = training_batches(recipe, start, tmp_path / "run")
    for turn in range(2):
        batches = [source[turn * source.batches_per_pass + i] for i in range(source.batches_per_pass)]
        assert sum(batch.num_samples for batch in batches) == 5
        assert {batch.num_views for batch in batches} == {1, 2}
        assert all(batch.num_samples * batch.num_views <= 2 for batch in batches)
    answer = batches[0].answers
    text = start.tokenizer.decode(answer.tokens[0][answer.is_answer[0]].tolist(), skip_special=True)
    assert text.replace(".5", "").isdigit()


def test_geometry_cannot_be_learned_from_questions(training_checkpoint, question_file):
    with pytest.raises(InputError, match="question file"):
        small_recipe(training_checkpoint, Stage.GEOMETRY, data=QuestionFileData(question_file))


def test_widths_must_be_whole_patches(start, training_checkpoint):
    recipe = small_recipe(training_checkpoint, data=SyntheticData(widths=(60,)))
    with pytest.raises(InputError, match="patch size 14"):
        require_fitting_data(recipe, start.config, 1)
    with pytest.raises(InputError, match="multiple of the 2 processes"):
        require_fitting_data(small_recipe(training_checkpoint), start.config, 2)


def test_reframed_pictures_keep_the_truth_about_every_pixel():
    pictures = render_pictures(World.FULL, [1_000_003, 1_000_004], ViewShape(2, 84, 112))
    rng = np.random.default_rng(0)
    framed = reframed(pictures, 1.5, rng)
    assert (framed.K[:, 0, 0, 0] > 1.02 * pictures.K[:, 0, 0, 0]).all()
    # Seen with its own intrinsics, every pixel lies on a surface of the old pictures.
    old, new = (p.points_world.flatten(1, 3) for p in (pictures, framed))
    gap = torch.cdist(new, old).min(dim=-1).values
    spacing = framed.depth.flatten(1) / pictures.K[:, 0, 0, 0, None]
    assert (gap < 2 * spacing).float().mean() > 0.97
    # Colours and depth moved together.
    distance = torch.cdist(new, old)
    nearest = distance.argmin(dim=-1)
    colours = [p.images.permute(0, 1, 3, 4, 2).flatten(1, 3) for p in (pictures, framed)]
    same = colours[0].gather(1, nearest[..., None].expand(-1, -1, 3))
    assert (colours[1] - same).abs().median() < 0.02
    assert torch.equal(framed.T_world_camera, pictures.T_world_camera)


def test_no_zoom_draws_nothing():
    pictures = render_pictures(World.EASY, [1_000_003], ViewShape(1, 28, 28))
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    assert reframed(pictures, 1.0, rng) is pictures
    assert rng.random() == other.random()


def test_some_steps_leave_the_geometric_images_out(start, training_checkpoint):
    recipe = small_recipe(
        training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE, batching=Batching(tokens=24, accumulate=2)
    )
    data = dataclasses.replace(recipe.data, semantic_only_share=0.5)
    recipe = dataclasses.replace(recipe, data=data)
    source = training_batches(recipe, start, RUN)
    draws = [source.draw(index, np.random.default_rng(index)) for index in range(40)]
    seen = [draw.has_geometric for draw in draws]
    # All micro-batches of a step agree.
    assert seen[::2] == seen[1::2]
    assert 3 < sum(seen[::2]) < 17
    batch = source[seen.index(False)]
    assert batch.inputs.photographs is None
    assert batch.geometry is None
    assert batch.answers is not None
    assert batch.inputs.layout.geometric_positions.shape[-1] == 0
    assert source[seen.index(True)].inputs.photographs is not None
    held_out = validation_sources(recipe, start, RUN)[0][0]
    assert all(held_out.draw(index, np.random.default_rng(index)).has_geometric for index in range(40))
