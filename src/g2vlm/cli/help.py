"""What `g2vlm COMMAND --help` prints: options in groups, the ones that a newcomer needs first.

A command's `Options` may say `GROUPS`, titles with the names of their options, and `EXAMPLES`, whole command
lines. Names, values, defaults and descriptions come from the fields of the dataclass.
"""

import ast
import dataclasses
import inspect
import itertools
import shutil
import textwrap
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import tyro

_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]
_NAME_WIDTH = 24
_WIDTHS = (60, 100)
"""Narrowest and widest text."""
_TYPE_NAMES = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}
OTHERS = "other"
"""Title of the options that stand in no group."""


def help_text(options: type[Any], program: str) -> str:
    """The help of a command.

    Args:
        options: the dataclass of its flags.
        program: how it is called, for example `g2vlm recon`.
    """
    columns = min(max(shutil.get_terminal_size().columns, _WIDTHS[0]), _WIDTHS[1])
    entries = _entries(options)
    grouped = _grouped(options, entries)
    positional = "".join(f" {entry.usage}" for entry in entries.values() if entry.usage)
    blocks = [f"usage: {program}{positional} [OPTIONS]"]
    blocks += _paragraphs(inspect.cleandoc(options.__doc__ or ""), columns)
    for title, names in grouped.items():
        rows = [row for name in names for row in entries[name].rows(columns)]
        blocks.append("\n".join([f"{title}:", *rows]))
    if examples := getattr(options, "EXAMPLES", ()):
        blocks.append("\n".join(["examples:", *(f"  {line}" for line in examples)]))
    return "\n\n".join(blocks)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One option as it is shown."""

    name: str
    """Flags and the kind of value."""
    text: str
    """Description, and the default where it says something."""
    usage: str = ""
    """Of a word without a flag: how it stands in the line that shows the usage."""

    def rows(self, columns: int) -> list[str]:
        """Lines of at most so many columns: the name, then the description beside or below it."""
        indent = " " * (_NAME_WIDTH + 2)
        wrapped = textwrap.wrap(
            self.text, columns - len(indent), break_long_words=False, break_on_hyphens=False
        )
        if len(self.name) > _NAME_WIDTH - 2:
            return [f"  {self.name}", *(indent + line for line in wrapped)]
        first, *rest = wrapped or [""]
        return [f"  {self.name:<{_NAME_WIDTH}}{first}", *(indent + line for line in rest)]


def _entries(options: type[Any]) -> dict[str, _Entry]:
    """Every option by the name of its field."""
    hints = typing.get_type_hints(options, include_extras=True)
    descriptions = _descriptions(options)
    return {
        field.name: _entry(field, hints[field.name], descriptions.get(field.name, ""))
        for field in dataclasses.fields(options)
    }


def _entry(field: "dataclasses.Field[Any]", hint: Any, description: str) -> _Entry:
    kind, marks = _without_marks(hint)
    # tyro keeps what `tyro.conf.arg` was given, and the mark of a positional, in the annotation.
    metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), None)
    text = next((mark.help for mark in marks if getattr(mark, "help", None)), None) or description
    flag, value = f"--{field.name}", metavar or _value_name(kind)
    usage = ""
    if any(mark is _POSITIONAL for mark in marks):
        name = metavar or field.name.upper()
        usage = name if field.default is dataclasses.MISSING else f"[{name}]"
    elif kind is bool:
        name = f"{flag}, --no_{field.name}" if field.default is True else flag
    else:
        name = f"{flag} {value}"
    default = _shown(field.default)
    return _Entry(name, f"{text} (default: {default})" if default else text, usage)


def _without_marks(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type that a value has, without None, and what else its annotation says."""
    marks: tuple[Any, ...] = ()
    while typing.get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType):
        if typing.get_origin(hint) is typing.Annotated:
            hint, *more = typing.get_args(hint)
            marks += tuple(more)
        else:
            hint = next(member for member in typing.get_args(hint) if member is not type(None))
    return hint, marks


def _value_name(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "{" + ",".join(str(member.value) for member in kind) + "}"
    if typing.get_origin(kind) is tuple:
        return f"{_value_name(typing.get_args(kind)[0])} ..."
    return _TYPE_NAMES.get(kind, "VALUE")


def _shown(default: Any) -> str:
    """A default as text; nothing where it would only repeat that the option was not given."""
    if default is dataclasses.MISSING or default is None or default is False:
        return ""
    if default is True:
        return "on"
    return str(default.value if isinstance(default, Enum) else default) if default != () else ""


def _grouped(options: type[Any], entries: dict[str, _Entry]) -> dict[str, list[str]]:
    """Names by the title they stand under, empty groups left out; what stands nowhere comes last."""
    groups = {title: list(names) for title, names in getattr(options, "GROUPS", {}).items()}
    placed = {name for names in groups.values() for name in names}
    rest = [name for name in entries if name not in placed]
    groups[OTHERS if groups else "options"] = rest
    return {title: names for title, names in groups.items() if names}


def _paragraphs(text: str, columns: int) -> list[str]:
    """Paragraphs of a docstring, wrapped."""
    return [
        textwrap.fill(" ".join(paragraph.split()), columns, break_on_hyphens=False)
        for paragraph in text.split("\n\n")
    ]


def _descriptions(options: type[Any]) -> dict[str, str]:
    """The docstring under each field of a dataclass and of those it is made of, on one line."""
    found: dict[str, str] = {}
    for owner in reversed(options.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for statement, following in itertools.pairwise(body):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found
