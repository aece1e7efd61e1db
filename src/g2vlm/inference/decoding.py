"""Passes over one token of each row, which decode answers: plain, in C, or compiled."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from enum import Enum
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from g2vlm.errors import DeviceError
from g2vlm.model.cache import CacheShape
from g2vlm.model.capabilities.deciding import verdict
from g2vlm.model.capabilities.paths import FastPath
from g2vlm.model.native.decoding import NativePass
from g2vlm.model.network import G2VLM, NextTokens
from g2vlm.model.precision import Placement, Precision
from g2vlm.model.quantization import Quantization
from g2vlm.model.rotary import Rotation
from g2vlm.model.row_cache import RowCache, StepMemory

_log = logging.getLogger(__name__)


class Decoding(Enum):
    """How passes over one token run."""

    PLAIN = "plain"
    """Operation by operation, as all other passes."""
    NATIVE = "native"
    """On a CPU: by a library in C, which the machine's own compiler compiles once."""
    GRAPH = "graph"
    """On a CUDA GPU: as one graph of `torch.compile`."""


class Decoder:
    """The passes over one token of each row. Several threads may use it, each with a cache of its own."""

    def __init__(self, network: G2VLM) -> None:
        self.network = network
        self._shape = CacheShape.of(network.config.mixture)
        assert isinstance(network.embedding, nn.Embedding)
        self._dtype = network.embedding.weight.dtype

    def take_cache(self) -> RowCache:
        """An empty cache for the passes of one thread; `give_back` when it is done."""
        return RowCache(self._shape, self._dtype, self.network.device)

    def give_back(self, cache: RowCache) -> None:
        """Take an empty cache that is not needed any more."""

    @torch.inference_mode()
    def __call__(
        self, tokens: Int[Tensor, " rows"], positions: Int[Tensor, " rows"], cache: RowCache
    ) -> NextTokens:
        """Read one token of each row behind what the cache holds."""
        cache.reserve()
        logits = self.network.decode(tokens, self.network.text_rotation(positions), cache)
        cache.advance()
        return NextTokens.of(logits)


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
        self, tokens: Int[Tensor, " rows"], positions: Int[Tensor, " rows"], cache: RowCache
    ) -> NextTokens:
        """Read one token of each row, as `Decoder` does, in C where it takes so many rows.

        Little of it goes through torch, whose code would push weights out of the processor's caches.
        """
        if not self._pass.fits(cache):
            return super().__call__(tokens, positions, cache)
        cache.reserve()
        found = self._pass(tokens, positions, cache)
        cache.advance()
        return found


MOST_SEGMENTS = 2
"""Segments of a beginning that compiled passes read, photos and a conversation: each number is a graph."""


class CompiledDecoder(Decoder):
    """Passes compiled as one graph: on a GPU, launching many small kernels takes longer than running them.

    The first pass compiles, for up to minutes with many layers; a conversation and several rows do so once
    more each. Rows behind different beginnings, or behind long conversations, go the plain way. Choices are
    those of plain passes up to rounding. Passes of all threads run in one thread, because recorded CUDA
    graphs belong to the thread that recorded them. Source: the design of gpt-fast, buffers of fixed size and
    a place in them that is data.

    Args:
        network: the parts of a model that write text.
        backend: of `torch.compile`.
    """

    def __init__(self, network: G2VLM, backend: str | Callable[..., Any] = "inductor") -> None:
        super().__init__(network)
        self._on_gpu = network.device.type == "cuda"
        mode = "reduce-overhead" if self._on_gpu and backend == "inductor" else None
        self._compiled = torch.compile(self._pass, fullgraph=True, backend=backend, mode=mode)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="g2vlm-decode")
        self._free: list[RowCache] = []

    def take_cache(self) -> RowCache:
        """An empty KV cache, one that was used before if there is: graphs read from where that one lies."""
        try:
            return self._free.pop()
        except IndexError:
            return RowCache(self._shape, self._dtype, self.network.device, lasting=True)

    def give_back(self, cache: RowCache) -> None:
        """Keep a cache for the next."""
        self._free.append(cache)

    def __call__(
        self, tokens: Int[Tensor, " rows"], positions: Int[Tensor, " rows"], cache: RowCache
    ) -> NextTokens:
        """Read one token of each row, as `Decoder` does, by a graph where there is one."""
        beginnings = cache.readers
        if len(beginnings) > MOST_SEGMENTS or any(reader.index is not None for reader in beginnings):
            return super().__call__(tokens, positions, cache)
        stream = torch.cuda.current_stream(self.network.device) if self._on_gpu else None
        return self._thread.submit(self._step, tokens, positions, cache, stream).result()

    @torch.inference_mode()
    def _step(self, tokens: Tensor, positions: Tensor, cache: RowCache, stream: Any) -> NextTokens:
        cache.reserve()
        count, rows = cache.num_rows, cache.capacity[0]
        # Rows that nobody uses are read and written as well: sizes are powers of two, so that few graphs do.
        ids, places, where = (
            torch.nn.functional.pad(given, (0, rows - count))
            for given in (tokens, positions, torch.tensor(cache.lengths, device=tokens.device))
        )
        rotation, (keys, values) = self.network.text_rotation(places), cache.buffers
        beginning = tuple((one.segment.keys, one.segment.values) for one in cache.readers)
        for buffer in (*keys, *values, *(kind for pair in beginning for kind in pair)):
            _mark(buffer)
        with torch.cuda.stream(stream) if self._on_gpu else nullcontext():
            torch.compiler.cudagraph_mark_step_begin()
            found: NextTokens = self._compiled(
                ids, rotation.cos, rotation.sin, where, tuple(keys), tuple(values), beginning
            )
        cache.advance()
        # What is kept must not lie where the next pass of the graph writes; nobody keeps logits.
        return NextTokens(
            found.logits[:count], found.choices[:count].clone(), found.log_probabilities[:count].clone()
        )

    def _pass(
        self, tokens: Tensor, cos: Tensor, sin: Tensor, places: Tensor, keys: Any, values: Any, beginning: Any
    ) -> NextTokens:
        memory = StepMemory(keys, values, places, beginning)
        return NextTokens.of(self.network.decode(tokens, Rotation(cos, sin), memory))


