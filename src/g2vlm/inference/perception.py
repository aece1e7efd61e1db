"""What the network has perceived: the scene, and a memory that answers questions without looking again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from g2vlm.errors import InputError
from g2vlm.inference.prompts import Prompt, PromptBuilder
from g2vlm.inference.sampling import Sampling, TokenChooser
from g2vlm.inference.timing import Stopwatch
from g2vlm.model.cache import KeyValueCache
from g2vlm.model.network import G2VLM, Wants
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
    """Seconds: `prefill_s` reading the question, `decode_s` writing the answer."""

    def __str__(self) -> str:
        return self.text


class Perception:
    """Photos as the network has perceived them, ready for any number of questions.

    Every question continues from the same memory and is forgotten after its answer, so that answers do not
    depend on the order of questions.
    """

    def __init__(
        self,
        network: G2VLM,
        prompts: PromptBuilder,
        scene: Scene,
        memory: tuple[KeyValueCache, int],
        timings: dict[str, float],
    ) -> None:
        self.scene = scene
        self.timings = timings
        self._network = network
        self._prompts = prompts
        self._cache, self._position = memory
        self._length = self._cache.length

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
    ) -> Answer:
        """Answer one question about the photos.

        Args:
            question: in natural language.
            max_new_tokens: limit on the passes of the answer, at least 1.
            sampling: greedy by default.
            on_text: receives the answer piece by piece while it is written.

        Raises:
            InputError: the question is empty or the limit is below 1.
        """
        if not question.strip():
            raise InputError("Expected a question, got an empty text.")
        if max_new_tokens < 1:
            raise InputError(f"Expected max_new_tokens of 1 or more, got {max_new_tokens}.")
        watch = Stopwatch(self._network.device)
        prompt = self._prompts.question(question, self._position)
        self._cache.reserve(prompt.inputs.layout.num_tokens + max_new_tokens)
        chosen: list[int] = []
        try:
            for token in self._decode(prompt, max_new_tokens, sampling, watch):
                chosen.append(token)
                # The newest choice becomes text only once a further pass confirms that it is not the last.
                if on_text is not None and len(chosen) > 1:
                    self._stream(chosen[-2], on_text, first=len(chosen) == 2)
        finally:
            self._cache.truncate(self._length)
        text = self._prompts.tokenizer.decode(chosen[:-1])
        if on_text is not None and len(chosen) > 1 and (rest := self._decoder.finish()):
            on_text(rest)
        finished = chosen[-1] == self._prompts.end_token
        return Answer(text, tuple(chosen), finished, dict(watch.seconds))

    def _stream(self, token: int, on_text: Callable[[str], None], *, first: bool) -> None:
        if first:
            self._decoder = self._prompts.tokenizer.stream_decoder()
        if piece := self._decoder.feed(token):
            on_text(piece)

    @torch.inference_mode()
    def _decode(self, prompt: Prompt, limit: int, sampling: Sampling, watch: Stopwatch) -> Iterator[int]:
        """Yield the choice of every pass, the end token included."""
        choose = TokenChooser(sampling, self._network.device)
        last = torch.tensor([prompt.inputs.layout.num_tokens - 1], device=self._network.device)
        step = "prefill_s"
        for count in range(limit):
            with watch.measure(step):
                outputs = self._network(prompt.inputs, Wants(logit_slots=last), self._cache)
                assert outputs.logits is not None
                token = int(choose(outputs.logits[:, -1])[0])
            yield token
            if token == self._prompts.end_token or count + 1 == limit:
                return
            prompt = self._prompts.token(token, prompt.next_position)
            last, step = torch.zeros_like(last), "decode_s"
