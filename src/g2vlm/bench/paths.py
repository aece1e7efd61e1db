"""What this machine takes by default beside every plain choice: no fast path may cost time."""

from collections.abc import Iterator, Mapping

from g2vlm.bench.decoding import VIEWS, long_answer, seconds_per_token, text_reading
from g2vlm.bench.results import Measurement
from g2vlm.bench.session import Session, with_smaller_language
from g2vlm.bench.timing import Timed, median, stopwatch, take_turns
from g2vlm.evaluation.results import Better
from g2vlm.model.capabilities.deciding import verdict
from g2vlm.model.capabilities.paths import FastPath, Verdict, Wish, wished_everywhere
from g2vlm.model.precision import Precision
from g2vlm.model.quantization import Quantization
from g2vlm.opening import load
from g2vlm.pipeline import Model

QUESTION_TOKENS = 20
"""Tokens of a question that is read behind a photo."""
PHOTO_TOKENS = 729
"""Tokens of a photo, read behind nothing."""
HOPELESS = 3.0
"""Times as long as float32 from which on bfloat16 is not measured: some processors would take minutes."""
DEFAULT = "default"
RECONSTRUCTED = 2
"""Views."""
LABELS = {
    "reconstruct": f"forward pass of {RECONSTRUCTED} views",
    "perceive": "a photo read for questions",
    "photo": f"reading {PHOTO_TOKENS} tokens",
    "question": f"reading {QUESTION_TOKENS} tokens behind a photo",
    "decode": "decoding a token",
}
"""What is timed."""
OF_LANGUAGE = ("photo", "question", "decode")
"""Where a smaller language side makes a difference."""


def measure_paths(session: Session) -> Iterator[Measurement]:
    """Times of what is taken by default and of every plain choice, and the best plain one over the default.

    Plain is what torch does operation by operation, with every fast path off: in float32 and in bfloat16
    where the run leaves the precision open, and with widened weights for a smaller language side.
    """
    if session.device.type != "cpu":
        session.say("left out: fast paths are those of a CPU")
        return
    plain = {precision.value: _plain(session, precision) for precision in _precisions(session)}
    session.say("the default beside plain passes in " + " and ".join(plain))
    yield from _compared(session, Quantization.NONE, {DEFAULT: session.model, **plain}, tuple(LABELS))
    same = plain[session.placement.precision.value]
    for kind, model in session.quantized_models.items():
        session.say(f"{kind.value} beside plain passes")
        yield from _compared(session, kind, {DEFAULT: model, **_rival(session, kind, same)}, OF_LANGUAGE)


def _precisions(session: Session) -> list[Precision]:
    """What a user would choose among who left the precision open."""
    if session.plan.dtype != "auto":
        return [session.placement.precision]
    found = verdict(FastPath.BFLOAT16)
    if found.taken or (found.right and not _is_hopeless(found)):
        return list(Precision)
    session.say(f"bfloat16 is left out, since nobody would wait for it: {found}")
    return [Precision.FLOAT32]


def _is_hopeless(found: Verdict) -> bool:
    return found.fast_s is None or found.plain_s is None or found.fast_s > HOPELESS * found.plain_s


def _plain(session: Session, precision: Precision) -> Model:
    """The same checkpoint without any fast path, all parts loaded."""
    with wished_everywhere(Wish.OFF):
        model = load(session.folder, device="cpu", dtype=precision.value, compiled=False)
        model.reconstruct(session.photos(1))
        model.perceive(session.photos(1))
    return model


def _rival(session: Session, kind: Quantization, plain: Model) -> dict[str, Model]:
    """What a smaller language side has to beat."""
    if kind is Quantization.PACKED:  # the same numbers, so whoever has them could leave it out
        return {"full": session.model}
    with wished_everywhere(Wish.OFF):
        return {"plain": with_smaller_language(plain, kind)}


def _compared(
    session: Session, kind: Quantization, models: Mapping[str, Model], what: tuple[str, ...]
) -> Iterator[Measurement]:
    timed = {name: _works(session, model) for name, model in models.items()}
    for work in what:
        calls = {name: works[work] for name, works in timed.items()}
        samples = take_turns(calls, session.plan.repeats, session.plan.budget_s)
        yield from _figures(f"paths/{kind.value}/{work}", _label(work, kind), samples)


def _label(work: str, kind: Quantization) -> str:
    return LABELS[work] if kind is Quantization.NONE else f"{LABELS[work]}, {kind.value}"


def _works(session: Session, model: Model) -> dict[str, Timed]:
    photos, tokens = session.photos(VIEWS), session.sizes.new_tokens
    perception = model.perceive(photos)
    question = long_answer(perception, tokens)

    def reconstruct() -> float:
        model.reconstruct(session.photos(RECONSTRUCTED))
        return model.timings["forward_s"]

    return {
        "reconstruct": reconstruct,
        "perceive": stopwatch(lambda: model.perceive(photos), session.device),
        "photo": text_reading(model, PHOTO_TOKENS, 0),
        "question": text_reading(model, QUESTION_TOKENS, perception.num_tokens),
        "decode": lambda: seconds_per_token(perception, question, tokens),
    }


def _figures(base: str, label: str, samples: Mapping[str, tuple[float, ...]]) -> Iterator[Measurement]:
    """Seconds of each choice, then the best plain one over the default."""
    for name, seconds in samples.items():
        text = f"{label}, {name}"
        yield Measurement(f"{base}/{name}", text, median(seconds), "s", Better.LOWER, None, seconds)
    default = samples[DEFAULT]
    best = min((name for name in samples if name != DEFAULT), key=lambda name: median(samples[name]))
    ratios = tuple(plain / own for plain, own in zip(samples[best], default, strict=True))
    note = f"the best plain choice: {best}"
    text = f"{label}, default against the best plain choice"
    yield Measurement(f"{base}/ratio", text, median(ratios), "x", Better.HIGHER, None, ratios, note)
