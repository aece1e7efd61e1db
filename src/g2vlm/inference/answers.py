"""Answers, and how chosen tokens become their text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from g2vlm.inputs.text import TextTokenizer

if TYPE_CHECKING:
    from g2vlm.inference.citing import Citation


class Ending(Enum):
    """Why an answer ends."""

    MODEL = "model"
    """The model ended it."""
    LIMIT = "limit"
    """It has as many tokens as were allowed."""
    CANCELLED = "cancelled"
    """Nobody wanted more of it."""


@dataclass(frozen=True)
class Answer:
    """The answer to one question."""

    text: str
    """Without the end token."""
    token_ids: tuple[int, ...]
    """The choice of every pass. The last one is the end token or, at the limit, is not part of the text: the
    released limit counts passes, and the first pass reads the line break before the answer."""
    ending: Ending
    """Why there are no more."""
    log_probabilities: tuple[float, ...]
    """Natural logarithm of the probability that the model gave to each of `token_ids`, drawn or not."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds: `prefill_s` reading the question, `decode_s` decoding the answer, together with all that were
    read and decoded at the same time."""
    citation: "Citation | None" = None
    """What the geometry says about the points that are named, if it was asked to be measured."""

    @property
    def finished(self) -> bool:
        """Whether the model ended the answer itself."""
        return self.ending is Ending.MODEL

    @property
    def log_probability(self) -> float:
        """Mean of `log_probabilities`; NaN without tokens."""
        count = len(self.log_probabilities)
        return math.fsum(self.log_probabilities) / count if count else math.nan

    @property
    def confidence(self) -> float:
        """Geometric mean of the probabilities of the tokens, 0 to 1: how sure the model is of its words.

        It is not the probability that the answer is true.
        """
        return math.exp(self.log_probability)

    def __str__(self) -> str:
        return self.text


class Transcript:
    """Text of an answer while it grows.

    Args:
        tokenizer: turns tokens into text.
        on_text: receives the text piece by piece.
    """

    def __init__(self, tokenizer: TextTokenizer, on_text: Callable[[str], None] | None) -> None:
        self._tokenizer, self._on_text = tokenizer, on_text
        self._decoder = tokenizer.stream_decoder()
        self._tokens: list[int] = []

    def follow(self, tokens: Sequence[int]) -> None:
        """Take what is new among all choices so far."""
        for token in tokens[len(self._tokens) :]:
            # A choice becomes text only once a further pass shows that it is not the last.
            if self._on_text is not None and self._tokens:
                self._tell(self._decoder.feed(self._tokens[-1]))
            self._tokens.append(token)

    def finish(self) -> str:
        """The whole text; nothing will follow."""
        if self._on_text is not None:
            self._tell(self._decoder.finish())
        return self._tokenizer.decode(self._tokens[:-1])

    def _tell(self, piece: str) -> None:
        if piece and self._on_text is not None:
            self._on_text(piece)
