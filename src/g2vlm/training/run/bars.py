"""How far reading a large file has come, on stderr: a bar at a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_S = 10.0
"""Seconds between lines, and before the first: what is done sooner needs none."""
BytesDone = Callable[[int, int], None]
"""Told (bytes read, bytes in all)."""


@contextmanager
def reading(what: str) -> Iterator[BytesDone]:
    """Show how far something has come.

    Args:
        what: is being done, such as "indexing questions.jsonl".
    """
    if not sys.stderr.isatty():
        yield _Lines(what)
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn())
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


class _Lines:
    def __init__(self, what: str) -> None:
        self._what, self._next = what, time.monotonic() + QUIET_S

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + QUIET_S
            print(f"{self._what}: {done / max(total, 1):.0%}", file=sys.stderr, flush=True)
