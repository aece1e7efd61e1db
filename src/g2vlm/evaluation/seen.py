"""What a checkpoint was trained on, by its own record, and whether a benchmark asks about the same.

A training writes `TRAINING.json` beside the weights that it exports: any `scenes` lists in it name places
(`dataset/scene`, or the scene alone), and entries that begin with `questions` are digests of question files.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError

RECORD_NAMES = ("TRAINING.json", "run.json")
_SHOWN = 5


@dataclass(frozen=True)
class TrainingRecord:
    """Places and files that a checkpoint has learned from."""

    scenes: frozenset[str] = field(default_factory=frozenset)
    files: frozenset[str] = field(default_factory=frozenset)
    """Digests, as `file_digest` makes them."""


def read_training_record(folder: Path) -> TrainingRecord:
    """The record beside the weights, or in the folder of the run that exported them; empty without one.

    Raises:
        InputError: there is a record, and it cannot be read.
    """
    places = [*(folder / name for name in RECORD_NAMES), folder.parent / RECORD_NAMES[1]]
    scenes: set[str] = set()
    files: set[str] = set()
    for path in places:
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"Expected the record of a training in {path}: {error}. Without it nobody knows what was "
                "trained on: restore it, or use --allow_seen."
            ) from error
        for name, value in _entries(content):
            if name == "scenes" and isinstance(value, list):
                scenes.update(str(scene) for scene in value)
            elif name.startswith("questions") and isinstance(value, str):
                files.add(value)
    return TrainingRecord(frozenset(scenes), frozenset(files))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """All named values at any depth."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name), item
            yield from _entries(item)
    elif isinstance(value, list):
        for item in value:
            yield from _entries(item)


def file_digest(path: Path) -> str:
    """Digest of a file's size and content, as trainings write it down."""
    digest = hashlib.sha256(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:32]


def seen_scenes(record: TrainingRecord, scenes: Sequence[str], file: Path | None = None) -> list[str]:
    """Those of a benchmark's scenes that the record names.

    A scene counts as seen where the record has its name, or that of the place it lies in (`office` for the
    group `office/0003`), with or without a data set's name in front.

    Args:
        record: of the checkpoint.
        scenes: names in the benchmark.
        file: the benchmark's question file, where it is one: if it was trained on, so was all of it.
    """
    if file is not None and record.files and file.is_file() and file_digest(file) in record.files:
        return list(scenes)
    known = {name for scene in record.scenes for name in _tails(scene)}
    return [scene for scene in scenes if known & _places(scene)]


def _tails(scene: str) -> set[str]:
    """A recorded name, and without the data set in front."""
    return {scene, scene.split("/", 1)[-1]}


def _places(scene: str) -> set[str]:
    """A benchmark's name and the folders above it: `a/b/c`, `a/b`, `a`."""
    parts = scene.split("/")
    return {"/".join(parts[:k]) for k in range(1, len(parts) + 1)}


def refuse_seen(seen: Sequence[str], total: int) -> None:
    """Stop an evaluation that would measure memory.

    Raises:
        InputError: some scenes were trained on.
    """
    if seen:
        shown = ", ".join(seen[:_SHOWN]) + (", ..." if len(seen) > _SHOWN else "")
        raise InputError(
            f"Expected scenes that the checkpoint was not trained on, but its record names {len(seen)} of "
            f"{total} ({shown}): choose others, or give --allow_seen, which marks the result."
        )
