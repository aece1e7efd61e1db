"""Questions of one's own: a JSON-lines file with images beside it.

The file is the one that fine-tuning reads (`g2vlm.data.question_file`). Answers are a letter of a choice that
the question lists ("A. left B. right"), a number, with or without a unit, or a few words, which must be said
exactly but for case, articles and punctuation; in <answer> tags or plain.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from g2vlm.data.question_file import Conversation, Turn, read_question_file
from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions
from g2vlm.evaluation.metrics.answers import (
    DEGREES,
    METRES,
    mean_relative_accuracy,
    plain_words,
    read_number,
)
from g2vlm.evaluation.trials import Item, ItemGroup, Trial, inline_choices
from g2vlm.inputs.photos import load_photos

VERSION = 1
LAYOUT = "a .jsonl file of questions in LLaVA's layout, images beside it"
_MEASURED = re.compile(
    r"(?:about|approximately|around)?\s*(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    rf"(?:\s*(?P<unit>{'|'.join(sorted((*METRES, *DEGREES), key=len, reverse=True))}))?\.?",
    re.IGNORECASE,
)
_MOST_WORDS = 5
"""Longer answers are sentences, which nobody gives word for word."""


@dataclass(frozen=True)
class QuestionFileBenchmark:
    """All conversations of a file; each of their turns is asked by itself.

    Raises:
        InputError: the file is missing or malformed, or an answer is neither a letter nor a number.
    """

    path: Path
    num_scenes: int | None = None
    """At most so many conversations; all if None."""
    geometry_options: GeometryOptions = field(default_factory=GeometryOptions)
    name: str = "question_file"
    families: dict[str, str] = field(default_factory=dict, hash=False)
    """Family of each conversation by its identifier; "question" where not given."""
    conversations: tuple[Conversation, ...] = ()
    """Read from `path` if empty."""

    def __post_init__(self) -> None:
        if not self.conversations:
            object.__setattr__(self, "conversations", read_question_file(self.path))
        for conversation in self.conversations:
            self._items(conversation)

    @property
    def task(self) -> str:
        """Name and version."""
        return f"{self.name}-{VERSION}"

    @property
    def settings(self) -> dict[str, Any]:
        """The file by name and content."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        return {"file": self.path.name, "sha256": digest, "num_scenes": len(self.scenes())}

    def scenes(self) -> Sequence[str]:
        """Line by line; identifiers alone may repeat."""
        names = [f"{number}:{one.identifier}" for number, one in enumerate(self.conversations, start=1)]
        return names[: self.num_scenes]

    def load(self, scene: str) -> Trial:
        """Decode the images of one conversation."""
        conversation = self.conversations[int(scene.split(":", 1)[0]) - 1]
        return Trial(groups=(ItemGroup(_decode(conversation.images), self._items(conversation)),))

    def _items(self, conversation: Conversation) -> tuple[Item, ...]:
        family = self.families.get(conversation.identifier, "question")
        return tuple(item_of(turn, conversation.identifier, family) for turn in conversation.turns)


def item_of(turn: Turn, identifier: str, family: str = "question") -> Item:
    """A question of a file as an item to be judged.

    Raises:
        InputError: its answer cannot be judged: it is no letter, no number and no short text.
    """
    choices = inline_choices(turn.question)
    tagged = re.findall(r"<answer>(.*?)</answer>", turn.answer, re.IGNORECASE | re.DOTALL)
    truth = (tagged[-1] if tagged else turn.answer).strip()
    letter = truth.strip("(). ")
    if re.fullmatch(r"[A-J]", letter):
        return Item(family, turn.question, letter, True, choices)
    measured = _MEASURED.fullmatch(truth)
    if measured is not None:
        unit = measured["unit"]
        rule = None if unit is None else partial(judge_measured, unit=unit)
        return Item(family, turn.question, measured["number"], False, judge_by=rule)
    if 0 < len(plain_words(truth).split()) <= _MOST_WORDS:
        return Item(family, turn.question, truth, True, judge_by=judge_words)
    raise InputError(
        f"{identifier}: expected an answer that can be judged, a letter (A to J), a number or at most "
        f"{_MOST_WORDS} words, got {turn.answer[:60]!r}: leave such questions out of the file."
    )


def judge_words(answer: str, item: Item) -> tuple[str | None, float]:
    """Right if it says the same words, whatever the case, articles and punctuation."""
    said = plain_words(answer)
    return (said or None), float(said == plain_words(item.truth))


def judge_measured(answer: str, item: Item, unit: str) -> tuple[str | None, float]:
    """A number in the unit of the truth; the score is its mean relative accuracy."""
    value = read_number(answer, unit)
    return None if value is None else f"{value:g}", mean_relative_accuracy(value, float(item.truth))


def _decode(paths: Sequence[Path]) -> tuple[Image.Image, ...]:
    return tuple(load_photos(path).photos[0].image for path in paths)
