"""A question on its way to an answer: its text as it grows, words that stop it, what is told of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from g2vlm.inference.answers import Ending
from g2vlm.inference.batch import RunningAnswer
from g2vlm.inference.perception import Perception, Turn
from g2vlm.inference.sampling import Sampling
from g2vlm.inputs.text import TextTokenizer


@dataclass(frozen=True)
class Asking:
    """A question with all that decides its answer."""

    question: str
    turns: tuple[Turn, ...] = ()
    """Questions and answers before it."""
    max_new_tokens: int = 100
    """Limit on the passes of the answer."""
    sampling: Sampling = Sampling()
    stops: tuple[str, ...] = ()
    """Texts that end the answer before them."""


class Reason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    """The model ended it, or a text that stops it came."""
    LENGTH = "length"
    """It has as many tokens as were allowed."""


@dataclass(frozen=True)
class Piece:
    """A part of an answer that is certain."""

    text: str
    token_ids: tuple[int, ...]
    """Tokens since the last piece."""
    log_probabilities: tuple[float, ...]
    """Natural logarithms, of each."""


@dataclass(frozen=True)
class FullAnswer:
    """A whole answer."""

    text: str
    token_ids: tuple[int, ...]
    """Of the text."""
    log_probabilities: tuple[float, ...]
    """Natural logarithms, of each of these tokens."""
    reason: Reason
    num_prompt_tokens: int
    """Photos, earlier turns and question."""
    seconds: dict[str, float] = field(default_factory=dict)
    """`prefill_s` and `decode_s`, shared with what ran at the same time."""

    @property
    def confidence(self) -> float | None:
        """Geometric mean of the probabilities of the tokens, 0 to 1; none without tokens."""
        chances = self.log_probabilities
        return math.exp(math.fsum(chances) / len(chances)) if chances else None


OnPiece = Callable[[Piece], None]
"""Called in the engine's thread; must return at once."""


class GrowingAnswer:
    """Text of a running answer; ends it where a text that stops it comes.

    Args:
        asking: the question.
        perception: what it is about.
        tokenizer: of the model.
        on_piece: told about each part once it is certain.
    """

    def __init__(
        self, asking: Asking, perception: Perception, tokenizer: TextTokenizer, on_piece: OnPiece | None
    ) -> None:
        self.asking, self.perception, self.on_piece = asking, perception, on_piece
        self.running: RunningAnswer | None = None
        self._tokenizer, self._decoder = tokenizer, tokenizer.stream_decoder()
        self._num_read = self._num_told = self._told = 0
        self._text = ""
        self._stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether a text that stops it has come."""
        return self._stopped

    def follow(self) -> None:
        """Take the tokens that have come; the last one becomes text only once another follows."""
        assert self.running is not None
        tokens = self.running.token_ids
        for token in tokens[self._num_read : max(len(tokens) - 1, 0)]:
            if self._stopped:
                break
            self._text += self._decoder.feed(token)
            self._num_read += 1
            self._find_stop()
        self._tell(len(self._text) if self._stopped else self._certain_length())

    def finish(self) -> FullAnswer:
        """The whole answer; nothing will follow."""
        assert self.running is not None
        if not self._stopped:
            self._text += self._decoder.finish()
            self._find_stop()
        self._tell(len(self._text), is_last=True)
        running, read = self.running, self._num_read
        ended_early = self._stopped or running.ending is Ending.MODEL
        return FullAnswer(
            self._text,
            tuple(running.token_ids[:read]),
            tuple(running.log_probabilities[:read]),
            Reason.STOP if ended_early else Reason.LENGTH,
            self.perception.num_tokens + len(running.question.token_ids),
            dict(running.seconds),
        )

    def _find_stop(self) -> None:
        places = [place for stop in self.asking.stops if (place := self._text.find(stop)) >= 0]
        if places:
            self._text, self._stopped = self._text[: min(places)], True

    def _certain_length(self) -> int:
        """Characters that no text that stops may still begin in."""
        return len(self._text) - max((_overlap(self._text, stop) for stop in self.asking.stops), default=0)

    def _tell(self, certain: int, *, is_last: bool = False) -> None:
        tokens_left = is_last and self._num_told < self._num_read
        if self.on_piece is None or not (certain > self._told or tokens_left):
            return
        assert self.running is not None
        ids, chances = self.running.token_ids, self.running.log_probabilities
        new = slice(self._num_told, self._num_read)
        self.on_piece(Piece(self._text[self._told : certain], tuple(ids[new]), tuple(chances[new])))
        self._told, self._num_told = certain, self._num_read


def _overlap(text: str, stop: str) -> int:
    """How much of the text's end begins a text that stops."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
