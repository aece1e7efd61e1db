"""Guesses from statistics alone: what a model scores that learned the answers and ignores the photos.

A blind run of a trained model can do worse than its knowledge, because grey photos or no photos are unlike its
training. These guesses cannot be thrown off that way. They know the questions' families and the right answers
of all other scenes of the benchmark.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from g2vlm.evaluation.metrics.answers import asked_unit, is_within, mean_relative_accuracy
from g2vlm.evaluation.records import AnswerRecord

GUESS = "guess"
"""Name of the guesses in place of a sight."""
_PRIOR = 4.0
"""Appearances at chance that a choice is credited with before it is counted: rare texts teach nothing."""
_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class _Numbers:
    """Right numbers of one kind of question by scene."""

    values: tuple[tuple[int, float], ...]

    def best_without(self, scene: int) -> float | None:
        """The answer of another scene that lies within 25 % of most other scenes' answers."""
        others = [value for owner, value in self.values if owner != scene]
        if not others:
            return None
        return max(others, key=lambda guess: (sum(is_within(guess, true) for true in others), -guess))


def guesses(answers: Sequence[Sequence[AnswerRecord]]) -> list[tuple[AnswerRecord, ...]]:
    """Guess the answer to every question from the other scenes' questions.

    Args:
        answers: the records of each scene, of one sight.

    Returns:
        The same questions in the same order, answered by guesses. A choice is guessed by how often its text
        was right among the appearances in the family; a number is the best constant of family and unit.
    """
    wins: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    numbers: dict[tuple[str, str | None], list[tuple[int, float]]] = defaultdict(list)
    for scene, records in enumerate(answers):
        for record in records:
            if record.is_choice:
                for letter, choice in zip(_LETTERS, record.choices, strict=False):
                    count = wins[record.family, choice][scene]
                    count[0] += letter == record.truth
                    count[1] += 1
            else:
                numbers[_kind(record)].append((scene, float(record.truth)))
    totals = {key: [sum(column) for column in zip(*own.values(), strict=True)] for key, own in wins.items()}

    def rate(record: AnswerRecord, choice: str, scene: int) -> float:
        right, seen = totals[record.family, choice]
        own_right, own_seen = wins[record.family, choice][scene]
        chance = 1 / max(len(record.choices), 1)
        return (right - own_right + _PRIOR * chance) / (seen - own_seen + _PRIOR)

    def guess(record: AnswerRecord, scene: int) -> AnswerRecord:
        if record.is_choice:
            best = max(record.choices, key=lambda choice: rate(record, choice, scene), default="")
            letter = _LETTERS[record.choices.index(best)] if record.choices else "A"
            return replace(
                record, sight=GUESS, answer=letter, read=letter, is_right=letter == record.truth, mra=None
            )
        value = _Numbers(tuple(numbers[_kind(record)])).best_without(scene)
        true, text = float(record.truth), "" if value is None else f"{value:g}"
        return replace(
            record,
            sight=GUESS,
            answer=text,
            read=text or None,
            is_right=is_within(value, true),
            mra=mean_relative_accuracy(value, true),
        )

    return [tuple(guess(record, scene) for record in records) for scene, records in enumerate(answers)]


def _kind(record: AnswerRecord) -> tuple[str, str | None]:
    return record.family, asked_unit(record.question)
