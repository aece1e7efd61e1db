"""Loading, and peaks of memory: everything that is measured in a process of its own."""

from collections.abc import Iterator

import numpy as np
import torch

from g2vlm.bench.child import Job, Kind, run_child
from g2vlm.bench.limits import bandwidth, stream_probes
from g2vlm.bench.results import MEGA, Measurement, count_of
from g2vlm.bench.session import Session
from g2vlm.bench.timing import median, take_turns
from g2vlm.evaluation.results import Better


def measure_load(session: Session) -> Iterator[Measurement]:
    """Seconds and peak memory of loading in processes of their own, by turns with the memory bandwidth."""
    size = session.sizes.stream_bytes
    probes = stream_probes(size, session.placement)
    results: list[dict[str, float]] = []

    def load() -> float:
        results.append(run_child(_job(session, Kind.LOAD)))
        return results[-1]["seconds"]

    stream = take_turns({"load": load, **probes}, session.plan.repeats, session.plan.budget_s)
    # The round that only warms up counts where it was the only one.
    results = results[-len(stream.pop("load")) :]
    # Every stored byte is read once and every kept byte written once.
    limit = (results[0]["read"] + results[0]["weights"]) / bandwidth(stream, size)
    note = "float32 file in the page cache; limit: bytes read and written at the memory bandwidth"
    for name, key, label in (
        ("seconds", "load/seconds", "load the checkpoint, first in a process"),
        ("again", "load/again", "load it again, into memory that the system holds ready"),
    ):
        samples = tuple(result[name] for result in results)
        yield Measurement(key, label, median(samples), "s", Better.LOWER, limit, samples, note)
    peaks = tuple(result["peak"] / MEGA for result in results)
    yield Measurement(
        "load/peak_memory",
        "peak memory of loading",
        median(peaks),
        "MB",
        Better.LOWER,
        limit=results[0]["weights"] / MEGA,
        samples=peaks,
        note="anonymous memory; limit: the weights themselves",
    )


def measure_memory(session: Session) -> Iterator[Measurement]:
    """Peak memory for several numbers of photos, and its growth with each photo."""
    for kind, label in ((Kind.RECONSTRUCT, "reconstruction"), (Kind.PERCEIVE, "perception")):
        counts = sorted(set(session.plan.memory_views))
        results = {}
        for views in counts:
            session.say(f"peak memory of the {label} of {count_of(views)}")
            results[views] = run_child(_job(session, kind, views))
        beyond = {views: (result["growth"] - result["outputs"]) / MEGA for views, result in results.items()}
        for views, value in beyond.items():
            yield Measurement(
                f"memory/{kind.value}/{views}/peak",
                f"peak memory of the {label} of {count_of(views)}",
                value,
                "MB",
                Better.LOWER,
                note="beyond weights and scene" + _with_memory(kind, results[views]["memory"]),
            )
        if len(counts) > 1:
            yield Measurement(
                f"memory/{kind.value}/growth",
                f"growth of that for each view, {counts[0]} to {counts[-1]} views",
                slope(beyond),
                "MB",
                Better.LOWER,
                note="least squares" + _with_memory(kind, 0.0),
            )


def _with_memory(kind: Kind, num_bytes: float) -> str:
    if kind is Kind.RECONSTRUCT:
        return ""
    return ", keys and values included" + (f" ({num_bytes / MEGA:.0f} MB)" if num_bytes else "")


def slope(values: dict[int, float]) -> float:
    """Least-squares growth of the values for each unit of their keys."""
    return float(np.polyfit(list(values), list(values.values()), 1)[0])


def _job(session: Session, kind: Kind, views: int = 1) -> Job:
    return Job(
        kind,
        str(session.folder),
        str(session.device),
        session.placement.precision.value,
        torch.get_num_threads(),
        views,
        session.sizes.photo_size,
    )
