"""Help that a newcomer can read: groups, whole lines, nothing left out."""

import dataclasses
import importlib
import itertools
import shlex
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import tyro

from g2vlm.cli import main as cli
from g2vlm.cli.help import help_text


def options_of(name: str) -> type:
    return importlib.import_module(cli.COMMANDS[name].module).Options


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_no_line_is_longer_than_the_terminal_and_none_is_ragged(name: str) -> None:
    text = help_text(options_of(name), f"g2vlm {name}")
    body = text.split("\n\nexamples:")[0].splitlines()
    assert max(map(len, text.splitlines())) <= 80
    for line, following in itertools.pairwise(body):
        # A line breaks only where the first word of the next one would not fit.
        if line.strip() and following.startswith(" " * 26) and not line.strip().startswith("--"):
            assert len(line) + 1 + len(following.split()[0]) > 80, f"{line!r} could hold more"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_option_stands_once_in_the_help(name: str) -> None:
    lines = help_text(options_of(name), f"g2vlm {name}").split("\n\nexamples:")[0].splitlines()
    entries = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert len(entries) == len(dataclasses.fields(options_of(name)))


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_groups_name_options_that_exist_and_leave_few_out(name: str) -> None:
    options = options_of(name)
    groups = getattr(options, "GROUPS", {})
    placed = [option for names in groups.values() for option in names]
    fields = [field.name for field in dataclasses.fields(options)]
    assert len(set(placed)) == len(placed)
    assert set(placed) <= set(fields)
    # What stands in no group is shown last: a few are fine, many are a heap.
    assert len(set(fields) - set(placed)) <= 8


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_examples_can_be_read(name: str) -> None:
    for line in getattr(options_of(name), "EXAMPLES", ()):
        words = shlex.split(line)
        first = words.index(name)
        tyro.cli(options_of(name), args=words[first + 1 :], config=(tyro.conf.EnumChoicesFromValues,))


def test_what_a_newcomer_needs_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "chat"]) == 0
    text = capsys.readouterr().out
    places = [
        text.index(word) for word in ("--data_path", "--question TEXT", "--ckpt", "--json", "--temperature")
    ]
    assert places == sorted(places)


def test_the_overview_has_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles[0] == "start here:"
    assert len(titles) >= 4
    assert max(map(len, lines)) <= 80


@dataclasses.dataclass(frozen=True)
class Options:
    """Do a test that is described in a sentence which is longer than most terminals that anybody uses.

    And a second paragraph.
    """

    GROUPS: ClassVar = {"first": ("count",)}

    word: tyro.conf.Positional[str]
    """A word."""
    other: Annotated[
        tyro.conf.Positional[str | None], tyro.conf.arg(metavar="ELSE", help="From the mark.")
    ] = None
    """Not shown."""
    count: int = 3
    """How many
    `things` there are."""
    on: bool = True
    """Can be switched off."""
    off: bool = False
    """Can be switched on."""
    folders: tuple[Path, ...] = ()
    """Several."""
    left_out_of_groups_and_with_a_long_name: float = 1.5
    """Last."""


def test_names_values_and_defaults() -> None:
    text = help_text(Options, "g2vlm probe")
    assert text.startswith("usage: g2vlm probe WORD [ELSE] [OPTIONS]\n\nDo a test")
    assert (
        "\n\nAnd a second paragraph.\n\nfirst:\n"
        "  --count INT             How many `things` there are. (default: 3)" in text
    )
    assert "\n\nother:\n  WORD                    A word.\n  ELSE                    From the mark.\n" in text
    assert "  --on, --no_on           Can be switched off. (default: on)\n" in text
    assert "  --off                   Can be switched on.\n" in text
    assert "  --folders PATH ...      Several.\n" in text
    assert "  --left_out_of_groups_and_with_a_long_name NUMBER\n" + " " * 26 + "Last. (default: 1.5)" in text
