"""Running answers: questions that join and leave between tokens get what each gets alone."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.inference import batch as batches
from g2vlm.inference.answers import Ending
from g2vlm.inference.batch import AnswerBatch, Question, RunningAnswer
from g2vlm.inference.perception import Perception
from g2vlm.inference.sampling import Sampling

TEXTS = ("How far?", "What is left of the chair, and what is to the right of it?", "x", "Where is the door?")
TOKENS = 7
DECODINGS = [
    pytest.param(False, id="plain"),
    pytest.param(True, id="native", marks=pytest.mark.needs_compiler),
]


@pytest.fixture(scope="module", params=DECODINGS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> g2vlm.Model:
    folder = random_checkpoint(tmp_path_factory.mktemp("random"))
    return g2vlm.load(folder, device="cpu", dtype="float32", compiled=request.param)


@pytest.fixture(scope="module")
def perceptions(model: g2vlm.Model) -> list[Perception]:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(3)]
    found = [model.perceive(photos[:1]), model.perceive(photos[1:])]
    found[1].ask("What is this?", max_new_tokens=4, remember=True)
    return found


@pytest.fixture(scope="module")
def alone(perceptions: list[Perception]) -> dict[tuple[int, str], tuple[int, ...]]:
    return {
        (place, text): perception.ask(text, max_new_tokens=TOKENS).token_ids
        for place, perception in enumerate(perceptions)
        for text in TEXTS
    }


@pytest.fixture
def batch(model: g2vlm.Model) -> Iterator[AnswerBatch]:
    with model.answer_batch() as found:
        yield found


def drain(batch: AnswerBatch) -> None:
    while batch.is_busy:
        batch.step()


def test_questions_about_several_perceptions_share_passes(
    batch: AnswerBatch,
    perceptions: list[Perception],
    alone: dict[tuple[int, str], tuple[int, ...]],
) -> None:
    running = {key: batch.add(perceptions[key[0]].question(key[1], max_new_tokens=TOKENS)) for key in alone}
    batch.step()
    assert batch.num_running == len(alone)
    passes = 0
    while batch.is_busy:
        batch.step()
        passes += 1
    assert passes == TOKENS - 1
    assert {key: tuple(answer.token_ids) for key, answer in running.items()} == alone
    assert {answer.ending for answer in running.values()} == {Ending.LIMIT}
    assert all(answer.seconds.keys() == {"prefill_s", "decode_s"} for answer in running.values())


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_questions_join_and_leave_at_any_time(
    model: g2vlm.Model,
    perceptions: list[Perception],
    alone: dict[tuple[int, str], tuple[int, ...]],
    data: st.DataObject,
) -> None:
    keys = sorted(alone)
    batch = model.answer_batch(max_rows=data.draw(st.sampled_from([None, 1, 3])))
    running: list[tuple[tuple[int, str], RunningAnswer]] = []
    cancelled: set[RunningAnswer] = set()
    with batch:
        for _ in range(data.draw(st.integers(1, 8))):
            for key in data.draw(st.lists(st.sampled_from(keys), max_size=2)):
                limit = data.draw(st.integers(1, TOKENS))
                question = perceptions[key[0]].question(key[1], max_new_tokens=limit)
                running.append((key, batch.add(question)))
            alive = [answer for _, answer in running if answer.ending is None]
            if alive and data.draw(st.booleans()):
                place = data.draw(st.integers(0, len(alive) - 1))
                alive[place].cancel()
                cancelled.add(alive[place])
            batch.step()
        drain(batch)
        assert batch.num_running == 0
    for key, answer in running:
        assert answer.ending is (Ending.CANCELLED if answer in cancelled else Ending.LIMIT)
        assert tuple(answer.token_ids) == alone[key][: len(answer.token_ids)]
        assert len(answer.log_probabilities) == len(answer.token_ids)
        if answer not in cancelled:
            assert len(answer.token_ids) == answer.question.max_new_tokens


def test_a_batch_runs_no_more_rows_than_allowed(model: g2vlm.Model, perceptions: list[Perception]) -> None:
    with model.answer_batch(max_rows=2) as batch:
        for _ in range(5):
            batch.add(perceptions[0].question("How far?", max_new_tokens=3))
        seen = []
        while batch.is_busy:
            batch.step()
            seen.append(batch.num_running)
        assert max(seen) == 2


def test_waiting_and_running_answers_can_be_cancelled_from_other_threads(
    batch: AnswerBatch, perceptions: list[Perception]
) -> None:
    event, asked = threading.Event(), perceptions[0]
    by_event = batch.add(asked.question("How far?", cancel=event))
    by_call = batch.add(asked.question("Where?", cancel=lambda: len(by_call.token_ids) >= 3))
    stays = batch.add(asked.question("Why?", max_new_tokens=6))
    waiting = batch.add(asked.question("When?"))
    waiting.cancel()
    changed = batch.step()
    assert waiting in changed
    assert (waiting.ending, waiting.token_ids) == (Ending.CANCELLED, [])
    batch.step()
    thread = threading.Thread(target=event.set)
    thread.start()
    thread.join()
    assert by_event in batch.step()
    assert (by_event.ending, len(by_event.token_ids)) == (Ending.CANCELLED, 2)
    drain(batch)
    assert (by_call.ending, len(by_call.token_ids)) == (Ending.CANCELLED, 3)
    assert (stays.ending, len(stays.token_ids)) == (Ending.LIMIT, 6)


def test_greedy_and_drawn_answers_run_side_by_side(batch: AnswerBatch, perceptions: list[Perception]) -> None:
    drawn = Sampling(temperature=1.2, seed=3)
    kinds = (Sampling(), drawn, Sampling(temperature=1.2, seed=4))
    running = [
        batch.add(perceptions[0].question("How far?", max_new_tokens=TOKENS, sampling=kind)) for kind in kinds
    ]
    drain(batch)
    for kind, answer in zip(kinds, running, strict=True):
        expected = perceptions[0].ask("How far?", max_new_tokens=TOKENS, sampling=kind)
        assert tuple(answer.token_ids) == expected.token_ids
        np.testing.assert_allclose(answer.log_probabilities, expected.log_probabilities, atol=1e-4)


def test_several_passes_between_looks_find_the_same(
    model: g2vlm.Model,
    perceptions: list[Perception],
    alone: dict[tuple[int, str], tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU; also where answers end in the middle."""
    with model.answer_batch() as batch:
        monkeypatch.setattr(batch, "_per_look", 4)
        running = {key: batch.add(perceptions[key[0]].question(key[1], max_new_tokens=3)) for key in alone}
        longer = batch.add(perceptions[0].question("How far?", max_new_tokens=TOKENS, sampling=Sampling()))
        kept = batch.add(
            Question(
                longer.question.token_ids,
                longer.question.beginning,
                longer.question.position,
                2,
                keep=True,
            )
        )
        drain(batch)
    assert {key: tuple(answer.token_ids) for key, answer in running.items()} == {
        key: ids[:3] for key, ids in alone.items()
    }
    assert tuple(longer.token_ids) == alone[0, "How far?"]
    assert kept.kept is not None
    assert kept.kept.num_tokens == len(kept.question.token_ids) + 1


def test_questions_of_similar_length_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(*lengths: int) -> list[list[int]]:
        answers = [RunningAnswer(Question(tuple(range(length)), (), 0, 1)) for length in lengths]
        return [[len(one.question.token_ids) for one in group] for group in batches._groups(answers)]

    assert groups(5, 4, 5, 6) == [[4, 5, 5, 6]]
    assert groups(5, 500, 4, 480) == [[4, 5], [480, 500]]
    assert groups(7000) == [[7000]]
    monkeypatch.setattr(batches, "PREFILL_TOKENS", 12)
    assert groups(4, 4, 4, 4) == [[4, 4, 4], [4]]


def test_an_error_of_a_pass_reaches_the_caller_and_other_batches_go_on(
    model: g2vlm.Model, perceptions: list[Perception], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = model.answer_batch(), model.answer_batch()
    for one in (good, bad):
        one.add(perceptions[0].question("How far?", max_new_tokens=4))
        one.step()

    def fail(*_given: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(bad, "_decoder", fail)
    with pytest.raises(MemoryError, match="none left"):
        bad.step()
    drain(good)
    good.close()
