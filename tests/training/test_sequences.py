import pytest
import torch
from small_runs import small_start

from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inputs.semantic import SemanticImages
from g2vlm.inputs.spans import TURN_END
from g2vlm.model.config import ViewAttention
from g2vlm.model.network import Wants
from g2vlm.training.sequences import Opening, QuestionAnswer, SequenceBuilder, ViewSet

PAIRS = [
    QuestionAnswer("Which is nearer?", "A"),
    QuestionAnswer("How far is the chair?", "2.4"),
    QuestionAnswer("How many?", "3"),
]


@pytest.fixture(scope="module")
def start(training_checkpoint, tmp_path_factory):
    return small_start(training_checkpoint, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def views():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, 3, 42, 56, generator=generator)
    semantic = tuple(
        SemanticImages(torch.randn(2, 16, 3 * 2 * 14 * 14, generator=generator), 4, 4) for _ in range(2)
    )
    return ViewSet(images, semantic)


def one(views, i):
    return ViewSet(views.images[i : i + 1], views.semantic[i : i + 1])


def answer_logits(start, inputs, answers):
    with torch.no_grad():
        return start.network(inputs, Wants(logit_slots=answers.slots)).logits


@pytest.mark.parametrize("attention", ViewAttention)
def test_questions_side_by_side_equal_questions_alone(start, views, attention):
    builder = SequenceBuilder(start.tokenizer, start.network.config)
    dialogues = [PAIRS, PAIRS[::-1][:2]]
    inputs, answers = builder.build(views, Opening.CHAT, attention, dialogues)
    logits = answer_logits(start, inputs, answers)
    together = [logits[i][answers.is_answer[i]] for i in range(2)]
    targets = [answers.tokens[i][answers.is_answer[i]] for i in range(2)]
    for i, dialogue in enumerate(dialogues):
        alone, alone_targets = [], []
        for pair in sorted(dialogue, key=lambda pair: -len(builder._encode(pair)[0])):
            single, wanted = builder.build(one(views, i), Opening.CHAT, attention, [[pair]])
            alone.append(answer_logits(start, single, wanted)[0][wanted.is_answer[0]])
            alone_targets.append(wanted.tokens[0][wanted.is_answer[0]])
        assert torch.equal(targets[i], torch.cat(alone_targets))
        torch.testing.assert_close(together[i], torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_a_question_does_not_see_the_others(start, views):
    builder = SequenceBuilder(start.tokenizer, start.network.config)
    changed = [PAIRS[0], QuestionAnswer("Something entirely else, and longer?", "9.9"), PAIRS[2]]
    length = 3 * [len(start.tokenizer.encode(changed[1].question)) + 40]
    results = []
    for dialogue in (PAIRS, changed):
        # Equal padding, so that slots of the last question agree.
        padded = [*dialogue[:2], QuestionAnswer("x" * length[0], "1"), dialogue[2]]
        inputs, answers = builder.build(one(views, 0), Opening.CHAT, ViewAttention.GLOBAL, [padded])
        logits = answer_logits(start, inputs, answers)[0][answers.is_answer[0]]
        results.append(logits[-len(start.tokenizer.encode("3")) - 1 :])
    torch.testing.assert_close(*results)


def test_training_sequence_is_the_inference_prompt(start, views):
    config, tokenizer = start.network.config, start.tokenizer
    builder = SequenceBuilder(tokenizer, config)
    inputs, answers = builder.build(one(views, 0), Opening.CHAT, ViewAttention.GLOBAL, [PAIRS[:1]])
    prompts = PromptBuilder(tokenizer, config, torch.device("cpu"))
    beginning = prompts.chat_beginning(views.images[0], views.semantic[0], ViewAttention.GLOBAL)
    question = prompts.text(prompts.question_ids(PAIRS[0].question), beginning.next_position)
    prompt = torch.cat([beginning.inputs.token_ids, question.inputs.token_ids], dim=1)
    end = tokenizer.token_id(TURN_END)
    expected = [*prompt[0].tolist(), *tokenizer.encode(PAIRS[0].answer), end]
    assert inputs.token_ids[0].tolist() == expected
    assert torch.equal(inputs.layout.geometric_positions, beginning.inputs.layout.geometric_positions)
    known = torch.cat(
        [beginning.inputs.layout.semantic_positions, question.inputs.layout.semantic_positions], dim=1
    )
    assert torch.equal(inputs.layout.semantic_positions[:, : known.shape[1]], known)
    assert answers.tokens[answers.is_answer].tolist() == [*tokenizer.encode(PAIRS[0].answer), end]
    # The first answer token is predicted where inference predicts it: at the last token of the prompt.
    assert int(answers.slots[0]) == known.shape[1] - 1


def test_padding_is_never_learned(start, views):
    builder = SequenceBuilder(start.tokenizer, start.network.config)
    _, answers = builder.build(views, Opening.CHAT, ViewAttention.GLOBAL, [PAIRS, PAIRS[:1]])
    assert int(answers.is_answer[1].sum()) == len(start.tokenizer.encode("A")) + 1
    assert not (answers.tokens[answers.is_answer] == builder.padding).any()
