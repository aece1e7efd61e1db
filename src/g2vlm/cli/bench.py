"""`g2vlm bench`: speed and memory beside the machine's own limits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from g2vlm.bench.presets import Preset
from g2vlm.bench.results import Report, Section, read_report
from g2vlm.bench.session import Plan
from g2vlm.checkpoints.hub import BUNDLED_NAME
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import reserved_stdout, say
from g2vlm.errors import InputError
from g2vlm.scene.writing import atomic_path, check_file, check_folder

EXIT_REGRESSION = 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure speed and memory on random weights, beside the limits of this machine and beside baselines.

    One run measures the machine's own rates and the network in the same minutes, by turns. Exits with 1 if
    --history shows a regression of more than 10 %.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "what is measured": (
            "what",
            "preset",
            "only",
            "views",
            "device",
            "dtype",
            "threads",
        ),
        "a GPU, in slices": (
            "gpu",
            "folder",
            "slices",
            "max_minutes",
        ),
        "serve": (
            "clients",
            "seconds",
            "kills",
        ),
        "output": (
            "json",
            "plot",
            "markdown",
            "history",
            "from_json",
        ),
        "expert": (
            "repeats",
            "budget_s",
            "memory_views",
            "question_views",
            "checkpoint",
            "trained",
        ),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm bench --preset few-layer-2b --only reconstruct --views 2,8",
        "g2vlm bench --from_json report.json --markdown",
        "g2vlm bench serve --only questions,crowd",
        "g2vlm bench --gpu --max_minutes 9 --markdown",
    )

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[serve]")] = "network"
    """serve: measure a service (g2vlm serve) over HTTP instead, with --trained as its checkpoint; --only then
    takes questions, crowd, kills."""
    clients: int = 100
    """With serve: clients at the same time."""
    seconds: float = 60.0
    """With serve: how long they ask."""
    kills: int = 200
    """With serve: how often the service is killed while it computes scenes."""
    preset: Preset | None = None
    """Size of the network; few-layer-2b by default, with --gpu 2b."""
    views: str | None = None
    """Numbers of photos to reconstruct; 1,2,4,8 by default, with --gpu up to 200."""
    memory_views: str = "4,8,16,32"
    """Numbers of photos between which the growth of peak memory is fitted."""
    question_views: str = "8"
    """Numbers of photos to ask about."""
    gpu: bool = False
    """Measure what a table about a CUDA GPU needs, slice by slice; the same command continues. With --device
    cpu --preset tiny it goes through its steps without one."""
    folder: Path = Path("outputs/bench-gpu")
    """With --gpu: where slices are kept, and the random checkpoint (19 GB)."""
    slices: str = ""
    """With --gpu: slices to measure, such as equality, load, views-8, decode-compiled. All by default."""
    max_minutes: float | None = None
    """With --gpu: begin no further slice after this; each takes less than ten minutes."""
    only: str = ""
    """Parts to measure: limits, equality, load, reconstruct, questions, decode, baselines, paths, memory,
    agreement, selection, stitching. All by default."""
    trained: str = BUNDLED_NAME
    """Checkpoint whose next tokens are compared between full and smaller language sides (agreement)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto, bfloat16 or float32."""
    threads: int | None = None
    """Threads on the CPU; torch's own choice by default."""
    repeats: int = 5
    """Rounds that count; the median is reported."""
    budget_s: float = 120.0
    """Seconds after which a figure starts no further round."""
    checkpoint: Path | None = None
    """Folder where the random checkpoint is kept for the next run; a temporary one by default."""
    json: Path | None = None
    """Write the report as JSON to this file."""
    plot: Path | None = None
    """Draw the report into this file (.png, .svg, .pdf)."""
    history: Path | None = None
    """Compare with the last run of this machine and preset in this file (JSON lines), and add this one."""
    from_json: Path | None = None
    """Measure nothing; show the report in this file."""
    markdown: bool = False
    """Print a Markdown table instead of one for the terminal."""


def run(options: Options) -> int:
    """Measure or read a report, show it, store it."""
    with reserved_stdout() as out:
        _check_targets(options)
        if options.what != "network":
            return _run_serving(options, out)
        report = _measure(options) if options.from_json is None else read_report(options.from_json)
        if options.json is not None:
            _write(report, options.json)
            out.kept(options.json)
        _show(out, report, as_markdown=options.markdown)
        if options.plot is not None:
            from g2vlm.bench.plot import write_plot

            write_plot(report, options.plot)
        return _compare(report, options.history) if options.history is not None else 0


