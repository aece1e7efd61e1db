"""The engine's thread: shared looks, answers side by side, turns, cancelling, limits, its end."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from small_service import photos, pictures, wait_until

import g2vlm
from g2vlm.errors import InputError
from g2vlm.inference.perception import Perception
from g2vlm.inference.sampling import Sampling
from g2vlm.model.pausing import pause
from g2vlm.server.engine.answering import Asking, FullAnswer, Piece, Reason
from g2vlm.server.engine.engine import Engine, EngineLimits
from g2vlm.server.engine.errors import FailedWorkError, StoppingError
from g2vlm.server.engine.looking import Look, num_bytes_of, plan_look
from g2vlm.server.engine.perceptions import Lease, PerceptionKey
from g2vlm.server.engine.work import Priority, Terms, Ticket
from g2vlm.server.guard.refusals import BusyError, CancelledError

QUESTIONS = ("How far is the chair?", "What is left of the table?", "Why?")


@pytest.fixture
def engine(model: g2vlm.Model) -> Iterator[Engine]:
    engine = Engine(model)
    engine.start()
    yield engine
    engine.stop(0)


def look_at(
    engine: Engine, count: int = 1, *, seed: int = 0, tenant: str = "a", **terms: Any
) -> Ticket[Lease]:
    look = Look(PerceptionKey(tenant, f"{count} {seed}"), photos(engine.model, count, seed))
    return engine.look(look, Terms(**terms))


def perceive(engine: Engine, count: int = 1, **options: Any) -> Perception:
    return look_at(engine, count, **options).future.result(10).perception


class Gate:
    """Long work that goes on piece by piece, as a test lets it."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.pieces = 0

    def __call__(self) -> str:
        self.begun.set()
        while not self.may_end.is_set():
            self.pieces += 1
            self.may_end.wait(0.001)
            pause()
        return "done"


def test_answers_of_several_are_those_that_each_gets_alone(model: g2vlm.Model, engine: Engine) -> None:
    offline = [
        model.perceive(pictures(2, seed)).ask(q, max_new_tokens=9) for seed in (0, 1) for q in QUESTIONS
    ]
    perceptions = [perceive(engine, 2, seed=seed) for seed in (0, 1)]
    tickets = [
        engine.ask(perception, Asking(question, max_new_tokens=9), Terms())
        for perception in perceptions
        for question in QUESTIONS
    ]
    online = [ticket.future.result(20) for ticket in tickets]
    assert [one.text for one in online] == [one.text for one in offline]
    assert [one.token_ids for one in online] == [one.token_ids[:-1] for one in offline]
    assert all(one.reason is Reason.LENGTH for one in online)


def test_pieces_joined_are_the_answer(engine: Engine) -> None:
    told: list[Piece] = []
    ticket = engine.ask(perceive(engine), Asking(QUESTIONS[0], max_new_tokens=12), Terms(), told.append)
    answer = ticket.future.result(20)
    assert "".join(piece.text for piece in told) == answer.text
    assert tuple(token for piece in told for token in piece.token_ids) == answer.token_ids
    assert len(told) > 2


def test_an_answer_ends_before_a_text_that_stops_it(engine: Engine) -> None:
    perception = perceive(engine)
    whole = engine.ask(perception, Asking(QUESTIONS[0], max_new_tokens=30), Terms()).future.result(20)
    stop = whole.text[8:11]
    told: list[Piece] = []
    asking = Asking(QUESTIONS[0], max_new_tokens=30, stops=(stop, "never said"))
    answer = engine.ask(perception, asking, Terms(), told.append).future.result(20)
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert answer.reason is Reason.STOP
    assert "".join(piece.text for piece in told) == answer.text
    assert len(answer.token_ids) < len(whole.token_ids)


