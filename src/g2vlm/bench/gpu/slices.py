"""What is measured about a GPU, each piece in minutes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from g2vlm.bench.decoding import VIEWS, long_answer, seconds_per_token
from g2vlm.bench.gpu.equality import measure_equality
from g2vlm.bench.limits import bandwidth, stream_probes
from g2vlm.bench.loading import measure_load
from g2vlm.bench.memory import measure_peak
from g2vlm.bench.reconstruction import measure_limits, measure_views
from g2vlm.bench.results import MEGA, Measurement, count_of
from g2vlm.bench.session import Session
from g2vlm.bench.timing import median, take_turns
from g2vlm.bench.work import token_bytes
from g2vlm.evaluation.results import Better
from g2vlm.model.quantization import Quantization
from g2vlm.opening import load

VIEWS_ON_A_GPU = (1, 2, 4, 8, 16, 32, 50, 100, 200)
"""Numbers of photos to reconstruct."""
PERCEIVED = (1, 8, 32)
"""Numbers of photos whose peak memory with questions is measured, as far as they are reconstructed."""
WEIGHT_BYTES = {Quantization.INT8: 1.0, Quantization.INT4: 0.5}
"""Bytes of a weight of the language side in fewer bits, scales left out."""


@dataclass(frozen=True)
class Slice:
    """A few minutes of measuring that stand for themselves."""

    name: str
    """Also of the file that keeps it."""
    measure: Callable[[Session], Iterator[Measurement]]


def slices_for(views: tuple[int, ...]) -> tuple[Slice, ...]:
    """All slices, what is cheap and decides about the rest first."""
    return (
        Slice("equality", measure_equality),
        Slice("limits", measure_limits),
        Slice("load", measure_load),
        *(Slice(f"views-{count}", partial(_views, count)) for count in sorted(set(views))),
        Slice("decode-plain", partial(_decoding, "plain", False, Quantization.NONE)),
        Slice("decode-compiled", partial(_decoding, "compiled", True, Quantization.NONE)),
        *(
            Slice(f"decode-{kind.value}", partial(_decoding, kind.value, None, kind))
            for kind in (Quantization.INT8, Quantization.INT4)
        ),
        *(
            Slice(f"perceive-{count}", partial(_perceived, count))
            for count in PERCEIVED
            if count <= max(views)
        ),
    )


def _views(count: int, session: Session) -> Iterator[Measurement]:
    """Seconds of a reconstruction beside the sum of its products alone, and its peak memory."""
    yield from measure_views(session, count)
    photos = session.photos(count)
    peak = measure_peak(lambda: session.model.reconstruct(photos), session.device)
    label = f"peak memory of the reconstruction of {count_of(count)}"
    note = "beyond the weights"
    yield Measurement(
        f"memory/reconstruct/{count}/peak", label, peak.growth / MEGA, "MB", Better.LOWER, note=note
    )


def _perceived(count: int, session: Session) -> Iterator[Measurement]:
    """Peak memory of reading photos for questions, keys and values included."""
    photos = session.photos(count)
    session.model.perceive(session.photos(1))  # loads what is still missing
    peak = measure_peak(lambda: session.model.perceive(photos), session.device)
    label = f"peak memory of the perception of {count_of(count)}"
    note = "beyond the weights, keys and values included"
    yield Measurement(
        f"memory/perceive/{count}/peak", label, peak.growth / MEGA, "MB", Better.LOWER, note=note
    )


def _decoding(
    name: str, compiled: bool | None, kind: Quantization, session: Session
) -> Iterator[Measurement]:
    """Tokens a second in one way of decoding, beside one reading of weights and memory for each."""
    placement, tokens = session.placement, session.sizes.new_tokens
    session.forget_model()
    model = load(
        session.folder,
        device=str(session.device),
        dtype=placement.precision.value,
        quantization=kind,
        compiled=compiled,
    )
    perception = model.perceive(session.photos(VIEWS))
    question, past = long_answer(perception, tokens), perception.num_tokens
    size = session.sizes.stream_bytes
    streams = stream_probes(size, placement)
    calls = {"ours": lambda: seconds_per_token(perception, question, tokens), **streams}
    samples = take_turns(calls, session.plan.repeats, session.plan.budget_s)
    width = placement.precision.dtype.itemsize
    read = token_bytes(
        session.sizes.config.mixture,
        past + tokens // 2,
        weight_bytes=WEIGHT_BYTES.get(kind, float(width)),
        memory_bytes=width,
    )
    speeds = tuple(1 / seconds for seconds in samples["ours"])
    limit = bandwidth({probe: samples[probe] for probe in streams}, size) / read
    note = f"{past} tokens in memory; limit: weights and memory read once a token at the memory bandwidth"
    label = f"decoding, {name}"
    yield Measurement(f"decode/{name}", label, median(speeds), "tokens/s", Better.HIGHER, limit, speeds, note)
