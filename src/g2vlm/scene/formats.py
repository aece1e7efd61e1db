"""The formats that scenes can be written in, and how the name of a target chooses one.

A target is `KIND:PATH`, or a path whose ending (`room.glb`) or, for a folder, whose name (`out/colmap`) says
the kind.
"""

import difflib
import importlib.util
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from g2vlm.errors import MissingExtraError, OutputError
from g2vlm.scene.save_options import ImageFiles, SaveOptions
from g2vlm.scene.writing import atomic_path, check_file, check_folder, pack_folder, require_replaceable

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

Writer = Callable[[Any, Path, SaveOptions, Progress], None]
"""Writes a `Scene` to a path that its format allows, completely or not at all."""

ZIP = ".zip"
"""Ending by which a folder format is packed into one file."""

_KIND = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(.*)", re.DOTALL)


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Format:
    """One kind of file or folder that a scene can be written to."""

    kind: str
    """The word before the colon of `KIND:PATH`."""
    summary: str
    """What it is for, in one line."""
    write: Writer
    """Writes it."""
    endings: tuple[str, ...] = ()
    """Allowed endings of the file; none for a folder."""
    by_ending: tuple[str, ...] = ()
    """Those among the endings that choose this kind without `KIND:`."""
    module: str | None = None
    """The optional package that it imports."""
    extra: str = ""
    """What brings that package: `pip install 'g2vlm[EXTRA]'`."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder; written to a path that ends in .zip it is packed into one file."""
        return not self.endings


@dataclass(frozen=True)
class Target:
    """Where a scene is written, and in which format."""

    format: Format
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def write(self, scene: Any, options: SaveOptions, on_progress: Progress) -> None:
        """Write a scene, completely or not at all; a folder whose path ends in .zip is packed.

        Raises:
            OutputError: the place cannot be written, or there is nothing to write.
            MissingExtraError: the format needs an optional dependency.
        """
        if not self._is_packed:
            self.format.write(scene, self.path, options, on_progress)
            return
        # Links would point out of the package.
        kept = replace(options, images=ImageFiles.COPY) if options.images is ImageFiles.LINK else options
        with atomic_path(self.path) as packed, tempfile.TemporaryDirectory(prefix="g2vlm-") as folder:
            content = Path(folder) / self.path.stem
            self.format.write(scene, content, kept, on_progress)
            pack_folder(content, packed)

    def with_writer(self, write: Writer) -> "Target":
        """The same target, written by another function."""
        return replace(self, format=replace(self.format, write=write))

    @property
    def _is_packed(self) -> bool:
        return self.format.is_folder and self.path.suffix.lower() == ZIP

    def check(self) -> None:
        """Check, before long work, that the place can be written; creates the folders above it.

        Raises:
            OutputError: a folder in place of a file or the reverse, or a place that cannot be written.
            MissingExtraError: the format needs an optional dependency.
        """
        if self.format.module is not None and importlib.util.find_spec(self.format.module) is None:
            raise MissingExtraError(f"Writing {self.format.kind}", self.format.extra)
        if self.format.is_folder and not self._is_packed and os.path.exists(self.path):
            require_replaceable(self.path)
            check_folder(self.path.parent)
        else:
            check_file(self.path)


FORMATS: dict[str, Format] = {}
"""Every format at hand by its kind; `g2vlm.scene` knows `.npz`, `g2vlm.export` adds the others."""


def register(*formats: Format) -> None:
    """Make formats known; one of the same kind is replaced."""
    FORMATS.update({each.kind: each for each in formats})


def find_target(target: str | os.PathLike[str]) -> Target:
    """Tell the format that a target asks for.

    In this order: a kind before a colon; the longest ending that chooses a format, in either case; the name
    of a folder that is a folder format's kind.

    Args:
        target: `KIND:PATH` or a path.

    Raises:
        OutputError: no format fits; the message lists those that are known.
    """
    text = os.fspath(target)
    if match := _KIND.fullmatch(text):
        return _of_kind(match[1], match[2], text)
    path = Path(text)
    choosing = [(e, each) for each in FORMATS.values() for e in each.by_ending if _ends(path, e)]
    if choosing:
        return Target(max(choosing, key=lambda pair: len(pair[0]))[1], path)
    named = FORMATS.get(path.name)
    if named is not None and named.is_folder:
        return Target(named, path)
    raise OutputError(f"Expected {_choices()}, got {text!r}: the ending chooses the format.")


def _of_kind(kind: str, place: str, text: str) -> Target:
    found = FORMATS.get(kind.lower())
    if found is None:
        close = difflib.get_close_matches(kind.lower(), FORMATS, n=1)
        hint = f"did you mean {close[0]}:{place}?" if close else f"write {_choices()}."
        raise OutputError(f"Expected a known kind before the colon, got {text!r}: {hint}")
    if not place.strip():
        raise OutputError(f"Expected a path after the colon, got {text!r}: write {found.kind}:PATH.")
    path = Path(place)
    if found.endings and not any(_ends(path, ending) for ending in found.endings):
        raise OutputError(f"Expected a {found.kind} file ending in {_or(found.endings)}, got {place!r}.")
    return Target(found, path)


def _ends(path: Path, ending: str) -> bool:
    """Whether a file name has an ending, and something before it."""
    name = path.name.lower()
    return name.endswith(ending) and len(name) > len(ending)


def _or(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _choices() -> str:
    endings = sorted({ending for each in FORMATS.values() for ending in each.by_ending})
    folders = sorted(each.kind for each in FORMATS.values() if each.is_folder)
    text = f"a file ending in {', '.join(endings)}"
    if folders:
        text += (
            f"; a folder named {', '.join(folders)}; or KIND:PATH with any of {', '.join(sorted(FORMATS))}"
        )
    return text
