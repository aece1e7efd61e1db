"""A report for people: a table for the terminal, a table in Markdown, and what became slower."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from g2vlm.bench.goals import goal_of
from g2vlm.bench.history import Change
from g2vlm.bench.results import GIGA, Measurement, Report

HEADINGS = ("measured", "value", "limit of the machine", "reached", "goal")


@dataclass(frozen=True)
class ReportRow:
    """One figure as text."""

    label: str
    value: str
    limit: str
    reached: str
    goal: str
    met: bool | None
    """Whether the goal is met; None without one."""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADINGS`."""
        return self.label, self.value, self.limit, self.reached, self.goal


def rows(report: Report) -> list[ReportRow]:
    """The figures of a report, in the order of measuring."""
    return [_row(figure, report.preset) for figure in report.figures]


def _row(figure: Measurement, preset: str) -> ReportRow:
    goal = goal_of(figure, preset)
    return ReportRow(
        label=figure.label,
        value=format_value(figure.value, figure.unit),
        limit="" if figure.limit is None else format_value(figure.limit, figure.unit),
        reached="" if figure.fraction is None else f"{figure.fraction:.0%}",
        goal="" if goal is None else f"{goal[0]} ({'met' if goal[1] else 'missed'})",
        met=None if goal is None else goal[1],
    )


def format_value(value: float, unit: str) -> str:
    """Three digits and the unit: `12.3 s`, `1 040 MB` without the space, `98.5 %`."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    if unit == "s" and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:,.{digits}f} {unit}"


def describe(report: Report) -> list[str]:
    """What the figures depend on, line by line."""
    machine = report.machine
    packages = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        f"{report.preset}, {report.dtype}, {report.date}, commit {report.commit or 'unknown'}",
        f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, "
        f"{machine.memory_bytes / GIGA:.0f} GB, device {machine.device}, {machine.system}",
        packages,
    ]
    if machine.disturbed:
        lines.append(f"Disturbed: {machine.load_per_core:.1f} processes a core were running when it began.")
    return lines


def terminal_table(report: Report) -> Table:
    """The figures as a rich table, missed goals in red."""
    table = Table(title="\n".join(describe(report)), title_justify="left")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number in (0, 4) else "right")
    section = None
    for figure, row in zip(report.figures, rows(report), strict=True):
        if section is not None and section is not figure.section:
            table.add_section()
        section = figure.section
        table.add_row(*row.cells, style="red" if row.met is False else None)
    return table


def markdown(report: Report) -> str:
    """The figures as a Markdown table under what they depend on, for documents."""
    lines = [f"{line}  " for line in describe(report)]
    lines += ["", _markdown_row(HEADINGS), _markdown_row(["---", "--:", "--:", "--:", "---"])]
    lines += [_markdown_row(row.cells) for row in rows(report)]
    missing = report.options.get("missing", {})
    lines += [f"\nNot measured: {name}: {reason}" for name, reason in missing.items()]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def describe_changes(before: Report, found: Sequence[Change]) -> list[str]:
    """One line for each regression, and one that says what was compared."""
    worse = [change for change in found if change.regression]
    lines = [f"{len(found)} figures compared with those of {before.date}: {len(worse)} regressions"]
    for change in sorted(worse, key=lambda change: -change.worse):
        if change.of_limit:
            values = f"{change.before:.0%} of the limit before, {change.now:.0%} now"
        else:
            unit = change.figure.unit
            values = f"{format_value(change.before, unit)} before, {format_value(change.now, unit)} now"
        lines.append(f"regression: {change.figure.label}: {change.worse:.0%} worse ({values})")
    return lines
