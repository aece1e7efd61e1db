"""One run of the benchmark, from plan to report."""

import datetime
from collections.abc import Callable, Iterator

import torch

from g2vlm.bench.agreement import measure_agreement
from g2vlm.bench.baselines.measuring import measure_baselines
from g2vlm.bench.decoding import measure_decoding
from g2vlm.bench.gpu.equality import measure_equality
from g2vlm.bench.loading import measure_load, measure_memory
from g2vlm.bench.machine import commit, describe_machine, versions
from g2vlm.bench.many_views import measure_selection, measure_stitching
from g2vlm.bench.paths import measure_paths
from g2vlm.bench.questions import measure_questions
from g2vlm.bench.reconstruction import measure_limits, measure_reconstruction
from g2vlm.bench.results import Measurement, Report, Section
from g2vlm.bench.session import Plan, Session, open_session
from g2vlm.model.precision import choose_placement

MEASURES: dict[Section, Callable[[Session], Iterator[Measurement]]] = {
    Section.LIMITS: measure_limits,
    Section.EQUALITY: measure_equality,
    Section.LOAD: measure_load,
    Section.RECONSTRUCT: measure_reconstruction,
    Section.QUESTIONS: measure_questions,
    Section.DECODE: measure_decoding,
    Section.BASELINES: measure_baselines,
    Section.PATHS: measure_paths,
    Section.MEMORY: measure_memory,
    Section.AGREEMENT: measure_agreement,
    Section.SELECTION: measure_selection,
    Section.STITCHING: measure_stitching,
}
"""In the order of measuring."""


def measure(plan: Plan, say: Callable[[str], None] = lambda text: None) -> Report:
    """Measure what the plan asks for.

    Args:
        plan: what and how.
        say: receives a line before each step that takes a while.

    Raises:
        DeviceError: the device or precision is not available.
        InputError: the folder of the plan holds another checkpoint.
        MissingExtraError: psutil is not installed.
    """
    placement = choose_placement(plan.device, plan.dtype)
    machine = describe_machine(placement.device)
    if machine.disturbed:
        say(f"the machine is busy ({machine.load_per_core:.1f} processes a core): figures will be disturbed")
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    figures: list[Measurement] = []
    with open_session(plan, say) as session:
        for section, found in MEASURES.items():
            if section in plan.sections:
                say(f"measuring {section.value}")
                figures.extend(found(session))
    return Report(
        date=date,
        preset=plan.preset.value,
        dtype=placement.precision.value,
        machine=machine,
        versions=versions(),
        commit=commit(),
        figures=tuple(figures),
        options=_options(plan),
    )


def _options(plan: Plan) -> dict[str, object]:
    return {
        "sections": sorted(section.value for section in plan.sections),
        "views": list(plan.views),
        "memory_views": list(plan.memory_views),
        "question_views": list(plan.question_views),
        "repeats": plan.repeats,
        "budget_s": plan.budget_s,
        "threads": torch.get_num_threads(),
    }
