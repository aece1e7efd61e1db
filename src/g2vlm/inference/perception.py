"""What the network has perceived: the scene, and a memory that answers questions without looking again."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from g2vlm.errors import InputError
from g2vlm.inference.answers import Answer, Transcript
from g2vlm.inference.batch import AnswerBatch, Question, RunningAnswer
from g2vlm.inference.citing import cite
from g2vlm.inference.decoding import Decoder
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.sampling import Sampling
from g2vlm.model.cache import BLOCK_TOKENS, CacheShape, KeyValueCache, Segment
from g2vlm.model.row_cache import Beginning
from g2vlm.scene.scene import Scene

MAX_NEW_TOKENS = 100
"""Released limit on the passes of an answer."""

Turn = tuple[str, str]
"""A question and its answer."""
Cancel = Callable[[], bool] | threading.Event
"""Says, or is set once, nobody wants an answer any more."""


@dataclass(frozen=True)
class PerceivedPhotos:
    """Keys and values of what was perceived, and the first position after it."""

    cache: KeyValueCache
    next_position: int


@dataclass(frozen=True, eq=False)
class _Memory:
    """What a question continues from; replaced as a whole, never changed."""

    photos: Beginning
    conversation: Beginning
    """Remembered questions and answers."""
    position: int
    """Of what follows."""

    @property
    def beginning(self) -> Beginning:
        return self.photos + self.conversation

    @property
    def device(self) -> torch.device:
        return self.photos[0].keys.device

    def to(self, device: torch.device | str) -> "_Memory":
        photos, conversation = (
            tuple(segment.to(device) for segment in kind) for kind in (self.photos, self.conversation)
        )
        return replace(self, photos=photos, conversation=conversation)


class Perception:
    """Photos as the network has perceived them, ready for any number of questions.

    A question continues from the memory of the photos and is forgotten after its answer, so that answers do
    not depend on the order of questions, unless it is asked with `remember`.

    Several threads may ask at the same time: each question continues from what was remembered when it was
    asked, whatever others do meanwhile. Remembered turns wait for each other, and `forget` for them.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: PromptBuilder,
        scene: Scene,
        memory: PerceivedPhotos,
        timings: dict[str, float],
    ) -> None:
        self.scene = scene
        self.timings = timings
        self._decoder = decoder
        self._network = decoder.network
        self._prompts = prompts
        self._photos_end = memory.next_position
        self._memory = _Memory(memory.cache.segments(), (), memory.next_position)
        # Where the latest turns are appended, and the conversation before these.
        self._turns: KeyValueCache | None = None
        self._earlier: Beginning = ()
        self._changing = threading.Lock()
        # Held during a whole remembered turn; its own thread would not wait for it, and is refused.
        self._turn, self._is_turn = threading.RLock(), False

    @property
    def num_tokens(self) -> int:
        """Tokens in memory."""
        return sum(segment.num_tokens for segment in self._memory.beginning)

    @property
    def num_bytes(self) -> int:
        """Bytes that the memory takes; a running answer takes those of its own tokens besides."""
        with self._changing:
            whole = self._memory.photos + self._earlier
            turns = 0 if self._turns is None else self._turns.num_bytes
        return sum(segment.num_bytes for segment in whole) + turns

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = Sampling(),
        on_text: Callable[[str], None] | None = None,
        remember: bool = False,
        cancel: Cancel | None = None,
        measure: bool = False,
    ) -> Answer:
        """Answer one question about the photos.

        Args:
            question: in natural language.
            max_new_tokens: limit on the passes of the answer, at least 1.
            sampling: greedy by default.
            on_text: receives the answer piece by piece while it is decoded.
            remember: keep question and answer in memory, so that later questions may refer to them, until
                `forget`; not those of a cancelled answer.
            cancel: an event, or something to call between tokens: once it is set or true, the answer is what
                there is so far, its `ending` is CANCELLED.
            measure: add to the answer what the geometry of `scene` says about the points that the question,
                or else the answer, names (`Answer.citation`; see `citing.cite`).

        Raises:
            InputError: the question is empty or the limit is below 1, or `remember` inside of `on_text` of
                another remembered question.
        """
        with self._one_turn() if remember else nullcontext():
            asked = self.question(question, max_new_tokens=max_new_tokens, sampling=sampling, cancel=cancel)
            ((answer, running),) = self._answers([replace(asked, keep=remember)], on_text)
            if running.kept is not None:
                self._keep(running.kept, running.position)
        return replace(answer, citation=cite(self.scene, question, answer.text)) if measure else answer

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = Sampling(),
        cancel: Cancel | None = None,
    ) -> tuple[Answer, ...]:
        """Answer several questions side by side; each pass reads the memory and the weights once for all.

        Arguments and errors are those of `ask`. Nothing is remembered. Where tokens are drawn, each question
        has a generator of its own: the seed plus its number, counted from 0.
        """
        seeds = [replace(sampling, seed=sampling.seed + number) for number in range(len(questions))]
        asked = [
            self.question(question, max_new_tokens=max_new_tokens, sampling=own, cancel=cancel)
            for question, own in zip(questions, seeds, strict=True)
        ]
        return tuple(answer for answer, _ in self._answers(asked, None))

    def question(
        self,
        question: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = Sampling(),
        cancel: Cancel | None = None,
        turns: Sequence[Turn] = (),
    ) -> Question:
        """A question as an `AnswerBatch` takes it, which may hold those of several perceptions.

        Arguments and errors are those of `ask`.

        Args:
            question: the last one, which is to be answered.
            max_new_tokens: limit on the passes of the answer.
            sampling: greedy by default.
            cancel: see `ask`.
            turns: questions and answers before it, which are read with it and not remembered.
        """
        _check(question, max_new_tokens)
        memory = self._current()
        ids: list[int] = []
        for asked, answer in turns:
            ids += self._prompts.question_ids(asked, follows_answer=bool(ids or memory.conversation))
            ids += self._prompts.answer_ids(answer)
        ids += self._prompts.question_ids(question, follows_answer=bool(ids or memory.conversation))
        return Question(
            tuple(ids),
            memory.beginning,
            memory.position,
            max_new_tokens,
            sampling,
            cancel.is_set if isinstance(cancel, threading.Event) else cancel,
        )

    def forget(self) -> None:
        """Forget remembered questions and answers; the photos stay. Waits for a remembered answer that runs.

        Raises:
            InputError: inside of `on_text` of a remembered question.
        """
        with self._one_turn(), self._changing:
            self._memory = replace(self._memory, conversation=(), position=self._photos_end)
            # Dropped, not written over: questions that run may still read it.
            self._turns, self._earlier = None, ()

    def offload(self) -> None:
        """Move the memory to the CPU until the next question, for example to free a GPU.

        Answers that run meanwhile keep what they read where it is, until they end.
        """
        with self._changing:
            self._move(torch.device("cpu"))

    def _current(self) -> _Memory:
        """What a question asked now continues from."""
        with self._changing:
            self._move(self._network.device)
            return self._memory

    def _move(self, device: torch.device) -> None:
        if self._memory.device != device:
            self._memory = self._memory.to(device)
            # What follows goes to a new block there.
            self._turns, self._earlier = None, self._memory.conversation

    @contextmanager
    def _one_turn(self) -> Iterator[None]:
        with self._turn:
            if self._is_turn:
                raise InputError(
                    "Expected the remembered answer to end before another turn or before it is forgotten: "
                    "do that after `ask`, not inside of `on_text`."
                )
            self._is_turn = True
            try:
                yield
            finally:
                self._is_turn = False

    def _keep(self, turn: Segment, position: int) -> None:
        """Append a turn to what is remembered."""
        with self._changing:
            if self._turns is None:
                layers, kv_heads, _, channels = turn.keys.shape
                self._turns = KeyValueCache(
                    CacheShape(layers, kv_heads, channels),
                    BLOCK_TOKENS,
                    dtype=turn.keys.dtype,
                    device=self._memory.device,
                    growing=True,
                )
            self._turns.append(turn)
            conversation = self._earlier + self._turns.segments()
            self._memory = replace(self._memory, conversation=conversation, position=position)

    def _answers(
        self, questions: Sequence[Question], on_text: Callable[[str], None] | None
    ) -> list[tuple[Answer, RunningAnswer]]:
        """Decode the answers to some questions side by side."""
        if not questions:
            return []
        with AnswerBatch(self._decoder, self._prompts) as batch:
            transcripts = {batch.add(one): Transcript(self._prompts.tokenizer, on_text) for one in questions}
            while batch.is_busy:
                for running in batch.step():
                    transcripts[running].follow(running.token_ids)
        return [(_answer(running, text.finish()), running) for running, text in transcripts.items()]


def _answer(running: RunningAnswer, text: str) -> Answer:
    assert running.ending is not None
    return Answer(
        text,
        tuple(running.token_ids),
        running.ending,
        tuple(running.log_probabilities),
        dict(running.seconds),
    )


def _check(question: str, max_new_tokens: int) -> None:
    if not question.strip():
        raise InputError("Expected a question, got an empty text: say what you want to know.")
    if max_new_tokens < 1:
        raise InputError(f"Expected max_new_tokens of 1 or more, got {max_new_tokens}.")
