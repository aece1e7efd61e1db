"""What the machine can do at best: rates of its own library, at the network's own shapes.

A limit is composed, never assumed: the seconds of every matrix product and every attention call of a pass,
each measured alone with its own shape, input and output already in memory, times how often it occurs. What
the network takes beyond that is its own: norms, activations, rotations, copies, memory management, Python.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from g2vlm.bench.timing import Timed, median, now
from g2vlm.bench.work import Attention, Format, Product, Step, Work
from g2vlm.model.capabilities.deciding import taken
from g2vlm.model.capabilities.paths import FastPath
from g2vlm.model.native.matrix import use_large_pages
from g2vlm.model.precision import Placement

MAX_ROWS = 8192
"""Rows of a product that are really measured; a longer one is taken to run at the same rate."""
MAX_QUERIES = 4096
"""Likewise for the queries of an attention call: fewer sequences where there are several, fewer queries over
all the keys where there is one."""
CPU = torch.device("cpu")
MIN_FLOPS = 2e9
"""A step is repeated until it has done this much (at most `MAX_LOOPS` times), so that the clock can tell."""
MAX_LOOPS = 100
STREAM_SHAPE = (8960, 1536)
"""(outer, inner) of the weights that are streamed to measure the memory bandwidth."""


def name_of(step: Step) -> str:
    """A name that is unique among the steps of a pass."""
    return repr(step)


def probe(step: Step, placement: Placement) -> Timed:
    """A timed call that does one step alone; buffers are made now and reused."""
    if step.format is Format.INT8:
        assert isinstance(step, Product)
        return _int8_probe(step)
    dtype = torch.float32 if step.format is Format.FLOAT32 else placement.precision.dtype
    return (
        _product_probe(step, placement.device, dtype)
        if isinstance(step, Product)
        else _attention_probe(step, placement.device, dtype)
    )


def _product_probe(step: Product, device: torch.device, dtype: torch.dtype) -> Timed:
    rows = min(step.rows, MAX_ROWS)
    x = torch.randn(rows, step.inner, dtype=dtype, device=device)
    weight = torch.randn(step.outer, step.inner, dtype=dtype, device=device).t()
    out = torch.empty(rows, step.outer, dtype=dtype, device=device)
    loops = _loops(2 * rows * step.inner * step.outer)

    @torch.inference_mode()
    def run() -> float:
        start = now(device)
        for _ in range(loops):
            torch.mm(x, weight, out=out)
        return (now(device) - start) / loops * step.rows / rows

    return run


def int8_available(placement: Placement) -> bool:
    """Whether this machine multiplies int8 matrices through oneDNN, rightly and fast."""
    return placement.device.type == "cpu" and taken(FastPath.INTEGER_HEADS)


def _int8_probe(step: Product) -> Timed:
    rows = min(step.rows, MAX_ROWS)
    x = torch.randint(-127, 128, (rows, step.inner), dtype=torch.int8)
    weight = torch.randint(-127, 128, (step.outer, step.inner), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [rows, step.inner])
    scale, zeros = torch.ones(step.outer), torch.zeros(step.outer, dtype=torch.int64)
    multiply = torch.ops.onednn.qlinear_pointwise
    loops = _loops(2 * rows * step.inner * step.outer)

    @torch.inference_mode()
    def run() -> float:
        start = now(CPU)
        for _ in range(loops):
            multiply(x, 1.0, 0, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return (now(CPU) - start) / loops * step.rows / rows

    return run


def _attention_probe(step: Attention, device: torch.device, dtype: torch.dtype) -> Timed:
    batch = min(step.batch, max(1, MAX_QUERIES // step.queries))
    count = step.queries if step.batch > 1 else min(step.queries, MAX_QUERIES)

    def make(heads: int, tokens: int) -> torch.Tensor:
        return torch.randn(batch, heads, tokens, step.head_dim, dtype=dtype, device=device)

    q, k, v = make(step.heads, count), make(step.kv_heads, step.keys), make(step.kv_heads, step.keys)
    grouped = step.heads != step.kv_heads
    scale = step.batch * step.queries / (batch * count)
    loops = _loops(int(step.flops / scale))

    @torch.inference_mode()
    def run() -> float:
        start = now(device)
        for _ in range(loops):
            F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
        return (now(device) - start) / loops * scale

    return run


def _loops(flops: int) -> int:
    return min(MAX_LOOPS, max(1, math.ceil(MIN_FLOPS / max(flops, 1))))


def probes(work: Work, placement: Placement) -> dict[str, Timed]:
    """A timed call for every distinct step of a pass."""
    return {name_of(step): probe(step, placement) for step in work}


@dataclass(frozen=True)
class Limit:
    """The machine's own time for a pass, and where it comes from."""

    seconds: float
    """Sum over all steps of their own time."""
    rates: dict[str, float]
    """FLOP/s over all steps of a kind: `matrix`, `matrix_float32`, `matrix_int8`, `attention`,
    `attention_float32`."""
    best: dict[str, float]
    """FLOP/s of the fastest shape of each kind."""

    @property
    def ideal_share(self) -> dict[str, float]:
        """Each kind's overall rate divided by that of its fastest shape."""
        return {kind: rate / self.best[kind] for kind, rate in self.rates.items()}


