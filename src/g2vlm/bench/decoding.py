"""Writing answers token by token, beside the memory bandwidth and beside transformers."""

from collections.abc import Iterator

from g2vlm.bench.baselines import TransformersDecoder
from g2vlm.bench.limits import bandwidth, stream_probes
from g2vlm.bench.results import Better, Figure
from g2vlm.bench.session import Session
from g2vlm.bench.timing import Timed, median, take_turns
from g2vlm.bench.work import token_bytes
from g2vlm.errors import InputError
from g2vlm.inference.perception import Perception

QUESTIONS = tuple(
    f"What stands {place} the {thing}?"
    for thing in ("table", "chair", "door", "window", "lamp", "shelf")
    for place in ("behind", "beside", "under", "in front of", "nearest to", "farthest from")
)
"""Tried in turn until an answer reaches the wanted length: with random weights some end early by chance."""
VIEWS = 1
"""Photos in memory while decoding is measured."""


def measure_decoding(session: Session) -> Iterator[Figure]:
    """Tokens per second of this package and of transformers with either of its caches, by turns."""
    session.say("decoding")
    tokens = session.sizes.new_tokens
    perception = session.model.perceive(session.photos(VIEWS))
    question, past = _long_answer(perception, tokens), perception.num_tokens
    baseline = TransformersDecoder(session.sizes.config.mixture, session.placement, past)
    size = session.sizes.stream_bytes
    streams = stream_probes(size, session.placement)
    calls: dict[str, Timed] = {
        "ours": lambda: _seconds_per_token(perception, question, tokens),
        "growing": lambda: baseline.seconds_per_token(tokens, None),
        "static": lambda: baseline.seconds_per_token(tokens, "static"),
        **streams,
    }
    samples = take_turns(calls, session.plan.repeats, session.plan.budget_s)
    speed = bandwidth({name: samples[name] for name in streams}, size)
    width = session.placement.precision.dtype.itemsize
    needed = token_bytes(
        session.sizes.config.mixture, past + tokens // 2, weight_bytes=width, memory_bytes=width
    )
    yield from _figures(samples, speed / needed, past)


def _figures(samples: dict[str, tuple[float, ...]], limit: float, past: int) -> Iterator[Figure]:
    def rates(name: str) -> tuple[float, ...]:
        return tuple(1 / seconds for seconds in samples[name])

    ours = rates("ours")
    note = f"{past} tokens in memory; limit: weights and memory read once a token at the memory bandwidth"
    yield Figure("decode/speed", "decoding", median(ours), "tokens/s", Better.HIGHER, limit, ours, note)
    for name in ("growing", "static"):
        label = f"decoding by transformers, {name} cache"
        theirs = rates(name)
        note = "Qwen2-VL of the same shape and precision, greedy generate"
        yield Figure(
            f"decode/transformers_{name}",
            label,
            median(theirs),
            "tokens/s",
            Better.HIGHER,
            limit,
            theirs,
            note,
        )
    best = min(("growing", "static"), key=lambda name: median(samples[name]))
    ratios = tuple(theirs / own for theirs, own in zip(samples[best], samples["ours"], strict=True))
    label = "decoding against transformers"
    note = f"the faster of its caches: {best}"
    yield Figure("decode/speedup", label, median(ratios), "x", Better.HIGHER, None, ratios, note)


def _long_answer(perception: Perception, tokens: int) -> str:
    """A question whose answer does not end before it has that many tokens."""
    for question in QUESTIONS:
        if len(perception.ask(question, max_new_tokens=tokens).token_ids) == tokens:
            return question
    raise InputError(
        f"Expected one of {len(QUESTIONS)} questions to get an answer of {tokens} tokens, but all ended "
        "earlier: measure with another preset."
    )


def _seconds_per_token(perception: Perception, question: str, tokens: int) -> float:
    """Mean seconds of a pass after the first, which reads the question."""
    answer = perception.ask(question, max_new_tokens=tokens)
    return answer.timings["decode_s"] / (len(answer.token_ids) - 1)