def test_turns_in_a_question_are_read_as_remembered_ones(
    model: g2vlm.Model, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    perception, again = model.perceive(pictures(1)), perceive(engine)
    first = perception.ask(QUESTIONS[0], max_new_tokens=6, remember=True)
    second = perception.ask(QUESTIONS[1], max_new_tokens=6)
    alone = again.ask(QUESTIONS[1], max_new_tokens=6)
    assert second.token_ids != alone.token_ids
    # A random answer may be spelled in other tokens than its text would be.
    monkeypatch.setattr(model._prompts, "answer_ids", lambda text: list(first.token_ids[:-1]))
    asking = Asking(QUESTIONS[1], ((QUESTIONS[0], first.text),), max_new_tokens=6)
    assert engine.ask(again, asking, Terms()).future.result(20).token_ids == second.token_ids[:-1]


def test_sampled_answers_are_those_of_their_seed(model: g2vlm.Model, engine: Engine) -> None:
    sampling = Sampling(temperature=1.5, seed=7)
    offline = model.perceive(pictures(1)).ask(QUESTIONS[0], max_new_tokens=9, sampling=sampling)
    asking = Asking(QUESTIONS[0], max_new_tokens=9, sampling=sampling)
    assert engine.ask(perceive(engine), asking, Terms()).future.result(20).text == offline.text


def test_who_asks_about_the_same_photos_shares_one_look(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    perceive_alone = engine.model.perceive
    monkeypatch.setattr(engine.model, "perceive", lambda *a, **k: looks.append(1) or perceive_alone(*a, **k))
    gate = Gate()
    engine.run(gate, cost=1, terms=Terms())
    gate.begun.wait(10)
    same = [look_at(engine) for _ in range(3)]
    gate.may_end.set()
    found = [ticket.future.result(10) for ticket in same]
    assert len(looks) == 1
    assert len({id(lease.perception) for lease in found}) == 1
    assert look_at(engine).future.result(10).was_known
    assert not look_at(engine, tenant="b").future.result(10).was_known
    assert len(looks) == 2


def test_progress_ends_at_one_after_the_planned_pieces(engine: Engine) -> None:
    shares: list[float] = []
    read = photos(engine.model, 6)
    look = Look(PerceptionKey("a", "six"), read)
    engine.look(look, Terms(), shares.append).future.result(20)
    assert len(shares) == plan_look(engine.model, read).num_pieces
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_questions_are_answered_while_long_work_goes_on(engine: Engine) -> None:
    perception, gate = perceive(engine), Gate()
    long = engine.run(gate, cost=10**9, terms=Terms())
    gate.begun.wait(10)
    for question in QUESTIONS:
        engine.ask(perception, Asking(question, max_new_tokens=5), Terms()).future.result(10)
    assert not long.future.done()
    before = gate.pieces
    wait_until(lambda: gate.pieces > before)
    gate.may_end.set()
    assert long.future.result(10) == "done"


def test_much_shorter_looks_pass_by_long_work_and_others_wait(engine: Engine) -> None:
    gate = Gate()
    long = engine.run(gate, cost=10**9, terms=Terms())
    gate.begun.wait(10)
    look_at(engine).future.result(10)
    as_long = engine.run(lambda: "after", cost=10**9, terms=Terms())
    urgent = engine.run(lambda: "urgent", cost=10**9, terms=Terms(Priority.HIGH))
    assert urgent.future.result(10) == "urgent"
    assert not long.future.done()
    assert not as_long.future.done()
    gate.may_end.set()
    assert as_long.future.result(10) == "after"


def test_long_work_keeps_half_of_the_time(engine: Engine) -> None:
    gate = Gate()
    engine.run(gate, cost=10**9, terms=Terms())
    gate.begun.wait(10)
    stop = threading.Event()

    def ask_without_end() -> None:
        perception = perceive(engine)
        while not stop.is_set():
            engine.ask(perception, Asking("Why?", max_new_tokens=40), Terms()).future.result(20)

    threads = [threading.Thread(target=ask_without_end) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: engine.num_running > 0)
    before = gate.pieces
    wait_until(lambda: gate.pieces > before + 20)
    stop.set()
    gate.may_end.set()
    for thread in threads:
        thread.join()


def test_work_ends_when_all_who_wanted_it_have_left(engine: Engine) -> None:
    gate = Gate()
    ticket = engine.run(gate, cost=1, terms=Terms())
    gate.begun.wait(10)
    ticket.cancel()
    with pytest.raises(CancelledError):
        ticket.future.result(10)
    wait_until(lambda: engine.num_looks == 0)
    assert perceive(engine) is not None


def test_a_cancelled_look_goes_on_for_those_who_stay(engine: Engine) -> None:
    gate = Gate()
    engine.run(gate, cost=1, terms=Terms())
    gate.begun.wait(10)
    leaver, stayer = look_at(engine, 3), look_at(engine, 3)
    leaver.cancel()
    gate.may_end.set()
    assert stayer.future.result(10).perception.num_tokens > 0


def test_a_cancelled_answer_leaves_the_batch(engine: Engine) -> None:
    perception, told = perceive(engine), threading.Event()
    ticket = engine.ask(perception, Asking("Why?", max_new_tokens=100_000), Terms(), lambda _: told.set())
    assert told.wait(10)
    ticket.cancel()
    wait_until(lambda: engine.num_running == 0)


def test_what_takes_too_long_is_ended(engine: Engine) -> None:
    perception = perceive(engine)
    late: list[Future[Any]] = [
        engine.ask(perception, Asking("Why?", max_new_tokens=10**6), Terms.within(0.1)).future,
        engine.run(Gate(), cost=1, terms=Terms.within(0.1)).future,
    ]
    for future in late:
        with pytest.raises(CancelledError, match="time limit"):
            future.result(10)
    wait_until(lambda: engine.num_running == engine.num_looks == 0)


def test_a_full_queue_refuses_and_says_when_to_come_back(model: g2vlm.Model) -> None:
    engine = Engine(model, EngineLimits(num_waiting=2))
    engine.start()
    try:
        gate = Gate()
        engine.run(gate, cost=1, terms=Terms())
        gate.begun.wait(10)
        for _ in range(2):
            engine.run(lambda: None, cost=1, terms=Terms())
        with pytest.raises(BusyError) as refused:
            look_at(engine)
        assert refused.value.retry_after_s >= 1
        gate.may_end.set()
    finally:
        engine.stop(10)


def test_the_cache_keeps_its_bytes_and_what_is_in_use(model: g2vlm.Model) -> None:
    planned = plan_look(model, photos(model, 1)).num_bytes
    kept = num_bytes_of(model.perceive(photos(model, 1)))
    room = planned + int(1.5 * kept)
    engine = Engine(model, EngineLimits(cache_bytes=room))
    engine.start()
    try:
        used = look_at(engine, seed=1).future.result(10)
        look_at(engine, seed=2).future.result(10).release()
        look_at(engine, seed=3).future.result(10).release()
        assert engine.perceptions.num_bytes <= room
        assert look_at(engine, seed=1).future.result(10).was_known
        assert not look_at(engine, seed=2).future.result(10).was_known
        with pytest.raises(InputError, match="send at most"):
            look_at(engine, 9)
        waiting = look_at(engine, 2)
        wait_until(lambda: engine.num_waiting == 1)
        assert not waiting.future.done()
        used.release()
    finally:
        engine.stop(0)


def test_a_defect_in_one_piece_of_work_ends_nothing_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(FailedWorkError):
        engine.run(broken, cost=1, terms=Terms()).future.result(10)
    perception = perceive(engine)
    with monkeypatch.context() as patch:
        patch.setattr(engine._answers, "_follow", broken)
        with pytest.raises(FailedWorkError):
            engine.ask(perception, Asking("Why?"), Terms()).future.result(10)
    answer = engine.ask(perception, Asking("Why?", max_new_tokens=3), Terms()).future.result(10)
    assert isinstance(answer, FullAnswer)
    assert "ZeroDivisionError" in caplog.text


def test_an_impossible_question_is_refused_alone(engine: Engine) -> None:
    perception = perceive(engine)
    wrong = engine.ask(perception, Asking(" "), Terms())
    right = engine.ask(perception, Asking("Why?", max_new_tokens=2), Terms())
    with pytest.raises(InputError, match="empty"):
        wrong.future.result(10)
    assert right.future.result(10).token_ids


def test_stopping_finishes_what_there_is(model: g2vlm.Model) -> None:
    engine = Engine(model)
    engine.start()
    perception = perceive(engine)
    ticket = engine.ask(perception, Asking("Why?", max_new_tokens=20), Terms())
    engine.stop(20)
    assert len(ticket.future.result(0).token_ids) > 0
    with pytest.raises(StoppingError):
        engine.ask(perception, Asking("Why?"), Terms())


def test_stopping_without_time_hands_work_back(model: g2vlm.Model) -> None:
    engine = Engine(model)
    engine.start()
    gate = Gate()
    tickets = [engine.run(gate, cost=1, terms=Terms()), look_at(engine)]
    gate.begun.wait(10)
    engine.stop(0)
    for ticket in tickets:
        with pytest.raises(StoppingError):
            ticket.future.result(0)
