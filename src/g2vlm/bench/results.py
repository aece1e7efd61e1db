"""What a run of the benchmark found, and how it is stored."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from g2vlm.bench.machine import Machine
from g2vlm.errors import InputError
from g2vlm.evaluation.results import Better

SCHEMA_VERSION = 1
MEGA, GIGA = 1e6, 1e9


class Section(Enum):
    """The parts of a run."""

    LIMITS = "limits"
    """The machine alone: matrix products, attention, memory."""
    EQUALITY = "equality"
    """Results on this device beside those of the CPU in float32, on the small trained model."""
    LOAD = "load"
    """Loading a checkpoint."""
    RECONSTRUCT = "reconstruct"
    """Photos to a scene."""
    MEMORY = "memory"
    """Peak memory, and how it grows with the number of views."""
    QUESTIONS = "questions"
    """First answer, follow-up, and recomputation as baseline."""
    DECODE = "decode"
    """Tokens per second, and transformers as baseline."""
    BASELINES = "baselines"
    """Decoding and reading beside llama.cpp, where that is installed."""
    PATHS = "paths"
    """What this machine takes by default, beside every plain choice."""
    AGREEMENT = "agreement"
    """Next tokens of a trained checkpoint with a smaller language side."""
    SELECTION = "selection"
    """Reading fewer keys of other views, against the dense pass."""
    STITCHING = "stitching"
    """A long walk with a loop, put together from windows."""


@dataclass(frozen=True)
class Measurement:
    """One measured number."""

    key: str
    """Unique and stable: section, what, quantity, joined by slashes."""
    label: str
    """For people."""
    value: float
    """Median over the samples, in `unit`."""
    unit: str
    better: Better
    limit: float | None = None
    """What the machine could do at best, measured in the same minutes, in `unit`."""
    samples: tuple[float, ...] = ()
    """Every counted repeat, in the order of measuring."""
    note: str = ""
    """How it was measured, where the label does not say."""

    @property
    def fraction(self) -> float | None:
        """How much of the limit is reached: 1 is perfect."""
        if self.limit is None or not self.value or not self.limit:
            return None
        return self.limit / self.value if self.better is Better.LOWER else self.value / self.limit

    @property
    def section(self) -> Section:
        """The part of the run that it belongs to."""
        return Section(self.key.split("/", 1)[0])


@dataclass(frozen=True)
class Report:
    """Everything that one run found."""

    date: str
    """ISO 8601, UTC."""
    preset: str
    dtype: str
    machine: Machine
    versions: dict[str, str]
    commit: str | None
    figures: tuple[Measurement, ...]
    options: dict[str, Any] = field(default_factory=dict)
    """What the run was asked to do."""

    @property
    def comparable(self) -> str:
        """Runs with the same text may be compared with each other."""
        return f"{self.machine.key} | {self.preset} | {self.dtype}"

    def figure(self, key: str) -> Measurement | None:
        """Look a figure up."""
        return next((figure for figure in self.figures if figure.key == key), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back. `fraction` is there for other readers."""
        figures = [
            {
                **dataclasses.asdict(figure),
                "better": figure.better.value,
                "fraction": figure.fraction,
                "samples": list(figure.samples),
            }
            for figure in self.figures
        ]
        fields = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        machine = dataclasses.asdict(self.machine)
        return {"schema_version": SCHEMA_VERSION, **fields, "machine": machine, "figures": figures}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Report":
        """Read a stored report.

        Raises:
            InputError: it is no report, or one of another version.
        """
        version = stored.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"Expected a benchmark report of version {SCHEMA_VERSION}, got {version!r}: measure again."
            )
        try:
            figures = tuple(_figure(entry) for entry in stored["figures"])
            names = [
                entry.name for entry in dataclasses.fields(cls) if entry.name not in ("machine", "figures")
            ]
            known = {name: stored[name] for name in names}
            return cls(**known, machine=Machine(**stored["machine"]), figures=figures)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The benchmark report cannot be read ({error!r}): measure again.") from error


def _figure(entry: dict[str, Any]) -> Measurement:
    values = {name.name: entry[name.name] for name in dataclasses.fields(Measurement)}
    return Measurement(**{**values, "better": Better(values["better"]), "samples": tuple(values["samples"])})


def read_report(path: Path) -> Report:
    """Read what `g2vlm bench --json` wrote.

    Raises:
        InputError: the file is missing, is no JSON, or holds no report.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a benchmark report in {path}: {error}.") from error
    if not isinstance(stored, dict):
        raise InputError(f"Expected a JSON object in {path}, got a {type(stored).__name__}.")
    return Report.from_json(stored)


def keys_are_unique(figures: Iterable[Measurement]) -> bool:
    """Whether every figure can be found by its key."""
    keys = [figure.key for figure in figures]
    return len(keys) == len(set(keys))


def count_of(views: int) -> str:
    """`1 view`, `2 views`."""
    return f"{views} view" if views == 1 else f"{views} views"
