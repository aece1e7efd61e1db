"""What the network has perceived: the scene, and a memory that answers questions without looking again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from g2vlm.errors import InputError
from g2vlm.inference.decoding import Decoder
from g2vlm.inference.generation import Continuation, Generator
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.sampling import Sampling
from g2vlm.inference.timing import Stopwatch
from g2vlm.model.cache import KeyValueCache
from g2vlm.scene.scene import Scene

MAX_NEW_TOKENS = 100
"""Released limit on the passes of an answer."""


@dataclass(frozen=True)
class Answer:
    """The answer to one question."""

    text: str
    """Without the end token."""
    token_ids: tuple[int, ...]
    """The choice of every pass. The last one is the end token or, at the limit, is not part of the text: the
    released limit counts passes, and the first pass reads the line break before the answer."""
    finished: bool
    """Whether the model ended the answer itself, rather than the limit."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds: `prefill_s` reading the question, `decode_s` decoding the answer; of the whole batch."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PerceivedPhotos:
    """Keys and values of what was perceived, and the first position after it."""

    cache: KeyValueCache
    next_position: int


class Perception:
    """Photos as the network has perceived them, ready for any number of questions.

    A question continues from the memory of the photos and is forgotten after its answer, so that answers do
    not depend on the order of questions, unless it is asked with `remember`.
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
        self._cache = memory.cache
        self._photos = (memory.cache.length, memory.next_position)
        self._length, self._position = self._photos

    @property
    def num_tokens(self) -> int:
        """Tokens in memory."""
        return self._length

    @property
    def num_bytes(self) -> int:
        """Bytes of the memory's buffers."""
        return self._cache.num_bytes

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = Sampling(),
        on_text: Callable[[str], None] | None = None,
        remember: bool = False,
    ) -> Answer:
        """Answer one question about the photos.

        Args:
            question: in natural language.
            max_new_tokens: limit on the passes of the answer, at least 1.
            sampling: greedy by default.
            on_text: receives the answer piece by piece while it is written.
            remember: keep question and answer in memory, so that later questions may refer to them, until
                `forget`.

        Raises:
            InputError: the question is empty or the limit is below 1.
        """
        _check([question], max_new_tokens)
        watch = Stopwatch(self._network.device, exact=False)
        ids = self._prompts.question_ids(question, follows_answer=self._length != self._photos[0])
        prompt = self._prompts.text(ids, self._position)
        self._cache.move_to(self._network.device)
        self._cache.reserve(len(ids) + max_new_tokens)
        start = Continuation(prompt, self._cache, torch.tensor([prompt.next_position]))
        transcript = _Transcript(self._prompts, on_text)
        try:
            for look in self._generator(sampling).run(start, max_new_tokens, watch):
                for choices in look:
                    transcript.add(choices[0])
            answer = transcript.answer(watch)
        except BaseException:
            self._cache.truncate(self._length)
            raise
        if remember:
            self._keep(len(ids) + max(len(answer.token_ids) - 1, 0))
        self._cache.truncate(self._length)
        return answer

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = Sampling(),
    ) -> tuple[Answer, ...]:
        """Answer several questions side by side; each pass reads the memory and the weights once for all.

        Arguments and errors are those of `ask`. Nothing is remembered.
        """
        if not questions:
            return ()
        _check(questions, max_new_tokens)
        watch = Stopwatch(self._network.device, exact=False)
        follows = self._length != self._photos[0]
        rows = [self._prompts.question_ids(question, follows_answer=follows) for question in questions]
        prompt, padding = self._prompts.texts(rows, self._position)
        self._cache.move_to(self._network.device)
        branch = self._cache.branch(len(rows), prompt.inputs.layout.num_tokens + max_new_tokens, padding)
        positions = torch.tensor([self._position + len(row) for row in rows])
        transcripts = [_Transcript(self._prompts, None) for _ in rows]
        start = Continuation(prompt, branch, positions)
        for look in self._generator(sampling).run(start, max_new_tokens, watch):
            for choices in look:
                for transcript, token in zip(transcripts, choices, strict=True):
                    transcript.add(token)
        return tuple(transcript.answer(watch) for transcript in transcripts)

    def forget(self) -> None:
        """Forget remembered questions and answers; the photos stay."""
        self._length, self._position = self._photos
        self._cache.truncate(self._length)

    def offload(self) -> None:
        """Move the memory to the CPU until the next question, for example to free a GPU."""
        self._cache.move_to("cpu")

    def _generator(self, sampling: Sampling) -> Generator:
        return Generator(self._decoder, sampling, self._prompts.end_token)

    def _keep(self, num_tokens: int) -> None:
        self._length += num_tokens
        self._position += num_tokens


class _Transcript:
    """Turns choices into an answer, and streams its text."""

    def __init__(self, prompts: PromptBuilder, on_text: Callable[[str], None] | None) -> None:
        self._prompts = prompts
        self._on_text = on_text
        self._decoder = prompts.tokenizer.stream_decoder()
        self._tokens: list[int] = []

    @property
    def _ended(self) -> bool:
        return bool(self._tokens) and self._tokens[-1] == self._prompts.end_token

    def add(self, token: int) -> None:
        """Take the choice of one pass; choices after the end token mean nothing."""
        if self._ended:
            return
        # A choice becomes text only once a further pass shows that it is not the last.
        if self._on_text is not None and self._tokens and (piece := self._decoder.feed(self._tokens[-1])):
            self._on_text(piece)
        self._tokens.append(token)

    def answer(self, watch: Stopwatch) -> Answer:
        """Close the text."""
        if self._on_text is not None and (rest := self._decoder.finish()):
            self._on_text(rest)
        text = self._prompts.tokenizer.decode(self._tokens[:-1])
        return Answer(text, tuple(self._tokens), self._ended, dict(watch.seconds))


def _check(questions: Sequence[str], max_new_tokens: int) -> None:
    if not all(question.strip() for question in questions):
        raise InputError("Expected a question, got an empty text: say what you want to know.")
    if max_new_tokens < 1:
        raise InputError(f"Expected max_new_tokens of 1 or more, got {max_new_tokens}.")
