"""First answers and follow-ups, beside the baseline of reading the photos again."""

from collections.abc import Iterator

from g2vlm.bench.limits import bandwidth, compose, probes, stream_probes
from g2vlm.bench.results import Measurement, count_of
from g2vlm.bench.session import Session, read_photos
from g2vlm.bench.timing import Timed, median, stopwatch, take_turns
from g2vlm.bench.work import token_bytes, work_of
from g2vlm.evaluation.results import Better

QUESTION = "How far is the chair from the table, and which of them is nearer to the first camera?"


def measure_questions(session: Session) -> Iterator[Measurement]:
    """First answer, follow-up, and the baseline: reading the photos again for every question."""
    for views in session.plan.question_views:
        session.say(f"asking about {count_of(views)}")
        yield from _questions(session, views)


def _questions(session: Session, views: int) -> Iterator[Measurement]:
    model, tokens = session.model, session.sizes.new_tokens
    perception = model.perceive(session.photos(views))
    reading = work_of(session.sizes.config, session.perception_pass(views, geometry=True))
    asking = work_of(session.sizes.config, session.question_pass(QUESTION, perception.num_tokens))
    answers: list[tuple[int, ...]] = []
    prompt = session.perception_prompt(views)

    def follow_up() -> None:
        answers.append(perception.ask(QUESTION, max_new_tokens=tokens).token_ids)

    def first_answer() -> None:
        answers.append(model.perceive(session.photos(views)).ask(QUESTION, max_new_tokens=tokens).token_ids)

    size = session.sizes.stream_bytes
    calls: dict[str, Timed] = {
        "first": stopwatch(first_answer, session.device),
        "follow_up": stopwatch(follow_up, session.device),
        "prefill": stopwatch(lambda: read_photos(session, model.network, prompt), session.device),
        **probes(reading + asking, session.placement),
        **stream_probes(size, session.placement),
    }
    samples = take_turns(calls, session.plan.repeats, session.plan.budget_s)
    speed = bandwidth({name: samples[name] for name in stream_probes(0, session.placement)}, size)
    written = len(answers[0]) - 1
    decode = written * _token_bytes(session, perception.num_tokens) / speed
    asked = decode + max(
        compose(asking, samples).seconds, _token_bytes(session, perception.num_tokens) / speed
    )
    read = compose(reading, samples).seconds
    first, follow, prefill = (samples[name] for name in ("first", "follow_up", "prefill"))
    again = tuple(a + b for a, b in zip(prefill, follow, strict=True))
    what = f"{count_of(views)}, answer of {len(answers[0])} tokens"
    base = f"questions/{views}"
    yield Measurement(
        f"{base}/first", f"first answer, {what}", median(first), "s", Better.LOWER, read + asked, first
    )
    yield Measurement(
        f"{base}/follow_up", f"follow-up, {what}", median(follow), "s", Better.LOWER, asked, follow
    )
    note = "reads the photos again, without decoding geometry: what the public code does for every question"
    yield Measurement(
        f"{base}/again", f"recomputation, {what}", median(again), "s", Better.LOWER, None, again, note
    )
    ratios = tuple(a / b for a, b in zip(again, follow, strict=True))
    label = f"follow-up against recomputation, {count_of(views)}"
    yield Measurement(f"{base}/speedup", label, median(ratios), "x", Better.HIGHER, None, ratios)
    same = sum(answer == answers[0] for answer in answers) / len(answers)
    label = f"answers from memory identical to recomputed ones, {count_of(views)}"
    yield Measurement(f"{base}/identical", label, same * 100, "%", Better.HIGHER)


def _token_bytes(session: Session, past: int) -> float:
    width = session.placement.precision.dtype.itemsize
    return token_bytes(session.sizes.config.mixture, past, weight_bytes=width, memory_bytes=width)
