"""Words about the example photos: whether they are words, and whether they are true."""

import itertools
import random
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from g2vlm.evaluation.checkup.examples import ExampleQuestion, Examples
from g2vlm.evaluation.checkup.looking import Looker, SeenPhotos
from g2vlm.evaluation.checkup.rows import Group, Limits, Row
from g2vlm.inference.batch import AnswerBatch, Question, RunningAnswer
from g2vlm.inputs.photo import Photo

ASKED = 4
"""Questions that are answered in full."""
LONGEST = 60
"""Passes of an answer."""
GREY = 128
"""Value of the pictures that show nothing."""
_MOST_REPEATED = 8
_WRITTEN = "LNPZ"
"""Kinds of characters that text is made of: letters, numbers, punctuation, spaces."""


@dataclass(frozen=True)
class AnswerFigures:
    """How unlikely answers about the example photos are to the model: see `surprises`."""

    true: Float[Tensor, " questions"]
    """True answers."""
    disordered: Float[Tensor, " questions"]
    """The same words in disorder."""
    blind: Float[Tensor, " questions"]
    """True answers with grey pictures in place of the photos."""


def surprises(
    look: Looker, seen: SeenPhotos, examples: Examples, *, disorder: bool = False
) -> Float[Tensor, " questions"]:
    """How unlikely each true answer is to the model, or its words in disorder.

    Returns:
        Mean negative log-probability of a token, nats.
    """
    asked = examples.questions
    answers = [
        look.model.tokenizer.encode(_disordered(question) if disorder else question.reasoned)
        for question in asked
    ]
    found = look.log_probabilities(seen, [question.text for question in asked], answers)
    return torch.stack([-chances.mean() for chances in found])


def _disordered(question: ExampleQuestion) -> str:
    words = question.reasoned.split()
    random.Random(0).shuffle(words)
    return " ".join(words)


def measure_answers(look: Looker, seen: SeenPhotos, examples: Examples) -> AnswerFigures:
    """Put probabilities on answers whose truth is known."""
    grey = [Photo(Image.new("RGB", photo.size, (GREY,) * 3), photo.name) for photo in look.photos]
    return AnswerFigures(
        true=surprises(look, seen, examples),
        disordered=surprises(look, seen, examples, disorder=True),
        blind=surprises(look, Looker(look.model, grey).look(), examples),
    )


def word_rows(look: Looker, seen: SeenPhotos, examples: Examples, limits: Limits) -> Iterator[Row]:
    """Ask, and read the answers as they are decoded for users."""
    questions = examples.questions[:ASKED]
    answers = decode(look, seen, questions)
    texts = [look.model.tokenizer.decode(answer.token_ids[:-1]) for answer in answers]
    poor = [text for text in texts if not is_language(text)]
    yield Row(
        Group.ANSWERS,
        "words",
        not poor,
        " / ".join(repr(_cut(text)) for text in poor or texts[:2]),
        "words",
        '"!!!!", one word again and again, or half characters',
    )
    asked = [question.text for question in questions]
    again = look.log_probabilities(seen, asked, [answer.token_ids for answer in answers])
    gaps = [
        (torch.tensor(answer.log_probabilities) - chances).abs().mean()
        for answer, chances in zip(answers, again, strict=True)
    ]
    yield _at_most(
        "decoding token by token against one pass",
        float(torch.stack(gaps).mean()),
        limits.decoding,
        "nats apart",
        "0.3 or more: a KV cache, a position or a kernel is wrong",
        Group.CONSISTENCY,
    )


def truth_rows(found: AnswerFigures, limits: Limits) -> Iterator[Row]:
    """Judge how likely true answers are."""
    true, disordered, blind = (float(kind.mean()) for kind in (found.true, found.disordered, found.blind))
    yield _at_most(
        "true answers against their words in disorder",
        true / disordered,
        limits.word_order,
        f"({true:.3f} against {disordered:.3f} nats a token)",
        "about 1: the language side is broken, or its head",
    )
    yield _at_most(
        "true answers with the photos against grey ones",
        true / blind,
        limits.blindness,
        f"({true:.3f} against {blind:.3f} nats a token)",
        "1 or more: the photos do not reach the language side",
    )


def _at_most(
    subject: str, value: float, limit: float, unit: str, broken: str, group: Group = Group.ANSWERS
) -> Row:
    return Row(group, subject, value <= limit, f"{value:.3f} {unit}", f"{limit:g} or less", broken)


def decode(look: Looker, seen: SeenPhotos, questions: Sequence[ExampleQuestion]) -> list[RunningAnswer]:
    """Answers in the way that this model decodes them for users, greedy, one after the other."""
    answers = []
    for question in questions:
        ids = tuple(look.prompts.question_ids(question.text))
        with AnswerBatch(look.model.decoder(), look.prompts) as batch:
            answers.append(batch.add(Question(ids, seen.beginning, seen.position, LONGEST)))
            while batch.is_busy:
                batch.step()
    return answers


def is_language(text: str) -> bool:
    """Whether a text looks like words: letters, in changing order, no half characters."""
    words = text.split()
    if not any(character.isalnum() for character in text) or "\ufffd" in text:
        return False
    plain = sum(unicodedata.category(character)[0] in _WRITTEN for character in text)
    repeated = longest = 1
    for before, word in itertools.pairwise(words):
        repeated = repeated + 1 if word == before else 1
        longest = max(longest, repeated)
    commonest = max(text.count(character) for character in set(text) if character != " ")
    varied = len(text) < 8 or commonest < 0.5 * len(text)
    return plain >= 0.8 * len(text) and longest < _MOST_REPEATED and varied


def _cut(text: str, most: int = 70) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
