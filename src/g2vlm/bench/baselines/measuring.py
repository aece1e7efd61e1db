"""Decoding and reading beside llama.cpp, by turns in the same minutes.

OpenVINO GenAI is not among the baselines. Its one way to a model of random weights, without the network and
without optimum-intel (which brings a torch and a transformers of its own), is a GGUF file. Release 2026.4.1
builds a graph from one (not from bfloat16), which its CPU plugin refuses to compile: "ReadValue contains dead
weak ptr".
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from g2vlm.bench.baselines.llama_cpp import LlamaCpp, Stored, require_llama_cpp, write_gguf
from g2vlm.bench.decoding import long_answer, seconds_per_token, text_reading
from g2vlm.bench.results import Measurement
from g2vlm.bench.session import Session
from g2vlm.bench.timing import Timed, median, take_turns
from g2vlm.errors import MissingExtraError
from g2vlm.evaluation.results import Better
from g2vlm.model.quantization import Quantization
from g2vlm.pipeline import Model

RIVALS = {
    Quantization.NONE: Stored.BF16,
    Quantization.PACKED: Stored.BF16,
    Quantization.INT8: Stored.Q8_0,
    Quantization.INT4: Stored.Q4_0,
}
"""What each of our language sides is compared with."""
READ = {"question": 20, "photo": 729}
"""Tokens that are read: a question behind a photo, and as many as a photo has, behind nothing."""


def measure_baselines(session: Session) -> Iterator[Measurement]:
    """Speed of each language side and of llama.cpp, and the one over the other.

    Without the extra it says so and measures nothing; so it does on a GPU, for which the wheel was not built.
    """
    try:
        require_llama_cpp()
    except MissingExtraError as error:
        session.say(f"left out: {error}")
        return
    if session.device.type != "cpu":
        session.say("left out: llama.cpp is compared on the CPU")
        return
    models = {Quantization.NONE: session.model, **session.quantized_models}
    with TemporaryDirectory(prefix="g2vlm-bench-") as folder:
        for kind, model in models.items():
            yield from _beside(session, kind, model, Path(folder))


def _beside(session: Session, kind: Quantization, model: Model, folder: Path) -> Iterator[Measurement]:
    rival, tokens = RIVALS[kind], session.sizes.new_tokens
    mixture, path = session.sizes.config.mixture, folder / f"{RIVALS[kind].value}.gguf"
    session.say(f"{kind.value} beside llama.cpp in {rival.value}")
    if not path.exists():
        write_gguf(path, mixture, rival)
    perception = model.perceive(session.photos(1))
    question, past = long_answer(perception, tokens), perception.num_tokens
    context = past + tokens + max(READ.values()) + 64
    theirs = LlamaCpp(path, mixture.vocab_size, context, torch.get_num_threads())
    calls: dict[str, Timed] = {
        "decode": lambda: seconds_per_token(perception, question, tokens),
        "decode, llama.cpp": lambda: theirs.seconds_per_token(past, tokens),
    }
    for what, count in READ.items():
        behind = past if what == "question" else 0
        calls[what] = text_reading(model, count, behind)
        calls[f"{what}, llama.cpp"] = _their_reading(theirs, count, behind)
    samples = take_turns(calls, session.plan.repeats, session.plan.budget_s)
    yield from _figures(kind, rival, samples)


def _their_reading(theirs: LlamaCpp, count: int, behind: int) -> Timed:
    return lambda: theirs.prefill_seconds(count, behind)


def _figures(
    kind: Quantization, rival: Stored, samples: dict[str, tuple[float, ...]]
) -> Iterator[Measurement]:
    ours = "bfloat16" if kind is Quantization.NONE else kind.value
    for what, count in {"decode": 1, **READ}.items():
        label = "decoding" if what == "decode" else f"reading {count} tokens ({what})"
        own, other = samples[what], samples[f"{what}, llama.cpp"]
        key = f"baselines/{kind.value}/{what}"
        for name, seconds, end in ((ours, own, "speed"), (f"llama.cpp {rival.value}", other, "llama_cpp")):
            rates = tuple(count / value for value in seconds)
            text = f"{label}, {name}"
            yield Measurement(f"{key}/{end}", text, median(rates), "tokens/s", Better.HIGHER, None, rates)
        ratios = tuple(slow / fast for slow, fast in zip(other, own, strict=True))
        text = f"{label}, {ours} against llama.cpp {rival.value}"
        yield Measurement(f"{key}/ratio", text, median(ratios), "x", Better.HIGHER, None, ratios)
