"""Guesses from statistics alone: what a model scores that learned the answers and ignores the photos.

A blind run of a trained model can do worse than its knowledge, because grey photos or no photos are unlike
its training. These guesses cannot be thrown off that way. They know the questions' families and the right
answers of half of the scenes, and guess in the other half; then the halves change places. (Leaving out one
scene at a time would not do: where two answers are equally frequent, the one left out would always be the
rarer one.)
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

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


class _Half:
    """What the right answers of one half of the scenes teach."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._numbers: dict[tuple[str, str | None], list[float]] = defaultdict(list)

    def add(self, record: AnswerRecord) -> None:
        """Take note of a question and its right answer."""
        if record.is_missing:
            return
        if not record.is_choice:
            self._numbers[_kind(record)].append(float(record.truth))
        for letter, text in zip(_LETTERS, record.choices, strict=False):
            count = self._texts[record.family, text]
            count[0] += letter == record.truth
            count[1] += 1

    @cached_property
    def _constants(self) -> dict[tuple[str, str | None], float]:
        return {kind: _best_constant(np.array(values)) for kind, values in self._numbers.items()}

    def answer(self, record: AnswerRecord) -> AnswerRecord:
        """Guess the answer to a question of the other half; nothing where its kind never came up."""
        read: str | None
        if record.is_missing:
            # Whoever guesses takes for granted that things are there.
            return replace(record, sight=GUESS, answer="", read=None, is_right=False)
        if record.is_choice:
            rates = [self._rate(record, text) for text in record.choices]
            read = _LETTERS[rates.index(max(rates))] if rates else "A"
            is_right, mra = read == record.truth, None
        else:
            value = self._constants.get(_kind(record))
            read = None if value is None else f"{value:g}"
            true = float(record.truth)
            is_right, mra = is_within(value, true), mean_relative_accuracy(value, true)
        return replace(record, sight=GUESS, answer=read or "", read=read, is_right=is_right, mra=mra)

    def _rate(self, record: AnswerRecord, text: str) -> float:
        right, seen = self._texts.get((record.family, text), (0, 0))
        return (right + _PRIOR / len(record.choices)) / (seen + _PRIOR)


def _best_constant(values: np.ndarray) -> float:
    """The number that lies within 25 % of most of the given ones."""
    tried = np.unique(values)
    if len(tried) > _CANDIDATES:
        tried = np.unique(np.quantile(values, np.linspace(0, 1, _CANDIDATES), method="nearest"))
    hits = np.abs(tried[:, None] - values) <= (TOLERANCE + 1e-9) * np.abs(values)
    return float(tried[hits.sum(axis=1).argmax()])


def guesses(answers: Sequence[Sequence[AnswerRecord]]) -> list[tuple[AnswerRecord, ...]]:
    """Guess the answer to every question from the questions of half of the scenes.

    Args:
        answers: the records of each scene, of one sight.

    Returns:
        The same questions in the same order, answered by guesses. A choice is guessed by how often its text
        was right among its appearances in the family; a number is the best constant of family and unit.
    """
    halves = (_Half(), _Half())
    for scene, records in enumerate(answers):
        for record in records:
            halves[scene % 2].add(record)
    return [
        tuple(halves[1 - scene % 2].answer(record) for record in records)
        for scene, records in enumerate(answers)
    ]


def _kind(record: AnswerRecord) -> tuple[str, str | None]:
    return record.family, asked_unit(record.question)
