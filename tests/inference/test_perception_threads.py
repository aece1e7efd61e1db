"""One perception, several threads: answers are those given one by one, whatever others do meanwhile."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from in_threads import at_once

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import InputError
from g2vlm.inference.answers import Answer, Ending
from g2vlm.inference.perception import Perception

THREADS, QUESTIONS, TOKENS = 8, 50, 3
WORDS = ("chair", "door", "table", "lamp", "left", "behind", "how", "far", "many", "red", "of", "the")
TEXTS = [" ".join(np.random.default_rng(number).choice(WORDS, 6)) for number in range(QUESTIONS)]
PATIENCE_S = 60


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="plain"),
        pytest.param(True, id="native", marks=pytest.mark.needs_compiler),
    ],
)
def perception(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Perception:
    folder = random_checkpoint(tmp_path_factory.mktemp("random"))
    model = g2vlm.load(folder, device="cpu", dtype="float32", compiled=request.param)
    rng = np.random.default_rng(0)
    return model.perceive([rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(2)])


@pytest.fixture
def clean(perception: Perception) -> Perception:
    perception.forget()
    return perception


def ids(perception: Perception, text: str) -> tuple[int, ...]:
    return perception.ask(text, max_new_tokens=TOKENS).token_ids


def exactly(perception: Perception, text: str) -> tuple[float, ...]:
    """Tokens and their probabilities, to the last bit."""
    answer = perception.ask(text, max_new_tokens=TOKENS)
    return answer.token_ids + answer.log_probabilities


@pytest.mark.parametrize("count", [6, pytest.param(QUESTIONS, marks=pytest.mark.slow)])
def test_threads_get_the_answers_that_one_gets(clean: Perception, count: int) -> None:
    """41 of 45 answers were once wrong, without a word: all of them were written into the same memory."""
    alone = [exactly(clean, text) for text in TEXTS[:count]]
    assert len(set(alone)) == count
    orders = [np.random.default_rng(number).permutation(count) for number in range(THREADS)]

    def ask(order: np.ndarray) -> dict[int, tuple[float, ...]]:
        return {place: exactly(clean, TEXTS[place]) for place in order.tolist()}

    for found in at_once([lambda order=order: ask(order) for order in orders]):
        assert [found[place] for place in range(count)] == alone


def test_questions_continue_from_what_was_remembered_when_they_were_asked(clean: Perception) -> None:
    turns = TEXTS[:6]
    photos = clean.num_tokens
    # What "Where?" is answered after none, one, two, ... remembered turns: nothing else may ever be heard.
    states = [exactly(clean, "Where?")]
    for turn in turns:
        clean.ask(turn, max_new_tokens=TOKENS, remember=True)
        states.append(exactly(clean, "Where?"))
    assert len(set(states)) == len(states)
    clean.forget()
    done = threading.Event()

    def talk() -> list[tuple[float, ...]]:
        try:
            for _ in range(4):
                for turn in turns:
                    clean.ask(turn, max_new_tokens=TOKENS, remember=True)
                clean.forget()
        finally:
            done.set()
        return []

    def listen() -> list[tuple[float, ...]]:
        heard = []
        while not done.is_set():
            heard.append(exactly(clean, "Where?"))
        return heard

    heard = [answer for found in at_once([talk, listen, listen]) for answer in found]
    assert heard
    assert set(heard) <= set(states)
    assert clean.num_tokens == photos


def test_remembered_turns_of_several_threads_wait_for_each_other(clean: Perception) -> None:
    found: list[Answer] = at_once(
        [lambda text=text: clean.ask(text, max_new_tokens=TOKENS, remember=True) for text in TEXTS[:4]]
    )
    together = ids(clean, "Where?")
    # They took turns: in one of the orders, one by one, all of them get the same answers.
    answers = dict(zip(TEXTS[:4], (answer.token_ids for answer in found), strict=True))
    clean.forget()

    def follows(left: dict[str, tuple[int, ...]]) -> bool:
        if not left:
            return ids(clean, "Where?") == together
        for text, expected in left.items():
            memory = (clean._memory, clean._turns, clean._earlier)
            asked = clean.ask(text, max_new_tokens=TOKENS, remember=True)
            if asked.token_ids == expected and follows({one: left[one] for one in left if one != text}):
                return True
            clean._memory, clean._turns, clean._earlier = memory[0], None, memory[0].conversation
        return False

    assert follows(answers)


def slowly(started: threading.Event, go_on: threading.Event) -> Callable[[str], None]:
    """A listener that stops in the middle of an answer."""

    def listen(_piece: str) -> None:
        started.set()
        assert go_on.wait(PATIENCE_S)

    return listen


def test_an_answer_that_runs_keeps_the_conversation_that_others_forget(clean: Perception) -> None:
    clean.ask(TEXTS[0], max_new_tokens=TOKENS, remember=True)
    expected = clean.ask(TEXTS[1], max_new_tokens=12)
    started, go_on, found = threading.Event(), threading.Event(), list[Answer]()
    listen = slowly(started, go_on)
    thread = threading.Thread(
        target=lambda: found.append(clean.ask(TEXTS[1], max_new_tokens=12, on_text=listen))
    )
    thread.start()
    assert started.wait(PATIENCE_S)
    clean.forget()
    # Another conversation takes the place of the old one, and memory elsewhere.
    for text in TEXTS[2:5]:
        clean.ask(text, max_new_tokens=TOKENS, remember=True)
    clean.offload()
    go_on.set()
    thread.join(PATIENCE_S)
    assert found[0].token_ids == expected.token_ids


def test_forgetting_waits_for_a_remembered_answer(clean: Perception) -> None:
    photos = clean.num_tokens
    started, go_on, forgotten = threading.Event(), threading.Event(), threading.Event()
    listen = slowly(started, go_on)
    asking = threading.Thread(
        target=lambda: clean.ask(TEXTS[0], max_new_tokens=12, on_text=listen, remember=True)
    )
    asking.start()
    assert started.wait(PATIENCE_S)
    forgetting = threading.Thread(target=lambda: (clean.forget(), forgotten.set()))
    forgetting.start()
    assert not forgotten.wait(0.1)
    go_on.set()
    assert forgotten.wait(PATIENCE_S)
    for thread in (asking, forgetting):
        thread.join(PATIENCE_S)
    assert clean.num_tokens == photos


@pytest.mark.parametrize("inside", ["forget", "remember"])
def test_a_turn_inside_of_a_remembered_answer_is_refused(clean: Perception, inside: str) -> None:
    def listen(_piece: str) -> None:
        if inside == "forget":
            clean.forget()
        else:
            clean.ask("And now?", max_new_tokens=2, remember=True)

    photos = clean.num_tokens
    with pytest.raises(InputError, match=r"Expected the remembered answer to end .* inside of `on_text`"):
        clean.ask(TEXTS[0], max_new_tokens=12, on_text=listen, remember=True)
    assert clean.num_tokens == photos
    # Nothing is left locked.
    clean.ask(TEXTS[0], max_new_tokens=3, on_text=lambda _piece: ids(clean, "Where?") and None, remember=True)
    clean.forget()


def test_an_answer_can_be_cancelled(clean: Perception) -> None:
    whole = clean.ask(TEXTS[0], max_new_tokens=30)
    event, pieces = threading.Event(), list[str]()

    def listen(piece: str) -> None:
        pieces.append(piece)
        event.set()

    for remember in (False, True):
        event.clear()
        pieces.clear()
        answer = clean.ask(TEXTS[0], max_new_tokens=30, on_text=listen, remember=remember, cancel=event)
        assert answer.ending is Ending.CANCELLED
        assert not answer.finished
        assert 0 < len(answer.token_ids) < 30
        assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
        assert answer.text == "".join(pieces)
    assert clean._memory.conversation == ()
    asked: list[float] = []

    def after_a_while() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 9

    several = clean.ask_many(TEXTS[:3], max_new_tokens=30, cancel=after_a_while)
    assert {answer.ending for answer in several} == {Ending.CANCELLED}
    nothing = clean.ask(TEXTS[0], cancel=lambda: True)
    assert (nothing.text, nothing.token_ids, nothing.ending) == ("", (), Ending.CANCELLED)
    assert np.isnan(nothing.confidence)
