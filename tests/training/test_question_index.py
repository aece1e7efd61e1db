import json
import pickle

import pytest
from PIL import Image
from small_runs import small_recipe, small_start, small_trainer

from g2vlm.errors import InputError
from g2vlm.training.recipes.recipe import (
    Batching,
    Mixture,
    MixturePart,
    Optimisation,
    QuestionFileData,
    SyntheticData,
)
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.run import bars
from g2vlm.training.run.setup import training_batches
from g2vlm.training.sources import question_index
from g2vlm.training.sources.batches import TrainingBatch
from g2vlm.training.sources.mixture import MixtureSource
from g2vlm.training.sources.question_index import Shuffle, build_index, open_index

SHAPES = ((1, 42, 56), (2, 42, 56), (1, 56, 56))


def written(folder, count, images=None):
    """A file of questions about 40 pictures."""
    folder.mkdir(exist_ok=True)
    for k in range(40):
        Image.new("RGB", (80, 60), (6 * k, 100, 200)).save(folder / f"{k}.png")
    lines = []
    for i in range(count):
        turns = [{"from": "human", "value": f"Question {i}?"}, {"from": "gpt", "value": str(i)}]
        lines.append(json.dumps({"id": str(i), "image": f"{i % 40}.png", "conversations": turns}))
        lines += [""] * (i % 3 == 0)
    path = folder / "questions.jsonl"
    path.write_text("\n".join(lines))
    return path


def shape_by_number(conversation):
    return SHAPES[int(conversation.identifier) % 3]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 1000])
def test_a_shuffle_visits_every_number_once(count):
    orders = [[Shuffle(count, seed)[i] for i in range(count)] for seed in (1, 2)]
    for order in orders:
        assert sorted(order) == list(range(count))
    if count > 100:
        assert orders[0] != orders[1]
        assert abs(sum(a < b for a, b in zip(orders[0], orders[0][1:], strict=False)) - count / 2) < count / 8


def test_every_line_is_found_in_the_bucket_of_its_shape(tmp_path):
    data = QuestionFileData(written(tmp_path / "data", 300), held_out=0.2)
    build_index(data, tmp_path / "index", shape_by_number)
    # Workers get it pickled, without what is mapped.
    index = pickle.loads(pickle.dumps(open_index(data, tmp_path / "index")))
    found, sides = [], {True: set(), False: set()}
    for bucket in index.buckets:
        for place in range(bucket.first, bucket.first + bucket.count):
            conversation = index.conversation(place)
            assert shape_by_number(conversation) == (bucket.views, bucket.height, bucket.width)
            found.append(int(conversation.identifier))
            sides[bucket.held_out].update(conversation.images)
    assert sorted(found) == list(range(300))
    # No picture is learned and tested.
    assert not sides[True] & sides[False]
    assert 2 <= len(sides[True]) <= 16


def test_few_lines_are_all_learned(tmp_path):
    data = QuestionFileData(written(tmp_path / "data", 49), held_out=0.5)
    index = build_index(data, tmp_path / "index", shape_by_number)
    assert not any(bucket.held_out for bucket in index.buckets)
    assert sum(bucket.count for bucket in index.buckets) == 49


def test_mistakes_name_the_line(tmp_path):
    path = written(tmp_path / "data", 3)
    path.write_text(path.read_text() + '\n{"image": "none.png"}')
    with pytest.raises(InputError, match="line 5: image not found"):
        build_index(QuestionFileData(path), tmp_path / "index", shape_by_number)
    path.write_text("\n\n")
    with pytest.raises(InputError, match="at least one question"):
        build_index(QuestionFileData(path), tmp_path / "index", shape_by_number)
    path.write_bytes("{}".encode("utf-16"))
    with pytest.raises(InputError, match="UTF-8"):
        build_index(QuestionFileData(path), tmp_path / "index", shape_by_number)


