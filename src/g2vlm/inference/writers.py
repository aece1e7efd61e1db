"""Passes over one token of each row, which write answers: plain, or compiled."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.errors import DeviceError
from g2vlm.model.cache import KeyValueCache, StepMemory
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import Placement
from g2vlm.model.rotary import Rotation


class Writer:
    """The passes over one token of each row."""

    def __init__(self, network: G2VLM) -> None:
        self.network = network

    def __call__(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Float[Tensor, "batch vocabulary"]:
        """Read one token of each row behind what the cache holds: the logits of the next."""
        cache.reserve(1)
        logits = self.network.write(tokens, self.network.text_rotation(positions), cache)
        cache.advance(1)
        return logits


class CompiledWriter(Writer):
    """Passes compiled as one graph: on a GPU, launching many small kernels takes longer than running them.

    The first pass compiles, for up to minutes with many layers; later sizes of memory do so once more in all.
    Choices are those of plain passes up to rounding. Source: the design of gpt-fast, buffers of fixed size
    and a place in them that is data.

    Args:
        network: the parts of a model that write text.
        backend: of `torch.compile`.
    """

    def __init__(self, network: G2VLM, backend: str | Callable[..., Any] = "inductor") -> None:
        super().__init__(network)
        self._on_gpu = network.device.type == "cuda"
        mode = "reduce-overhead" if self._on_gpu and backend == "inductor" else None
        self._write = torch.compile(self._pass, fullgraph=True, backend=backend, mode=mode)

    def __call__(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Float[Tensor, "batch vocabulary"]:
        """As of any writer."""
        cache.reserve(1)
        memory, rotation = cache.step_memory(), self.network.text_rotation(positions)
        if self._on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
            # CUDA graphs would otherwise work on copies of what a pass changes.
            for buffer in (memory.keys, memory.values):
                torch._dynamo.mark_static_address(buffer)
        logits: Tensor = self._write(tokens, rotation.cos, rotation.sin, *vars(memory).values())
        cache.advance(1)
        return logits

    def _pass(self, tokens: Tensor, cos: Tensor, sin: Tensor, *memory: Any) -> Tensor:
        return self.network.write(tokens, Rotation(cos, sin), StepMemory(*memory))


def require_compilable(placement: Placement) -> None:
    """Refuse devices where compiled passes are not faster.

    Raises:
        DeviceError: anything but a CUDA GPU.
    """
    if placement.device.type != "cuda":
        raise DeviceError(
            f"Expected a CUDA GPU for compiled answers, got {placement.device}: leave `compiled` out there; "
            "on a CPU, plain passes are faster."
        )
