"""The synthetic benchmark: seeds, resolution, questions, and runs that resume."""

from pathlib import Path

import numpy as np
import pytest
import torch

from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.question import REASONING_REQUEST
from g2vlm.data.splits import Split
from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import World, full_world
from g2vlm.errors import InputError
from g2vlm.evaluation.asking import Examiner, Sight
from g2vlm.evaluation.benchmarks.synthetic import SyntheticBenchmark, Way
from g2vlm.evaluation.records import Journal, SceneRecord
from g2vlm.evaluation.runner import RunOptions, measure, rescore, run
from g2vlm.evaluation.summary import question_figures
from g2vlm.evaluation.trials import ItemGroup, Trial
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.pipeline import Model


def benchmark(**changes: object) -> SyntheticBenchmark:
    return SyntheticBenchmark(**{"width": 56, "patch": 14, "num_scenes": 2, "num_views": 2, **changes})


def test_scenes_come_from_the_test_split() -> None:
    assert benchmark().scenes() == ["500000", "500001"]
    assert int(benchmark().scenes()[0]) in Split.TEST.seeds


@pytest.mark.parametrize("first", [999_999, 1_000_000, 1_999_999_999])
def test_training_seeds_are_refused_unless_allowed(first: int) -> None:
    with pytest.raises(InputError, match="trained on"):
        benchmark(first_seed=first)
    assert benchmark(first_seed=first, allow_train_seeds=True).scenes()[0] == str(first)


def test_any_other_seed_will_do() -> None:
    for first in (0, 123, 700_000, 999_998):
        assert len(benchmark(first_seed=first).scenes()) == 2


def test_photos_have_the_size_at_which_the_model_looks(random_model: Model) -> None:
    trial = benchmark(width=random_model.config.image_width).load("500000")
    prepared = prepare_geometric(load_photos(list(trial.photos)).photos, width=112)
    assert tuple(prepared.pixels.shape[-2:]) == tuple(trial.truth.depth.shape[1:]) == (84, 112)
    shown = torch.from_numpy(np.stack([np.asarray(photo) for photo in trial.photos]))
    assert torch.equal((prepared.pixels * 255).round().to(torch.uint8), shown.permute(0, 3, 1, 2))


def test_the_same_seed_is_the_same_scene() -> None:
    first, second = benchmark().load("500001"), benchmark(first_seed=500_001).load("500001")
    assert all(np.array_equal(a, b) for a, b in zip(first.photos, second.photos, strict=True))
    assert [group.items for group in first.groups] == [group.items for group in second.groups]
    easy = benchmark(world=World.EASY).load("500001")
    assert not np.array_equal(easy.photos[0], first.photos[0])


def test_questions_come_with_their_own_photos_and_perfect_answers_are_right() -> None:
    trial = benchmark(num_views=4, num_questions=12, width=112).load("500000")
    items = [item for group in trial.groups for item in group.items]
    assert len(items) == 12
    asked = make_questions(render_sample(full_world(), 500_000, ViewShape(4, 84, 112)), 12)
    by_text = {question.text + REASONING_REQUEST: question for question in asked}
    for group in trial.groups:
        for item in group.items:
            question = by_text[item.text]
            changed = [
                not np.array_equal(photo, trial.photos[view])
                for photo, view in zip(group.photos, question.views, strict=True)
            ]
            assert changed == [
                any(marker.view == view for marker in question.markers) for view in question.views
            ]
            assert item.judge(question.reasoned_answer, "full").is_right
    assert all(item.judge(item.truth, "full").is_right for item in items)
    assert not any(item.judge("I cannot tell", "full").is_right for item in items)
    assert not benchmark(num_questions=0).load("500000").groups
    plain = benchmark(num_views=4, num_questions=12, width=112, reasoned=False).load("500000")
    assert {item.text for group in plain.groups for item in group.items} == {q.text for q in asked}


def test_the_same_questions_are_asked_in_other_ways(random_model: Model) -> None:
    ways = (Way.PLAIN, Way.HELD_OUT_PLAIN)
    asked = benchmark(num_questions=3, width=112, other_ways=ways)
    trial = asked.load("500000")

    def texts(groups: tuple[ItemGroup, ...]) -> list[str]:
        return [item.text for group in groups for item in group.items]

    usual, plain, strange = texts(trial.groups), *(texts(trial.other_ways[way.value]) for way in ways)
    assert usual == [text + REASONING_REQUEST for text in plain]
    assert not set(plain) & set(strange)
    truths = [
        [item.truth for group in g for item in group.items] for g in (trial.groups, trial.other_ways["plain"])
    ]
    assert truths[0] == truths[1]
    record = measure(asked, random_model, "500000", RunOptions(geometry=False, max_new_tokens=1))
    assert [answer.sight for answer in record.answers] == ["full"] * 3 + ["plain"] * 3 + [
        "held_out_plain"
    ] * 3
    assert rescore(asked, record, None) == record
    keys = {figure.key for figure in question_figures([record, record])}
    assert {"questions/all/full", "questions/all/plain", "questions/all/held_out_plain"} <= keys
    blind = measure(asked, random_model, "500000", RunOptions(False, (Sight.GREY,), 1))
    assert {answer.sight for answer in blind.answers} == {"grey"}


