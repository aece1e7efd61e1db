"""Reports survive JSON, histories find the right run, regressions are flagged."""

import dataclasses
import json
from pathlib import Path

import pytest

from g2vlm.bench.goals import Goal, goal_of
from g2vlm.bench.history import append, changes, last_comparable
from g2vlm.bench.machine import Machine
from g2vlm.bench.plot import write_plot
from g2vlm.bench.report import describe_changes, markdown, rows, terminal_table
from g2vlm.bench.results import Measurement, Report, Section, read_report
from g2vlm.errors import InputError, OutputError
from g2vlm.evaluation.results import Better

MACHINE = Machine("CPU | x", 2, 2, 2**34, "cpu", "Linux x86_64", 0.1)


def report(
    *figures: Measurement, preset: str = "few-layer-2b", threads: int = 2, date: str = "2026-01-01"
) -> Report:
    machine = dataclasses.replace(MACHINE, threads=threads)
    return Report(date, preset, "bfloat16", machine, {"torch": "2.11"}, "abc", figures, {"repeats": 3})


def seconds(value: float, limit: float | None = None, key: str = "reconstruct/2/forward") -> Measurement:
    return Measurement(key, "forward", value, "s", Better.LOWER, limit, (value,), "note")


def speed(value: float, limit: float | None = None) -> Measurement:
    return Measurement("decode/speed", "decoding", value, "tokens/s", Better.HIGHER, limit)


def test_fraction_of_the_limit() -> None:
    assert seconds(4.0, 3.0).fraction == 0.75
    assert speed(30.0, 40.0).fraction == 0.75
    assert seconds(4.0).fraction is None
    assert seconds(4.0).section is Section.RECONSTRUCT


def test_json_round_trip(tmp_path: Path) -> None:
    before = report(seconds(4.0, 3.0), speed(30.0))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(before.to_json()))
    assert read_report(path) == before


def test_json_schema() -> None:
    stored = report(seconds(4.0, 3.0)).to_json()
    assert set(stored) == {
        "schema_version",
        "date",
        "preset",
        "dtype",
        "machine",
        "versions",
        "commit",
        "figures",
        "options",
    }
    assert stored["figures"] == [
        {
            "key": "reconstruct/2/forward",
            "label": "forward",
            "value": 4.0,
            "unit": "s",
            "better": "lower",
            "limit": 3.0,
            "samples": [4.0],
            "note": "note",
            "fraction": 0.75,
        }
    ]
    assert stored["machine"]["threads"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expected a benchmark report"),
        ("[]", "JSON object"),
        ("{}", "version 1"),
        ('{"schema_version": 1}', "measure again"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_report(path)


def test_history_finds_the_last_run_of_the_same_kind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history.jsonl"
    now = report(seconds(4.0))
    assert last_comparable(path, now) is None
    append(path, report(seconds(1.0), date="first"))
    append(path, report(seconds(2.0), date="second"))
    append(path, report(seconds(3.0), preset="2b"))
    append(path, report(seconds(3.0), threads=1))
    found = last_comparable(path, now)
    assert found is not None
    assert found.date == "second"
    assert len(path.read_text().splitlines()) == 4


def test_a_broken_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("\nno json\n")
    with pytest.raises(InputError, match="Line 2"):
        last_comparable(path, report())
    with pytest.raises(OutputError, match="history"):
        append(tmp_path, report())


@pytest.mark.parametrize(
    ("before", "now", "flagged"),
    [
        (seconds(1.0), seconds(1.09), False),
        (seconds(1.0), seconds(1.12), True),
        (seconds(1.0), seconds(0.5), False),
        (speed(10.0), speed(8.0), True),
        (speed(10.0), speed(12.0), False),
        (seconds(1.0, 0.8), seconds(2.0, 1.6), False),  # a machine half as fast, or half as free
        (seconds(1.0, 0.8), seconds(1.0, 0.6), True),
        (speed(10.0, 20.0), speed(9.0, 30.0), True),
    ],
)
def test_regressions(before: Measurement, now: Measurement, flagged: bool) -> None:
    found = changes(report(before), report(now))
    assert [change.regression for change in found] == [flagged]
    said = describe_changes(report(before), found)
    assert len(said) == 1 + flagged


def test_limits_and_new_figures_are_no_regressions() -> None:
    limit = Measurement("limits/matrix", "matrix", 100.0, "GFLOP/s", Better.HIGHER)
    slower = dataclasses.replace(limit, value=50.0)
    assert changes(report(limit), report(slower, seconds(3.0))) == []


def test_goals() -> None:
    good, bad = seconds(1.0, 0.9), seconds(1.0, 0.5)
    assert goal_of(good, "2b") == (Goal("reconstruct/[28]/forward", 0.85, of_limit=True), True)
    missed = goal_of(bad, "2b")
    assert missed is not None
    assert not missed[1]
    assert goal_of(bad, "tiny") is None
    assert goal_of(seconds(1.0, key="reconstruct/4/forward"), "2b") is None
    growth = Measurement("memory/reconstruct/growth", "growth", 34.0, "MB", Better.LOWER)
    assert goal_of(growth, "2b") == (Goal("memory/reconstruct/growth", 35.0, better=Better.LOWER), True)


def test_tables_show_every_figure() -> None:
    shown = report(seconds(4.0, 3.0), speed(30.0))
    text = markdown(shown)
    assert "| forward | 4.00 s | 3.00 s | 75% | >= 85% of limit (missed) |" in text
    assert "CPU | x, 2 cores" in text
    assert len(rows(shown)) == terminal_table(shown).row_count == 2


def test_a_busy_machine_is_said() -> None:
    calm = report()
    busy = dataclasses.replace(calm, machine=dataclasses.replace(MACHINE, load_per_core=2.0))
    assert "Disturbed" not in markdown(calm)
    assert "Disturbed: 2.0" in markdown(busy)


def test_plot(tmp_path: Path) -> None:
    peak = Measurement("memory/reconstruct/4/peak", "peak", 100.0, "MB", Better.LOWER)
    path = tmp_path / "new" / "plot.png"
    write_plot(report(seconds(4.0, 3.0), seconds(8.0, 6.0, "reconstruct/4/forward"), peak), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="to plot"):
        write_plot(report(), path)
    with pytest.raises(OutputError, match=r"plot\.unknown"):
        write_plot(report(peak), tmp_path / "plot.unknown")
