"""Decoding answers token by token, beside the memory bandwidth and beside transformers."""

from collections.abc import Iterator, Mapping

import torch

from g2vlm.bench.agreement import next_choices
from g2vlm.bench.baselines.transformers import TransformersDecoder
from g2vlm.bench.limits import bandwidth, stream_probes
from g2vlm.bench.results import Measurement
from g2vlm.bench.session import Session
from g2vlm.bench.timing import Timed, median, now, take_turns
from g2vlm.bench.work import token_bytes
from g2vlm.errors import InputError
from g2vlm.evaluation.results import Better
from g2vlm.inference.perception import Perception
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.int4 import GROUP_SIZES
from g2vlm.model.native.linear import NativeLinear
from g2vlm.model.network import Wants
from g2vlm.model.quantization import Quantization
from g2vlm.pipeline import Model

QUESTIONS = tuple(
    f"What stands {place} the {thing}?"
    for thing in ("table", "chair", "door", "window", "lamp", "shelf")
    for place in ("behind", "beside", "under", "in front of", "nearest to", "farthest from")
)
"""Tried in turn until an answer reaches the wanted length: with random weights some end early by chance."""
TOGETHER = 8
"""Questions that are answered side by side."""
TOGETHER_KINDS = {Quantization.NONE: "", Quantization.PACKED: ", packed"}
"""Language sides with which several questions are answered, by what labels add."""
COMPARED = 12
"""Questions over whose answers the next tokens of int8 are compared."""
VIEWS = 1
"""Photos in memory while decoding is measured."""
TRANSFORMERS = {"growing": None, "static": "static"}
"""Kinds of cache of transformers, by our names."""
WEIGHT_BYTES = {Quantization.INT8: 1.0, Quantization.INT4: 0.5 + 4 / GROUP_SIZES[0]}
"""Bytes of a weight of the language side; groups of four-bit weights share a scale and an offset. Those of
packed ones depend on the weights."""


def measure_decoding(session: Session) -> Iterator[Measurement]:
    """Tokens per second of this package and of transformers with either of its caches, by turns."""
    session.say("decoding")
    tokens = session.sizes.new_tokens
    perception = session.model.perceive(session.photos(VIEWS))
    question, past = long_answer(perception, tokens), perception.num_tokens
    quantized = {
        kind: model.perceive(session.photos(VIEWS)) for kind, model in session.quantized_models.items()
    }
    questions = {kind: long_answer(own, tokens) for kind, own in quantized.items()}
    baseline = TransformersDecoder(session.sizes.config.mixture, session.placement, past)
    size = session.sizes.stream_bytes
    streams = stream_probes(size, session.placement)

    def transformers(cache: str | None) -> Timed:
        return lambda: baseline.seconds_per_token(tokens, cache)

    def answering(kind: Quantization) -> Timed:
        return lambda: seconds_per_token(quantized[kind], questions[kind], tokens)

    def together(own: Perception) -> Timed:
        return lambda: _seconds_per_token_together(own, tokens)

    calls: dict[str, Timed] = {
        "ours": lambda: seconds_per_token(perception, question, tokens),
        **{
            f"together_{kind.value}": together(own)
            for kind, own in {Quantization.NONE: perception, **quantized}.items()
            if kind in TOGETHER_KINDS
        },
        **{kind.value: answering(kind) for kind in quantized},
        **{name: transformers(cache) for name, cache in TRANSFORMERS.items()},
        **streams,
    }
    samples = take_turns(calls, session.plan.repeats, session.plan.budget_s)
    speed = bandwidth({name: samples[name] for name in streams}, size)
    width = session.placement.precision.dtype.itemsize
    mixture, middle = session.sizes.config.mixture, past + tokens // 2
    limit = speed / token_bytes(mixture, middle, weight_bytes=width, memory_bytes=width)
    yield from _speeds(samples, limit, past)
    yield from _speeds_together(samples)
    answers = {text: perception.ask(text, max_new_tokens=tokens).token_ids for text in QUESTIONS[:COMPARED]}
    plain = next_choices(session.model, session.perception_prompt(VIEWS), answers)
    for kind, smaller in session.quantized_models.items():
        weight = WEIGHT_BYTES[kind] if kind in WEIGHT_BYTES else _packed_bytes(smaller)
        stored = token_bytes(mixture, middle, weight_bytes=weight, memory_bytes=width)
        yield from _quantized_speeds(kind, samples, speed / stored)
        yield _agreement(session, kind, answers, plain)


def _rates(samples: dict[str, tuple[float, ...]], name: str) -> tuple[float, ...]:
    return tuple(1 / seconds for seconds in samples[name])


def _speeds(samples: dict[str, tuple[float, ...]], limit: float, past: int) -> Iterator[Measurement]:
    ours = _rates(samples, "ours")
    note = f"{past} tokens in memory; limit: weights and memory read once a token at the memory bandwidth"
    yield Measurement("decode/speed", "decoding", median(ours), "tokens/s", Better.HIGHER, limit, ours, note)
    for name in TRANSFORMERS:
        theirs, key = _rates(samples, name), f"decode/transformers_{name}"
        label = f"decoding by transformers, {name} cache"
        note = "Qwen2-VL of the same shape and precision, greedy generate"
        yield Measurement(key, label, median(theirs), "tokens/s", Better.HIGHER, limit, theirs, note)
    yield _against_transformers(samples, "ours", "decode/speedup", "decoding against transformers")
    packed = Quantization.PACKED.value
    best, label = (packed, "packed") if packed in samples else ("ours", "as stored")
    label = f"decoding without loss, {label}, against transformers"
    yield _against_transformers(samples, best, "decode/lossless_speedup", label)


