"""What a benchmark hands to the runner: scenes to reconstruct, and questions with their answers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from g2vlm.evaluation.geometry import GeometryOptions, SceneTruth
from g2vlm.evaluation.metrics.answers import (
    asked_unit,
    is_within,
    mean_relative_accuracy,
    read_choice,
    read_number,
    says_missing,
)
from g2vlm.evaluation.records import AnswerRecord

Judge = Callable[..., tuple[str | None, float]]
"""A benchmark's own rules: from an answer and its `Item` to what is read from it (None where nothing can be)
and its score from 0 to 1."""


@dataclass(frozen=True)
class Aggregate:
    """A figure that a benchmark publishes: a weighted mean over its families."""

    key: str
    label: str
    weights: dict[str, float] = field(default_factory=dict, hash=False)
    """Weight of the mean of each family; empty: all questions alike."""
    only: tuple[str, ...] = ()
    """Families that count, all if empty; for questions that count alike."""

    @classmethod
    def of_groups(cls, key: str, label: str, groups: Sequence[Sequence[str]]) -> "Aggregate":
        """The mean over groups of the mean over their families."""
        return cls(key, label, {name: 1 / len(group) for group in groups for name in group})


@dataclass(frozen=True)
class Item:
    """A question with its true answer."""

    family: str
    """What it is about."""
    text: str
    """All that the model reads, choices included."""
    truth: str
    """A letter, or a number."""
    is_choice: bool
    choices: tuple[str, ...] = ()
    """Texts of the choices, in the order of their letters."""
    needs_multiple_views: bool = False
    missing: str = ""
    """The word for something that is not there, or that the model cannot know; empty for other questions."""
    judge_by: Judge | None = None
    """The benchmark's own rules; the general ones of `metrics.answers` if None."""

    def judge(self, answer: str, sight: str) -> AnswerRecord:
        """Read and judge what a model wrote."""
        mra = score = None
        read: str | None
        if self.judge_by is not None:
            read, score = self.judge_by(answer, self)
            is_right = score >= 1 - 1e-9
            if not self.is_choice:
                value = None if read is None else float(read)
                is_right = is_within(value, float(self.truth))
                mra = mean_relative_accuracy(value, float(self.truth))
        elif self.missing:
            read, is_right = answer or None, says_missing(answer, self.missing)
        elif self.is_choice:
            read = read_choice(answer, self.choices)
            is_right = read == self.truth
        else:
            value, true = read_number(answer, asked_unit(self.text)), float(self.truth)
            read, is_right = None if value is None else f"{value:g}", is_within(value, true)
            mra = mean_relative_accuracy(value, true)
        return AnswerRecord(
            sight=sight,
            family=self.family,
            is_choice=self.is_choice,
            needs_multiple_views=self.needs_multiple_views,
            question=self.text,
            choices=self.choices,
            truth=self.truth,
            answer=answer,
            read=read,
            is_right=is_right,
            mra=mra,
            is_missing=bool(self.missing),
            score=score,
        )


_INLINE_CHOICE = re.compile(
    r"(?:^|\s)\(?(?P<letter>[A-J])[.):]\s*(?P<text>.+?)(?=\s+\(?[A-J][.):]\s|\s+Answer with\b|\s*$)",
    re.DOTALL,
)


def inline_choices(question: str) -> tuple[str, ...]:
    """Texts of the choices that a question lists as "A. left B. right"; empty where it lists none.

    Letters must come in order from A; anything else is taken for prose.
    """
    found = [(match["letter"], match["text"].strip(" \n.;,")) for match in _INLINE_CHOICE.finditer(question)]
    in_order = [letter for letter, _ in found] == list("ABCDEFGHIJ"[: len(found)])
    return tuple(text for _, text in found) if in_order else ()


@dataclass(frozen=True, eq=False)
class ItemGroup:
    """Questions about the same photos."""

    photos: tuple[Image.Image, ...]
    """In the order in which the questions count them."""
    items: tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class Trial:
    """One scene of a benchmark."""

    photos: tuple[Image.Image, ...] = ()
    """To reconstruct; empty where there is no geometry to measure."""
    truth: SceneTruth | None = None
    """About these photos, at their resolution."""
    groups: tuple[ItemGroup, ...] = ()
    """Questions."""
    other_ways: dict[str, tuple[ItemGroup, ...]] = field(default_factory=dict)
    """The same questions asked in other ways, by their names; with full sight only."""
    part: str = ""
    """What the scene belongs to in tables, such as a set or a category; empty where all are alike."""


@runtime_checkable
class Benchmark(Protocol):
    """A list of scenes with truth."""

    @property
    def task(self) -> str:
        """Name and version, such as "synthetic-1": the version changes whenever figures may."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All choices that the figures depend on, as JSON values."""
        ...

    @property
    def geometry_options(self) -> GeometryOptions:
        """How reconstructions are measured."""
        ...

    def scenes(self) -> Sequence[str]:
        """Names of the scenes, in order."""
        ...

    def load(self, scene: str) -> Trial:
        """Photos, truth and questions of one scene.

        Raises:
            InputError: the scene cannot be read.
        """
        ...
