"""What a run says: one JSON object a line, tensorboard where it is installed, and a line for people."""

import contextlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_NAME = "log.jsonl"


class RunLog:
    """Writes the log of a run; silent in processes other than the first.

    Args:
        folder: of the run; an existing log is continued.
        active: whether this process writes.
        total_steps: for the progress line.
    """

    def __init__(self, folder: Path, *, active: bool, total_steps: int) -> None:
        self.active = active
        self.total_steps = total_steps
        self._progress: Any = None
        self._task: Any = None
        self._board: Any = None
        if active:
            folder.mkdir(parents=True, exist_ok=True)
            _drop_half_line(folder / LOG_NAME)
            self._file = (folder / LOG_NAME).open("a", encoding="utf-8")
            self._board = _tensorboard(folder / "tensorboard")
            self._open_progress()

    def write(self, kind: str, step: int, values: Mapping[str, float | str]) -> None:
        """Record values at a step.

        Args:
            kind: "train", "validation", "start", "note", "end".
            step: optimisation steps done.
            values: numbers go to all logs, text to the JSON lines alone.
        """
        if not self.active or not values:
            return
        record = {"kind": kind, "step": step, "time": round(time.time(), 1), **values}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        numbers = {name: value for name, value in values.items() if isinstance(value, float | int)}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        text = "  ".join(
            f"{name} {value}" if isinstance(value, str) else f"{name} {value:.4g}"
            for name, value in values.items()
        )
        self._say(f"{kind} {step}/{self.total_steps}  {text}")

    def advance(self, step: int, loss: float) -> None:
        """Move the progress bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=f"loss {loss:.4f}")

    def close(self) -> None:
        """Flush everything."""
        if not self.active:
            return
        if self._progress is not None:
            self._progress.stop()
        if self._board is not None:
            self._board.close()
        self._file.close()

    def _open_progress(self) -> None:
        """A bar on terminals only; logs of batch jobs get plain lines."""
        if not sys.stderr.isatty():
            return
        try:
            from rich.console import Console
            from rich.progress import Progress
        except ImportError:  # a bare training machine
            return
        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._progress.start()
        self._task = self._progress.add_task("training", total=self.total_steps)

    def _say(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, highlight=False)
        else:
            # A terminal that has gone, or a full disk behind it, is no reason to stop.
            with contextlib.suppress(OSError):
                print(line, file=sys.stderr, flush=True)


def _drop_half_line(path: Path) -> None:
    """Cut off what a process had written of a line when it was killed."""
    if path.is_file():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # optional: the JSON lines hold the same numbers
        return None
    return SummaryWriter(str(folder))


class Meter:
    """Means between two lines of the log, and the speed."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()
        self._samples = self._tokens = 0
        self._since = time.monotonic()

    def count(self, samples: int, tokens: int) -> None:
        """Take the size of a micro-batch."""
        self._samples += samples
        self._tokens += tokens

    def add(self, terms: Mapping[str, float]) -> None:
        """Take the results of an optimisation step; not every step has all terms."""
        self._counts.update(terms.keys())
        for name, value in terms.items():
            self._sums[name] += value

    def means(self) -> dict[str, float]:
        """Means since the last call, with samples and tokens a second of this process."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        means = {name: round(value / self._counts[name], 7) for name, value in self._sums.items()}
        means["samples_per_s"] = round(self._samples / seconds, 2)
        means["tokens_per_s"] = round(self._tokens / seconds, 1)
        self._reset()
        return means
