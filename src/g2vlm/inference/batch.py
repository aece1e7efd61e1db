"""Answers that are decoded side by side; questions join and leave between tokens.

This is how every answer comes about: one question, several about the same photos, or those of many people
about different ones. A pass reads the weights once for all rows, and photos once for all that ask about them.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from g2vlm.inference.answers import Ending
from g2vlm.inference.decoding import Decoder
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.sampling import Sampling, TokenChooser
from g2vlm.model.cache import Segment
from g2vlm.model.network import NextTokens, Wants
from g2vlm.model.row_cache import Beginning, Prefill

PASSES_PER_LOOK = 8
"""Passes between two looks at the chosen tokens on a GPU, where every look would stall the queue."""
PREFILL_TOKENS = 4096
"""Tokens that a pass over several questions reads at most, padding included."""


@dataclass(frozen=True, eq=False)
class Question:
    """A question, and what its answer continues from."""

    token_ids: tuple[int, ...]
    """Up to the token that the answer continues from."""
    beginning: Beginning
    """What stands before it, on the network's device."""
    position: int
    """Of its first token."""
    max_new_tokens: int
    """Limit on the passes of the answer, at least 1."""
    sampling: Sampling = Sampling()
    is_cancelled: Callable[[], bool] | None = None
    """Asked between tokens; the answer ends once it says yes."""
    keep: bool = False
    """Leave keys and values of question and answer in `RunningAnswer.kept`."""


@dataclass(eq=False)
class RunningAnswer:
    """An answer that grows; read it between two steps, in the thread that steps."""

    question: Question
    token_ids: list[int] = field(default_factory=list)
    """The choice of every pass so far."""
    log_probabilities: list[float] = field(default_factory=list)
    """Natural logarithm of the model's probability of each."""
    ending: Ending | None = None
    """Why it ended; None while it runs or waits."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the passes that it took part in: `prefill_s`, `decode_s`."""
    kept: Segment | None = None
    """Question and answer, for what is asked next; without the last choice, which no pass has read."""
    _cancelled: bool = False

    def cancel(self) -> None:
        """End it before its next token; from any thread."""
        self._cancelled = True

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants more of it."""
        asked = self.question.is_cancelled
        return self._cancelled or (asked is not None and asked())

    @property
    def position(self) -> int:
        """Where the token that was chosen last is read."""
        return self.question.position + len(self.question.token_ids) + len(self.token_ids) - 1


class _Chosen(NamedTuple):
    """The choices of a pass, on the network's device."""

    tokens: Tensor
    log_probabilities: Tensor


