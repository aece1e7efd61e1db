"""What is written down about each scene while a benchmark runs, and the journal that makes it resumable."""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError, OutputError
from g2vlm.evaluation.scores import GeometryScores
from g2vlm.scene.writing import atomic_path

JOURNAL_VERSION = 1


@dataclass(frozen=True)
class AnswerRecord:
    """One answer and its judgement."""

    sight: str
    """What the model was shown: a value of `Sight`."""
    family: str
    is_choice: bool
    """A letter was asked for; otherwise a number."""
    needs_multiple_views: bool
    question: str
    choices: tuple[str, ...]
    truth: str
    answer: str
    """What the model wrote."""
    read: str | None
    """The letter or number read from the answer; None where there is none."""
    is_right: bool
    """The right letter, or a number within 25 %."""
    mra: float | None
    """Mean relative accuracy of a number; None for choices."""
    is_missing: bool = False
    """The question is about something that is not there, or that no word of the model names."""
    score: float | None = None
    """What the benchmark's own rules give for the answer, 0 to 1; None where it has none."""


@dataclass(frozen=True)
class SceneRecord:
    """Everything measured on one scene."""

    scene: str
    """Name or seed."""
    geometry: GeometryScores | None = None
    """None where it was not asked for, or failed."""
    answers: tuple[AnswerRecord, ...] = ()
    failure: str | None = None
    """Why the geometry could not be measured."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each step."""
    baselines: dict[str, GeometryScores] = field(default_factory=dict)
    """What simple methods get on the same photos, by their names."""
    part: str = ""
    """What the scene belongs to in tables, such as a set or a category."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "SceneRecord":
        """Read what `to_json` wrote."""
        geometry = None if stored["geometry"] is None else GeometryScores.from_json(stored["geometry"])
        baselines = {
            name: GeometryScores.from_json(scores) for name, scores in stored.get("baselines", {}).items()
        }
        answers = tuple(
            AnswerRecord(**{**answer, "choices": tuple(answer["choices"])}) for answer in stored["answers"]
        )
        part = stored.get("part", "")
        return cls(stored["scene"], geometry, answers, stored["failure"], stored["seconds"], baselines, part)


class Journal:
    """One JSON line for the run, then one for each finished scene.

    A run that was interrupted continues where it stopped: finished scenes are read, not measured again. A
    line that was cut off is dropped.

    Args:
        path: created if needed, with the folders above it.
        identity: everything that decides the measurements. A journal of another identity is refused.

    Raises:
        InputError: the file belongs to another run, or is no journal.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.records: dict[str, SceneRecord] = {}
        # As JSON sees it: tuples are lists there.
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._read() if path.exists() else 0
            with path.open("r+b" if kept else "wb") as file:
                file.seek(kept)
                file.truncate()
                if not kept:
                    file.write(_line({"journal_version": JOURNAL_VERSION, "run": self.identity}))
        except OSError as error:
            raise OutputError(f"Expected to write {path}, got {error.strerror or error}.") from error

    def _read(self) -> int:
        """Read finished scenes; returns the number of bytes that hold complete lines."""
        header, records, kept = _parse(self.path)
        if header is not None:
            _check(self.path, header, self.identity)
        self.records = {record.scene: record for record in records}
        return kept

    @staticmethod
    def read_same(path: Path, identity: dict[str, Any]) -> list[SceneRecord]:
        """Finished scenes of another journal of the same run; the file is left as it is.

        Raises:
            InputError: it belongs to another run, or is no journal.
        """
        header, records, _ = _parse(path)
        if header is not None:
            _check(path, header, identity)
        return records

    def replace_all(self, records: Sequence[SceneRecord]) -> None:
        """Put other records in the place of all, completely or not at all.

        Raises:
            OutputError: the disk fails.
        """
        with atomic_path(self.path) as temporary:
            lines = [_line({"journal_version": JOURNAL_VERSION, "run": self.identity})]
            temporary.write_bytes(b"".join([*lines, *(_line(record.to_json()) for record in records)]))
        self.records = {record.scene: record for record in records}

    def add(self, record: SceneRecord) -> None:
        """Write a finished scene, on the disk when this returns.

        Raises:
            OutputError: the disk fails.
        """
        try:
            with self.path.open("ab") as file:
                file.write(_line(record.to_json()))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"Expected to write {self.path}, got {error.strerror or error}.") from error
        self.records[record.scene] = record


def _check(path: Path, header: dict[str, Any], identity: dict[str, Any]) -> None:
    if header["journal_version"] != JOURNAL_VERSION or header["run"] != identity:
        other = header["run"]
        names = [key for key in {**identity, **other} if identity.get(key) != other.get(key)]
        raise InputError(
            f"Expected {path} to belong to this run, but it was begun with other settings "
            f"({', '.join(names) or 'another version'}): remove it, or name another file."
        )


def read_records(path: Path) -> tuple[SceneRecord, ...]:
    """All finished scenes of a journal, whatever run it belongs to; the file is left as it is.

    Raises:
        InputError: the file is missing or is no journal.
    """
    try:
        return tuple(_parse(path)[1])
    except OSError as error:
        raise InputError(f"Expected a journal of an evaluation at {path}: {error.strerror}.") from error


def _parse(path: Path) -> tuple[dict[str, Any] | None, list[SceneRecord], int]:
    """Header and records of all complete lines, and how many bytes these are."""
    header, records, kept = None, [], 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            entry = json.loads(line)
            if number == 1:
                header = {"journal_version": entry["journal_version"], "run": dict(entry["run"])}
            else:
                records.append(SceneRecord.from_json(entry))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"Expected a journal of an evaluation in {path}, but line {number} is none: remove the file, "
                "or name another."
            ) from error
        kept += len(line)
    return header, records, kept


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