def _against_transformers(
    samples: dict[str, tuple[float, ...]], own: str, key: str, label: str
) -> Measurement:
    best = min(TRANSFORMERS, key=lambda name: median(samples[name]))
    ratios = tuple(theirs / ours for theirs, ours in zip(samples[best], samples[own], strict=True))
    note = f"the faster of its caches: {best}"
    return Measurement(key, label, median(ratios), "x", Better.HIGHER, None, ratios, note)


def _speeds_together(samples: dict[str, tuple[float, ...]]) -> Iterator[Measurement]:
    note = "tokens of all answers; each pass reads weights and photos once for all"
    for kind, added in TOGETHER_KINDS.items():
        if (name := f"together_{kind.value}") in samples:
            speed, label = _rates(samples, name), f"decoding, {TOGETHER} questions side by side{added}"
            key = "decode/together" if kind is Quantization.NONE else f"decode/{kind.value}_together"
            yield Measurement(key, label, median(speed), "tokens/s", Better.HIGHER, None, speed, note)


def _quantized_speeds(
    kind: Quantization, samples: dict[str, tuple[float, ...]], limit: float
) -> Iterator[Measurement]:
    name = kind.value
    speed = _rates(samples, name)
    label = f"decoding, {name} language side"
    yield Measurement(f"decode/{name}_speed", label, median(speed), "tokens/s", Better.HIGHER, limit, speed)
    ratios = tuple(plain / small for plain, small in zip(samples["ours"], samples[name], strict=True))
    label = f"decoding, {name} against the towers' precision"
    yield Measurement(f"decode/{name}_speedup", label, median(ratios), "x", Better.HIGHER, None, ratios)


def _packed_bytes(model: Model) -> float:
    """Bytes of a weight, measured."""
    matrices = [layer.matrix for layer in model.network.modules() if isinstance(layer, NativeLinear)]
    return sum(matrix.num_bytes for matrix in matrices) / sum(
        matrix.c.rows * matrix.c.columns for matrix in matrices
    )


def _agreement(
    session: Session, kind: Quantization, answers: Mapping[str, tuple[int, ...]], plain: list[int]
) -> Measurement:
    """Next tokens that a smaller language side chooses as the full one does, after the same words."""
    chosen = next_choices(session.quantized_models[kind], session.perception_prompt(VIEWS), answers)
    same = 100.0 * sum(one == other for one, other in zip(plain, chosen, strict=True)) / len(plain)
    note = f"over {len(plain)} tokens of {len(answers)} answers; random weights make many near-ties"
    label = f"same next token, {kind.value}"
    return Measurement(f"decode/{kind.value}_agreement", label, same, "%", Better.HIGHER, note=note)


def long_answer(perception: Perception, tokens: int) -> str:
    """A question whose answer does not end before it has that many tokens."""
    for question in QUESTIONS:
        if len(perception.ask(question, max_new_tokens=tokens).token_ids) == tokens:
            return question
    raise InputError(
        f"Expected one of {len(QUESTIONS)} questions to get an answer of {tokens} tokens, but all ended "
        "earlier: measure with another preset."
    )


def _seconds_per_token_together(perception: Perception, tokens: int) -> float:
    """Seconds of a pass after the first over the rows that it writes; rows that ended count no more."""
    answers = perception.ask_many(QUESTIONS[:TOGETHER], max_new_tokens=tokens)
    written = sum(len(answer.token_ids) - 1 for answer in answers)
    # An answer counts until it ends; the longest one, all passes.
    return max(answer.timings["decode_s"] for answer in answers) / written


def seconds_per_token(perception: Perception, question: str, tokens: int) -> float:
    """Mean seconds of a pass after the first, which reads the question."""
    answer = perception.ask(question, max_new_tokens=tokens)
    return answer.timings["decode_s"] / (len(answer.token_ids) - 1)


def text_reading(model: Model, count: int, behind: int) -> Timed:
    """Read so many tokens of text behind others, up to the logits of the last."""
    prompts = PromptBuilder(model.tokenizer, model.config, model.placement.device)
    cache = KeyValueCache(
        CacheShape.of(model.config.mixture),
        behind + count,
        dtype=model.placement.precision.dtype,
        device=model.placement.device,
    )
    last = torch.tensor([count - 1], device=model.placement.device)
    ids = [index % (model.config.mixture.vocab_size - 1) for index in range(behind + count)]

    @torch.inference_mode()
    def read() -> float:
        if behind and not cache.length:
            model.network(prompts.text(ids[:behind], 0).inputs, Wants(), cache)
        start = now(model.placement.device)
        model.network(prompts.text(ids[behind:], behind).inputs, Wants(logit_slots=last), cache)
        seconds = now(model.placement.device) - start
        cache.truncate(behind)
        return seconds

    return read
