"""Choosing the next token."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.errors import InputError

SMALL_TEMPERATURE = 1e-3
"""Below this, logits are shifted before they are divided."""
LEAST_TEMPERATURE = 1e-30
"""Smaller ones count as this, which float32 can still divide by."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the default is greedy, as released."""

    temperature: float = 0.0
    """0 takes the likeliest token; higher values flatten the distribution."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probabilities sum to this, in (0, 1]."""
    top_k: int = 0
    """Keep this many tokens; 0 keeps all."""
    seed: int = 0
    """Seed of the random choice; the same seed gives the same answer on the same machine."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"Expected a temperature of 0 or more, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"Expected top_p above 0 and at most 1, got {self.top_p}.")
        if self.top_k < 0:
            raise InputError(f"Expected top_k of 0 (all) or more, got {self.top_k}.")


class TokenChooser:
    """Applies one `Sampling` to a sequence of logits."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self._generator = torch.Generator(device="cpu" if device.type == "mps" else device)
        self._generator.manual_seed(sampling.seed)

    @property
    def is_greedy(self) -> bool:
        """Whether it always takes the likeliest token."""
        return self.sampling.temperature == 0

    @torch.inference_mode()
    def __call__(self, logits: Float[Tensor, "batch vocabulary"]) -> Int[Tensor, " batch"]:
        """Choose one token for each row."""
        if self.is_greedy:
            return logits.argmax(dim=-1)
        scaled = self._restricted(self._scaled(logits.float()))
        weights = scaled.softmax(dim=-1).to(self._generator.device)
        return torch.multinomial(weights, 1, generator=self._generator)[:, 0].to(logits.device)

    def _scaled(self, logits: Float[Tensor, "batch vocabulary"]) -> Float[Tensor, "batch vocabulary"]:
        """Logits over the temperature; finite however small that is."""
        temperature = self.sampling.temperature
        if temperature >= SMALL_TEMPERATURE:
            return logits / temperature
        # Divided as they are, logits would overflow. Below the floor, nothing but equal logits is drawn from.
        below = logits - logits.max(dim=-1, keepdim=True).values
        return below / max(temperature, LEAST_TEMPERATURE)

    def _restricted(self, logits: Float[Tensor, "batch vocabulary"]) -> Float[Tensor, "batch vocabulary"]:
        """Send the tokens outside top_k and top_p to minus infinity."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if 0 < top_k < logits.shape[-1]:
            smallest = logits.topk(top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if top_p < 1:
            ordered, index = logits.sort(dim=-1, descending=True)
            probability = ordered.softmax(dim=-1)
            # A token stays if those before it do not yet reach top_p, so the likeliest always stays.
            outside = probability.cumsum(dim=-1) - probability >= top_p
            logits = logits.masked_fill(outside.scatter(-1, index, outside), -torch.inf)
        return logits
