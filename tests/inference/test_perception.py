"""Asking: streaming, memory, batches, limits; on a very small random network."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import InputError
from g2vlm.inference import perceiving
from g2vlm.inference.generation import Continuation, Generator
from g2vlm.inference.perception import Perception
from g2vlm.inference.sampling import Sampling
from g2vlm.inference.timing import Stopwatch
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import prepare_semantic
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.network import Wants

QUESTION = "How far is the chair?"


def pictures(count: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> g2vlm.Model:
    folder = random_checkpoint(tmp_path_factory.mktemp("random"))
    return g2vlm.load(folder, device="cpu", dtype="float32")


@pytest.fixture
def perception(model: g2vlm.Model) -> Iterator[Perception]:
    perception = model.perceive(pictures(2))
    end = perception._prompts.end_token
    yield perception
    perception._prompts.end_token = end


def end_after(perception: Perception, ids: tuple[int, ...], place: int) -> int:
    """Let the token chosen at `place` end answers; returns where it appears first."""
    perception._prompts.end_token = ids[place]
    return ids.index(ids[place])


def test_reading_a_few_views_at_a_time_leaves_the_memory_of_one_pass(
    model: g2vlm.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = pictures(5)
    monkeypatch.setattr(perceiving, "SEMANTIC_VIEWS_PER_CHUNK", 2)
    found = model.perceive(photos)
    read = load_photos(photos).photos
    images = prepare_geometric(read, width=model.config.image_width, patch=14)
    semantic = prepare_semantic(read, model._semantic_preparation())
    whole = model._prompts.chat_beginning(images.pixels, semantic, model.view_attention)
    cache = KeyValueCache(CacheShape.of(model.config.mixture), whole.inputs.layout.num_tokens)
    with torch.inference_mode():
        model.network(whole.inputs, Wants(), cache)
    assert (found._cache.length, found._position) == (cache.length, whole.next_position)
    for layer in range(model.config.mixture.num_layers):
        for ours, expected in zip(found._cache.read(layer, 0), cache.read(layer, 0), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    # Planned to the token: nothing grows while photos are read.
    assert found._cache.capacity == model.memory_plan(5, *images.pixels.shape[-2:]).num_tokens


def test_streamed_pieces_join_to_the_text_and_never_hold_half_a_character(perception: Perception) -> None:
    """A random network writes arbitrary bytes, so that most characters come in pieces or break off."""
    for seed in range(6):
        pieces: list[str] = []
        sampling = Sampling(temperature=1.5, seed=seed)
        answer = perception.ask(QUESTION, max_new_tokens=40, sampling=sampling, on_text=pieces.append)
        assert "".join(pieces) == answer.text
        assert all(pieces), "empty pieces are not worth a call"
        tokenizer = perception._prompts.tokenizer
        assert answer.text == tokenizer.decode(answer.token_ids[:-1])


def test_a_character_of_several_tokens_is_streamed_in_one_piece(
    perception: Perception, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = perception._prompts.tokenizer.encode("é🙂好")
    assert len(ids) == 9

    def spell(_self: Generator, *_args: object) -> Iterator[list[list[int]]]:
        yield from ([[token]] for token in [*ids, 0])

    monkeypatch.setattr(Generator, "run", spell)
    pieces: list[str] = []
    assert perception.ask(QUESTION, on_text=pieces.append).text == "é🙂好"
    assert pieces == ["é", "🙂", "好"]


def test_an_unfinished_character_at_the_limit_is_marked_in_text_and_stream(
    perception: Perception, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = perception._prompts.tokenizer.encode("a🙂")[:3]

    def spell(_self: Generator, *_args: object) -> Iterator[list[list[int]]]:
        yield from ([[token]] for token in [*ids, 0])

    monkeypatch.setattr(Generator, "run", spell)
    pieces: list[str] = []
    assert perception.ask(QUESTION, on_text=pieces.append).text == "a�"
    assert "".join(pieces) == "a�"


def test_the_end_token_ends_the_answer_and_is_not_part_of_it(perception: Perception) -> None:
    ids = perception.ask(QUESTION, max_new_tokens=12).token_ids
    assert len(ids) == 12
    place = end_after(perception, ids, 7)
    pieces: list[str] = []
    answer = perception.ask(QUESTION, max_new_tokens=12, on_text=pieces.append)
    assert answer.finished
    assert answer.token_ids == ids[: place + 1]
    assert answer.text == "".join(pieces) == perception._prompts.tokenizer.decode(ids[:place])


def test_an_answer_may_end_at_once(perception: Perception) -> None:
    end_after(perception, perception.ask(QUESTION, max_new_tokens=1).token_ids, 0)
    answer = perception.ask(QUESTION, on_text=lambda piece: pytest.fail(f"streamed {piece!r}"))
    assert (answer.text, len(answer.token_ids), answer.finished) == ("", 1, True)


def test_the_limit_counts_passes(perception: Perception) -> None:
    long = perception.ask(QUESTION, max_new_tokens=9)
    for limit in (1, 2, 5):
        answer = perception.ask(QUESTION, max_new_tokens=limit)
        assert answer.token_ids == long.token_ids[:limit]
        assert not answer.finished


def test_a_question_longer_than_the_headroom_grows_the_memory_and_spoils_nothing(
    perception: Perception,
) -> None:
    before = perception.ask(QUESTION, max_new_tokens=10)
    size = perception.num_bytes
    perception.ask("word " * 300, max_new_tokens=5)
    assert perception.num_bytes > size
    assert perception.ask(QUESTION, max_new_tokens=10).token_ids == before.token_ids


def test_a_listener_that_fails_leaves_the_memory_clean(perception: Perception) -> None:
    before = perception.ask(QUESTION, max_new_tokens=10)

    def fail(_piece: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        perception.ask("Something else?", max_new_tokens=20, on_text=fail)
    assert perception.ask(QUESTION, max_new_tokens=10).token_ids == before.token_ids


QUESTIONS = ["How far?", "What is left of the chair, and what is to the right of it?", "x", "How far?"]


@pytest.mark.parametrize("remembered", [False, True])
def test_questions_side_by_side_get_the_answers_that_each_gets_alone(
    perception: Perception, remembered: bool
) -> None:
    if remembered:
        perception.ask("And before that?", max_new_tokens=5, remember=True)
    alone = [perception.ask(question, max_new_tokens=8).token_ids for question in QUESTIONS]
    together = perception.ask_many(QUESTIONS, max_new_tokens=8)
    assert [answer.token_ids for answer in together] == alone
    assert len(set(alone)) > 1
    assert perception.ask(QUESTIONS[1], max_new_tokens=8).token_ids == alone[1]


def test_a_row_that_ends_early_does_not_disturb_the_others(perception: Perception) -> None:
    plain = perception.ask_many(QUESTIONS, max_new_tokens=8)
    end_after(perception, plain[0].token_ids, 2)
    ended = [perception.ask(question, max_new_tokens=8) for question in QUESTIONS]
    together = perception.ask_many(QUESTIONS, max_new_tokens=8)
    assert [a.token_ids for a in together] == [a.token_ids for a in ended]
    assert [a.text for a in together] == [a.text for a in ended]
    assert together[0].finished
    assert len(together[0].token_ids) <= 3


def test_no_questions_give_no_answers(perception: Perception) -> None:
    assert perception.ask_many([]) == ()


def test_a_remembered_turn_is_read_by_the_next_and_can_be_forgotten(perception: Perception) -> None:
    photos = perception.num_tokens
    fresh = perception.ask(QUESTION, max_new_tokens=8)
    first = perception.ask("What is this?", max_new_tokens=6, remember=True)
    assert perception.num_tokens > photos
    follow_up = perception.ask(QUESTION, max_new_tokens=8)
    assert follow_up.token_ids != fresh.token_ids
    # The same conversation read as one text gives the same answer.
    prompts = perception._prompts
    start = perception._photos[1]
    ids = [
        *prompts.question_ids("What is this?"),
        *first.token_ids[:-1],
        *prompts.question_ids(QUESTION, follows_answer=True),
    ]
    perception.forget()
    assert perception.num_tokens == photos
    prompt = prompts.text(ids, start)
    perception._cache.reserve(len(ids) + 8)
    generator = Generator(perception._decoder, Sampling(), prompts.end_token)
    run = generator.run(
        Continuation(prompt, perception._cache, torch.tensor([prompt.next_position])),
        8,
        Stopwatch(torch.device("cpu")),
    )
    assert tuple(choices[0] for look in run for choices in look) == follow_up.token_ids
    perception.forget()
    assert perception.ask(QUESTION, max_new_tokens=8).token_ids == fresh.token_ids


def test_an_offloaded_memory_answers_as_before(perception: Perception) -> None:
    before = perception.ask(QUESTION, max_new_tokens=6)
    perception.offload()
    assert perception.ask(QUESTION, max_new_tokens=6).token_ids == before.token_ids


def test_photos_matter(model: g2vlm.Model) -> None:
    answers = {model.perceive(pictures(2, seed)).ask(QUESTION, max_new_tokens=8).token_ids for seed in (0, 1)}
    assert len(answers) == 2


def test_sampling_is_reproducible_by_its_seed(perception: Perception) -> None:
    def ask(seed: int) -> tuple[int, ...]:
        sampling = Sampling(temperature=1.0, seed=seed)
        return perception.ask(QUESTION, max_new_tokens=12, sampling=sampling).token_ids

    assert ask(1) == ask(1)
    assert ask(1) != ask(2)


@pytest.mark.parametrize("question", ["", "  ", "\n"])
def test_an_empty_question_is_an_error(perception: Perception, question: str) -> None:
    with pytest.raises(InputError, match="Expected a question, got an empty text"):
        perception.ask(question)
    with pytest.raises(InputError, match="Expected a question"):
        perception.ask_many(["fine", question])


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_an_error(perception: Perception, limit: int) -> None:
    with pytest.raises(InputError, match=re.escape(f"max_new_tokens of 1 or more, got {limit}")):
        perception.ask(QUESTION, max_new_tokens=limit)


def test_the_memory_counts_what_the_photos_take(perception: Perception, tmp_path: Path) -> None:
    # 112 x 84 pixels are 8 x 6 patches; 112 x 112 are 8 x 8 patches, merged to 4 x 4; two frames a picture.
    system = len(
        perception._prompts.tokenizer.encode(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        )
    )
    assert perception.num_tokens == system + 2 * (48 + 2) + 2 * (16 + 2)
