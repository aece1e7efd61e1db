"""Guesses from statistics alone: what a model scores that learned the answers and ignores the photos.

A blind run of a trained model can do worse than its knowledge, because grey photos or no photos are unlike
its training. These guesses cannot be thrown off that way. They know the questions' families and the right
answers of all other scenes of the benchmark.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from g2vlm.evaluation.metrics.answers import TOLERANCE, asked_unit, is_within, mean_relative_accuracy
from g2vlm.evaluation.records import AnswerRecord

GUESS = "guess"
"""Name of the guesses in place of a sight."""
_PRIOR = 4.0
"""Appearances at chance that a choice is credited with before it is counted: rare texts teach nothing."""
_LETTERS = "ABCDEFGHIJ"
_CANDIDATES = 500
"""Constants that are tried as the guess of a kind of number."""


class _Choices:
    """How often each text was the right one among the choices of its family, by scene."""

    def __init__(self) -> None:
        self._own: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
        self._all: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])

    def add(self, scene: int, record: AnswerRecord) -> None:
        """Take note of a question and its right choice."""
        for letter, text in zip(_LETTERS, record.choices, strict=False):
            for count in (self._own[record.family, text, scene], self._all[record.family, text]):
                count[0] += letter == record.truth
                count[1] += 1

    def guess(self, scene: int, record: AnswerRecord) -> str:
        """Letter of the choice that was right most often in other scenes; A where choices are unknown."""
        rates = [self._rate(scene, record, text) for text in record.choices]
        return _LETTERS[rates.index(max(rates))] if rates else "A"

    def _rate(self, scene: int, record: AnswerRecord, text: str) -> float:
        right, seen = self._all[record.family, text]
        own_right, own_seen = self._own[record.family, text, scene]
        return (right - own_right + _PRIOR / len(record.choices)) / (seen - own_seen + _PRIOR)


class _Numbers:
    """Right numbers of one kind of question."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._owners: list[int] = []

    def add(self, scene: int, value: float) -> None:
        """Take note of a right number."""
        self._values.append(value)
        self._owners.append(scene)

    def best_without(self, scenes: int) -> list[float | None]:
        """For each scene the constant within 25 % of most answers of the other scenes."""
        values, owners = np.array(self._values), np.array(self._owners)
        tried = np.unique(values)
        if len(tried) > _CANDIDATES:
            tried = np.unique(np.quantile(values, np.linspace(0, 1, _CANDIDATES), method="nearest"))
        hits = np.abs(tried[:, None] - values) <= (TOLERANCE + 1e-9) * np.abs(values)
        own = np.zeros((len(tried), scenes))
        np.add.at(own.T, owners, hits.T)
        others = hits.sum(axis=1, keepdims=True) - own
        best = tried[others.argmax(axis=0)]
        alone = np.bincount(owners, minlength=scenes) == len(values)
        return [None if alone[scene] else float(best[scene]) for scene in range(scenes)]


def guesses(answers: Sequence[Sequence[AnswerRecord]]) -> list[tuple[AnswerRecord, ...]]:
    """Guess the answer to every question from the other scenes' questions.

    Args:
        answers: the records of each scene, of one sight.

    Returns:
        The same questions in the same order, answered by guesses. A choice is guessed by how often its text
        was right among the appearances in the family; a number is the best constant of family and unit.
    """
    choices, numbers = _Choices(), defaultdict[tuple[str, str | None], _Numbers](_Numbers)
    for scene, records in enumerate(answers):
        for record in records:
            if record.is_choice:
                choices.add(scene, record)
            else:
                numbers[_kind(record)].add(scene, float(record.truth))
    constants = {kind: known.best_without(len(answers)) for kind, known in numbers.items()}

    def guess(record: AnswerRecord, scene: int) -> AnswerRecord:
        if record.is_choice:
            letter = choices.guess(scene, record)
            is_right = letter == record.truth
            return replace(record, sight=GUESS, answer=letter, read=letter, is_right=is_right, mra=None)
        value, true = constants[_kind(record)][scene], float(record.truth)
        text = "" if value is None else f"{value:g}"
        mra = mean_relative_accuracy(value, true)
        is_right = is_within(value, true)
        return replace(record, sight=GUESS, answer=text, read=text or None, is_right=is_right, mra=mra)

    return [tuple(guess(record, scene) for record in records) for scene, records in enumerate(answers)]


def _kind(record: AnswerRecord) -> tuple[str, str | None]:
    return record.family, asked_unit(record.question)
