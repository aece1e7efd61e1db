"""Numbers out of range are told in one line of ours, whatever the option and the command."""

import dataclasses
import importlib
import math
import typing

import pytest

from g2vlm.cli import main as cli
from g2vlm.cli.shared.ranges import RANGES, Range, check_ranges

NEEDED = {
    "batch": ["photos", "out"],
    "export": ["room.npz", "room.glb"],
    "metric": ["room.npz", "m.npz"],
    "train": ["tiny-geometry", "--plan"],
    "eval": ["synthetic"],
    "data": ["list"],
    "compare": ["one.npz", "other.npz"],
    "assemble": ["--dino", "a", "--qwen", "b", "--folder", "c"],
}
"""Words without which a command reads no flags."""


def numbers_of(name: str) -> list[tuple[str, type]]:
    """Options of a command that take numbers."""
    options = importlib.import_module(cli.COMMANDS[name].module).Options
    hints = typing.get_type_hints(options)
    found = []
    for field in dataclasses.fields(options):
        kinds = {hints[field.name], *typing.get_args(hints[field.name])} & {int, float}
        found += [(field.name, kind) for kind in kinds]
    return found


ALL = [(name, option, kind) for name in sorted(cli.COMMANDS) for option, kind in numbers_of(name)]


@pytest.mark.parametrize(("name", "option", "kind"), ALL)
def test_a_number_out_of_range_is_one_line(
    name: str, option: str, kind: type, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ["-1", *(["nan", "inf"] if kind is float else [])]:
        assert cli.main([name, *NEEDED.get(name, []), f"--{option}", value]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith(f"g2vlm {name}: Expected "), said
        assert option in said
        assert "\n" not in said


def test_no_points_is_our_own_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "room.npz", "room.glb", "--max_points", "0"]) == 2
    assert capsys.readouterr().err == "g2vlm export: Expected max_points of at least 1, got 0.\n"


def test_words_where_numbers_belong_are_told_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "room.npz", "room.glb", "--max_points", "many"]) == 2
    assert "max" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("allowed", "text", "inside", "outside"),
    [
        (Range(1), "1 or more", [1, 7.5], [0, -1, math.nan, math.inf]),
        (Range(0, above=True), "above 0", [1e-9], [0, -1, math.nan]),
        (Range(0, 1), "0 to 1", [0, 1], [-0.1, 1.1, math.nan]),
        (Range(0, 1, below=True), "0 to below 1", [0, 0.99], [1]),
        (Range(0, 1, above=True), "above 0 to 1", [1, 0.1], [0]),
    ],
)
def test_ranges(allowed: Range, text: str, inside: list[float], outside: list[float]) -> None:
    assert str(allowed) == text
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)


def test_flags_and_absent_numbers_are_no_numbers() -> None:
    @dataclasses.dataclass
    class Options:
        steps: int | None = None
        seed: bool = False

    check_ranges(Options())


def test_no_range_is_kept_for_an_option_that_is_gone() -> None:
    assert set(RANGES) <= {option for _, option, _ in ALL}