def _mark(buffer: Tensor) -> None:
    """Tell compilers once what is true of keys and values."""
    if hasattr(buffer, "_dynamo_static_input_type"):
        return
    # CUDA graphs would otherwise copy what they read or change before every pass.
    torch._dynamo.mark_static_address(buffer)
    # The number of tokens stands before the channels in buffers of every kind; the first is that of rows, for
    # buffers of one layer. One graph for all numbers.
    for axis in (buffer.ndim - 2, 0):
        if buffer.shape[axis] > 1:
            torch._dynamo.maybe_mark_dynamic(buffer, axis)


DECODERS: dict[Decoding, type[Decoder]] = {
    Decoding.PLAIN: Decoder,
    Decoding.NATIVE: NativeDecoder,
    Decoding.GRAPH: CompiledDecoder,
}


def choose_decoding(placement: Placement, compiled: bool | None, quantization: Quantization) -> Decoding:
    """How answers will be decoded.

    Args:
        placement: where the network runs.
        compiled: True for compiled passes, False for plain ones; None for what is faster without waiting:
            native passes on a CPU where they are right and measure faster, and plain ones elsewhere.
        quantization: of the language side.

    Raises:
        DeviceError: compiled passes or packed weights were asked for and are not possible here, or fewer bits
            on a GPU.
    """
    device = placement.device
    if device.type == "cuda" and quantization in (Quantization.INT8, Quantization.INT4):
        raise DeviceError(
            f"Expected full weights on a GPU, got {quantization.value}: without kernels of its own it is "
            "widened for every product, which is slower than bfloat16. Leave the quantization out; "
            "compiled=True makes answers faster."
        )
    if quantization is Quantization.PACKED:
        _check_packing(placement, compiled)
    if compiled is False or (compiled is None and device.type != "cpu"):
        return Decoding.PLAIN
    if device.type == "cuda":
        return Decoding.GRAPH
    if device.type != "cpu":
        raise DeviceError(f"Expected a CPU or a CUDA GPU for compiled answers, got {device}: leave it out.")
    found = verdict(decoding_path(placement.precision, quantization))
    if compiled and not found.right:
        raise DeviceError(f"Expected to write answers by compiled passes, but they are {found}.")
    if compiled or found.taken:
        return Decoding.NATIVE
    if found.error is None:
        _tell(f"answers are written by plain passes, more slowly; compiled ones are {found}")
    return Decoding.PLAIN


def decoding_path(precision: Precision, quantization: Quantization) -> FastPath:
    """What passes in C over weights in some format have to prove."""
    if quantization is Quantization.INT8:
        return FastPath.DECODE_INT8
    if quantization is Quantization.INT4:
        return FastPath.DECODE_INT4
    if quantization is Quantization.PACKED:
        return FastPath.PACKED
    wide = precision is Precision.FLOAT32
    return FastPath.DECODE_FLOAT32 if wide else FastPath.DECODE_BFLOAT16


@lru_cache(maxsize=8)
def _tell(what: str) -> None:
    """Once a process."""
    _log.warning("%s", what)


def _check_packing(placement: Placement, compiled: bool | None) -> None:
    """Refuse packed weights where passes in C do not read them, or unpack them more slowly than they save."""
    device, precision = placement.device, placement.precision
    reason = ""
    if device.type != "cpu" or precision is not Precision.BFLOAT16:
        reason = f"this is {device} in {precision.value}"
    elif compiled is False:
        reason = "compiled answers are off"
    elif not (found := verdict(FastPath.PACKED)).taken:
        reason = f"packed weights are {found}"
    if reason:
        raise DeviceError(
            "Expected a CPU in bfloat16 with compiled answers for packed weights, but "
            f"{reason}: leave the quantization out."
        )
