"""What is done of a batch: one folder per finished scene, a note per attempt, and a table of all.

A finished scene is a folder that appears by one rename; whatever is killed before leaves nothing that counts.
Attempts are noted before the work begins, so that a scene which kills its process is given up after some of
them instead of for ever.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from g2vlm.scene.writing import MANIFEST, atomic_folder, atomic_path, check_folder

STATE_FOLDER = ".attempts"
SUMMARY = "result.json"


class State(Enum):
    """How it stands with a scene."""

    DONE = "done"
    FAILED = "failed"
    """It raised an error in its last attempt."""
    QUARANTINED = "quarantined"
    """Every attempt ended with its process, so no other is made."""
    OPEN = "open"
    """Not begun, or begun and not finished."""


@dataclass(frozen=True)
class Attempts:
    """What is known of the attempts at a scene that is not finished."""

    run: str = ""
    """The run that made the latest."""
    begun: int = 0
    """By that run."""
    earlier: int = 0
    """By other runs before."""
    error: str = ""
    """Of the last attempt, where it ended with one; empty where it ended with its process, or has not yet."""
    is_final: bool = False
    """Whether another attempt would end alike, as with a photo that is none."""


@dataclass(frozen=True)
class ResultFolder:
    """The output of a batch; any number of processes may write into it at once."""

    path: Path
    run: str
    """Name of this run, the same in all its processes: each run gives every scene its attempts anew."""
    max_attempts: int = 5
    """Attempts of one run at a scene that fails or kills its process."""

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            OutputError: it cannot be written.
        """
        check_folder(self.path / STATE_FOLDER)

    def is_done(self, scene: str) -> bool:
        """Whether a scene is finished."""
        return (self.path / scene / MANIFEST).is_file()

    def state(self, scene: str) -> State:
        """How it stands with a scene."""
        if self.is_done(scene):
            return State.DONE
        attempts = self.attempts(scene)
        if attempts.error:
            return State.FAILED
        return State.QUARANTINED if self._spent(attempts) else State.OPEN

    def is_open(self, scene: str) -> bool:
        """Whether this run should make another attempt."""
        return not self.is_done(scene) and not self._spent(self.attempts(scene))

    def is_suspect(self, scene: str) -> bool:
        """Whether an attempt was begun and neither finished nor failed: it may have killed its process."""
        attempts = self.attempts(scene)
        return attempts.begun + attempts.earlier > 0 and not attempts.error

    def _spent(self, attempts: Attempts) -> bool:
        return attempts.run == self.run and (attempts.is_final or attempts.begun >= self.max_attempts)

    def attempts(self, scene: str) -> Attempts:
        """Attempts so far; a note that cannot be read counts as none."""
        try:
            stored = json.loads(self._note(scene).read_text(encoding="utf-8"))
            return Attempts(**stored)
        except (OSError, ValueError, TypeError):
            return Attempts()

    def begin(self, scene: str) -> None:
        """Note that an attempt begins."""
        before = self.attempts(scene)
        if before.run == self.run:
            self._write(scene, replace(before, begun=before.begun + 1, error="", is_final=False))
        else:
            self._write(scene, Attempts(self.run, 1, before.earlier + before.begun))

    def fail(self, scene: str, error: str, *, is_final: bool) -> None:
        """Note that an attempt ended with an error."""
        self._write(scene, replace(self.attempts(scene), error=error or "unknown error", is_final=is_final))

    def withdraw(self, scene: str) -> None:
        """Take the beginning of an attempt back that was interrupted on purpose."""
        before = self.attempts(scene)
        if before.begun > 1 or before.earlier:
            self._write(scene, replace(before, begun=max(0, before.begun - 1)))
        else:
            self.forget(scene)

    def forget(self, scene: str) -> None:
        """Remove what is known of the attempts at a scene."""
        self._note(scene).unlink(missing_ok=True)

    @contextmanager
    def writing(self, scene: str) -> Iterator[Path]:
        """A folder to fill, which becomes the scene's when the block ends well.

        Raises:
            OutputError: it cannot be written.
        """
        with atomic_folder(self.path / scene, {"scene": scene}) as folder:
            yield folder
        self.forget(scene)

    def summary(self, scene: str) -> dict[str, Any]:
        """The row of a scene in the table."""
        state, attempts = self.state(scene), self.attempts(scene)
        row: dict[str, Any] = {"id": scene, "state": state.value}
        if state is State.DONE:
            return row | json.loads((self.path / scene / SUMMARY).read_text(encoding="utf-8"))
        return row | {"attempts": attempts.begun + attempts.earlier, "error": attempts.error}

    def write_table(self, scenes: Sequence[str]) -> Path:
        """Write the table of all scenes, as parquet where pyarrow is installed, else as JSON lines.

        Returns:
            The file.

        Raises:
            OutputError: it cannot be written.
        """
        rows = [self.summary(scene) for scene in scenes]
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError:
            with atomic_path(self.path / "results.jsonl") as temporary:
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                temporary.write_text(text, encoding="utf-8")
            return self.path / "results.jsonl"
        # All columns in every row: a table of failures has those of successes too.
        columns = (
            "id",
            "state",
            "views",
            "points",
            "bounds",
            "seconds",
            "answers",
            "files",
            "attempts",
            "error",
        )
        types = {
            "views": pyarrow.int64(),
            "points": pyarrow.int64(),
            "bounds": pyarrow.list_(pyarrow.list_(pyarrow.float64())),
            "seconds": pyarrow.float64(),
            "answers": pyarrow.list_(pyarrow.string()),
            "files": pyarrow.list_(pyarrow.string()),
            "attempts": pyarrow.int64(),
        }
        schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in columns])
        table = pyarrow.Table.from_pylist([{c: row.get(c) for c in columns} for row in rows], schema)
        with atomic_path(self.path / "results.parquet") as temporary:
            parquet.write_table(table, temporary)
        return self.path / "results.parquet"

    def _note(self, scene: str) -> Path:
        return self.path / STATE_FOLDER / f"{scene}.json"

    def _write(self, scene: str, attempts: Attempts) -> None:
        # Renamed, not flushed: after a power cut an attempt more is made, which does no harm.
        note = self._note(scene)
        temporary = note.with_name(f".{note.name}-{os.getpid()}")
        temporary.write_text(json.dumps(asdict(attempts)), encoding="utf-8")
        os.replace(temporary, note)