def test_held_out_questions_are_judged_and_the_index_is_kept(training_checkpoint, tmp_path, monkeypatch):
    data = QuestionFileData(written(tmp_path / "data", 60), held_out=0.2)
    recipe = small_recipe(training_checkpoint, Stage.JOINT, data=data, optimisation=Optimisation(1, 1e-3))
    small_trainer(recipe, tmp_path / "run").run()
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    (figures,) = (line for line in lines if line["kind"] == "validation")
    assert figures["answer_loss"] > 0
    monkeypatch.setattr("g2vlm.training.run.setup.build_index", None)
    start = small_start(training_checkpoint, tmp_path / "run")
    assert training_batches(recipe, start, tmp_path / "run")[0].answers is not None


def test_an_unreadable_picture_is_told_and_left_out(training_checkpoint, tmp_path, capsys):
    path = written(tmp_path / "data", 4)
    recipe = small_recipe(training_checkpoint, Stage.JOINT, data=QuestionFileData(path))
    start = small_start(training_checkpoint, tmp_path / "run")
    source = training_batches(recipe, start, tmp_path / "run")
    broken = tmp_path / "data" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert source[0].num_samples == 4
    assert "left out 2" in capsys.readouterr().err


def test_a_mixture_keeps_its_shares_and_visits_each_source_in_order():
    class Counting:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, index):
            batch = object.__new__(TrainingBatch)
            object.__setattr__(batch, "tag", (self.name, index))
            return batch

    source = MixtureSource([Counting("a"), Counting("b")], [3.0, 1.0], 2, 400)
    visited = [source[index].tag for index in range(800)]
    # All micro-batches of a step come from one source.
    assert [name for name, _ in visited[::2]] == [name for name, _ in visited[1::2]]
    for name, share in (("a", 0.75), ("b", 0.25)):
        own = [index for n, index in visited if n == name]
        assert own == list(range(len(own)))
        assert abs(len(own) - 800 * share) <= 4
        assert abs(sum(n == name for n, _ in visited[:80]) - 80 * share) <= 4


def test_answers_and_geometry_are_learned_side_by_side(training_checkpoint, tmp_path):
    path = written(tmp_path / "data", 4)
    rooms = SyntheticData(widths=(56,), questions_per_sample=1)
    data = Mixture((MixturePart(QuestionFileData(path), 0.5), MixturePart(rooms, 0.5)))
    recipe = small_recipe(training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE, data=data, batching=Batching(24))
    trainer = small_trainer(recipe, tmp_path / "run")
    kinds = {trainer.source[i].geometry is not None for i in range(4)}
    assert kinds == {True, False}
    trainer.run()
    assert {"abs_rel", "answer_loss"} <= trainer.validate().keys()


def test_geometry_without_rooms_is_refused(training_checkpoint, tmp_path):
    data = QuestionFileData(written(tmp_path / "data", 4))
    with pytest.raises(InputError, match="holds no geometry"):
        small_trainer(
            small_recipe(training_checkpoint, Stage.GEOMETRY_AND_LANGUAGE, data=data), tmp_path / "run"
        )


def test_reading_through_a_file_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(question_index, "_LINES_PER_LOOK", 10)
    data, told = QuestionFileData(written(tmp_path / "data", 49)), []
    build_index(data, tmp_path / "index", shape_by_number, lambda done, total: told.append((done, total)))
    size = data.path.stat().st_size
    assert len(told) >= 4
    assert told == sorted(told)
    assert {total for _, total in told} == {size}
    assert 0 < told[0][0] < told[-1][0] <= size


def test_lines_of_progress_come_now_and_then(capsys, monkeypatch):
    with bars.reading("indexing questions.jsonl") as on_bytes:
        on_bytes(1, 100)  # done soon: nothing to say
        monkeypatch.setattr(bars, "QUIET_S", -1.0)
    with bars.reading("indexing questions.jsonl") as on_bytes:
        on_bytes(50, 100)
    assert capsys.readouterr().err == "indexing questions.jsonl: 50%\n"