def _run_serving(options: Options, out: ResultStream) -> int:
    """Measure a service, show the table, store the report."""
    if options.what != "serve":
        raise InputError(f"Expected serve or nothing after bench, got {options.what!r}.")
    from g2vlm.bench.serving.session import PARTS, ServingPlan, measure_serving, table

    parts = tuple(part.strip() for part in options.only.split(",") if part.strip()) or PARTS
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(f"Expected parts among {', '.join(PARTS)}, got {unknown[0]!r}.")
    if min(options.clients, options.kills, options.repeats) < 1 or not options.seconds > 0:
        raise InputError("Expected --clients, --kills, --repeats and --seconds above 0.")
    plan = ServingPlan(
        options.trained,
        options.dtype,
        parts,
        options.repeats,
        options.clients,
        options.seconds,
        options.kills,
    )
    report = measure_serving(plan, say)
    if options.json is not None:
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        out.kept(options.json)
    out.write(table(report) + "\n")
    return 0


def _check_targets(options: Options) -> None:
    """Find out before the measurement what would fail after it."""
    if options.json is not None:
        check_file(options.json)
    if options.plot is not None:
        from g2vlm.bench.plot import check_plot

        check_plot(options.plot)
    if options.history is not None:
        from g2vlm.bench.history import check_history

        check_history(options.history)
    if options.checkpoint is not None:
        check_folder(options.checkpoint)


def plan_of(options: Options) -> Plan:
    """The plan that the flags describe.

    Raises:
        InputError: a number or the name of a part cannot be read.
    """
    from g2vlm.bench.gpu.slices import VIEWS_ON_A_GPU

    return Plan(
        preset=options.preset or (Preset.FULL_2B if options.gpu else Preset.FEW_LAYER_2B),
        sections=_sections(options.only),
        views=(VIEWS_ON_A_GPU if options.gpu else Plan.views)
        if options.views is None
        else _counts("--views", options.views),
        memory_views=_counts("--memory_views", options.memory_views),
        question_views=_counts("--question_views", options.question_views),
        trained=options.trained,
        device=options.device,
        dtype=options.dtype,
        repeats=options.repeats,
        budget_s=options.budget_s,
        checkpoint=options.checkpoint,
    )


def _measure(options: Options) -> Report:
    import torch

    from g2vlm.bench.runner import measure

    plan = plan_of(options)
    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"Expected --threads of 1 or more, got {options.threads}.")
        torch.set_num_threads(options.threads)
    if options.gpu:
        from g2vlm.bench.gpu.series import Series, measure_series

        names = tuple(options.slices.replace(",", " ").split())
        return measure_series(Series(plan, options.folder, names, options.max_minutes), say)
    return measure(plan, say)


def _counts(flag: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise InputError(f"Expected numbers separated by commas for {flag}, got {text!r}.") from error


def _sections(text: str) -> frozenset[Section]:
    words = text.replace(",", " ").split()
    try:
        return frozenset(Section(word) for word in words) or frozenset(Section)
    except ValueError as error:
        known = ", ".join(section.value for section in Section)
        raise InputError(f"Expected parts among {known} for --only, got {text!r}.") from error


def _show(out: ResultStream, report: Report, *, as_markdown: bool) -> None:
    from g2vlm.bench.report import markdown, terminal_table

    if as_markdown:
        out.write(markdown(report))
        return
    import io
    import shutil

    from rich.console import Console

    # Wide enough that no cell is cut when the output goes to a file.
    width = shutil.get_terminal_size((150, 50)).columns
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=False).print(terminal_table(report))
    out.write(text.getvalue())


def _write(report: Report, path: Path) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(report.to_json(), ensure_ascii=False, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def _compare(report: Report, path: Path) -> int:
    from g2vlm.bench.history import append, changes, last_comparable
    from g2vlm.bench.report import describe_changes

    before = last_comparable(path, report)
    append(path, report)
    if before is None:
        say(f"no earlier run of this machine and preset in {path}")
        return 0
    found = changes(before, report)
    for line in describe_changes(before, found):
        say(line)
    return EXIT_REGRESSION if any(change.regression for change in found) else 0
