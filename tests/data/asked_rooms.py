"""Rooms with questions about them, and how tests look into these."""

from collections.abc import Iterator

from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.question import Question, QuestionFamily
from g2vlm.data.samples import SceneSample
from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.config import full_world
from g2vlm.data.world.layout import make_room

Asked = tuple[SceneSample, Question]


def ask_rooms() -> list[Asked]:
    """Sixty rooms, up to ten questions each."""
    config, collected = full_world(), []
    for first in range(0, 60, 15):
        rooms = [make_room(seed, config) for seed in range(first, first + 15)]
        batch = render_batch(config, rooms, ViewShape(4, 48, 64))
        for index in range(len(batch)):
            sample = batch.sample(index)
            collected += [(sample, question) for question in make_questions(sample, 10)]
    return collected


def of_family(asked: list[Asked], *families: QuestionFamily) -> Iterator[Asked]:
    return ((sample, question) for sample, question in asked if question.family in families)


def chosen(question: Question) -> str:
    """The text of the right choice."""
    return question.choices["ABCD".index(question.answer)]
