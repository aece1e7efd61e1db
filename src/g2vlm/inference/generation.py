"""Decoding answers token by token, for one question or several side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from g2vlm.inference.decoding import Decoder
from g2vlm.inference.prompts import Prompt
from g2vlm.inference.sampling import Sampling, TokenChooser
from g2vlm.inference.timing import Stopwatch
from g2vlm.model.cache import KeyValueCache
from g2vlm.model.network import Wants

PASSES_PER_LOOK = 8
"""Passes between two looks at the chosen tokens on a GPU, where every look would stall the queue."""


@dataclass(frozen=True)
class Continuation:
    """What a generation starts from."""

    prompt: Prompt
    """The question (or questions, one a row) up to the token that the answer continues from."""
    cache: KeyValueCache
    """Memory of what stands before; grows by the question and the answer."""
    next_positions: Int[Tensor, " batch"]
    """Position of the first token of each answer."""


class Generator:
    """Runs the network one token at a time."""

    def __init__(self, decoder: Decoder, sampling: Sampling, end_token: int) -> None:
        self._network = network = decoder.network
        self._decoder = decoder
        self._choose = TokenChooser(sampling, network.device)
        self._end = end_token
        self._per_look = 1 if network.device.type == "cpu" else PASSES_PER_LOOK

    def run(self, start: Continuation, limit: int, watch: Stopwatch) -> Iterator[list[list[int]]]:
        """Yield, look by look, the choices of the passes since the last look: one list a pass, one id a row.

        Stops after `limit` passes, or once every row has chosen the end token; rows that ended earlier keep
        producing choices that mean nothing.
        """
        positions = start.next_positions.to(self._network.device) - 1
        chosen = torch.empty(0, dtype=torch.long)
        pending: list[Tensor] = []
        ended: set[int] = set()
        step = "prefill_s"
        for count in range(1, limit + 1):
            with watch.measure(step):
                chosen = self._read(start) if count == 1 else self._write(chosen, positions, start.cache)
                pending.append(chosen)
                look = count == limit or len(pending) >= self._per_look or count == 1
                found = _lists(pending) if look else []
            if look:
                yield found
                pending = []
                ended |= {row for choices in found for row, token in enumerate(choices) if token == self._end}
                if len(ended) == chosen.shape[0]:
                    return
            positions, step = positions + 1, "decode_s"

    # Not on `run`: the decorator knows a generator only where nothing else, such as a type checker, wraps it.
    # Not on `_write`: writers have it where they need it, and entering it takes a while beside a fast pass.
    @torch.inference_mode()
    def _read(self, start: Continuation) -> Int[Tensor, " batch"]:
        """Read the question and choose the first token of each row."""
        inputs = start.prompt.inputs
        slot = torch.tensor([inputs.layout.num_tokens - 1], device=self._network.device)
        outputs = self._network(inputs, Wants(logit_slots=slot), start.cache)
        assert outputs.logits is not None
        return self._choose(outputs.logits[:, -1])

    def _write(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Int[Tensor, " batch"]:
        """Read what was chosen last and choose the next token of each row."""
        if self._choose.is_greedy:
            return self._decoder.choose(tokens, positions, cache)
        return self._choose(self._decoder(tokens, positions, cache))


def _lists(choices: list[Tensor]) -> list[list[int]]:
    """Read choices with one copy from a GPU for all."""
    return torch.stack(choices).tolist() if len(choices) > 1 else [choices[0].tolist()]
