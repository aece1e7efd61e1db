"""Slices one after the other, each kept in a file of its own, so that the same command continues."""

import datetime
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from g2vlm.bench.gpu.slices import Slice, slices_for
from g2vlm.bench.machine import Machine, commit, describe_machine, versions
from g2vlm.bench.results import Measurement, Report, read_report
from g2vlm.bench.session import Plan, Session, open_session
from g2vlm.errors import DeviceError, G2VLMError, InputError
from g2vlm.model.precision import choose_placement
from g2vlm.scene.writing import atomic_path, check_folder

WEIGHTS = "weights"
"""Folder of the random checkpoint inside of the folder of the slices."""
MISSING = "missing"
"""Option of a report that says why slices have no figures, by their names."""


@dataclass(frozen=True)
class Series:
    """What to measure, and where it is kept.

    Raises:
        InputError: there are no slices of these names.
    """

    plan: Plan
    """Its views are those to reconstruct."""
    folder: Path
    """Holds a JSON file for each slice."""
    names: tuple[str, ...] = ()
    """Slices to measure; all if empty."""
    max_minutes: float | None = None
    """No further slice begins after this."""

    def __post_init__(self) -> None:
        known = [one.name for one in slices_for(self.plan.views)]
        if unknown := [name for name in self.names if name not in known]:
            raise InputError(f"Expected slices among {', '.join(known)}, got {', '.join(unknown)}.")

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Those that are wanted, in the order of measuring."""
        return tuple(one for one in slices_for(self.plan.views) if not self.names or one.name in self.names)


def require_gpu(device: str) -> None:
    """Make sure that there is a CUDA GPU, or that another device was named on purpose.

    Raises:
        DeviceError: says what is missing.
    """
    if not device.startswith("cuda") and device != "auto":
        return
    if torch.version.cuda is None:
        raise DeviceError(
            f"Expected a CUDA GPU for --gpu, but torch {torch.__version__} was built without CUDA: install a "
            "CUDA build of torch, or go through its steps with  --gpu --device cpu --preset tiny."
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            f"Expected a CUDA GPU for --gpu, but torch {torch.__version__} sees none: check the driver with "
            "nvidia-smi, or go through its steps with  --gpu --device cpu --preset tiny."
        )


def measure_series(series: Series, say: Callable[[str], None] = lambda text: None) -> Report:
    """Measure the slices that the folder does not hold yet, and put all that it holds together.

    Args:
        series: what and where.
        say: receives a line before each step that takes a while.

    Raises:
        DeviceError: the device or precision is not available.
        InputError: the folder holds slices of another machine, size or precision.
        OutputError: the folder cannot be written.
    """
    require_gpu(series.plan.device)
    check_folder(series.folder)
    placement = choose_placement(series.plan.device, series.plan.dtype)
    empty = _report(series.plan, placement.precision.value, describe_machine(placement.device))
    kept = {one.name: _kept(series.folder, one, empty) for one in series.slices}
    left = [one for one in series.slices if not _is_whole(kept[one.name])]
    if left:
        say(f"{len(series.slices) - len(left)} of {len(series.slices)} slices are there already")
        plan = replace(series.plan, checkpoint=series.plan.checkpoint or series.folder / WEIGHTS)
        with open_session(plan, say) as session:
            for one, found in _measured(left, session, empty, series.max_minutes):
                kept[one.name] = found
                _write(found, series.folder / f"{one.name}.json")
    return _together(empty, {name: report for name, report in kept.items() if report is not None})


def _measured(
    slices: Sequence[Slice], session: Session, empty: Report, max_minutes: float | None
) -> Iterator[tuple[Slice, Report]]:
    start = time.monotonic()
    for number, one in enumerate(slices):
        if number and max_minutes is not None and time.monotonic() - start > 60 * max_minutes:
            session.say(f"{len(slices) - number} slices are left: the same command continues")
            return
        session.say(f"slice {one.name}")
        date, reason = _now(), ""
        figures: tuple[Measurement, ...] = ()
        try:
            figures = tuple(one.measure(session))
        except (G2VLMError, torch.OutOfMemoryError, MemoryError) as error:
            # What a machine cannot do belongs to the table, and says nothing about the other slices.
            reason = str(error).splitlines()[0] or type(error).__name__
            session.say(f"  not measured: {reason}")
            if session.device.type == "cuda":
                torch.cuda.empty_cache()
        options = {**empty.options, "slice": one.name, MISSING: {one.name: reason} if reason else {}}
        yield one, replace(empty, date=date, figures=figures, options=options)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _report(plan: Plan, dtype: str, machine: Machine) -> Report:
    options: dict[str, object] = {"repeats": plan.repeats, "budget_s": plan.budget_s}
    return Report(_now(), plan.preset.value, dtype, machine, versions(), commit(), (), options)


def _kept(folder: Path, one: Slice, empty: Report) -> Report | None:
    path = folder / f"{one.name}.json"
    if not path.is_file():
        return None
    report = read_report(path)
    if report.comparable != empty.comparable:
        raise InputError(
            f"Expected slices of {empty.comparable} in {folder}, got one of {report.comparable}: "
            "name another folder."
        )
    return report


def _is_whole(report: Report | None) -> bool:
    """Whether a slice needs no measuring; what was missing may be there by now."""
    return report is not None and not report.options.get(MISSING)


def _together(empty: Report, slices: dict[str, Report]) -> Report:
    dates = {name: report.date for name, report in slices.items()}
    missing = {name: why for report in slices.values() for name, why in report.options[MISSING].items()}
    return replace(
        empty,
        date=max(dates.values(), default=empty.date),
        figures=tuple(figure for report in slices.values() for figure in report.figures),
        options={**empty.options, "slices": dates, MISSING: missing},
    )


def _write(report: Report, path: Path) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(report.to_json(), ensure_ascii=False, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
