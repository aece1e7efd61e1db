"""Earlier runs in a file, one JSON object a line, so that a change for the worse shows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2vlm.bench.results import Measurement, Report, Section
from g2vlm.errors import InputError, OutputError
from g2vlm.evaluation.results import Better
from g2vlm.scene.writing import check_file

TOLERANCE = 0.10
"""Relative change for the worse that is called a regression."""


@dataclass(frozen=True)
class Change:
    """How one figure compares with the run before."""

    figure: Measurement
    before: float
    """In the same unit, or a fraction of the limit where `of_limit`."""
    now: float
    of_limit: bool
    """Fractions of the limit were compared, so that a slower or busier machine does not count."""

    @property
    def worse(self) -> float:
        """How much worse, relative to before: 0.25 takes a quarter longer; negative is better."""
        lower = self.figure.better is Better.LOWER and not self.of_limit
        if lower:
            return self.now / self.before - 1
        return self.before / self.now - 1

    @property
    def regression(self) -> bool:
        """Whether it is worse by more than `TOLERANCE`."""
        return self.worse > TOLERANCE


def check_history(path: Path) -> None:
    """Make sure, before measuring, that a history can be read and added to.

    Raises:
        InputError: a line of the file cannot be read.
        OutputError: the file cannot be written.
    """
    check_file(path)
    for _ in _runs(path):
        pass


def last_comparable(path: Path, report: Report) -> Report | None:
    """The newest run in a history of the same machine, preset and precision; None where there is none.

    Raises:
        InputError: a line of the file cannot be read.
    """
    found = None
    for earlier in _runs(path):
        found = earlier if earlier.comparable == report.comparable else found
    return found


def _runs(path: Path) -> Iterator[Report]:
    """All runs in a history, the oldest first; none where there is no file."""
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            stored: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise InputError(f"Line {number} of {path} is not JSON ({error}): remove it.") from error
        yield Report.from_json(stored)


def append(path: Path, report: Report) -> None:
    """Add a run to a history.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(report.to_json(), ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(f"Cannot add to the history {path}: {error}.") from error


def changes(before: Report, now: Report) -> list[Change]:
    """Compare the figures that both runs have, the machine's own limits left out.

    Where both know the fraction of the limit, that is compared: it is measured beside the limit and hardly
    moves with the machine's load. Otherwise the values are.
    """
    found = []
    for figure in now.figures:
        earlier = before.figure(figure.key)
        if earlier is None or figure.section is Section.LIMITS:
            continue
        if figure.fraction is not None and earlier.fraction is not None:
            found.append(Change(figure, earlier.fraction, figure.fraction, of_limit=True))
        elif figure.value > 0 and earlier.value > 0:
            found.append(Change(figure, earlier.value, figure.value, of_limit=False))
    return found
