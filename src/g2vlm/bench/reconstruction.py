"""The machine's limits, and reconstructions beside them."""

from collections.abc import Iterator

from g2vlm.bench.limits import Limit, compose, int8_available, kind_of, probes, stream_probes
from g2vlm.bench.results import GIGA, Measurement, count_of
from g2vlm.bench.session import Session
from g2vlm.bench.timing import median, now, take_turns
from g2vlm.bench.work import Work, flops, through_int8, work_of
from g2vlm.evaluation.results import Better

RATE_LABELS = {
    "matrix": "matrix products",
    "matrix_float32": "matrix products of the heads, float32",
    "attention": "attention",
    "attention_float32": "attention of the heads, float32",
}


def measure_limits(session: Session) -> Iterator[Measurement]:
    """Rates of the machine at the shapes of a two-view reconstruction, and its memory bandwidth."""
    work = work_of(session.sizes.config, session.reconstruction_pass(2))
    samples = take_turns(probes(work, session.placement), session.plan.repeats, session.plan.budget_s)
    yield from _rate_figures(compose(work, samples))
    size = session.sizes.stream_bytes
    samples = take_turns(stream_probes(size, session.placement), session.plan.repeats, session.plan.budget_s)
    for name, seconds in samples.items():
        rates = tuple(size / one / GIGA for one in seconds)
        yield Measurement(
            f"limits/read/{name}",
            f"memory read by {name}",
            median(rates),
            "GB/s",
            Better.HIGHER,
            samples=rates,
        )


def _rate_figures(limit: Limit) -> Iterator[Measurement]:
    for kind, rate in limit.rates.items():
        yield Measurement(
            f"limits/{kind}",
            RATE_LABELS[kind],
            rate / GIGA,
            "GFLOP/s",
            Better.HIGHER,
            note=f"over all shapes of a 2-view reconstruction; the best shape {limit.best[kind] / GIGA:.0f}",
        )


def measure_reconstruction(session: Session) -> Iterator[Measurement]:
    """Seconds of reconstructions, forward pass and whole call, beside the composed limit."""
    for views in session.plan.views:
        yield from measure_views(session, views)


def measure_views(session: Session, views: int) -> Iterator[Measurement]:
    """The same for one number of photos."""
    session.say(f"reconstructing {count_of(views)}")
    work = work_of(session.sizes.config, session.reconstruction_pass(views))
    photos, whole = session.photos(views), list[float]()

    def forward() -> float:
        start = now(session.device)
        session.model.reconstruct(photos)
        whole.append(now(session.device) - start)
        return session.model.timings["forward_s"]

    faster = through_int8(work) if int8_available(session.placement) else work
    calls = {"forward": forward, **probes(work | faster, session.placement)}
    samples = take_turns(calls, session.plan.repeats, session.plan.budget_s)
    limit, own = compose(work, samples), samples["forward"]
    yield _against(limit, work, f"reconstruct/{views}/forward", f"forward pass of {count_of(views)}", own)
    if faster is not work:
        key, label = f"reconstruct/{views}/forward_int8", "  the same, limit with the heads in int8 planes"
        yield _against(compose(faster, samples), faster, key, label, own)
    label = f"photos of {count_of(views)} to a scene"
    counted = tuple(whole[-len(own) :])
    yield _against(limit, work, f"reconstruct/{views}/whole", label, counted)


def _against(limit: Limit, work: Work, key: str, label: str, samples: tuple[float, ...]) -> Measurement:
    rates = ", ".join(f"{kind} {rate / GIGA:.0f}" for kind, rate in limit.rates.items())
    ideal = sum(
        sum(step.flops * count for step, count in part.items()) / limit.best[kind]
        for kind, part in _by_kind(work).items()
    )
    note = (
        f"{flops(work) / 1e12:.2f} TFLOP; limit at {rates} GFLOP/s; "
        f"{ideal / median(samples):.0%} of the limit if every shape ran at the rate of the best one"
    )
    return Measurement(key, label, median(samples), "s", Better.LOWER, limit.seconds, samples, note)


def _by_kind(work: Work) -> dict[str, Work]:
    parts: dict[str, Work] = {}
    for step, count in work.items():
        parts.setdefault(kind_of(step), Work())[step] += count
    return parts