class AnswerBatch:
    """Running answers; a scheduler.

    Any thread may add questions and cancel answers; one at a time steps. Greedy answers are those that each
    question gets alone, up to the rounding of products with more rows; sampled ones draw from a generator of
    their own. An error of a pass ends the batch.

    Args:
        decoder: of the model.
        prompts: of the model.
        max_rows: answers that run at the same time; further questions wait.
    """

    def __init__(self, decoder: Decoder, prompts: PromptBuilder, *, max_rows: int | None = None) -> None:
        self._decoder, self._prompts, self._max_rows = decoder, prompts, max_rows
        self._network = decoder.network
        self._cache = decoder.take_cache()
        self._waiting: list[RunningAnswer] = []
        self._running: list[RunningAnswer] = []
        self._choosers: dict[RunningAnswer, TokenChooser] = {}
        self._adding, self._stepping = threading.Lock(), threading.Lock()
        self._per_look = 1 if self._network.device.type == "cpu" else PASSES_PER_LOOK

    def __enter__(self) -> "AnswerBatch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    @torch.inference_mode()
    def close(self) -> None:
        """Drop all answers; the batch is of no more use."""
        with self._stepping:
            self._leave(self._running)
            self._decoder.give_back(self._cache)
            del self._cache

    @property
    def num_running(self) -> int:
        """Answers that get tokens."""
        return len(self._running)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running)

    def add(self, question: Question) -> RunningAnswer:
        """Let a question in at the next step; from any thread."""
        answer = RunningAnswer(question)
        with self._adding:
            self._waiting.append(answer)
        return answer

    @torch.inference_mode()
    def step(self) -> list[RunningAnswer]:
        """Choose one more token of each running answer (on a GPU: a few), and the first one of new ones.

        Returns:
            The answers that got tokens or ended. Those that ended are gone from the batch.
        """
        with self._stepping:
            changed = self._drop_cancelled()
            if self._running:
                changed += self._decode()
            for questions in _groups(self._admitted()):
                changed += self._read(questions)
            return changed

    def _drop_cancelled(self) -> list[RunningAnswer]:
        with self._adding:
            dropped = [answer for answer in self._waiting if answer.is_cancelled]
            self._waiting = [answer for answer in self._waiting if answer not in dropped]
        stopped = [answer for answer in self._running if answer.is_cancelled]
        self._leave(stopped)
        for answer in dropped + stopped:
            answer.ending = Ending.CANCELLED
        return dropped + stopped

    def _admitted(self) -> list[RunningAnswer]:
        """Take those that waited longest, as far as there is room."""
        with self._adding:
            room = None if self._max_rows is None else max(0, self._max_rows - len(self._running))
            admitted, self._waiting = self._waiting[:room], [] if room is None else self._waiting[room:]
        return admitted

    def _read(self, answers: list[RunningAnswer]) -> list[RunningAnswer]:
        """Read some questions in one pass, and choose the first token of each answer."""
        questions = [answer.question for answer in answers]
        with _timed(answers, "prefill_s"):
            rows = [question.token_ids for question in questions]
            lengths = [len(row) for row in rows]
            inputs = self._prompts.texts(rows, [question.position for question in questions])
            prefill = Prefill([question.beginning for question in questions], lengths, self._network.device)
            last = torch.tensor(lengths, device=self._network.device)[:, None] - 1
            logits = self._network(inputs, Wants(logit_slots=last), prefill).logits
            assert logits is not None
            self._cache.join(prefill)
            self._running += answers
            for answer in answers:
                if answer.question.sampling.temperature > 0:
                    sampling = answer.question.sampling
                    self._choosers[answer] = TokenChooser(sampling, self._network.device)
            looks = _lists([self._choose(NextTokens.of(logits[:, 0]), answers)])
        return self._take(answers, looks)

    def _decode(self) -> list[RunningAnswer]:
        """Choose further tokens of all running answers."""
        answers, device = list(self._running), self._network.device
        left = max(answer.question.max_new_tokens - len(answer.token_ids) for answer in answers)
        with _timed(answers, "decode_s"):
            tokens = torch.tensor([answer.token_ids[-1] for answer in answers], device=device)
            positions = torch.tensor([answer.position for answer in answers], device=device)
            passes: list[_Chosen] = []
            for _ in range(min(self._per_look, left)):
                chosen = self._choose(self._decoder(tokens, positions, self._cache), answers)
                passes.append(chosen)
                tokens, positions = chosen.tokens, positions + 1
            looks = _lists(passes)
        return self._take(answers, looks)

    def _choose(self, found: NextTokens, answers: list[RunningAnswer]) -> _Chosen:
        """The likeliest token of greedy rows, a drawn one of the others."""
        tokens, chances = found.choices, found.log_probabilities
        for row, answer in enumerate(answers):
            if (chooser := self._choosers.get(answer)) is not None:
                logits = found.logits[row : row + 1]
                tokens[row : row + 1] = token = chooser(logits)
                chances[row : row + 1] = logits.float().log_softmax(dim=-1)[:, token[0]]
        return _Chosen(tokens, chances)

    def _take(
        self, answers: list[RunningAnswer], looks: list[tuple[list[int], list[float]]]
    ) -> list[RunningAnswer]:
        """Give each answer its tokens, up to its end; what was chosen behind that means nothing."""
        for tokens, chances in looks:
            for answer, token, chance in zip(answers, tokens, chances, strict=True):
                if answer.ending is None:
                    answer.token_ids.append(token)
                    answer.log_probabilities.append(chance)
                    answer.ending = self._ending(answer)
        self._leave([answer for answer in answers if answer.ending is not None])
        return answers

    def _ending(self, answer: RunningAnswer) -> Ending | None:
        if answer.token_ids[-1] == self._prompts.end_token:
            return Ending.MODEL
        return Ending.LIMIT if len(answer.token_ids) >= answer.question.max_new_tokens else None

    def _leave(self, answers: Sequence[RunningAnswer]) -> None:
        for answer in list(answers):
            row, last = self._running.index(answer), self._running[-1]
            if answer.question.keep and answer.ending is not None:
                read = len(answer.question.token_ids) + len(answer.token_ids) - 1
                answer.kept = self._cache.segment(row, read)
            self._cache.leave(row)
            # As in the cache: the last one takes the place.
            self._running[row] = last
            self._running.pop()
            self._choosers.pop(answer, None)


def _groups(answers: list[RunningAnswer]) -> Iterator[list[RunningAnswer]]:
    """Questions to be read in one pass: of similar length, so that at most about half of it is padding."""
    group: list[RunningAnswer] = []
    real = 0
    for answer in sorted(answers, key=lambda one: len(one.question.token_ids)):
        length = len(answer.question.token_ids)
        padded = (len(group) + 1) * length
        if group and padded > min(PREFILL_TOKENS, 2 * (real + length)):
            yield group
            group, real = [], 0
        group.append(answer)
        real += length
    if group:
        yield group


@contextmanager
def _timed(answers: list[RunningAnswer], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    for answer in answers:
        answer.seconds[name] = answer.seconds.get(name, 0.0) + time.perf_counter() - start


def _lists(passes: list[_Chosen]) -> list[tuple[list[int], list[float]]]:
    """What some passes chose, read with one copy from a GPU for all of them."""
    if len(passes) == 1:
        return [(passes[0].tokens.tolist(), passes[0].log_probabilities.tolist())]
    tokens = torch.stack([chosen.tokens for chosen in passes]).tolist()
    chances = torch.stack([chosen.log_probabilities for chosen in passes]).tolist()
    return list(zip(tokens, chances, strict=True))