@pytest.mark.parametrize("sight", list(Sight))
def test_every_sight_answers_every_question(random_model: Model, sight: Sight) -> None:
    group = benchmark().load("500000").groups[0]
    texts = [item.text for item in group.items] + ["And now?"]
    answers = Examiner(random_model, max_new_tokens=4).ask(group.photos, texts, sight)
    assert len(answers) == len(texts)


def test_what_is_shown_is_what_the_sight_says(random_model: Model) -> None:
    first, second = (benchmark().load(scene).photos for scene in ("500000", "500001"))
    examiner = Examiner(random_model, max_new_tokens=12)
    for sight in Sight:
        same = examiner.ask(first, ["What is it?"], sight) == examiner.ask(second, ["What is it?"], sight)
        assert same == (sight in (Sight.GREY, Sight.TEXT_ONLY)), sight


def test_without_geometric_tokens_many_questions_answer_as_one(random_model: Model) -> None:
    photos = benchmark().load("500000").photos
    questions = ["How far?", "Which of these two is nearer to the camera?"]
    examiner = Examiner(random_model, max_new_tokens=6)
    together = examiner.ask(photos, questions, Sight.NO_GEOMETRY)
    assert together == tuple(examiner.ask(photos, [text], Sight.NO_GEOMETRY)[0] for text in questions)


def test_every_question_is_asked_once_with_each_sight(
    random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    perceive = Model.perceive

    def counted(self: Model, source: object) -> object:
        looks.append(source)
        return perceive(self, source)

    monkeypatch.setattr(Model, "perceive", counted)
    small = benchmark(num_questions=6, width=112)
    trial = small.load("500000")
    options = RunOptions(geometry=False, sights=tuple(Sight), max_new_tokens=1)
    record = measure(small, random_model, "500000", options)
    assert record.geometry is None
    for sight in Sight:
        asked = [answer.question for answer in record.answers if answer.sight == sight.value]
        assert sorted(asked) == sorted(item.text for group in trial.groups for item in group.items)
    # Once for each set of photos, and once for each number of grey ones.
    numbers = {len(group.photos) for group in trial.groups}
    assert len(looks) == len(trial.groups) + len(numbers) < 2 * len(trial.groups)


def test_a_reconstruction_that_cannot_be_compared_is_a_finding(random_folder: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(random_folder, device="cpu", dtype="float32")
    weight = model.network.point_head.prediction.proj.weight
    weight.data.fill_(torch.nan)
    small = benchmark(width=112, num_questions=0)
    (first, second) = run(small, model, Journal(tmp_path / "run.jsonl", {}), RunOptions(sights=()))
    assert first.geometry is None
    assert first.failure
    assert second.failure
    assert Journal(tmp_path / "run.jsonl", {}).records["500000"] == first


class Interrupted(SyntheticBenchmark):
    """Breaks off at the second scene."""

    def load(self, scene: str) -> Trial:
        if scene != self.scenes()[0]:
            raise KeyboardInterrupt
        return super().load(scene)


def test_an_interrupted_run_goes_on_where_it_stopped(random_model: Model, tmp_path: Path) -> None:
    size = {"width": 112, "patch": 14, "num_scenes": 2, "num_views": 2, "num_questions": 2}
    options = RunOptions(sights=(Sight.FULL,), max_new_tokens=2)
    path = tmp_path / "run.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(**size), random_model, Journal(path, {}), options)
    measured: list[tuple[int, int, SceneRecord]] = []
    resumed = run(
        SyntheticBenchmark(**size),
        random_model,
        Journal(path, {}),
        options,
        lambda *told: measured.append(told),
    )
    assert [(done, total, record.scene) for done, total, record in measured] == [(2, 2, "500001")]
    whole = run(SyntheticBenchmark(**size), random_model, Journal(tmp_path / "other.jsonl", {}), options)
    assert [record.geometry for record in resumed] == [record.geometry for record in whole]
    assert [record.answers for record in resumed] == [record.answers for record in whole]
    assert all(record.geometry is not None and record.failure is None for record in whole)
