"""One evaluation by several processes: each measures a share of the scenes into a journal of its own."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.evaluation.records import Journal


@dataclass(frozen=True)
class Share:
    """Every `count`-th scene, beginning with number `index`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read `0/4`, the first of four.

        Raises:
            InputError: something else.
        """
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise InputError(f"Expected --shard like 0/4 (the first of four) up to 3/4, got {text!r}.")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_launcher(cls, variables: Mapping[str, str] = os.environ) -> "Share":
        """The share of a process that torchrun started; everything elsewhere."""
        return cls(int(variables.get("RANK", 0)), int(variables.get("WORLD_SIZE", 1)))

    @property
    def is_all(self) -> bool:
        """Whether there is only one process."""
        return self.count == 1

    def of(self, scenes: Sequence[str]) -> list[str]:
        """The scenes of this share."""
        return list(scenes[self.index :: self.count])

    def journal_path(self, whole: Path) -> Path:
        """Where the journal of this share lies."""
        return whole if self.is_all else whole.with_suffix(f".{self.index}of{self.count}.jsonl")


def take_over_shares(journal: Journal) -> int:
    """Add to a journal the scenes that other processes have measured; returns how many.

    Their journals lie beside it. One that is being written is read as far as it is whole.

    Raises:
        InputError: a share belongs to another run.
    """
    known = len(journal.records)
    for path in sorted(journal.path.parent.glob(f"{journal.path.stem}.*of*.jsonl")):
        for record in Journal.read_same(path, journal.identity):
            if record.scene not in journal.records:
                journal.add(record)
    return len(journal.records) - known
