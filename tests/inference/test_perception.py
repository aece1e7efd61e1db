"""Asking: streaming, memory, batches, limits; on a very small random network."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import InputError
from g2vlm.inference import perceiving
from g2vlm.inference.answers import Ending, Transcript
from g2vlm.inference.perception import Perception
from g2vlm.inference.sampling import Sampling
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import prepare_semantic
from g2vlm.model.cache import BLOCK_TOKENS, CacheShape, KeyValueCache
from g2vlm.model.network import Wants
from g2vlm.model.row_cache import Prefill

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
    assert (found.num_tokens, found._memory.position) == (cache.length, whole.next_position)
    ((ours,), (expected,)) = found._memory.beginning, cache.segments()
    torch.testing.assert_close(ours.keys, expected.keys, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.values, expected.values, atol=1e-5, rtol=1e-4)
    # Planned to the token: photos take what they fill.
    assert found.num_tokens == model.memory_plan(5, *images.pixels.shape[-2:]).num_photo_tokens
    assert found.num_bytes == ours.keys.nbytes + ours.values.nbytes


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


def test_a_character_of_several_tokens_is_streamed_in_one_piece(perception: Perception) -> None:
    ids = perception._prompts.tokenizer.encode("é🙂好")
    assert len(ids) == 9
    pieces: list[str] = []
    transcript = Transcript(perception._prompts.tokenizer, pieces.append)
    for count in range(len(ids) + 2):
        transcript.follow([*ids, 0][:count])
    assert transcript.finish() == "é🙂好"
    assert pieces == ["é", "🙂", "好"]


def test_an_unfinished_character_at_the_limit_is_marked_in_text_and_stream(perception: Perception) -> None:
    ids = perception._prompts.tokenizer.encode("a🙂")[:3]
    pieces: list[str] = []
    transcript = Transcript(perception._prompts.tokenizer, pieces.append)
    transcript.follow([*ids, 0])
    assert transcript.finish() == "a�"
    assert "".join(pieces) == "a�"


def test_the_end_token_ends_the_answer_and_is_not_part_of_it(perception: Perception) -> None:
    ids = perception.ask(QUESTION, max_new_tokens=12).token_ids
    assert len(ids) == 12
    place = end_after(perception, ids, 7)
    pieces: list[str] = []
    answer = perception.ask(QUESTION, max_new_tokens=12, on_text=pieces.append)
    assert answer.finished
    assert answer.ending is Ending.MODEL
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
        assert answer.ending is Ending.LIMIT


def test_a_long_question_takes_nothing_of_the_memory_and_spoils_nothing(perception: Perception) -> None:
    """The buffers of the photos once doubled for it, and stayed so."""
    before = perception.ask(QUESTION, max_new_tokens=10)
    size = perception.num_bytes
    perception.ask("word " * 700, max_new_tokens=5)
    assert perception.num_bytes == size
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
    ids = [
        *prompts.question_ids("What is this?"),
        *first.token_ids[:-1],
        *prompts.question_ids(QUESTION, follows_answer=True),
    ]
    perception.forget()
    assert perception.num_tokens == photos
    whole = replace(perception.question(QUESTION, max_new_tokens=8), token_ids=tuple(ids))
    ((answer, _),) = perception._answers([whole], None)
    assert answer.token_ids == follow_up.token_ids
    assert perception.ask(QUESTION, max_new_tokens=8).token_ids == fresh.token_ids


def test_a_conversation_grows_by_blocks_and_the_photos_stay_where_they_are(perception: Perception) -> None:
    (photos,) = perception._memory.photos
    for _ in range(6):
        perception.ask("word " * 50, max_new_tokens=3, remember=True)
    assert perception._memory.photos == (photos,)
    blocks = perception._memory.conversation
    assert len(blocks) == 2
    assert blocks[0].num_tokens == BLOCK_TOKENS
    block = CacheShape.of(perception._network.config.mixture).num_bytes(BLOCK_TOKENS, torch.float32)
    assert perception.num_bytes == photos.num_bytes + 2 * block
    assert perception.num_tokens == photos.num_tokens + sum(one.num_tokens for one in blocks)


def test_an_offloaded_memory_answers_as_before(perception: Perception) -> None:
    perception.ask("What is this?", max_new_tokens=4, remember=True)
    before = perception.ask(QUESTION, max_new_tokens=6)
    perception.offload()
    assert perception.ask(QUESTION, max_new_tokens=6).token_ids == before.token_ids


def test_what_was_moved_is_continued_in_a_new_block(perception: Perception) -> None:
    """As after an offload to another device, of which a machine without a GPU has none."""
    alike = perception.ask("What is this?", max_new_tokens=4, remember=True)
    first = perception.ask(QUESTION, max_new_tokens=6, remember=True)
    expected = perception.ask(QUESTION, max_new_tokens=6)
    perception.forget()
    assert perception.ask("What is this?", max_new_tokens=4, remember=True).token_ids == alike.token_ids
    moved = perception._memory.to("cpu")
    perception._memory, perception._turns, perception._earlier = moved, None, moved.conversation
    assert perception.ask(QUESTION, max_new_tokens=6, remember=True).token_ids == first.token_ids
    assert len(perception._memory.conversation) == 2
    assert perception.ask(QUESTION, max_new_tokens=6).token_ids == expected.token_ids


def test_photos_matter(model: g2vlm.Model) -> None:
    answers = {model.perceive(pictures(2, seed)).ask(QUESTION, max_new_tokens=8).token_ids for seed in (0, 1)}
    assert len(answers) == 2


def test_sampling_is_reproducible_by_its_seed(perception: Perception) -> None:
    def ask(seed: int) -> tuple[int, ...]:
        sampling = Sampling(temperature=1.0, seed=seed)
        return perception.ask(QUESTION, max_new_tokens=12, sampling=sampling).token_ids

    assert ask(1) == ask(1)
    assert ask(1) != ask(2)


def test_questions_side_by_side_draw_by_themselves(perception: Perception) -> None:
    sampling = Sampling(temperature=1.0, seed=4)
    found = perception.ask_many([QUESTION] * 3, max_new_tokens=12, sampling=sampling)
    alone = [
        perception.ask(QUESTION, max_new_tokens=12, sampling=replace(sampling, seed=4 + number))
        for number in range(3)
    ]
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in alone]
    assert len({answer.token_ids for answer in found}) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_log_probabilities_are_those_of_the_model(
    perception: Perception, model: g2vlm.Model, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature)
    answer = perception.ask(QUESTION, max_new_tokens=6, sampling=sampling)
    asked = perception.question(QUESTION)
    ids = [*asked.token_ids, *answer.token_ids[:-1]]
    prefill = Prefill([asked.beginning], [len(ids)], torch.device("cpu"))
    inputs = perception._prompts.texts([ids], [asked.position])
    slots = torch.arange(len(asked.token_ids) - 1, len(ids))
    with torch.inference_mode():
        logits = model.network(inputs, Wants(logit_slots=slots), prefill).logits
    expected = logits[0].log_softmax(dim=-1)[torch.arange(6), list(answer.token_ids)]
    np.testing.assert_allclose(answer.log_probabilities, expected, rtol=0, atol=1e-4)
    assert answer.log_probability == pytest.approx(float(expected.mean()), abs=1e-4)
    assert answer.confidence == pytest.approx(float(expected.mean().exp()), rel=1e-3)
    (beside, _) = perception.ask_many([QUESTION, "What else?"], max_new_tokens=6, sampling=sampling)
    np.testing.assert_allclose(beside.log_probabilities, answer.log_probabilities, atol=1e-4)


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
