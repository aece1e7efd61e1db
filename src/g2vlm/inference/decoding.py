"""Passes over one token of each row, which write answers: plain, in C, or compiled."""

from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.errors import DeviceError
from g2vlm.model.cache import KeyValueCache, StepMemory
from g2vlm.model.native.decoding import NativePass
from g2vlm.model.native.library import NativeUnavailableError, has_fast_integers, has_fast_unpacking
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import Placement, Precision
from g2vlm.model.quantization import Quantization
from g2vlm.model.rotary import Rotation


class Decoding(Enum):
    """How passes over one token run."""

    PLAIN = "plain"
    """Operation by operation, as all other passes."""
    NATIVE = "native"
    """On a CPU: by a library in C, which the machine's own compiler translates once."""
    GRAPH = "graph"
    """On a CUDA GPU: as one graph of `torch.compile`."""


_Read = Callable[[Tensor, Tensor, KeyValueCache], Tensor]
"""From tokens, positions and memory to logits or choices."""


class Decoder:
    """The passes over one token of each row."""

    needs_cleared = False
    """Whether memory must hold zeros where nothing was written yet."""

    def __init__(self, network: G2VLM) -> None:
        self.network = network

    @torch.inference_mode()
    def __call__(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Float[Tensor, "batch vocabulary"]:
        """Read one token of each row behind what the cache holds: the logits of the next."""
        cache.reserve(1)
        logits = self.network.decode(tokens, self.network.text_rotation(positions), cache)
        cache.advance(1)
        return logits

    @torch.inference_mode()
    def choose(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Int[Tensor, " batch"]:
        """The same, but of the logits only the likeliest."""
        return self(tokens, positions, cache).argmax(dim=-1)


class NativeDecoder(Decoder):
    """Passes in C for one row or a few; with many, which are bound by multiplying, the plain way is faster.

    Choices are those of plain passes up to rounding.

    Args:
        network: on the CPU; its weights must stay where and what they are.

    Raises:
        NativeUnavailableError: there is no compiler for the library.
        CheckpointError: a network that the library does not take.
    """

    def __init__(self, network: G2VLM) -> None:
        super().__init__(network)
        self._pass = NativePass(network)

    def __call__(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Float[Tensor, "batch vocabulary"]:
        """As of any decoder."""
        return self._either(super().__call__, self._pass, (tokens, positions, cache))

    def choose(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Int[Tensor, " batch"]:
        """The likeliest next token of each row. Mostly without torch, to keep caches warm."""
        return self._either(super().choose, self._pass.choose, (tokens, positions, cache))

    def _either(self, plain: _Read, native: _Read, given: tuple[Tensor, Tensor, KeyValueCache]) -> Tensor:
        cache = given[2]
        if not self._pass.fits(cache):
            return plain(*given)
        cache.reserve(1)
        found = native(*given)
        cache.advance(1)
        return found


class CompiledDecoder(Decoder):
    """Passes compiled as one graph: on a GPU, launching many small kernels takes longer than running them.

    The first pass compiles, for up to minutes with many layers; later sizes of memory do so once more in all.
    Choices are those of plain passes up to rounding. Source: the design of gpt-fast, buffers of fixed size
    and a place in them that is data.

    Args:
        network: the parts of a model that write text.
        backend: of `torch.compile`.
    """

    needs_cleared = True

    def __init__(self, network: G2VLM, backend: str | Callable[..., Any] = "inductor") -> None:
        super().__init__(network)
        self._on_gpu = network.device.type == "cuda"
        mode = "reduce-overhead" if self._on_gpu and backend == "inductor" else None
        self._write = torch.compile(self._pass, fullgraph=True, backend=backend, mode=mode)

    @torch.inference_mode()
    def __call__(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: KeyValueCache
    ) -> Float[Tensor, "batch vocabulary"]:
        """As of any decoder."""
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
        return self.network.decode(tokens, Rotation(cos, sin), StepMemory(*memory))


DECODERS: dict[Decoding, type[Decoder]] = {
    Decoding.PLAIN: Decoder,
    Decoding.NATIVE: NativeDecoder,
    Decoding.GRAPH: CompiledDecoder,
}


def choose_decoding(placement: Placement, compiled: bool | None, quantization: Quantization) -> Decoding:
    """How answers will be written.

    Args:
        placement: where the network runs.
        compiled: True for compiled passes, False for plain ones; None for what is faster without waiting:
            native passes on a CPU with a C compiler, which for fewer bits must also have the instructions of
            AVX-512 VNNI, and plain ones elsewhere.
        quantization: of the language side.

    Raises:
        DeviceError: compiled passes or packed weights were asked for and are not possible here.
    """
    device = placement.device
    if quantization is Quantization.PACKED:
        _check_packing(placement, compiled)
    if compiled is False or (compiled is None and device.type != "cpu"):
        return Decoding.PLAIN
    if device.type == "cuda":
        return Decoding.GRAPH
    if device.type != "cpu":
        raise DeviceError(f"Expected a CPU or a CUDA GPU for compiled answers, got {device}: leave it out.")
    try:
        fast = has_fast_integers() or quantization is Quantization.NONE
    except NativeUnavailableError as error:
        if compiled is None:
            return Decoding.PLAIN
        raise DeviceError(f"Expected to write answers by compiled passes, but {error}.") from error
    return Decoding.NATIVE if fast or compiled else Decoding.PLAIN


def _check_packing(placement: Placement, compiled: bool | None) -> None:
    """Refuse packed weights where passes in C do not read them, or unpack them more slowly than they save."""
    device, precision = placement.device, placement.precision
    reason = ""
    if device.type != "cpu" or precision is not Precision.BFLOAT16:
        reason = f"this is {device} in {precision.value}"
    elif compiled is False:
        reason = "compiled answers are off"
    else:
        try:
            reason = (
                "" if has_fast_unpacking() else "this processor lacks instructions for it (AVX-512 VBMI2)"
            )
        except NativeUnavailableError as error:
            reason = str(error)
    if reason:
        raise DeviceError(
            "Expected a CPU in bfloat16 with compiled answers for packed weights, but "
            f"{reason}: leave the quantization out."
        )