def kind_of(step: Step) -> str:
    """`matrix` or `attention`, with `_float32` for the heads, `_int8` for integer products."""
    kind = "matrix" if isinstance(step, Product) else "attention"
    return kind if step.format is Format.TOWER else f"{kind}_{step.format.value}"


def compose(work: Work, samples: Mapping[str, tuple[float, ...]]) -> Limit:
    """Add up the medians of the steps measured by `probes`."""
    seconds: dict[str, float] = {}
    done: dict[str, float] = {}
    best: dict[str, float] = {}
    for step, count in work.items():
        kind, own = kind_of(step), max(median(samples[name_of(step)]), 1e-9)
        seconds[kind] = seconds.get(kind, 0.0) + count * own
        done[kind] = done.get(kind, 0.0) + count * step.flops
        best[kind] = max(best.get(kind, 0.0), step.flops / own)
    rates = {kind: done[kind] / seconds[kind] for kind in seconds}
    return Limit(sum(seconds.values()), rates, best)


def stream_probes(num_bytes: int, placement: Placement) -> dict[str, Timed]:
    """Timed calls that read `num_bytes` of weights once, in several ways; the best is the bandwidth.

    One-token products in both formats, and a plain sum: whichever a machine's library does best shows what
    its memory gives, also where the product in the network's own format is slow. They lie in large pages, as
    the weights of native passes do.
    """
    return {
        "one-token product, tower": _stream_product(num_bytes, placement.device, placement.precision.dtype),
        "one-token product, float32": _stream_product(num_bytes, placement.device, torch.float32),
        "sum, float32": _stream_sum(num_bytes, placement.device),
    }


def bandwidth(samples: Mapping[str, tuple[float, ...]], num_bytes: int) -> float:
    """Bytes per second of the fastest way to read memory."""
    return max(num_bytes / max(median(samples[name]), 1e-9) for name in samples)


def _stream_product(num_bytes: int, device: torch.device, dtype: torch.dtype) -> Timed:
    outer, inner = STREAM_SHAPE
    outer = min(outer, max(1, num_bytes // (inner * dtype.itemsize)))
    size = outer * inner * dtype.itemsize
    weights = [torch.ones(outer, inner, dtype=dtype, device=device) for _ in range(max(1, num_bytes // size))]
    for weight in weights:
        use_large_pages(weight)
    x = torch.ones(1, inner, dtype=dtype, device=device)

    @torch.inference_mode()
    def run() -> float:
        start = now(device)
        for weight in weights:
            F.linear(x, weight)
        return (now(device) - start) * num_bytes / (len(weights) * size)

    return run


def _stream_sum(num_bytes: int, device: torch.device) -> Timed:
    numbers = torch.ones(num_bytes // 4, device=device)
    use_large_pages(numbers)

    @torch.inference_mode()
    def run() -> float:
        start = now(device)
        numbers.sum()
        return now(device) - start

    return run
